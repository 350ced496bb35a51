"""In what order cells run: how often a model is loaded, and when an urgent job comes to its turn in a large batch."""

import functools
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from conftest import Workspace
from painted import PaintedEngine

from bench.daemons import drain, queue_all, serving
from bench.harness import Bench, Finding, Pairs, at_most
from hotfolder import journal
from hotfolder.clock import Moment
from hotfolder.engine import Made, Request, Tick
from hotfolder.line import MAX_OVERTAKES

MODELS: Final = ("cyan", "magenta", "yellow")
_PRESET: Final = 'kind = "text2img"\n[model]\nrepo = "bench/{name}"\n'


def loads(bench: Bench) -> Iterator[Finding]:
    """Jobs for three models in turn, all there before the first begins."""
    jobs = bench.size(100, 20)
    with bench.folder() as folder:
        workspace = Workspace(folder / "work")
        presets = workspace.root / "presets"
        presets.mkdir()
        for name in MODELS:
            (presets / f"{name}.toml").write_text(_PRESET.format(name=name), encoding="utf-8")
        names = [MODELS[number % len(MODELS)] for number in range(jobs)]
        for number, name in enumerate(names):
            workspace.drop(
                f"mug-{number:03d}.toml", f'preset = "{name}"\nprompt = "a mug"\nsteps = 1\nseed = {number}\n'
            )
        engine = PaintedEngine()
        queue_all(workspace, jobs)
        drain(workspace, engine)
    ran = [request.seed for request in engine.made]
    if sorted(ran) != list(range(jobs)):
        raise RuntimeError(f"{len(ran)} of {jobs} jobs ran")
    optimum = fewest_loads(tuple(names), MAX_OVERTAKES)
    yield Finding(
        metric=f"model loads for {jobs} interleaved jobs over {len(MODELS)} models",
        against=f"the fewest with which no job is overtaken by more than {MAX_OVERTAKES} later ones",
        unit="loads",
        target=at_most(1.0),
        timed=False,
        size=jobs,
        pairs=Pairs(ours=[len(engine.loads)], theirs=[optimum], values=[len(engine.loads) / optimum]),
        counts={"most_overtakes": most_overtakes(ran)},
    )


def most_overtakes(ran: Sequence[int]) -> int:
    """Return by how many later ones the job was overtaken that was overtaken most; they came in order, from 0."""
    return max(sum(earlier > job for earlier in ran[:place]) for place, job in enumerate(ran))


def fewest_loads(names: tuple[str, ...], most: int) -> int:
    """Return the fewest loads of one model at a time, where no job is overtaken by more than `most` later ones.

    Jobs of one model run in their order, so that how many of each model have run says which have.
    """
    queues = {name: [number for number, one in enumerate(names) if one == name] for name in dict.fromkeys(names)}

    def overtakers(job: int, ran: tuple[int, ...]) -> int:
        return sum(max(0, count - bisect_left(queue, job)) for queue, count in zip(queues.values(), ran, strict=True))

    @functools.cache
    def least(ran: tuple[int, ...], loaded: str) -> float:
        heads = {
            name: queue[count] for (name, queue), count in zip(queues.items(), ran, strict=True) if count < len(queue)
        }
        best = float("inf") if heads else 0.0
        for index, name in enumerate(queues):
            after = (*ran[:index], ran[index] + 1, *ran[index + 1 :])
            others = [job for other, job in heads.items() if other != name]
            if name in heads and all(overtakers(job, after) <= most for job in others):
                best = min(best, least(after, name) + (name != loaded))
        return best

    return int(least((0,) * len(queues), ""))


CELL_S: Final = 0.1


def urgent(bench: Bench) -> Iterator[Finding]:
    """A job of a higher priority, dropped while a batch of 1,000 pictures runs."""
    trials = bench.size(20, 3)
    with bench.folder() as folder:
        workspace = Workspace(folder / "work")
        engine = _NotingEngine()
        with serving(workspace, engine):
            workspace.drop("batch.toml", 'prompt = "a batch"\ncount = 1000\nsteps = 1\nwidth = 16\nheight = 16\n')
            workspace.wait_for("batch_take01", "running")
            waits, between = zip(*(_urgent(workspace, engine, trial) for trial in range(trials)), strict=True)
            workspace.drop("batch.cancel", "")
            workspace.wait_for("batch_take01", "cancelled")
    yield Finding(
        metric="urgent job in a batch of 1,000 cells, from the line to its start",
        against="one cell",
        unit="s",
        target=at_most(1.1),
        disk=bench.disk,
        size=trials,
        note=f"the longest of {trials}",
        pairs=Pairs(ours=[max(waits)], theirs=[CELL_S], values=[max(waits) / CELL_S]),
        # The plan is journalled before the job stands in the line: one cell may begin just then.
        counts={"cells_begun_meanwhile": max(between), "at_most": 1},
    )


class _NotingEngine(PaintedEngine):
    """Takes `CELL_S` for each picture, and notes when it began which."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[tuple[float, str]] = []
        self._never = threading.Event()

    def make(self, request: Request, tick: Tick) -> Made:
        self.begun.append((time.time(), request.prompt))
        self._never.wait(CELL_S)
        return super().make(request, tick)


def _urgent(workspace: Workspace, engine: _NotingEngine, trial: int) -> tuple[float, int]:
    """Return how long the urgent job stood in the line, and how many cells of the batch were begun meanwhile."""
    prompt = f"urgent {trial}"
    workspace.drop(f"urgent-{trial}.toml", f'prompt = "{prompt}"\npriority = 50\nsteps = 1\nwidth = 16\nheight = 16\n')
    workspace.wait_for(f"urgent-{trial}_take01", "completed")
    lines = journal.lines((workspace.outputs / f"urgent-{trial}_take01" / journal.FILE_NAME).read_bytes())
    queued = next(Moment.parse(line["at"]).timestamp() for line in lines if line["event"] == journal.Event.PLANNED)
    begun = next(at for at, text in engine.begun if text == prompt)
    between = sum(queued < at < begun for at, _ in engine.begun)
    return begun - queued, between
