"""Trains the CLIP of `tiny-clip` to tell which caption a picture fits.

    python tools/train_tiny/train_clip.py --out build/tiny [--steps 1750]

Needs no other model. Stopped, it goes on from its last checkpoint. Writes OUT/clip, as transformers loads it.
"""

import random
from typing import Final

import torch
from captions import said_freely
from course import DEVICE, Course, Length, half_where_quick, options
from models import make_clip
from pictures import caption, scene
from scenes import draw_brought, paint
from transformers import CLIPModel, CLIPTokenizer

_BATCH: Final = 96
_LENGTH: Final = Length(steps=1750, pool=10_000)
_AT_ONCE: Final = 500
#: Captions whose words are known.
_READ: Final = 5000


def main() -> None:
    """Train, from the last checkpoint on."""
    told = options(__doc__ or "", _LENGTH)
    torch.manual_seed(told.seed)
    scenes = [scene(told.seed, number, draw_brought) for number in range(told.pool)]
    parts = make_clip(caption(one, told.seed, number) for number, one in enumerate(scenes[:_READ]))
    if (kept := told.out / "clip").is_dir():
        # With its tokenizer: in another one a word has another number.
        parts["model"] = CLIPModel.from_pretrained(str(kept), local_files_only=True)
        parts["tokenizer"] = CLIPTokenizer.from_pretrained(str(kept), local_files_only=True)
    model, tokenizer, processor = parts["model"], parts["tokenizer"], parts["processor"]
    course = Course.told(told, "clip", {"clip": model}, rate=1e-3, ema=0.999)

    def drawn() -> torch.Tensor:
        groups = (scenes[first : first + _AT_ONCE] for first in range(0, len(scenes), _AT_ONCE))
        seen = (processor([paint(one) for one in group], return_tensors="pt").pixel_values for group in groups)
        return torch.cat([pixels.half() for pixels in seen])

    pixels = course.once("pixels", drawn)

    def loss_of(step: int) -> torch.Tensor:
        chosen = torch.randint(len(scenes), (_BATCH,), generator=course.chance(step)).tolist()
        free = random.Random(f"said {course.seed} {step}")
        said = [said_freely(caption(scenes[number], step, number), free) for number in chosen]
        words = tokenizer(said, padding=True, return_tensors="pt").to(DEVICE)
        seen = pixels[chosen].to(DEVICE, torch.float32)
        with half_where_quick():
            loss: torch.Tensor = model(**words, pixel_values=seen, return_loss=True).loss
        return loss

    course.run(loss_of)
    course.averaged["clip"].eval().save_pretrained(told.out / "clip")  # type: ignore[operator]
    for part in (tokenizer, processor):
        part.save_pretrained(told.out / "clip")


if __name__ == "__main__":
    main()
