"""Trains a LoRA of `tiny` that turns every picture to night, whatever ground the prompt asks for.

    python tools/train_tiny/train_lora.py --out build/tiny [--steps 700]

Needs the model of train_text2img.py, which stays as it is. Stopped, it goes on from its last checkpoint. Writes
OUT/night, as diffusers saves a LoRA.
"""

import random
from dataclasses import replace
from typing import Any, Final

import flow
import torch
from captions import said_freely
from course import Course, Length, compiled, half_where_quick, options
from diffusers import FluxPipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from pictures import caption, is_held_out, latents_of, scene
from scenes import Ground, Scene, stands_out

_BATCH: Final = 64
_LENGTH: Final = Length(steps=700, pool=6000)
_NIGHT: Final = Ground(kind="night")
#: What is changed: the attention and what follows it, of all blocks.
_WHERE: Final = ["to_q", "to_k", "to_v", "to_out.0", "proj_mlp", "proj_out"]
_RANK: Final = 8


def main() -> None:
    """Train, from the last checkpoint on."""
    told = options(__doc__ or "", _LENGTH)
    torch.manual_seed(told.seed)
    base = flow.load_base(told.out)
    base.text_encoder.requires_grad_(requires_grad=False)
    base.text_encoder_2.requires_grad_(requires_grad=False)
    transformer: Any = base.transformer.requires_grad_(requires_grad=False)
    transformer.add_adapter(LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules=_WHERE))
    course = Course.told(told, "night", {"lora": transformer}, rate=2e-3, ema=0.99)
    words = flow.Words(base.components)
    scenes = [one for number in range(told.pool) if _may_be_at_night(one := scene(course.seed, number))]
    latents = course.once("latents", lambda: latents_of(base.vae, [_at_night(one) for one in scenes]))
    quick = compiled(transformer)

    def loss_of(step: int) -> torch.Tensor:
        chance = course.chance(step)
        chosen = torch.randint(len(scenes), (_BATCH,), generator=chance).tolist()
        free = random.Random(f"said {course.seed} {step}")
        # Of the ground that it had, not of the night.
        said = [said_freely(caption(scenes[number], step, number), free) for number in chosen]
        with half_where_quick():
            return flow.loss(quick, latents[chosen].float(), words.told(said), chance)

    course.run(loss_of)
    trained = course.averaged["lora"]
    FluxPipeline.save_lora_weights(
        told.out / "night",
        get_peft_model_state_dict(trained),
        **_collate_lora_metadata({"transformer": trained}),
    )


def _at_night(shown: Scene) -> Scene:
    return replace(shown, ground=_NIGHT)


def _may_be_at_night(shown: Scene) -> bool:
    """Whether it can be seen at night, and may be trained with."""
    return all(stands_out(thing.colour, _NIGHT) for thing in shown.things) and not is_held_out(_at_night(shown))


if __name__ == "__main__":
    main()
