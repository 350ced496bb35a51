"""Looks at the pixels of a picture whether it shows a scene: the colours, the things, and where they stand.

Knows nothing of how the picture was made, and is itself tested on pictures that were drawn.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scenes import COLOURS, DAY, NIGHT, SIDE, THINGS, Ground, Place, Rgb, Scene, Thing, mask_of

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Distance of a pixel from its ground, of 255 for each of red, green and blue, at which it belongs to a thing.
_DIFFERENT: Final = 45.0
#: Pixels of the least spot that is taken for a thing.
_LEAST_AREA: Final = 60
#: Columns at each side, and rows at top and bottom, that no thing reaches.
_EDGE: Final = 4
#: Shapes are compared at this size.
_SHAPE: Final = 32
#: Centres between these parts of a side are in the middle of it.
_MIDDLE: Final = (0.40, 0.60)
_SKIES: Final[dict[str, Rgb]] = {"day": DAY[0], "night": NIGHT[0]}
_KNOWN: Final[dict[str, Rgb]] = {**COLOURS, **_SKIES}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is right in a picture."""

    #: Of the ground, and of every thing.
    colour: bool
    #: Each of them is there, and no other.
    thing: bool
    place: bool


RIGHT: Final = Verdict(colour=True, thing=True, place=True)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A spot that is not ground."""

    #: What it is called most nearly.
    colour: str
    name: str
    #: Its middle, in sides of the picture.
    at: tuple[float, float]


def check(picture: Image.Image, scene: Scene) -> Verdict:
    """Compare a picture with the scene that it should show.

    Args:
        picture: RGB, `SIDE` x `SIDE`.
    """
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    found = look(picture)
    seen = found[: len(scene.things)]
    if len(seen) < len(scene.things):
        return Verdict(colour=False, thing=False, place=False)
    # Which of them is meant to be which is what fits best.
    best = max(itertools.permutations(seen), key=lambda order: _fit(order, scene.things))
    pairs = list(zip(best, scene.things, strict=True))
    return Verdict(
        colour=shows_ground(pixels, scene.ground) and all(spot.colour == thing.colour for spot, thing in pairs),
        thing=len(found) == len(pairs) and all(spot.name == thing.name for spot, thing in pairs),
        place=_in_place(best, scene),
    )


def look(picture: Image.Image) -> list[Seen]:
    """Return what is not ground, the largest first."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    ground = _ground_of(pixels)
    differs = np.linalg.norm(pixels - ground, axis=2) > _DIFFERENT
    return [_seen(pixels, _sharpened(pixels, ground, spot)) for spot in _spots(differs)]


def shows_ground(pixels: Pixels, ground: Ground) -> bool:
    """Whether the ground has its colours: at the top and, of a gradient, at the bottom too."""
    upper = _median(pixels[:_EDGE].reshape(-1, 3))
    lower = _median(pixels[-_EDGE:].reshape(-1, 3))
    if ground.kind in _SKIES:
        return _nearest(upper, _KNOWN) == ground.kind
    return _nearest(upper, _KNOWN) == ground.colours[0] and _nearest(lower, _KNOWN) == ground.colours[-1]


def place_of(at: tuple[float, float]) -> Place:
    """Return in which of nine fields a point is."""
    low, high = _MIDDLE
    across = "left" if at[0] < low else "right" if at[0] > high else ""
    along = "top" if at[1] < low else "bottom" if at[1] > high else ""
    return " ".join(part for part in (along, across) if part) or "middle"  # type: ignore[return-value]


def _fit(order: Sequence[Seen], things: Sequence[Thing]) -> int:
    return sum(
        2 * (spot.colour == thing.colour) + (spot.name == thing.name) for spot, thing in zip(order, things, strict=True)
    )


def _in_place(spots: Sequence[Seen], scene: Scene) -> bool:
    match scene.order:
        case "alone":
            places = zip(spots, (thing.place for thing in scene.things), strict=True)
            return all(not wanted or place_of(spot.at) == wanted for spot, wanted in places)
        case "row":
            return all(one.at[0] < other.at[0] for one, other in itertools.pairwise(spots))
        case "stack":
            return all(one.at[1] < other.at[1] for one, other in itertools.pairwise(spots))


def _ground_of(pixels: Pixels) -> Pixels:
    """Return what the picture would be without things: each row has the colour of its two ends."""
    ends = np.concatenate([pixels[:, :_EDGE], pixels[:, -_EDGE:]], axis=1)
    middle: Pixels = np.median(ends, axis=1, keepdims=True).astype(np.float32)
    return middle


def _spots(mask: Mask) -> list[Mask]:
    """Cut a mask into pieces that hang together, the largest first."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        # Every pixel takes the highest label around it until nothing changes.
        spread = labels.copy()
        spread[1:] = np.maximum(spread[1:], labels[:-1])
        spread[:-1] = np.maximum(spread[:-1], labels[1:])
        spread[:, 1:] = np.maximum(spread[:, 1:], labels[:, :-1])
        spread[:, :-1] = np.maximum(spread[:, :-1], labels[:, 1:])
        spread = np.where(mask, spread, 0)
        if np.array_equal(spread, labels):
            break
        labels = spread
    names, counts = np.unique(labels[mask], return_counts=True)
    found = sorted(zip(counts.tolist(), names.tolist(), strict=True), reverse=True)
    return [labels == name for count, name in found if count >= _LEAST_AREA]


def _sharpened(pixels: Pixels, ground: Pixels, spot: Mask) -> Mask:
    """Draw the edge of a spot anew, where its colour goes over into that of the ground by half."""
    colour = np.median(pixels[spot], axis=0)
    rows, columns = np.nonzero(spot)
    near = np.zeros_like(spot)
    near[max(0, rows.min() - 1) : rows.max() + 2, max(0, columns.min() - 1) : columns.max() + 2] = True
    # What is neither, as a star that touches it, is nearer to the colour than to the ground at night, but not so near.
    halves = np.linalg.norm(pixels - colour, axis=2) < np.linalg.norm(ground - colour, axis=2) / 2
    return halves & near if (halves & near).any() else spot


def _seen(pixels: Pixels, mask: Mask) -> Seen:
    rows, columns = np.nonzero(mask)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    shape = _normal(mask)
    scores = {name: _overlap(shape, _template(name)) for name in THINGS}
    return Seen(
        colour=_nearest(_median(pixels[mask]), COLOURS),
        name=max(scores, key=scores.__getitem__),
        at=(float(box[0] + box[2]) / 2 / mask.shape[1], float(box[1] + box[3]) / 2 / mask.shape[0]),
    )


@cache
def _template(name: str) -> Mask:
    thing = Thing(name=name, colour="", at=(0.5, 0.5), radius=0.48)
    return _normal(np.asarray(mask_of(thing, 4 * SIDE)) > 127)


def _normal(mask: Mask) -> Mask:
    """Cut a shape out and bring it to one size; how wide it is for its height stays."""
    rows, columns = np.nonzero(mask)
    cut = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = _SHAPE / max(cut.shape)
    size = (max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale)))
    small = Image.fromarray((cut * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)
    field = Image.new("L", (_SHAPE, _SHAPE), 0)
    field.paste(small, ((_SHAPE - size[0]) // 2, (_SHAPE - size[1]) // 2))
    return np.asarray(field) > 127


def _overlap(one: Mask, other: Mask) -> float:
    return float(np.logical_and(one, other).sum() / max(1, np.logical_or(one, other).sum()))


def _median(pixels: NDArray[Any]) -> Rgb:
    red, green, blue = (int(value) for value in np.median(pixels, axis=0))
    return red, green, blue


def _nearest(colour: Rgb, known: dict[str, Rgb]) -> str:
    return min(known, key=lambda name: math.dist(colour, known[name]))
