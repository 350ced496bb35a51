"""How soon a cancel acts: from the scan that sees it until the worker is free and the job is `cancelled`, in steps."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from conftest import Workspace
from painted import PaintedEngine
from waiting import wait_until

from bench.daemons import serving
from bench.harness import Bench, Finding, Pairs, at_most, percentile
from hotfolder import journal
from hotfolder.clock import Moment
from hotfolder.engine import JobStopped, Made, Request, Tick

STEP_S: Final = 0.2
_AGAINST: Final = "one step"
_JOB: Final = 'prompt = "a mug"\nsteps = 1000\nwidth = 64\nheight = 64\n'


def metric(bench: Bench) -> Iterator[Finding]:
    """Cancelled at any moment of a step."""
    trials = bench.size(100, 5)
    drawn = random.Random(4)
    with bench.folder() as folder:
        workspace, engine = Workspace(folder / "work"), _SteppingEngine()
        with serving(workspace, engine):
            found = [_cancel(workspace, engine, f"mug-{trial:03d}", drawn) for trial in range(trials)]
    steps = {
        "cancel, until the job is cancelled": [one.ended_s / STEP_S for one in found],
        "cancel, until the worker is free": [one.free_s / STEP_S for one in found],
        "cancel, from the drop until the job is cancelled": [one.all_s / STEP_S for one in found],
    }
    for name, values in steps.items():
        yield Finding(
            metric=name,
            against=_AGAINST,
            unit="s",
            target=None if "drop" in name else at_most(1.1),
            disk=bench.disk,
            size=trials,
            note=f"p99 of {trials} cancels; from the scan that sees it, unless it says otherwise",
            pairs=Pairs(ours=[percentile(values, 99) * STEP_S], theirs=[STEP_S], values=[percentile(values, 99)]),
            counts={"p50": round(percentile(values, 50), 3), "p90": round(percentile(values, 90), 3)},
        )


@dataclass
class _SteppingEngine(PaintedEngine):
    """Takes `STEP_S` for each step, and notes when it was stopped."""

    stops: list[float] = field(default_factory=list)

    def make(self, request: Request, tick: Tick) -> Made:
        try:
            return super().make(request, tick)
        except JobStopped:
            self.stops.append(time.time())
            raise

    def __post_init__(self) -> None:
        self.before_step = lambda _request, _step: time.sleep(STEP_S)


@dataclass(frozen=True, kw_only=True)
class _Cancelled:
    """Seconds from when a cancel was seen, and from its drop."""

    free_s: float
    ended_s: float
    all_s: float


def _cancel(workspace: Workspace, engine: _SteppingEngine, name: str, drawn: random.Random) -> _Cancelled:
    """Start a job and cancel it at some moment of a step."""
    workspace.drop(f"{name}.toml", _JOB)
    workspace.wait_for(f"{name}_take01", "running")
    time.sleep(drawn.uniform(1, 2) * STEP_S)
    dropped = time.time()
    workspace.drop(f"{name}.cancel", "")
    before = len(engine.stops)
    workspace.wait_for(f"{name}_take01", "cancelled")
    wait_until(lambda: len(engine.stops) > before)
    folder = workspace.outputs / f"{name}_take01"
    ended = (folder / "status.toml").stat().st_mtime_ns / 1e9
    lines = journal.lines((folder / journal.FILE_NAME).read_bytes())
    seen = next(Moment.parse(line["at"]).timestamp() for line in lines if line["event"] == journal.Event.CANCEL)
    return _Cancelled(free_s=engine.stops[-1] - seen, ended_s=ended - seen, all_s=ended - dropped)
