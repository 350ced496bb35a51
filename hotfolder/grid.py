"""How the candidates of a job stand on its pages: as a grid over the axes of a batch, or as a list with labels."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from hotfolder import cards, parts
from hotfolder.cards import ShownCandidate
from hotfolder.markup import NOTHING, Html, bdi, join, tag
from hotfolder.parts import Thumbnail

#: Pictures on one page of a contact sheet.
PAGE_PICTURES: Final = 500
#: Values of an axis that can stand across; below it others, or alone.
_MAX_COLUMNS: Final = 16
_MAX_ALONE: Final = 8
#: Columns that are sure to fit on a screen: their heads then stay in sight.
_FEW_COLUMNS: Final = 6
#: Candidates of an item beside each other.
_MAX_BESIDE: Final = 4
#: Characters of a value at the head of a row, or over a picture.
_MAX_HEAD: Final = 90

#: Gives a candidate by its number.
Candidates = Callable[[int], ShownCandidate]


@dataclass(frozen=True, kw_only=True)
class Head:
    """One value of an axis."""

    #: Key and value; of a list of items one for each column.
    facts: Sequence[tuple[str, str]]
    #: Path of the picture that it names, relative to the job's folder.
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class ShownAxis:
    """One axis of a batch."""

    key: str
    size: int
    #: Gives the value at an index, from 0.
    head: Callable[[int], Head]
    #: Whether it is a list of items, each with values for several keys.
    is_list: bool = False


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each candidate stands. Items are counted from 0 here, candidates from 1."""

    #: Axes that differ from heading to heading, from row to row, and from column to column.
    sections: Sequence[ShownAxis] = ()
    down: ShownAxis | None = None
    across: ShownAxis | None = None
    #: What is written over each item, where the items stand in a list.
    label: ShownAxis | None = None
    #: Candidates of an item, of all items, and of a page.
    per_item: int = 1
    candidates: int = 0
    per_page: int = PAGE_PICTURES

    @property
    def pages(self) -> int:
        """How many there are, at least 1."""
        return max(1, -(-self.candidates // self.per_page))

    def page_of(self, candidate: int) -> int:
        """Return the page of a candidate."""
        return (candidate - 1) // self.per_page + 1

    def on_page(self, page: int) -> range:
        """Return the candidates of a page."""
        return range((page - 1) * self.per_page + 1, min(page * self.per_page, self.candidates) + 1)


def lay_out(axes: Sequence[ShownAxis], *, per_item: int, candidates: int, pictures_each: int = 1) -> Layout:
    """Decide where the candidates of a job stand.

    Args:
        axes: in the order of the plan: the last one runs quickest.
        pictures_each: how many pictures a candidate has in the end.
    """
    limit = max(1, PAGE_PICTURES // max(1, pictures_each))
    varying = [axis for axis in axes if axis.size > 1]
    last = varying[-1] if varying else None
    most = _MAX_ALONE if len(varying) == 1 else _MAX_COLUMNS
    if last is not None and not last.is_list and last.size <= most and last.size * per_item <= limit:
        return Layout(
            sections=varying[:-2],
            down=varying[-2] if len(varying) > 1 else None,
            across=last,
            per_item=per_item,
            candidates=candidates,
            per_page=_whole(last.size * per_item, limit),
        )
    return Layout(
        sections=varying[:-1],
        label=last,
        per_item=per_item,
        candidates=candidates,
        per_page=_whole(per_item, limit),
    )


def _whole(unit: int, limit: int) -> int:
    """Return how many candidates a page takes, so that no row or item is torn, if it can be helped."""
    return limit // unit * unit if unit <= limit else limit


def draw(layout: Layout, page: int, candidate: Candidates, thumbnail: Thumbnail) -> Html:
    """Return the candidates of a page."""
    per_section = math.prod(axis.size for axis in (layout.down, layout.across, layout.label) if axis is not None)
    found = []
    for section, numbers in groupby(
        layout.on_page(page), lambda number: (number - 1) // layout.per_item // per_section
    ):
        items = [
            (item, [candidate(number) for number in of])
            for item, of in groupby(numbers, lambda number: (number - 1) // layout.per_item)
        ]
        if layout.sections:
            found.append(tag("h3", *_section_head(layout.sections, section)))
        if layout.across is not None:
            found.append(_table(layout, layout.across, items, thumbnail))
        else:
            found.append(_list(layout, items, thumbnail))
    return join(*found)


def _section_head(sections: Sequence[ShownAxis], index: int) -> Iterator[Html]:
    heads = []
    for axis in reversed(sections):
        index, at = divmod(index, axis.size)
        heads.append(axis.head(at))
    for number, head in enumerate(reversed(heads)):
        for key, value in head.facts:
            yield tag("span", f"{key} ", class_="soft")
            yield _value(value)
        if number < len(heads) - 1:
            yield Html(" &#183; ")


# -- as a grid


def _table(
    layout: Layout, across: ShownAxis, items: Sequence[tuple[int, Sequence[ShownCandidate]]], thumbnail: Thumbnail
) -> Html:
    heads = [across.head(index) for index in range(across.size)]
    down, right = "\N{DOWNWARDS ARROW}", "\N{RIGHTWARDS ARROW}"
    corner = "" if layout.down is None else f"{layout.down.key} {down}\n{across.key} {right}"
    first = tag("th", corner, scope="col", class_="corner") if layout.down is not None else NOTHING
    columns = [tag("th", _head(head, thumbnail, named=layout.down is None), scope="col") for head in heads]
    rows = []
    for row, of in groupby(items, lambda item: item[0] // across.size):
        cells = [
            tag(
                "td",
                tag("p", _at(heads[item % across.size]), class_="at"),
                tag("div", *(cards.card(one, thumbnail) for one in candidates), class_="cell"),
            )
            for item, candidates in of
        ]
        head = NOTHING
        if layout.down is not None:
            head = tag(
                "th", _head(layout.down.head(row % layout.down.size), thumbnail, named=layout.down.is_list), scope="row"
            )
        rows.append(tag("tr", head, *cells))
    # A cell is as wide as its pictures beside each other.
    beside = min(_MAX_BESIDE, math.ceil(math.sqrt(layout.per_item)))
    table = tag("table", tag("thead", tag("tr", first, *columns)), tag("tbody", *rows), class_="matrix")
    wide = across.size * beside > _FEW_COLUMNS
    size = f"--across: {across.size}; --beside: {beside}"
    single = " single" if layout.per_item == 1 else ""
    if not wide:
        return tag("div", table, class_=single.strip(), style=size)
    # What scrolls must be reached by the keyboard too.
    return tag(
        "div",
        table,
        class_=f"scroll wide-matrix{single}",
        style=size,
        tabindex="0",
        role="region",
        aria_label="Pictures",
    )


def _head(head: Head, thumbnail: Thumbnail, *, named: bool) -> Html:
    """Return a value at the head of a row or a column, with the picture that it names; `named`: with its key."""
    words = [
        # Unnamed, its key stands in the corner; a narrow screen has none, and there the style sheet writes it here.
        tag("div", tag("span", f"{key} ", class_="soft"), _value(value))
        if named
        else tag("div", _value(value), class_="key", data_key=key)
        for key, value in head.facts
    ]
    small = NOTHING
    if head.file is not None:
        small = parts.well(head.file, thumbnail, f"source {head.facts[0][1]}", instead="no preview")
    return tag("div", small, *words, class_="axis-head")


def _at(head: Head) -> Html:
    return join(*(join(tag("span", f"{key} ", class_="soft"), _value(value)) for key, value in head.facts))


def _value(value: str) -> Html:
    """Return a value, cut short; the whole is its tooltip."""
    text = " ".join(value.split())
    return bdi(text) if len(text) <= _MAX_HEAD else tag("bdi", f"{text[: _MAX_HEAD - 3]}...", title=value)


# -- as a list


def _list(layout: Layout, items: Sequence[tuple[int, Sequence[ShownCandidate]]], thumbnail: Thumbnail) -> Html:
    label = layout.label
    if label is None:
        return tag("div", *(cards.card(one, thumbnail) for _, found in items for one in found), class_="grid")
    labelled = [
        (_head(label.head(item % label.size), thumbnail, named=True), [cards.card(one, thumbnail) for one in found])
        for item, found in items
    ]
    if layout.per_item == 1:
        return tag("div", *(tag("section", head, *found, class_="item") for head, found in labelled), class_="grid")
    many = [tag("section", head, tag("div", *found, class_="cell"), class_="item many") for head, found in labelled]
    return tag("div", *many, class_="items", style=f"--beside: {min(layout.per_item, _MAX_BESIDE)}")
