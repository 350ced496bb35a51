"""crop, resize, pad, rotate and variants."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pydantic import ValidationError
from stage_calls import cut_out, photo, picture_of, run

from hotfolder.engine import Box
from hotfolder.errors import JobError
from hotfolder.stagekeys import Resize
from hotfolder.stages import framing
from hotfolder.stages.work import Work

sides = st.integers(1, 300)
shapes = st.builds("{}:{}".format, st.integers(1, 40), st.integers(1, 40))


def numbered(width: int, height: int) -> Image.Image:
    """Red tells the column, green the row."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return Image.fromarray(np.stack([columns, rows, np.zeros_like(rows)], axis=-1))


def span(picture: Image.Image) -> tuple[int, int, int, int]:
    """Which part of a numbered picture it is."""
    first, last = picture.getpixel((0, 0)), picture.getpixel((picture.width - 1, picture.height - 1))
    assert isinstance(first, tuple)
    assert isinstance(last, tuple)
    return int(first[0]), int(first[1]), int(last[0]) + 1, int(last[1]) + 1


# Crop.


def test_crop_cuts_out_its_box_to_the_pixel() -> None:
    outcome = run("crop", numbered(20, 10), box=[3, 2, 9, 7])
    assert outcome.work.picture.tobytes() == numbered(20, 10).crop((3, 2, 9, 7)).tobytes()
    assert outcome.facts == {"box": [3, 2, 9, 7]}


def test_padding_stops_at_the_edge_of_the_picture() -> None:
    assert span(picture_of("crop", numbered(20, 10), box=[3, 2, 9, 7], padding=4)) == (0, 0, 13, 10)


@pytest.mark.parametrize("box", [[0, 0, 21, 10], [0, 0, 20, 11], [40, 0, 50, 5]])
def test_a_box_that_is_not_in_the_picture_is_refused(box: list[int]) -> None:
    with pytest.raises(JobError, match=r"reaches beyond the picture, which has 20x10 pixels") as caught:
        run("crop", numbered(20, 10), box=box)
    assert caught.value.code == "bad-value"


def test_crop_takes_the_best_of_the_things_that_were_found() -> None:
    found = (Box(left=5, top=3, right=10, bottom=8), Box(left=0, top=0, right=2, bottom=2))
    work = Work(pictures={"": numbered(20, 10)}, boxes=found)
    assert span(picture_of("crop", work, padding=1)) == (4, 2, 11, 9)


def test_its_own_box_goes_before_what_was_found() -> None:
    work = Work(pictures={"": numbered(20, 10)}, boxes=(Box(left=5, top=3, right=10, bottom=8),))
    assert span(picture_of("crop", work, box=[0, 0, 3, 3])) == (0, 0, 3, 3)


def test_a_box_is_extended_to_the_shape_around_its_middle() -> None:
    assert span(picture_of("crop", numbered(60, 40), box=[20, 10, 30, 20], aspect="2:1")) == (15, 10, 35, 20)


def test_near_the_edge_the_extended_box_is_moved_into_the_picture() -> None:
    assert span(picture_of("crop", numbered(60, 40), box=[0, 0, 10, 10], aspect="2:1")) == (0, 0, 20, 10)
    assert span(picture_of("crop", numbered(60, 40), box=[50, 30, 60, 40], aspect="1:2")) == (50, 20, 60, 40)


def test_a_box_too_long_for_its_shape_is_cut_and_the_job_is_told() -> None:
    outcome = run("crop", numbered(60, 40), box=[0, 0, 60, 10], aspect="1:1")
    assert outcome.work.picture.size == (40, 40)
    assert outcome.notices == (
        "the box does not fit into a frame of this shape inside the picture: part of it was cut off",
    )


@pytest.mark.parametrize(
    ("gravity", "left"),
    [("left", 0), ("top-left", 0), ("center", 10), ("top", 10), ("bottom", 10), ("right", 20), ("bottom-right", 20)],
)
def test_gravity_places_the_largest_part_of_a_shape(gravity: str, left: int) -> None:
    assert span(picture_of("crop", numbered(40, 20), aspect="1:1", gravity=gravity)) == (left, 0, left + 20, 20)


@pytest.mark.parametrize(("gravity", "top"), [("top", 0), ("left", 10), ("bottom", 20), ("bottom-left", 20)])
def test_gravity_places_it_in_a_high_picture_too(gravity: str, top: int) -> None:
    assert span(picture_of("crop", numbered(20, 40), aspect="1:1", gravity=gravity)) == (0, top, 20, top + 20)


def test_gravity_draws_the_frame_to_the_subject() -> None:
    scene = Image.new("RGB", (400, 100), "white")
    ImageDraw.Draw(scene).ellipse((300, 20, 360, 80), fill="navy")
    outcome = run("crop", scene, aspect="1:1", gravity="subject")
    left, top, right, bottom = outcome.facts["box"]
    assert (top, bottom, right - left) == (0, 100, 100)
    assert left == pytest.approx(280, abs=3)


def test_without_a_subject_the_centre_is_kept_and_the_job_is_told() -> None:
    outcome = run("crop", Image.new("RGB", (40, 20), "red"), aspect="1:1", gravity="subject")
    assert outcome.facts == {"box": [10, 0, 30, 20]}
    assert outcome.notices == (framing.NO_SUBJECT,)


@given(width=sides, height=sides, aspect=shapes)
def test_the_largest_part_touches_two_sides_and_has_the_shape(width: int, height: int, aspect: str) -> None:
    across, down = map(int, aspect.split(":"))
    made = framing.largest((width, height), aspect)

    assert made[0] == width or made[1] == height
    assert 1 <= made[0] <= width
    assert 1 <= made[1] <= height
    assert abs(made[0] * down - made[1] * across) <= max(across, down)


@given(width=sides, height=sides, aspect=shapes)
def test_the_smallest_frame_holds_the_picture_and_has_the_shape(width: int, height: int, aspect: str) -> None:
    across, down = map(int, aspect.split(":"))
    made = framing.smallest((width, height), aspect)

    assert made[0] == width or made[1] == height
    assert made[0] >= width
    assert made[1] >= height
    assert abs(made[0] * down - made[1] * across) <= max(across, down)


@settings(deadline=None, max_examples=60)
@given(width=sides, height=sides, aspect=shapes, padding=st.integers(0, 50), data=st.data())
def test_a_crop_lies_inside_the_picture_and_holds_its_box_unless_it_says_so(
    width: int, height: int, aspect: str, padding: int, data: st.DataObject
) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    keys: dict[str, Any] = {"box": [left, top, right, bottom], "padding": padding, "aspect": aspect}
    outcome = run("crop", Image.new("RGB", (width, height)), **keys)
    made = outcome.facts["box"]

    assert 0 <= made[0] < made[2] <= width
    assert 0 <= made[1] < made[3] <= height
    holds = made[0] <= left and made[1] <= top and made[2] >= right and made[3] >= bottom
    assert holds or outcome.notices


# Resize.


@pytest.mark.parametrize(
    ("keys", "size"),
    [
        ({"width": 60}, (60, 40)),
        ({"height": 10}, (15, 10)),
        ({"width": 1}, (1, 1)),
        ({"width": 50, "height": 50}, (50, 50)),
        ({"width": 50, "height": 50, "fit": "contain"}, (50, 50)),
        ({"width": 50, "height": 50, "fit": "stretch"}, (50, 50)),
    ],
)
def test_resize_makes_the_size_that_is_asked_for(keys: dict[str, Any], size: tuple[int, int]) -> None:
    assert picture_of("resize", photo(30, 20), **keys).size == size


@settings(deadline=None, max_examples=60)
@given(width=sides, height=sides, to=st.tuples(sides, sides), fit=st.sampled_from(["cover", "contain", "stretch"]))
def test_resize_makes_any_size_of_any_other(width: int, height: int, to: tuple[int, int], fit: str) -> None:
    made = picture_of(
        "resize", Image.new("RGB", (width, height), "red"), width=to[0], height=to[1], fit=fit, color="red"
    )
    assert made.size == to
    assert made.getcolors() == [(to[0] * to[1], (255, 0, 0))]


def test_cover_cuts_off_on_both_sides_alike() -> None:
    bars = Image.new("RGB", (40, 20), "red")
    bars.paste("white", (10, 0, 30, 20))
    assert picture_of("resize", bars, width=20, height=20).getcolors() == [(400, (255, 255, 255))]


def test_contain_adds_bars_of_the_colour_on_both_sides_alike() -> None:
    made = picture_of("resize", Image.new("RGB", (40, 20), "white"), width=40, height=40, fit="contain", color="teal")
    assert made.crop((0, 10, 40, 30)).getcolors() == [(800, (255, 255, 255))]
    assert made.crop((0, 0, 40, 10)).getcolors() == [(400, (0, 128, 128))]
    assert made.crop((0, 30, 40, 40)).getcolors() == [(400, (0, 128, 128))]


def test_bars_of_a_transparent_colour_make_a_picture_with_alpha() -> None:
    made = picture_of("resize", photo(40, 20), width=40, height=40, fit="contain", color="#00000000")
    assert made.mode == "RGBA"
    assert made.getchannel("A").getcolors() == [(800, 0), (800, 255)]


def test_a_transparent_edge_takes_no_colour_from_what_cannot_be_seen() -> None:
    given = Image.new("RGBA", (40, 40), (0, 255, 0, 0))
    given.paste((255, 0, 0, 255), (0, 0, 20, 40))
    made = np.asarray(picture_of("resize", given, width=15))
    visible = made[made[..., 3] > 20]
    assert visible[:, 1].max() == 0


def test_a_colour_that_nobody_knows_is_refused_with_the_text_of_the_job() -> None:
    with pytest.raises(ValidationError, match="a colour is #rrggbb, #rrggbbaa or a name that CSS knows"):
        Resize.model_validate({"width": 50, "color": "greenish"})


@pytest.mark.parametrize(
    ("colour", "made"),
    [
        ("#0a0B0c", (10, 11, 12)),
        ("#0a0b0c80", (10, 11, 12, 128)),
        ("rebeccapurple", (102, 51, 153)),
        ("transparent", (0, 0, 0, 0)),
    ],
)
def test_colours_are_written_as_in_css(colour: str, made: tuple[int, ...]) -> None:
    assert picture_of("pad", photo(4, 4), left=1, color=colour).getpixel((0, 0)) == made


def test_a_size_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(JobError, match="16384x16384000 pixels; at most 268 million") as caught:
        run("resize", Image.new("RGB", (1, 1000)), width=16_384)
    assert caught.value.code == "bad-value"


# Pad.


def test_pad_adds_a_border_and_gives_the_mask_of_it() -> None:
    given = numbered(6, 4)
    work = run("pad", given, left=1, top=2, right=3, bottom=4, color="#102030").work

    assert work.picture.size == (10, 10)
    assert work.picture.crop((1, 2, 7, 6)).tobytes() == given.tobytes()
    assert work.picture.getpixel((0, 0)) == work.picture.getpixel((9, 9)) == (0x10, 0x20, 0x30)
    assert work.mask is not None
    assert work.mask.crop((1, 2, 7, 6)).getcolors() == [(24, 0)]
    assert work.mask.getcolors() == [(24, 0), (76, 255)]


@pytest.mark.parametrize(
    ("size", "aspect", "made", "corner"),
    [((20, 10), "1:1", (20, 20), (0, 5)), ((10, 20), "16:9", (36, 20), (13, 0)), ((20, 10), "2:1", (20, 10), (0, 0))],
)
def test_pad_reaches_a_shape_with_as_little_as_can_be(
    size: tuple[int, int], aspect: str, made: tuple[int, int], corner: tuple[int, int]
) -> None:
    work = run("pad", Image.new("RGB", size, "white"), aspect=aspect, color="black").work
    assert work.picture.size == made
    assert work.picture.getbbox() == (*corner, corner[0] + size[0], corner[1] + size[1])


def test_pad_reaches_its_shape_beyond_what_it_adds_at_one_side() -> None:
    work = run("pad", Image.new("RGB", (20, 10), "white"), left=10, aspect="1:1", color="black").work
    assert work.picture.size == (30, 30)
    assert work.picture.getbbox() == (10, 10, 30, 20)


def test_pad_leaves_what_is_transparent_transparent() -> None:
    given = cut_out()
    made = picture_of("pad", given, top=5, color="white")
    assert made.crop((0, 5, given.width, made.height)).tobytes() == given.tobytes()
    assert made.getpixel((0, 0)) == (255, 255, 255, 255)


def test_variants_are_padded_without_a_mask() -> None:
    work = run("pad", Work(pictures={"1x1": photo(8, 8)}), left=4).work
    assert work.pictures["1x1"].size == (12, 8)
    assert work.mask is None


# Rotate.


@pytest.mark.parametrize("degrees", [0.0, 90.0, 180.0, 270.0, 360.0, -90.0, -180.0, -270.0])
def test_quarter_turns_lose_no_pixel(degrees: float) -> None:
    given = numbered(5, 3)
    turned = np.rot90(np.asarray(given), k=-int(degrees // 90))
    assert np.array_equal(np.asarray(picture_of("rotate", given, degrees=degrees)), turned)


def test_a_turn_is_clockwise() -> None:
    scene = Image.new("RGB", (101, 101), "white")
    ImageDraw.Draw(scene).ellipse((45, 5, 55, 15), fill="black")  # at twelve o'clock
    made = picture_of("rotate", scene, degrees=45.0)
    dark = np.argwhere(np.asarray(made.convert("L")) < 128).mean(axis=0) - np.array(made.size[::-1]) / 2
    assert dark[0] == pytest.approx(-dark[1], abs=1)  # between twelve and three
    assert dark[1] > 20


@settings(deadline=None, max_examples=60)
@given(width=sides, height=sides, degrees=st.floats(-360, 360).filter(lambda value: value % 90 != 0))
def test_a_turned_picture_is_just_large_enough(width: int, height: int, degrees: float) -> None:
    made = picture_of("rotate", Image.new("RGB", (width, height), "white"), degrees=degrees, color="white")
    diagonal = (width**2 + height**2) ** 0.5
    assert min(width, height) <= min(made.size)
    assert max(made.size) <= diagonal + 1
    assert made.getcolors() == [(made.width * made.height, (255, 255, 255))]


def test_the_corners_have_the_colour_and_the_edges_are_soft() -> None:
    made = picture_of("rotate", Image.new("RGB", (80, 60), "white"), degrees=20.0, color="black")
    grey = np.asarray(made.convert("L"))
    assert grey[0, 0] == grey[-1, -1] == 0
    assert grey[grey.shape[0] // 2, grey.shape[1] // 2] == 255
    assert len(np.unique(grey)) > 20
    assert grey.mean() * grey.size / 255 == pytest.approx(80 * 60, rel=0.01)


def test_transparent_corners_leave_the_picture_opaque() -> None:
    made = picture_of("rotate", photo(80, 60), degrees=20.0, color="#00000000")
    assert made.mode == "RGBA"
    assert made.getpixel((0, 0)) == (0, 0, 0, 0)
    middle = made.getpixel((made.width // 2, made.height // 2))
    assert isinstance(middle, tuple)
    assert middle[3] == 255


# Variants.


def test_variants_are_the_largest_parts_of_each_shape() -> None:
    outcome = run("variants", numbered(40, 20), aspects=["1:1", "16:9", "9:16", "2:1"])
    assert {name: picture.size for name, picture in outcome.work.pictures.items()} == {
        "1x1": (20, 20),
        "16x9": (36, 20),
        "9x16": (11, 20),
        "2x1": (40, 20),
    }
    assert outcome.facts["boxes"]["1x1"] == [10, 0, 30, 20]
    assert span(outcome.work.pictures["1x1"]) == (10, 0, 30, 20)


def test_variants_follow_the_subject() -> None:
    scene = Image.new("RGB", (400, 100), "white")
    ImageDraw.Draw(scene).ellipse((20, 20, 80, 80), fill="navy")
    boxes = run("variants", scene, aspects=["1:1", "9:16"], gravity="subject").facts["boxes"]
    assert boxes["1x1"][0] == pytest.approx(0, abs=3)
    assert boxes["9x16"][0] == pytest.approx(22, abs=3)


def test_that_nothing_stands_out_is_told_once() -> None:
    outcome = run("variants", Image.new("RGB", (40, 20)), gravity="subject")
    assert outcome.notices == (framing.NO_SUBJECT,)
