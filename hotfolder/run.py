"""The life of one cell, top to bottom, and how rows and jobs end. READ THIS FIRST.

A job is a table: candidates down, stages across. `prepare` loads what a cell goes on with, `make` runs its stage (on
the one thread that owns the GPU, or beside it), `keep` puts what it made on disk and lets the next cell of the row
become ready; then, or when any of them fails, `conclude` looks whether the whole job has ended. A cell that is stopped
without being cancelled is ready again; one that failed for a reason that may pass is tried again.
"""

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hotfolder import cells, durable, gallery, logs, names, pages, record
from hotfolder.cells import Ran
from hotfolder.engine import StopReason
from hotfolder.errors import HotfolderError, JobError
from hotfolder.job import Job
from hotfolder.journal import Failure, State
from hotfolder.line import Cell
from hotfolder.plan import Plan
from hotfolder.shop import CellTick, Shop, failure_of, job_log, note_pace
from hotfolder.stages import STAGES, Call, Choice, Chosen, Outcome, Stage, Work
from hotfolder.table import Place

#: Seconds after which a cell is tried again that failed for a reason that may pass: five attempts in all.
RETRY_AFTER_S: Final = (1.0, 2.0, 4.0, 8.0)
#: The longest that a server may ask us to wait.
_MAX_RETRY_AFTER_S: Final = 600.0
#: Errors of a disk, a share or a busy machine that may pass by themselves.
_MAY_PASS: Final = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ECONNRESET"),
        *("ECONNREFUSED", "ECONNABORTED", "EAGAIN", "EBUSY", "EREMOTEIO", "ENOLINK", "ENOTCONN", "EPIPE"),
        *("EINTR", "EMFILE", "ENFILE", "ENOMEM"),
    )
)
#: Why the line is closed: lifted by the daemon, when there is room.
DISK_FULL: Final = "disk full"
#: A job whose journal cannot be written is tried again after so long; meanwhile the others go on.
ASIDE_S: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A cell with the pictures that it goes on with: one Work, or for a stage that looks at a whole item one each."""

    cell: Cell
    plan: Plan
    works: Mapping[int, Work]


def prepare(shop: Shop, cell: Cell) -> Prepared:
    """Load what a cell goes on with; for the GPU's done while the cell before it runs.

    Raises:
        JobError: `changed-file` or `bad-picture`.
    """
    plan = shop.spool.plan(cell.job)
    planned = plan.stages[cell.stage - 1]
    numbers = [cell.candidate]
    if isinstance(STAGES[planned.stage], Choice):
        numbers = shop.line.candidates_at(cell)
    places = {number: Place(number, cell.stage) for number in numbers}
    works = {number: cells.load(cell.job, plan, place, shop.handoff) for number, place in places.items()}
    return Prepared(cell=cell, plan=plan, works=works)


def make(shop: Shop, prepared: Prepared, beat: Callable[[str], None]) -> Outcome | Chosen:
    """Run the stage of a cell.

    Args:
        beat: told the phase at every sign of life.

    Raises:
        JobStopped: the job was cancelled or held, or the daemon stops.
        HotfolderError: the picture cannot be made.
    """
    cell, plan = prepared.cell, prepared.plan
    tick = CellTick(shop, cell, plan, beat)
    call = cells.call_for(cell.job, plan, cell.place, shop.engine, tick)
    return run_cell(plan.stages[cell.stage - 1].stage, list(prepared.works.values()), call)


def run_cell(name: str, works: Sequence[Work], call: Call) -> Outcome | Chosen:
    """Run one stage on one candidate, or on all candidates of an item.

    This is the seam at which a cell can be run anywhere: all it needs stands in `works` and `call`, the Engine too.
    """
    call.tick(name, 0, 0)
    match STAGES[name]:
        case Stage(run=run):
            return run(works[0], call)
        case Choice(choose=choose):
            return choose(works, call)
        case _:
            return Outcome(work=works[0])


def keep(shop: Shop, prepared: Prepared, made: Outcome | Chosen, seconds: float) -> None:
    """Put on disk what a cell made, and count it; beside the GPU."""
    cell, plan = prepared.cell, prepared.plan
    log = job_log(cell.job).bind(candidate=cell.candidate, stage=plan.stages[cell.stage - 1].id)
    timings = made.timings if isinstance(made, Outcome) else {}
    if cell.stage < len(plan.stages):
        log.info("stage_stop", seconds=round(seconds, 3), timings=_rounded(timings))
    try:
        if isinstance(made, Chosen):
            _keep_choice(shop, prepared, made)
        else:
            _keep_pictures(shop, prepared, made, seconds)
    except Exception as error:  # noqa: BLE001 - whatever happened, the row must come to an end
        fail(shop, cell, error)
    else:
        cell.job.tries.pop(cell.place, None)
        conclude(shop, cell.job)


def _keep_choice(shop: Shop, prepared: Prepared, chosen: Chosen) -> None:
    cell, plan, numbers = prepared.cell, prepared.plan, list(prepared.works)
    kept = [numbers[index] for index in chosen.kept]
    scores = {str(number): round(score, 6) for number, score in zip(numbers, chosen.scores, strict=False)}
    item = plan.item_of(cell.candidate)
    for text in chosen.notices:
        _notice(shop, cell.job, text)
    shop.spool.chose(cell.job, cell.stage, item, kept, scores)
    shop.line.chose(cell.job, cell.stage, item, kept)


def _keep_pictures(shop: Shop, prepared: Prepared, made: Outcome, seconds: float) -> None:
    cell, plan, job = prepared.cell, prepared.plan, prepared.cell.job
    given, last = prepared.works[cell.candidate], len(plan.stages)
    for text in made.notices:
        _notice(shop, job, text)
    for phase, spent in made.timings.items():
        job.timings[phase] = job.timings.get(phase, 0.0) + spent
    if cell.model:
        note_pace(shop, cell, seconds - made.timings.get("load", 0.0))
    ran = Ran(job=job, plan=plan, place=cell.place, given=given, outcome=made, seconds=seconds)
    if cell.stage == last:
        _export(shop, cell, ran, None)
        return
    described, hashes = cells.describe_cell(ran)
    if cell.stage == last - 1 and plan.plain_end:
        # The finished picture is the checkpoint too: one file serves both cells.
        _export(shop, cell, ran, described)
        return
    line = cells.to_disk(ran, described, hashes, shop.clock.now())
    if job.gone:
        shop.line.drop(cell)
        return
    shop.spool.passed(job, line)
    shop.handoff.put(job.folder, cell.candidate, cell.stage, made.work)
    shop.line.passed(cell)


def _export(shop: Shop, cell: Cell, ran: Ran, described: record.CellRecord | None) -> None:
    """Write the finished pictures of a candidate, with all that is known of how they came to be."""
    job, plan, spool, work = ran.job, ran.plan, shop.spool, ran.outcome.work
    before = cells.history(job, plan, cell.candidate, cell.stage)
    if described is not None:
        before.append(described)
        job_log(job).info("stage_start", stage=plan.stages[-1].id, candidate=cell.candidate)
    facts = cells.Facts(
        candidate=cell.candidate,
        run_id=spool.run_id,
        mode=spool.mode,
        versions=shop.versions,
        now=shop.clock.now(),
        seconds=sum(one.seconds for one in before) if described is None else ran.seconds,
    )
    try:
        made = cells.export(job, plan, work, before, facts)
    except Exception as error:
        cells.discard_unkept(job, plan, cell.candidate, error)
        raise
    cells.publish(spool.settings, job, plan, made)
    spool.done(job, made, last=shop.line.is_last(cell))
    for output in made[:1]:
        shop.thumbs.keep(job.folder / output.file, next(iter(work.pictures.values())))
    save_s = sum(output.save_seconds for output in made)
    job.timings["save"] = job.timings.get("save", 0.0) + save_s
    job_log(job).info(
        "stage_stop", stage=plan.stages[-1].id, candidate=cell.candidate, seconds=round(save_s, 3), file=made[0].file
    )
    shop.line.finished(job, cell.candidate)


def _notice(shop: Shop, job: Job, text: str) -> None:
    if text not in job.ledger.notices:
        shop.spool.notice(job, text)


def begin(shop: Shop, cell: Cell) -> None:
    """Note that a cell begins, and at the first one that its job runs."""
    job = cell.job
    if job.ledger.state is State.QUEUED:
        try:
            shop.spool.started(job)
        except OSError as error:
            # The next cell says so; this one goes on, perhaps there is room by the time it is made.
            job_log(job).warning("start_not_noted", error=names.shown(str(error)))
            return
        _log_start(shop, job)
    plan = shop.spool.plan_if_any(job)
    if plan is not None:
        job_log(job).info("stage_start", stage=plan.stages[cell.stage - 1].id, candidate=cell.candidate)


def _log_start(shop: Shop, job: Job) -> None:
    plan = shop.spool.plan_if_any(job)
    choices = {"seed": plan.seed, "seed_from": plan.seed_from, "prompt_from": plan.prompt_from} if plan else {}
    job_log(job).info(
        "run_start",
        run_id=shop.spool.run_id,
        mode=shop.spool.mode,
        source=job.ledger.source,
        plan=job.ledger.plan_sha256,
        attempt=job.ledger.attempt,
        **choices,
    )


def stopped(shop: Shop, cell: Cell, reason: StopReason) -> None:
    """A cell was told to stop: cancelled ends the job, anything else makes the cell ready again."""
    job_log(cell.job).info("stopped", candidate=cell.candidate, why=reason.value)
    if reason is StopReason.CANCEL:
        shop.line.drop(cell)
        conclude(shop, cell.job)
    else:
        give_back(shop, cell)


def give_back(shop: Shop, cell: Cell) -> None:
    """Make a cell ready again."""
    shop.line.put_back(cell)
    if cell.job.stop is StopReason.CANCEL:
        conclude(shop, cell.job)
    elif cell.job.ledger.held is None and cell.job.name not in shop.aside:
        shop.line.add(cell.job)


# --- what goes wrong ---


def fail(shop: Shop, cell: Cell, error: BaseException) -> None:
    """A cell failed: it is tried again where the reason may pass, else its row ends; the others go on."""
    job = cell.job
    if isinstance(error, OSError) and shop.spool.check_folder(job) and _will_pass(shop, error):
        _wait_for_disk(shop, cell, error)
        return
    plan = shop.spool.plan_if_any(job)
    failure = failure_of(
        error,
        stage=plan.stages[cell.stage - 1].id if plan else None,
        stage_index=cell.stage if plan else None,
        candidate=cell.candidate,
        item=plan.item_of(cell.candidate) if plan else None,
    )
    try:
        if job.stop is StopReason.CANCEL:
            shop.line.drop(cell)
            conclude(shop, job)
            return
        if _may_pass(error) and _try_later(shop, cell, error, failure):
            conclude(shop, job)  # it may have been cancelled meanwhile
            return
        _end_rows(shop, cell, plan, failure, error)
    except OSError as unwritten:
        _wait_for_disk(shop, cell, unwritten)
        return
    conclude(shop, job)


def _end_rows(shop: Shop, cell: Cell, plan: Plan | None, failure: Failure, error: BaseException) -> None:
    """End the row of a cell; where the cell looked at a whole item, those of all its candidates."""
    job = cell.job
    numbers = [cell.candidate]
    if plan is not None and isinstance(STAGES[plan.stages[cell.stage - 1].stage], Choice):
        numbers = shop.line.candidates_at(cell)
    if not job.gone:
        job_log(job).error(
            "candidate_failed",
            candidate=cell.candidate,
            stage=failure.stage,
            code=failure.code,
            message=failure.message,
            exc_info=logs.bug(error),
        )
    shop.spool.failed(job, *(replace(failure, candidate=number) for number in numbers))
    lost = shop.line.failed(job, numbers)
    text = f"the candidate that it begins with failed: {failure.message}"
    shop.spool.failed(job, *(replace(failure, candidate=other, message=text) for other in lost))
    shop.line.drop(cell)


def _may_pass(error: BaseException) -> bool:
    """Whether an error may be gone the next time: of a share, the network, or memory that somebody else took."""
    if isinstance(error, HotfolderError):
        return error.transient
    return isinstance(error, OSError) and error.errno in _MAY_PASS


def _try_later(shop: Shop, cell: Cell, error: BaseException, failure: Failure) -> bool:
    """Put a cell back for a later attempt; return False where it had all of them."""
    job = cell.job
    tries = job.tries.get(cell.place, 0) + 1
    if tries > len(RETRY_AFTER_S):
        return False
    job.tries[cell.place] = tries
    asked = error.retry_after_s if isinstance(error, HotfolderError) and error.retry_after_s else 0.0
    after_s = min(max(RETRY_AFTER_S[tries - 1], asked), _MAX_RETRY_AFTER_S)
    job_log(job).warning(
        "tried_again", candidate=cell.candidate, stage=failure.stage, code=failure.code, message=failure.message,
        tries=tries, after_s=after_s,
    )  # fmt: skip
    shop.spool.retried(job, failure, tries)
    shop.line.delay(cell, after_s)
    return True


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
        if job is not None and job.ledger.ended:
            let_go_of_ended(shop, job)
        elif job is not None:
            _take_up(shop, job)


def _take_up(shop: Shop, job: Job) -> None:
    """Put a job that was set aside back in the line; it may have been so since the start."""
    try:
        shop.spool.lay_out(job)
    except JobError as error:
        end(shop, job, State.FAILED, failure_of(error))
        return
    except OSError as error:
        job_log(job).warning("not_laid_out", error=names.shown(str(error)))
        shop.aside[job.name] = shop.clock.monotonic()
        return
    if job.ledger.held is None:
        shop.line.add(job)
        conclude(shop, job)


# --- how jobs end ---


def conclude(shop: Shop, job: Job) -> None:
    """End the job if nothing of it is left to do, or let a person pick where only that is left."""
    with job.lock:
        ledger = job.ledger
        if ledger.ended:
            return
        if job.gone or ledger.cancelled:
            if not job.busy:
                end(shop, job, State.CANCELLED)
            return
        if shop.line.has_cells(job) or not ledger.plan_sha256 or job.table is None:
            return
        if job.table.waits_for_a_person:
            # One that is held waits for both; going on lets it be picked from.
            if ledger.held is None:
                _let_pick(shop, job)
        elif not ledger.failed:
            end(shop, job, State.COMPLETED)
        elif ledger.done:
            end(shop, job, State.PARTIAL, ledger.failed[min(ledger.failed)])
        else:
            end(shop, job, State.FAILED, ledger.failed[min(ledger.failed)])


def _let_pick(shop: Shop, job: Job) -> None:
    """Nothing can go on before somebody has looked at the sheet and said which candidates do."""
    shop.line.remove(job)
    if job.ledger.state is State.REVIEW:
        return
    try:
        shop.spool.in_review(job)
    except OSError as error:
        # It is tried again, like what else the disk did not take.
        job_log(job).warning("not_kept", error=names.shown(str(error)))
        shop.aside[job.name] = shop.clock.monotonic()
        return
    job_log(job).info("in_review")
    plan = shop.spool.plan_if_any(job)
    _show(job, [lambda: pages.write_job(job, plan, shop.thumbs, shop.clock.now())])


def end(shop: Shop, job: Job, state: State, error: Failure | None = None) -> None:
    """End the job, show it in the history, and let go of it."""
    shop.line.empty(job)
    shop.handoff.forget(job.folder)
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
            if ledger.state is State.COMPLETED and not _is_made_active(shop, job):
                return
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


def _is_made_active(shop: Shop, job: Job) -> bool:
    """Make a completed take the active one; where the disk does not take that, the job is let go of later."""
    try:
        shop.takes.completed(job)
    except JobError as error:
        job_log(job).warning("not_made_active", error=error.message)
    except OSError as error:
        job_log(job).warning("not_kept", error=names.shown(str(error)))
        shop.aside[job.name] = shop.clock.monotonic()
        return False
    return True


def _show_ended(shop: Shop, job: Job) -> None:
    """Write its pages and its row of the history: views, which can be made again."""
    plan = shop.spool.plan_if_any(job)
    _show(
        job,
        [
            lambda: pages.write_job(job, plan, shop.thumbs, shop.clock.now()),
            lambda: shop.gallery.add(gallery.ended(job.name, job.ledger, plan)),
        ],
    )


def _show(job: Job, views: Sequence[Callable[[], None]]) -> None:
    for write in views:
        try:
            write()
        except Exception as error:  # noqa: BLE001 - the job goes on, whatever there is to see of it
            job_log(job).warning("not_shown", error=str(error), exc_info=logs.bug(error))


def _rounded(timings: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(seconds, 3) for phase, seconds in timings.items()}
