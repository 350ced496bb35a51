"""Every reader of what somebody else may have written, by name: bytes go in, and what is wrong with them comes out.

A refusal is one of the project's own errors; whatever else a reader raises is a defect. What is accepted is used as the
daemon would use it, so that a defect further on shows too.
"""

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import samples
from clocks import NOON, SetClock
from seeds import ENDED, JOB_TEXT

from hotfolder import jobfile, journal, lanes, record, resume, schedules, sources, status, tomltext
from hotfolder.checkpoint import WORK, name_of
from hotfolder.checkpoint import lines as cells_of
from hotfolder.checkpoint import read as read_work
from hotfolder.encoding import read_record
from hotfolder.errors import HotfolderError, JobError, Problem, Rejected
from hotfolder.front import verdict
from hotfolder.job import JOB_FILE, PLAN_FILE
from hotfolder.pipelines import Pipelines
from hotfolder.plan import Plan
from hotfolder.presets import Presets
from hotfolder.settings import Settings
from hotfolder.spool import Spool
from hotfolder.stagekeys import Generating
from hotfolder.takes import Takes

JOB: Final = "mug_take01"
#: Items of a plan that are looked at, as the daemon would before it runs them.
_LOOKED_AT: Final = 3


class Desk:
    """A workspace with one job in it, on which readers find what they read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("jobs_inbox/scheduled", "jobs_inbox/night", "presets/pipelines", f"outputs/{JOB}"):
            (root / folder).mkdir(parents=True)
        self.settings = Settings.read(root, {})
        self.presets = Presets.of(self.settings.presets_dir)

    def lay(self, name: str, data: bytes) -> Path:
        """Write a file of the workspace."""
        path = self.root / name
        path.write_bytes(data)
        return path


def refusal(name: str, desk: Desk, data: bytes) -> tuple[Problem, ...]:
    """Let a reader read; return what it found wrong, nothing where it took it."""
    try:
        READERS[name](desk, data)
    except Rejected as error:
        return error.problems
    except HotfolderError as error:
        return (Problem(code=error.code, message=error.message, hint=error.hint),)
    return ()


# --- what users drop ---


def _job(desk: Desk, data: bytes) -> None:
    """A job file, a plan or a sidecar in the inbox."""
    checked = verdict.check(desk.settings, tomltext.parse(data))
    for wish in checked.wishes:
        sources.check_name(desk.settings, wish)
    _use_plan(checked.plan)


def _use_plan(plan: Plan) -> None:
    """Ask a plan what the daemon asks before a cell runs, write it and read it again."""
    assert Plan.load(plan.dump()) == plan
    for number in range(1, min(plan.items, _LOOKED_AT) + 1):
        item = plan.item(number)
        for stage in range(1, len(plan.stages) + 1):
            if isinstance(item.keys(stage), Generating):
                item.generation(stage)
            item.model_key(stage)
    for candidate in {1, plan.candidates}:
        plan.path_of(candidate)
        plan.seed_of(candidate)


def _lane(desk: Desk, data: bytes) -> None:
    """The folder.toml of a lane, laid under a job."""
    desk.lay("jobs_inbox/night/folder.toml", data)
    defaults = lanes.read(desk.settings.inbox_dir, "night")
    jobfile.read(tomltext.parse(b'prompt = "a mug"\n'), desk.presets, "noise", defaults)


def _table(desk: Desk, data: bytes) -> None:
    """A list of items as a table."""
    desk.lay("jobs_inbox/list.csv", data)
    stages = b'[[stages]]\nstage = "generate"\n[[stages]]\nstage = "crop"\naspect = "4:3"\n'
    _job(desk, b'items = "list.csv"\nprompt = "a mug"\n' + stages)


def _lines(desk: Desk, data: bytes) -> None:
    """A list of items with a prompt on each line."""
    desk.lay("jobs_inbox/list.txt", data)
    _job(desk, b'items = "list.txt"\n')


def _schedule(desk: Desk, data: bytes) -> None:
    """A job file in scheduled/, asked for its next time and its last."""
    when = schedules.read(data, desk.settings).when
    when.after(NOON)
    when.last(NOON, NOON)


def _resume(desk: Desk, data: bytes) -> None:
    resume.read(desk.lay("jobs_inbox/mug.resume", data))


def _use(desk: Desk, data: bytes) -> None:
    desk.lay(f"outputs/{JOB}/{journal.FILE_NAME}", ENDED)
    desk.lay(f"outputs/{JOB}/{JOB}_001.png", b"")
    (desk.root / "outputs/mug.active.toml").unlink(missing_ok=True)
    Takes(_spool(desk)).use("mug", desk.lay("jobs_inbox/mug.use", data), None)


def _picture(desk: Desk, data: bytes) -> None:
    """A picture that a job names."""
    sources.check(desk.lay("jobs_inbox/mug.png", data), "mug.png", desk.settings.inbox.max_megapixels)


# --- what stands in folders that users share ---


def _journal(desk: Desk, data: bytes) -> None:
    """A journal, at the start of the daemon."""
    desk.lay(f"outputs/{JOB}/{journal.FILE_NAME}", data)
    spool = _spool(desk)
    for job in spool.recover():
        spool.show(job)
    ledger = spool.ledger_of(JOB)
    assert ledger is not None
    status.job_status(JOB, ledger, samples.plan())


def _status(desk: Desk, data: bytes) -> None:
    """A job's status file, which is all that is left to tell of a job whose journal is lost."""
    folder = desk.root / "outputs" / JOB
    (folder / journal.FILE_NAME).unlink(missing_ok=True)
    desk.lay(f"outputs/{JOB}/{status.FILE_NAME}", data)
    _spool(desk).recover()


def _work(desk: Desk, data: bytes) -> None:
    """A picture in work/, from which a lost journal is made again."""
    folder = desk.root / "outputs" / JOB
    for lost in (journal.FILE_NAME, status.FILE_NAME):
        (folder / lost).unlink(missing_ok=True)
    (folder / WORK).mkdir(exist_ok=True)
    file = name_of(1, 1, "generate", "picture")
    desk.lay(f"outputs/{JOB}/{file}", data)
    for job in _spool(desk).recover():
        for kept in job.ledger.cells.get(1, {}).values():
            with suppress(JobError):
                read_work(folder, kept, {})


def _active(desk: Desk, data: bytes) -> None:
    """NAME.active.toml, when a job is completed."""
    desk.lay(f"outputs/{JOB}/{journal.FILE_NAME}", ENDED)
    desk.lay("outputs/mug.active.toml", data)
    spool = _spool(desk)
    job = spool.load_ended(JOB)
    assert job is not None
    Takes(spool).completed(job)


def _sidecar(desk: Desk, data: bytes) -> None:
    """A sidecar beside its picture, as the gallery, `compare` and recovery read it."""
    with suppress(ValueError):
        record.dump(record.load(data))


def _embedded(desk: Desk, data: bytes) -> None:
    """The record that a picture holds."""
    read_record(desk.lay("picture.png", data))


def _note(desk: Desk, data: bytes) -> None:
    """NAME.status.toml beside a schedule."""
    note = schedules.Note.load(desk.lay("jobs_inbox/scheduled/mug.status.toml", data))
    if note is not None:
        note.dump()


def _spool(desk: Desk) -> Spool:
    """The jobs of the workspace, as a daemon that has just been started finds them."""
    desk.lay(f"outputs/{JOB}/{JOB_FILE}", JOB_TEXT)
    desk.lay(f"outputs/{JOB}/{PLAN_FILE}", samples.plan().dump())
    shutil.rmtree(desk.settings.cache_dir, ignore_errors=True)
    return Spool(desk.settings, SetClock(), "run-2", read_cells=cells_of)


# --- what the operator writes ---


def _settings(desk: Desk, data: bytes) -> None:
    desk.lay("hotfolder.toml", data)
    try:
        read = Settings.read(desk.root, {"HOTFOLDER_INBOX_SCAN_S": "0.1"})
    finally:
        (desk.root / "hotfolder.toml").unlink()
    assert read.models_path.is_absolute()


def _preset(desk: Desk, data: bytes) -> None:
    """A preset of the workspace's own, and a job that names it."""
    path = desk.lay("presets/own.toml", data)
    try:
        desk.presets.names()
        jobfile.check_preset(desk.presets.get("own"))
        _job(desk, b'preset = "own"\nprompt = "a mug"\nimage = "mug.png"\n')
    finally:
        path.unlink()


def _pipeline(desk: Desk, data: bytes) -> None:
    """A pipeline of the workspace's own, and a job that names it."""
    path = desk.lay("presets/pipelines/own.toml", data)
    try:
        Pipelines.of(desk.presets).get("own")
        _job(desk, b'pipeline = "own"\nprompt = "a mug"\nimage = "mug.png"\n')
    finally:
        path.unlink()


READERS: Final[Mapping[str, Callable[[Desk, bytes], None]]] = {
    "job": _job,
    "plan": _job,
    "lane": _lane,
    "table": _table,
    "lines": _lines,
    "schedule": _schedule,
    "resume": _resume,
    "use": _use,
    "picture": _picture,
    "journal": _journal,
    "status": _status,
    "work": _work,
    "active": _active,
    "sidecar": _sidecar,
    "embedded": _embedded,
    "note": _note,
    "settings": _settings,
    "preset": _preset,
    "pipeline": _pipeline,
}
