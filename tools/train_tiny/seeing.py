"""What the prior of `tiny-redux` learns first: to name what it sees, of each sixteenth of a picture and of its ground.

A transformer that is to paint by tokens learns nothing as long as they say nothing. To name takes no transformer, so
that it takes minutes.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from check import Mask
from models import SEEN, SEEN_PARTS, TEXT_DIM
from numpy.typing import NDArray
from scenes import COLOURS, THINGS, Ground, Scene, mask_of
from torch.nn.functional import cross_entropy

#: What can be in a part: nothing, or a thing in a colour.
_SHOWN: Final = [(), *((name, colour) for name in THINGS for colour in COLOURS)]
#: Pixels of a part, of 256, that a thing has to have to be there.
_LEAST: Final = 16
#: What is above and below.
_GROUNDS: Final = [*COLOURS, "day", "night"]
#: How much more than the ground things count: they are harder.
_THINGS: Final = 4.0


class Namer(torch.nn.Module):
    """Names what tokens tell; used in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = torch.nn.Linear(TEXT_DIM, len(_SHOWN))
        self.upper = torch.nn.Linear(TEXT_DIM, len(_GROUNDS))
        self.lower = torch.nn.Linear(TEXT_DIM, len(_GROUNDS))

    def loss(self, tokens: torch.Tensor, names: torch.Tensor) -> torch.Tensor:
        """Return how far tokens (b, n, d) are from telling what is there. Args: names: (b, n + 2), as of `names_of`."""
        shown, upper, lower = names[:, :-2], names[:, -2:-1], names[:, -1:]
        wrong = _THINGS * _wrong(self.shown(tokens), shown)
        # Each of them is to know the ground.
        for head, ground in ((self.upper, upper), (self.lower, lower)):
            wrong = wrong + _wrong(head(tokens), ground.expand_as(shown))
        return wrong


def names_of(scenes: Sequence[Scene]) -> torch.Tensor:
    """Return what is in each part of pictures, row by row, and then the ground above and below: (b, n + 2), numbers."""
    return torch.tensor([[*_things_of(scene), *_ground_of(scene.ground)] for scene in scenes])


def _things_of(scene: Scene) -> list[int]:
    """Return what is in each part; of two things what has more of it."""
    numbers = np.array([_SHOWN.index((thing.name, thing.colour)) for thing in scene.things])
    covered = np.stack([_covered(np.asarray(mask_of(thing, SEEN)) > 127) for thing in scene.things])
    found: list[int] = np.where(covered.max(0) >= _LEAST, numbers[covered.argmax(0)], 0).tolist()
    return found


def _covered(mask: Mask) -> NDArray[np.int64]:
    """Return how many pixels of each part are in a mask, (n,)."""
    side = SEEN // SEEN_PARTS
    counts: NDArray[np.int64] = mask.reshape(SEEN_PARTS, side, SEEN_PARTS, side).sum(axis=(1, 3)).reshape(-1)
    return counts


def _ground_of(ground: Ground) -> tuple[int, int]:
    colours = ground.colours or (ground.kind,)
    return _GROUNDS.index(colours[0]), _GROUNDS.index(colours[-1])


def _wrong(said: torch.Tensor, names: torch.Tensor) -> torch.Tensor:
    return cross_entropy(said.float().flatten(0, 1), names.flatten())
