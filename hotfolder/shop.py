"""What the life of a cell needs around it, and what is told while it runs."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hotfolder import logs, names, record
from hotfolder.cells import Handoff
from hotfolder.clock import Clock
from hotfolder.engine import Engine, JobStopped, StopReason
from hotfolder.errors import HotfolderError
from hotfolder.gallery import Gallery
from hotfolder.job import Job
from hotfolder.journal import Failure, State
from hotfolder.line import Cell, Line
from hotfolder.plan import Plan
from hotfolder.spool import Spool
from hotfolder.status import Progress
from hotfolder.takes import Takes
from hotfolder.thumbs import Thumbs


@dataclass(frozen=True, kw_only=True)
class Shop:
    """What the life of a cell needs around it: made once, by the daemon."""

    spool: Spool
    line: Line
    gallery: Gallery
    thumbs: Thumbs
    takes: Takes
    engine: Engine
    clock: Clock
    #: Whether the daemon is stopping; asked at every step.
    stopping: Callable[[], bool]
    #: Pictures on their way from cell to cell.
    handoff: Handoff = field(default_factory=Handoff)
    #: Seconds for a step of a million pixels, by model key; for what is said about the time left.
    pace: dict[str, float] = field(default_factory=dict)
    #: Jobs whose journal could not be written, by name, and since when.
    aside: dict[str, float] = field(default_factory=dict)
    #: How the jobs that ended in this process ended.
    results: Counter[State] = field(default_factory=Counter)
    versions: Mapping[str, str] = field(default_factory=record.versions)


def picture_s(shop: Shop, job: Job) -> float | None:
    """Return how long a picture of this job should take, loading aside; None where nothing is known of its model."""
    pace = shop.pace.get(job.model_key)
    return None if pace is None else pace * job.weight


def note_pace(shop: Shop, cell: Cell, seconds: float) -> None:
    """Learn how quick a model is, from a picture that it made."""
    if cell.model != cell.job.model_key:
        return
    pace = max(seconds, 0.0) / cell.job.weight
    before = shop.pace.get(cell.model, pace)
    shop.pace[cell.model] = 0.7 * before + 0.3 * pace


def job_log(job: Job) -> logs.Log:
    """Return the log of a job: it goes to the console and to the job's log.jsonl."""
    return logs.logger("hotfolder.job").bind(job=job.name, folder="" if job.gone else str(job.folder))


def failure_of(
    error: BaseException,
    *,
    stage: str | None = None,
    stage_index: int | None = None,
    candidate: int | None = None,
    item: int | None = None,
) -> Failure:
    """Say an error in the words of a status file; what is our bug is called `internal`."""
    match error:
        case HotfolderError():
            code, message, hint = error.code, error.message, error.hint
        case OSError():
            where = f": {names.shown(str(error.filename))}" if error.filename else ""
            code, message, hint = (
                "cannot-write",
                f"{error.strerror or error}{where}",
                "look at rights and disk, then resume",
            )
        case _:
            first_line = str(error).partition("\n")[0]
            code, message = "internal", f"{type(error).__name__}: {first_line}"
            hint = "this is a bug of hotfolder; log.jsonl of the job has the details"
    return Failure(
        code=code, message=message, hint=hint, stage=stage, stage_index=stage_index, candidate=candidate, item=item
    )


class CellTick:
    """The one tick of a cell: progress, and whether to stop."""

    def __init__(self, shop: Shop, cell: Cell, plan: Plan, beat: Callable[[str], None]) -> None:
        self._shop, self._cell, self._plan, self._beat = shop, cell, plan, beat
        #: The first step that was seen, and when: this picture's own pace is told from there.
        self._first: tuple[float, float] | None = None
        #: Of the cell, 0 to 1: its steps. What comes before has no length yet, what comes after has it no more.
        self._part = 0.0

    def __call__(self, phase: str, step: int, steps: int) -> None:
        """Report, and raise `JobStopped` where the cell is to stop."""
        job = self._cell.job
        self._beat(phase)
        if job.stop is not None:
            raise JobStopped(job.stop)
        if self._shop.stopping():
            raise JobStopped(StopReason.SHUTDOWN)
        part = self._part = step / steps if steps else self._part
        table = job.table
        over, cells_ = (table.cells_over, table.cells) if table is not None else (0, 1)
        job.progress = Progress(
            stage=self._plan.stages[self._cell.stage - 1].id,
            stage_index=self._cell.stage,
            stages=len(self._plan.stages),
            candidate=self._cell.candidate,
            phase=phase,
            step=step,
            steps=steps,
            fraction=round(min(1.0, (over + part) / max(cells_, 1)), 4),
            seconds_left=self._seconds_left(part, max(0, cells_ - over)),
        )

    def _seconds_left(self, part: float, cells_left: int) -> float | None:
        """From the pace of this picture so far, or before there is one from that of its model."""
        now, job = self._shop.clock.monotonic(), self._cell.job
        whole = picture_s(self._shop, job) if self._cell.model else None
        if part > 0 and self._first is None:
            self._first = (part, now)
        elif self._first is not None and part > self._first[0]:
            whole = (now - self._first[1]) / (part - self._first[0])
        return None if whole is None else round(whole * max(0.0, cells_left - part), 1)
