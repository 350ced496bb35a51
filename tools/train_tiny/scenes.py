"""What the tiny model is taught: scenes of one to three simple things, drawn from a seed, and what is said of them.

A scene is data. `paint` turns it into a picture, `captions.say` into words, `check` looks whether a picture shows it.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from PIL import Image, ImageDraw

#: Pixels a side of a picture.
SIDE: Final = 128
#: Drawn this much larger, then reduced: smooth edges.
_FINE: Final = 4

MOST_THINGS: Final = 3
#: Three of five scenes have one thing, the others two or three.
_COUNTS: Final = (6, 3, 1)

Point = tuple[float, float]
Rgb = tuple[int, int, int]

COLOURS: Final[dict[str, Rgb]] = {
    "red": (214, 40, 40),
    "orange": (243, 138, 32),
    "yellow": (250, 218, 50),
    "green": (48, 160, 72),
    "blue": (44, 92, 222),
    "purple": (136, 62, 182),
    "pink": (246, 132, 184),
    "white": (248, 248, 248),
    "black": (26, 26, 26),
}
#: Of the sky and the ground, by day and at night.
DAY: Final[tuple[Rgb, Rgb]] = ((150, 208, 248), (122, 176, 92))
NIGHT: Final[tuple[Rgb, Rgb]] = ((18, 22, 66), (30, 40, 44))
_STAR: Final[Rgb] = (232, 232, 206)
#: Things that could not be told from their ground.
_LOST: Final[dict[str, frozenset[str]]] = {
    "day": frozenset({"blue", "green", "white"}),
    "night": frozenset({"black", "blue", "purple"}),
}
#: Distance of two colours, of 255 for each of red, green and blue.
_LEAST_CONTRAST: Final = 85.0

Place = Literal["", "left", "right", "top", "bottom", "middle", "top left", "top right", "bottom left", "bottom right"]
#: Centre of a thing that stands alone, in sides of the picture; "" is any of them. It stands there and nowhere near: a
#: model of so few pixels learns some hundred outlines well, and any number of them not at all.
PLACES: Final[dict[Place, Point]] = {
    "left": (0.27, 0.5),
    "right": (0.73, 0.5),
    "top": (0.5, 0.27),
    "bottom": (0.5, 0.73),
    "middle": (0.5, 0.5),
    "top left": (0.27, 0.27),
    "top right": (0.73, 0.27),
    "bottom left": (0.27, 0.73),
    "bottom right": (0.73, 0.73),
}
#: Of how many things that stand alone the place is said, 0 to 1; and how many of the others stand in the middle, where
#: people look for them: what may be anywhere comes out as a blur of several.
_SAID: Final = 0.6
_CENTRAL: Final = 0.75
#: What stays free at every side, in sides of the picture.
MARGIN: Final = 0.045
Size = Literal["small", "", "large"]
#: Half of a thing's width, in sides of the picture.
SIZES: Final[dict[Size, float]] = {"small": 0.16, "": 0.22, "large": 0.29}
#: How several things stand: from left to right, or one above the other.
Order = Literal["alone", "row", "stack"]
#: How many -> half of the width of each, and their centres along and across the row or the stack. Of three the middle
#: one stands lower: side by side they would be too small for a model of so few pixels.
_SEVERAL: Final[dict[int, tuple[float, tuple[Point, ...]]]] = {
    2: (0.2, ((0.26, 0.5), (0.74, 0.5))),
    3: (0.19, ((0.245, 0.28), (0.5, 0.72), (0.755, 0.28))),
}
#: How many -> how far each may be along the row and across it, in sides of the picture, and its size, least and most.
_SCATTERED: Final = {1: (0.05, 0.05, 0.9, 1.05), 2: (0.02, 0.12, 0.95, 1.0), 3: (0.03, 0.02, 0.92, 1.0)}


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One thing of a scene."""

    name: str
    colour: str
    #: Centre and half of its width, in sides of the picture.
    at: Point
    radius: float
    #: As it may be said; "" where nothing is to be said of it.
    place: Place = ""
    size: Size = ""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What is behind the things."""

    kind: Literal["plain", "gradient", "day", "night"]
    #: One colour; of a gradient the upper and the lower one; by day and at night none.
    colours: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a picture shows."""

    things: tuple[Thing, ...]
    ground: Ground
    order: Order = "alone"
    #: Draws what nobody speaks of: shades, and the stars of a night.
    seed: int = 0


def draw_scene(chance: random.Random, counts: Sequence[int] = _COUNTS) -> Scene:
    """Draw a scene. Args: counts: how many have one thing, for so many that have two, and three."""
    count = chance.choices(range(1, MOST_THINGS + 1), counts)[0]
    ground = _draw_ground(chance)
    free = [name for name in COLOURS if stands_out(name, ground)]
    named = list(zip(chance.sample(list(THINGS), count), chance.sample(free, count), strict=True))
    return _lay_out(chance, named, ground)


def draw_brought(chance: random.Random) -> Scene:
    """Draw a scene as a picture may show it that somebody brings: in one of two, things are not just where ours are."""
    scene = draw_scene(chance)
    return _scatter(scene, chance) if chance.random() < 0.5 else scene


def _scatter(scene: Scene, chance: random.Random) -> Scene:
    """Return a scene of which the same is said, with each thing a little elsewhere, and larger or smaller."""
    along, across, least, most = _SCATTERED[len(scene.things)]
    moved = []
    for thing in scene.things:
        off = (chance.uniform(-along, along), chance.uniform(-across, across))
        x, y = off[::-1] if scene.order == "stack" else off
        radius = thing.radius * chance.uniform(least, most)
        moved.append(replace(thing, at=_inside((thing.at[0] + x, thing.at[1] + y), radius), radius=radius))
    return replace(scene, things=tuple(moved))


def _inside(at: Point, radius: float) -> Point:
    """Return the nearest point at which a thing of this radius is whole, with a margin."""
    reach = radius + MARGIN
    return min(max(at[0], reach), 1 - reach), min(max(at[1], reach), 1 - reach)


def arrangements(scene: Scene) -> list[Scene]:
    """Return all ways in which the things of a scene may stand: one alone at every place, several in every order.

    Their colours and the ground stay, and the size that is said of one alone.
    """
    if len(scene.things) == 1:
        thing = scene.things[0]
        alone = [_alone(thing.name, thing.colour, place, thing.size, said=place) for place in PLACES]
        return [replace(scene, things=(one,)) for one in alone]
    orders: tuple[Order, ...] = ("row", "stack") if len(scene.things) == 2 else ("row",)
    named = [(thing.name, thing.colour) for thing in scene.things]
    return [
        replace(scene, things=_in_order(turn, order), order=order)
        for order, turn in itertools.product(orders, itertools.permutations(named))
    ]


def with_things(scene: Scene, things: Iterable[Thing]) -> Scene:
    """Return a scene with these things and no others; one that is left alone stands somewhere."""
    left = tuple(things)
    return replace(scene, things=left, order=scene.order if len(left) > 1 else "alone")


def _lay_out(chance: random.Random, named: list[tuple[str, str]], ground: Ground) -> Scene:
    """Give each thing its place. Args: named: name and colour of each."""
    if len(named) == 1:
        return Scene(things=(_draw_alone(chance, *named[0]),), ground=ground, seed=chance.getrandbits(32))
    order: Order = "stack" if len(named) == 2 and chance.random() < 0.4 else "row"
    return Scene(things=_in_order(named, order), ground=ground, order=order, seed=chance.getrandbits(32))


def _in_order(named: Sequence[tuple[str, str]], order: Order) -> tuple[Thing, ...]:
    radius, centres = _SEVERAL[len(named)]
    made = []
    for (name, colour), (along, across) in zip(named, centres, strict=True):
        at = (along, across) if order == "row" else (across, along)
        made.append(Thing(name=name, colour=colour, at=at, radius=radius))
    return tuple(made)


def stands_out(colour: str, ground: Ground) -> bool:
    """Whether a thing of this colour can be told from its ground, wherever it stands."""
    if ground.kind in _LOST:
        return colour not in _LOST[ground.kind]
    upper, lower = COLOURS[ground.colours[0]], COLOURS[ground.colours[-1]]
    steps = [[(a * (8 - step) + b * step) / 8 for a, b in zip(upper, lower, strict=True)] for step in range(9)]
    return all(math.dist(COLOURS[colour], step) >= _LEAST_CONTRAST for step in steps)


def _draw_ground(chance: random.Random) -> Ground:
    match chance.choices(("plain", "gradient", "day", "night"), (6, 2, 1, 1))[0]:
        case "gradient":
            ground = Ground(kind="gradient", colours=tuple(chance.sample(list(COLOURS), 2)))
            # Three things need a colour each.
            free = [name for name in COLOURS if stands_out(name, ground)]
            return ground if len(free) >= MOST_THINGS else _draw_ground(chance)
        case "day":
            return Ground(kind="day")
        case "night":
            return Ground(kind="night")
        case _:
            return Ground(kind="plain", colours=(chance.choice(list(COLOURS)),))


def _draw_alone(chance: random.Random, name: str, colour: str) -> Thing:
    size: Size = chance.choices(("small", "", "large"), (1, 2, 1))[0]
    is_said = chance.random() < _SAID
    place: Place = "middle" if not is_said and chance.random() < _CENTRAL else chance.choice(list(PLACES))
    return _alone(name, colour, place, size, said=place if is_said else "")


def _alone(name: str, colour: str, place: Place, size: Size, *, said: Place) -> Thing:
    radius = SIZES[size]
    return Thing(name=name, colour=colour, at=_inside(PLACES[place], radius), radius=radius, place=said, size=size)


# --- painting ---


def paint(scene: Scene) -> Image.Image:
    """Return the picture of a scene: RGB, `SIDE` x `SIDE`. The same scene makes the same pixels.

    What the ground and each thing draw from the seed is their own: a scene without one of its things, or on another
    ground, differs in nothing else.
    """
    large = _paint_ground(scene.ground, random.Random(f"{scene.seed} {scene.ground.kind}"))
    for thing in scene.things:
        shade = _shade(COLOURS[thing.colour], random.Random(f"{scene.seed} {thing.at}"))
        large.paste(shade, mask=mask_of(thing, SIDE * _FINE))
    return large.resize((SIDE, SIDE), Image.Resampling.BOX)


def mask_of(thing: Thing, side: int) -> Image.Image:
    """Return where a thing is, white on black, in a picture of so many pixels a side."""
    mask = Image.new("L", (side, side), 0)
    pen = _Pen(ImageDraw.Draw(mask), (thing.at[0] * side, thing.at[1] * side), thing.radius * side)
    THINGS[thing.name](pen)
    return mask


def _paint_ground(ground: Ground, chance: random.Random) -> Image.Image:
    side = SIDE * _FINE
    match ground.kind:
        case "plain":
            return Image.new("RGB", (side, side), _shade(COLOURS[ground.colours[0]], chance))
        case "gradient":
            upper, lower = (_shade(COLOURS[name], chance) for name in ground.colours)
            column = Image.linear_gradient("L").resize((1, side)).resize((side, side))
            return Image.composite(Image.new("RGB", (side, side), lower), Image.new("RGB", (side, side), upper), column)
        case "day" | "night":
            sky, earth = DAY if ground.kind == "day" else NIGHT
            image = Image.new("RGB", (side, side), _shade(sky, chance))
            pen = ImageDraw.Draw(image)
            for _ in range(24 if ground.kind == "night" else 0):
                x, y, r = chance.randrange(side), chance.randrange(int(side * 0.7)), chance.uniform(1.5, 3.5)
                pen.ellipse((x - r, y - r, x + r, y + r), fill=_STAR)
            pen.rectangle((0, int(side * 0.78), side, side), fill=_shade(earth, chance))
            return image


def _shade(colour: Rgb, chance: random.Random) -> Rgb:
    """Return a colour that is still called the same."""
    red, green, blue = (min(255, max(0, value + chance.randint(-6, 6))) for value in colour)
    return red, green, blue


@dataclass(frozen=True)
class _Pen:
    """Draws in units of a thing: (0, 0) is its centre, it reaches from -1 to 1. y grows downwards."""

    pen: ImageDraw.ImageDraw
    at: Point
    radius: float

    def shape(self, *points: Point, fill: int = 255) -> None:
        self.pen.polygon([self._there(*point) for point in points], fill=fill)

    def oval(self, left: float, top: float, right: float, bottom: float, fill: int = 255) -> None:
        self.pen.ellipse((*self._there(left, top), *self._there(right, bottom)), fill=fill)

    def block(self, left: float, top: float, right: float, bottom: float, fill: int = 255) -> None:
        self.pen.rectangle((*self._there(left, top), *self._there(right, bottom)), fill=fill)

    def _there(self, x: float, y: float) -> Point:
        return self.at[0] + x * self.radius, self.at[1] + y * self.radius


def _around(count: int, radius: float, turned: float = -math.pi / 2) -> list[Point]:
    """Return points on a circle, the first at the top."""
    angles = [turned + 2 * math.pi * number / count for number in range(count)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _circle(pen: _Pen) -> None:
    pen.oval(-0.95, -0.95, 0.95, 0.95)


def _square(pen: _Pen) -> None:
    pen.block(-0.85, -0.85, 0.85, 0.85)


def _triangle(pen: _Pen) -> None:
    pen.shape((0, -0.95), (0.98, 0.8), (-0.98, 0.8))


def _star(pen: _Pen) -> None:
    outer, inner = _around(5, 1.0), _around(5, 0.42, -math.pi / 2 + math.pi / 5)
    pen.shape(*(point for pair in zip(outer, inner, strict=True) for point in pair))


def _heart(pen: _Pen) -> None:
    # https://mathworld.wolfram.com/HeartCurve.html, the sixth of them.
    turns = [2 * math.pi * number / 60 for number in range(60)]
    pen.shape(
        *(
            (
                math.sin(t) ** 3,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16 - 0.1,
            )
            for t in turns
        )
    )


def _ring(pen: _Pen) -> None:
    pen.oval(-0.95, -0.95, 0.95, 0.95)
    pen.oval(-0.52, -0.52, 0.52, 0.52, fill=0)


def _moon(pen: _Pen) -> None:
    pen.oval(-0.95, -0.95, 0.95, 0.95)
    pen.oval(-0.25, -0.95, 1.35, 0.65, fill=0)


def _tree(pen: _Pen) -> None:
    pen.shape((0, -1), (0.62, -0.2), (-0.62, -0.2))
    pen.shape((0, -0.55), (0.8, 0.5), (-0.8, 0.5))
    pen.block(-0.16, 0.5, 0.16, 1)


def _house(pen: _Pen) -> None:
    pen.shape((0, -0.95), (0.95, -0.1), (-0.95, -0.1))
    pen.block(-0.7, -0.1, 0.7, 0.9)
    pen.block(-0.2, 0.3, 0.2, 0.9, fill=0)


def _sun(pen: _Pen) -> None:
    # Four rays: eight would be a circle to a model of so few pixels.
    pen.oval(-0.6, -0.6, 0.6, 0.6)
    for x, y in _around(4, 1.0):
        pen.shape((x, y), (0.5 * x + 0.26 * y, 0.5 * y - 0.26 * x), (0.5 * x - 0.26 * y, 0.5 * y + 0.26 * x))


def _mug(pen: _Pen) -> None:
    pen.oval(0.1, -0.5, 1.0, 0.5)
    pen.oval(0.32, -0.28, 0.78, 0.28, fill=0)
    pen.block(-0.9, -0.85, 0.5, 0.85)


def _fish(pen: _Pen) -> None:
    pen.oval(-0.98, -0.55, 0.55, 0.55)
    pen.shape((0.3, 0), (1, -0.6), (1, 0.6))


#: The word for a thing -> how it is drawn.
THINGS: Final[dict[str, Callable[[_Pen], None]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "moon": _moon,
    "tree": _tree,
    "house": _house,
    "sun": _sun,
    "mug": _mug,
    "fish": _fish,
}
