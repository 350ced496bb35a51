"""Drops, bursts and jobs that do next to nothing, against the least that an honest hot folder must do."""

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from conftest import Workspace
from processes import Process
from waiting import wait_until

from bench.celery_peer import celery_worker
from bench.daemons import drain
from bench.harness import Bench, Curve, Finding, Pairs, Skipped, at_least, at_most, in_turns, percentile, ratios
from bench.inotify import MOVED_FROM, MOVED_TO, Inotify

_TESTS: Final = Path(__file__).parents[1]
#: Drops a second of a busy but not flooded folder.
_RATE: Final = 100
#: As a workspace has it where nobody set anything.
_AS_SHIPPED: Final = {"INBOX_SCAN_S": "1.0", "INBOX_SETTLE_S": "0.3"}
_TEXT: Final = 'prompt = "mug {number}"\nseed = {number}\nsteps = 1\nwidth = 16\nheight = 16\n'


def latency(bench: Bench) -> Iterator[Finding]:
    """From the rename of a drop to its job, `queued`, durable and readable, at 100 drops a second."""
    drops = bench.size(500, 50)
    with bench.folder() as folder:
        duel = _Duel(folder, drops)
        pairs = in_turns(duel.latencies_ms, lambda: duel.latencies_ms("planned"), bench.size(5, 1))
    for per_cent in (50, 99):
        found = [(percentile(ours, per_cent), percentile(theirs, per_cent)) for ours, theirs in pairs]
        yield Finding(
            metric=f"intake latency, p{per_cent}",
            against="the reference",
            unit="ms",
            target=at_most(1.3),
            disk=bench.disk,
            size=drops,
            note=f"{_RATE} drops a second, written beside and renamed; until the drop has lost its name, which is when "
            "its job is on the disk",
            pairs=ratios(found),
            overloaded=fell_behind([theirs for _, theirs in pairs]),
            curve=_distribution(pairs) if per_cent == 99 else None,
        )


def fell_behind(rounds: Sequence[Sequence[float]]) -> str:
    """Say so where the reference itself does not come after the drops: then the length of a queue is measured.

    Args: rounds: its ms for each drop of a round.
    """
    between_ms = 1000 / _RATE
    slowest = max(percentile(latencies, 50) for latencies in rounds)
    if slowest <= between_ms:
        return ""
    return f"the reference itself falls behind {_RATE} drops a second on this disk: its p50 was {slowest:.0f} ms"


def burst(bench: Bench) -> Iterator[Finding]:
    """From the first rename of a burst until every job stands in the line."""
    many, small = bench.size(50_000, 1_000), bench.size(10_000, 200)
    measured = {}
    for size, rounds in ((small, bench.size(3, 1)), (many, 1)):
        with bench.folder() as folder:
            duel = _Duel(folder, size)
            measured[size] = in_turns(duel.until_queued_s, lambda duel=duel: duel.until_queued_s("planned"), rounds)  # type: ignore[misc]
        yield _burst_of(bench, size, measured[size], "")
    with bench.folder() as folder:
        duel = _Duel(folder, small)
        pairs = in_turns(lambda: duel.until_queued_s(events="false"), lambda: duel.until_queued_s("planned"), 1)
    yield _burst_of(bench, small, pairs, ", without events")
    yield _growth(bench, "burst", measured, "until all are queued, s")


def jobs(bench: Bench) -> Iterator[Finding]:
    """Jobs of one small painted picture a second, from the first rename to the last end."""
    measured = {}
    small, many = bench.size(1_000, 50), bench.size(10_000, 250)
    for size, rounds in ((small, bench.size(5, 1)), (many, 1)):
        with bench.folder() as folder:
            duel = _Duel(folder, size)
            measured[size] = in_turns(duel.until_ended_s, lambda duel=duel: duel.until_ended_s("ended"), rounds)  # type: ignore[misc]
        yield Finding(
            metric=f"no-op jobs a second, {size:,}",
            against="the reference",
            unit="jobs/s",
            target=at_least(0.67),
            disk=bench.disk,
            size=size,
            pairs=ratios([(size / ours, size / theirs) for ours, theirs in measured[size]]),
        )
    yield _growth(bench, "no-op jobs", measured, "until all have ended, s")
    yield from _celery(bench, small, small / median(ours for ours, _ in measured[small]))


def _celery(bench: Bench, size: int, ours: float) -> Iterator[Finding]:
    """For scale: what a queue does that everybody knows, flushing as often as it can, without pictures or files."""
    with bench.folder() as folder:
        try:
            with celery_worker(folder, synced=True) as worker:
                theirs = 1 / worker.job_s(size)
        except Skipped as why:
            raise Skipped(f"for scale: {why}") from why
    yield Finding(
        metric="no-op jobs a second, for scale",
        against="Celery and Redis, prefork, appendfsync always",
        unit="jobs/s",
        disk=bench.disk,
        size=size,
        note="a Celery task makes no file; a job of ours makes a dozen",
        pairs=ratios([(ours, theirs)]),
    )


def _burst_of(bench: Bench, size: int, pairs: list[tuple[float, float]], how: str) -> Finding:
    return Finding(
        metric=f"burst of {size:,}{how}",
        against="the reference",
        unit="s",
        target=at_most(1.5),
        disk=bench.disk,
        size=size,
        note="until every job stands in the line with its plan; none lost, none doubled",
        pairs=ratios(pairs),
    )


def _growth(bench: Bench, what: str, measured: Mapping[int, list[tuple[float, float]]], seconds: str) -> Finding:
    """Args: measured: seconds, ours and theirs, by size."""
    ours = {size: median(one for one, _ in pairs) for size, pairs in measured.items()}
    theirs = {size: median(other for _, other in pairs) for size, pairs in measured.items()}
    small, many = min(ours), max(ours)
    exponent = math.log(ours[many] / ours[small]) / math.log(many / small)
    return Finding(
        metric=f"{what}, growth from {small:,} to {many:,}",
        against="itself",
        unit="s",
        target=at_most(1.05),
        disk=bench.disk,
        size=many,
        note="exponent; 1 is linear",
        pairs=Pairs(ours=[ours[many]], theirs=[ours[small]], values=[exponent]),
        curve=Curve(
            title=f"{what.capitalize()}: the time by how many",
            x="how many",
            y=seconds,
            series={"Hotfolder": sorted(ours.items()), "the reference": sorted(theirs.items())},
            log_x=True,
            log_y=True,
        ),
    )


def _distribution(pairs: list[tuple[list[float], list[float]]]) -> Curve:
    parts = (1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.8)
    series = {}
    for name, side in (("Hotfolder", 0), ("the reference", 1)):
        all_of_it = [value for pair in pairs for value in pair[side]]
        series[name] = [(percentile(all_of_it, part), float(part)) for part in parts]
    return Curve(title="Intake latency at 100 drops a second", x="ms", y="% of drops", series=series, log_x=True)


class _Duel:
    """The same drops for both, each time in a new workspace on the same disk."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size, self._rounds = folder, size, 0
        model = Workspace(folder / "like")
        model.drop("like.toml", _TEXT.format(number=1))
        drain(model)
        self._like = model.outputs / "like_take01"

    def latencies_ms(self, until: str = "") -> list[float]:
        """Ms of each drop until its job is durable."""
        with self._served(until) as workspace:
            return _paced_drops(workspace, self._size)

    def until_queued_s(self, until: str = "", events: str = "true") -> float:
        """Seconds from the first rename until all stand in the line."""
        return self._all_s(until, "plan.toml", lambda _: True, events)

    def until_ended_s(self, until: str = "") -> float:
        """Seconds from the first rename until all have ended."""
        return self._all_s(until, "status.toml", lambda path: 'state = "completed"' in path.read_text(), paused=False)

    def _all_s(
        self, until: str, file: str, is_there: Callable[[Path], bool], events: str = "true", *, paused: bool = True
    ) -> float:
        with self._served(until, events, paused=paused) as workspace:
            staged = _stage(workspace, self._size)
            os.sync()
            started = time.perf_counter()
            for path in staged:
                path.rename(workspace.inbox / path.name)
            files = [workspace.outputs / f"{path.stem}_take01" / file for path in staged]
            for path in (files[-1], *files):
                wait_until(lambda path=path: path.exists() and is_there(path), 1800)  # type: ignore[misc]
            seconds = time.perf_counter() - started
            _check(workspace, staged)
        return seconds

    @contextmanager
    def _served(self, until: str, events: str = "true", *, paused: bool = True) -> Iterator[Workspace]:
        """Serve a new workspace: with the reference as far as `until`, or with the daemon, where that is ""."""
        self._rounds += 1
        workspace = Workspace(self._folder / f"round-{self._rounds}")
        with ExitStack() as stack:
            if until:
                command = [
                    sys.executable,
                    "-m",
                    "bench.reference",
                    str(workspace.root),
                    str(self._like),
                    until,
                    str(self._size),
                ]
                process = subprocess.Popen(command, cwd=_TESTS, stdout=subprocess.PIPE, text=True)
                stack.callback(process.wait)
                stack.callback(process.kill)
                assert process.stdout is not None
                stack.callback(process.stdout.close)
                assert process.stdout.readline() == "ready\n"
            else:
                if paused:
                    (workspace.inbox / "pause").touch()
                env = {**_AS_SHIPPED, "INBOX_EVENTS": events}
                daemon = Process(workspace, log_file=workspace.root / "serve.log", env=env)
                stack.callback(daemon.kill)
                daemon.wait_until_ready()
            yield workspace


def _stage(workspace: Workspace, size: int) -> list[Path]:
    folder = workspace.root / "staged"
    folder.mkdir()
    paths = [folder / f"j{number:05d}.toml" for number in range(size)]
    for number, path in enumerate(paths):
        path.write_text(_TEXT.format(number=number))
    return paths


def _check(workspace: Workspace, staged: list[Path]) -> None:
    """Whether each drop became one job."""
    if workspace.jobs() != [f"{path.stem}_take01" for path in staged]:
        raise RuntimeError(f"{len(workspace.jobs())} jobs of {len(staged)} drops")


def _paced_drops(workspace: Workspace, size: int) -> list[float]:
    """Drop at a steady pace; return the ms until each drop lost its name, which is when its job is durable."""
    staged = _stage(workspace, size)
    lost: dict[str, float] = {}
    # Both watch their takes by a rename in outputs/ too, but that comes before the flush.
    events = Inotify(workspace.inbox, MOVED_FROM | MOVED_TO)
    watching = threading.Thread(target=_note_losses, args=(events, lost, size))
    watching.start()
    dropped = {}
    started = time.perf_counter()
    pause = threading.Event()
    for number, path in enumerate(staged):
        pause.wait(max(0.0, started + number / _RATE - time.perf_counter()))
        dropped[path.name] = time.perf_counter()
        path.rename(workspace.inbox / path.name)
    watching.join(120)
    events.close()
    if len(lost) != size:
        raise RuntimeError(f"{size - len(lost)} drops were not taken")
    _check(workspace, staged)
    return [1000 * (lost[name] - at) for name, at in dropped.items()]


def _note_losses(events: Inotify, lost: dict[str, float], size: int) -> None:
    deadline = time.perf_counter() + 110
    while len(lost) < size and time.perf_counter() < deadline:
        for event in events.read(1.0):
            if event.mask & MOVED_FROM and event.name.endswith(".toml"):
                lost[event.name] = time.perf_counter()
