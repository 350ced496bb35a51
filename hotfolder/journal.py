"""A job's journal: what happened, one line each, and what it adds up to.

The journal is the truth of a job; its status file and the line are views that can be made again from it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from hotfolder import durable
from hotfolder.clock import Moment

SCHEMA: Final = 1
FILE_NAME: Final = "journal.jsonl"


class State(StrEnum):
    """Where a job is."""

    #: A picture that it names is not there yet.
    WAITING = "waiting"
    #: Its lane or its own pause holds it.
    HELD = "held"
    #: In the line.
    QUEUED = "queued"
    #: From its first cell until it ends or is held.
    RUNNING = "running"
    #: Every candidate is finished.
    COMPLETED = "completed"
    #: Some candidates failed, some are finished.
    PARTIAL = "partial"
    #: None is finished.
    FAILED = "failed"
    #: Somebody said so.
    CANCELLED = "cancelled"
    #: Its text is wrong; nothing ran.
    REJECTED = "rejected"


#: Left only by `.resume`.
ENDS: Final = frozenset({State.COMPLETED, State.PARTIAL, State.FAILED, State.CANCELLED, State.REJECTED})


class Event(StrEnum):
    """What a line of the journal says happened."""

    #: First line: built, the source may still lie in the inbox.
    PENDING = "pending"
    #: The source is gone from the inbox.
    ADMITTED = "admitted"
    #: A picture is not there yet.
    WAITING = "waiting"
    #: Read and decided: plan.toml stands.
    PLANNED = "planned"
    #: A daemon process began its first cell.
    STARTED = "started"
    #: A cell's pictures are on disk.
    DONE = "done"
    #: A candidate cannot be finished.
    FAILED = "failed"
    #: The process died while it ran a cell.
    DIED = "died"
    #: Held by its lane or by `.pause`; let go on.
    HELD = "held"
    RELEASED = "released"
    #: Put in front of the line.
    FIRST = "first"
    #: Somebody said stop.
    CANCEL = "cancel"
    #: Taken up again after an end.
    RESUMED = "resumed"
    #: Something was done otherwise than asked.
    NOTICE = "notice"
    #: It ended.
    ENDED = "ended"


class StopReason(StrEnum):
    """Why a cell was told to stop."""

    #: Somebody dropped `.cancel`: the job ends.
    CANCEL = "cancel"
    #: Somebody dropped `.pause`: the job is held.
    PAUSE = "pause"
    #: The daemon stops: the cell becomes ready again.
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, kw_only=True)
class Output:
    """A finished picture."""

    candidate: int
    file: str
    seed: int
    sha256: str
    pixels_sha256: str
    #: To make it, and to put it on disk.
    seconds: float
    save_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a candidate, or a whole job, could not be finished."""

    code: str
    message: str
    hint: str = ""
    stage: str | None = None
    stage_index: int | None = None
    #: None: it concerns the whole job.
    candidate: int | None = None
    item: int | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a job came from."""

    #: Relative to the inbox.
    file: str
    size: int
    mtime_ns: int
    sha256: str
    #: dropped, lane, schedule, cli, replay ...
    via: str = "dropped"
    lane: str = ""
    scheduled_for: str | None = None


@dataclass(kw_only=True)
class Ledger:
    """What a journal adds up to. Only `apply` changes it, and only with lines that were written."""

    seq: int = 0
    origin: Origin | None = None
    queued_at: Moment | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    admitted: bool = False
    state: State = State.QUEUED
    mode: str = "queued"
    run_id: str = ""
    plan_sha256: str | None = None
    waiting_for: tuple[str, ...] = ()
    held: str | None = None
    #: The later put in front, the higher; 0: never.
    first: int = 0
    cancelled: bool = False
    force: bool = False
    runs: set[str] = field(default_factory=set)
    #: Candidate -> its picture.
    done: dict[int, Output] = field(default_factory=dict)
    failed: dict[int, Failure] = field(default_factory=dict)
    #: Candidate -> deaths of the process while it was made: blamed, and unexplained in a row.
    blamed: dict[int, int] = field(default_factory=dict)
    unexplained: dict[int, int] = field(default_factory=dict)
    error: Failure | None = None
    #: Of a rejected job: code, message, hint, line.
    problems: tuple[Mapping[str, Any], ...] = ()
    notices: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether nothing more happens without `.resume`."""
        return self.state in ENDS

    @property
    def attempt(self) -> int:
        """How many daemon processes have started it."""
        return len(self.runs)

    def apply(self, line: Mapping[str, Any]) -> None:
        """Take in one line."""
        moment = Moment.parse(line["at"])
        match line["event"]:
            case Event.PENDING:
                self.seq, self.queued_at, self.mode = line["seq"], moment, line["mode"]
                self.origin = Origin(**line["origin"])
            case Event.ADMITTED:
                self.admitted = True
            case Event.WAITING:
                self.waiting_for = tuple(line["pictures"])
                self._back_to_line()
            case Event.PLANNED:
                self.plan_sha256, self.waiting_for = line["sha256"], ()
                self.notices += line["notices"]
                self._back_to_line()
            case Event.STARTED:
                self.state, self.run_id = State.RUNNING, line["run_id"]
                self.started_at = self.started_at or moment
                self.runs.add(line["run_id"])
            case Event.DONE:
                output = Output(**line["output"])
                self.done[output.candidate] = output
                self.unexplained.pop(output.candidate, None)
            case Event.FAILED:
                failure = Failure(**line["error"])
                self.failed[failure.candidate or 0] = failure
            case Event.DIED:
                self._count_death(line)
            case Event.HELD:
                self.state, self.held = State.HELD, line["why"]
            case Event.RELEASED:
                self.held = None
                self._back_to_line()
            case Event.FIRST:
                self.first = line["rank"]
            case Event.CANCEL:
                self.cancelled = True
            case Event.RESUMED:
                self._reopen(force=bool(line.get("force")))
                self.seq, self.first = line.get("seq", self.seq), 0
            case Event.NOTICE:
                self.notices.append(line["text"])
            case Event.ENDED:
                self.state, self.finished_at = State(line["state"]), moment
                self.error = Failure(**line["error"]) if line.get("error") else None
                self.problems = tuple(line.get("problems", ()))
            case _:
                pass  # of a newer version: what we do not know cannot concern us

    def _back_to_line(self) -> None:
        self.state = State.HELD if self.held else State.WAITING if self.waiting_for else State.QUEUED

    def _count_death(self, line: Mapping[str, Any]) -> None:
        self.runs.add(line["run_id"])
        counts = self.blamed if line["evidence"] else self.unexplained
        counts[line["candidate"]] = counts.get(line["candidate"], 0) + 1

    def _reopen(self, *, force: bool) -> None:
        """What failed is made again, what is finished stays."""
        self.state, self.finished_at, self.error, self.held = State.QUEUED, None, None, None
        self.waiting_for = ()
        self.cancelled, self.force = False, self.force or force
        for counts in (self.failed, self.blamed, self.unexplained):
            counts.clear()


def opening(moment: Moment, *, seq: int, mode: str, origin: Origin) -> dict[str, Any]:
    """Return the first line of a journal."""
    return line(Event.PENDING, moment, schema=SCHEMA, seq=seq, mode=mode, origin=asdict(origin))


def line(event: Event, moment: Moment, **facts: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Return a line of the journal as data."""
    return {"at": str(moment), "event": event.value, **facts}


def encode(*lines: Mapping[str, Any]) -> bytes:
    """Return lines as they are written."""
    return b"".join(
        json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"
        for one in lines
    )


def append(folder: Path, line: Mapping[str, Any], *, sync: bool = True) -> None:
    """Add a line to the journal of a job's folder; with `sync` it is on disk when this returns.

    Raises:
        OSError: it was not added.
    """
    durable.append(folder / FILE_NAME, encode(line), sync=sync)


def read(folder: Path) -> Ledger:
    """Add up the journal of a job's folder.

    A torn last line is ignored, and so is one that cannot be read: it was never acknowledged, or a newer version
    wrote it, and one job's line is no reason not to serve the others.

    Raises:
        OSError: there is no journal, or it cannot be read.
    """
    ledger = Ledger()
    for one in lines((folder / FILE_NAME).read_bytes()):
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            ledger.apply(one)
    return ledger


def mend(folder: Path) -> None:
    """Cut a torn last line off, so that the next one starts at its own beginning."""
    path = folder / FILE_NAME
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        durable.write(path, data[: data.rfind(b"\n") + 1])
        durable.sync_folder(folder)


def lines(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal that can be read, as data."""
    for text in data.split(b"\n")[:-1]:
        try:
            one = json.loads(text)
        except ValueError:
            continue
        if isinstance(one, dict) and "event" in one and "at" in one:
            yield one
