"""Every PNG that the format allows comes as a viewer shows it, and every broken one is called so."""

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from limits import cost
from PIL import Image
from png_shapes import BROKEN, SHAPES, SIGNATURE, Png, chunk
from taking import loaded, refused, settings_in

from hotfolder import checkpoint, png
from hotfolder.errors import JobError
from hotfolder.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.mark.parametrize("name", SHAPES)
def test_a_png_of_any_shape_comes_as_it_is_shown(settings: Settings, name: str) -> None:
    png: Png = SHAPES[name]
    image = loaded(settings, png.write())
    assert image.size == (png.width, png.height)
    wanted = [[png.shown(x, y) for x in range(png.width)] for y in range(png.height)]
    difference = np.abs(np.asarray(image).astype(int) - np.array(wanted))
    # Of 16 bits the upper eight are taken, of the colour and of its alpha.
    assert difference.max() <= (2 if png.depth == 16 else 1), "but for rounding"


@pytest.mark.parametrize("name", SHAPES)
def test_a_png_that_ends_a_row_too_soon_is_called_so(settings: Settings, name: str) -> None:
    png: Png = SHAPES[name]
    for lost in {1, 1 + png.height // 2}:
        error = refused(settings, replace(png, lost_rows=lost).write())
        assert error.code == "bad-picture"
        assert error.message.startswith("a.png: it cannot be decoded to the end: ")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_png_is_called_so(settings: Settings, name: str) -> None:
    error = refused(settings, BROKEN[name])
    assert error.code == "bad-picture"
    assert error.message.startswith("a.png: ")
    assert error.message.isprintable()
    assert error.hint


def test_a_picture_in_work_whose_header_lies_is_refused_before_room_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As it is once any source was read: our own limit holds then, where there is one.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(2 * (1 + 20_000 * 3))))
    (tmp_path / "a.png").write_bytes(SIGNATURE + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))
    with cost() as spent, pytest.raises(JobError, match="is no picture any more"):
        checkpoint.load(tmp_path, "a.png", "5" * 64)
    assert spent.peak_mb < 100


def test_a_picture_of_one_colour_is_no_lie(tmp_path: Path) -> None:
    Image.new("L", (6000, 6000)).save(tmp_path / "a.png", compress_level=9)
    assert png.can_hold(tmp_path / "a.png")
