"""Scores a trained model: how often its pictures show what held out prompts say.

python tools/train_tiny/score.py build/tiny/text2img [--prompts 500] [--sheet sheet.png]
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from check import Verdict, check
from diffusers import FluxPipeline
from models import MAX_TOKENS
from pictures import caption, held_out
from PIL import Image
from scenes import SIDE

_AT_ONCE: Final = 25
_STEPS: Final = 20
#: Pictures in a row of the sheet, and how many rows.
_SHEET: Final = (10, 6)


def main() -> None:
    """Print the scores, one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--things", type=int, choices=[1, 2, 3], help="in every scene; by default as in training")
    parser.add_argument("--sheet", type=Path, help="a picture of the first ones")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    pipeline = FluxPipeline.from_pretrained(str(options.model), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    scenes = [held_out(options.seed, number, things=options.things) for number in range(options.prompts)]
    said = [caption(scene, options.seed, number) for number, scene in enumerate(scenes)]
    pictures = list(drawn(pipeline, said))
    verdicts = [check(picture, scene) for picture, scene in zip(pictures, scenes, strict=True)]
    print(json.dumps({"prompts": len(said), **shares(verdicts)}))
    for count in (1, 2, 3):
        some = [verdict for verdict, scene in zip(verdicts, scenes, strict=True) if len(scene.things) == count]
        if some:
            print(json.dumps({"things": count, "prompts": len(some), **shares(some)}))
    if options.sheet is not None:
        sheet(pictures).save(options.sheet)


def drawn(pipeline: Any, prompts: list[str]) -> Iterator[Image.Image]:
    """Yield a picture of each prompt, with the number of the prompt as its seed."""
    for first in range(0, len(prompts), _AT_ONCE):
        some = prompts[first : first + _AT_ONCE]
        seeds = [torch.Generator("cpu").manual_seed(first + number) for number in range(len(some))]
        yield from pipeline(
            some,
            height=SIDE,
            width=SIDE,
            num_inference_steps=_STEPS,
            generator=seeds,
            max_sequence_length=MAX_TOKENS,
        ).images


def shares(verdicts: list[Verdict]) -> dict[str, float]:
    """Return which part of the pictures is right, in each respect."""
    return {
        key: round(sum(getattr(verdict, key) for verdict in verdicts) / len(verdicts), 4)
        for key in ("colour", "thing", "place")
    }


def sheet(pictures: list[Image.Image]) -> Image.Image:
    """Return the first pictures side by side."""
    across, down = _SHEET
    made = Image.new("RGB", (across * (SIDE + 4), down * (SIDE + 4)), "white")
    for number, picture in enumerate(pictures[: across * down]):
        made.paste(picture, (number % across * (SIDE + 4), number // across * (SIDE + 4)))
    return made


if __name__ == "__main__":
    main()
