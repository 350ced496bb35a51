"""The scenes that the tiny model is taught, what is said of them, and the checker that scores it."""

import random
from dataclasses import replace

import pytest
from captions import say, words
from check import RIGHT, Verdict, check, look, place_of
from pictures import held_out, is_held_out, scene
from PIL import Image, ImageFilter
from scenes import COLOURS, PLACES, SIDE, THINGS, Ground, Scene, Thing, draw_brought, draw_scene, paint

SCENES = [draw_scene(random.Random(number)) for number in range(120)]
ALONE = [one for one in SCENES if len(one.things) == 1]


def other(scene: Scene, **changed: str) -> Scene:
    """The same but for its first thing."""
    return replace(scene, things=(replace(scene.things[0], **changed), *scene.things[1:]))  # type: ignore[arg-type]


def test_a_drawn_scene_is_right_in_all_respects() -> None:
    assert [number for number, one in enumerate(SCENES) if check(paint(one), one) != RIGHT] == []


def test_things_that_stand_a_little_elsewhere_are_right_too() -> None:
    brought = [draw_brought(random.Random(number)) for number in range(120)]
    assert [number for number, one in enumerate(brought) if check(paint(one), one) != RIGHT] == []
    ours = {thing.at for number in range(400) for thing in draw_scene(random.Random(number)).things}
    assert {all(thing.at in ours for thing in one.things) for one in brought} == {True, False}


def test_a_blurred_one_is_right_too() -> None:
    """As a VAE of so few pixels gives it back."""
    blurred = [paint(one).filter(ImageFilter.GaussianBlur(1)) for one in SCENES]
    wrong = [check(picture, one) != RIGHT for picture, one in zip(blurred, SCENES, strict=True)]
    assert sum(wrong) <= 2


@pytest.mark.parametrize("number", range(20))
def test_what_is_wrong_is_found_and_nothing_else(number: int) -> None:
    chance = random.Random(number)
    told = ALONE[number]
    thing = told.things[0]
    colour = chance.choice([name for name in COLOURS if name != thing.colour])
    name = chance.choice([name for name in THINGS if name != thing.name])
    place = next(place for place in PLACES if place != place_of(thing.at))
    picture = paint(told)

    assert check(picture, other(told, colour=colour)) == replace(RIGHT, colour=False)
    assert check(picture, other(told, name=name)) == replace(RIGHT, thing=False)
    if thing.place:
        assert check(picture, other(told, place=place)) == replace(RIGHT, place=False)


def test_a_thing_too_many_is_wrong() -> None:
    for one in [one for one in SCENES if len(one.things) > 1]:
        assert not check(paint(one), replace(one, things=one.things[1:])).thing


def test_things_in_another_order_are_in_the_wrong_place() -> None:
    several = [one for one in SCENES if len(one.things) > 1]
    for one in several:
        assert check(paint(one), replace(one, things=one.things[::-1])) == replace(RIGHT, place=False)


def test_a_ground_of_another_colour_is_found() -> None:
    thing = Thing(name="mug", colour="red", at=(0.5, 0.5), radius=0.2)
    grounds = [Ground(kind="plain", colours=(name,)) for name in COLOURS if name != "red"]
    grounds += [Ground(kind="day"), Ground(kind="night"), Ground(kind="gradient", colours=("blue", "white"))]
    for drawn in grounds:
        picture = paint(Scene(things=(thing,), ground=drawn))
        right = [asked for asked in grounds if check(picture, Scene(things=(thing,), ground=asked)).colour]
        assert right == [drawn]


def test_an_empty_picture_shows_nothing() -> None:
    empty = Image.new("RGB", (SIDE, SIDE), "white")
    assert look(empty) == []
    assert check(empty, ALONE[0]) == Verdict(colour=False, thing=False, place=False)


def test_the_same_scene_makes_the_same_pixels_and_another_seed_others() -> None:
    one = next(one for one in SCENES if one.ground.kind == "night")
    assert paint(one).tobytes() == paint(one).tobytes()
    assert paint(one).tobytes() != paint(replace(one, seed=one.seed + 1)).tobytes()


def test_every_word_of_every_caption_is_known() -> None:
    said = {word for number, one in enumerate(SCENES) for word in say(one, random.Random(number)).split()}
    assert {word.strip(",") for word in said} <= set(words())


def test_a_caption_names_everything_that_it_is_scored_by() -> None:
    for number, one in enumerate(SCENES):
        text = say(one, random.Random(number))
        assert all(f"{thing.colour} {thing.name}" in text for thing in one.things)
        assert all(colour in text for colour in one.ground.colours)


def test_what_is_scored_is_never_trained_with() -> None:
    assert not any(is_held_out(scene(1, number)) for number in range(200))
    assert all(is_held_out(held_out(1, number)) for number in range(50))
