"""detail: repaints each thing that was found at full resolution, and puts it back with a soft edge."""

from collections import Counter
from dataclasses import replace
from typing import Final

from PIL import Image

from hotfolder.engine import Box, Made
from hotfolder.plan import Generation
from hotfolder.stages.repaint import repaint, side_near
from hotfolder.stages.work import Call, Outcome, Stage, Work

#: Pixels that models make, where the preset does not say.
_USUAL_AREA: Final = 1024 * 1024
#: A thing is not scaled up further: there is nothing in it for a model to go by.
_LARGEST_SCALE: Final = 4.0


def _run(work: Work, call: Call) -> Outcome:
    found = [box for box in work.boxes if call.keys.label is None or _same(box.label, call.keys.label)]
    found.sort(key=lambda box: box.width * box.height, reverse=True)
    call.tick("region", 0, len(found))
    if not found:
        what = f"no {call.keys.label!r}" if call.keys.label else "nothing"
        return Outcome(work=work, notices=(f"{what} was found in the picture: it is as it was",))
    picture, parts = work.picture, []
    for index, box in enumerate(found):
        picture, made = _repainted(picture, box, index, work, call)
        parts.append(made)
        call.tick("region", index + 1, len(found))
    seconds: Counter[str] = Counter()
    for made in parts:
        seconds.update(made.timings)
    return Outcome(
        work=replace(work, pictures={"": picture}),
        model=parts[-1].model,
        timings=dict(seconds),
        notices=tuple(dict.fromkeys(notice for made in parts for notice in made.notices)),
        facts={"regions": [[box.left, box.top, box.right, box.bottom] for box in found]},
    )


def _same(label: str, other: str) -> bool:
    return label.strip().casefold() == other.strip().casefold()


def _repainted(picture: Image.Image, box: Box, index: int, work: Work, call: Call) -> tuple[Image.Image, Made]:
    """Return the picture with one thing repainted, and what was made for it."""
    inner = _grown(box, call.keys.padding, picture.size)
    outer = _grown(inner, call.keys.feather, picture.size)
    place = (outer.left, outer.top, outer.right, outer.bottom)
    region = picture.crop(place)
    scale = _scale(region, call.generation)
    size = (side_near(region.width * scale), side_near(region.height * scale))
    # Things beside each other are not repainted with the same noise.
    made = repaint(call, work, region.resize(size, Image.Resampling.LANCZOS), seed=call.seed + index)
    back = made.image.convert(picture.mode).resize(region.size, Image.Resampling.LANCZOS)
    whole = picture.copy()
    whole.paste(Image.composite(back, region, _soft(inner, outer)), place)
    return whole, made


def _grown(box: Box, by: int, size: tuple[int, int]) -> Box:
    """Return the box with so many pixels more on each side, inside the picture."""
    return replace(
        box,
        left=max(box.left - by, 0),
        top=max(box.top - by, 0),
        right=min(box.right + by, size[0]),
        bottom=min(box.bottom + by, size[1]),
    )


def _scale(region: Image.Image, told: Generation | None) -> float:
    """Return how much a region is scaled up, so that it has as many pixels as the model makes; never down."""
    area = told.width * told.height if told and told.width and told.height else _USUAL_AREA
    return float(min(max((area / (region.width * region.height)) ** 0.5, 1.0), _LARGEST_SCALE))


def _soft(inner: Box, outer: Box) -> Image.Image:
    """Return a mask (L) of `outer`: white in `inner`, passing to black at its own edges, not at the picture's."""
    import numpy as np  # large, and seldom needed

    def ramp(rise: int, level: int, fall: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        up = (np.arange(rise) + 0.5) / max(rise, 1)
        down = (np.arange(fall)[::-1] + 0.5) / max(fall, 1)
        return np.concatenate([up, np.ones(level), down])

    across = ramp(inner.left - outer.left, inner.width, outer.right - inner.right)
    down = ramp(inner.top - outer.top, inner.height, outer.bottom - inner.bottom)
    return Image.fromarray(np.rint(np.outer(down, across) * 255).astype(np.uint8))


STAGE: Final = Stage(version=1, run=_run)
