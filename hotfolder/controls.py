"""What a control file does: cancel, pause, resume, first, use. Dropped by anybody, acted on at sight, then removed."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from hotfolder import claim, logs, names, resume, run
from hotfolder.errors import HotfolderError
from hotfolder.job import Job
from hotfolder.meaning import Control, ControlName
from hotfolder.prepare import Preparer
from hotfolder.scanner import ControlFile
from hotfolder.shop import Shop

#: How long a control file waits for a job of its name.
PATIENCE_S: Final = 60.0
#: Notices about control files that the daemon's status keeps.
_MAX_NOTICES: Final = 20

_log = logs.logger(__name__)


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
            except Exception as error:  # noqa: BLE001 - one control file must not keep the jobs behind it out
                # A full disk, say: it is tried again at the next look.
                shown = names.shown(file.seen.path.name)
                _log.error("control_not_done", file=shown, error=names.shown(str(error)), exc_info=logs.bug(error))

    def _act(self, file: ControlFile, *, waits: bool, patient: bool) -> None:
        control = file.control
        if control.control is Control.RESUME:
            answered = self._resume(file.seen.path, control, patient=patient)
        elif control.control is Control.USE:
            answered = self._use(file.seen.path, control, waits=waits, patient=patient)
        elif waits:
            answered = None
            # Whatever is still to come, what runs is stopped at sight.
            if control.control is not Control.FIRST:
                self._act_on_live(control)
        else:
            answered = self._act_on_live(control) or self._answer(control, patient=patient)
        if answered is not None:
            _log.info("control", file=names.shown(file.seen.path.name), done=answered)
            self._done.add(file)
            try:
                claim.remove_control(file.seen)
            except OSError as error:
                self._note(f"{names.shown(file.seen.path.name)} was done but cannot be removed: {error.strerror}")

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
        if ended is not None and control.control is Control.FIRST:
            return ended  # it wanted to be quick, and was
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
            case Control.RESUME | Control.USE:
                raise AssertionError(f"{control.value} is not for every live take")

    def _resume(self, path: Path, control: ControlName, *, patient: bool) -> str | None:
        """Go on with the newest stopped take."""
        spool = self._shop.spool
        newest = None
        for name in self._takes(control):
            newest = newest or name
            ledger = spool.ledger_of(name)
            if ledger is not None and ledger.cancelled and not ledger.ended:
                return None  # its last cell stops just now
            if ledger is None:
                continue
            try:
                wish = resume.read(path)
                if not resume.may_go_on(ledger, wish, live=name in spool.live):
                    continue
                return self._go_on(name, wish)
            except HotfolderError as error:
                text = f"resume: {error.message}" + (f" ({error.hint})" if error.hint else "")
                spool.answer(name, text)
                return self._note(f"{name}: {text}")
            except (ValueError, KeyError, TypeError, IndexError) as error:
                # Whatever somebody did to the folder: the file is answered, and not met again.
                _log.exception("resume", job=name)
                text = f"resume: its folder was changed so that it cannot go on: {names.shown(str(error))}"
                spool.answer(name, text)
                return self._note(f"{name}: {text}")
        if newest is None and patient:
            return None
        if newest is None:
            return self._note(f"{names.shown(control.name)}: resume, but there is no job of this name")
        text = "resume: nothing to go on with; the job is neither held, in review, failed, cancelled nor partial"
        spool.answer(newest, text)
        return self._note(f"{newest}: {text}")

    def _go_on(self, name: str, wish: resume.Wish) -> str:
        before = self._shop.spool.live.get(name)
        job = resume.go_on(self._shop, self._preparer.presets, name, wish)
        if job.name == name:
            self._shop.gallery.remove(name)
        if job.ledger.plan_sha256:
            resume.start(self._shop, job, was_live=job is before)
        elif self._preparer.knows(job):
            self._preparer.wake()
        else:
            self._preparer.submit(job, again=True)
        return job.name

    def _use(self, path: Path, control: ControlName, *, waits: bool, patient: bool) -> str | None:
        """Make a take the active one; None while it is still to come, or to finish what is asked for."""
        try:
            return self._shop.takes.use(control.name, path, control.take)
        except HotfolderError as error:
            if waits or (patient and error.code == "not-found"):
                return None
            text = f"use: {error.message}"
        named, newest = self._takes(control), self._shop.spool.newest(control.name)
        told = next(iter(named), None) or next(iter(newest), None)
        if told is None:
            return self._note(text)
        self._shop.spool.answer(told, text)
        return self._note(f"{told}: {text}")

    def _takes(self, control: ControlName) -> Iterable[str]:
        """Return the takes that a control file means, newest first."""
        for name in self._shop.spool.newest(control.name):
            split = names.split_take(name)
            if control.take is None or (split and split[1] == control.take):
                yield name

    def _note(self, text: str) -> str:
        self.notices = [*self.notices, text][-_MAX_NOTICES:]
        return text
