"""overlay: pictures and text over the picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont
from stage_calls import cut_out, photo, picture_of, run

from hotfolder.errors import JobError

GROUND = Image.new("RGB", (100, 60), "white")


@pytest.fixture
def logo(tmp_path: Path) -> Path:
    """Red, 20 by 10 pixels."""
    path = tmp_path / "logo.png"
    Image.new("RGBA", (20, 10), (255, 0, 0, 255)).save(path)
    return path


@pytest.fixture
def font(tmp_path: Path) -> Path:
    """The built-in typeface as a file."""
    built_in = ImageFont.load_default(20)
    assert isinstance(built_in, ImageFont.FreeTypeFont)
    path = tmp_path / "face.ttf"
    path.write_bytes(built_in.path.getvalue())  # type: ignore[union-attr]  # it was loaded from memory
    return path


def laid(path: Path, given: Image.Image = GROUND, **keys: Any) -> Image.Image:
    return picture_of("overlay", given, image=path.name, assets={"image": path}, **keys)


def ink(picture: Image.Image) -> tuple[int, int, int, int]:
    """Where it is not white."""
    rows, columns = np.nonzero((np.asarray(picture.convert("RGB")) != 255).any(axis=-1))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize(
    ("anchor", "corner"),
    [
        ("top-left", (5, 5)),
        ("top", (40, 5)),
        ("right", (75, 25)),
        ("center", (40, 25)),
        ("bottom", (40, 45)),
        ("bottom-left", (5, 45)),
        ("bottom-right", (75, 45)),
    ],
)
def test_an_anchor_keeps_it_to_a_side_with_a_margin(logo: Path, anchor: str, corner: tuple[int, int]) -> None:
    made = laid(logo, anchor=anchor, margin=5)
    assert ink(made) == (*corner, corner[0] + 20, corner[1] + 10)
    assert made.crop(ink(made)).getcolors() == [(200, (255, 0, 0))]


@pytest.mark.parametrize(
    ("position", "corner"), [([0, 0], (0, 0)), ([7, 9], (7, 9)), ([-20, -10], (80, 50)), ([-30, 4], (70, 4))]
)
def test_a_position_is_its_top_left_corner_counted_from_right_and_bottom_where_negative(
    logo: Path, position: list[int], corner: tuple[int, int]
) -> None:
    assert ink(laid(logo, position=position)) == (*corner, corner[0] + 20, corner[1] + 10)


@pytest.mark.parametrize(
    ("position", "seen"), [([-8, -4], (92, 56, 100, 60)), ([-105, 50], (0, 50, 15, 60)), ([400, 400], None)]
)
def test_what_reaches_beyond_the_edge_is_cut_off_and_told(
    logo: Path, position: list[int], seen: tuple[int, int, int, int] | None
) -> None:
    outcome = run("overlay", GROUND, image="logo.png", assets={"image": logo}, position=position)
    assert outcome.notices == ("part of the overlay lies beyond the edge of the picture",)
    if seen is None:
        assert outcome.work.picture.tobytes() == GROUND.tobytes()
    else:
        assert ink(outcome.work.picture) == seen


def test_opacity_mixes_it_with_what_is_below(logo: Path) -> None:
    made = laid(logo, opacity=0.5, anchor="center")
    assert made.getpixel((50, 30)) == (255, 127, 127)
    assert laid(logo, opacity=0.0).tobytes() == GROUND.tobytes()


def test_its_own_alpha_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    glass = Image.new("RGBA", (20, 10), (0, 0, 255, 0))
    glass.paste((0, 0, 255, 102), (0, 0, 10, 10))
    glass.save(path)
    made = laid(path, position=[0, 0])
    assert made.getpixel((5, 5)) == (153, 153, 255)
    assert made.getpixel((15, 5)) == (255, 255, 255)


def test_it_becomes_visible_on_a_transparent_picture(logo: Path) -> None:
    made = laid(logo, Image.new("RGBA", (100, 60), (0, 0, 0, 0)), position=[0, 0], opacity=0.5)
    assert made.getpixel((5, 5)) == (255, 0, 0, 128)
    assert made.getpixel((50, 50)) == (0, 0, 0, 0)


@pytest.mark.parametrize(("scale", "size"), [(2.0, (40, 20)), (0.5, (10, 5)), (0.01, (1, 1))])
def test_scale_makes_it_larger_or_smaller(logo: Path, scale: float, size: tuple[int, int]) -> None:
    left, top, right, bottom = ink(laid(logo, scale=scale, position=[0, 0]))
    assert (right - left, bottom - top) == size


def test_what_is_larger_than_the_picture_is_scaled_down_to_its_margins_and_told(logo: Path) -> None:
    outcome = run("overlay", GROUND, image="logo.png", assets={"image": logo}, scale=16.0, margin=10)
    assert ink(outcome.work.picture) == (10, 10, 90, 50)
    assert outcome.notices == ("the overlay is larger than the room in the picture, and was scaled down",)


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (1, 1), (3, 3)])
def test_the_smallest_picture_still_takes_it(logo: Path, size: tuple[int, int]) -> None:
    given = Image.new("RGB", size, "white")
    assert laid(logo, given).size == size
    assert picture_of("overlay", given, text="Hello").size == size


def test_a_picture_with_16_bit_and_one_with_a_palette_are_read(tmp_path: Path) -> None:
    deep, few = tmp_path / "deep.png", tmp_path / "few.png"
    Image.fromarray(np.full((10, 20), 32768, dtype=np.uint16)).save(deep)
    Image.new("P", (20, 10), 0).save(few, transparency=0)
    assert laid(deep, position=[0, 0]).getpixel((5, 5)) == (128, 128, 128)
    assert laid(few, position=[0, 0]).tobytes() == GROUND.tobytes()


def test_a_broken_picture_is_refused_by_its_name(tmp_path: Path, logo: Path) -> None:
    broken = tmp_path / "broken.png"
    for data in (b"", b"no picture", logo.read_bytes()[:-30]):
        broken.write_bytes(data)
        with pytest.raises(JobError, match=r"image = 'broken.png' cannot be read") as caught:
            laid(broken)
        assert caught.value.code == "bad-picture"


@pytest.mark.parametrize("anchor", ["top-left", "center", "bottom-right"])
@pytest.mark.parametrize("text", ["jumpy", "Ag", "one\ntwo lines\nqgjpy", "--"])
def test_no_part_of_a_text_is_cut_off(text: str, anchor: str) -> None:
    large = Image.new("RGB", (400, 300), "white")
    made = picture_of("overlay", large, text=text, anchor=anchor, color="black", size=40)
    free = picture_of("overlay", large, text=text, position=[100, 60], color="black", size=40)
    left, top, right, bottom = ink(made)

    assert left >= 16
    assert top >= 16
    assert right <= 400 - 16
    assert bottom <= 300 - 16
    assert (right - left, bottom - top) == tuple(b - a for a, b in zip(ink(free)[:2], ink(free)[2:], strict=True))


def test_a_text_touches_its_margins() -> None:
    made = picture_of("overlay", Image.new("RGB", (200, 100), "white"), text="Ag", margin=7, color="black")
    assert ink(made)[2:] == (193, 93)


def test_lines_keep_to_the_side_to_which_the_text_keeps() -> None:
    def short_line(anchor: str) -> tuple[int, int]:
        made = picture_of(
            "overlay", Image.new("RGB", (300, 200), "white"), text="HHHHHH\nH", anchor=anchor, margin=0, color="black"
        )
        left, top, right, bottom = ink(made)
        second = ink(made.crop((left, (top + bottom) // 2, right, bottom)))
        return second[0], right - left - second[2]

    assert short_line("bottom-left")[0] <= 1
    assert short_line("bottom-right")[1] <= 1
    before, after = short_line("bottom")
    assert abs(before - after) <= 2


def test_a_text_is_written_in_its_colour_size_and_opacity() -> None:
    ground = Image.new("RGB", (300, 200), "white")
    made = picture_of("overlay", ground, text="I", size=100, color="#ff000080")
    assert made.getpixel(((ink(made)[0] + ink(made)[2]) // 2, 150)) == (255, 127, 127)
    small = ink(picture_of("overlay", ground, text="I", size=50, color="black"))
    twice = ink(picture_of("overlay", ground, text="I", size=50, scale=2.0, color="black"))
    assert twice[3] - twice[1] == pytest.approx(2 * (small[3] - small[1]), abs=2)


def test_a_text_of_any_length_in_any_size_fits() -> None:
    outcome = run("overlay", Image.new("RGB", (300, 200), "white"), text="wide " * 400, size=2048, scale=16.0)
    assert outcome.work.picture.size == (300, 200)
    assert outcome.notices == ("the overlay is larger than the room in the picture, and was scaled down",)


def test_a_text_of_nothing_is_told() -> None:
    outcome = run("overlay", photo(60, 40), text=" \n\t")
    assert outcome.notices == ("the text has nothing that could be seen",)
    assert outcome.work.picture.tobytes() == photo(60, 40).tobytes()


def test_letters_that_the_typeface_lacks_are_told() -> None:
    outcome = run("overlay", photo(320, 240), text="Grüße")
    assert outcome.notices == ("the built-in font has no ß ü: name another with font",)


def test_a_font_file_is_used(font: Path) -> None:
    with_file = picture_of("overlay", GROUND, text="Ag", color="black", font=font.name, assets={"font": font})
    assert with_file.tobytes() == picture_of("overlay", GROUND, text="Ag", color="black").tobytes()


def test_a_broken_font_is_refused_by_its_name(font: Path) -> None:
    font.write_bytes(font.read_bytes()[:100])
    with pytest.raises(JobError, match=r"font = 'face.ttf' cannot be read") as caught:
        run("overlay", GROUND, text="Ag", font=font.name, assets={"font": font})
    assert caught.value.code == "bad-value"


def test_alpha_of_the_picture_stays_where_nothing_is_laid_over(logo: Path) -> None:
    given = cut_out(100, 60)
    made = laid(logo, given, position=[0, 0])
    assert made.crop((30, 20, 100, 60)).tobytes() == given.crop((30, 20, 100, 60)).tobytes()
