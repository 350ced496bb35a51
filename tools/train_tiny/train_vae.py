"""Trains the VAE of the tiny models on drawn scenes.

    python tools/train_tiny/train_vae.py --out build/tiny [--steps 4000]

Stopped, it goes on from its last checkpoint. Writes OUT/vae, as diffusers loads it.
"""

import math
from typing import Any, Final

import torch
from course import Course, half_where_quick, options
from lessons import hole
from models import make_vae
from pictures import as_tensor, batch, edges_of, holed, scene
from scenes import paint

_BATCH: Final = 16
#: Of the latents' square, and the noise that is added to them: they stay near a normal distribution.
_CLOSE: Final = 1e-4
_NOISE: Final = 0.05
#: Side of the pieces that the first part of the steps is trained on: a quarter of the work, and most is learnt there.
_CROP: Final = 64
_CROPPED: Final = 0.75
_SCORED: Final = 200
_SCALED: Final = 512
#: Drawn beforehand, and drawn from.
_POOL: Final = 4000


def main() -> None:
    """Train, from the last checkpoint on."""
    told = options(__doc__ or "", steps=4000, pool=_POOL)
    torch.manual_seed(told.seed)
    vae = make_vae()
    course = Course(told.out / "courses" / "vae", {"vae": vae}, steps=told.steps, rate=2e-3, ema=0.995, seed=told.seed)
    pool = course.once("pool", lambda: _drawn(course.seed, told.pool))
    course.run(lambda step: _loss(vae, pool, course.chance(step), cropped=step < _CROPPED * told.steps))
    trained: Any = course.averaged["vae"].eval()
    _scale(trained, batch([scene(course.seed, number) for number in range(_SCALED)]))
    trained.save_pretrained(told.out / "vae")
    print(f"vae: {psnr(trained, told.seed):.1f} dB on {_SCORED} pictures that it has not seen")


def _drawn(seed: int, count: int) -> torch.Tensor:
    """Return (count, 3, h, w) in -127 .. 127, of int8."""
    drawn = torch.stack([_example(seed, number) for number in range(count)])
    return (drawn * 127.5).round().clamp(-127, 127).to(torch.int8)


def _example(seed: int, number: int) -> torch.Tensor:
    """Return a scene; now and then with a hole, or its edges alone: what `fill` and `control` are shown."""
    match number % 10:
        case 8:
            found = hole(seed, number)
            return holed(paint(found.scene), found.mask)
        case 9:
            return as_tensor(edges_of(paint(scene(seed, number))))
        case _:
            return as_tensor(paint(scene(seed, number)))


def psnr(vae: Any, seed: int) -> float:
    """Return how near pictures come back, in dB, on scenes that were not trained with."""
    images = batch([scene(seed, 10_000_000 + number) for number in range(_SCORED)])
    with torch.no_grad():
        back = vae.decode(vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    return 10 * math.log10(4 / float(torch.nn.functional.mse_loss(back, images)))


def _loss(vae: Any, pool: torch.Tensor, chance: torch.Generator, *, cropped: bool) -> torch.Tensor:
    chosen = torch.randint(len(pool), (_BATCH,), generator=chance)
    images = pool[chosen].to(torch.float32) / 127.5
    if cropped:
        top, left = (int(torch.randint(images.shape[-1] - _CROP + 1, (1,), generator=chance)) for _ in range(2))
        images = images[:, :, top : top + _CROP, left : left + _CROP]
    with half_where_quick():
        told = vae.encode(images).latent_dist
        latents = told.mean + _NOISE * torch.randn(told.mean.shape, generator=chance)
        back = vae.decode(latents).sample
    off = back.float() - images
    # The posterior is never drawn from in training; its variance is brought to that of the noise, for whoever does.
    variance = (told.logvar.float() - 2 * math.log(_NOISE)).square().mean()
    loss: torch.Tensor = off.abs().mean() + off.square().mean() + _CLOSE * told.mean.float().square().mean()
    return loss.add(variance, alpha=_CLOSE)


def _scale(vae: Any, images: torch.Tensor) -> None:
    """Measure how latents are spread, so that pipelines bring them to a mean of 0 and a variance of 1."""
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.mode()
    vae.register_to_config(shift_factor=float(latents.mean()), scaling_factor=1 / float(latents.std()))


if __name__ == "__main__":
    main()
