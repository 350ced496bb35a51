"""What an earlier process or an earlier end left of a job: taken in where it is whole, given up where it is deadly."""

import math
from dataclasses import replace
from typing import Final

from hotfolder import cells, checkpoint, outputs, run, sources
from hotfolder.encoding import Encoding
from hotfolder.errors import JobError
from hotfolder.job import Job
from hotfolder.journal import Failure, State
from hotfolder.shop import Shop, failure_of, job_log
from hotfolder.table import Place

#: Deaths of the process on one candidate after which it is given up: with evidence, and without any.
MAX_BLAMED: Final = 2
MAX_UNEXPLAINED: Final = 20


def adopt_finished(shop: Shop, job: Job) -> None:
    """Take in the pictures that a process before finished but could not note any more."""
    plan = shop.spool.plan(job)
    there = {path.name for path in job.folder.iterdir()}
    last = len(plan.stages)
    for candidate in range(1, plan.candidates + 1):
        if job.table is None or job.table.stage_of(candidate) not in {last, last - 1}:
            continue
        how = cells.encoding(plan, candidate)
        found = []
        for variant in cells.variants_of(plan, candidate):
            stem = cells.stem(plan, candidate, variant)
            if f"{stem}{how.suffix}" not in there and f"{stem}{how.suffix}.toml" not in there:
                break
            written = _adopt(job, candidate, stem, how)
            if written is None:
                break
            # How long the process before took to make it is not known.
            found.append(cells.output_of(plan, candidate, written, 0.0, variant))
        else:
            cells.publish(shop.spool.settings, job, plan, found)
            shop.spool.done(job, found)
            shop.line.finished(job, candidate)


def _adopt(job: Job, candidate: int, stem: str, how: Encoding) -> outputs.Written | None:
    """Return a picture that was finished; of one that was not, nothing stays."""
    try:
        written = outputs.find(job.folder, stem, how.suffix)
    except JobError as error:
        # A power cut may leave a name without its data: nothing whole is lost, the picture is made again.
        job_log(job).warning("unfinished_picture", candidate=candidate, why=error.message)
        outputs.discard(job.folder, stem, how.suffix)
        return None
    if written is None:
        cells.discard_half(job, stem, how)
    return written


def give_up_on_deadly(shop: Shop, job: Job) -> None:
    """Fail the candidates on which the process died too often."""
    ledger = job.ledger
    plan = shop.spool.plan_if_any(job)
    deadly = {number for number, count in ledger.blamed.items() if count >= MAX_BLAMED}
    deadly |= {number for number, count in ledger.unexplained.items() if count >= MAX_UNEXPLAINED}
    for candidate in sorted(deadly - set(ledger.failed) - set(ledger.done)):
        deaths = ledger.blamed.get(candidate, 0) or ledger.unexplained.get(candidate, 0)
        stage = job.table.stage_of(candidate) if job.table is not None else None
        failure = Failure(
            code="crashed-worker",
            message=f"the process died {deaths} times while it made candidate {candidate}",
            hint="a smaller size or another preset may work; the daemon's log says how it died",
            stage=plan.stages[stage - 1].id if plan is not None and stage else None,
            stage_index=stage,
            candidate=candidate,
            item=plan.item_of(candidate) if plan is not None else None,
        )
        lost = shop.line.failed(job, [candidate])
        shop.spool.failed(job, failure, *(replace(failure, candidate=other) for other in lost))


def check_checkpoint(shop: Shop, job: Job, *, at_most: float = math.inf) -> bool:
    """Verify by hash what a job that goes on will skip; return False where it ended because something was changed.

    Args:
        at_most: a job with more candidates left is believed: each cell verifies what it takes anyway.
    """
    if job.ledger.force or job.table is None or job.table.open > at_most:
        return True
    plan = shop.spool.plan(job)
    seen: set[str] = set()
    try:
        for candidate in range(1, plan.candidates + 1):
            stage = job.table.stage_of(candidate)
            last = None if stage is None else cells.before(plan, Place(candidate, stage), job.ledger.cells)
            if last is None:
                continue
            for _, file, sha256 in job.ledger.cells[last[0]][last[1]].files:
                if file and file not in seen:
                    seen.add(file)
                    checkpoint.load(job.folder, file, sha256)
        for source in plan.sources:
            sources.check_unchanged(job.folder, source)
    except JobError as error:
        run.end(shop, job, State.FAILED, failure_of(error))
        return False
    return True
