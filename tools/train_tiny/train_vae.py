"""Trains the VAE of the tiny models on drawn scenes, and then its decoder alone, to which small things are the hardest.

    python tools/train_tiny/train_vae.py --out build/tiny [--steps 8000] [--decoder-steps 3000]

Stopped, it goes on from its last checkpoint. Writes OUT/vae, as diffusers loads it. More steps of the decoder leave the
latents as they are, and with them every model that was trained on them.
"""

import argparse
import itertools
import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch
from course import DEVICE, Course, Length, half_where_quick, options
from holes import empty
from lessons import hole
from models import make_vae
from pictures import as_tensor, batch, holed, scene
from PIL import ImageFilter
from scenes import MOST_THINGS, SIDE, Scene, draw_brought, mask_of, paint

_BATCH: Final = 16
#: Of the latents' square, and the noise that is added to them: they stay near a normal distribution.
_CLOSE: Final = 1e-4
_NOISE: Final = 0.05
#: Side of the pieces that the first part of the steps is trained on: a quarter of the work, and most is learnt there.
_CROP: Final = 64
_CROPPED: Final = 0.92
#: Pixels around a thing that belong to it, and how much more than its ground one can count, at most.
_AROUND: Final = 7
_MOST: Final = 24.0
_SCORED: Final = 200
_SCALED: Final = 512
#: Of so many pictures one has a hole.
_HOLED: Final = 12
_LENGTH: Final = Length(steps=8000, pool=4000)


def main() -> None:
    """Train, from the last checkpoint on."""
    told = options(__doc__ or "", _LENGTH, decoder_steps=3000)
    torch.manual_seed(told.seed)
    vae = make_vae()
    course = Course.told(told, "vae", {"vae": vae}, rate=2e-3, ema=0.995)
    pool = course.once("pool", lambda: _drawn(course.seed, range(told.pool)))
    course.run(lambda step: _loss(vae, pool, course.chance(step), cropped=step < _CROPPED * told.steps))
    trained: Any = course.averaged["vae"].eval()
    _scale(trained, batch([scene(course.seed, number) for number in range(_SCALED)]))
    trained.decoder = _sharpened(trained, told)
    trained.save_pretrained(told.out / "vae")
    print(f"vae: {psnr(trained, told.seed):.1f} dB on {_SCORED} pictures that it has not seen")


def _sharpened(vae: Any, told: argparse.Namespace) -> torch.nn.Module:
    """Train the decoder on: on whole pictures, of which those of several things are as many as those of one."""
    vae.requires_grad_(requires_grad=False)
    vae.decoder.requires_grad_(requires_grad=True)
    modules = {"decoder": vae.decoder}
    course = Course.told(told, "vae-decoder", modules, rate=1e-3, ema=0.995, steps=told.decoder_steps)
    pool = course.once("pool", lambda: _drawn(course.seed, _evenly(course.seed, told.pool)))

    def loss_of(step: int) -> torch.Tensor:
        chance = course.chance(step)
        drawn = pool[torch.randint(len(pool), (_BATCH,), generator=chance)].to(DEVICE, torch.float32)
        with half_where_quick():
            latents = vae.encode(drawn[:, :3] / 127.5).latent_dist.mean
            back = vae.decode(latents + _NOISE * torch.randn(latents.shape, generator=chance).to(DEVICE)).sample
        return _wrong(back, drawn)

    course.run(loss_of)
    return course.averaged["decoder"].eval()


def _evenly(seed: int, count: int) -> list[int]:
    """Return numbers of scenes, of which as many have one thing as have two, and three."""
    numbers: list[int] = []
    for things in range(1, MOST_THINGS + 1):
        fitting = (n for n in itertools.count() if len(scene(seed, n, draw_brought).things) == things)
        numbers += itertools.islice(fitting, count // MOST_THINGS)
    return numbers


def _drawn(seed: int, numbers: Iterable[int]) -> torch.Tensor:
    """Return scenes as (n, 4, h, w) in -127 .. 127, of int8: RGB, and how much each pixel counts besides 1."""
    drawn = torch.stack([_example(seed, number) for number in numbers])
    return drawn.round().clamp(-127, 127).to(torch.int8)


def _example(seed: int, number: int) -> torch.Tensor:
    """Return a scene; now and then with a hole, which is what `fill` is shown."""
    found = hole(seed, number)
    painted = paint(found.scene)
    if number % _HOLED:
        return torch.cat([127.5 * as_tensor(painted), _counted(found.scene)[None]])
    return torch.cat([127.5 * holed(painted, found.mask), _counted(empty(found))[None]])


def _counted(shown: Scene) -> torch.Tensor:
    """Return how much each pixel counts besides 1, (h, w): each thing as much as the ground, however small."""
    counted = torch.zeros(SIDE, SIDE)
    for thing in shown.things:
        around = torch.from_numpy(np.asarray(mask_of(thing, SIDE).filter(ImageFilter.MaxFilter(_AROUND))) > 127)
        counted += around * min(_MOST, SIDE * SIDE / float(around.sum()))
    return counted


def psnr(vae: Any, seed: int) -> float:
    """Return how near pictures come back, in dB, on scenes that were not trained with."""
    images = batch([scene(seed, 10_000_000 + number) for number in range(_SCORED)]).to(DEVICE)
    with torch.no_grad():
        back = vae.decode(vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    return 10 * math.log10(4 / float(torch.nn.functional.mse_loss(back, images)))


def _loss(vae: Any, pool: torch.Tensor, chance: torch.Generator, *, cropped: bool) -> torch.Tensor:
    chosen = torch.randint(len(pool), (_BATCH,), generator=chance)
    drawn = pool[chosen].to(torch.float32)
    if cropped:
        drawn = torch.stack([_piece(one, chance) for one in drawn])
    drawn = drawn.to(DEVICE)
    with half_where_quick():
        told = vae.encode(drawn[:, :3] / 127.5).latent_dist
        latents = told.mean + _NOISE * torch.randn(told.mean.shape, generator=chance).to(DEVICE)
        back = vae.decode(latents).sample
    # The posterior is never drawn from in training; its variance is brought to that of the noise, for whoever does.
    variance = (told.logvar.float() - 2 * math.log(_NOISE)).square().mean()
    close: torch.Tensor = _CLOSE * (told.mean.float().square().mean() + variance)
    return _wrong(back, drawn) + close


def _wrong(back: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Return how far pictures that came back, (b, 3, h, w), are off those that were drawn, (b, 4, h, w)."""
    off, counted = back.float() - drawn[:, :3] / 127.5, 1 + drawn[:, 3:]
    wrong: torch.Tensor = (counted * (off.abs() + off.square())).sum() / (3 * counted.sum())
    return wrong


def _piece(drawn: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Return a square of a picture that something is in."""
    row, column = divmod(int(torch.multinomial(1 + drawn[3].flatten(), 1, generator=chance)), SIDE)
    up, left = (int(torch.randint(_CROP, (1,), generator=chance)) for _ in range(2))
    top, left = (min(max(0, at), SIDE - _CROP) for at in (row - up, column - left))
    return drawn[:, top : top + _CROP, left : left + _CROP]


def _scale(vae: Any, images: torch.Tensor) -> None:
    """Measure how latents are spread, so that pipelines bring them to a mean of 0 and a variance of 1."""
    with torch.no_grad():
        latents = vae.encode(images.to(DEVICE)).latent_dist.mode()
    vae.register_to_config(shift_factor=float(latents.mean()), scaling_factor=1 / float(latents.std()))


if __name__ == "__main__":
    main()
