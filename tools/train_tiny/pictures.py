"""Drawn scenes as tensors: by number, so that the same number is the same picture each time."""

import random
from typing import Final

import numpy as np
import torch
from captions import say
from PIL import Image
from scenes import Scene, draw_scene, paint

#: Every so manieth wording of things on a ground is never trained with: what is scored is held out.
_HELD_OUT: Final = 10


def scene(seed: int, number: int) -> Scene:
    """Return a scene that may be trained with."""
    for attempt in range(100):
        found = draw_scene(random.Random(f"scene {seed} {number} {attempt}"))
        if not is_held_out(found):
            return found
    raise AssertionError("a hundred scenes in a row are held out")


def held_out(seed: int, number: int, *, things: int | None = None) -> Scene:
    """Return a scene that is never trained with."""
    for attempt in range(1000):
        found = draw_scene(random.Random(f"held out {seed} {number} {attempt}"), things=things)
        if is_held_out(found):
            return found
    raise AssertionError("a thousand scenes in a row are not held out")


def is_held_out(shown: Scene) -> bool:
    """Whether no picture of these things, in these colours on this ground, is ever trained with."""
    told = [*(f"{thing.colour} {thing.name}" for thing in shown.things), shown.ground.kind, *shown.ground.colours]
    return random.Random(" ".join(told)).randrange(_HELD_OUT) == 0


def caption(shown: Scene, seed: int, number: int) -> str:
    """Return a caption of a scene; another number, perhaps another wording."""
    return say(shown, random.Random(f"caption {seed} {number}"))


def as_tensor(picture: Image.Image) -> torch.Tensor:
    """Return a picture as (3, h, w) in -1 .. 1."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1).contiguous()


def batch(scenes: list[Scene]) -> torch.Tensor:
    """Return the pictures of scenes as (b, 3, h, w) in -1 .. 1."""
    return torch.stack([as_tensor(paint(one)) for one in scenes])
