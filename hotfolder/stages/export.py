"""export: the picture as a PNG with its metadata, and its sidecar."""

from dataclasses import replace
from typing import Final

from hotfolder import outputs, record
from hotfolder.stages.work import Stage, Work


def stem(job: str, candidate: int) -> str:
    """Return the file name of a candidate, without suffix: numbered through the whole job, from 1."""
    return f"{job}_{candidate:03d}"


def _run(work: Work) -> Work:
    if work.made is None:
        raise RuntimeError("export needs a picture")
    described = record.describe(
        work.plan,
        work.candidate,
        work.made,
        run_id=work.run_id,
        plan_sha256=work.plan_sha256,
        created_at=work.finished_at,
        versions=work.versions,
    )
    name = stem(work.plan.job, work.candidate)
    return replace(work, written=outputs.write(work.folder, name, work.made.image, described))


STAGE: Final = Stage(lane="cpu", version=1, run=_run)
