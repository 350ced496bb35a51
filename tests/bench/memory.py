"""Memory of the daemon: how it grows with the jobs that are queued, and with those that have ended in its life."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from conftest import Workspace
from processes import Process
from waiting import wait_until

from bench.daemons import counts, wait_until_in_line
from bench.harness import Bench, Curve, Finding, Pairs, at_most

#: What growth is told by.
_PER: Final = 10_000
#: Jobs that wait at a time while many come to their end: the memory of the line is not what is measured there.
_WAVE: Final = 500
#: Jobs before which a process is not warm: pools grow, modules are imported.
_WARM: Final = 1_000
_JOB: Final = 'prompt = "a mug"\nsteps = 1\nwidth = 16\nheight = 16\n'


def metric(bench: Bench) -> Iterator[Finding]:
    """MB for each 10,000 jobs."""
    with bench.folder() as folder:
        yield _queued(bench, folder)
        yield _finished(bench, folder)


def _queued(bench: Bench, folder: Path) -> Finding:
    steps = [bench.size(1_000, 100) * number for number in range(1, 11)]
    workspace = Workspace(folder / "queued")
    (workspace.inbox / "pause").touch()
    process = Process(workspace, log_file=folder / "queued.log").wait_until_ready()
    points = [(0.0, memory_mb(process.pid))]
    try:
        for size in steps:
            _drop(workspace, int(points[-1][0]), size)
            wait_until_in_line(workspace, size)
            points.append((size, memory_mb(process.pid)))
    finally:
        process.kill()
    return Finding(
        metric="memory for 10,000 queued jobs",
        against="itself with none",
        unit="MB",
        timed=False,
        size=steps[-1],
        note="values: MB for each 10,000",
        pairs=_growth(points),
        curve=Curve(title="Memory of the daemon", x="queued jobs", y="MB", series={"queued": points}),
    )


def _finished(bench: Bench, folder: Path) -> Finding:
    warm, count = bench.size(_WARM, 200), bench.size(_PER, 400)
    wave = bench.size(_WAVE, 100)
    workspace = Workspace(folder / "finished")
    process = Process(workspace, log_file=folder / "finished.log").wait_until_ready()
    points = []
    try:
        for size in range(wave, warm + count + 1, wave):
            _drop(workspace, size - wave, size)
            wait_until(lambda size=size: counts(workspace).get("completed") == size, 600)  # type: ignore[misc]  # at once
            if size >= warm:
                points.append((float(size), memory_mb(process.pid)))
    finally:
        process.kill()
    return Finding(
        metric="memory for 10,000 finished jobs",
        against=f"itself after {warm:,}",
        unit="MB",
        timed=False,
        target=at_most(1.0),
        disk=bench.disk,
        size=count,
        note="values: MB for each 10,000",
        pairs=_growth(points),
        curve=Curve(title="Memory of the daemon", x="jobs finished in its life", y="MB", series={"finished": points}),
    )


def _growth(points: list[tuple[float, float]]) -> Pairs:
    """The slope of the line that fits all points best, by least squares."""
    mean_x, mean_y = (sum(point[axis] for point in points) / len(points) for axis in (0, 1))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return Pairs(ours=[points[-1][1]], theirs=[points[0][1]], values=[slope * _PER])


def _drop(workspace: Workspace, begin: int, end: int) -> None:
    for number in range(begin, end):
        workspace.drop(f"mug-{number:06d}.toml", _JOB)


def memory_mb(pid: int) -> float:
    """What a process has for itself: not the pages of libraries that it shares."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024
