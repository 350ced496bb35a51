"""Pictures a second with a GPU that takes 200 ms each, and what the worker leaves between two of them.

The engine sleeps, so that it needs no CPU, as a GPU does not; its pictures are real, and are encoded and saved.
"""

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Final

from conftest import Workspace
from PIL import Image

from bench.daemons import drain
from bench.harness import Bench, Finding, Pairs, at_least, in_turns, percentile, ratios
from bench.photos import photo
from hotfolder import durable
from hotfolder.engine import Answer, Made, Question, Request, Tick, no_tick
from hotfolder.presets import Model

MAKE_S: Final = 0.2
_SIDE: Final = 1024
_STEPS: Final = 4
#: As `hotfolder.encoding` writes PNG: what is compared is when it is done, not how.
_PNG: Final = {"compress_level": 1, "compress_type": 3}
_FLUSHES: Final = 50


@dataclass
class SleepingEngine:
    """Takes `MAKE_S` for each picture without the CPU, and hands out photos."""

    photos: list[Image.Image]
    #: When each picture was begun and finished: by the clock on the wall, as the times of files are.
    spans: list[tuple[float, float]] = field(default_factory=list)
    loaded: frozenset[str] = frozenset()

    def make(self, request: Request, tick: Tick) -> Made:
        started = time.time()
        tick("load", 0, 0)
        self.loaded = frozenset({request.model.key})
        tick("encode", 0, 0)
        for step in range(1, _STEPS + 1):
            time.sleep(max(0.0, started + MAKE_S * step / _STEPS - time.time()))
            tick("denoise", step, _STEPS)
        image = self.photos[request.seed % len(self.photos)].copy()
        tick("decode", 0, 0)
        self.spans.append((started, time.time()))
        return Made(image=image, model={"device": "none"}, timings={"denoise": MAKE_S})

    def ask(self, question: Question, tick: Tick) -> Answer:
        raise NotImplementedError

    def close(self) -> None:
        pass


def metric(bench: Bench) -> Iterator[Finding]:
    """The daemon against a loop that makes a picture, then saves it; and against the limit of doing both at once."""
    jobs, rounds = bench.size(100, 8), bench.size(5, 1)
    photos = [photo(seed, _SIDE) for seed in range(bench.size(8, 2))]
    gaps: list[tuple[float, float]] = []

    def ours() -> tuple[float, float]:
        with bench.folder() as folder:
            taken = served(folder, photos, jobs)
            gaps.append((median(taken.gaps_s), flush_s(folder)))
            return taken.picture_s, taken.make_s

    def theirs() -> tuple[float, float]:
        with bench.folder() as folder:
            return bare_loop(folder, photos, jobs)

    pairs = in_turns(ours, theirs, rounds)
    limits = [bare_s / make_s for _, (bare_s, make_s) in pairs]
    speeds = [(1 / our_s, 1 / bare_s) for (our_s, _), (bare_s, _) in pairs]
    yield Finding(
        metric="pictures a second, of the overlap limit",
        against="a make-then-save loop, times (make + host) / make",
        unit="pictures/s",
        target=at_least(0.98),
        disk=bench.disk,
        size=jobs,
        pairs=Pairs(
            ours=[ours for ours, _ in speeds],
            theirs=[bare * limit for (_, bare), limit in zip(speeds, limits, strict=True)],
            values=[ours / (bare * limit) for (ours, bare), limit in zip(speeds, limits, strict=True)],
        ),
        counts={
            "limit": round(median(limits), 4),
            "times_the_bare_loop": round(median(ours / bare for ours, bare in speeds), 4),
            "make_s": round(fmean(make_s for _, (_, make_s) in pairs), 4),
            "host_s": round(fmean(bare_s - make_s for _, (bare_s, make_s) in pairs), 4),
        },
    )
    yield Finding(
        metric="gap between two jobs on the worker",
        against="one line written and flushed on the same disk",
        unit="s",
        disk=bench.disk,
        size=jobs,
        pairs=ratios(gaps),
    )


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a run of the daemon took."""

    #: From the first picture's begin to the last one's job being completed, by picture.
    picture_s: float
    #: The engine's own part of it.
    make_s: float
    #: From the end of each picture to the begin of the next, which is another job's.
    gaps_s: list[float]


def served(folder: Path, photos: list[Image.Image], jobs: int) -> Taken:
    """Drop jobs of one picture each, and run the daemon until all are completed."""
    workspace = Workspace(folder / "work")
    for number in range(jobs):
        text = f'prompt = "a mug"\nseed = {number}\nsteps = {_STEPS}\nwidth = {_SIDE}\nheight = {_SIDE}\n'
        workspace.drop(f"mug-{number:04d}.toml", text)
    engine = SleepingEngine(photos)
    drain(workspace, engine)
    statuses = [workspace.outputs / job / "status.toml" for job in workspace.jobs()]
    states = {workspace.state(job) for job in workspace.jobs()}
    if len(statuses) != jobs or states != {"completed"}:
        raise RuntimeError(f"{len(statuses)} of {jobs} jobs, {states}")
    ended = max(path.stat().st_mtime_ns for path in statuses) / 1e9
    return Taken(
        picture_s=(ended - engine.spans[0][0]) / jobs,
        make_s=fmean(end - begin for begin, end in engine.spans),
        gaps_s=[after[0] - before[1] for before, after in pairwise(engine.spans)],
    )


def bare_loop(folder: Path, photos: list[Image.Image], pictures: int) -> tuple[float, float]:
    """Make, then save, each as durably as a finished picture is; return seconds a picture, all in all and to make."""
    engine = SleepingEngine(photos)
    request = Request(
        kind="text2img",
        preset="none",
        model=Model(repo="none"),
        prompt="a mug",
        seed=0,
        width=_SIDE,
        height=_SIDE,
        steps=_STEPS,
    )
    started = time.time()
    for number in range(pictures):
        made = engine.make(request, no_tick)
        buffer = io.BytesIO()
        made.image.save(buffer, "PNG", **_PNG)
        durable.write(folder / f"mug-{number:04d}.png", buffer.getvalue())
        durable.sync_folder(folder)
    return (time.time() - started) / pictures, fmean(end - begin for begin, end in engine.spans)


def flush_s(folder: Path) -> float:
    """Time what one line of a journal costs on this disk: the median of a few."""
    path = folder / "journal.jsonl"
    path.touch()
    taken = []
    for _ in range(_FLUSHES):
        started = time.perf_counter()
        durable.append(path, b"x" * 200 + b"\n")
        taken.append(time.perf_counter() - started)
    return percentile(taken, 50)
