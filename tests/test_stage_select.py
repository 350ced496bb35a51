"""select: the sharpest candidates, and those nearest to the prompt."""

import pytest
from PIL import Image, ImageFilter
from stage_calls import MODEL, AskedEngine, choose, cut_out, photo

from hotfolder.engine import Answer


def blurred(radius: float, size: tuple[int, int] = (320, 240)) -> Image.Image:
    return photo(*size).filter(ImageFilter.GaussianBlur(radius))


def test_the_sharpest_go_on_the_best_first() -> None:
    chosen = choose([blurred(3), blurred(0), blurred(1)], keep=2)
    assert chosen.kept == (1, 2)
    assert len(chosen.scores) == 3
    assert chosen.scores[1] > chosen.scores[2] > chosen.scores[0]


def test_size_does_not_decide() -> None:
    small, large = photo(320, 240), photo(1280, 960)
    assert choose([large, small.filter(ImageFilter.GaussianBlur(2))]).kept == (0,)
    assert choose([large.filter(ImageFilter.GaussianBlur(8)), small]).kept == (1,)
    scores = choose([large, small]).scores
    assert scores[0] == pytest.approx(scores[1], rel=0.5)


def test_of_equals_the_first_goes_on() -> None:
    assert choose([photo(), photo(), photo()], keep=2).kept == (0, 1)


def test_who_keeps_more_than_there_is_keeps_all() -> None:
    assert choose([blurred(2), blurred(0)], keep=9).kept == (1, 0)


def test_of_nothing_nothing_goes_on() -> None:
    assert choose([]).kept == ()


def test_pictures_of_one_pixel_are_measured_too() -> None:
    assert choose([Image.new("RGB", (1, 1)), Image.new("RGB", (1, 400)), cut_out(9, 1)], keep=3).kept == (0, 1, 2)


def test_clip_is_asked_once_with_all_pictures_and_the_prompt() -> None:
    engine = AskedEngine(lambda _: Answer(scores=(0.1, 0.5, 0.5), model={"repo": "x"}, notices=("told",)))
    chosen = choose([photo(20, 20), cut_out(20, 10), photo(9, 9)], engine, by="clip", keep=2)
    (asked,) = engine.asked

    assert (asked.kind, asked.preset, asked.model, asked.text) == ("clip", "clip", MODEL, "a red mug")
    assert [picture.mode for picture in asked.pictures] == ["RGB"] * 3
    assert chosen.kept == (1, 2)
    assert (chosen.scores, chosen.model, chosen.notices) == ((0.1, 0.5, 0.5), {"repo": "x"}, ("told",))


def test_a_model_that_leaves_a_picture_out_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="asked about 2 pictures, and gave 1 scores"):
        choose([photo(9, 9)] * 2, AskedEngine(lambda _: Answer(scores=(0.5,))), by="clip")


def test_what_a_person_is_to_pick_is_never_run() -> None:
    with pytest.raises(RuntimeError, match="a person"):
        choose([photo(9, 9)], by="review")
