"""A job's journal: what happened, one line each, and what it adds up to.

The journal is the truth of a job; its status file and the line are views that can be made again from it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar, get_type_hints

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
    #: From its first cell until it ends, is held or in review.
    RUNNING = "running"
    #: Waits for a person to pick candidates.
    REVIEW = "review"
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
    #: The pictures of a cell are on disk, in work/.
    CELL = "cell"
    #: A stage chose which candidates of an item go on.
    CHOSEN = "chosen"
    #: All that is left waits for a person to pick; and somebody did.
    REVIEW = "review"
    PICKED = "picked"
    #: The finished pictures of a candidate are on disk, with their sidecars.
    DONE = "done"
    #: A cell failed for a reason that may pass, and is tried again.
    RETRY = "retry"
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


@dataclass(frozen=True, kw_only=True)
class Output:
    """A finished picture."""

    candidate: int
    file: str
    seed: int
    sha256: str
    pixels_sha256: str
    #: To make what it was written from, and to put it on disk.
    seconds: float
    save_seconds: float = 0.0
    #: Such as "16x9"; "" where there is only one of the candidate.
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a cell left in work/: all that stands after it, so that the next one can go on from here."""

    #: ("picture" | "picture:16x9" | "mask" | "control", file below the job's folder, sha256 of its pixels); a file ""
    #: is the job's own source of this role.
    files: tuple[tuple[str, str, str], ...]
    #: left, top, right, bottom, label, score of what was found.
    boxes: tuple[tuple[int, int, int, int, str, float], ...]
    seconds: float
    #: Where its line begins in the journal, in bytes: there stands what its record needs.
    at: int


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
    #: Candidate -> its pictures.
    done: dict[int, tuple[Output, ...]] = field(default_factory=dict)
    #: Candidate -> stage -> what that cell left.
    cells: dict[int, dict[int, Kept]] = field(default_factory=dict)
    #: (stage, item) -> the candidates that go on.
    chosen: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    #: How often a cell was tried again.
    retries: int = 0
    #: Of the plan that holds for what is still to be made.
    plan_file: str = "plan.toml"
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
    def source(self) -> str:
        """How it came: dropped, lane, schedule, cli, resume ..."""
        if self.origin is None:
            return "dropped"
        # A picture is a job only in a lane that says so.
        return "lane" if self.origin.via == "picture" else self.origin.via

    @property
    def attempt(self) -> int:
        """How many daemon processes have started it."""
        return len(self.runs)

    def apply(self, line: Mapping[str, Any], at: int = 0) -> None:
        """Take in one line.

        Args:
            at: where it begins in the journal, in bytes.
        """
        moment = Moment.parse(line["at"])
        match line["event"]:
            case Event.PENDING:
                origin, seq, mode = _origin(line["origin"]), _number(line["seq"]), _text(line["mode"])
                self.seq, self.queued_at, self.mode, self.origin = seq, moment, mode, origin
            case Event.ADMITTED:
                self.admitted = True
            case Event.WAITING:
                self.waiting_for = tuple(_texts(line["pictures"]))
                self._back_to_line()
            case Event.PLANNED:
                notices, file = _texts(line["notices"]), _text(line.get("file", self.plan_file))
                self.plan_sha256, self.waiting_for = _text(line["sha256"]), ()
                self.plan_file = file
                self.notices += notices
                self.force = self.force or bool(line.get("force"))
                self._back_to_line()
            case Event.STARTED:
                self.run_id = _text(line["run_id"])
                self.state = State.RUNNING
                self.started_at = self.started_at or moment
                self.runs.add(self.run_id)
            case Event.CELL | Event.DONE | Event.FAILED | Event.CHOSEN | Event.PICKED | Event.RETRY:
                self._apply_cell(line, at)
            case Event.REVIEW:
                self.state = State.REVIEW
            case Event.DIED:
                self._count_death(line)
            case Event.HELD:
                self.held, self.state = _text(line["why"]), State.HELD
            case Event.RELEASED:
                self.held = None
                self._back_to_line()
            case Event.FIRST:
                self.first = _number(line["rank"])
            case Event.CANCEL:
                self.cancelled = True
            case Event.RESUMED:
                self.seq, self.first = _number(line.get("seq", self.seq)), 0
                self._reopen(force=bool(line.get("force")))
            case Event.NOTICE:
                self.notices.append(_text(line["text"]))
            case Event.ENDED:
                error = _typed(Failure, line["error"]) if line.get("error") else None
                problems = tuple(_problem(one) for one in line.get("problems", ()))
                self.state, self.finished_at = State(line["state"]), moment
                self.error, self.problems = error, problems
            case _:
                pass  # of a newer version: what we do not know cannot concern us

    def _apply_cell(self, line: Mapping[str, Any], at: int) -> None:
        """Take in what became of a cell."""
        match line["event"]:
            case Event.DONE:
                outputs = tuple(_typed(Output, output) for output in line["outputs"])
                candidate = outputs[0].candidate
                self.done[candidate] = outputs
                self.failed.pop(candidate, None)
                self.unexplained.pop(candidate, None)
            case Event.CELL:
                candidate = _number(line["candidate"])
                self.cells.setdefault(candidate, {})[_number(line["stage"])] = Kept(
                    files=tuple((_text(thing), _text(file), _text(sha256)) for thing, file, sha256 in line["files"]),
                    boxes=tuple(
                        (_number(left), _number(top), _number(right), _number(bottom), _text(label), _seconds(score))
                        for left, top, right, bottom, label, score in line["boxes"]
                    ),
                    seconds=_seconds(line["seconds"]),
                    at=at,
                )
                self.unexplained.pop(candidate, None)
            case Event.FAILED:
                failure = _typed(Failure, line["error"])
                self.failed[failure.candidate or 0] = failure
            case Event.CHOSEN:
                self._choose(line["chosen"])
            case Event.PICKED:
                self._choose(line["chosen"])
                self.force = self.force or bool(line.get("force"))
                self._back_to_line()
            case _:  # RETRY
                self.retries += 1

    def _choose(self, chosen: list[list[Any]]) -> None:
        self.chosen |= {(_number(stage), _number(item)): tuple(map(_number, kept)) for stage, item, kept in chosen}

    def _back_to_line(self) -> None:
        self.state = State.HELD if self.held else State.WAITING if self.waiting_for else State.QUEUED

    def _count_death(self, line: Mapping[str, Any]) -> None:
        run_id, candidate = _text(line["run_id"]), _number(line["candidate"])
        self.runs.add(run_id)
        counts = self.blamed if line["evidence"] else self.unexplained
        counts[candidate] = counts.get(candidate, 0) + 1

    def _reopen(self, *, force: bool) -> None:
        """What failed is made again, what is finished stays."""
        self.state, self.finished_at, self.error, self.held = State.QUEUED, None, None, None
        self.waiting_for = ()
        self.cancelled, self.force = False, self.force or force
        for counts in (self.failed, self.blamed, self.unexplained):
            counts.clear()


# --- what a line may hold: somebody may have edited it, and one that is not as we write it counts for nothing ---


def _number(value: object) -> int:
    if not isinstance(value, int) or abs(value) > _MAX_NUMBER:
        raise TypeError("no number of ours")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, float | int) or abs(value) > _MAX_NUMBER:
        raise TypeError("no number of seconds")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _texts(values: object) -> list[str]:
    if not isinstance(values, list):
        raise TypeError("no list")
    return [_text(value) for value in values]


def _problem(table: Mapping[str, object]) -> dict[str, str | int]:
    return {key: value if isinstance(value, str) else _number(value) for key, value in table.items()}


def _origin(table: Mapping[str, Any]) -> Origin:
    origin = _typed(Origin, table)
    if origin.scheduled_for is not None:
        Moment.parse(origin.scheduled_for)
    path = PurePosixPath(origin.file)
    if path.is_absolute() or ".." in path.parts or "\0" in origin.file:
        raise ValueError("not below the inbox: what lies there would be taken away")
    return origin


_Made = TypeVar("_Made", Origin, Output, Failure)


def _typed(cls: type[_Made], table: Mapping[str, Any]) -> _Made:
    """Make a part of a ledger, each field of its type."""
    made = cls(**table)
    for key, kind in _KINDS[cls].items():
        value = getattr(made, key)
        if kind is float:
            _seconds(value)
        elif not isinstance(value, kind) or (isinstance(value, int) and abs(value) > _MAX_NUMBER):
            raise TypeError(f"{key} is of another type")
    return made


#: Class -> the type of each field.
_KINDS: Final[Mapping[type, Mapping[str, Any]]] = {cls: get_type_hints(cls) for cls in (Origin, Output, Failure)}
#: What TOML can hold, in which it will be shown.
_MAX_NUMBER: Final = 2**63 - 1


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


def append(folder: Path, *added: Mapping[str, Any], sync: bool = True) -> int:
    """Add lines to the journal of a job's folder; with `sync` they are on disk when this returns.

    Returns: where the first of them begins, in bytes.

    Raises:
        OSError: they were not added.
    """
    return durable.append(folder / FILE_NAME, encode(*added), sync=sync)


def read(folder: Path) -> Ledger:
    """Add up the journal of a job's folder.

    A torn last line is ignored, and so is one that cannot be read: it was never acknowledged, or a newer version
    wrote it, and one job's line is no reason not to serve the others.

    Raises:
        OSError: there is no journal, or it cannot be read.
    """
    ledger = Ledger()
    for at, one in _located((folder / FILE_NAME).read_bytes()):
        with suppress(KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
            ledger.apply(one, at)
    return ledger


def line_at(folder: Path, at: int) -> dict[str, Any]:
    """Read one line again, whole.

    Raises:
        OSError: there is no journal, or it cannot be read.
        ValueError: no line of ours begins there.
    """
    with (folder / FILE_NAME).open("rb") as file:
        file.seek(at)
        try:
            return dict(json.loads(file.readline()))
        except (TypeError, RecursionError) as error:
            raise ValueError("no line of ours") from error


def mend(folder: Path) -> None:
    """Cut a torn last line off, so that the next one starts at its own beginning."""
    path = folder / FILE_NAME
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        durable.write(path, data[: data.rfind(b"\n") + 1])
        durable.sync_folder(folder)


def lines(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal that can be read, as data."""
    for _, one in _located(data):
        yield one


def _located(data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the lines of a journal that can be read: where each begins, in bytes, and what it says."""
    at = 0
    for text in data.split(b"\n")[:-1]:
        begins, at = at, at + len(text) + 1
        try:
            one = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(one, dict) and "event" in one and "at" in one:
            yield begins, one
