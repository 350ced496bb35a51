"""Edges of a picture, by J. Canny's method: "A computational approach to edge detection", 1986.

Strength is |x| + |y| of the Sobel gradient, in the units in which OpenCV's Canny takes its two thresholds.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hotfolder.stages import regions

Pixels = NDArray[np.int32]
#: 5x5, sigma 1: the binomial weights, in each direction.
_GAUSS: Final = (1, 4, 6, 4, 1)
#: All is counted in whole numbers, so that every machine finds the same edges: one step of 8 bit is this many.
_UNIT: Final = sum(_GAUSS) ** 2
#: Pixels around a place that decide on it: two of smoothing, one of the gradient, one of its neighbours.
_HALO: Final = 4
#: Rows worked on at once, so that a large picture takes little memory and can be stopped.
_ROWS: Final = 512


def find_edges(grey: Image.Image, low: int, high: int, between: Callable[[], None] = lambda: None) -> NDArray[np.bool_]:
    """Return (h, w): where edges are, one pixel wide.

    Args:
        grey: L.
        low: an edge weaker than this is none; between both it is one where it hangs on a stronger one.
        high: an edge stronger than this always is one. The two may be swapped.
        between: called before each part of the work.
    """
    low, high = sorted((low, high))
    pixels = np.pad(np.asarray(grey), _HALO, mode="edge")
    edges, strong = np.zeros((2, grey.height, grey.width), dtype=np.bool_)
    for top in range(0, grey.height, _ROWS):
        between()
        across, down = _gradients(_smoothed(pixels[top : top + _ROWS + 2 * _HALO].astype(np.int32)))
        strength = np.abs(across) + np.abs(down)
        ridges, inner = _ridges(strength, across, down), strength[1:-1, 1:-1]
        edges[top : top + _ROWS] = ridges & (inner > low * _UNIT)
        strong[top : top + _ROWS] = ridges & (inner > high * _UNIT)
    between()
    return _held(edges, strong)


# Each of the next three gives back less than it is given: of (h + 8, w + 8) at last (h, w) is left.


def _smoothed(grey: Pixels) -> Pixels:
    height, width = grey.shape[0] - 4, grey.shape[1] - 4
    rows = np.zeros((height, width + 4), dtype=np.int32)
    smooth = np.zeros((height, width), dtype=np.int32)
    for at, weight in enumerate(_GAUSS):
        rows += weight * grey[at : at + height]
    for at, weight in enumerate(_GAUSS):
        smooth += weight * rows[:, at : at + width]
    return smooth


def _gradients(smooth: Pixels) -> tuple[Pixels, Pixels]:
    """Sobel, to the right and down."""
    rows = smooth[:-2] + 2 * smooth[1:-1] + smooth[2:]
    columns = smooth[:, :-2] + 2 * smooth[:, 1:-1] + smooth[:, 2:]
    return rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]


def _ridges(strength: Pixels, across: Pixels, down: Pixels) -> NDArray[np.bool_]:
    """Return where an edge is stronger than beside it, in the one of four directions in which it is crossed."""
    height, width = strength.shape[0] - 2, strength.shape[1] - 2
    middle, across, down = strength[1:-1, 1:-1], across[1:-1, 1:-1], down[1:-1, 1:-1]

    def shifted(right: int, below: int) -> Pixels:
        return strength[1 + below : 1 + below + height, 1 + right : 1 + right + width]

    def ridge(right: int, below: int) -> NDArray[np.bool_]:
        # Not alike: of two neighbours that are equally strong one must stay.
        return (middle > shifted(-right, -below)) & (middle >= shifted(right, below))

    # 29/70 is the tangent of 22.5 degrees.
    level = np.abs(down) * 70 < np.abs(across) * 29
    upright = np.abs(across) * 70 < np.abs(down) * 29
    falling = (across > 0) == (down > 0)
    return np.select([level, upright, falling], [ridge(1, 0), ridge(0, 1), ridge(1, 1)], default=ridge(-1, 1))


def _held(edges: NDArray[np.bool_], strong: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the edges that hang together with a strong part of one."""
    labels = regions.label(edges)
    kept = np.zeros(labels.max(initial=0) + 1, dtype=np.bool_)
    kept[labels[strong]] = True
    kept[0] = False
    return np.asarray(kept[labels])
