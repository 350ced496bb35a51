"""A hundred thousand finished jobs, and one job with ten thousand candidates: neither slows down what comes after.

By default a sample; LOAD=full takes all of it. Ratios of two sizes in one run are what counts, never a time by itself.
"""

import os
import shutil
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import commands
import pytest
from conftest import Served, Spawn, Workspace
from painted import PaintedEngine
from processes import Process
from waiting import wait_until

FULL = os.environ.get("LOAD") == "full"
FEW, MANY = (1_000, 100_000) if FULL else (50, 1_000)
#: Prompts by seeds.
AXIS = 100 if FULL else 18
REPEATS = 5 if FULL else 2
#: What may be slower with many than with few: far above the noise of a busy machine, far below growth with the number.
MOST_RATIO, MOST_MORE_S = 2.0, 1.0
SMALL = "steps = 1\nwidth = 16\nheight = 16\n"

Seconds = dict[str, float]
Result = TypeVar("Result")


# --- finished jobs ---


@pytest.mark.timeout(3600 if FULL else 300)
def test_finished_jobs_slow_nothing_down(roomy: Workspace, spawn: Spawn, tmp_path: Path) -> None:
    model = finished_job(roomy, tmp_path)
    found = []
    stand = 1
    for count in (FEW, MANY):
        fabricate(model, range(stand, count))
        stand = count
        found.append(measure(roomy, spawn, count))
    few, many = found
    for what in few:
        ratio = many[what] / few[what]
        print(f"{what}: {few[what]:.3f} s with {FEW} finished, {many[what]:.3f} s with {MANY}: {ratio:.2f}x")
    for what in few.keys() - {"a listing", "the first start"}:
        assert many[what] < MOST_RATIO * few[what] + MOST_MORE_S, what


def finished_job(workspace: Workspace, folder: Path) -> Path:
    """Run one job to its end; the daemon has stopped then."""
    workspace.drop("model.toml", f'prompt = "a mug"\n{SMALL}')
    settings = workspace.settings(MODELS_DIR=str(folder / "models"))
    assert Served(settings, PaintedEngine(), drain=True).join() == 0
    return workspace.outputs / "model_take01"


def fabricate(model: Path, numbers: range) -> None:
    """Make folders as that of a job that ended, one for each number; what does not tell its name is shared."""
    inside = sorted(path.relative_to(model) for path in model.rglob("*"))
    folders = [path for path in inside if (model / path).is_dir()]
    own = {path: (model / path).read_text() for path in inside if path.suffix == ".toml" and path.stem != "job"}
    shared = [path for path in inside if path not in own and path not in folders]
    for number in numbers:
        name = f"old{number:06d}_take01"
        folder = model.with_name(name)
        for path in (Path(), *folders):
            (folder / path).mkdir()
        for path in shared:
            (folder / str(path).replace(model.name, name)).hardlink_to(model / path)
        for path, text in own.items():
            (folder / str(path).replace(model.name, name)).write_text(text.replace(model.name, name))
    # It goes back to the status files, as after a cache was deleted.
    shutil.rmtree(model.parents[1] / ".hotfolder")


def measure(workspace: Workspace, spawn: Spawn, count: int) -> Seconds:
    """Return for each thing that somebody waits for the shortest of several times."""

    def serve() -> Process:
        process: Process = spawn(on=workspace)
        # The first one reads every status file.
        wait_until(lambda: workspace.daemon_status().get("pid") == process.pid, 1200, "it serves")
        return process

    first_s, process = timed(serve)
    process.stop()
    rounds: list[Seconds] = []
    for number in range(REPEATS):
        listing_s, _ = timed(lambda: [entry.is_dir() for entry in os.scandir(workspace.outputs)])
        start_s, process = timed(serve)
        took = {"a listing": listing_s, "a start, less a listing": start_s - listing_s}
        took["a job"], _ = timed(lambda: run_one(workspace, f"new{count}-{number}"))  # noqa: B023 - called at once
        for command in ("status", "history"):
            took[command], said = timed(lambda: commands.end(commands.start(command, cwd=workspace.root)))  # noqa: B023
            assert said.code == 0, said.err
        took["a stop"], _ = timed(process.stop)
        rounds.append(took)
    shortest = {what: min(took[what] for took in rounds) for what in rounds[0]}
    return {"the first start": first_s, **shortest}


def timed(act: Callable[[], Result]) -> tuple[float, Result]:
    """Return how long something took, and what it returned."""
    began = time.monotonic()
    result = act()
    return time.monotonic() - began, result


def run_one(workspace: Workspace, name: str) -> None:
    workspace.drop(f"{name}.toml", f'prompt = "a mug"\n{SMALL}')
    workspace.wait_for(f"{name}_take01", "completed", timeout_s=60)


# --- one large job ---


@pytest.mark.timeout(3600 if FULL else 300)
def test_a_large_matrix_is_made_to_the_end_in_flat_memory(roomy: Workspace, spawn: Spawn) -> None:
    process = spawn(on=roomy).wait_until_ready()
    roomy.drop("small.toml", matrix(2))
    roomy.wait_for("small_take01", "completed", timeout_s=60)
    before_kb = memory_kb(process)
    began = time.monotonic()
    roomy.drop("large.toml", matrix(AXIS))
    wait_until(lambda: roomy.daemon_status().get("counts") == {"completed": 2}, 3000, "it is completed")
    rate = AXIS**2 / (time.monotonic() - began)
    grown_kb = memory_kb(process) - before_kb
    print(f"{AXIS**2} candidates, {rate:.0f} a second, {grown_kb / 1024:.1f} MB more")
    assert process.stop() == 0
    status, folder = roomy.status("large_take01"), roomy.outputs / "large_take01"
    assert (status["candidates"], status["done"], status["failed"]) == (AXIS**2, AXIS**2, 0)
    names = [f"large_take01_{number:03d}.png" for number in range(1, AXIS**2 + 1)]
    assert {path.name for path in folder.glob("*.png*")} == {*names, *(f"{name}.toml" for name in names)}
    told = [tomllib.loads((folder / f"{name}.toml").read_text()) for name in names[:: max(1, AXIS**2 // 200)]]
    assert len({(one["prompt"], one["seed"]) for one in told}) == len(told), "each candidate is another one"
    assert grown_kb < 20_000 + 4 * AXIS**2


def matrix(axis: int) -> str:
    """Every one of so many prompts with every one of so many seeds."""
    prompts = [f"mug {number}" for number in range(axis)]
    return f"{SMALL}[matrix]\nprompt = {prompts}\nseed = {list(range(axis))}\n"


def memory_kb(process: Process) -> int:
    """Return what a process has in memory."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
