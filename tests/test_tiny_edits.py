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
from models import DOWN, PACKED, words
from pictures import Arranged, as_tensor, folded, is_held_out, scene
from PIL import ImageChops
from scenes import PLACES, SIDE, Scene, arrangements, draw_brought, mask_of, paint

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


def test_the_arrangements_of_a_scene_are_pictures_of_the_same_things() -> None:
    for number in range(40):
        first = draw_brought(random.Random(number))
        others = arrangements(first)
        assert len(others) == {1: 9, 2: 4, 3: 6}[len(first.things)]
        pictures = [paint(other) for other in others]
        assert len({picture.tobytes() for picture in pictures}) == len(others)
        for other, picture in zip(others, pictures, strict=True):
            assert Counter(named(other)) == Counter(named(first))
            assert other.ground == first.ground
            assert check(picture, other) == RIGHT
        if len(others) == 9:
            assert {other.things[0].place for other in others} == set(PLACES)
            assert {other.things[0].size for other in others} == {first.things[0].size}


def named(shown: Scene) -> list[tuple[str, str]]:
    return [(thing.name, thing.colour) for thing in shown.things]


def test_noise_chooses_how_things_are_arranged() -> None:
    scenes = [scene(1, number, draw_brought) for number in range(60)]
    arranged = Arranged(scenes)
    assert not any(is_held_out(one) for one in arranged.all)
    chance = torch.Generator().manual_seed(1)
    latents = torch.randn(len(arranged.all), 16, PACKED, generator=chance)
    for number in range(60):
        found = Counter(
            arranged.chosen_by(torch.randn(16, PACKED, generator=chance), number, latents) for _ in range(200)
        )
        # All of them, none much more often than the others.
        assert set(found) == set(arranged.of(number))
        assert max(found.values()) < 3 * 200 / len(arranged.of(number))


def test_one_alone_goes_where_the_first_channel_of_the_noise_is_large() -> None:
    shown = next(one for one in (scene(1, number) for number in range(9)) if len(one.things) == 1)
    arranged = Arranged([shown])
    for which, (down, across) in enumerate([(1, 0), (1, 2), (0, 1), (2, 1), (1, 1), (0, 0), (0, 2), (2, 0), (2, 2)]):
        noise = torch.zeros(4, 4, PACKED)
        noise[down : down + 2, across : across + 2, 0] = 1.0
        assert arranged.chosen_by(noise.flatten(0, 1), 0, torch.zeros(9, 16, PACKED)) == which


def test_of_several_that_arrangement_is_chosen_which_is_like_the_noise() -> None:
    arranged = Arranged([next(one for one in (scene(1, number) for number in range(99)) if len(one.things) == 3)])
    latents = torch.randn(len(arranged.all), 16, PACKED, generator=torch.Generator().manual_seed(1))
    for which in arranged.of(0):
        assert arranged.chosen_by(latents[which], 0, latents) == which


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
