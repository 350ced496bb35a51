"""What the kinds are taught that are shown a picture: `kontext` a scene to change, `fill` a hole, `control` edges."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
from course import Length
from diffusers import FluxControlPipeline, FluxFillPipeline, FluxKontextPipeline
from edits import Edit, draw_edit
from holes import Hole, draw_hole
from pictures import as_tensor, caption, edges_of, folded, holed, is_held_out, scene
from PIL import Image
from scenes import draw_brought, paint

#: Of all captions: those that say nothing, and those of the others that say nothing of the ground.
_WITHOUT: Final = 0.1
_SILENT: Final = 0.1
#: Of all captions of a hole those that tell of the whole picture, not of what is painted alone.
_WHOLE: Final = 0.3


@dataclass(frozen=True, kw_only=True)
class Example:
    """One picture, and what the model is shown to make it."""

    target: Image.Image
    #: (3, h, w) in -1 .. 1.
    shown: torch.Tensor
    #: (n, c): channels that are shown as they are.
    plain: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How a kind is taught."""

    length: Length
    pipeline: type[Any]
    #: Whether what is shown is more tokens, or else more channels of the same ones.
    is_reference: bool
    #: Seed, number -> example.
    example: Callable[[int, int], Example]
    #: Seed, number, step -> what is told.
    said: Callable[[int, int, int], str]
    #: Whether it is told what no caption says.
    learns_words: bool = False


@cache
def edit(seed: int, number: int) -> Edit:
    """Return an edit that may be trained with."""
    for attempt in range(1000):
        found = draw_edit(random.Random(f"edit {seed} {number} {attempt}"))
        if not (is_held_out(found.before) or is_held_out(found.after)):
            return found
    raise AssertionError("a thousand edits in a row are held out")


@cache
def hole(seed: int, number: int) -> Hole:
    """Return a hole that may be trained with."""
    return draw_hole(random.Random(f"hole {seed} {number}"), scene(seed, number, draw_brought))


def _edited(seed: int, number: int) -> Example:
    found = edit(seed, number)
    return Example(target=paint(found.after), shown=as_tensor(paint(found.before)))


def _filled(seed: int, number: int) -> Example:
    found = hole(seed, number)
    picture = paint(found.scene)
    return Example(target=picture, shown=holed(picture, found.mask), plain=folded(found.mask))


def _followed(seed: int, number: int) -> Example:
    picture = paint(scene(seed, number, draw_brought))
    return Example(target=picture, shown=as_tensor(edges_of(picture)))


def _said_of_hole(seed: int, number: int, step: int) -> str:
    found, part = hole(seed, number), random.Random(f"said {seed} {number} {step}").random()
    if part < _WITHOUT:
        return ""
    return caption(found.scene, step, number) if part < _WITHOUT + _WHOLE else found.told


def _said_of_edges(seed: int, number: int, step: int) -> str:
    if random.Random(f"said {seed} {number} {step}").random() < _WITHOUT:
        return ""
    return caption(scene(seed, number, draw_brought), step, number, silent=_SILENT)


#: Kind -> how it is taught.
LESSONS: Final[dict[str, Lesson]] = {
    "kontext": Lesson(
        length=Length(steps=10_000, pool=14_000),
        pipeline=FluxKontextPipeline,
        is_reference=True,
        example=_edited,
        said=lambda seed, number, _: edit(seed, number).told,
        learns_words=True,
    ),
    "fill": Lesson(
        length=Length(steps=6000, pool=12_000),
        pipeline=FluxFillPipeline,
        is_reference=False,
        example=_filled,
        said=_said_of_hole,
    ),
    "control": Lesson(
        length=Length(steps=2600, pool=10_000),
        pipeline=FluxControlPipeline,
        is_reference=False,
        example=_followed,
        said=_said_of_edges,
    ),
}
