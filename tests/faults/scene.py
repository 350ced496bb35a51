"""One workspace in which a scenario is played again and again, disturbed at one point, and looked at afterwards."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from conftest import Workspace
from forks import Ended, Forks
from forkserver import MAIN, Order
from oracle import PROCESSED, check_promise, pixels
from scenarios import Drop, Scenario
from syscalls import Fault, Point, inject, points, trace_all, was_hit

from hotfolder import journal
from hotfolder.front.answer import ExitCode

#: Of the markers' folder, which is named after the inode of outputs/; points are the same in every workspace.
_MARKERS = re.compile(r"(?<=\.hotfolder/live/)[0-9a-f]+-[0-9a-f]+")
_OURS = "@"
#: What an error may make of a job, besides its proper end: it says so, and `.resume` goes on.
_SHORT = {"failed", "partial"}
#: A user's moves after an error, such as resume, then pick again.
_MOVES = 7


class Scene:
    """A scenario in a workspace of its own."""

    def __init__(self, folder: Path, scenario: Scenario, forks: Forks) -> None:
        self.scenario = scenario
        self.workspace = Workspace(folder / "work")
        self._folder = folder
        self._forks = forks
        self._trace = folder / "trace"
        self._log = folder / "log"
        self._waits: list[Drop] = []
        if scenario.before:
            self._drop(scenario.before)
            self._serve_on()
        self.keep("before")
        self.reset()
        self._serve(meanwhile=self._drop_in_time)
        self._live = next((self.workspace.root / ".hotfolder" / "live").iterdir()).name
        self.finish()
        #: What every other run is held against.
        self.undisturbed = self._check(lenient=False)

    @property
    def said(self) -> str:
        """All that was logged since the last reset."""
        return self._log.read_text(errors="replace")

    # --- the parts of a trial ---

    def reset(self, kept: str = "before") -> None:
        """Put the workspace back as it was, and drop what the scenario begins with."""
        self.restore(kept)
        self._log.write_text("")
        self._drop(self.scenario.drops)
        self._waits = list(self.scenario.meanwhile)

    def enumerate(self) -> list[Point]:
        """Play it undisturbed, and return every call that may be disturbed."""
        self.reset()
        found = self.trace()
        self.finish()
        self._check(lenient=False)
        return found

    def trace(self) -> list[Point]:
        """Serve once, undisturbed, and return every call that may be disturbed."""
        tracers: list[subprocess.Popen[bytes]] = []
        ended = self._serve(
            MAIN,
            attach=lambda number: tracers.append(subprocess.Popen(trace_all(self._trace, number))),
            meanwhile=self._drop_in_time,
        )
        tracers[0].wait()
        found = points(self._trace, self.workspace.root, ended.threads)
        return [_moved(point, _MARKERS.sub(_OURS, point.path)) for point in found]

    def disturb(self, fault: Fault) -> Ended | None:
        """Serve once with a fault; None where this run did not come to that point."""
        tracers: list[subprocess.Popen[bytes]] = []
        path = self.workspace.root / fault.point.path.replace(_OURS, self._live)

        def attach(thread: int) -> None:
            if not tracers:
                tracers.append(subprocess.Popen(inject(fault, path, self._trace, thread)))

        self._trace.write_text("")
        ended = self._serve(fault.point.thread, attach=attach, meanwhile=self._drop_in_time)
        for tracer in tracers:
            tracer.wait()
        hit = was_hit(self._trace) if fault.error else ended.code == -9
        return ended if hit else None

    def finish(self) -> None:
        """Drop what was still to come, and serve undisturbed until nothing is left to do."""
        self.catch_up()
        self._serve_on()
        if self.scenario.then:
            for job, state in self.scenario.rest.items():
                assert self.workspace.state(job) == state, f"{job} rests in {state}"
            self._drop(self.scenario.then)
            self._serve_on()

    def catch_up(self) -> None:
        """Drop what was to be dropped while it ran, where it did not come to that."""
        self._drop(self._waits)
        self._waits.clear()

    def keep(self, name: str) -> None:
        """Remember the workspace as it is."""
        for folder in self._folders():
            shutil.rmtree(self._folder / name / folder.name, ignore_errors=True)
            shutil.copytree(folder, self._folder / name / folder.name, symlinks=True)

    def restore(self, name: str) -> None:
        """Make the workspace what it was; its folders stay, and so do the paths and inodes that depend on them."""
        for folder in self._folders():
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(self._folder / name / folder.name, folder, symlinks=True, dirs_exist_ok=True)

    # --- what must hold ---

    def check(self) -> None:
        """Check the promise on what stands at the end."""
        self._hold_against_undisturbed(self._check(lenient=False), lenient=False)

    def check_after_error(self, ended: Ended) -> None:
        """Check that an error left a clear state, and that all goes on once it is gone."""
        assert ended.code in {ExitCode.DONE, ExitCode.NOT_COMPLETED, ExitCode.USAGE}, f"exit code {ended.code}"
        if ended.code == ExitCode.USAGE:
            assert re.search(r"^error: /.+: [A-Z].+$", self.said, re.MULTILINE), "one line that names the file"
            assert "bug" not in self.said
        self._check_told()
        self.catch_up()
        for number in range(_MOVES):
            self._serve_on()
            self._check_told()
            if not self._move(number):
                break
        if not self._is_refused():
            self._hold_against_undisturbed(self._check(lenient=True), lenient=True)

    def _check_told(self) -> None:
        """Each job that stands has a status that can be read, and that tells why where it ended short."""
        assert "Traceback" not in self.said, "an error of the disk is no bug"
        for job in self._jobs():
            told = self.workspace.status(job)
            assert told["state"] in {state.value for state in journal.State}
            if told["state"] in _SHORT:
                assert told["error"]["code"] != "internal", told["error"]
                assert told["error"]["message"]
            log = self.workspace.outputs / job / "log.jsonl"
            assert not log.exists() or "Traceback" not in log.read_text(encoding="utf-8")

    def _move(self, number: int) -> bool:
        """Do what a user does who reads the status: resume what ended short, pick again; False where all has ended."""
        picks = [drop for drop in (*self.scenario.drops, *self.scenario.then) if drop.name.endswith(".resume")]
        moved = False
        for job in self._jobs():
            state = self.workspace.state(job)
            if state == "review":
                # The one that was wanted, or where that failed what there is.
                self._drop(picks if number % 2 == 0 else [Drop(name=f"{job}.resume", text="picks = [1]\n")])
                moved = True
            elif state in _SHORT or (state == "cancelled" != self._expected(job)):
                self.workspace.drop(f"{job}.resume", "")
                moved = True
        return moved

    def _is_refused(self) -> bool:
        """Whether a job was rejected since folder.toml could not be read: its text lies in the inbox, to be dropped."""
        for job in self._jobs():
            if self.workspace.state(job) == "rejected" != self._expected(job):
                (rejected,) = self.workspace.inbox.glob("*.rejected.toml")
                lines = rejected.read_text(encoding="utf-8").splitlines(keepends=True)
                text = "".join(line for line in lines if not line.startswith("#! "))
                assert text == (self.workspace.outputs / job / "job.toml").read_text(encoding="utf-8")
                return True
        return False

    def _check(self, *, lenient: bool) -> dict[str, Any]:
        """Check the promise; return the pixels.

        Args:
            lenient: after an error, one that failed before somebody cancelled it has gone on since; and a view that
                could not be written may be missing: the text of a rejected job, beside where it was dropped; and a
                cancelled job may have a picture that it did not come to note.
        """
        jobs = self.scenario.jobs
        states = {job: expected.state for job, expected in jobs.items()}
        left = self.scenario.left
        if lenient:
            may_be = {"completed", "cancelled"}
            states |= {
                job: self.workspace.state(job)
                for job, state in states.items()
                if state == "cancelled" and self.workspace.state(job) in may_be
            }
            left = tuple(
                name for name in left if not name.endswith(".rejected.toml") or (self.workspace.inbox / name).exists()
            )
        ledgers = check_promise(
            self.workspace,
            {job: expected.text for job, expected in jobs.items()},
            states=states,
            inbox=left,
            processed=self.scenario.processed,
            unlisted=lenient,
        )
        return pixels(ledgers)

    def _hold_against_undisturbed(self, found: dict[str, Any], *, lenient: bool) -> None:
        """The same pictures; a job that was cancelled has as many of them as it came to."""
        for job, pictures in found.items():
            undisturbed = self.undisturbed[job]
            if lenient and self.scenario.chooses:
                assert pictures, f"{job}: a picture"
            elif self._expected(job) != "cancelled":
                assert pictures == undisturbed, f"{job}: the same pictures"
            elif not lenient:
                assert pictures.items() <= undisturbed.items(), f"{job}: the same pictures, as far as it came"

    def _expected(self, job: str) -> str:
        return self.scenario.jobs[job].state if job in self.scenario.jobs else ""

    def _jobs(self) -> list[str]:
        return [job for job in self.workspace.jobs() if job != PROCESSED]

    # --- how ---

    def _folders(self) -> tuple[Path, ...]:
        cache = self.workspace.root / ".hotfolder"
        cache.mkdir(exist_ok=True)
        return (self.workspace.inbox, self.workspace.outputs, cache)

    def _drop(self, drops: tuple[Drop, ...] | list[Drop]) -> None:
        for drop in drops:
            drop.into(self.workspace)

    def _drop_in_time(self) -> None:
        if self._waits and self.scenario.when(self.workspace):
            self.catch_up()

    def _serve_on(self) -> None:
        ended = self._serve()
        assert ended.code in {ExitCode.DONE, ExitCode.NOT_COMPLETED}, f"exit code {ended.code}"

    def _serve(self, traced: str | None = None, **also: Any) -> Ended:
        order = Order(
            workspace=str(self.workspace.root),
            log=str(self._log),
            environ=self.workspace.variables(INBOX_SETTLE_S="0.01", INBOX_SCAN_S="0.05"),
            step_ms=self.scenario.step_ms,
            traced=traced,
        )
        return self._forks.serve(order, **also)


def _moved(point: Point, path: str) -> Point:
    return Point(thread=point.thread, call=point.call, path=path, nth=point.nth, reads=point.reads)
