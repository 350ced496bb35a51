"""color, grayscale and cleanup."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from stage_calls import Ticks, cut_out, photo, picture_of, run


def plain(*colour: int) -> Image.Image:
    return Image.new("RGBA" if len(colour) == 4 else "RGB", (4, 3), colour)


def only_colour(picture: Image.Image) -> object:
    found = picture.getcolors()
    assert found is not None
    assert len(found) == 1
    return found[0][1]


def noisy(picture: Image.Image, sigma: float) -> Image.Image:
    noise = np.random.default_rng(4).normal(0, sigma, (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("colour", "grey"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((255, 255, 255), 255)]
)
def test_grayscale_weighs_colours_as_the_eye_does(colour: tuple[int, ...], grey: int) -> None:
    assert only_colour(picture_of("grayscale", plain(*colour))) == (grey, grey, grey)


def test_grayscale_keeps_alpha() -> None:
    assert only_colour(picture_of("grayscale", plain(255, 0, 0, 90))) == (76, 76, 76, 90)


def test_color_of_ones_changes_nothing() -> None:
    given = photo(40, 30)
    assert picture_of("color", given).tobytes() == given.tobytes()


@pytest.mark.parametrize(
    ("keys", "colour", "made"),
    [
        ({"brightness": 0.0}, (200, 100, 50), (0, 0, 0)),
        ({"brightness": 0.5}, (200, 100, 50), (100, 50, 25)),
        ({"brightness": 2.0}, (200, 100, 50), (255, 200, 100)),
        ({"saturation": 0.0}, (200, 100, 50), (124, 124, 124)),
        ({"contrast": 0.0}, (200, 100, 50), (124, 124, 124)),
        ({"gamma": 2.0}, (64, 0, 255), (128, 0, 255)),
        ({"gamma": 0.5}, (128, 0, 255), (64, 0, 255)),
        # Gamma goes before brightness: the other way round, 128 would be halved to 64 first and come out as 128.
        ({"gamma": 2.0, "brightness": 0.5}, (64, 0, 255), (64, 0, 127)),
    ],
)
def test_color_does_to_a_plain_picture_what_its_keys_say(
    keys: dict[str, Any], colour: tuple[int, ...], made: tuple[int, ...]
) -> None:
    assert only_colour(picture_of("color", plain(*colour), **keys)) == made


def test_contrast_moves_away_from_the_mean_grey() -> None:
    halves = Image.new("RGB", (10, 10), (100, 100, 100))
    halves.paste((140, 140, 140), (5, 0, 10, 10))
    made = picture_of("color", halves, contrast=2.0)
    assert (made.getpixel((0, 0)), made.getpixel((9, 0))) == ((80, 80, 80), (160, 160, 160))


def test_autocontrast_reaches_from_black_to_white() -> None:
    hazy = Image.new("RGB", (20, 20), (100, 100, 100))
    hazy.paste((150, 150, 150), (0, 0, 10, 20))
    made = picture_of("color", hazy, autocontrast=True)
    assert (made.getpixel((15, 15)), made.getpixel((5, 15))) == ((0, 0, 0), (255, 255, 255))


def test_autocontrast_takes_no_cast_away() -> None:
    evening = Image.new("RGB", (20, 20), (140, 100, 80))
    evening.paste((190, 150, 130), (0, 0, 10, 20))
    light = picture_of("color", evening, autocontrast=True).getpixel((15, 15))
    assert isinstance(light, tuple)
    assert light[0] > light[1] >= light[2]


def test_color_leaves_alpha_alone() -> None:
    given = cut_out()
    made = picture_of("color", given, brightness=0.3, contrast=2.0, gamma=2.0, autocontrast=True)
    assert made.getchannel("A").tobytes() == given.getchannel("A").tobytes()


def test_cleanup_of_nothing_changes_nothing() -> None:
    given = photo(40, 30)
    assert picture_of("cleanup", given).tobytes() == given.tobytes()


def test_despeckle_takes_single_pixels_away_and_nothing_else() -> None:
    clean = photo(640, 480).crop((0, 0, 60, 50))
    specked = clean.copy()
    for x, y in ((5, 5), (30, 7), (0, 0), (59, 49), (20, 0)):
        specked.putpixel((x, y), (0, 0, 0))
    made = np.asarray(picture_of("cleanup", specked, despeckle=True)).astype(int)
    assert np.abs(made - np.asarray(clean)).max() <= 6


def test_despeckle_leaves_lines_and_corners_as_they_are() -> None:
    drawn = Image.new("RGB", (40, 40), "white")
    draw = ImageDraw.Draw(drawn)
    draw.line((3, 3, 30, 20), fill="black")
    draw.rectangle((10, 25, 20, 35), fill="red")
    assert picture_of("cleanup", drawn, despeckle=True).tobytes() == drawn.tobytes()


def test_denoise_smooths_planes_and_keeps_edges() -> None:
    clean = Image.new("RGB", (60, 60), (60, 60, 60))
    clean.paste((190, 190, 190), (30, 0, 60, 60))
    made = np.asarray(picture_of("cleanup", noisy(clean, 10), denoise=0.7)).astype(float)[..., 0]
    before = np.asarray(noisy(clean, 10)).astype(float)[..., 0]

    assert made[5:55, 5:25].std() < before[5:55, 5:25].std() * 0.4
    assert made[:, 28].mean() == pytest.approx(60, abs=4)
    assert made[:, 31].mean() == pytest.approx(190, abs=4)


def test_more_denoising_is_smoother() -> None:
    given = noisy(Image.new("RGB", (40, 40), "gray"), 12)
    spread = [np.asarray(picture_of("cleanup", given, denoise=amount)).std() for amount in (0.1, 0.4, 1.0)]
    assert spread == sorted(spread, reverse=True)


def test_the_least_denoising_is_hardly_any() -> None:
    given = noisy(Image.new("RGB", (40, 40), "gray"), 12)
    made = picture_of("cleanup", given, denoise=1e-30)
    assert np.abs(np.asarray(made).astype(int) - np.asarray(given)).max() <= 2


def test_denoising_leaves_a_plain_picture_exactly_as_it_is() -> None:
    given = Image.new("RGB", (9, 9), (1, 77, 254))
    assert picture_of("cleanup", given, denoise=1.0).tobytes() == given.tobytes()


def test_a_high_picture_is_cleaned_in_parts_that_show_no_seam_and_can_be_stopped() -> None:
    given = noisy(Image.new("RGB", (12, 600), "gray"), 12)
    tick = Ticks()
    made = run("cleanup", given, denoise=0.5, despeckle=True, tick=tick).work.picture
    around = picture_of("cleanup", given.crop((0, 200, 12, 320)), denoise=0.5, despeckle=True)

    assert made.crop((0, 210, 12, 310)).tobytes() == around.crop((0, 10, 12, 110)).tobytes()
    assert len(tick.came) >= 6


def test_sharpening_makes_edges_steeper() -> None:
    soft = Image.linear_gradient("L").resize((64, 64)).point(lambda value: 60 if value < 128 else 180).convert("RGB")
    soft = soft.resize((32, 32)).resize((64, 64))
    rows = [np.asarray(picture_of("cleanup", soft, sharpen=amount))[:, 10, 0].astype(int) for amount in (0.0, 1.0, 2.0)]
    steepest = [int(np.abs(np.diff(row)).max()) for row in rows]
    assert steepest == sorted(set(steepest))
