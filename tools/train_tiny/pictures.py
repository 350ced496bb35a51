"""Drawn scenes as tensors: by number, so that the same number is the same picture each time."""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from captions import say
from flow import encoded, pack
from models import DOWN
from PIL import Image
from scenes import Scene, arrangements, draw_scene, paint

from hotfolder.stages.canny import find_edges

#: Every so manieth list of things in their colours on a ground is never trained with: what is scored is held out.
_HELD_OUT: Final = 10
#: Scenes that are drawn at once.
_AT_ONCE: Final = 500
#: Below the first an edge is none, above the second it always is one.
_EDGES: Final = (100, 200)

Draw = Callable[[random.Random], Scene]


def scene(seed: int, number: int, draw: Draw = draw_scene) -> Scene:
    """Return a scene that may be trained with."""
    for attempt in range(100):
        found = draw(random.Random(f"scene {seed} {number} {attempt}"))
        if not is_held_out(found):
            return found
    raise AssertionError("a hundred scenes in a row are held out")


def held_out(seed: int, number: int, draw: Draw = draw_scene) -> Scene:
    """Return a scene that is never trained with."""
    for attempt in range(1000):
        found = draw(random.Random(f"held out {seed} {number} {attempt}"))
        if is_held_out(found):
            return found
    raise AssertionError("a thousand scenes in a row are not held out")


def is_held_out(shown: Scene) -> bool:
    """Whether no picture of these things, in these colours on this ground, is ever trained with."""
    told = [*(f"{thing.colour} {thing.name}" for thing in shown.things), shown.ground.kind, *shown.ground.colours]
    return random.Random(" ".join(told)).randrange(_HELD_OUT) == 0


def caption(shown: Scene, seed: int, number: int, *, silent: float = 0.0) -> str:
    """Return a caption of a scene; another number, perhaps another wording. Args: silent: see `say`."""
    return say(shown, random.Random(f"caption {seed} {number}"), silent=silent)


class Arranged:
    """Scenes in all their arrangements, of which noise chooses.

    No token says where a thing is to be in a variation. Unless the noise does, it comes out twice, or between two
    places. Source: couplings of noise and data, https://arxiv.org/abs/2304.14772.
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        """Arrange scenes of which none is held out."""
        # In another order the things of a scene may be held out.
        each = [[one for one in arrangements(shown) if not is_held_out(one)] for shown in scenes]
        self.all = list(itertools.chain.from_iterable(each))
        self._firsts = [0, *itertools.accumulate(map(len, each))]

    def of(self, number: int) -> range:
        """Return which of all are the arrangements of a scene."""
        return range(self._firsts[number], self._firsts[number + 1])

    def chosen_by(self, noise: torch.Tensor, number: int, latents: torch.Tensor) -> int:
        """Return which of all is the arrangement of a scene that noise chooses.

        One thing alone goes where the first channel of the noise is largest, which a transformer learns soon. Several
        stand as in the arrangement that the noise is most like: a channel is not enough to tell them apart.

        Args:
            noise: (n, 64), of n = side * side tokens.
            latents: (len(all), n, 64), of all, in their order.
        """
        its = self.of(number)
        if len(self.all[its.start].things) > 1:
            alike = (latents[its.start : its.stop].float() * noise).sum(dim=(1, 2))
            return its[int(alike.argmax())]
        side = round(len(noise) ** 0.5)
        # Around each point where four tokens meet: (side - 1, side - 1).
        around = torch.nn.functional.avg_pool2d(noise[:, 0].reshape(1, side, side), 2, stride=1)[0].tolist()

        def loudness(which: int) -> float:
            column, row = (round(part * side) - 1 for part in self.all[which].things[0].at)
            return float(around[row][column])

        return max(its, key=loudness)


def edges_of(picture: Image.Image) -> Image.Image:
    """Return the map that `tiny-control` follows, as the stage `prepare` makes it: white edges on black, RGB."""
    edges = find_edges(picture.convert("L"), *_EDGES)
    return Image.fromarray(edges.astype(np.uint8) * 255).convert("RGB")


def holed(picture: Image.Image, mask: Image.Image) -> torch.Tensor:
    """Return what `tiny-fill` is shown, (3, h, w) in -1 .. 1: a picture, grey (which is 0) where the mask is white."""
    return as_tensor(picture) * (1 - torch.from_numpy(np.asarray(mask) > 127).float())


def as_tensor(picture: Image.Image) -> torch.Tensor:
    """Return a picture as (3, h, w) in -1 .. 1."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1).contiguous()


def batch(scenes: list[Scene]) -> torch.Tensor:
    """Return the pictures of scenes as (b, 3, h, w) in -1 .. 1."""
    return torch.stack([as_tensor(paint(one)) for one in scenes])


def latents_of(vae: Any, scenes: Sequence[Scene]) -> torch.Tensor:
    """Return the pictures of many scenes as packed latents (b, n, 64), float16."""
    parts = (scenes[first : first + _AT_ONCE] for first in range(0, len(scenes), _AT_ONCE))
    return torch.cat([encoded(vae, batch(list(some))) for some in parts])


def folded(mask: Image.Image) -> torch.Tensor:
    """Return a mask, L, as the channels that `fill` is shown: (n, c), 1 where it is white, of bool."""
    white = torch.from_numpy(np.asarray(mask) > 127)
    side = mask.width // DOWN
    # (h, w) -> (down * down, h / down, w / down), as FluxFillPipeline.prepare_mask_latents does, then packed.
    channels = white.reshape(side, DOWN, side, DOWN).permute(1, 3, 0, 2).reshape(1, DOWN * DOWN, side, side)
    return pack(channels)[0].contiguous()
