"""The size of a picture: from what is asked for, the picture it is to be like, and what its preset makes."""

import math
from collections.abc import Sequence
from typing import Final

from hotfolder.presets import SIZE_STEP

_SMALLEST_SIDE: Final = 16
_LARGEST_SIDE: Final = 8192


def of_aspect(aspect: str, default: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a shape such as "16:9" with about as many pixels as `default` has."""
    across, down = map(int, aspect.split(":"))
    side = math.sqrt(default[0] * default[1] / (across * down))
    return _nearest(across * side), _nearest(down * side)


def of_side(width: int | None, height: int | None, like: tuple[int, int]) -> tuple[int, int]:
    """Return the size of which one side is told, and the other follows the shape of a picture."""
    across, down = _shaped(width, height, like)
    return _nearest(across), _nearest(down)


def decide(
    width: int | None,
    height: int | None,
    like: tuple[int, int] | None,
    default: tuple[int, int],
    *,
    only: Sequence[str] | None,
    notices: list[str],
) -> tuple[int, int]:
    """Decide the size of a picture.

    Args:
        width: as asked for, in pixels; None where nobody did. So is `height`.
        like: the size of the picture that it is to be like, where there is one.
        default: the preset's own size.
        only: the only sizes that the preset makes, such as "128x128"; None: any.
        notices: takes what is done otherwise than asked.

    Returns: width and height, multiples of `SIZE_STEP`.
    """
    if like is None or (width and height):
        wanted = width or default[0], height or default[1]
        size = _nearest(wanted[0]), _nearest(wanted[1])
    elif width or height:
        wanted = _shaped(width, height, like)
        size = _nearest(wanted[0]), _nearest(wanted[1])
    else:
        wanted = like
        size = _like(*wanted, default[0] * default[1])
    why = f"sides are multiples of {SIZE_STEP}, up to {_LARGEST_SIDE}"
    if only:
        size = _nearest_of(only, wanted)
        why = f"the preset makes {' and '.join(only)} only"
    elif size[0] <= wanted[0] - SIZE_STEP:
        why = "its picture is larger than the preset makes; set width or height to have it otherwise"
    if size != wanted:
        text = f"made at {size[0]}x{size[1]} instead of {wanted[0]}x{wanted[1]}: {why}"
        if text not in notices:
            notices.append(text)
    return size


def _shaped(width: int | None, height: int | None, like: tuple[int, int]) -> tuple[int, int]:
    scale = width / like[0] if width else (height or 0) / like[1]
    return width or round(like[0] * scale), height or round(like[1] * scale)


def _nearest_of(sizes: Sequence[str], wanted: tuple[int, int]) -> tuple[int, int]:
    """Return the size whose shape is the most alike, and of these the one whose area is."""

    def apart(size: tuple[int, int]) -> tuple[float, float]:
        across, down = (math.log(has / wants) for has, wants in zip(size, wanted, strict=True))
        return round(abs(across - down), 3), abs(across + down)

    known = [(int(width), int(height)) for width, height in (size.split("x") for size in sizes)]
    return min(known, key=apart)


def _like(width: int, height: int, area: int) -> tuple[int, int]:
    """Return the size for a source: its own, or its shape at `area` pixels if it has more.

    Its own sides are rounded down, so that a source has only to be cropped by a few pixels, not scaled. One that is
    scaled anyway keeps its shape as far as multiples of 16 can, with no more pixels than asked for.
    """
    scale = min(1.0, math.sqrt(area / (width * height)))
    if scale < 1:
        nearest = _nearest(width * scale), _nearest(height * scale)
        if nearest[0] * nearest[1] <= area:
            return nearest
    across, down = (_within(int(side * scale) // SIZE_STEP * SIZE_STEP) for side in (width, height))
    return across, down


def _nearest(side: float) -> int:
    return _within(round(side / SIZE_STEP) * SIZE_STEP)


def _within(side: int) -> int:
    return min(_LARGEST_SIDE, max(_SMALLEST_SIDE, side))
