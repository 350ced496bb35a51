"""The largest thing that stands out in a picture, found without a model.

The border is taken for the background: what has a colour that is far from those of the sides stands out. Works for a
thing before a plain, graded or softly structured ground; it knows nothing of what the thing is.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from hotfolder.engine import Box
from hotfolder.stages import regions

#: Pixels of the long side of the copy that is looked at.
_SIDE: Final = 256
#: Colours that a side of the picture is described with.
_COLOURS: Final = 6
#: How far thing and ground must lie apart, of 255: less is noise and soft light.
_MIN_CONTRAST: Final = 20.0
#: Two parts with less than this many pixels of the copy between them are one thing: the letters of a word, say.
_GAP: Final = 9
#: A region of less than this share of the picture is a speck.
_MIN_AREA: Final = 0.001


def find_subject(picture: Image.Image, label: str = "subject") -> Box | None:
    """Return where it is; None where nothing stands out."""
    small = _small(picture)
    apart = _distance_from_border(_features(small))
    level = _otsu(apart)
    thing = apart > level
    if not thing.any() or thing.all() or apart[thing].mean() - apart[~thing].mean() < _MIN_CONTRAST:
        return None
    thing = _largest(_filtered(thing, ImageFilter.MedianFilter(3)))
    if not thing.any():
        return None
    rows, columns = np.flatnonzero(thing.any(axis=1)), np.flatnonzero(thing.any(axis=0))
    across, down = picture.width / small.width, picture.height / small.height
    return Box(
        left=int(columns[0] * across),
        top=int(rows[0] * down),
        right=min(picture.width, int(np.ceil((columns[-1] + 1) * across))),
        bottom=min(picture.height, int(np.ceil((rows[-1] + 1) * down))),
        label=label,
        score=round(min(1.0, float(apart[thing].mean()) / 255.0), 4),
    )


def _small(picture: Image.Image) -> Image.Image:
    """Return a small copy without grain."""
    scale = min(1.0, _SIDE / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX).filter(ImageFilter.MedianFilter(3))


def _features(small: Image.Image) -> NDArray[np.float32]:
    """Return (h, w, 4): luminance, two of colour, and alpha; of a picture with alpha, what can be seen of it."""
    seen = small.convert("RGBA").convert("RGBa")
    red, green, blue, alpha = np.moveaxis(np.asarray(seen, dtype=np.float32), -1, 0)
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([light, red - light, blue - light, alpha], axis=-1)


def _distance_from_border(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (h, w), 0 to 255: how far each pixel is from the colours of a side, on the average of the four.

    By side: a person who stands in the picture is cut off below and still is far from the three others, while sky and
    ground, which each fill one side, are near to one and to half of two more.
    """
    depth = max(1, min(features.shape[:2]) // 32)
    sides = (features[:depth], features[-depth:], features[:, :depth], features[:, -depth:])
    apart = np.zeros(features.shape[:2], dtype=np.float32)
    for side in sides:
        nearest = np.full(apart.shape, np.inf, dtype=np.float32)
        for colour in _main_colours(side.reshape(-1, features.shape[-1])):
            np.minimum(nearest, np.linalg.norm(features - colour, axis=-1), out=nearest)
        apart += np.minimum(nearest, 255.0) / len(sides)
    return apart


def _main_colours(pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return a few colours that describe pixels (n, c): k-means from the colours that are farthest apart."""
    centres = [pixels.mean(axis=0)]
    while len(centres) < _COLOURS:
        apart = np.min([np.linalg.norm(pixels - centre, axis=-1) for centre in centres], axis=0)
        if apart.max() < _MIN_CONTRAST / 2:
            break
        centres.append(pixels[int(apart.argmax())])
    for _ in range(4):
        apart = np.stack([np.linalg.norm(pixels - centre, axis=-1) for centre in centres])
        nearest = apart.argmin(axis=0)
        centres = [
            pixels[nearest == number].mean(axis=0) if (nearest == number).any() else centre
            for number, centre in enumerate(centres)
        ]
    return centres


def _otsu(values: NDArray[np.float32]) -> float:
    """Return the level that parts values, 0 to 255, into two groups of the least variance.

    Source: N. Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    counts, edges = np.histogram(values, bins=256, range=(0.0, 256.0))
    middles = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), values.size - np.cumsum(counts)
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[int(np.nan_to_num(between[:-1]).argmax()) + 1])


def _largest(thing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return its largest region, parts that a small gap divides counted as one; nothing, where all are specks."""
    labels = regions.label(_filtered(thing, ImageFilter.MaxFilter(_GAP)))
    areas = np.bincount(labels[thing], minlength=labels.max() + 1)
    return np.asarray(thing & (labels == areas.argmax()) & (areas.max() >= _MIN_AREA * thing.size))


def _filtered(thing: NDArray[np.bool_], by: ImageFilter.Filter) -> NDArray[np.bool_]:
    return np.asarray(Image.fromarray(thing).convert("L").filter(by)) > 0
