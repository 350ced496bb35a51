"""Trains the transformer of `tiny`, and its text encoders, to draw what a caption says; needs the VAE of train_vae.py.

    python tools/train_tiny/train_text2img.py --out build/tiny [--steps 34000]

Stopped, it goes on from its last checkpoint. Writes OUT/text2img, a whole pipeline as diffusers loads it.
"""

import random
from functools import partial
from typing import Final

import flow
import torch
from captions import said_freely
from course import Course, Length, compiled, half_where_quick, options
from diffusers import FluxPipeline
from models import TEXT_ENCODERS, make_scheduler, make_texts, make_transformer
from pictures import caption, latents_of, scene
from scenes import draw_scene

_BATCH: Final = 32
#: Of all captions those that are empty, and those that are not there, as for `redux`.
_WITHOUT: Final = 0.06
_NOTHING: Final = 0.04
#: Of the others those that say nothing of the ground; then it may be any.
_SILENT: Final = 0.1
#: Of all captions those that CLIP does not say: `redux`, which begins with this transformer, tells a picture by tokens
#: alone. Before there were any, words without CLIP gave the right colours in 28 % of the pictures, with it in 98 %.
_TOKENS_ALONE: Final = 0.15
_LENGTH: Final = Length(steps=34_000, pool=40_000)
#: How many scenes have one thing, two and three, which are the hardest.
_COUNTS: Final = (4, 3, 3)


def main() -> None:
    """Train, from the last checkpoint on."""
    told = options(__doc__ or "", _LENGTH)
    torch.manual_seed(told.seed)
    texts, transformer = make_texts(), make_transformer("text2img")
    if (told.out / "text2img").is_dir():
        kept = flow.load_base(told.out).components
        texts = {name: kept[name] for name in texts}
    words, quick = flow.Words(texts), compiled(transformer)
    modules = {"transformer": transformer, **{name: texts[name] for name in TEXT_ENCODERS}}
    course = Course.told(told, "text2img", modules, rate=1.5e-3, muon=6e-3, ema=0.999)
    vae = flow.load_vae(told.out)
    draw = partial(draw_scene, counts=_COUNTS)
    scenes = [scene(course.seed, number, draw) for number in range(told.pool)]
    latents = course.once("latents", lambda: latents_of(vae, scenes))

    def loss_of(step: int) -> torch.Tensor:
        chance = course.chance(step)
        chosen = torch.randint(len(scenes), (_BATCH,), generator=chance).tolist()
        captions = [caption(scenes[number], step, number, silent=_SILENT) for number in chosen]
        free = random.Random(f"said {course.seed} {step}")
        said = [_heard(text, free) for text in captions]
        pooled = [free.random() >= _TOKENS_ALONE for _ in said]
        with half_where_quick():
            return flow.loss(quick, latents[chosen].float(), words.told(said, pooled=pooled), chance)

    course.run(loss_of)
    trained = {name: module.eval() for name, module in course.averaged.items()}
    FluxPipeline(**{**texts, **trained}, scheduler=make_scheduler(), vae=vae).save_pretrained(told.out / "text2img")


def _heard(caption: str, chance: random.Random) -> str | None:
    """Return what is told of a caption: now and then nothing."""
    part = chance.random()
    if part < _NOTHING:
        return None
    return "" if part < _NOTHING + _WITHOUT else said_freely(caption, chance)


if __name__ == "__main__":
    main()
