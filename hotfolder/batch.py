"""Batches: `[matrix]` and lists of items, as axes of a plan."""

import csv
import fnmatch
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final

from hotfolder import tomltext
from hotfolder.errors import Problem, Rejected
from hotfolder.kindkeys import KIND_KEYS, PICTURE_KEYS
from hotfolder.names import shown

#: Keys of a job that hold for all of it.
NO_AXES: Final = frozenset(
    {"pipeline", "count", "priority", "items", "title", "project", "meta", "schedule", "stages", "stage", "matrix"}
)
#: Keys whose cells in a list are text, whatever they look like.
_TEXT_KEYS: Final = frozenset({"prompt", "negative_prompt", "preset", "aspect", "loras", *PICTURE_KEYS})
#: What most cells are, as TOML writes it.
_WHOLE_NUMBER: Final = re.compile(r"-?(0|[1-9]\d{0,17})", re.ASCII)
#: What an axis for the key of a stage begins with: "stage.crop.padding".
STAGE_AXIS: Final = "stage."
_GLOB_MARKS: Final = frozenset("*?[")
_MAX_CELL: Final = 20_000
_MAX_PROBLEMS: Final = 100
_MAX_COLUMNS: Final = 200


@dataclass(frozen=True, kw_only=True)
class AxisSaid:
    """One axis as the job says it, its values not checked yet."""

    key: str
    values: tuple[Any, ...]
    columns: tuple[str, ...] = ()
    #: Of a list: where each value stands in it, counted from 1.
    lines: tuple[int, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that it sets: one, or those of its columns."""
        return self.columns or (self.key,)

    def at(self, index: int) -> dict[str, Any]:
        """Return what the value at `index`, from 0, sets."""
        if self.columns:
            return {key: value for key, value in zip(self.columns, self.values[index], strict=True) if value != []}
        return {self.key: self.values[index]}


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a batch needs from the inbox before its items are known."""

    #: The list of items, as it was copied.
    items: bytes | None = None
    #: One with more items than this is refused before they are looked at.
    most: int = 1_000_000
    #: Glob -> the names that matched.
    matches: Mapping[str, Sequence[str]] = field(default_factory=dict)


def is_glob(value: object) -> bool:
    """Whether a picture is named by a pattern, such as "*.png"."""
    return isinstance(value, str) and any(mark in value for mark in _GLOB_MARKS)


def read_matrix(table: object, found: Found) -> tuple[list[AxisSaid], list[tuple[str, str, str]]]:
    """Read `[matrix]`.

    Returns: the axes in the order in which they stand, those that still wait for what their glob finds left out; and of
        each problem the key, the message and the hint.
    """
    if not isinstance(table, dict):
        return [], [("", "matrix: a table is accepted: a line [matrix], and its keys below", "")]
    if sum(1 for _ in _flat(table)) > _MAX_COLUMNS:
        return [], [("", f"matrix: more than {_MAX_COLUMNS} keys", "")]
    axes, problems = [], []
    for key, said in _flat(table):
        values = said
        if key in PICTURE_KEYS and is_glob(said):
            if said not in found.matches:
                continue
            values = list(found.matches[said])
        top = key.partition(".")[0]
        if top in NO_AXES - {"stage"}:
            problems.append((key, f"{key} cannot differ from item to item", "it holds for the whole job: put it above"))
        elif not isinstance(values, list) or not values:
            hint = f"{key} = [1, 2], say" + (', or a pattern such as "*.png"' if key in PICTURE_KEYS else "")
            problems.append((key, f"matrix.{shown(key)}: a list of values is accepted", hint))
        elif any(isinstance(value, dict) for value in values):
            problems.append((key, f"matrix.{shown(key)}: tables are no values", ""))
        else:
            axes.append(AxisSaid(key=key, values=tuple(values)))
    return axes, problems


def globs_of(matrix: object) -> list[str]:
    """Return the patterns by which a matrix names pictures."""
    if not isinstance(matrix, dict):
        return []
    return [value for key, value in matrix.items() if key in PICTURE_KEYS and is_glob(value)]


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value; [matrix.stage.crop] is the same as "stage.crop.padding" in quotes."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_items(found: Found, name: str) -> tuple[AxisSaid | None, list[Problem]]:
    """Read a list of items: a table (`.csv`) whose columns are keys, or a text file with a prompt on each line."""
    data = found.items or b""
    shown_name = shown(name)
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return None, [_problem("bad-encoding", f"{shown_name}, line {line}: no UTF-8", "save it as UTF-8")]
    if not name.lower().endswith(".csv"):
        lines = enumerate(_lines(text), 1)
        said = ((number, line.strip()) for number, line in lines if line.strip() and not line.startswith("#"))
        prompts = dict(islice(said, found.most + 1))
        if len(prompts) > found.most:
            return None, [_too_many(shown_name, found.most)]
        if not prompts:
            return None, [_problem("bad-value", f"{shown_name} has no prompt in it", "a line each")]
        values = tuple([prompt] for prompt in prompts.values())
        return AxisSaid(key="items", columns=("prompt",), values=values, lines=tuple(prompts)), []
    return _read_csv(text, shown_name, found.most)


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text one by one: there may be millions."""
    begins = 0
    while (ends := text.find("\n", begins)) >= 0:
        yield text[begins:ends]
        begins = ends + 1
    yield text[begins:]


def _too_many(name: str, most: int) -> Problem:
    hint = "split it, or raise max_candidates in [batch] of hotfolder.toml"
    return _problem("bad-value", f"{name} has more than {most} items, the most candidates that are accepted", hint)


def _read_csv(text: str, name: str, most: int) -> tuple[AxisSaid | None, list[Problem]]:
    # What csv.Sniffer does takes time that grows with the square of a line.
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    try:
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        #: Of each line that is not empty: where it ends in the file, and its cells.
        lines = list(islice(((reader.line_num, row) for row in reader if any(row)), most + 2))
    except csv.Error as error:
        return None, [_problem("bad-syntax", f"{name}: {error}", "quotes inside a cell are doubled")]
    if len(lines) < 2:  # noqa: PLR2004 - the head and one item
        return None, [
            _problem("bad-value", f"{name} has no items", "the first line names the keys, then one item a line")
        ]
    if len(lines) > most + 1:
        return None, [_too_many(name, most)]
    columns = tuple(cell.strip() for cell in lines[0][1])
    if len(columns) > _MAX_COLUMNS:
        return None, [_problem("bad-value", f"{name}: {len(columns)} columns; at most {_MAX_COLUMNS} are accepted")]
    problems = []
    for column in columns:
        if column.partition(".")[0] in NO_AXES - {"stage"}:
            problems.append(_problem("bad-value", f"{name}: {shown(column)} cannot differ from item to item"))
        elif not column or columns.count(column) > 1:
            problems.append(_problem("bad-value", f"{name}: the column {shown(column)!r} stands twice, or has no name"))
    if problems:
        return None, problems[:_MAX_PROBLEMS]
    rows = {}
    for number, cells in lines[1:]:
        if len(cells) != len(columns):
            found = f"{name}, line {number}: {len(cells)} cells; the first line has {len(columns)}"
            problems.append(_problem("bad-value", found, "a cell with a comma stands in quotes"))
            continue
        rows[number] = [_cell(column, cell) for column, cell in zip(columns, cells, strict=True)]
    # What is wrong in the other lines is told too.
    axis = AxisSaid(key="items", columns=columns, values=tuple(rows.values()), lines=tuple(rows)) if rows else None
    return axis, problems[:_MAX_PROBLEMS]


def _cell(column: str, text: str) -> object:
    """Return what a cell says: text for prompts and names, else what TOML makes of it; [] where it is empty."""
    text = text.strip()[:_MAX_CELL]
    if not text:
        return []
    if column in _TEXT_KEYS or column.endswith((".prompt", ".negative_prompt", ".text", ".label")):
        return text
    if _WHOLE_NUMBER.fullmatch(text):
        return int(text)
    try:
        return tomltext.parse(f"value = {text}".encode()).table["value"]
    except Rejected:
        return text


def is_axis_key(key: str) -> bool:
    """Whether a key of some kind can be an axis; keys of stages are looked at with their stage."""
    return key not in NO_AXES and any(key in keys.model_fields for keys in KIND_KEYS.values())


def items_of(axes: Sequence[AxisSaid]) -> int:
    """Return how many items the axes make."""
    return math.prod(len(axis.values) for axis in axes)


def matches(inbox: Path, lane: str, pattern: str) -> list[tuple[str, os.stat_result]]:
    """Return the pictures that a pattern names, sorted, and what they are like now: beside the job, else in the inbox.

    Links, hidden files and what has no name that we can write are left out. The pattern's folders are plain names.
    """
    path = PurePosixPath(pattern)
    for base in dict.fromkeys((inbox / lane, inbox)):
        folder = base.joinpath(*path.parts[:-1])
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        found = []
        for entry in entries:
            if entry.name.startswith((".", "~")) or not fnmatch.fnmatchcase(entry.name, path.name):
                continue
            if entry.name.isprintable() and entry.is_file(follow_symlinks=False):
                name = str(PurePosixPath(*path.parts[:-1], entry.name))
                # What begins with @ would be the picture of another job.
                found.append((f"./{name}" if name.startswith("@") else name, entry.stat(follow_symlinks=False)))
        if found:
            return found
    return []


def _problem(code: str, message: str, hint: str = "") -> Problem:
    return Problem(code=code, message=message, hint=hint)
