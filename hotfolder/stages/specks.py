"""Specks and noise, taken out of a picture."""

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: How far a single pixel must stand out from all around it, of 255, to be a speck.
_SPECK: Final = 24
#: Pixels that denoising looks at in each direction, and the weight of the distance to them.
_REACH: Final = 2
_SIGMA: Final = 1.5
#: How far colours may lie apart and still be mixed, of 255, at denoise = 1.
_MIXED: Final = 60.0
#: Rows worked on at once, so that a large picture takes little memory and can be stopped.
_ROWS: Final = 256

_Number = TypeVar("_Number", np.int16, np.float32)


def despeckled(picture: Image.Image, between: Callable[[], None]) -> Image.Image:
    """Return an RGB picture without its specks.

    Args:
        between: called before each part of the work.
    """
    return _in_bands(picture, 1, _despeckled, between)


def denoised(picture: Image.Image, amount: float, between: Callable[[], None]) -> Image.Image:
    """Return an RGB picture with less noise.

    Args:
        amount: 0 to 1.
        between: called before each part of the work.
    """
    return _in_bands(picture, _REACH, lambda band: _denoised(band, amount), between)


def _in_bands(
    picture: Image.Image,
    reach: int,
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    between: Callable[[], None],
) -> Image.Image:
    """Change some rows at a time.

    Args:
        change: given (h + 2 reach, w + 2 reach, 3), returns (h, w, 3).
    """
    padded = np.pad(np.asarray(picture), ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    made = []
    for top in range(0, picture.height, _ROWS):
        between()
        made.append(change(padded[top : top + _ROWS + 2 * reach]))
    return Image.fromarray(np.concatenate(made))


def _despeckled(band: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Replace pixels that are lighter or darker than all eight around them by the median of the nine."""
    signed = band.astype(np.int16)
    around = list(_shifted(signed, 1))
    middle = signed[1:-1, 1:-1]
    lighter = middle > np.maximum.reduce(around) + _SPECK
    darker = middle < np.minimum.reduce(around) - _SPECK
    rows, columns = np.nonzero((lighter | darker).any(axis=-1))
    made = band[1:-1, 1:-1].copy()
    nine = [band[rows + below, columns + right] for below in range(3) for right in range(3)]
    made[rows, columns] = np.median(nine, axis=0).astype(np.uint8)
    return made


def _denoised(band: NDArray[np.uint8], amount: float) -> NDArray[np.uint8]:
    """Mix each pixel with those that are near in place and in colour.

    Source: the bilateral filter of C. Tomasi and R. Manduchi, 1998.
    """
    colours = band.astype(np.float32)
    middle = colours[_REACH:-_REACH, _REACH:-_REACH]
    total, weights = middle.copy(), np.ones((*middle.shape[:2], 1), dtype=np.float32)
    # Of three colours, hence the 3.
    sharpness = np.float32(-1 / (2 * 3 * max(1.0, amount * _MIXED) ** 2))
    for around, near in zip(_shifted(colours, _REACH), _nearness(), strict=True):
        weight = near * np.exp(np.square(around - middle).sum(axis=-1, keepdims=True) * sharpness)
        total += weight * around
        weights += weight
    return (total / weights + 0.5).astype(np.uint8)


def _nearness() -> Iterator[np.float32]:
    for below, right in _places(_REACH):
        yield np.float32(np.exp(-(below**2 + right**2) / (2 * _SIGMA**2)))


def _shifted(padded: NDArray[_Number], reach: int) -> Iterator[NDArray[_Number]]:
    """Yield what lies at each place around the pixels of a padded picture."""
    height, width = padded.shape[0] - 2 * reach, padded.shape[1] - 2 * reach
    for below, right in _places(reach):
        yield padded[reach + below : reach + below + height, reach + right : reach + right + width]


def _places(reach: int) -> Iterator[tuple[int, int]]:
    """Yield down and right of all places around one, without itself."""
    steps = range(-reach, reach + 1)
    yield from ((below, right) for below in steps for right in steps if below or right)
