"""Writes index.html of a job and of the workspace: what ledgers, plans and statuses say, as `sheet` shows it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from hotfolder import durable, journal, logs, sheet, status
from hotfolder.clock import Moment
from hotfolder.gallery import Ended
from hotfolder.job import JOB_FILE, PLAN_FILE, Job
from hotfolder.journal import Failure, Ledger, State
from hotfolder.plan import Plan
from hotfolder.sheet import (
    DaemonSheet,
    EndedJob,
    JobSheet,
    LineJob,
    Reason,
    RunningJob,
    ShownCandidate,
    ShownProgress,
    ShownSource,
)
from hotfolder.status import DaemonStatus, Progress
from hotfolder.thumbs import Thumbs

_FILES: Final = (JOB_FILE, PLAN_FILE, status.FILE_NAME, journal.FILE_NAME, logs.FILE_NAME)


def write_job(job: Job, plan: Plan | None, thumbs: Thumbs, now: Moment) -> None:
    """Write the pages of a job's folder. A view: not flushed, made again whenever the job changes.

    Raises:
        OSError: they cannot be written.
    """
    shown = _job_sheet(job, plan, now)
    for name, data in sheet.job_pages(shown, lambda file: thumbs.of(job.folder / file)):
        durable.write(job.folder / name, data, sync=False)


def write_daemon(
    outputs: Path,
    *,
    found: DaemonStatus,
    running: Sequence[tuple[Job, Plan]],
    queued: Sequence[Job],
    ended: Sequence[Ended],
    thumbs: Thumbs,
) -> None:
    """Write outputs/index.html.

    Args:
        running: jobs that run, with their plans.
        queued: jobs in the order of the line, at most as many as `found.line` has rows.
        ended: newest first.

    Raises:
        OSError: it cannot be written.
    """
    rows = {one.job: one for one in found.line}
    shown = DaemonSheet(
        state=found.state,
        updated_at=found.updated_at,
        workspace=str(outputs.parent),
        host=found.host,
        pid=found.pid,
        counts=found.counts,
        free_gb=found.free_gb,
        running=[
            RunningJob(
                job=job.name,
                done=len(job.ledger.done),
                candidates=plan.candidates,
                title=plan.title,
                progress=_progress(job.progress),
            )
            for job, plan in running
        ],
        line=[
            LineJob(
                job=job.name,
                state="queued",
                position=rows[job.name].position,
                candidates=len(job.todo),
                eta=rows[job.name].eta,
                why=rows[job.name].why,
            )
            for job in queued
            if job.name in rows
        ],
        line_count=found.counts.get("queued", 0),
        wrong=found.wrong,
        notices=found.notices,
        ignored=found.ignored,
        ignored_count=found.ignored_count,
        ended=[_ended(one, outputs) for one in ended],
    )
    durable.write(outputs / "index.html", sheet.daemon_page(shown, lambda file: thumbs.of(outputs / file)), sync=False)


def _job_sheet(job: Job, plan: Plan | None, now: Moment) -> JobSheet:
    ledger = job.ledger
    common = JobSheet(
        job=job.name,
        state=ledger.state.value,
        updated_at=now,
        queued_at=ledger.queued_at,
        started_at=ledger.started_at,
        finished_at=ledger.finished_at,
        attempt=ledger.attempt,
        progress=_progress(job.progress),
        errors=_errors(ledger),
        notices=list(dict.fromkeys(ledger.notices)),
        todo=_todo(job),
        files=[name for name in _FILES if (job.folder / name).exists()],
    )
    if plan is None:
        return common
    return JobSheet(
        **vars(common)
        | {
            "title": plan.title,
            "project": plan.project,
            "preset": plan.preset,
            "kind": plan.kind,
            "prompt": plan.generate.prompt,
            "width": plan.generate.width,
            "height": plan.generate.height,
            "settings": _settings(plan),
            "sources": [
                ShownSource(role=one.role, name=one.name, file="/".join(Path(one.file).parts[2:]))
                for one in plan.sources
            ],
            "candidates": list(_candidates(job, plan)),
        }
    )


def _todo(job: Job) -> str:
    """Say what somebody can do about a job that ended without all its pictures."""
    lane = f"{job.ledger.origin.lane}/" if job.ledger.origin and job.ledger.origin.lane else ""
    match job.ledger.state:
        case State.REJECTED:
            return f"Mend jobs_inbox/{lane}{job.stem}.rejected.toml, then rename it to {job.stem}.toml."
        case State.FAILED | State.PARTIAL:
            return f"When that is mended, drop {job.name}.resume into jobs_inbox/ to make what is missing."
        case _:
            return ""


def _settings(plan: Plan) -> dict[str, str]:
    keys = plan.generate.model_dump(exclude_none=True, exclude={"prompt", "width", "height"})
    first = {"preset": plan.preset, "model": plan.model.repo, "size": f"{plan.generate.width} x {plan.generate.height}"}
    return first | {key: str(value) for key, value in keys.items()}


def _candidates(job: Job, plan: Plan) -> Iterator[ShownCandidate]:
    ledger = job.ledger
    for number in range(1, plan.candidates + 1):
        output, failure = ledger.done.get(number), ledger.failed.get(number)
        if output is not None:
            yield ShownCandidate(
                number=number, seed=output.seed, state="done", file=output.file, seconds=output.seconds
            )
        elif failure is not None:
            yield ShownCandidate(number=number, seed=plan.seed_of(number), state="failed", failure=_reason(failure))
        else:
            state = "running" if number in job.in_flight else "cancelled" if ledger.ended else "queued"
            yield ShownCandidate(number=number, seed=plan.seed_of(number), state=state)


def _errors(ledger: Ledger) -> list[Reason]:
    """What is wrong with the job as a whole; failures of single candidates stand with them."""
    if ledger.problems:
        return [
            Reason(code=one["code"], message=one["message"], hint=one.get("hint", ""), line=one.get("line"))
            for one in ledger.problems
        ]
    return [_reason(ledger.error)] if ledger.error is not None and ledger.error.candidate is None else []


def _reason(failure: Failure) -> Reason:
    return Reason(code=failure.code, message=failure.message, hint=failure.hint)


def _progress(progress: Progress | None) -> ShownProgress | None:
    if progress is None:
        return None
    steps = f" {progress.step}/{progress.steps}" if progress.steps else ""
    text = f"candidate {progress.candidate}: {progress.phase}{steps}"
    return ShownProgress(text=text, fraction=progress.fraction, seconds_left=progress.seconds_left)


def _ended(one: Ended, outputs: Path) -> EndedJob:
    return EndedJob(
        job=one.job,
        state=one.state,
        finished_at=Moment.parse(one.finished_at) if one.finished_at else None,
        done=one.done,
        candidates=one.candidates,
        title=one.title or None,
        reason=one.error,
        picture=f"{one.job}/{one.picture}" if one.picture and (outputs / one.job / one.picture).exists() else None,
    )
