"""upscale: the picture larger, by Lanczos, or by a model tile after tile."""

import math
from collections.abc import Sequence
from typing import Final

from PIL import Image

from hotfolder.stagekeys import Upscale
from hotfolder.stages.asking import ask, image_of
from hotfolder.stages.canvas import check_size
from hotfolder.stages.each import each
from hotfolder.stages.work import Call, Outcome, Stage, Work

#: Pixels of a side of what the model is given at once, at most.
TILE: Final = 512
#: Pixels that two tiles share, at least: over them one passes into the other.
OVERLAP: Final = 32

#: From and to, in pixels.
Span = tuple[int, int]


def _run(work: Work, call: Call) -> Outcome:
    keys: Upscale = call.keys
    told = _Told()

    def change(picture: Image.Image) -> Image.Image:
        size = round(picture.width * keys.factor), round(picture.height * keys.factor)
        check_size(size, f"factor = {keys.factor}")
        enlarged = _by_model(picture, call, told) if keys.helper else picture
        if keys.helper and enlarged.width < size[0]:
            step = enlarged.width / picture.width
            told.notices.append(f"{keys.by} enlarges {step:g} times; the rest was done by Lanczos")
        return enlarged.resize(size, Image.Resampling.LANCZOS)

    pictures = each(work, call, "upscale", change)
    notices = tuple(dict.fromkeys(told.notices))
    return Outcome(work=Work(pictures=pictures), model=told.model, timings=told.timings, notices=notices)


class _Told:
    """What the model said beside its pictures, over all tiles."""

    def __init__(self) -> None:
        self.model: dict[str, str] = {}
        self.timings: dict[str, float] = {}
        self.notices: list[str] = []


def _by_model(picture: Image.Image, call: Call, told: _Told) -> Image.Image:
    """Return the picture as much larger as the model makes it; its alpha by Lanczos."""
    rows, columns = _spans(picture.height), _spans(picture.width)
    count, scale = len(rows) * len(columns), 0
    strips: list[Image.Image] = []
    for top, bottom in rows:
        tiles: list[Image.Image] = []
        for left, right in columns:
            call.tick("upscale", len(strips) * len(columns) + len(tiles), count)
            tile = _tile(picture.crop((left, top, right, bottom)), call, told)
            scale = tile.width // (right - left)
            if tile.size != ((right - left) * scale, (bottom - top) * scale):
                raise RuntimeError(f"the model made {tile.size} of {right - left}x{bottom - top} pixels")
            check_size((picture.width * scale, picture.height * scale), f"by = {call.keys.by!r}")
            tiles.append(tile)
        strips.append(_joined(tiles, columns, scale, sideways=True))
    call.tick("upscale", count, count)
    made = _joined(strips, rows, scale, sideways=False)
    if picture.mode == "RGBA":
        made.putalpha(picture.getchannel("A").resize(made.size, Image.Resampling.LANCZOS))
    return made


def _tile(tile: Image.Image, call: Call, told: _Told) -> Image.Image:
    # Its colour alone: transparency laid over white would show as a pale rim.
    answer = ask(call, [tile.convert("RGB")])
    told.model |= answer.model
    told.notices += answer.notices
    for phase, seconds in answer.timings.items():
        told.timings[phase] = told.timings.get(phase, 0.0) + seconds
    return image_of(answer)


def _spans(length: int) -> list[Span]:
    """Cut a side into spans of one length, which overlap by at least `OVERLAP`."""
    count = max(1, math.ceil((length - OVERLAP) / (TILE - OVERLAP)))
    span = math.ceil((length + (count - 1) * OVERLAP) / count)
    starts = [(length - span) * number // max(1, count - 1) for number in range(count)]
    return [(start, start + span) for start in starts]


def _joined(parts: Sequence[Image.Image], spans: Sequence[Span], scale: int, *, sideways: bool) -> Image.Image:
    """Lay parts beside each other, or below; where two overlap, the first passes evenly into the second."""
    first, length = parts[0], spans[-1][1] * scale
    made = Image.new("RGB", (length, first.height) if sideways else (first.width, length))
    made.paste(first, (0, 0))
    for number in range(1, len(parts)):
        part, start = parts[number], spans[number][0] * scale
        shared = spans[number - 1][1] * scale - start
        made.paste(part, (start, 0) if sideways else (0, start), _ramp(part.size, shared, sideways=sideways))
    return made


def _ramp(size: Span, shared: int, *, sideways: bool) -> Image.Image:
    """Return the weight of a part: L, from black to white over the pixels that it shares, then white."""
    import numpy as np  # large, and seldom needed

    length = size[0] if sideways else size[1]
    weights = np.clip((np.arange(length) + 0.5) / shared, 0.0, 1.0) * 255.0
    line = Image.fromarray(weights.round().astype(np.uint8)[None, :])
    return (line if sideways else line.transpose(Image.Transpose.ROTATE_270)).resize(size, Image.Resampling.NEAREST)


STAGE: Final = Stage(version=1, run=_run)
