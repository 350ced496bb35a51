"""The recorder: every call by which a traced program changes files of a workspace, with all data, as a History.

It misses nothing, for three reasons. strace follows every thread and child, and is asked for every system call of Linux
that can change what files hold, what names lead to, or what is durable. A call among them that this recorder cannot
take in, on a path or descriptor of the workspace, raises `NotRecorded` instead of being skipped; so does a mapping that
could be written through, but for two caches that are named below. And `record` replays what it took down and compares
the result with what stands on disk, byte for byte. Times and rights of files are not recorded: nothing asks for those
of files that the daemon wrote.
"""

import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from power_cut_history import (
    IDENTITY,
    ROOT,
    File,
    History,
    Names,
    Operation,
    Resize,
    Slot,
    Sync,
    Tree,
    Write,
    identity_of,
    read_tree,
    replay,
)
from power_cut_trace import Call, calls, data_of, descriptor_of, path_of, text_of

from hotfolder.daemon import NOT_COMPLETED, OK

#: What can change files or make changes durable; and what is needed to know which file a descriptor means.
_CALLS: Final = (
    "open,openat,openat2,creat,close,close_range,dup,dup2,dup3,fcntl,lseek,chdir,fchdir,"
    "write,writev,pwrite64,pwritev,pwritev2,sendfile,copy_file_range,splice,truncate,ftruncate,fallocate,mmap,"
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,mknod,mknodat,"
    "fsync,fdatasync,sync,syncfs,sync_file_range,msync,io_uring_setup"
)
#: Bytes of one call that are written down; more is refused.
_ALL_DATA: Final = 1 << 24
#: Mapped to be written through: the note of the running cell, which is only believed within one boot, and SQLite's
#: shared memory, which it makes again.
_MAPPED: Final = frozenset({".hotfolder/running", ".hotfolder/gallery.sqlite-shm"})
#: The program runs there, so that relative names are known.
_CWD: Final = "/"


class NotRecorded(Exception):
    """Something was done to a file that cannot be taken down, or lines came in another order than the calls."""


def record(
    strace: str, workspace: Path, command: Sequence[str], environ: Mapping[str, str], *, unflushed: Collection[str] = ()
) -> History:
    """Run a command on a workspace and return what it did there.

    Args:
        unflushed: files that lie there, by their paths below the workspace, though nothing makes them last.

    Raises:
        NotRecorded: what was taken down does not add up to what stands on disk; or the program failed.
    """
    before = read_tree(workspace)
    trace = workspace.with_name(f"{workspace.name}.trace")
    options = [
        "-f",
        "--seccomp-bpf",
        "-y",
        "-xx",
        "-qq",
        "-s",
        str(_ALL_DATA),
        "-o",
        str(trace),
        "-e",
        f"trace={_CALLS}",
    ]
    done = subprocess.run(
        [strace, *options, *command],
        env={**os.environ, **environ},
        cwd=_CWD,
        check=False,
        capture_output=True,
        timeout=120,
    )
    if done.returncode not in {OK, NOT_COMPLETED}:
        raise NotRecorded(f"the program ended with {done.returncode}: {done.stderr.decode(errors='replace')[-3000:]}")
    recorder = _Recorder(workspace, before, unflushed)
    with trace.open(encoding="ascii", errors="replace") as lines:
        for call in calls(lines, recorder.place):
            recorder.take(call)
    trace.unlink()
    history = recorder.history()
    _compare(replay(history), read_tree(workspace))
    return history


def _compare(told: Tree, found: Tree) -> None:
    """Raises: NotRecorded: they are not the same but for what is mapped."""
    for path in told.keys() | found.keys():
        mine, real = told.get(path, ...), found.get(path, ...)
        same = mine.data == real.data if isinstance(mine, File) and isinstance(real, File) else mine is real
        if not same and path not in _MAPPED:
            raise NotRecorded(f"{path} is not what was recorded")


@dataclass
class _Opened:
    """What a descriptor means."""

    node: int
    appends: bool
    #: Where the next write goes; None: not known.
    position: int | None


class _Recorder:
    """Follows what every name and descriptor means, and takes down what changes."""

    def __init__(self, workspace: Path, before: Tree, unflushed: Collection[str]) -> None:
        self._root = str(workspace)
        self._identity = identity_of(workspace)
        self._operations: list[Operation] = []
        self._names: dict[Slot, int] = {}
        self._folders = {ROOT}
        self._sizes: dict[int, int] = {}
        self._times: dict[int, int] = {}
        self._opened: dict[int, _Opened] = {}
        self._nodes = ROOT
        self._taken_over: dict[int, int] = {}
        for path in sorted(before.keys() - set(unflushed)):
            self._take_over(path, before[path])
        self._settled = self.place()
        for path in unflushed:
            self._take_over(path, before[path])

    def place(self) -> int:
        """Return how many operations were taken down."""
        return len(self._operations)

    def history(self) -> History:
        """Return all that was taken down."""
        return History(
            operations=tuple(self._operations),
            settled=self._settled,
            folders=frozenset(self._folders),
            times=self._times,
        )

    def _take_over(self, path: str, file: File | None) -> None:
        slot = self._slot(f"{self._root}/{path}")
        if id(file) in self._taken_over:
            self._name((slot, self._taken_over[id(file)]))
            return
        node = self._make(slot, folder=file is None)
        if file is not None:
            self._taken_over[id(file)] = node
            self._write(node, 0, file.data)
            if file.mtime_ns is not None:
                self._times[node] = file.mtime_ns

    def take(self, call: Call) -> None:
        """Take in one call that ended.

        Raises:
            NotRecorded: it changes a file of the workspace in a way that is not known here.
        """
        told = call.arguments
        if call.result < 0:
            return
        match call.name:
            case "openat":
                self._open(call, told[2])
            case "close":
                self._opened.pop(descriptor_of(told[0]), None)
            case "dup" | "dup2" | "dup3":
                self._copy_descriptor(call)
            case "fcntl":
                if told[1].startswith("F_DUPFD"):
                    self._copy_descriptor(call)
            case "lseek":
                if opened := self._target(call):
                    opened.position = call.result
            case "write" | "pwrite64" | "ftruncate" | "fallocate" | "fsync" | "fdatasync":
                if opened := self._target(call):
                    self._change(opened, call)
            case "mmap":
                self._map(call)
            case "mkdir" | "mkdirat":
                if slot := self._ours(*_at(call)):
                    self._make(slot, folder=True)
            case "unlink" | "unlinkat" | "rmdir":
                if slot := self._ours(*_at(call)):
                    self._name((slot, None))
            case "rename" | "renameat" | "renameat2" | "link" | "linkat":
                self._name_again(call)
            case _:
                if call.name == "io_uring_setup" or any(self._is_ours(path_of(one) or text_of(one)) for one in told):
                    raise NotRecorded(f"{call.name} is not known")

    # --- names ---

    def _is_ours(self, path: str) -> bool:
        return f"{path}/".startswith(f"{self._root}/")

    def _ours(self, folder: str, name: str) -> Slot | None:
        """Return the place of a name below an open folder; None where it is outside of the workspace."""
        path = str(Path(path_of(folder) or _CWD, text_of(name)))
        return self._slot(path) if self._is_ours(path) else None

    def _slot(self, path: str) -> Slot:
        """Raises: NotRecorded: there is no such folder."""
        *folders, name = path.removeprefix(f"{self._root}/").replace(self._identity, IDENTITY).split("/")
        node = ROOT
        for folder in folders:
            found = self._names.get((node, folder))
            if found is None:
                raise NotRecorded(f"{path} is below no folder that is known")
            node = found
        return node, name

    def _make(self, slot: Slot, *, folder: bool) -> int:
        self._nodes += 1
        if folder:
            self._folders.add(self._nodes)
        self._name((slot, self._nodes))
        return self._nodes

    def _name(self, *changes: tuple[Slot, int | None]) -> None:
        for slot, node in changes:
            if node is None:
                self._names.pop(slot, None)
            else:
                self._names[slot] = node
        self._operations.append(Names(changes=changes))

    def _name_again(self, call: Call) -> None:
        """A file gets another name, or one more."""
        folder, name, to_folder, to_name = call.arguments[:4] if "at" in call.name else _both(call)
        source, target = self._ours(folder, name), self._ours(to_folder, to_name)
        if source is None and target is None:
            return
        if source is None or target is None or source not in self._names:
            raise NotRecorded(f"{call.name} of a file that is not known")
        moved = [(source, None)] if call.name.startswith("rename") else []
        self._name((target, self._names[source]), *moved)

    # --- descriptors and data ---

    def _open(self, call: Call, flags: str) -> None:
        folder, name = call.arguments[:2]
        self._opened.pop(call.result, None)
        path = str(Path(path_of(folder) or _CWD, text_of(name)))
        if not self._is_ours(path):
            return
        node = ROOT if path == self._root else self._names.get(self._slot(path))
        if node is None and "O_CREAT" in flags:
            node = self._make(self._slot(path), folder=False)
        if node is None and "O_RDONLY" in flags:
            return
        if node is None:
            raise NotRecorded(f"{path} is not known")
        if "O_TRUNC" in flags and self._sizes.get(node, 0):
            self._resize(node, 0)
        # What is read moves the position too, and is not traced.
        position = None if "O_RDWR" in flags else 0
        self._opened[call.result] = _Opened(node=node, appends="O_APPEND" in flags, position=position)

    def _copy_descriptor(self, call: Call) -> None:
        found = self._opened.get(descriptor_of(call.arguments[0]))
        self._opened.pop(call.result, None)
        if found is not None:
            self._opened[call.result] = found

    def _target(self, call: Call) -> _Opened | None:
        """Return what a descriptor means; None where that is nothing of the workspace."""
        found = self._opened.get(descriptor_of(call.arguments[0]))
        # A file that was only opened to be read may have been renamed meanwhile.
        if found is None and self._is_ours(path_of(call.arguments[0])) and call.name != "lseek":
            raise NotRecorded(f"{call.name} on a descriptor that is not known")
        return found

    def _change(self, opened: _Opened, call: Call) -> None:
        told, node = call.arguments, opened.node
        match call.name:
            case "write":
                offset = self._sizes.get(node, 0) if opened.appends else opened.position
                if offset is None:
                    raise NotRecorded("where it is written is not known")
                self._write(node, offset, data_of(told[1])[: call.result])
                opened.position = offset + call.result
            case "pwrite64":
                self._write(node, int(told[3]), data_of(told[1])[: call.result])
            case "ftruncate":
                self._resize(node, int(told[1]))
            case "fallocate":
                if told[1] != "0":
                    raise NotRecorded(f"fallocate with the mode {told[1]} is not known")
                self._resize(node, max(self._sizes.get(node, 0), int(told[2]) + int(told[3])))
            case _:
                self._operations.append(Sync(node=node, began=call.began))

    def _write(self, node: int, offset: int, data: bytes) -> None:
        self._sizes[node] = max(self._sizes.get(node, 0), offset + len(data))
        self._operations.append(Write(node=node, offset=offset, data=data))

    def _resize(self, node: int, size: int) -> None:
        self._sizes[node] = size
        self._operations.append(Resize(node=node, size=size))

    def _map(self, call: Call) -> None:
        _, _, protection, flags, descriptor = call.arguments[:5]
        path = path_of(descriptor)
        writes_through = "PROT_WRITE" in protection and "MAP_SHARED" in flags
        if writes_through and self._is_ours(path) and path.removeprefix(f"{self._root}/") not in _MAPPED:
            raise NotRecorded(f"{path} is mapped to be written through")


def _at(call: Call) -> tuple[str, str]:
    """Return the folder and the name that a call speaks of; a folder "" is the current one."""
    return (call.arguments[0], call.arguments[1]) if call.name.endswith("at") else ("", call.arguments[0])


def _both(call: Call) -> tuple[str, str, str, str]:
    """Return the same of a call that speaks of two."""
    return "", call.arguments[0], "", call.arguments[1]
