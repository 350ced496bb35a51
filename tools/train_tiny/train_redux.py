"""Trains `tiny-redux`: a prior, by which a picture becomes tokens, and a transformer that paints by them.

    python tools/train_tiny/train_redux.py --out build/tiny [--steps 21000] [--seeing-steps 6000]

First the prior learns to name what it sees; then both learn to draw it anew, as the model of train_text2img.py (which
is needed) draws what a caption says. The transformer begins as that one, which listens to CLIP, and hardly to tokens
alone; now and then a prompt stands beside the picture. Stopped, it goes on from its last checkpoint. Writes OUT/redux,
the prior, and OUT/redux-base, the pipeline that paints, as diffusers loads them.
"""

import random
from collections.abc import Sequence
from typing import Any, Final

import flow
import torch
from captions import said_freely
from course import DEVICE, Course, Length, compiled, half_where_quick, options
from diffusers import FluxPriorReduxPipeline
from models import make_prior
from pictures import Arranged, caption, latents_of, scene
from scenes import Scene, draw_brought, paint
from score import TRUE_CFG
from seeing import Namer, names_of

_BATCH: Final = 32
#: Pictures of a step in which the prior names what it sees.
_SEEN: Final = 64
_LENGTH: Final = Length(steps=21_000, pool=20_000)
_AT_ONCE: Final = 500
#: Of all pictures those that a prompt stands beside.
_PROMPTED: Final = 0.15
#: Of all pictures those that are shown as noise only: there it is decided where their things are to be.
_BEGUN: Final = 0.25


def main() -> None:
    """Train, from the last checkpoint on."""
    told = options(__doc__ or "", _LENGTH, seeing_steps=6000)
    torch.manual_seed(told.seed)
    scenes = [scene(told.seed, number, draw_brought) for number in range(told.pool)]
    goes_on = (told.out / "courses" / "redux" / "checkpoint.pt").exists()
    prior, base = make_prior(), flow.load_base(told.out, "redux-base" if goes_on else "text2img")
    namer = Namer()
    sees = {**_parts(prior), "namer": namer}
    seeing = Course.told(told, "redux-seeing", sees, rate=1e-3, muon=6e-3, ema=0.998, steps=told.seeing_steps)
    pixels = seeing.once("pixels", lambda: _looked_at(prior["feature_extractor"], scenes))
    if not goes_on:
        _see(seeing, prior, namer, pixels, seeing.once("names", lambda: names_of(scenes)))
    course = Course.told(
        told, "redux", {"transformer": base.transformer, **_parts(prior)}, rate=1e-3, muon=4e-3, ema=0.999
    )
    arranged = Arranged(scenes)
    latents = course.once("arranged", lambda: latents_of(base.vae, arranged.all))
    words, quick = flow.Words(base.components), compiled(base.transformer)
    # With text encoders of its own: they may have learnt more since.
    teacher = flow.load_base(told.out)
    its_words, its_transformer = flow.Words(teacher.components), compiled(teacher.transformer)

    def loss_of(step: int) -> torch.Tensor:
        chance = course.chance(step)
        chosen = torch.randint(told.pool, (_BATCH,), generator=chance)
        noise = torch.randn(_BATCH, *latents.shape[1:], generator=chance)
        free = random.Random(f"said {course.seed} {step}")
        prompted = [free.random() < _PROMPTED for _ in range(_BATCH)]
        wanted = [
            # A prompt is to be heard whatever the noise says.
            free.choice(arranged.of(number)) if is_prompted else arranged.chosen_by(drawn, number, latents)
            for number, drawn, is_prompted in zip(chosen.tolist(), noise, prompted, strict=True)
        ]
        captions = [caption(arranged.all[which], step, which) for which in wanted]
        said = [
            said_freely(text, free) if is_prompted else None
            for text, is_prompted in zip(captions, prompted, strict=True)
        ]
        with half_where_quick():
            with torch.no_grad():
                beside, known = words.told(said), its_words.told([*captions, *[""] * _BATCH])
            tokens = torch.cat([beside.tokens, _tokens(prior, pixels[chosen])], dim=1)
            shown = flow.Told(tokens=tokens, pooled=beside.pooled)
            taught = flow.Teacher(transformer=its_transformer, told=known, scale=TRUE_CFG)
            return flow.loss(quick, latents[wanted].float(), shown, chance, teacher=taught, noise=noise, begun=_BEGUN)

    course.run(loss_of)
    trained = {name: module.eval() for name, module in course.averaged.items()}
    base.register_modules(transformer=trained.pop("transformer"))
    base.save_pretrained(told.out / "redux-base")
    FluxPriorReduxPipeline(**{**prior, **trained}).save_pretrained(told.out / "redux")


def _see(course: Course, prior: dict[str, Any], namer: Namer, pixels: torch.Tensor, names: torch.Tensor) -> None:
    """Teach a prior to name what it sees. Args: pixels: (count, 3, h, w); names: (count, n + 2)."""

    def loss_of(step: int) -> torch.Tensor:
        chosen = torch.randint(len(pixels), (_SEEN,), generator=course.chance(step))
        with half_where_quick():
            return namer.loss(_tokens(prior, pixels[chosen]), names[chosen].to(DEVICE))

    course.run(loss_of)
    for name, module in _parts(prior).items():
        module.load_state_dict(course.averaged[name].state_dict())


def _parts(prior: dict[str, Any]) -> dict[str, Any]:
    return {name: prior[name] for name in ("image_encoder", "image_embedder")}


def _tokens(prior: dict[str, Any], pixels: torch.Tensor) -> torch.Tensor:
    """Return what a prior tells of pictures, (b, n, d)."""
    seen = prior["image_encoder"](pixels.to(DEVICE, torch.float32) / 127.5 - 1).last_hidden_state
    tokens: torch.Tensor = prior["image_embedder"](seen).image_embeds
    return tokens


def _looked_at(processor: Any, scenes: Sequence[Scene]) -> torch.Tensor:
    """Return what the prior sees of scenes, (count, 3, h, w), of uint8."""
    pixels = []
    for first in range(0, len(scenes), _AT_ONCE):
        pictures = [paint(one) for one in scenes[first : first + _AT_ONCE]]
        seen = processor.preprocess(pictures, return_tensors="pt").pixel_values
        pixels.append(((seen + 1) * 127.5).round().to(torch.uint8))
    return torch.cat(pixels)


if __name__ == "__main__":
    main()
