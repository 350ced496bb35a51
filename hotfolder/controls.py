"""What a control file does: cancel, pause, resume, first. Dropped by anybody, acted on at sight, then removed."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from hotfolder import durable, foreign, names, run, tomltext
from hotfolder.errors import HotfolderError
from hotfolder.job import Job
from hotfolder.names import Control, ControlName
from hotfolder.prepare import Preparer
from hotfolder.run import Shop
from hotfolder.scanner import ControlFile
from hotfolder.spool import RESUMABLE

#: How long a control file waits for a job of its name.
PATIENCE_S: Final = 60.0
#: Notices about control files that the daemon's status keeps.
_MAX_NOTICES: Final = 20
#: Characters of what was found that an answer quotes.
_MAX_SHOWN: Final = 60

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """What `.resume` may say."""

    force: bool = False


class Controls:
    """Acts on control files. Used by the intake thread."""

    def __init__(self, shop: Shop, preparer: Preparer) -> None:
        """Args: preparer: gets jobs that are taken up again without a plan."""
        self._shop = shop
        self._preparer = preparer
        self._since: dict[ControlFile, float] = {}
        #: Done, though they could not be removed: not to be done again at every look.
        self._done: set[ControlFile] = set()
        #: What was said about control files that could not be done; the newest last.
        self.notices: list[str] = []

    def act(self, files: Collection[ControlFile], unadmitted: set[str], *, whole: bool = True) -> None:
        """Do what the control files ask.

        Args:
            unadmitted: NAMEs of job files that lie in the inbox: their controls wait for them.
            whole: whether these are all that lie there; the others are then gone.
        """
        now = self._shop.clock.monotonic()
        present = set(files)
        if whole:
            self._since = {file: since for file, since in self._since.items() if file in present}
            self._done &= present
        for file in present - self._since.keys():
            self._since[file] = now
        for file in files:
            try:
                if file not in self._done:
                    patient = now - self._since[file] < PATIENCE_S
                    self._act(file, waits=file.control.name in unadmitted, patient=patient)
            except Exception:  # noqa: BLE001 - one control file must not keep the jobs behind it out
                _log.exception("control_not_done", file=names.shown(file.path.name))

    def _act(self, file: ControlFile, *, waits: bool, patient: bool) -> None:
        control = file.control
        if control.control is Control.RESUME:
            answered = self._resume(file.path, control, patient=patient)
        elif waits:
            answered = None
            # Whatever is still to come, what runs is stopped at sight.
            if control.control is not Control.FIRST:
                self._act_on_live(control)
        else:
            answered = self._act_on_live(control) or self._answer(control, patient=patient)
        if answered is not None:
            _log.info("control", file=names.shown(file.path.name), done=answered)
            self._done.add(file)
            try:
                durable.remove(file.path)
                durable.sync_folder(file.path.parent)
            except OSError as error:
                self._note(f"{names.shown(file.path.name)} was done but cannot be removed: {error.strerror}")

    def _act_on_live(self, control: ControlName) -> str:
        """Return which jobs it was done to."""
        jobs = [
            job
            for job in list(self._shop.spool.live.values())
            if job.stem == control.name and control.take in {None, job.take} and not job.ledger.ended
        ]
        for job in jobs:
            self._do(control.control, job)
        return ", ".join(job.name for job in jobs)

    def _answer(self, control: ControlName, *, patient: bool) -> str | None:
        """Say that there is nothing to do it to; None where the file is to wait."""
        ended = next(iter(self._takes(control)), None)
        if ended is not None:
            text = f"{control.control.value} came after the job had ended"
            self._shop.spool.answer(ended, text)
            return self._note(f"{ended}: {text}")
        if patient:
            return None
        return self._note(f"{names.shown(control.name)}: {control.control.value}, but there is no job of this name")

    def _do(self, control: Control, job: Job) -> None:
        match control:
            case Control.CANCEL:
                self._shop.spool.cancelled(job)
                self._shop.line.remove(job)
                run.conclude(self._shop, job)
            case Control.PAUSE:
                self._shop.spool.held(job, "its own pause")
                self._shop.line.remove(job)
            case Control.FIRST:
                self._shop.spool.put_first(job)
                if job.ledger.held is None and job.ledger.plan_sha256:
                    self._shop.line.add(job)
            case Control.RESUME:
                raise AssertionError("resume is not for every live take")

    def _resume(self, path: Path, control: ControlName, *, patient: bool) -> str | None:
        """Go on with the newest stopped take."""
        spool = self._shop.spool
        newest = None
        for name in self._takes(control):
            newest = newest or name
            ledger = spool.ledger_of(name)
            if ledger is not None and ledger.cancelled and not ledger.ended:
                return None  # its last cell stops just now
            if ledger is None or not (ledger.held or ledger.state in RESUMABLE):
                continue
            try:
                wish = _read_wish(path)
            except HotfolderError as error:
                spool.answer(name, f"resume: {error.message}")
                return self._note(f"{name}: resume: {error.message}")
            return self._go_on(name, wish)
        if newest is None and patient:
            return None
        if newest is None:
            return self._note(f"{names.shown(control.name)}: resume, but there is no job of this name")
        text = "resume: nothing to go on with; the job is neither held, failed, cancelled nor partial"
        spool.answer(newest, text)
        return self._note(f"{newest}: {text}")

    def _go_on(self, name: str, wish: _Wish) -> str:
        spool = self._shop.spool
        job = spool.live.get(name)
        if job is not None and job.ledger.held:
            spool.released(job)
        else:
            job = spool.reopen(name, force=wish.force)
            if job is None:
                return self._note(f"{name}: resume: its folder cannot be read")
            self._shop.gallery.remove(name)
        if job.ledger.plan_sha256:
            self._shop.line.add(job)
            run.conclude(self._shop, job)
        elif self._preparer.knows(job):
            self._preparer.wake()
        else:
            self._preparer.submit(job, again=True)
        return name

    def _takes(self, control: ControlName) -> Iterable[str]:
        """Return the takes that a control file means, newest first."""
        for name in self._shop.spool.newest(control.name):
            split = names.split_take(name)
            if control.take is None or (split and split[1] == control.take):
                yield name

    def _note(self, text: str) -> str:
        self.notices = [*self.notices, text][-_MAX_NOTICES:]
        return text


def _read_wish(path: Path) -> _Wish:
    """Read `.resume`: empty, or TOML.

    Raises:
        HotfolderError: not TOML, or a key that cannot be done.
    """
    try:
        document = tomltext.parse(foreign.read(path, tomltext.MAX_JOB_BYTES))
    except PermissionError as error:
        raise HotfolderError("cannot-write", f"the file cannot be read: {error.strerror}") from error
    unknown = [names.shown(key)[:_MAX_SHOWN] for key in document.table if key != "force"]
    force = document.table.get("force", False)
    if unknown:
        raise HotfolderError("unknown-key", f"unknown key {unknown[0]}; force is accepted")
    if not isinstance(force, bool):
        raise HotfolderError("bad-value", f"force = {repr(force)[:_MAX_SHOWN]}: true or false is accepted")
    return _Wish(force=force)
