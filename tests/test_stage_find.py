"""detect: the subject without a model, and things by name with one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from stage_calls import MODEL, AskedEngine, cut_out, photo, run

from hotfolder.engine import Answer, Box
from hotfolder.errors import JobError
from hotfolder.stages import regions
from hotfolder.stages.subject import find_subject


def scene(
    ground: str | tuple[int, int, int] = "white", size: tuple[int, int] = (300, 200)
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    made = Image.new("RGB", size, ground)
    return made, ImageDraw.Draw(made)


def noise(picture: Image.Image, sigma: float) -> Image.Image:
    drawn = np.random.default_rng(1).normal(0, sigma, (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + drawn, 0, 255).astype(np.uint8))


def assert_found(picture: Image.Image, *expected: int, within: int = 4) -> None:
    box = find_subject(picture)
    assert box is not None
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx(expected, abs=within)


def test_a_dark_thing_before_white_is_found() -> None:
    picture, draw = scene()
    draw.ellipse((80, 40, 179, 139), fill=(30, 30, 30))
    assert_found(picture, 80, 40, 180, 140)


def test_a_white_thing_before_a_pale_ground_is_found() -> None:
    picture, draw = scene((222, 222, 226))
    draw.ellipse((80, 40, 179, 139), fill=(252, 252, 252))
    assert_found(picture.filter(ImageFilter.GaussianBlur(1.5)), 80, 40, 180, 140)


def test_the_mug_of_a_product_photo_is_found_with_its_handle() -> None:
    assert_found(photo(640, 480), 252, 125, 502, 362, within=8)


def test_a_small_copy_and_a_large_one_have_the_same_subject() -> None:
    small, large = find_subject(photo(320, 240)), find_subject(photo(1280, 960))
    assert small is not None
    assert large is not None
    assert (large.left / 4, large.right / 4) == pytest.approx((small.left, small.right), abs=4)


def test_who_stands_in_the_picture_is_found_though_the_border_cuts_it_off() -> None:
    picture, draw = scene((135, 180, 230))
    draw.rectangle((0, 120, 300, 200), fill=(60, 120, 50))
    draw.ellipse((125, 20, 174, 79), fill=(230, 190, 160))
    draw.rectangle((90, 80, 209, 200), fill=(150, 20, 60))
    assert_found(noise(picture, 6), 90, 20, 210, 200)


def test_a_thing_before_a_restless_ground_is_found() -> None:
    picture = noise(Image.new("RGB", (300, 200), (110, 140, 80)), 80)
    ImageDraw.Draw(picture).ellipse((60, 80, 139, 159), fill=(240, 200, 40))
    assert_found(picture, 60, 80, 140, 160)


def test_of_two_things_the_larger_one_is_found() -> None:
    picture, draw = scene()
    draw.ellipse((10, 10, 49, 49), fill="red")
    draw.ellipse((150, 60, 249, 159), fill="blue")
    assert_found(picture, 150, 60, 250, 160)


def test_specks_do_not_count() -> None:
    picture, draw = scene()
    draw.rectangle((100, 60, 179, 139), fill="blue")
    for at in range(5, 290, 17):
        draw.point((at, at % 50), fill="black")
    assert_found(picture, 100, 60, 180, 140)


def test_what_can_be_seen_of_a_picture_with_alpha_is_the_subject() -> None:
    picture = Image.new("RGBA", (300, 200), (255, 255, 255, 0))
    picture.paste((255, 255, 255, 255), (100, 60, 180, 140))
    assert_found(picture, 100, 60, 180, 140)


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGB", (300, 200), "teal"),
        Image.new("RGB", (1, 1)),
        Image.new("RGB", (1, 300), "white"),
        noise(Image.new("RGB", (300, 200), "gray"), 15),
        Image.linear_gradient("L").resize((300, 200)).convert("RGB"),
    ],
    ids=["flat", "one pixel", "one pixel wide", "noise", "gradient"],
)
def test_where_nothing_stands_out_nothing_is_found(picture: Image.Image) -> None:
    assert find_subject(picture) is None


def test_the_letters_of_a_word_are_one_thing() -> None:
    picture, draw = scene((30, 30, 30))
    font = ImageFont.load_default(40)
    draw.text((60, 60), "HELLO", fill="white", font=font)
    assert_found(picture, *map(int, draw.textbbox((60, 60), "HELLO", font=font)), within=6)


def test_a_thin_thing_is_found_whole() -> None:
    picture, draw = scene()
    draw.line((50, 50, 250, 150), fill="navy", width=5)
    assert_found(picture, 50, 50, 250, 150)


@pytest.mark.parametrize("blur", [0, 2, 6, 15])
@pytest.mark.parametrize("upright", [False, True])
def test_the_line_between_two_grounds_is_no_subject(upright: bool, blur: int) -> None:
    picture, draw = scene((135, 180, 230), (450, 450))
    draw.rectangle((0, 251, 450, 450), fill=(60, 120, 50))
    picture = picture.filter(ImageFilter.GaussianBlur(blur))
    assert find_subject(picture.transpose(Image.Transpose.ROTATE_90) if upright else picture) is None


def test_detect_gives_the_box_of_the_subject_and_says_where_it_is() -> None:
    picture, draw = scene(size=(200, 200))
    draw.rectangle((40, 60, 119, 159), fill="navy")
    outcome = run("detect", picture)
    (box,) = outcome.work.boxes
    assert (box.left, box.top, box.right, box.bottom, box.label) == (40, 60, 120, 160, "subject")
    (told,) = outcome.facts["boxes"]
    assert told == {"left": 40, "top": 60, "right": 120, "bottom": 160, "label": "subject", "score": box.score}
    assert 0 < box.score <= 1


def test_the_subject_takes_the_label_of_the_job() -> None:
    assert run("detect", photo(), label="mug").work.boxes[0].label == "mug"


def test_a_flat_picture_fails_with_what_to_do() -> None:
    with pytest.raises(JobError, match="nothing stands out in the picture") as caught:
        run("detect", Image.new("RGB", (80, 60), "teal"))
    assert caught.value.code == "nothing-detected"
    assert "calmer background" in caught.value.hint


def test_a_subject_too_small_fails_with_the_size_that_would_do() -> None:
    picture, draw = scene(size=(200, 100))
    draw.rectangle((40, 30, 89, 69), fill="navy")  # 50 by 40
    with pytest.raises(JobError, match=r"subject is 50x40 pixels in a picture of 200x100; min_size = 100") as caught:
        run("detect", picture, min_size=100)
    assert caught.value.code == "image-too-small"
    assert "at least 500x250 pixels" in caught.value.hint
    assert run("detect", picture, min_size=40).work.boxes


MUG = Box(left=10, top=10, right=60, bottom=50, label="mug", score=0.9)
SPOON = Box(left=70, top=10, right=75, bottom=50, label="mug", score=0.6)


def test_a_model_is_asked_by_label_and_threshold_and_given_what_can_be_seen() -> None:
    engine = AskedEngine(
        lambda _: Answer(boxes=(MUG, SPOON), model={"repo": "x"}, timings={"infer": 0.5}, notices=("slow",))
    )
    outcome = run("detect", cut_out(100, 60), engine, by="finder", label="mug", threshold=0.4)
    (asked,) = engine.asked

    assert (asked.kind, asked.preset, asked.model) == ("detect", "finder", MODEL)
    assert (asked.text, asked.threshold, asked.pictures[0].mode) == ("mug", 0.4, "RGB")
    corner = asked.pictures[0].getpixel((0, 0))
    assert isinstance(corner, tuple)
    assert min(corner) >= 250
    assert outcome.work.boxes == (MUG, SPOON)
    assert (outcome.model, outcome.timings, outcome.notices) == ({"repo": "x"}, {"infer": 0.5}, ("slow",))


def test_boxes_of_a_model_are_kept_inside_the_picture() -> None:
    beyond = Box(left=-3, top=20, right=105, bottom=70, label="mug")
    outside = Box(left=200, top=0, right=220, bottom=10, label="mug")
    engine = AskedEngine(lambda _: Answer(boxes=(beyond, outside)))
    (box,) = run("detect", photo(100, 60), engine, by="finder", label="mug").work.boxes
    assert (box.left, box.top, box.right, box.bottom) == (0, 20, 100, 60)


def test_a_model_that_finds_nothing_fails_with_what_was_looked_for() -> None:
    with pytest.raises(JobError, match=r"no 'mug' was found in the picture, with threshold = 0.3") as caught:
        run("detect", photo(100, 60), by="finder", label="mug")
    assert caught.value.code == "nothing-detected"


def test_lesser_things_below_min_size_are_left_out_and_told() -> None:
    engine = AskedEngine(lambda _: Answer(boxes=(MUG, SPOON)))
    outcome = run("detect", photo(100, 60), engine, by="finder", label="mug", min_size=30)
    assert outcome.work.boxes == (MUG,)
    assert outcome.notices == ("1 of 2 things found are below min_size, and were left out",)


def test_the_best_thing_below_min_size_fails() -> None:
    engine = AskedEngine(lambda _: Answer(boxes=(SPOON, MUG)))
    with pytest.raises(JobError, match="mug is 5x40 pixels"):
        run("detect", photo(100, 60), engine, by="finder", label="mug", min_size=30)


def flooded(mask: list[list[bool]]) -> list[list[int]]:
    """Regions by flood fill: slow and plain."""
    labels = [[0] * len(row) for row in mask]
    number = 0
    for y, row in enumerate(mask):
        for x, is_set in enumerate(row):
            if not is_set or labels[y][x]:
                continue
            number += 1
            waiting = [(y, x)]
            while waiting:
                down, across = waiting.pop()
                inside = 0 <= down < len(mask) and 0 <= across < len(row)
                if inside and mask[down][across] and not labels[down][across]:
                    labels[down][across] = number
                    waiting += [(down + a, across + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    return labels


@settings(deadline=None)
@given(
    st.integers(1, 12).flatmap(
        lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=12)
    )
)
def test_regions_are_those_of_a_flood_fill(mask: list[list[bool]]) -> None:
    assert regions.label(np.array(mask)).tolist() == flooded(mask)


def test_a_long_winding_region_is_one() -> None:
    mask = np.zeros((200, 200), dtype=np.bool_)
    mask[::4] = True
    mask[2::8, -1] = mask[1::8, -1] = mask[3::8, -1] = True
    mask[6::8, 0] = mask[5::8, 0] = mask[7::8, 0] = True
    assert regions.label(mask).max() == 1
