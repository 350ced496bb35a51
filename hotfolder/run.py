"""The life of one cell, top to bottom, and how rows and jobs end. READ THIS FIRST.

A job is a table: candidates down, stages across. `make` runs the stages of a row that need the GPU, on the one thread
that owns it; `keep` runs the rest beside it and puts the picture on disk; then, or when either fails, `conclude` looks
whether the whole job has ended. A cell that is stopped without being cancelled is ready again.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from PIL import Image

from hotfolder import durable, gallery, names, outputs, pages, record, sources
from hotfolder.clock import Clock
from hotfolder.engine import Engine, JobStopped, no_tick
from hotfolder.errors import HotfolderError, JobError
from hotfolder.gallery import Gallery
from hotfolder.job import Job
from hotfolder.journal import Failure, Output, State, StopReason
from hotfolder.line import Cell, Line
from hotfolder.plan import Plan
from hotfolder.spool import Spool
from hotfolder.stages import STAGES, Work
from hotfolder.stages.export import stem
from hotfolder.status import Progress
from hotfolder.thumbs import Thumbs

#: Deaths of the process on one candidate after which it is given up: with evidence, and without any.
MAX_BLAMED: Final = 2
MAX_UNEXPLAINED: Final = 20
#: Why the line is closed: lifted by the daemon, when there is room.
DISK_FULL: Final = "disk full"
#: A job whose journal cannot be written is tried again after so long; meanwhile the others go on.
ASIDE_S: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Shop:
    """What the life of a cell needs around it: made once, by the daemon."""

    spool: Spool
    line: Line
    gallery: Gallery
    thumbs: Thumbs
    engine: Engine
    clock: Clock
    #: Whether the daemon is stopping; asked at every step.
    stopping: Callable[[], bool]
    #: Seconds for a step of a million pixels, by model key; for what is said about the time left.
    pace: dict[str, float] = field(default_factory=dict)
    #: Jobs whose journal could not be written, by name, and since when.
    aside: dict[str, float] = field(default_factory=dict)
    #: How the jobs that ended in this process ended.
    results: Counter[State] = field(default_factory=Counter)
    versions: Mapping[str, str] = field(default_factory=record.versions)


def load_pictures(shop: Shop, cell: Cell) -> dict[str, Image.Image]:
    """Load the sources of a cell, by role; done while the cell before it runs.

    Raises:
        JobError: `changed-file` or `bad-picture`.
    """
    return sources.load(cell.job.folder, shop.spool.plan(cell.job), force=cell.job.ledger.force)


def make(shop: Shop, cell: Cell, pictures: Mapping[str, Image.Image], beat: Callable[[str], None]) -> Work:
    """Run the stages of a row that need the GPU.

    Args:
        beat: told the phase at every sign of life.

    Raises:
        JobStopped: the job was cancelled or held, or the daemon stops.
        HotfolderError: the picture cannot be made.
    """
    plan = shop.spool.plan(cell.job)
    work = Work(
        plan=plan,
        plan_sha256=cell.job.ledger.plan_sha256 or "",
        run_id=shop.spool.run_id,
        folder=cell.job.folder,
        candidate=cell.candidate,
        engine=shop.engine,
        tick=_Tick(shop, cell, plan, beat),
        finished_at=shop.clock.now(),
        versions=shop.versions,
        pictures=pictures,
    )
    for name in plan.stages:
        if STAGES[name].lane == "gpu":
            work = run_cell(name, work)
    return replace(work, finished_at=shop.clock.now())


def run_cell(stage: str, work: Work) -> Work:
    """Run one stage of one candidate: `work` in, the same with what the stage made out.

    This is the seam at which a cell can be run anywhere: all it needs stands in `work`, the Engine included.
    """
    work.tick(stage, 0, 0)
    return STAGES[stage].run(work)


def keep(shop: Shop, cell: Cell, work: Work, seconds: float) -> None:
    """Run the rest of a row, beside the GPU; the picture is on disk, and counted, when this returns."""
    job = cell.job
    timings = dict(work.made.timings) if work.made else {}
    log = job_log(job).bind(candidate=cell.candidate)
    log.info("stage_stop", stage="generate", seconds=round(seconds, 3), timings=_rounded(timings))
    try:
        for name in work.plan.stages:
            if STAGES[name].lane == "cpu":
                log.info("stage_start", stage=name)
                work = run_cell(name, replace(work, tick=no_tick))
        assert work.written is not None  # noqa: S101 - the last stage of every plan writes
        written = work.written
    except Exception as error:  # noqa: BLE001 - whatever happened, the row must come to an end
        _discard_unkept(job, cell.candidate, error)
        fail(shop, cell, error, stage="export")
        return
    output = Output(
        candidate=cell.candidate,
        file=written.file,
        seed=work.plan.seed_of(cell.candidate),
        sha256=written.sha256,
        pixels_sha256=written.pixels_sha256,
        seconds=round(seconds, 3),
        save_seconds=round(written.seconds, 3),
    )
    try:
        for text in work.made.notices if work.made else ():
            if text not in job.ledger.notices:
                shop.spool.notice(job, text)
        shop.spool.done(job, output, last=not job.todo and job.in_flight == {cell.candidate})
    except OSError as error:
        _wait_for_disk(shop, cell, error)
        return
    if work.made is not None:
        shop.thumbs.keep(job.folder / written.file, work.made.image)
    _note_pace(shop, job, seconds - timings.get("load", 0.0))
    for phase, spent in (timings | {"save": written.seconds}).items():
        job.timings[phase] = job.timings.get(phase, 0.0) + spent
    log.info("stage_stop", stage="export", seconds=round(written.seconds, 3), file=written.file)
    _let_go(shop, cell)


def picture_s(shop: Shop, job: Job) -> float | None:
    """Return how long a picture of this job should take, loading aside; None where nothing is known of its model."""
    pace = shop.pace.get(job.model_key)
    return None if pace is None else pace * job.weight


def _note_pace(shop: Shop, job: Job, seconds: float) -> None:
    pace = max(seconds, 0.0) / job.weight
    before = shop.pace.get(job.model_key, pace)
    shop.pace[job.model_key] = 0.7 * before + 0.3 * pace


def begin(shop: Shop, cell: Cell) -> None:
    """Note that a cell begins, and at the first one that its job runs."""
    if cell.job.ledger.state is State.QUEUED:
        try:
            shop.spool.started(cell.job)
        except OSError as error:
            # The next cell says so; this one goes on, perhaps there is room by the time it is made.
            job_log(cell.job).warning("start_not_noted", error=names.shown(str(error)))
            return
        job_log(cell.job).info(
            "run_start", run_id=shop.spool.run_id, plan=cell.job.ledger.plan_sha256, attempt=cell.job.ledger.attempt
        )
    job_log(cell.job).info("stage_start", stage="generate", candidate=cell.candidate)


def stopped(shop: Shop, cell: Cell, reason: StopReason) -> None:
    """A cell was told to stop: cancelled ends the job, anything else makes the cell ready again."""
    job_log(cell.job).info("stopped", candidate=cell.candidate, why=reason.value)
    if reason is StopReason.CANCEL:
        _let_go(shop, cell)
    else:
        give_back(shop, cell)


def give_back(shop: Shop, cell: Cell) -> None:
    """Make a cell ready again."""
    shop.line.put_back(cell)
    if cell.job.stop is StopReason.CANCEL:
        conclude(shop, cell.job)
    elif cell.job.ledger.held is None and cell.job.name not in shop.aside:
        shop.line.add(cell.job)


def fail(shop: Shop, cell: Cell, error: BaseException, *, stage: str = "generate") -> None:
    """End a row that cannot be finished; the others go on."""
    job = cell.job
    if isinstance(error, OSError) and shop.spool.check_folder(job) and _will_pass(shop, error):
        _wait_for_disk(shop, cell, error)
        return
    plan = shop.spool.plan_if_any(job)
    failure = failure_of(
        error,
        stage=stage,
        stage_index=plan.stages.index(stage) + 1 if plan else None,
        candidate=cell.candidate,
        item=plan.item_of(cell.candidate) if plan else None,
    )
    if not job.gone:
        job_log(job).error(
            "candidate_failed",
            candidate=cell.candidate,
            code=failure.code,
            message=failure.message,
            exc_info=_bug(error),
        )
    try:
        shop.spool.failed(job, failure)
    except OSError as unwritten:
        _wait_for_disk(shop, cell, unwritten)
    else:
        _let_go(shop, cell)


def _will_pass(shop: Shop, error: OSError) -> bool:
    """Whether it is the disk's fault, not the job's: full, or away."""
    return error.errno in durable.NO_ROOM or not shop.spool.outputs_stand


def _wait_for_disk(shop: Shop, cell: Cell, error: OSError) -> None:
    """Make a cell ready again, but not at once: on a full disk none starts, else none of its job."""
    job = cell.job
    job_log(job).warning("not_kept", candidate=cell.candidate, error=names.shown(str(error)))
    if error.errno in durable.NO_ROOM:
        shop.line.close(DISK_FULL)
        give_back(shop, cell)
        return
    shop.line.remove(job)
    shop.line.put_back(cell)
    shop.aside[job.name] = shop.clock.monotonic()
    conclude(shop, job)


def try_again(shop: Shop) -> None:
    """Take up what the disk did not take: ends and statuses that were not written, jobs that were set aside."""
    for ended in shop.spool.catch_up():
        let_go_of_ended(shop, ended)
    now = shop.clock.monotonic()
    for name in [name for name, since in list(shop.aside.items()) if now - since >= ASIDE_S]:
        del shop.aside[name]
        job = shop.spool.live.get(name)
        if job is not None and job.ledger.held is None and not job.ledger.ended:
            shop.line.add(job)
            conclude(shop, job)


def conclude(shop: Shop, job: Job) -> None:
    """End the job if nothing of it is left to do."""
    with job.lock:
        if job.ledger.ended:
            return
        if job.gone or job.ledger.cancelled:
            if not job.in_flight:
                end(shop, job, State.CANCELLED)
            return
        if shop.line.has_cells(job) or not job.ledger.plan_sha256:
            return
        ledger = job.ledger
        if not ledger.failed:
            end(shop, job, State.COMPLETED)
        elif ledger.done:
            end(shop, job, State.PARTIAL, ledger.failed[min(ledger.failed)])
        else:
            end(shop, job, State.FAILED, ledger.failed[min(ledger.failed)])


def end(shop: Shop, job: Job, state: State, error: Failure | None = None) -> None:
    """End the job, show it in the history, and let go of it."""
    shop.line.empty(job)
    shop.spool.ended(job, state, error)
    let_go_of_ended(shop, job)


def let_go_of_ended(shop: Shop, job: Job) -> None:
    """Put an ended job into the history and forget it; also for one that a crash left between the two.

    One whose end is not on disk yet is let go of later.
    """
    ledger = job.ledger
    with job.lock:
        if not shop.spool.settled(job):
            return
        if not job.gone:
            _show_ended(shop, job)
        shop.results[ledger.state if ledger.ended else State.CANCELLED] += 1
        shop.spool.forget(job)
    took = (ledger.finished_at - ledger.started_at).total_seconds() if ledger.finished_at and ledger.started_at else 0.0
    job_log(job).info(
        "run_end",
        state=ledger.state.value,
        done=len(ledger.done),
        failed=len(ledger.failed),
        seconds=round(took, 3),
        timings=_rounded(job.timings),
    )


def _show_ended(shop: Shop, job: Job) -> None:
    """Write its pages and its row of the history: views, which can be made again."""
    plan = shop.spool.plan_if_any(job)
    views: tuple[Callable[[], None], ...] = (
        lambda: pages.write_job(job, plan, shop.thumbs, shop.clock.now()),
        lambda: shop.gallery.add(gallery.ended(job.name, job.ledger, plan)),
    )
    for write in views:
        try:
            write()
        except Exception as error:  # noqa: BLE001 - the job has ended, whatever there is to see of it
            job_log(job).warning("not_shown", error=str(error), exc_info=_bug(error))


def adopt_finished(shop: Shop, job: Job) -> None:
    """Take in the pictures that a process before finished but could not note any more."""
    plan = shop.spool.plan(job)
    for candidate in list(job.todo):
        try:
            written = outputs.find(job.folder, stem(job.name, candidate))
        except JobError as error:
            # A power cut may leave a name without its data: nothing whole is lost, the picture is made again.
            job_log(job).warning("unfinished_picture", candidate=candidate, why=error.message)
            outputs.discard(job.folder, stem(job.name, candidate))
            continue
        if written is None:
            _discard_half(job, candidate)
            continue
        output = Output(
            candidate=candidate,
            file=written.file,
            seed=plan.seed_of(candidate),
            sha256=written.sha256,
            pixels_sha256=written.pixels_sha256,
            # How long the process before took to make it is not known.
            seconds=0.0,
            save_seconds=written.seconds,
        )
        shop.spool.done(job, output)
        job.todo.remove(candidate)


def _discard_unkept(job: Job, candidate: int, error: Exception) -> None:
    """Remove what was written of a picture that could not be kept; one that somebody changed since is left to them."""
    if isinstance(error, OSError):
        with suppress(OSError):
            outputs.discard(job.folder, stem(job.name, candidate))
    else:
        _discard_half(job, candidate)


def _discard_half(job: Job, candidate: int) -> None:
    """Remove a picture that has no sidecar: a crash or a full disk came between the two."""
    picture = job.folder / f"{stem(job.name, candidate)}.png"
    with suppress(OSError):
        if not picture.with_name(f"{picture.name}.toml").exists():
            durable.remove(picture)


def give_up_on_deadly(shop: Shop, job: Job) -> None:
    """Fail the candidates on which the process died too often."""
    ledger = job.ledger
    deadly = {number for number, count in ledger.blamed.items() if count >= MAX_BLAMED}
    deadly |= {number for number, count in ledger.unexplained.items() if count >= MAX_UNEXPLAINED}
    for candidate in sorted(deadly - set(ledger.failed) - set(ledger.done)):
        deaths = ledger.blamed.get(candidate, 0) or ledger.unexplained.get(candidate, 0)
        failure = Failure(
            code="crashed-worker",
            message=f"the process died {deaths} times while it made candidate {candidate}",
            hint="a smaller size or another preset may work; the daemon's log says how it died",
            stage="generate",
            stage_index=1,
            candidate=candidate,
        )
        shop.spool.failed(job, failure)
        with suppress(ValueError):
            job.todo.remove(candidate)


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


def job_log(job: Job) -> structlog.stdlib.BoundLogger:
    """Return the log of a job: it goes to the console and to the job's log.jsonl."""
    return structlog.get_logger("hotfolder.job").bind(job=job.name, folder="" if job.gone else str(job.folder))  # type: ignore[no-any-return]  # structlog's proxy


def _bug(error: BaseException) -> BaseException | None:
    return None if isinstance(error, (HotfolderError, OSError)) else error


def _let_go(shop: Shop, cell: Cell) -> None:
    shop.line.let_go(cell)
    conclude(shop, cell.job)


def _rounded(timings: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(seconds, 3) for phase, seconds in timings.items()}


class _Tick:
    """The one tick of a cell: progress, and whether to stop."""

    def __init__(self, shop: Shop, cell: Cell, plan: Plan, beat: Callable[[str], None]) -> None:
        self._shop, self._cell, self._plan, self._beat = shop, cell, plan, beat
        #: The first step that was seen, and when: this picture's own pace is told from there.
        self._first: tuple[float, float] | None = None
        #: Of the picture, 0 to 1: its steps. What comes before has no length yet, what comes after has it no more.
        self._part = 0.0

    def __call__(self, phase: str, step: int, steps: int) -> None:
        job = self._cell.job
        self._beat(phase)
        if job.stop is not None:
            raise JobStopped(job.stop)
        if self._shop.stopping():
            raise JobStopped(StopReason.SHUTDOWN)
        part = self._part = step / steps if steps else self._part
        job.progress = Progress(
            stage="generate",
            stage_index=1,
            stages=len(self._plan.stages),
            candidate=self._cell.candidate,
            phase=phase,
            step=step,
            steps=steps,
            fraction=round(min(1.0, (len(job.ledger.done) + len(job.ledger.failed) + part) / self._plan.candidates), 4),
            seconds_left=self._seconds_left(part),
        )

    def _seconds_left(self, part: float) -> float | None:
        """From the pace of this picture so far, or before there is one from that of its model."""
        now, job = self._shop.clock.monotonic(), self._cell.job
        whole = picture_s(self._shop, job)
        if part > 0 and self._first is None:
            self._first = (part, now)
        elif self._first is not None and part > self._first[0]:
            whole = (now - self._first[1]) / (part - self._first[0])
        return None if whole is None else round(whole * (len(job.todo) + 1 - part), 1)
