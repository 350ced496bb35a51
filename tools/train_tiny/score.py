"""Scores a trained model: how often its pictures show what held out prompts, edits, holes, edges or pictures ask for.

    python tools/train_tiny/score.py KIND [--out build/tiny] [--prompts N] [--sheet FILE]

KIND is text2img, kontext, fill, control, redux, clip or night.

By default the weights in the package; with --out those that were trained last. One JSON line for all, and one for each
sort: how many things there are, or what is changed. Shares, 0 to 1.
"""

import argparse
import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Final

import numpy as np
import torch
from check import RIGHT, check, shows_ground
from diffusers import (
    FluxControlPipeline,
    FluxFillPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    FluxPriorReduxPipeline,
)
from edits import draw_edit
from holes import draw_hole, empty
from models import MAX_TOKENS
from pictures import caption, edges_of, held_out
from PIL import Image, ImageChops, ImageFilter
from scenes import SIDE, Ground, draw_brought, paint
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from hotfolder import tiny

_AT_ONCE: Final = 25
#: As the presets say them; the scale of the guidance away from an empty prompt is of text2img only.
STEPS: Final = 20
TRUE_CFG: Final = 2.0
#: Pictures in a row of the sheet, and how many rows.
_SHEET: Final = (10, 6)
#: What diffusers calls a LoRA.
LORA: Final = "pytorch_lora_weights.safetensors"
#: Pictures of a choice that differ from the right one in a thing; one less differs in all.
_RIVALS: Final = 4
#: Pixels by which an edge may lie beside the one that it follows.
_BESIDE: Final = 2
#: Mean difference of two pictures, of 255, from which they are two.
_ANOTHER: Final = 4.0
#: PSNR, in dB, of what an edit was not to change, above which it is unchanged.
_UNCHANGED_DB: Final = 20.0

#: Kind -> its models, where there are two.
_NEEDED: Final = {"redux": ("redux", "redux-base"), "night": ("night", "text2img")}

Shares = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One picture, and what is right in it: 0 or 1, or a measure."""

    picture: Image.Image
    sort: str
    shares: Shares


def main() -> None:
    """Print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(_KINDS))
    parser.add_argument("--out", type=Path, help="where they were trained")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--sheet", type=Path, help="a picture of the first ones")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = scored(options.kind, options.prompts, seed=options.seed, out=options.out)
    print(json.dumps({"kind": options.kind, **summed(found)}))
    for sort in sorted({one.sort for one in found}):
        print(json.dumps({"sort": sort, **summed([one for one in found if one.sort == sort])}))
    if options.sheet is not None:
        _sheet([one.picture for one in found]).save(options.sheet)


def scored(
    kind: str, count: int, *, seed: int = 1, out: Path | None = None, weights: Path = tiny.WEIGHTS
) -> list[Scored]:
    """Make so many pictures and look at them.

    Args:
        out: where the models were trained; None: those that were packed into `weights`.
    """
    with tempfile.TemporaryDirectory() as folder:
        return list(_KINDS[kind](out or packed(kind, Path(folder), weights), seed, count))


def packed(kind: str, folder: Path, weights: Path) -> Path:
    """Lay out the packed models that a kind needs as a training does, in a folder, and return that."""
    for each in _NEEDED.get(kind, (kind,)):
        tiny.build(packed_name(each), folder / each, weights)
    return folder


def packed_name(kind: str) -> str:
    """Return what a trained model is called in the package."""
    return "tiny" if kind == "text2img" else f"tiny-{kind}"


def summed(found: Sequence[Scored]) -> dict[str, float]:
    """Return how many there are, and the mean of each share."""
    return {"prompts": len(found), **_shares(found)}


# --- the kinds ---


def _text2img(out: Path, seed: int, count: int) -> Iterator[Scored]:
    scenes = [held_out(seed, number) for number in range(count)]
    said = [caption(scene, seed, number) for number, scene in enumerate(scenes)]
    pipeline = _load(FluxPipeline, out / "text2img")
    for scene, picture in zip(scenes, _guided(pipeline, said), strict=True):
        verdict = check(picture, scene)
        yield Scored(picture=picture, sort=f"{len(scene.things)} things", shares=_plain(vars(verdict)))


def _kontext(out: Path, seed: int, count: int) -> Iterator[Scored]:
    chances = [random.Random(f"held out edit {seed} {number}") for number in range(count)]
    edits = [draw_edit(chance, held_out(seed, number, draw_brought)) for number, chance in enumerate(chances)]
    before = [paint(edit.before) for edit in edits]
    pipeline = _load(FluxKontextPipeline, out / "kontext")
    told = [edit.told for edit in edits]
    # As our kind kontext does it.
    same = {"max_area": SIDE * SIDE, "_auto_resize": False}
    pictures = _made(pipeline, {"prompt": told, "image": before}, same=same)
    for edit, source, picture in zip(edits, before, pictures, strict=True):
        after = paint(edit.after)
        follows = check(picture, edit.after) == RIGHT
        rest = _psnr(picture, source, ImageChops.invert(_differs(source, after)))
        shares = {"follows": float(follows), "rest_kept": float(rest > _UNCHANGED_DB), "rest_db": rest}
        yield Scored(picture=picture, sort=edit.change, shares=shares)


def _fill(out: Path, seed: int, count: int) -> Iterator[Scored]:
    scenes = [held_out(seed, number, draw_brought) for number in range(count)]
    holes = [draw_hole(random.Random(f"held out hole {seed} {number}"), scene) for number, scene in enumerate(scenes)]
    sources = [paint(empty(hole)) for hole in holes]
    pipeline = _load(FluxFillPipeline, out / "fill")
    told, masks = [hole.told for hole in holes], [hole.mask for hole in holes]
    pictures = _made(pipeline, {"prompt": told, "image": sources, "mask_image": masks})
    for hole, source, picture in zip(holes, sources, pictures, strict=True):
        # As our kind fill does it.
        whole = Image.composite(picture, source, hole.mask)
        verdict = check(whole, hole.scene)
        yield Scored(
            picture=whole,
            sort=f"{len(hole.scene.things)} things",
            shares={"follows": float(verdict.colour and verdict.thing)},
        )


def _control(out: Path, seed: int, count: int) -> Iterator[Scored]:
    scenes = [held_out(seed, number, draw_brought) for number in range(count)]
    maps = [edges_of(paint(scene)) for scene in scenes]
    said = [caption(scene, seed, number) for number, scene in enumerate(scenes)]
    pipeline = _load(FluxControlPipeline, out / "control")
    for number, picture in enumerate(_made(pipeline, {"prompt": said, "control_image": maps})):
        edges, verdict = edges_of(picture), check(picture, scenes[number])
        yield Scored(
            picture=picture,
            sort=scenes[number].ground.kind,
            shares={
                "follows": followed(maps[number], edges),
                "another": followed(maps[number - 1], edges),
                "colour": float(verdict.colour),
            },
        )


def _redux(out: Path, seed: int, count: int) -> Iterator[Scored]:
    """Two variations of each picture."""
    scenes = [held_out(seed, number, draw_brought) for number in range(count)]
    pipeline, prior = _load(FluxPipeline, out / "redux-base"), _load(FluxPriorReduxPipeline, out / "redux")
    with torch.no_grad():
        tokens = torch.cat([_seen(prior, paint(scene)) for scene in scenes])
    nothing = tokens.new_zeros(len(tokens), MAX_TOKENS, tokens.shape[2])
    embeds = list(torch.cat([nothing, tokens], dim=1))
    pooled = [tokens.new_zeros(pipeline.transformer.config.pooled_projection_dim)] * len(embeds)
    given = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    both = [list(_made(pipeline, given, seed=seed)) for seed in (0, 100_000)]
    for scene, one, other in zip(scenes, *both, strict=True):
        # Where they stand is the model's to choose.
        kept = [verdict.colour and verdict.thing for verdict in (check(one, scene), check(other, scene))]
        yield Scored(
            picture=one,
            sort=f"{len(scene.things)} things",
            shares={"kept": mean(kept), "differ": float(are_several(one, other))},
        )


def _clip(out: Path, seed: int, count: int) -> Iterator[Scored]:
    """Which of several pictures fits a caption: the right one, one with another thing changed, and others."""
    model = CLIPModel.from_pretrained(out / "clip", local_files_only=True).eval()
    processor = CLIPImageProcessorPil.from_pretrained(out / "clip", local_files_only=True)
    tokenizer = CLIPTokenizer.from_pretrained(out / "clip", local_files_only=True)
    for number in range(count):
        chance = random.Random(f"held out choice {seed} {number}")
        right = held_out(seed, number, draw_brought)
        near = [edit.after for edit in (draw_edit(chance, right) for _ in range(_RIVALS)) if edit.after != right]
        others = [held_out(seed, number + n, draw_brought) for n in range(1, _RIVALS)]
        pictures = [paint(one) for one in (right, *near, *others)]
        words = tokenizer(caption(right, seed, number), return_tensors="pt")
        with torch.no_grad():
            found = model(**words, **processor(pictures, return_tensors="pt")).logits_per_text[0].tolist()
        yield Scored(
            picture=pictures[0],
            sort=f"{len(right.things)} things",
            shares={
                "first": float(found[0] >= max(found)),
                "before_others": float(found[0] >= max(found[1 + len(near) :])),
            },
        )


def _night(out: Path, seed: int, count: int) -> Iterator[Scored]:
    """The LoRA: whatever ground is asked for, it is night."""
    scenes = [held_out(seed, number) for number in range(count)]
    said = [caption(scene, seed, number) for number, scene in enumerate(scenes)]
    pipeline = _load(FluxPipeline, out / "text2img")
    pipeline.load_lora_weights(str(out / "night"), weight_name=LORA, local_files_only=True)
    for scene, picture in zip(scenes, _guided(pipeline, said), strict=True):
        night = shows_ground(np.asarray(picture, dtype=np.float32), Ground(kind="night"))
        yield Scored(picture=picture, sort=scene.ground.kind, shares={"night": float(night)})


_KINDS: Final[dict[str, Callable[[Path, int, int], Iterator[Scored]]]] = {
    "text2img": _text2img,
    "kontext": _kontext,
    "fill": _fill,
    "control": _control,
    "redux": _redux,
    "clip": _clip,
    "night": _night,
}


# --- making pictures ---


def _load(pipeline: Any, folder: Path) -> Any:
    loaded = pipeline.from_pretrained(str(folder), local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def _guided(pipeline: Any, said: Sequence[str]) -> Iterator[Image.Image]:
    """Yield a picture for each prompt, as `tiny` makes it."""
    given = {"prompt": said, "negative_prompt": [""] * len(said)}
    return _made(pipeline, given, same={"true_cfg_scale": TRUE_CFG})


def _made(
    pipeline: Any, given: Mapping[str, Sequence[Any]], *, seed: int = 0, same: dict[str, Any] | None = None
) -> Iterator[Image.Image]:
    """Yield a picture for each of what is given, with its number as its seed. Args: same: given for all."""
    count = len(next(iter(given.values())))
    size = {"height": SIDE, "width": SIDE, "num_inference_steps": STEPS, "max_sequence_length": MAX_TOKENS}
    for first in range(0, count, _AT_ONCE):
        some = {name: _together(values[first : first + _AT_ONCE]) for name, values in given.items()}
        numbers = range(seed + first, seed + min(count, first + _AT_ONCE))
        generators = [torch.Generator("cpu").manual_seed(number) for number in numbers]
        yield from pipeline(**some, **size, **(same or {}), generator=generators).images


def _together(values: Sequence[Any]) -> Any:
    return torch.stack(list(values)) if isinstance(values[0], torch.Tensor) else values


def _seen(prior: Any, picture: Image.Image) -> torch.Tensor:
    seen = prior.encode_image(picture, "cpu", 1)
    tokens: torch.Tensor = prior.image_embedder(seen).image_embeds
    return tokens


# --- measures ---


def _plain(verdict: dict[str, bool]) -> Shares:
    return {name: float(value) for name, value in verdict.items()}


def _shares(found: Sequence[Scored]) -> Shares:
    """Return the mean of each."""
    return {name: round(mean(one.shares[name] for one in found), 4) for name in found[0].shares}


def _differs(one: Image.Image, other: Image.Image) -> Image.Image:
    """Return where two pictures differ, and a little around it: white on black."""
    apart = ImageChops.difference(one, other).convert("L").point(lambda value: 255 if value > 8 else 0)
    return apart.filter(ImageFilter.MaxFilter(7))


def _psnr(one: Image.Image, other: Image.Image, where: Image.Image) -> float:
    """Return how near two pictures are where a mask is white, in dB; at most 60, also where it is white nowhere."""
    white = np.asarray(where) > 127
    if not white.any():
        return 60.0
    off = (np.asarray(one, dtype=np.float32) - np.asarray(other, dtype=np.float32))[white]
    return min(60.0, 10 * math.log10(255**2 / max(float(np.square(off).mean()), 1e-9)))


def are_several(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures differ as two do, not only by noise."""
    off = np.asarray(one, dtype=np.float32) - np.asarray(other, dtype=np.float32)
    return bool(np.abs(off).mean() > _ANOTHER)


def followed(wanted: Image.Image, found: Image.Image) -> float:
    """Return how well edges follow others: the harmonic mean of how many lie beside one, in both directions."""
    near = 2 * _BESIDE + 1

    def share(one: Image.Image, other: Image.Image) -> float:
        here = np.asarray(one.convert("L")) > 127
        there = np.asarray(other.convert("L").filter(ImageFilter.MaxFilter(near))) > 127
        return float((here & there).sum() / max(1, here.sum()))

    back, forth = share(wanted, found), share(found, wanted)
    return 2 * back * forth / max(back + forth, 1e-9)


def _sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return the first pictures side by side."""
    across, down = _SHEET
    made = Image.new("RGB", (across * (SIDE + 4), down * (SIDE + 4)), "white")
    for number, picture in enumerate(pictures[: across * down]):
        made.paste(picture, (number % across * (SIDE + 4), number // across * (SIDE + 4)))
    return made


if __name__ == "__main__":
    main()
