"""What the kinds of the tiny model are taught that are shown a picture: edits, holes, edges, variations."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from check import RIGHT, check
from diffusers import FluxFillPipeline
from edits import draw_edit
from holes import draw_hole, empty
from lessons import LESSONS, edit, hole
from models import DOWN, words
from pictures import as_tensor, folded, is_held_out, scene
from PIL import ImageChops
from scenes import SIDE, draw_scene, mask_of, paint, vary

EDITS = [draw_edit(random.Random(number)) for number in range(150)]


def test_every_sort_of_edit_is_drawn() -> None:
    counts = Counter(one.change for one in EDITS)
    assert set(counts) == {"recolour", "remove", "add", "replace", "ground"}
    assert min(counts.values()) >= 10


def test_an_edit_leads_from_one_right_picture_to_another() -> None:
    for one in EDITS:
        for shown in (one.before, one.after):
            assert check(paint(shown), shown) == RIGHT


def test_an_edit_changes_what_it_tells_and_nothing_else() -> None:
    for one in EDITS:
        before, after = paint(one.before), paint(one.after)
        apart = np.asarray(ImageChops.difference(before, after).convert("L")) > 0
        assert apart.any(), one.told
        changed = set(one.before.things) ^ set(one.after.things)
        if one.change != "ground":
            allowed = np.zeros((SIDE, SIDE), dtype=bool)
            for thing in changed:
                allowed |= np.asarray(mask_of(thing, 4 * SIDE).resize((SIDE, SIDE))) > 0
            assert not (apart & ~allowed).any(), one.told


def test_an_edit_names_what_it_changes() -> None:
    for one in EDITS:
        for thing in set(one.before.things) ^ set(one.after.things):
            # Of a thing that becomes another the new colour or name is told, and the old name; or "it", of one alone.
            assert thing.name in one.told or (" it " in one.told and len(one.before.things) == 1)


def test_every_word_that_is_told_is_known() -> None:
    told = {word for one in EDITS for word in one.told.split()}
    told |= {word for number in range(50) for word in hole(1, number).told.split()}
    assert told <= set(words())


def test_a_hole_covers_its_thing_and_what_is_left_is_right_without_it() -> None:
    for number in range(60):
        drawn = draw_hole(random.Random(number))
        thing = np.asarray(mask_of(drawn.thing, 4 * SIDE).resize((SIDE, SIDE))) > 127
        assert not (thing & ~(np.asarray(drawn.mask) > 127)).any()
        assert check(paint(empty(drawn)), empty(drawn)) == RIGHT
        assert f"{drawn.thing.colour} {drawn.thing.name}" in drawn.told


def test_a_mask_is_folded_as_the_pipeline_folds_it() -> None:
    mask = hole(1, 5).mask
    given = torch.from_numpy(np.asarray(mask) > 127).float()[None, None]

    class Vae:
        """Gives back nothing of interest."""

        config = type("Config", (), {"shift_factor": 0.0, "scaling_factor": 1.0})

        def encode(self, image: torch.Tensor) -> Any:
            latents = torch.zeros(len(image), 16, SIDE // DOWN, SIDE // DOWN)
            return type("Encoded", (), {"latents": latents})

    pipeline = object.__new__(FluxFillPipeline)
    object.__setattr__(pipeline, "vae", Vae())
    object.__setattr__(pipeline, "vae_scale_factor", DOWN)
    picture = torch.zeros(1, 3, SIDE, SIDE)
    found, _ = pipeline.prepare_mask_latents(given, picture, 1, 16, 1, SIDE, SIDE, torch.float32, "cpu", None)
    assert torch.equal(found[0], folded(mask).float())


def test_a_variation_shows_the_same_elsewhere() -> None:
    for number in range(40):
        first = draw_scene(random.Random(number))
        other = vary(first, random.Random(number))
        assert {(thing.name, thing.colour) for thing in first.things} == {
            (thing.name, thing.colour) for thing in other.things
        }
        assert other.ground == first.ground
        assert paint(other).tobytes() != paint(first).tobytes()
        assert check(paint(other), other) == RIGHT


@pytest.mark.parametrize("kind", LESSONS)
def test_a_lesson_is_the_same_each_time_and_never_what_is_scored(kind: str) -> None:
    lesson = LESSONS[kind]
    for number in range(10):
        example, again = lesson.example(1, number), lesson.example(1, number)
        assert example.target.tobytes() == again.target.tobytes()
        assert torch.equal(example.shown, again.shown)
        assert example.shown.shape == (3, SIDE, SIDE)
        assert not torch.equal(example.shown, as_tensor(example.target))
        assert lesson.said(1, number, 7) == lesson.said(1, number, 7)
    if kind == "kontext":
        assert not any(is_held_out(edit(1, number).after) for number in range(50))
    else:
        assert not any(is_held_out(scene(1, number)) for number in range(50))
