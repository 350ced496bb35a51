"""How much a job is: its items, candidates and pictures, about how long it takes, and about how many bytes it makes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hotfolder import tomltext
from hotfolder.front.jobs import ENDS
from hotfolder.names import split_take
from hotfolder.plan import Item, Plan
from hotfolder.stagekeys import Export, Generating, Hires, Resize, Select, Upscale, Variants

#: Jobs that ended last, whose pace and sizes are looked at.
_LOOKED_AT: Final = 100
#: Their pictures that are looked at, of each.
_PICTURES_OF_EACH: Final = 20
#: Items that are looked at one by one, where they differ in more than words.
_ITEMS: Final = 20_000
#: Of a picture, where none was made before: about half of what its three channels hold.
_BYTES_A_PIXEL: Final = 1.5
#: Axes that change neither how many pictures there are, nor how large they are, nor who makes them.
_ONLY_WORDS: Final = frozenset({"prompt", "negative_prompt", "seed", "guidance", "strength", "mask"})
_SUFFIXES: Final = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "avif": ".avif"}

#: A folder of an ended job, and its status file.
_Ended = tuple[Path, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How much a job is."""

    items: int
    candidates: int
    #: Files that it ends with: of the candidates that are chosen, in each variant.
    pictures: int
    #: None: nothing like it was made here before.
    seconds: float | None
    #: None: there is nothing to tell it from.
    bytes: int | None


@dataclass(frozen=True, kw_only=True)
class _Flow:
    """What one item is."""

    preset: str | None
    #: (id, candidates that go through it, whether it needs the GPU) of each stage.
    stages: Sequence[tuple[str, int, bool]]
    pictures: int
    #: Of one finished picture; None where only its source would tell.
    pixels: float | None


def of(plan: Plan, outputs: Path) -> Estimate:
    """Say how much a job is, by what stands in `outputs` of those before it."""
    varies = {key for axis in plan.axes for key in axis.keys} - _ONLY_WORDS
    looked_at = min(plan.items, _ITEMS) if varies else 1
    flows = [_flow(plan, plan.item(number)) for number in range(1, looked_at + 1)]
    times = plan.items / looked_at
    ended = list(_ended(outputs))
    return Estimate(
        items=plan.items,
        candidates=plan.candidates,
        pictures=round(times * sum(flow.pictures for flow in flows)),
        seconds=_seconds(plan, flows, ended, times),
        bytes=_bytes(plan, flows, ended, times),
    )


def _flow(plan: Plan, item: Item) -> _Flow:
    """Follow the candidates of an item through the stages: `generate` makes more of them, `select` fewer."""
    standing, variants = 0, 1
    stages: list[tuple[str, int, bool]] = []
    pixels: float | None = None
    for number, stage in enumerate(plan.stages, 1):
        keys = item.keys(number)
        begin = [row for row in plan.rows if row.begins == number]
        from_others = [row for row in begin if row.parent is not None]
        a_parent = len(from_others) / len({row.parent for row in from_others}) if from_others else 0
        made = round(standing * a_parent) + len(begin) - len(from_others)
        adds = bool(stage.keys.get("add")) and stage.stage == "generate"
        through = made if adds and standing else standing + made
        standing += made
        match keys:
            case Select():
                standing = through = min(standing, keys.keep)
            case Variants():
                variants = len(keys.aspects)
            case Upscale() | Hires():
                pixels = pixels and pixels * keys.factor**2
            case Resize() if keys.width and keys.height:
                pixels = keys.width * keys.height
            case Generating():
                told = item.generation(number)
                pixels = told.width * told.height if told.width and told.height else pixels
            case _:
                pass
        stages.append((stage.id, through, item.lane(number) == "gpu"))
    preset = item.said.get("preset") or plan.preset
    return _Flow(preset=preset, stages=stages, pictures=standing * variants, pixels=pixels)


def _seconds(plan: Plan, flows: Sequence[_Flow], ended: Sequence[_Ended], times: float) -> float | None:
    """Add up the stages, by the pace of jobs with the same preset; None where one on the GPU was never run by it."""
    paces = {preset: _pace(_alike(plan, preset, ended)) for preset in {flow.preset for flow in flows}}
    total = 0.0
    for flow in flows:
        pace = paces[flow.preset]
        if not pace:
            return None
        for name, through, gpu in flow.stages:
            if gpu and name not in pace:
                return None
            total += through * pace.get(name, 0.0)
    return times * total


def _pace(ended: Sequence[_Ended]) -> dict[str, float]:
    """Return the seconds of one cell, by the name of its stage."""
    seconds: dict[str, float] = {}
    done: dict[str, int] = {}
    for _, table in ended:
        for row in table.get("stages", ()):
            with suppress(KeyError, TypeError, ValueError):
                name = str(row["name"])
                seconds[name] = seconds.get(name, 0.0) + float(row["seconds"])
                done[name] = done.get(name, 0) + int(row["done"])
    return {name: seconds[name] / done[name] for name in seconds if done.get(name)}


def _bytes(plan: Plan, flows: Sequence[_Flow], ended: Sequence[_Ended], times: float) -> int | None:
    """Tell the size of a picture from those made by the same preset and pipeline, else from its pixels."""
    last = plan.item(1).keys(len(plan.stages))
    suffix = _SUFFIXES[last.format] if isinstance(last, Export) else ".png"
    sizes: dict[str | None, float | None] = {}
    for preset in {flow.preset for flow in flows}:
        alike = [one for one in _alike(plan, preset, ended) if one[1].get("pipeline") == plan.pipeline]
        sizes[preset] = _mean([size for one in alike for size in _sizes(one, suffix)])
    total = 0.0
    for flow in flows:
        one = sizes[flow.preset] or (flow.pixels and flow.pixels * _BYTES_A_PIXEL)
        if one is None:
            return None
        total += flow.pictures * one
    return round(times * total)


def _sizes(ended: _Ended, suffix: str) -> Iterator[int]:
    folder, table = ended
    for output in table.get("outputs", ())[:_PICTURES_OF_EACH]:
        file = str(output.get("file", ""))
        if file.endswith(suffix):
            with suppress(OSError):
                yield (folder / file).stat().st_size


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None


def _alike(plan: Plan, preset: str | None, ended: Sequence[_Ended]) -> list[_Ended]:
    """Return the jobs with the same preset; where no model is needed, those of the same pipeline."""
    return [
        one
        for one in ended
        if one[1].get("preset") == preset and (preset is not None or one[1].get("pipeline") == plan.pipeline)
    ]


def _ended(outputs: Path) -> Iterator[_Ended]:
    """Yield the jobs that ended last, newest first."""
    try:
        takes = [path for path in outputs.iterdir() if split_take(path.name)]
    except OSError:
        return
    changed: list[tuple[float, Path]] = []
    for path in takes:
        with suppress(OSError):
            changed.append((path.stat().st_mtime, path))
    for _, path in sorted(changed, reverse=True)[:_LOOKED_AT]:
        with suppress(OSError, ValueError):
            table = tomltext.load((path / "status.toml").read_bytes())
            if table.get("state") in ENDS:
                yield path, table
