"""Whether the text of a job, a plan or a sidecar is right, as the daemon would find, and what it then makes."""

from dataclasses import dataclass
from pathlib import Path

from hotfolder import batch, dropped, jobfile, lanes, planning, tomltext
from hotfolder.batch import Found
from hotfolder.errors import JobError, Problem, Rejected
from hotfolder.jobfile import JobFile
from hotfolder.plan import Plan
from hotfolder.planning import Wish
from hotfolder.presets import Presets
from hotfolder.settings import Settings
from hotfolder.tomltext import Document


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The text of a job, a plan or a sidecar that is right."""

    #: In a few words.
    what: str
    #: As far as it is known before its pictures are taken.
    plan: Plan
    #: The files that it names; of a plan none, which names them by their place and hash.
    wishes: tuple[Wish, ...] = ()
    #: What its batch names in the inbox and is not there yet: what the plan says of items is then too little.
    waits_for: tuple[str, ...] = ()


def check(settings: Settings, document: Document, lane: str = "") -> Checked:
    """Check the text of a job, a plan or a sidecar, and how large it is, as the daemon does.

    Args:
        lane: the folder below the inbox where it lies, or will.

    Raises:
        Rejected: every problem.
    """
    presets = Presets.of(settings.presets_dir)
    limit = settings.batch.max_candidates
    if document.is_own:
        plan = dropped.read_plan(document, presets)
        planning.check_size(plan, limit)
        planning.check_places(plan, settings, document)
        return Checked(what=f"a plan of {plan.job}: {_what(plan.preset, plan.pipeline)}", plan=plan)
    defaults = lanes.read(settings.inbox_dir, lane)
    job = jobfile.read(document, presets, settings.default_preset, defaults)
    if job.globs or job.items:
        found = _look(settings, document, lane, job)
        job = jobfile.read(document, presets, settings.default_preset, defaults, found)
    waits_for = (*job.globs, *([job.items] if job.items else []))
    plan = planning.make_plan("check_take01", job, (), 0)
    if not waits_for:
        planning.check_size(plan, limit, document.line_of(["matrix"]) or document.line_of(["items"]))
        planning.check_places(plan, settings, document)
    what = f"preset {job.preset.name} ({job.preset.kind})" if job.preset else _what(None, job.pipeline)
    return Checked(what=what, plan=plan, wishes=planning.wishes_of(job), waits_for=waits_for)


def _look(settings: Settings, document: Document, lane: str, job: JobFile) -> Found:
    """Read from the inbox what a batch names there, as far as it is there.

    Raises:
        Rejected: it is named as no job may.
    """
    # Imported only where there is something to look for: with it comes Pillow.
    from hotfolder import sources

    matches: dict[str, list[str]] = {}
    items = None
    try:
        for glob in job.globs:
            sources.check_name(settings, Wish(role="image", name=glob))
            if found := [name for name, _ in batch.matches(settings.inbox_dir, lane, glob)]:
                matches[glob] = found
        if job.items is not None:
            lies = sources.find(settings, Wish(role="items", name=job.items), lane)
            if lies is not None and lies.path.stat().st_size <= tomltext.MAX_OWN_BYTES:
                items = lies.path.read_bytes()
    except JobError as error:
        line = document.line_of(["items" if job.items else "matrix"])
        raise Rejected([Problem(code=error.code, message=error.message, hint=error.hint, line=line)]) from error
    return Found(items=items, most=settings.batch.max_candidates, matches=matches)


def lane_of(settings: Settings, file: Path) -> str:
    """Return the lane that a file lies in; "" for the inbox itself and for everywhere else."""
    folder, inbox = file.resolve().parent, settings.inbox_dir.resolve()
    return folder.relative_to(inbox).as_posix().removeprefix(".") if folder.is_relative_to(inbox) else ""


def _what(preset: str | None, pipeline: str | None) -> str:
    return f"preset {preset}" if preset else f"pipeline {pipeline or 'of its own'}"
