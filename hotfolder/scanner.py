"""What is in the inbox, and what of it is ready. Events only wake the scan; the scan decides.

Start-up, lost events, rescans and drops are one code path.
"""

import functools
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hotfolder import names
from hotfolder.clock import Clock
from hotfolder.names import ControlName, Ignored, JobName, LaneFile, PauseAll, PictureName
from hotfolder.settings import InboxSettings
from hotfolder.settle import Settler, is_network, mount_type
from hotfolder.spool import Seen
from hotfolder.tomltext import MAX_JOB_BYTES, MAX_OWN_BYTES
from hotfolder.watch import Hints

SCHEDULED: Final = "scheduled"
MAX_LANE_DEPTH: Final = 3
_LOCAL_SETTLE_S, _NETWORK_SETTLE_S = 0.3, 5.0
_LOCAL_SCAN_S, _NETWORK_SCAN_S = 1.0, 3.0

_meaning = functools.lru_cache(maxsize=1 << 16)(names.meaning)


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A file that is whole and is to become a job."""

    seen: Seen
    name: str
    #: Folder below the inbox, "" for the inbox itself.
    lane: str
    #: The text; of a picture None.
    data: bytes | None


@dataclass(frozen=True, kw_only=True)
class ControlFile:
    """A control file that lies in the inbox."""

    path: Path
    control: ControlName


@dataclass(kw_only=True)
class Scan:
    """What one look at the inbox found."""

    #: Oldest first.
    ready: list[Ready] = field(default_factory=list)
    controls: list[ControlFile] = field(default_factory=list)
    scheduled: list[Seen] = field(default_factory=list)
    #: NAMEs of job files that lie unadmitted, ready or not.
    unadmitted: set[str] = field(default_factory=set)
    #: Files that are still being written or settle.
    unsettled: int = 0
    pause: bool = False
    #: Path below the inbox -> why it is left alone.
    ignored: dict[str, str] = field(default_factory=dict)
    lanes: list[str] = field(default_factory=list)
    #: The inbox is not there: never read as empty.
    gone: bool = False


@dataclass(frozen=True, kw_only=True)
class _Look:
    """One look at the inbox, under way."""

    scan: Scan
    #: What events said of files.
    moved_in: set[Path]
    closed: set[Path]
    #: Files that are jobs already though they could not be removed.
    taken: frozenset[Path]
    #: Files whose settling is remembered.
    at: set[Path] = field(default_factory=set)


class Scanner:
    """Looks at the inbox again and again. Used by one thread."""

    def __init__(self, inbox: Path, settings: InboxSettings, clock: Clock, hints: Hints) -> None:
        """`hints` is what the watch heard since the last scan."""
        self._inbox = inbox
        self._hints = hints
        self.file_system = mount_type(inbox)
        self.network = is_network(self.file_system)
        settle_s = settings.settle_s or (_NETWORK_SETTLE_S if self.network else _LOCAL_SETTLE_S)
        self.settle_s = settle_s
        self.scan_s = settings.scan_s or (_NETWORK_SCAN_S if self.network else _LOCAL_SCAN_S)
        self._settler = Settler(clock, settle_s, local=not self.network)
        #: Lanes whose pictures are jobs; set by whoever reads folder.toml.
        self.picture_lanes: frozenset[str] = frozenset()

    def scan(self, taken: frozenset[Path] = frozenset()) -> Scan:
        """Look at everything once.

        Args:
            taken: files that are jobs already though they could not be removed.
        """
        result = Scan()
        moved_in, closed = self._hints.take()
        look = _Look(scan=result, moved_in=moved_in, closed=closed, taken=taken)
        try:
            for folder, lane in self._folders(self._inbox, "", result):
                for entry in _entries(folder):
                    self._look(entry, lane, look)
        except FileNotFoundError:
            # Gone, not empty: what is known stays known.
            result.gone = not self._inbox.is_dir()
            return result
        self._settler.forget_all_but(look.at)
        self._hints.keep(moved_in & look.at, closed & look.at)
        result.ready.sort(key=lambda one: (one.seen.mtime_ns, one.seen.path.name))
        return result

    def _folders(self, folder: Path, lane: str, result: Scan) -> Iterator[tuple[Path, str]]:
        """Yield the inbox and every lane below it."""
        result.lanes.append(lane)
        yield folder, lane
        for entry in _entries(folder):
            below = f"{lane}/{entry.name}" if lane else entry.name
            if not entry.is_dir(follow_symlinks=False):
                continue
            shown = names.shown(below)
            if entry.name.startswith((".", "@", "~", "#")) or entry.name.lower() == "$recycle.bin":
                continue
            if entry.name.lower().endswith(".toml"):
                result.ignored[shown] = "a folder with the name of a job file"
            elif below.count("/") >= MAX_LANE_DEPTH:
                result.ignored[shown] = f"lanes are at most {MAX_LANE_DEPTH} folders deep"
            else:
                with suppress(FileNotFoundError, PermissionError):
                    yield from self._folders(Path(entry.path), below, result)

    def _look(self, entry: os.DirEntry[str], lane: str, look: _Look) -> None:
        """Look at one name, and as little as can be at what lies behind it."""
        means = _meaning(entry.name)
        if entry.is_dir(follow_symlinks=False):
            return
        shown = names.shown(f"{lane}/{entry.name}" if lane else entry.name)
        if isinstance(means, Ignored):
            if means.why and not (lane == SCHEDULED and entry.name.endswith(".status.toml")):
                look.scan.ignored[shown] = means.why
            return
        if isinstance(means, PictureName) and lane not in self.picture_lanes:
            look.scan.ignored[shown] = "a picture: taken when a job names it"
            return
        path = Path(entry.path)
        try:
            found = path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISREG(found.st_mode):
            look.scan.ignored[shown] = f"{_kind(found.st_mode)}, not a regular file"
            return
        match means:
            case PauseAll():
                look.scan.pause = look.scan.pause or not lane
                if lane:
                    look.scan.ignored[shown] = "pause counts in the inbox itself only"
            case LaneFile():
                pass
            case ControlName():
                # Only a resume has a content that counts; the others are acted on at sight.
                if means.control is not names.Control.RESUME or self._whole(path, found, look):
                    look.scan.controls.append(ControlFile(path=path, control=means))
                else:
                    look.scan.unsettled += 1
            case JobName() | PictureName():
                if path in look.taken:
                    look.scan.ignored[shown] = (
                        "a job already; it could not be removed, look at the rights of its folder"
                    )
                else:
                    self._take_in(means, path, lane, found, look)

    def _whole(self, path: Path, found: os.stat_result, look: _Look) -> bool:
        look.at.add(path)
        return self._settler.ready(path, found, moved_in=path in look.moved_in, closed=path in look.closed)

    def _take_in(self, means: JobName | PictureName, path: Path, lane: str, found: os.stat_result, look: _Look) -> None:
        """Read a job file, or see a picture that is one."""
        whole = self._whole(path, found, look)
        if lane == SCHEDULED or lane.startswith(f"{SCHEDULED}/"):
            if whole and isinstance(means, JobName):
                look.scan.scheduled.append(_seen(path, found))
            return
        look.scan.unadmitted.add(means.name)
        if not whole:
            look.scan.unsettled += 1
        elif isinstance(means, PictureName):
            look.scan.ready.append(Ready(seen=_seen(path, found), name=means.name, lane=lane, data=None))
        else:
            self._read(means, path, lane, look)

    def _read(self, means: JobName, path: Path, lane: str, look: _Look) -> None:
        try:
            seen, data = read(path)
        except OSError as error:
            why = f"cannot be read: {error.strerror or error}"
        else:
            torn = not data.endswith(b"\n") and path not in look.moved_in
            if seen is None or (torn and self._settler.wait_again(path)):
                look.scan.unsettled += 1
                return
            if len(data) <= MAX_OWN_BYTES:
                look.scan.ready.append(Ready(seen=seen, name=means.name, lane=lane, data=data))
                return
            why = f"{seen.size} bytes; a job file has at most {MAX_JOB_BYTES}, a plan {MAX_OWN_BYTES}"
        look.scan.unadmitted.discard(means.name)
        look.scan.ignored[names.shown(str(path.relative_to(self._inbox)))] = why


def read(path: Path) -> tuple[Seen | None, bytes]:
    """Read a file once; None for `Seen` if it changed meanwhile.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise OSError("not a regular file")
        data = file.read(MAX_OWN_BYTES + 1)
        after = os.fstat(descriptor)
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    whole = same and len(data) == min(after.st_size, MAX_OWN_BYTES + 1)
    return (_seen(path, after) if whole else None), data


def _seen(path: Path, found: os.stat_result) -> Seen:
    return Seen(path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _kind(mode: int) -> str:
    for test, word in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return word
    return "something"
