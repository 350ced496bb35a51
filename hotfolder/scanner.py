"""What is in the inbox, and what of it is ready. Events only wake the scan; the scan decides.

Start-up, lost events, rescans and drops are one code path.
"""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from hotfolder import foreign, lanes, names, schedules
from hotfolder.claim import Seen
from hotfolder.clock import Clock
from hotfolder.meaning import (
    READ_CONTROLS,
    ControlName,
    Ignored,
    JobName,
    LaneFile,
    Meaning,
    PauseAll,
    PictureName,
    meaning_of,
)
from hotfolder.settings import InboxSettings
from hotfolder.settle import Settler, is_network, mount_type
from hotfolder.tomltext import MAX_JOB_BYTES, MAX_OWN_BYTES
from hotfolder.watch import Hints

MAX_LANE_DEPTH: Final = 3
_LOCAL_SETTLE_S, _NETWORK_SETTLE_S = 0.3, 5.0
_LOCAL_SCAN_S, _NETWORK_SCAN_S = 1.0, 3.0
#: Ten thousand plans together may be larger than the memory: the rest is for the next scan.
_MAX_BYTES_A_SCAN: Final = 64 * 1024 * 1024
#: What takes longer than this to become whole is shown.
_SLOW_S: Final = 5.0


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

    #: One that is dropped again is another one.
    seen: Seen
    control: ControlName


@dataclass(kw_only=True)
class Scan:
    """What one look at the inbox found."""

    #: Oldest first.
    ready: list[Ready] = field(default_factory=list)
    controls: list[ControlFile] = field(default_factory=list)
    scheduled: list[Seen] = field(default_factory=list)
    #: NAMEs of job files that are not ready yet.
    waiting: set[str] = field(default_factory=set)
    #: Files that are still being written or settle.
    unsettled: int = 0
    #: Those of them that will be so for a while.
    slow: int = 0
    #: Of the texts of what is ready.
    bytes_read: int = 0
    pause: bool = False
    #: Path below the inbox -> why it is left alone.
    ignored: dict[str, str] = field(default_factory=dict)
    lanes: list[str] = field(default_factory=list)
    #: The inbox is not there: never read as empty.
    gone: bool = False

    @property
    def unadmitted(self) -> set[str]:
        """NAMEs of job files that lie unadmitted, ready or not."""
        return self.waiting | {one.name for one in self.ready}


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
    #: What the names mean that lie there.
    meanings: dict[str, Meaning] = field(default_factory=dict)
    #: Lanes whose folder.toml is not whole.
    unsure: set[str] = field(default_factory=set)

    def is_unsure(self, lane: str) -> bool:
        """Whether a folder.toml that counts for this lane is not whole."""
        return bool(self.unsure) and any(PurePosixPath(lane).is_relative_to(one) for one in self.unsure)


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
        #: What the names mean that lay there at the last look: most of them stay.
        self._meanings: dict[str, Meaning] = {}
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
            self._look_into(self._inbox, "", look)
        except OSError:
            # Gone, not empty: what is known stays known.
            self._hints.keep(moved_in, closed)
            return Scan(gone=True)
        self._meanings = look.meanings
        self._settler.forget_all_but(look.at)
        # The next file under the name of one that is taken now is another file.
        waiting = look.at - {one.seen.path for one in result.ready}
        self._hints.keep(moved_in & waiting, closed & waiting)
        result.ready.sort(key=lambda one: (one.seen.mtime_ns, one.seen.path.name))
        return result

    def controls(self, scan: Scan) -> Scan:
        """Look for `pause` and control files alone, in the lanes of a scan: quick, for while a burst is admitted.

        One whose content counts has to be whole: it waits for the next scan.
        """
        result = Scan()
        for lane in scan.lanes:
            folder = self._inbox / lane
            found: list[str] = []
            with suppress(OSError):
                found = os.listdir(folder)
            for name in found:
                means = self._meaning(name)
                if isinstance(means, JobName):
                    # Perhaps dropped since: a control file of its name waits for it.
                    result.waiting.add(means.name)
                elif isinstance(means, ControlName | PauseAll):
                    with suppress(OSError):
                        self._look_at_control(folder / name, means, lane, result)
        return result

    def _meaning(self, name: str) -> Meaning:
        return self._meanings.get(name) or meaning_of(name)

    def _look_at_control(self, path: Path, means: ControlName | PauseAll, lane: str, result: Scan) -> None:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return
        if isinstance(means, PauseAll):
            result.pause = result.pause or lane == ""
        elif means.control not in READ_CONTROLS:
            result.controls.append(ControlFile(seen=_seen(path, found), control=means))

    def _look_into(self, folder: Path, lane: str, look: _Look) -> None:
        """Look at a folder and at every lane below it.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        with os.scandir(folder) as found:
            entries = list(found)
        look.scan.lanes.append(lane)
        if any(entry.name == lanes.FILE_NAME for entry in entries):
            self._look_at_defaults(folder / lanes.FILE_NAME, lane, look)
        for entry in entries:
            below = f"{lane}/{entry.name}" if lane else entry.name
            if entry.is_dir(follow_symlinks=False):
                self._look_at_lane(entry, below, look)
            else:
                self._look(entry, lane, names.shown(below), look)

    def _look_at_lane(self, entry: os.DirEntry[str], lane: str, look: _Look) -> None:
        if entry.name.startswith((".", "@", "~", "#")) or entry.name.lower() == "$recycle.bin":
            return
        if entry.name.lower().endswith(".toml"):
            why = "a folder with the name of a job file"
        elif lane.count("/") >= MAX_LANE_DEPTH:
            why = f"lanes are at most {MAX_LANE_DEPTH} folders deep"
        else:
            try:
                self._look_into(Path(entry.path), lane, look)
            except (FileNotFoundError, NotADirectoryError):
                return  # it went just now
            except OSError as error:
                why = f"cannot be read: {error.strerror or error}"
            else:
                return
        look.scan.ignored[names.shown(lane)] = why

    def _look_at_defaults(self, path: Path, lane: str, look: _Look) -> None:
        """While folder.toml is being written, the jobs it is for wait: half of it would mean something else."""
        with suppress(OSError):
            found = path.lstat()
            may_be_read = stat.S_ISREG(found.st_mode) and os.access(path, os.R_OK)
            if may_be_read and not self._whole(path, found, look):
                look.unsure.add(lane)

    def _look(self, entry: os.DirEntry[str], lane: str, shown: str, look: _Look) -> None:
        """Look at one name, and as little as can be at what lies behind it."""
        means = look.meanings[entry.name] = self._meaning(entry.name)
        if isinstance(means, Ignored):
            if means.why and not (lane == schedules.FOLDER and entry.name.endswith(".status.toml")):
                look.scan.ignored[shown] = means.why
            return
        if isinstance(means, PictureName) and lane not in self.picture_lanes:
            look.scan.ignored[shown] = "a picture: taken when a job names it"
            return
        path = Path(entry.path)
        try:
            found = path.lstat()
        except OSError:
            return  # it went just now
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
                if means.control not in READ_CONTROLS or self._whole(path, found, look):
                    look.scan.controls.append(ControlFile(seen=_seen(path, found), control=means))
                else:
                    look.scan.unsettled += 1
            case JobName() | PictureName():
                if path in look.taken:
                    look.scan.ignored[shown] = (
                        "a job already; it could not be removed, look at the rights of its folder"
                    )
                elif lane == schedules.FOLDER or lane.startswith(f"{schedules.FOLDER}/"):
                    if isinstance(means, JobName) and self._whole(path, found, look):
                        look.scan.scheduled.append(_seen(path, found))
                elif self._whole(path, found, look) and not look.is_unsure(lane):
                    self._take_in(means, lane, _seen(path, found), shown, look)
                else:
                    self._wait(means.name, path, shown, look.scan)

    def _whole(self, path: Path, found: os.stat_result, look: _Look) -> bool:
        look.at.add(path)
        return self._settler.ready(path, found, moved_in=path in look.moved_in, closed=path in look.closed)

    def _take_in(self, means: JobName | PictureName, lane: str, seen: Seen, shown: str, look: _Look) -> None:
        """Read a job file, or see a picture that is one."""
        if isinstance(means, PictureName):
            look.scan.ready.append(Ready(seen=seen, name=means.name, lane=lane, data=None))
            return
        if seen.size > MAX_OWN_BYTES:
            limits = f"a job file has at most {MAX_JOB_BYTES}, a plan {MAX_OWN_BYTES}"
            look.scan.ignored[shown] = f"{seen.size} bytes; {limits}"
            return
        if look.scan.bytes_read > _MAX_BYTES_A_SCAN:
            look.scan.waiting.add(means.name)
            look.scan.unsettled += 1
            return
        try:
            data = read(seen)
        except OSError as error:
            look.scan.ignored[shown] = f"cannot be read: {error.strerror or error}"
            return
        torn = data is not None and not data.endswith(b"\n") and seen.path not in look.moved_in
        if data is None or (torn and self._settler.wait_again(seen.path)):
            self._wait(means.name, seen.path, shown, look.scan)
            return
        look.scan.bytes_read += len(data)
        look.scan.ready.append(Ready(seen=seen, name=means.name, lane=lane, data=data))

    def _wait(self, name: str, path: Path, shown: str, scan: Scan) -> None:
        """It is not whole yet; where that takes long, say so."""
        scan.waiting.add(name)
        scan.unsettled += 1
        if self._settler.known_for_s(path) > _SLOW_S:
            scan.slow += 1
            scan.ignored[shown] = "still being written; taken once it is whole"


def read(seen: Seen) -> bytes | None:
    """Read a file once; None where it is not what was seen, before and after.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with foreign.open_file(seen.path) as file:
        before = os.fstat(file.fileno())
        data = file.read(seen.size + 1)
        after = os.fstat(file.fileno())
    same = _seen(seen.path, before) == seen == _seen(seen.path, after)
    return data if same and len(data) == seen.size else None


def _seen(path: Path, found: os.stat_result) -> Seen:
    return Seen(path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)


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
