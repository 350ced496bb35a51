"""One job, as every part sees it, and how it is read from its folder."""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hotfolder import durable, journal, names, status
from hotfolder.claim import Seen
from hotfolder.clock import Moment
from hotfolder.engine import StopReason
from hotfolder.journal import ENDS, Event, Ledger, Origin, State
from hotfolder.plan import Plan, digest
from hotfolder.status import Progress
from hotfolder.table import Place, Table

JOB_FILE: Final = "job.toml"
PLAN_FILE: Final = "plan.toml"
#: The first one, and those that a resume changed: plan_02.toml ...
PLAN_FILES: Final = "plan*.toml"
SOURCES: Final = "sources"


@dataclass(kw_only=True, eq=False)
class Job:
    """One live job: its folder is its identity."""

    folder: Path
    #: Such as "mug_take01".
    name: str = field(init=False)
    stem: str
    take: int
    ledger: Ledger
    #: (st_dev, st_ino) of the folder: another folder of the same name is another job.
    identity: tuple[int, int] = (0, 0)
    lock: threading.RLock = field(default_factory=threading.RLock)
    #: Its cells, once it has a plan; looked at and changed by the line only.
    table: Table | None = None
    #: Whether it stands in the line, as soon as a cell of it is ready.
    in_line: bool = False
    #: Cell -> how often it was tried in vain in this process.
    tries: dict[Place, int] = field(default_factory=dict)
    #: What the next step of its running cell is told; read without the lock.
    stop: StopReason | None = None
    #: The folder is gone: nothing is written any more.
    gone: bool = False
    progress: Progress | None = None
    #: Seconds by phase, of the pictures made in this process.
    timings: dict[str, float] = field(default_factory=dict)
    #: Of the model that generates first.
    model_key: str = ""
    #: Of one picture: steps x million pixels; what its time is told from.
    weight: float = 1.0
    priority: int = 0
    #: The pictures of the inbox that it names, by path; None until its text was read.
    pictures: frozenset[Path] | None = None
    #: What made it, as it lay in the inbox; None where nothing is to be taken away.
    seen: Seen | None = None
    #: The line that ends it, while the disk does not take it.
    ending: Mapping[str, Any] | None = None
    #: Its status file says less than its journal: it could not be written.
    stale: bool = False
    #: When its status file was written last, by the monotonic clock.
    shown_at: float = 0.0
    #: Page of its sheet -> what tells whether it shows something else by now, and when it was written last.
    pages: dict[int, tuple[int, Moment]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = self.folder.name

    @property
    def busy(self) -> bool:
        """Whether a cell of it is under way."""
        return self.table is not None and bool(self.table.in_flight)

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sorts the line: what was put in front, then priority, then the order in which they came."""
        return (-self.ledger.first, -self.priority, self.ledger.seq)


#: Reads from the pictures in work/ of a folder what the journal said of their cells.
ReadCells = Callable[[Path], Iterable[Mapping[str, Any]]]


def load(folder: Path, now: Moment, mode: str, read_cells: ReadCells) -> Job:
    """Read a job from its folder; a journal that is lost is made again.

    Args:
        now, mode: for the lines of a journal that is made again.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
    """
    split = names.split_take(folder.name)
    found = folder.lstat()
    if split is None or not stat.S_ISDIR(found.st_mode):
        raise FileNotFoundError(errno.ENOENT, "no folder of a job", str(folder))
    try:
        journal.mend(folder)
        ledger = journal.read(folder)
    except FileNotFoundError:
        ledger = Ledger()
    if ledger.origin is None:
        remake_journal(folder, now, mode, list(read_cells(folder)))
        ledger = journal.read(folder)
    stem, take = split
    return Job(folder=folder, stem=stem, take=take, ledger=ledger, identity=identity_of(found))


def remake_journal(folder: Path, now: Moment, mode: str, cells: Sequence[Mapping[str, Any]] = ()) -> None:
    """Make a lost journal again from job.toml, plan.toml, what is left of it and, later, the sidecars.

    Args:
        cells: what the pictures in work/ say of the cells that made them.

    Raises:
        FileNotFoundError: there is no job.toml either.
    """
    data = (folder / JOB_FILE).read_bytes()
    origin = Origin(file=f"{folder.name}.toml", size=len(data), mtime_ns=0, sha256=digest(data))
    lines = [
        journal.opening(now, seq=0, mode=mode, origin=origin),
        journal.line(Event.ADMITTED, now),
    ]
    for file in sorted(folder.glob(PLAN_FILES)):
        with suppress(OSError, ValueError):
            plan = file.read_bytes()
            Plan.load(plan)
            lines.append(journal.line(Event.PLANNED, now, sha256=digest(plan), file=file.name, notices=[]))
    lines += [dict(cell) for cell in cells]
    state = status.read_state(folder)
    if state is State.CANCELLED:
        lines.append(journal.line(Event.CANCEL, now))
    lines.append(journal.line(Event.NOTICE, now, text="the journal was lost and made again from what is in the folder"))
    if state in ENDS:
        lines.append(journal.line(Event.ENDED, now, state=state.value, error=None))
    left = b""
    with suppress(FileNotFoundError):
        left = (folder / journal.FILE_NAME).read_bytes()
    durable.write(folder / journal.FILE_NAME, journal.encode(*lines) + left)
    durable.sync_folder(folder)


def identity_of(found: os.stat_result) -> tuple[int, int]:
    """Return what tells a folder from another of the same name."""
    return found.st_dev, found.st_ino
