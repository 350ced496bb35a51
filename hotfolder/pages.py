"""Writes the pages of jobs and of the workspace, and of a job no more of them than have something new to show."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from hotfolder import durable, frontpage, jobview, sheet
from hotfolder.clock import Moment
from hotfolder.frontpage import DaemonSheet, EndedJob, LineJob, ReviewJob, RunningJob
from hotfolder.gallery import Ended
from hotfolder.job import Job
from hotfolder.jobview import JobView
from hotfolder.journal import State
from hotfolder.plan import Plan
from hotfolder.sheet import JobSheet
from hotfolder.status import DaemonStatus
from hotfolder.thumbs import Thumbs

#: Pages besides the first that are written at one look while a job runs: the others have their turn at the next.
MAX_PAGES_A_LOOK: Final = 3
#: Pictures of a job in review that the page of the daemon shows.
_REVIEW_PICTURES: Final = 6


def write_job(job: Job, plan: Plan | None, thumbs: Thumbs, now: Moment) -> None:
    """Write the pages of a job's folder that are not as they should be. Views: not flushed, made again at any time.

    While the job runs that is the first page and the few on which something happened; at an end, and when it waits for
    a person, all are as they should be when this returns. The caller holds the job's lock.

    Raises:
        OSError: they cannot be written.
    """
    shown = jobview.sheet_of(job, plan, now)
    view = JobView(job=job, plan=plan) if plan is not None else None
    for number, mark in _due(job, shown, view, now):
        data = sheet.job_page(shown, lambda file: thumbs.of(job.folder / file), number)
        durable.write(job.folder / sheet.page_name(number), data, sync=False)
        job.pages[number] = (mark, now)


def _due(job: Job, shown: JobSheet, view: JobView | None, now: Moment) -> Iterator[tuple[int, int]]:
    """Yield the pages to write, and what will be seen on each: the first, those under way, then the others."""
    lasting = job.ledger.ended or job.ledger.state is State.REVIEW
    first: list[tuple[int, int]] = []
    under_way: list[tuple[int, int]] = []
    others: list[tuple[int, int]] = []
    for number in range(1, shown.layout.pages + 1):
        candidates = shown.layout.on_page(number) if view is not None else range(0)
        marks = [view.mark(candidate) for candidate in candidates] if view is not None else []
        told = (shown.state, len(shown.notices), len(job.ledger.failed)) if number == 1 else ()
        mark = hash((told, *marks))
        before, written = job.pages.get(number, (None, now))
        # What only the first page tells, such as progress, is new as often as a browser looks.
        old = number == 1 and (now - written).total_seconds() >= (sheet.refresh_s(shown) or 0)
        if before == mark and not old:
            continue
        runs = view is not None and any(map(view.is_under_way, candidates))
        (first if number == 1 else under_way if runs else others).append((number, mark))
    rest = [*under_way, *others]
    yield from [*first, *(rest if lasting else rest[:MAX_PAGES_A_LOOK])]


def write_daemon(
    outputs: Path,
    *,
    found: DaemonStatus,
    running: Sequence[tuple[Job, Plan]],
    queued: Sequence[Job],
    ended: Sequence[Ended],
    thumbs: Thumbs,
    reviews: Sequence[tuple[Job, Plan]] = (),
) -> None:
    """Write outputs/index.html.

    Args:
        running: jobs that run, with their plans.
        queued: jobs in the order of the line, at most as many as `found.line` has rows.
        ended: newest first.
        reviews: jobs that wait for a person, with their plans.

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
                progress=jobview.progress_of(job.progress),
            )
            for job, plan in running
        ],
        reviews=[_review(job, plan) for job, plan in reviews],
        line=[
            LineJob(
                job=job.name,
                state="queued",
                position=rows[job.name].position,
                candidates=job.table.open if job.table else 0,
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
    durable.write(
        outputs / "index.html", frontpage.daemon_page(shown, lambda file: thumbs.of(outputs / file)), sync=False
    )


def _review(job: Job, plan: Plan) -> ReviewJob:
    with job.lock:
        view = JobView(job=job, plan=plan)
        waiting = sorted(view.waiting)
        shown = [view.candidate(number) for number in waiting[:_REVIEW_PICTURES]]
    return ReviewJob(
        job=job.name,
        title=plan.title,
        waiting=len(waiting),
        pictures=[(one.number, f"{job.name}/{one.pictures[0].file}") for one in shown if one.pictures],
    )


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
