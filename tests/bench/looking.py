"""What it costs to see how the work stands, by how many jobs there are: it must not grow with those that ended."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

from conftest import Workspace
from processes import Process
from waiting import wait_until

from bench.commands import HOTFOLDER, command_s
from bench.harness import Bench, Curve, Finding, at_most, in_turns, ratios
from bench.store import finished_jobs

_TARGET: Final = at_most(1.2)
_COMMANDS: Final[Sequence[tuple[str, ...]]] = (("status",), ("status", "done_take01"), ("history",))
_SIZES: Final = (1_000, 10_000, 100_000)
_QUICK_SIZES: Final = (50, 200, 500)


def metric(bench: Bench) -> Iterator[Finding]:
    """`hotfolder status`, of the daemon and of a job, `history`, and the daemon's own status.toml."""
    sizes = _QUICK_SIZES if bench.quick else _SIZES
    with bench.folder() as folder:
        workspaces = with_finished(folder, sizes)
        for command in _COMMANDS:
            yield command_growth(bench, command, workspaces)
        yield status_file_growth(bench, workspaces, folder)


def with_finished(folder: Path, sizes: Sequence[int]) -> dict[int, Workspace]:
    """Make a workspace with so many finished jobs, for each size."""
    workspaces = {size: Workspace(folder / f"with-{size}") for size in sizes}
    for size, workspace in workspaces.items():
        finished_jobs(workspace, size)
    return workspaces


def command_growth(bench: Bench, command: tuple[str, ...], workspaces: dict[int, Workspace]) -> Finding:
    """How long a command takes, in each of these workspaces; the smallest first."""
    rounds = bench.size(15, 2)

    def taking_s(size: int) -> Callable[[], float]:
        root = workspaces[size].root
        return lambda: command_s(HOTFOLDER, *command, "--workspace", str(root), cwd=root)

    small, *between, large = workspaces
    for size in workspaces:
        taking_s(size)()
    pairs = in_turns(taking_s(large), taking_s(small), rounds)
    points = [(small, median(theirs for _, theirs in pairs))]
    points += [(size, median(taking_s(size)() for _ in range(rounds))) for size in between]
    points += [(large, median(ours for ours, _ in pairs))]
    name = "hotfolder status JOB" if len(command) > 1 else f"hotfolder {command[0]}"
    return Finding(
        metric=f"{name}, growth",
        against=f"itself with {small:,} jobs",
        unit="s",
        target=_TARGET,
        disk=bench.disk,
        size=large,
        pairs=ratios(pairs),
        curve=Curve(title=f"{name}: how long it takes", x="finished jobs", y="s", series={name: points}, log_x=True),
    )


def status_file_growth(bench: Bench, workspaces: dict[int, Workspace], folder: Path) -> Finding:
    """CPU time of the daemon while what it shows changes at every look."""
    looks, rounds = bench.size(10, 2), bench.size(6, 2)
    with ExitStack() as stack:
        running = {}
        for size, workspace in workspaces.items():
            process = Process(workspace, log_file=folder / f"serve-{size}.log")
            stack.callback(process.kill)
            running[size] = process.wait_until_ready()

        def look_s(size: int) -> float:
            return _cpu_of_looks(workspaces[size], running[size], looks) / looks

        small, *between, large = workspaces
        pairs = in_turns(lambda: look_s(large), lambda: look_s(small), rounds)
        points = [(small, median(theirs for _, theirs in pairs))]
        points += [(size, median(look_s(size) for _ in range(2))) for size in between]
        points += [(large, median(ours for ours, _ in pairs))]
    return Finding(
        metric="status.toml of the daemon, growth",
        against=f"itself with {small:,} jobs",
        unit="s of CPU each time that it is written",
        target=_TARGET,
        disk=bench.disk,
        size=large,
        pairs=ratios(pairs),
        curve=Curve(
            title="outputs/status.toml: CPU time of the daemon each time that it is written",
            x="finished jobs",
            y="s",
            series={"status.toml": points},
            log_x=True,
        ),
    )


def _cpu_of_looks(workspace: Workspace, process: Process, looks: int) -> float:
    """Let the daemon write its status so many times, each time because it is paused or goes on."""
    pause = workspace.inbox / "pause"
    before = cpu_s(process.pid)
    for look in range(looks):
        if look % 2:
            pause.unlink()
        else:
            pause.touch()
        wanted = "running" if look % 2 else "paused"
        wait_until(lambda wanted=wanted: workspace.daemon_status()["state"] == wanted)  # type: ignore[misc]  # at once
    return cpu_s(process.pid) - before


def cpu_s(pid: int) -> float:
    """CPU time that a process, without its children, has used so far."""
    # What clock_getcpuclockid(3) gives: finer than the ticks of /proc/PID/stat.
    return time.clock_gettime((~pid << 3) | 2)
