"""prepare: maps of a picture's structure."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from stage_calls import MODEL, AskedEngine, Ticks, cut_out, photo, run

from hotfolder.engine import Answer, Question
from hotfolder.stages import regions
from hotfolder.stages.canny import find_edges
from hotfolder.stages.work import Work


def edges(picture: Image.Image, low: int = 100, high: int = 200) -> NDArray[np.bool_]:
    return find_edges(picture.convert("L"), low, high)


def square(ground: int = 0, colour: int = 255) -> Image.Image:
    made = Image.new("L", (60, 50), ground)
    made.paste(colour, (20, 15, 40, 35))
    return made


def test_without_control_the_work_is_given_back_as_it_is() -> None:
    work = Work(pictures={"": photo(20, 20)})
    assert run("prepare", work).work is work
    assert run("prepare", Work()).work.pictures == {}


def test_a_canny_map_is_white_on_black_of_the_same_size() -> None:
    work = run("prepare", photo(61, 47), control="canny").work
    assert work.control is not None
    assert (work.control.mode, work.control.size) == ("RGB", (61, 47))
    assert {colour for _, colour in work.control.getcolors() or []} == {(0, 0, 0), (255, 255, 255)}
    assert work.picture.tobytes() == photo(61, 47).tobytes()


def test_a_plain_picture_has_no_edge() -> None:
    assert not edges(Image.new("L", (30, 20), 90)).any()


def test_a_soft_gradient_has_no_edge() -> None:
    assert not edges(Image.linear_gradient("L")).any()


def test_the_edge_of_a_step_is_one_pixel_wide_and_where_the_step_is() -> None:
    step = Image.new("L", (40, 20), 0)
    step.paste(200, (17, 0, 40, 20))
    found = edges(step)
    assert found.sum(axis=1).tolist() == [1] * 20
    assert set(np.nonzero(found)[1]) <= {16, 17}
    assert np.array_equal(edges(step.transpose(Image.Transpose.TRANSPOSE)), found.T)


def test_the_edge_of_a_square_is_one_closed_line_around_it() -> None:
    found = edges(square())
    labels = regions.label(~found)
    rows, columns = np.nonzero(found)
    assert regions.label(found).max() == 1
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == pytest.approx((20, 15, 39, 34), abs=1)
    assert not found[18:32, 23:37].any()
    # Nothing leaks through, going along sides: inside and outside are two.
    outside, inside = labels[0, 0], labels[25, 30]
    assert outside
    assert inside
    assert 70 <= found.sum() <= 84


def test_the_edge_of_a_disc_is_a_thin_ring() -> None:
    picture = Image.new("L", (100, 100), 20)
    ImageDraw.Draw(picture).ellipse((20, 20, 79, 79), fill=230)
    found = edges(picture)
    rows, columns = np.nonzero(found)
    radii = np.hypot(rows - 49.5, columns - 49.5)
    assert radii.min() > 28
    assert radii.max() < 31.5
    assert found.sum() < 2 * np.pi * 30 * 1.2
    angles = np.sort(np.arctan2(rows - 49.5, columns - 49.5))
    assert np.diff(angles).max() < 0.08


def test_light_on_dark_and_dark_on_light_have_the_same_edges_give_or_take_a_pixel() -> None:
    one, other = edges(square(0, 255)), edges(square(255, 0))
    near = np.zeros_like(one)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            near |= np.roll(one, (down, right), axis=(0, 1))
    assert not (other & ~near).any()
    assert one.sum() == other.sum()


def test_a_step_below_the_low_threshold_is_no_edge() -> None:
    # Smoothed by sigma 1, a step of n has a gradient of 2.75 n.
    assert not edges(square(100, 130)).any()
    assert not edges(square(100, 160)).any()
    assert edges(square(100, 180)).any()
    assert edges(square(100, 130), low=20, high=60).any()


def test_a_weak_edge_counts_where_it_hangs_on_a_strong_one() -> None:
    # A line that fades from strong to weak, and a weak one of its own.
    picture = np.full((60, 100), 100, dtype=np.uint8)
    picture[:30] = (100 + np.linspace(110, 45, 100)).astype(np.uint8)
    alone = picture.copy()
    alone[:30] = 145
    assert edges(Image.fromarray(picture)).any(axis=0).all()
    assert not edges(Image.fromarray(alone)).any()


def test_the_thresholds_may_be_swapped() -> None:
    assert np.array_equal(edges(photo(), 200, 100), edges(photo(), 100, 200))


def test_higher_thresholds_leave_fewer_edges() -> None:
    counts = [int(edges(photo(), low, 2 * low).sum()) for low in (10, 50, 100, 127)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 0


def test_a_high_picture_has_the_same_edges_where_its_parts_meet() -> None:
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (1100, 24), dtype=np.uint8))
    # Thresholds that leave nothing to hysteresis, which looks at the whole.
    whole = edges(picture, 150, 150)
    part = edges(picture.crop((0, 400, 24, 700)), 150, 150)
    assert np.array_equal(whole[410:690], part[10:290])


def test_canny_can_be_stopped_between_its_parts() -> None:
    tick = Ticks()
    run("prepare", Image.new("RGB", (4, 2000)), control="canny", tick=tick)
    assert len(tick.came) >= 5


@pytest.mark.parametrize("kind", ["depth", "pose"])
def test_depth_and_pose_are_asked_of_a_model(kind: str) -> None:
    drawn = Image.new("RGB", (64, 48), "gray")

    def answer(_question: Question) -> Answer:
        return Answer(image=drawn, model={"repo": "x"}, timings={"infer": 1.0}, notices=("told",))

    engine = AskedEngine(answer)
    outcome = run("prepare", cut_out(64, 48), engine, control=kind)
    (asked,) = engine.asked
    assert (asked.kind, asked.preset, asked.model, asked.pictures[0].mode) == (kind, kind, MODEL, "RGB")
    assert outcome.work.control is drawn
    assert (outcome.model, outcome.timings, outcome.notices) == ({"repo": "x"}, {"infer": 1.0}, ("told",))


def test_a_model_that_gives_no_map_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="gave none"):
        run("prepare", photo(20, 20), control="depth")
