import io
import os
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image
from samples import picture

from hotfolder.thumbs import MAX_BYTES, SIDE, Thumbs, thumbnail


@pytest.fixture
def thumbs(tmp_path: Path) -> Thumbs:
    return Thumbs(cache=tmp_path / "cache")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "mug_take01"
    folder.mkdir(parents=True)
    return folder


def opened(data: bytes | None) -> Image.Image:
    assert data is not None
    return Image.open(io.BytesIO(data), formats=["WEBP"])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_even_pure_noise_fits(mode: str) -> None:
    size = (700, 500)
    noise = Image.frombytes(mode, size, random.Random(1).randbytes(size[0] * size[1] * len(mode)))

    assert len(thumbnail(noise)) <= MAX_BYTES


@pytest.mark.parametrize("size", [(320, 320), (2000, 16), (16, 2000), (1, 1), (321, 319)])
def test_noise_of_any_shape_with_noisy_transparency_fits(size: tuple[int, int]) -> None:
    noise = Image.frombytes("RGBA", size, random.Random(2).randbytes(size[0] * size[1] * 4))

    assert len(thumbnail(noise)) <= MAX_BYTES


def test_a_colour_profile_of_any_size_takes_no_room() -> None:
    image = picture()
    image.info["icc_profile"] = random.Random(3).randbytes(200_000)

    assert len(thumbnail(image)) <= MAX_BYTES


def test_the_longer_side_is_bounded_and_the_shape_stays() -> None:
    assert opened(thumbnail(Image.new("RGB", (1600, 1200)))).size == (SIDE, SIDE * 3 // 4)
    assert opened(thumbnail(Image.new("RGB", (10, 4000)))).size == (1, SIDE)


def test_a_small_picture_is_not_enlarged() -> None:
    assert opened(thumbnail(picture())).size == picture().size


def test_transparency_stays() -> None:
    assert opened(thumbnail(Image.new("RGBA", (64, 64), (255, 0, 0, 0)))).mode == "RGBA"


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    gray = Image.new("I;16", (32, 32), 0x8000)

    assert opened(thumbnail(gray)).convert("L").getpixel((5, 5)) == pytest.approx(128, abs=3)


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "LA", "F", "I"])
def test_every_mode_that_a_source_may_have_gives_a_thumbnail(mode: str) -> None:
    assert opened(thumbnail(Image.new(mode, (40, 30)))).size == (40, 30)


def test_a_kept_thumbnail_is_given_without_decoding_the_picture(thumbs: Thumbs, job: Path) -> None:
    path = job / "a.png"
    path.write_bytes(b"no picture at all")
    thumbs.keep(path, picture())

    assert thumbs.of(path) == thumbnail(picture())


def test_a_deleted_cache_is_made_again_from_the_pictures(thumbs: Thumbs, job: Path) -> None:
    path = job / "a.png"
    picture().save(path)
    thumbs.keep(path, picture())
    shutil.rmtree(thumbs.cache)

    assert thumbs.of(path) == thumbnail(picture())
    assert list(thumbs.cache.rglob("*.webp"))


def test_the_thumbnail_of_an_earlier_picture_of_that_name_is_not_shown(thumbs: Thumbs, job: Path) -> None:
    path = job / "a.png"
    Image.new("RGB", (8, 8), "red").save(path)
    os.utime(path, (1_000_000, 1_000_000))
    thumbs.keep(path, Image.new("RGB", (8, 8), "red"))
    Image.new("RGB", (8, 8), "blue").save(path)

    assert thumbs.of(path) == thumbnail(Image.new("RGB", (8, 8), "blue"))


def test_a_cache_entry_that_somebody_blew_up_is_not_put_on_a_page(thumbs: Thumbs, job: Path) -> None:
    path = job / "a.png"
    picture().save(path)
    thumbs.keep(path, picture())
    (kept,) = thumbs.cache.rglob("*.webp")
    kept.write_bytes(bytes(MAX_BYTES + 1))
    os.utime(kept, (path.stat().st_mtime, path.stat().st_mtime))

    assert thumbs.of(path) == thumbnail(picture())


@pytest.mark.parametrize("below", ["work", "sources"])
def test_pictures_of_the_same_name_in_two_jobs_are_not_taken_for_each_other(
    thumbs: Thumbs, job: Path, below: str
) -> None:
    other = job.with_name("cup_take01")
    for folder, colour in ((job, "red"), (other, "blue")):
        (folder / below).mkdir(parents=True)
        Image.new("RGB", (8, 8), colour).save(folder / below / "001_01_generate.png")
        os.utime(folder / below / "001_01_generate.png", (1_000_000, 1_000_000))

    found = [thumbs.of(folder / below / "001_01_generate.png") for folder in (job, other, job)]

    red, blue = (thumbnail(Image.new("RGB", (8, 8), colour)) for colour in ("red", "blue"))
    assert found == [red, blue, red]


def test_a_source_is_shown_upright(thumbs: Thumbs, job: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(job / "phone.jpg", exif=exif)

    assert opened(thumbs.of(job / "phone.jpg")).size == (20, 40)


@pytest.mark.parametrize(
    "data", [None, b"", b"text", b"\x89PNG\r\n\x1a\n0000"], ids=["gone", "empty", "text", "cut off"]
)
def test_what_cannot_be_decoded_has_no_thumbnail(thumbs: Thumbs, job: Path, data: bytes | None) -> None:
    if data is not None:
        (job / "a.png").write_bytes(data)

    assert thumbs.of(job / "a.png") is None


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(thumbs: Thumbs, job: Path) -> None:
    thumbs.cache.write_text("a file where the folder should be")
    path = job / "a.png"
    picture().save(path)

    thumbs.keep(path, picture())

    assert thumbs.of(path) == thumbnail(picture())
