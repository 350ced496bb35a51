"""rotate: the picture turned clockwise."""

import math
from collections.abc import Mapping
from typing import Final, Literal

from PIL import Image

from hotfolder.stagekeys import Rotate
from hotfolder.stages.canvas import check_size, ground
from hotfolder.stages.each import each
from hotfolder.stages.work import Call, Outcome, Stage, Work

#: Pillow counts the other way round.
_QUARTERS: Final[Mapping[float, Image.Transpose]] = {
    90.0: Image.Transpose.ROTATE_270,
    180.0: Image.Transpose.ROTATE_180,
    270.0: Image.Transpose.ROTATE_90,
}
#: Pixels around the picture that bicubic reads.
_RIM: Final = 2
#: Pixels that the sums below may be off, and must not grow the picture by.
_ROUNDING: Final = 1e-6


def _run(work: Work, call: Call) -> Outcome:
    keys: Rotate = call.keys
    return Outcome(work=Work(pictures=each(work, call, "rotate", lambda picture: _rotated(picture, keys))))


def _rotated(picture: Image.Image, keys: Rotate) -> Image.Image:
    degrees = keys.degrees % 360
    if degrees == 0:
        return picture
    if degrees in _QUARTERS:
        return picture.transpose(_QUARTERS[degrees])
    return _turned(picture, math.radians(degrees), keys.color)


def _turned(picture: Image.Image, angle: float, colour: str) -> Image.Image:
    """Turn by any angle, in a picture that is just large enough; its edges pass softly into the colour."""
    cos, sin = math.cos(angle), math.sin(angle)
    width, height = picture.size
    size = (
        math.ceil(width * abs(cos) + height * abs(sin) - _ROUNDING),
        math.ceil(width * abs(sin) + height * abs(cos) - _ROUNDING),
    )
    check_size(size, "rotate")
    corners = ground(size, colour, picture)
    # Premultiplied, so that what is transparent does not bleed into what is not.
    mode = "RGBa" if corners.mode == "RGBA" else "RGB"
    given = picture.convert(corners.mode).convert(mode)
    # A pixel of the result comes from here in the picture: turned back around both centres; the rim moves it.
    across = width / 2 - (cos * size[0] + sin * size[1]) / 2 + _RIM
    down = height / 2 - (cos * size[1] - sin * size[0]) / 2 + _RIM
    way = (cos, sin, across, -sin, cos, down)
    turned = _rimmed(given, "edge").transform(size, Image.Transform.AFFINE, way, Image.Resampling.BICUBIC)
    whole = _rimmed(Image.new("L", picture.size, "white"), "constant")
    covered = whole.transform(size, Image.Transform.AFFINE, way, Image.Resampling.BILINEAR)
    return Image.composite(turned, corners.convert(mode), covered).convert(corners.mode)


def _rimmed(picture: Image.Image, fill: Literal["edge", "constant"]) -> Image.Image:
    """Add a rim that repeats the outermost pixels, or is black: without one, Pillow cuts turned edges off in steps."""
    import numpy as np  # large, and seldom needed

    pixels = np.asarray(picture)
    padded = np.pad(pixels, [(_RIM, _RIM), (_RIM, _RIM), (0, 0)][: pixels.ndim], mode=fill)
    return Image.frombytes(picture.mode, (picture.width + 2 * _RIM, picture.height + 2 * _RIM), padded.tobytes())


STAGE: Final = Stage(version=1, run=_run)
