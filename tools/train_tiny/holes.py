"""What `tiny-fill` is taught: a scene, a mask over one of its things, and what is told to be painted there."""

import random
from dataclasses import dataclass
from typing import Final

from captions import article, say_place
from PIL import Image, ImageDraw
from scenes import SIDE, Scene, Thing, draw_brought, with_things

#: How far a mask reaches beyond its thing, in the thing's radii.
_MARGIN: Final = (0.15, 0.7)


@dataclass(frozen=True, kw_only=True)
class Hole:
    """A picture that is to be completed."""

    #: As it is to be.
    scene: Scene
    #: The thing under the mask.
    thing: Thing
    #: White where it is to be painted: L, `SIDE` x `SIDE`, black or white.
    mask: Image.Image
    told: str


def draw_hole(chance: random.Random, scene: Scene | None = None) -> Hole:
    """Draw a mask over a thing of a drawn scene, or of a given one."""
    scene = scene or draw_brought(chance)
    thing = chance.choice(scene.things)
    return Hole(scene=scene, thing=thing, mask=_mask_over(thing, chance), told=_told(thing, chance))


def empty(hole: Hole) -> Scene:
    """Return the scene without what is to be painted."""
    return with_things(hole.scene, (thing for thing in hole.scene.things if thing != hole.thing))


def _mask_over(thing: Thing, chance: random.Random) -> Image.Image:
    mask = Image.new("L", (SIDE, SIDE), 0)
    reach = [thing.radius * (1 + chance.uniform(*_MARGIN)) for _ in range(4)]
    x, y = thing.at
    box = [round(SIDE * place) for place in (x - reach[0], y - reach[1], x + reach[2], y + reach[3])]
    pen = ImageDraw.Draw(mask)
    if chance.random() < 0.7:
        pen.rectangle(box, fill=255)
    else:
        # An ellipse around the box, so that no corner of the thing is outside.
        width, height = box[2] - box[0], box[3] - box[1]
        pen.ellipse((box[0] - width // 5, box[1] - height // 5, box[2] + width // 5, box[3] + height // 5), fill=255)
    return mask


def _told(thing: Thing, chance: random.Random) -> str:
    said = f"{thing.colour} {thing.name}"
    place = say_place(thing.place, chance) if chance.random() < 0.3 else ""
    return f"{article(said)} {said} {place}".strip()
