"""Trains the prior of `tiny-redux`: a picture becomes tokens, of which the transformer of `tiny` draws another one.

    python tools/train_tiny/train_redux.py --out build/tiny [--steps 6000]

The prior learns to tell of a picture what a caption would: the transformer is to say the same of both. Needs the model
of train_text2img.py, which stays as it is. Stopped, it goes on from its last checkpoint. Writes OUT/redux, the prior
alone, as diffusers loads it.
"""

import random
from typing import Any, Final

import flow
import torch
from course import DEVICE, Course, Length, compiled, half_where_quick, options
from diffusers import FluxPriorReduxPipeline
from models import MAX_TOKENS, TEXT_ENCODERS, make_prior
from pictures import batch, caption, is_held_out, scene
from scenes import Scene, draw_brought, paint, vary

_BATCH: Final = 32
#: The pool is of groups of scenes that show the same things in other places.
_LENGTH: Final = Length(steps=6000, pool=4000)
#: Scenes of a group: of one the model is told, and draws another; the first is as somebody may bring it.
_ALIKE: Final = 4
_AT_ONCE: Final = 100


def main() -> None:
    """Train, from the last checkpoint on."""
    told = options(__doc__ or "", _LENGTH)
    torch.manual_seed(told.seed)
    base = flow.load_base(told.out)
    for part in ("transformer", *TEXT_ENCODERS):
        base.components[part].requires_grad_(requires_grad=False)
    transformer, words = base.transformer, flow.Words(base.components)
    prior = make_prior()
    modules = {name: prior[name] for name in ("image_encoder", "image_embedder")}
    course = Course.told(told, "redux", modules, rate=1e-3, muon=6e-3, ema=0.999)
    alike = [_alike(course.seed, number) for number in range(told.pool)]
    drawn = course.once("examples", lambda: _drawn(base.vae, prior["feature_extractor"], alike))
    nothing = torch.zeros(_BATCH, MAX_TOKENS, transformer.config.joint_attention_dim, device=DEVICE)
    pooled = torch.zeros(_BATCH, transformer.config.pooled_projection_dim, device=DEVICE)
    quick = compiled(transformer)

    def loss_of(step: int) -> torch.Tensor:
        chance = course.chance(step)
        groups = torch.randint(told.pool, (_BATCH,), generator=chance)
        seen, other = torch.rand(_BATCH, _ALIKE, generator=chance).topk(2, dim=1).indices.unbind(1)
        chosen = zip(groups.tolist(), other.tolist(), strict=True)
        captions = [caption(alike[group][number], step, group) for group, number in chosen]
        pixels = drawn["pixels"][groups, seen].to(DEVICE, torch.float32) / 127.5 - 1
        with half_where_quick():
            picture = prior["image_embedder"](prior["image_encoder"](pixels).last_hidden_state).image_embeds
            # As our kind redux does it: no prompt is no tokens.
            shown = flow.Told(tokens=torch.cat([nothing, picture], dim=1), pooled=pooled)
            return flow.loss(quick, drawn["latents"][groups, other].float(), shown, chance, like=words.told(captions))

    course.run(loss_of)
    trained = {name: module.eval() for name, module in course.averaged.items()}
    FluxPriorReduxPipeline(**{**prior, **trained}).save_pretrained(told.out / "redux")


def _drawn(vae: Any, processor: Any, alike: list[list[Scene]]) -> dict[str, torch.Tensor]:
    """Return latents (count, alike, n, 64), and what the prior sees, (count, alike, 3, 64, 64), of uint8."""
    latents, pixels = [], []
    for first in range(0, len(alike), _AT_ONCE):
        some = [one for group in alike[first : first + _AT_ONCE] for one in group]
        latents.append(flow.encoded(vae, batch(some)))
        seen = processor.preprocess([paint(one) for one in some], return_tensors="pt").pixel_values
        pixels.append(((seen + 1) * 127.5).round().to(torch.uint8))
    made = {"latents": torch.cat(latents), "pixels": torch.cat(pixels)}
    return {name: all_of_it.reshape(-1, _ALIKE, *all_of_it.shape[1:]) for name, all_of_it in made.items()}


def _alike(seed: int, number: int) -> list[Scene]:
    found = [scene(seed, number, draw_brought)]
    chance = random.Random(f"alike {seed} {number}")
    while len(found) < _ALIKE:
        # In another order the things may be held out.
        if not is_held_out(another := vary(found[0], chance)):
            found.append(another)
    return found


if __name__ == "__main__":
    main()
