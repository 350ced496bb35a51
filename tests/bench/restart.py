"""How long a daemon takes to start again after a kill, by how many jobs have ended before."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from conftest import Workspace
from listener import Listener
from processes import Process
from waiting import wait_until

from bench.daemons import wait_until_in_line
from bench.harness import Bench, Finding, at_most, in_turns, ratios
from bench.store import finished_jobs

#: So that the first job is under way for as long as anybody looks.
_STEP_MS: Final = "600000"
#: Twenty deaths that nobody can explain end a job: one start is one death.
_ROUNDS: Final = 9


def metric(bench: Bench) -> Iterator[Finding]:
    """With one job running and many queued; less one listing of outputs/, which nothing can do without."""
    many, few, queued = bench.size(10_000, 500), bench.size(100, 50), bench.size(1_000, 50)
    with bench.folder() as folder:
        large, small = (_left_behind(folder / f"after-{size}", size, queued) for size in (many, few))
        for one in (large, small):
            one.start_s()
        pairs = in_turns(large.start_s, small.start_s, bench.size(_ROUNDS, 2))
        for one in (large, small):
            one.check(queued)
    yield Finding(
        metric=f"restart with {many:,} finished, {queued:,} queued, 1 running",
        against=f"itself with {few:,} finished",
        unit="s",
        target=at_most(1.2),
        disk=bench.disk,
        size=many,
        note="from the start of the process to READY=1, less one listing of outputs/",
        pairs=ratios(pairs),
        counts={"listing_s": round(median(large.listings_s), 5)},
    )


@dataclass(frozen=True, kw_only=True)
class _LeftBehind:
    """A workspace whose daemon was killed."""

    workspace: Workspace
    log_file: Path
    listings_s: list[float]

    def start_s(self) -> float:
        """Start a daemon, hear when it is ready, and kill it again."""
        listing_s = _listing_s(self.workspace.outputs)
        self.listings_s.append(listing_s)
        address = str(self.log_file.with_suffix(".socket"))
        listener = Listener(address)
        started = time.perf_counter()
        process = Process(
            self.workspace, "--step-ms", _STEP_MS, log_file=self.log_file, environ={"NOTIFY_SOCKET": address}
        )
        try:
            listener.hear_until("READY=1")
            ready_s = time.perf_counter() - started
            # Killed while it is well under way, so that each start finds the same.
            wait_until(lambda: self.workspace.state("first_take01") == "running")
        finally:
            process.kill()
            listener.close()
            Path(address).unlink()
        return ready_s - listing_s

    def check(self, queued: int) -> None:
        """Whether all that was live still is: else the starts were not alike."""
        states = Counter(self.workspace.state(job) for job in self.workspace.jobs())
        if (states["running"], states["queued"]) != (1, queued):
            raise RuntimeError(f"not as they were left: {states}")


def _left_behind(folder: Path, finished: int, queued: int) -> _LeftBehind:
    workspace = Workspace(folder / "work")
    finished_jobs(workspace, finished)
    log_file = folder / "serve.log"
    process = Process(workspace, "--step-ms", _STEP_MS, log_file=log_file)
    try:
        workspace.drop("first.toml")
        workspace.wait_for("first_take01", "running")
        for number in range(queued):
            workspace.drop(f"waits-{number:05d}.toml")
        wait_until_in_line(workspace, queued, "waits-*")
    finally:
        process.kill()
    return _LeftBehind(workspace=workspace, log_file=log_file, listings_s=[])


def _listing_s(folder: Path) -> float:
    started = time.perf_counter()
    with os.scandir(folder) as entries:
        for _ in entries:
            pass
    return time.perf_counter() - started
