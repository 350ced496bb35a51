"""What a power cut may leave of a history: a model of two file systems.

*Ordered*, as ext4 with data=ordered and XFS are. Changes of names go through one journal: what reaches the disk of
them is what was done first, up to some point, which is no earlier than the last finished fsync of any file or folder,
since that commits the journal. Each change of names is whole or not there. The data of a file are another matter: they
are allocated late, so that a file which was never flushed may be empty under its final name, or end at a page (the size
grows only once the data are written: no zeros, nothing of other files), and fsync of one file does not flush another.
The size that grows is a change in the same journal: what was added to a file is there only with all names before it.
So the states of a cut are all names before it and, of each file that was not flushed, any part; a shorter run of names
is what an earlier cut leaves. Written over in place, without these bounds, are only caches.
Sources: Documentation/filesystems/ext4 of the Linux kernel ("data=ordered", "delalloc"); Ts'o, "Delayed allocation and
the zero-length file problem" (2009); Chidambaram et al., "Optimistic Crash Consistency" (SOSP 2013).

*Weak*, as POSIX allows at its least. Data survive once their file was flushed, a name once its folder was flushed;
anything else may be there or not, in any combination. A rename is two changes, of which one alone may survive, even in
the same folder: ext2 writes them as two entries, which may lie in two blocks. Of what was written last to a file a half
may be there, or zeros in its place, where the size reached the disk and the data did not. Only what was done to one
name stays in order, since it is one place on the disk.
Source: the abstract persistence model of ALICE, Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014),
in its weakest form, and weaker in that the write of a block may be torn.

In both, what was done while an fsync ran is not covered by it. A power cut in the middle of a call leaves what it may
leave before or after it, so that it is enough to look between the calls.

Neither model goes through combinations of operations: what a name leads to and what a file holds are *choices*, each
with the values that the subsets of the operations on it can leave, and every combination of choices is a state. So all
subsets are met, and each result only once. Files that are views, of which a start reads nothing but what it would make
again, are one choice together: otherwise the states that differ in nothing else would hide the others.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from power_cut_history import ROOT, History, Names, Resize, Slot, Sync, Tree, Write, apply, grow

#: All subsets of this many operations.
ALL_UP_TO: Final = 2**12
_PAGE: Final = 4096
#: Of so many writes to one file, all subsets; of more, those that are left when some of the last are lost.
_SUBSETS_UP_TO: Final = 3

#: What a name leads to, or what a file holds.
Value = int | bytes | None
#: A name, or the node of a file.
Key = Slot | int


@dataclass(frozen=True, kw_only=True)
class Choices:
    """All that a power cut at one place may leave."""

    history: History
    #: Where the power was cut: after so many operations.
    cut: int
    #: What is sure.
    sure: Mapping[Key, Value]
    #: One element is chosen of each, and all that stands in it holds.
    open: Sequence[Sequence[Mapping[Key, Value]]]

    @property
    def count(self) -> int:
        """How many combinations there are."""
        return math.prod(len(values) for values in self.open)

    def all(self) -> Iterator[Tree]:
        """Yield the tree of each combination."""
        for chosen in itertools.product(*self.open):
            yield self._tree(chosen)

    def sample(self, count: int, chance: random.Random) -> Iterator[Tree]:
        """Yield the trees of so many combinations, drawn; of all, where there are no more."""
        if self.count <= count:
            yield from self.all()
            return
        for _ in range(count):
            yield self._tree([chance.choice(values) for values in self.open])

    def _tree(self, chosen: Sequence[Mapping[Key, Value]]) -> Tree:
        values = dict(self.sure)
        for one in chosen:
            values.update(one)
        names = {key: value for key, value in values.items() if isinstance(key, tuple) and not isinstance(value, bytes)}

        def content(node: int) -> bytes:
            found = values.get(node, b"")
            return found if isinstance(found, bytes) else b""

        return grow(self.history, names, content)


Model = Callable[[History, int, Callable[[str], bool]], Choices]


def ordered(history: History, cut: int, is_view: Callable[[str], bool]) -> Choices:
    """Return what an ordered file system may leave after the first `cut` operations.

    Args:
        is_view: whether the file of this path, below the workspace, is a view.
    """
    names: dict[Key, list[Value]] = {}
    for operation in history.operations[:cut]:
        if isinstance(operation, Names):
            names.update({slot: [node] for slot, node in operation.changes})
    contents: dict[Key, list[Value]] = {
        node: _ends(sure, changes) for node, (sure, changes) in _writes(history, cut).items()
    }
    return _choices(history, cut, names | contents, is_view)


def weak(history: History, cut: int, is_view: Callable[[str], bool]) -> Choices:
    """Return what a weak file system may leave after the first `cut` operations; `is_view` as in `ordered`."""
    flushed = _flushes(history, cut)
    values: dict[Key, list[Value]] = {}
    for place, operation in enumerate(history.operations[:cut]):
        if isinstance(operation, Names):
            for slot, node in operation.changes:
                if place < flushed.get(slot[0], history.settled):
                    values[slot] = [node]
                else:
                    values.setdefault(slot, [None]).append(node)
    values |= {node: _leftovers(sure, changes) for node, (sure, changes) in _writes(history, cut).items()}
    return _choices(history, cut, values, is_view)


MODELS: Final[Mapping[str, Model]] = {"ordered": ordered, "weak": weak}


def _flushes(history: History, cut: int) -> dict[int, int]:
    """Return for each node that was flushed: what was done to it before this place is on disk."""
    found: dict[int, int] = {}
    for operation in history.operations[:cut]:
        if isinstance(operation, Sync):
            found[operation.node] = max(operation.began, found.get(operation.node, history.settled))
    return found


def _writes(history: History, cut: int) -> dict[int, tuple[bytes, list[Write | Resize]]]:
    """Return for each file what it holds for sure, and what else was written to it, in order."""
    flushed = _flushes(history, cut)
    found: dict[int, tuple[bytes, list[Write | Resize]]] = {}
    for place, operation in enumerate(history.operations[:cut]):
        if isinstance(operation, Write | Resize):
            sure, later = found.get(operation.node, (b"", []))
            if place < flushed.get(operation.node, history.settled):
                found[operation.node] = (apply(sure, operation), later)
            else:
                later.append(operation)
                found[operation.node] = (sure, later)
    return found


def _ends(sure: bytes, changes: Sequence[Write | Resize]) -> list[Value]:
    """Return what a file may hold whose data reach the disk page by page, from its begin on."""
    data = sure
    found: list[Value] = [data]
    for change in changes:
        if isinstance(change, Write):
            begins, ends = change.offset, change.offset + len(change.data)
            pages = range(begins - begins % _PAGE + _PAGE, ends, _PAGE)
            found += [apply(data, Write(node=0, offset=begins, data=change.data[: page - begins])) for page in pages]
        data = apply(data, change)
        found.append(data)
    return found


def _leftovers(sure: bytes, changes: Sequence[Write | Resize]) -> list[Value]:
    """Return what any subset of the changes leaves of a file, the last of them whole, torn, or zeros."""
    found: list[Value] = [sure]
    for subset in _subsets(changes):
        data = sure
        for change in subset[:-1]:
            data = apply(data, change)
        last = subset[-1]
        if isinstance(last, Write):
            half = Write(node=0, offset=last.offset, data=last.data[: len(last.data) // 2])
            zeros = Write(node=0, offset=last.offset, data=bytes(len(last.data)))
            found += [apply(data, half), apply(data, zeros)]
        found.append(apply(data, last))
    return found


def _subsets(changes: Sequence[Write | Resize]) -> Iterator[Sequence[Write | Resize]]:
    if len(changes) > _SUBSETS_UP_TO:
        yield from (changes[:count] for count in range(1, len(changes) + 1))
        return
    for count in range(1, len(changes) + 1):
        yield from itertools.combinations(changes, count)


def _choices(history: History, cut: int, values: Mapping[Key, list[Value]], is_view: Callable[[str], bool]) -> Choices:
    """Return the choices among what each name and file may be; only of what some name may lead to."""
    paths = _paths(history, values)
    reached = {key: found for key, found in values.items() if key in paths}
    views = {key: found for key, found in reached.items() if len(found) > 1 and all(map(is_view, paths[key]))}
    others = {key: found for key, found in reached.items() if len(found) > 1 and key not in views}
    choices: list[Sequence[Mapping[Key, Value]]] = [
        [{key: value} for value in dict.fromkeys(found)] for key, found in others.items()
    ]
    if views:
        choices.append(_together(views))
    return Choices(
        history=history,
        cut=cut,
        sure={key: found[0] for key, found in reached.items() if len(found) == 1},
        open=choices,
    )


def _paths(history: History, values: Mapping[Key, list[Value]]) -> dict[Key, list[str]]:
    """Return every path of each name and file that can be reached from the workspace."""
    below: dict[int, list[tuple[Slot, list[Value]]]] = {}
    for key, found in values.items():
        if isinstance(key, tuple):
            below.setdefault(key[0], []).append((key, found))
    paths: dict[Key, list[str]] = {}

    def walk(folder: int, path: str) -> None:
        for slot, found in below.get(folder, ()):
            paths.setdefault(slot, []).append(path + slot[1])
            for node in dict.fromkeys(found):
                if isinstance(node, int):
                    paths.setdefault(node, []).append(path + slot[1])
                    if node in history.folders:
                        walk(node, f"{path}{slot[1]}/")

    walk(ROOT, "")
    return paths


def _together(views: Mapping[Key, list[Value]]) -> list[Mapping[Key, Value]]:
    """Return four states of all views at once: as new, as old, names without data, and files that are torn."""
    is_name = {key: isinstance(key, tuple) for key in views}
    return [
        {key: found[-1] for key, found in views.items()},
        {key: found[0] for key, found in views.items()},
        {key: found[-1] if is_name[key] else found[0] for key, found in views.items()},
        {key: found[-1] if is_name[key] else found[len(found) // 2] for key, found in views.items()},
    ]
