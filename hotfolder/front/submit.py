"""`submit` and `run`: drop a job, and follow it to its end."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from hotfolder.errors import JobError, SettingsError
from hotfolder.front import draft, drop, follow, jobs
from hotfolder.front.answer import Answer, ExitCode, note, warn
from hotfolder.front.draft import Draft, Wanted
from hotfolder.front.drop import Dropped
from hotfolder.front.show import where
from hotfolder.lock import holder
from hotfolder.meaning import Control
from hotfolder.names import shown
from hotfolder.settings import Settings
from hotfolder.workspace import Workspace

#: How long `submit` waits to tell the name of the job.
_NAME_WITHIN_S: Final = 2.0

#: Serves the one job of this NAME until it has ended, or until the event is set; returns an exit code.
ServeOne = Callable[[str, threading.Event], int]


def submit(workspace: Workspace, wanted: Wanted, *, wait: bool, as_json: bool) -> Answer:
    """Drop a job for the daemon.

    Raises:
        HotfolderError: it is wrong, or `wait` and no daemon takes it.
    """
    settings = Settings.read(workspace.root)
    made = draft.make(settings, workspace, wanted, now=False)
    if made.scheduled and wait:
        raise JobError(
            "bad-usage",
            "a job with a [schedule] is not run now, so --wait would wait for ever",
            "leave --wait out, or use run",
        )
    dropped = _drop(workspace, made)
    data = {"name": made.name, "file": dropped.path, "sha256": dropped.sha256, "job": None}
    if made.scheduled:
        text = f"{shown(made.name)} is scheduled; hotfolder schedule shows when it runs"
        return Answer(data=data | {"daemon": follow.served(workspace)}, text=text)
    if not follow.served(workspace):
        lies = f"{where(dropped.path)} lies in the inbox"
        if wait:
            raise SettingsError("no-daemon", f"{lies}, but no daemon takes it", "start one with: hotfolder serve")
        warn("no daemon runs in this workspace: the job is taken when one is started", "hotfolder serve")
        return Answer(data=data | {"daemon": False}, text=lies)
    job = follow.wait_for_take(workspace, dropped, follow.Served(workspace), None if wait else _NAME_WITHIN_S)
    if wait and job is not None:
        return _follow(workspace, job, as_json=as_json)
    text = f"{shown(job)} is in the line" if job else f"{where(dropped.path)} lies in the inbox"
    return Answer(data=data | {"daemon": True, "job": job}, text=text)


def run(workspace: Workspace, wanted: Wanted, serve_one: ServeOne, *, as_json: bool) -> Answer:
    """Run a job now: in this process, or at the front of the daemon's line where one has the workspace.

    Raises:
        HotfolderError: it is wrong, or another `run` has the workspace.
    """
    settings = Settings.read(workspace.root)
    made = draft.make(settings, workspace, wanted, now=True)
    who = holder(workspace.root)
    if who is not None and who.mode == "direct":
        raise SettingsError(
            "workspace-busy",
            f"process {who.pid} on {who.host} is running a job in this workspace and takes no other",
            "wait until it has ended; a daemon (hotfolder serve) takes as many as there are",
        )
    dropped = _drop(workspace, made)
    if who is None:
        return _Direct(workspace=workspace, dropped=dropped, serve_one=serve_one).run(as_json=as_json)
    job = follow.wait_for_take(workspace, dropped, follow.Served(workspace)) or ""
    drop.control(workspace, job, Control.FIRST)
    return _follow(workspace, job, as_json=as_json)


def _drop(workspace: Workspace, made: Draft) -> Dropped:
    for name in made.missing:
        warn(f"{shown(name)} is not there yet: the job waits for it")
    if any((workspace.inbox / name).exists() for name in ("pause", "pause.txt")):
        warn("the workspace is paused: nothing begins until that is lifted", "hotfolder resume")
    return draft.put(workspace, made)


def _follow(workspace: Workspace, job: str, *, as_json: bool) -> Answer:
    """Follow a job that a daemon runs; Ctrl-C only stops the following."""
    try:
        with follow.reporting(as_json=as_json) as report:
            return follow.answer_of(follow.to_the_end(workspace, job, report, follow.Served(workspace)))
    except KeyboardInterrupt:
        found = jobs.view(workspace, job)
        error = JobError(
            "not-completed",
            f"{shown(job)} goes on without being followed",
            f"hotfolder cancel {shown(job)} would stop it",
        )
        return Answer(data=found.data if found else {"job": job}, error=error, exit_code=ExitCode.CANCELLED)


@dataclass(kw_only=True)
class _Direct:
    """A job that runs in this process: in a thread, while this one follows it and hears Ctrl-C."""

    workspace: Workspace
    dropped: Dropped
    serve_one: ServeOne
    stop: threading.Event = field(default_factory=threading.Event)
    failed: BaseException | None = None
    interrupts: int = 0

    def run(self, *, as_json: bool) -> Answer:
        thread = threading.Thread(target=self._serve, name="serve")
        # The main thread's to set.
        before = signal.signal(signal.SIGTERM, self._terminated)
        thread.start()
        try:
            with follow.reporting(as_json=as_json) as report:
                return self._follow(report, thread.is_alive)
        finally:
            self.stop.set()
            thread.join()
            signal.signal(signal.SIGTERM, before)

    def _serve(self) -> None:
        try:
            self.serve_one(self.dropped.name, self.stop)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that follows
            self.failed = error

    def _follow(self, report: follow.Report, alive: Callable[[], bool]) -> Answer:
        job: str | None = None
        while True:
            try:
                job = job or follow.wait_for_take(self.workspace, self.dropped, alive)
                if job is not None and self.interrupts == 1:
                    drop.control(self.workspace, job, Control.CANCEL)
                return follow.answer_of(follow.to_the_end(self.workspace, job or "", report, alive))
            except KeyboardInterrupt:
                self.interrupts += 1
                if self.interrupts > 1 or (job is None and self._take_back()):
                    return self._given_up(job)
                note("cancelling; Ctrl-C once more stops at once")
            except SettingsError:
                if self.failed is not None:
                    raise self.failed from None
                return self._given_up(job)

    def _take_back(self) -> bool:
        """Take the drop out of the inbox again; return whether it was still there."""
        if not self.dropped.ours:
            return False
        try:
            self.dropped.path.unlink()
        except FileNotFoundError:
            return False
        return True

    def _given_up(self, job: str | None) -> Answer:
        """The process stops working before the job has ended."""
        self.stop.set()
        found = jobs.view(self.workspace, job) if job else None
        code = ExitCode.CANCELLED if self.interrupts else ExitCode.NOT_COMPLETED
        if found is None:
            error = JobError("not-completed", f"{shown(self.dropped.name)} was not begun")
            return Answer(error=error, exit_code=code)
        held = f": {found.table['held_by']}" if "held_by" in found.table else ""
        error = JobError(
            "not-completed",
            f"{shown(found.name)} has not ended, it is {found.state}{held}",
            "it goes on when a daemon is started: hotfolder serve",
        )
        return Answer(data=found.data, error=error, exit_code=code)

    def _terminated(self, _number: int, _frame: FrameType | None) -> None:
        self.stop.set()


def read_input(given: Path | None) -> tuple[Path | None, bytes]:
    """Return the job file that was named, or the text of standard input for `-`."""
    if given is None or str(given) != "-":
        return given, b""
    with os.fdopen(os.dup(0), "rb") as stdin:
        return None, stdin.read()
