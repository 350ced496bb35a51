"""One workspace in which a scenario is played again and again, disturbed at one point, and looked at afterwards."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from conftest import Workspace
from forks import Ended, Forks
from forkserver import MAIN, Order
from oracle import check_promise, pixels
from scenarios import Drop, Scenario
from syscalls import Fault, Point, inject, points, trace_all, was_hit

from hotfolder import journal
from hotfolder.front.answer import ExitCode

#: Of the markers' folder, which is named after the inode of outputs/; points are the same in every workspace.
_MARKERS = re.compile(r"(?<=\.hotfolder/live/)[0-9a-f]+-[0-9a-f]+")
_OURS = "@"
#: What an error may make of a job, besides its proper end: it says so, and `.resume` goes on.
_SHORT = {"failed", "partial"}


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
        self._hold_against_undisturbed(self._check(lenient=False), whole=True)

    def check_after_error(self, ended: Ended) -> None:
        """Check that an error left a clear state, and that all goes on once it is gone."""
        assert ended.code in {ExitCode.DONE, ExitCode.NOT_COMPLETED, ExitCode.USAGE}, f"exit code {ended.code}"
        assert "Traceback" not in self.said, "an error of the disk is no bug"
        if ended.code == ExitCode.USAGE:
            assert self.said.rstrip().splitlines()[-1].startswith(("error", "hotfolder")), "one clear line"
        self._check_told()
        for job in self._short():
            self.workspace.drop(f"{job}.resume", "")
        self.finish()
        for job in self._short():
            self.workspace.drop(f"{job}.resume", "")
            self._serve_on()
        assert "Traceback" not in self.said, "an error of the disk is no bug"
        self._hold_against_undisturbed(self._check(lenient=True), whole=False)

    def _check(self, *, lenient: bool) -> dict[str, Any]:
        """Check the promise; return the pixels."""
        jobs = self.scenario.jobs
        states = {job: expected.state for job, expected in jobs.items()}
        if lenient:
            # One that failed before somebody cancelled it has gone on since, and is completed.
            states = {
                job: state if state != "cancelled" else self.workspace.state(job) or state
                for job, state in states.items()
            }
            assert set(states.values()) <= {"completed", "cancelled", "rejected"}
        ledgers = check_promise(
            self.workspace,
            {job: expected.text for job, expected in jobs.items()},
            states=states,
            inbox=self.scenario.left,
            processed=self.scenario.processed,
        )
        return pixels(ledgers)

    def _hold_against_undisturbed(self, found: dict[str, Any], *, whole: bool) -> None:
        """The same pictures; a job that was cancelled has as many of them as it came to."""
        for job, pictures in found.items():
            undisturbed = self.undisturbed[job]
            cancelled = self.scenario.jobs[job].state == "cancelled"
            if not cancelled:
                assert pictures == undisturbed, f"{job}: the same pictures"
            elif whole:
                assert pictures.items() <= undisturbed.items(), f"{job}: the same pictures, as far as it came"

    def _check_told(self) -> None:
        """Each job that stands has a status that can be read, and that tells why where it ended short."""
        for job in self.workspace.jobs():
            if job == "processed":
                continue
            told = tomllib.loads((self.workspace.outputs / job / "status.toml").read_text(encoding="utf-8"))
            assert told["state"] in {state.value for state in journal.State}
            if told["state"] in _SHORT:
                assert told["error"]["code"] != "internal", told["error"]
                assert told["error"]["message"]
            log = self.workspace.outputs / job / "log.jsonl"
            assert not log.exists() or "Traceback" not in log.read_text(encoding="utf-8")

    def _short(self) -> list[str]:
        return [job for job in self.workspace.jobs() if self.workspace.state(job) in _SHORT]

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
