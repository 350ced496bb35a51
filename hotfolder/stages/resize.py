"""resize: the picture in another size."""

from typing import Final, assert_never

from PIL import Image

from hotfolder.stagekeys import Resize
from hotfolder.stages.canvas import check_size, ground
from hotfolder.stages.each import each
from hotfolder.stages.work import Call, Outcome, Stage, Work


def _run(work: Work, call: Call) -> Outcome:
    keys: Resize = call.keys
    return Outcome(work=Work(pictures=each(work, call, "resize", lambda picture: _resized(picture, keys))))


def _resized(picture: Image.Image, keys: Resize) -> Image.Image:
    size = _size(picture, keys)
    check_size(size, "resize")
    if keys.width is None or keys.height is None or keys.fit == "stretch":
        return picture.resize(size, Image.Resampling.LANCZOS)
    match keys.fit:
        case "cover":
            return picture.resize(size, Image.Resampling.LANCZOS, box=_centre(picture, size))
        case "contain":
            return _on_bars(picture, size, keys.color)
    assert_never(keys.fit)


def _size(picture: Image.Image, keys: Resize) -> tuple[int, int]:
    """Return the size to make; a side that is not said follows from the other."""
    width, height = keys.width, keys.height
    if width is None:
        width = max(1, round(picture.width * (height or 1) / picture.height))
    if height is None:
        height = max(1, round(picture.height * width / picture.width))
    return width, height


def _centre(picture: Image.Image, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the largest part of a shape, to fractions of a pixel, so that nothing is distorted."""
    scale = min(picture.width / size[0], picture.height / size[1])
    across, down = min(picture.width, size[0] * scale), min(picture.height, size[1] * scale)
    left, top = (picture.width - across) / 2, (picture.height - down) / 2
    return left, top, left + across, top + down


def _on_bars(picture: Image.Image, size: tuple[int, int], colour: str) -> Image.Image:
    scale = min(size[0] / picture.width, size[1] / picture.height)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    made = ground(size, colour, picture)
    inner = picture.resize((width, height), Image.Resampling.LANCZOS).convert(made.mode)
    made.paste(inner, ((size[0] - width) // 2, (size[1] - height) // 2))
    return made


STAGE: Final = Stage(version=1, run=_run)
