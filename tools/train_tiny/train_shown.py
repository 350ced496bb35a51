"""Trains a kind that is shown a picture; needs the model of train_text2img.py, from whose weights it begins.

    python tools/train_tiny/train_shown.py kontext|fill|control --out build/tiny [--steps N]

Stopped, it goes on from its last checkpoint. Writes OUT/KIND, a whole pipeline as diffusers loads it.
"""

import random
from typing import Any, Final

import flow
import torch
from captions import said_freely
from course import Course, compiled, half_where_quick, options
from lessons import LESSONS, Lesson
from models import TEXT_ENCODERS
from pictures import as_tensor

_BATCH: Final = 32
_AT_ONCE: Final = 250


def main() -> None:
    """Train, from the last checkpoint on."""
    told = options(__doc__ or "", {kind: lesson.length for kind, lesson in LESSONS.items()})
    lesson = LESSONS[told.kind]
    torch.manual_seed(told.seed)
    base = flow.load_base(told.out, told.kind)
    transformer = flow.from_text2img(told.out, told.kind)
    # Also those that do not learn: their own are kept, whatever text2img learns later.
    texts = {name: base.components[name].requires_grad_(lesson.learns_words) for name in TEXT_ENCODERS}
    modules = {"transformer": transformer, **texts}
    course = Course.told(told, told.kind, modules, rate=1e-3, muon=4e-3, ema=0.999)
    words = flow.Words(base.components)
    drawn = course.once("examples", lambda: _drawn(lesson, base.vae, course.seed, told.pool))
    quick = compiled(transformer)

    def loss_of(step: int) -> torch.Tensor:
        chance = course.chance(step)
        chosen = torch.randint(told.pool, (_BATCH,), generator=chance).tolist()
        free = random.Random(f"said {course.seed} {step}")
        said = [said_freely(lesson.said(course.seed, number, step), free) for number in chosen]
        shown = drawn["shown"][chosen].float()
        if "plain" in drawn:
            shown = torch.cat([shown, drawn["plain"][chosen].float()], dim=2)
        beside, reference = (None, shown) if lesson.is_reference else (shown, None)
        target = drawn["target"][chosen].float()
        with half_where_quick():
            return flow.loss(quick, target, words.told(said), chance, beside=beside, reference=reference)

    course.run(loss_of)
    parts: dict[str, Any] = {**base.components, **{name: module.eval() for name, module in course.averaged.items()}}
    parts = {name: part for name, part in parts.items() if part is not None}
    lesson.pipeline(**parts).save_pretrained(told.out / told.kind)


def _drawn(lesson: Lesson, vae: Any, seed: int, count: int) -> dict[str, torch.Tensor]:
    """Return the examples, encoded: (count, n, c) each."""
    made: dict[str, list[torch.Tensor]] = {}
    for first in range(0, count, _AT_ONCE):
        some = [lesson.example(seed, number) for number in range(first, min(count, first + _AT_ONCE))]
        made.setdefault("target", []).append(flow.encoded(vae, torch.stack([as_tensor(one.target) for one in some])))
        made.setdefault("shown", []).append(flow.encoded(vae, torch.stack([one.shown for one in some])))
        if plain := [one.plain for one in some if one.plain is not None]:
            made.setdefault("plain", []).append(torch.stack(plain))
    return {name: torch.cat(parts) for name, parts in made.items()}


if __name__ == "__main__":
    main()
