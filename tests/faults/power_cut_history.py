"""What was done to the files of a workspace, call by call, and the tree of files that it adds up to."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = 0
#: Stands in names for what tells one outputs/ from another: see `hotfolder.markers`. Every copy has its own.
IDENTITY: Final = "IDENTITY"

#: (node of the folder, name in it).
Slot = tuple[int, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """Names were given, moved or taken by one call: what each of them leads to now; None: nothing."""

    changes: tuple[tuple[Slot, int | None], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """Bytes of a file were written."""

    node: int
    offset: int
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Resize:
    """A file was cut off, or filled up with zeros."""

    node: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sync:
    """A file or a folder was flushed: on disk is what was done to it before `began`, the place of the call's begin."""

    node: int
    began: int


Change = Names | Write | Resize
Operation = Change | Sync


@dataclass(frozen=True, kw_only=True)
class History:
    """All that happened, in order. Files and folders are nodes, whatever their names; the workspace is `ROOT`."""

    operations: tuple[Operation, ...]
    #: So many of the first operations were on disk for good before anything else began.
    settled: int
    folders: frozenset[int]
    #: Nanoseconds of what users dropped: jobs are told apart by them.
    times: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class File:
    """A file of a tree; `mtime_ns` is None where it does not matter."""

    data: bytes
    mtime_ns: int | None = None


#: Path below the workspace -> file; None: a folder. Two names of one file have the same object.
Tree = dict[str, File | None]


def replay(history: History) -> Tree:
    """Return the tree after all operations."""
    names: dict[Slot, int | None] = {}
    contents: dict[int, bytes] = {}
    for operation in history.operations:
        match operation:
            case Names(changes=changes):
                names.update(changes)
            case Write() | Resize():
                contents[operation.node] = apply(contents.get(operation.node, b""), operation)
            case Sync():
                pass
    return grow(history, names, lambda node: contents.get(node, b""))


def apply(data: bytes, change: Write | Resize) -> bytes:
    """Return what a file holds after a change; a hole is full of zeros."""
    match change:
        case Write(offset=offset, data=new):
            return data[:offset].ljust(offset, b"\0") + new + data[offset + len(new) :]
        case Resize(size=size):
            return data[:size].ljust(size, b"\0")


def grow(history: History, names: Mapping[Slot, int | None], content: Callable[[int], bytes]) -> Tree:
    """Return the tree that these names lead to.

    A folder that two names lead to keeps the first of them, as `fsck` would have it.
    """
    below: dict[int, list[tuple[str, int]]] = {}
    for (folder, name), node in names.items():
        if node is not None:
            below.setdefault(folder, []).append((name, node))
    tree: Tree = {}
    seen = {ROOT}
    files: dict[int, File] = {}

    def walk(folder: int, path: str) -> None:
        for name, node in below.get(folder, ()):
            if node not in history.folders:
                if node not in files:
                    files[node] = File(content(node), history.times.get(node))
                tree[path + name] = files[node]
            elif node not in seen:
                seen.add(node)
                tree[path + name] = None
                walk(node, f"{path}{name}/")

    walk(ROOT, "")
    return tree


def digest(tree: Tree) -> str:
    """Return what tells a tree from every other."""
    hasher = hashlib.sha256()
    for path in sorted(tree):
        file = tree[path]
        told = "-" if file is None else f"{file.mtime_ns} {hashlib.sha256(file.data).hexdigest()}"
        hasher.update(f"{path}\0{told}\0".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


def read_tree(workspace: Path) -> Tree:
    """Return the tree that stands on disk; of what lies in the inbox the times count too."""
    identity = identity_of(workspace)
    tree: Tree = {}
    files: dict[int, File] = {}
    for path in _walk(workspace):
        below = str(path.relative_to(workspace)).replace(identity, IDENTITY)
        found = path.stat()
        if path.is_dir():
            tree[below] = None
            continue
        if found.st_ino not in files:
            counts = below.startswith("jobs_inbox/")
            files[found.st_ino] = File(path.read_bytes(), found.st_mtime_ns if counts else None)
        tree[below] = files[found.st_ino]
    return tree


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir():
            yield from _walk(path)


def write_tree(tree: Tree, workspace: Path) -> None:
    """Put a tree into a workspace whose folders are empty."""
    for path in sorted(tree):
        file = tree[path]
        if file is None:
            (workspace / path).mkdir(parents=True, exist_ok=True)
    identity = identity_of(workspace)
    written: dict[int, Path] = {}
    for path, file in tree.items():
        if file is not None and id(file) in written:
            (workspace / path).hardlink_to(written[id(file)])
        elif file is not None:
            written[id(file)] = workspace / path
            (workspace / path).write_bytes(file.data)
            if file.mtime_ns is not None:
                os.utime(workspace / path, ns=(file.mtime_ns, file.mtime_ns))
    for path in sorted(tree):
        if path.endswith((IDENTITY, f"{IDENTITY}.new")):
            (workspace / path).rename(workspace / path.replace(IDENTITY, identity))


def identity_of(workspace: Path) -> str:
    """Return the name under which the live markers of this outputs/ stand."""
    outputs = workspace / "outputs"
    return f"{os.statvfs(outputs).f_fsid:x}-{outputs.stat().st_ino:x}"
