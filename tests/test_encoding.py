import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo
from samples import picture, plan, record_of, source

from hotfolder.encoding import CHUNK, PNG_ENCODING, Encoding, Format, encode, read_record
from hotfolder.errors import JobError
from hotfolder.metadata import parameters_text, xmp_packet
from hotfolder.record import Record

FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp", "avif")
LOSSY: tuple[Format, ...] = ("jpeg", "webp", "avif")
SOURCE_TYPE = b"digitalsourcetype/trainedAlgorithmicMedia"


def photo(width: int = 160, height: int = 120, seed: int = 1) -> Image.Image:
    """Soft shapes and some noise, so that quality makes a difference."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, 6, (height, width, 3)), axis=1) + 128
    return Image.fromarray(np.clip(walk, 0, 255).astype(np.uint8))


def decoded(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


def write(folder: Path, data: bytes, how: Encoding) -> Path:
    path = folder / f"mug{how.suffix}"
    path.write_bytes(data)
    return path


def user_comment(data: bytes) -> str:
    comment = decoded(data).getexif().get_ifd(IFD.Exif)[Base.UserComment]
    assert comment[:8] == b"UNICODE\0"
    return str(comment[8:].decode("utf-16-be"))


def words_of(data: bytes) -> dict[str, bool]:
    """Which of the words a JPEG, WebP or AVIF carries."""
    image = decoded(data)
    xmp = image.info["xmp"]
    return {
        "mark": SOURCE_TYPE in xmp,
        "prompt": b"AIPromptInformation" in xmp,
        "own": b"hotfolder:Record" in xmp,
        "parameters": Base.UserComment in image.getexif().get_ifd(IFD.Exif),
    }


@pytest.mark.parametrize("form", FORMATS)
def test_our_own_record_comes_back_from_every_format(tmp_path: Path, form: Format) -> None:
    how = Encoding(format=form)
    record = record_of(plan(prompt='weiß, "größer" <b>&amp;</b> \ufffe 🫖\n\ttwo', sources=[source()]))

    path = write(tmp_path, encode(picture(), record, how).data, how)

    assert read_record(path) == record


@pytest.mark.parametrize("form", LOSSY)
def test_pillow_reads_the_parameters_from_exif(form: Format) -> None:
    record = record_of(plan(prompt="weiß 🫖", negative_prompt="blurry", true_cfg=2.0))

    data = encode(picture(), record, Encoding(format=form)).data

    assert user_comment(data) == parameters_text(record)
    # Readers take the order of the letters' bytes from that of the whole.
    assert decoded(data).info["exif"].removeprefix(b"Exif\0\0").startswith(b"MM")
    assert all(words_of(data).values())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("max_bytes", [None, 6000])
def test_the_same_picture_makes_the_same_bytes(form: Format, max_bytes: int | None) -> None:
    how = Encoding(format=form, max_bytes=None if form == "png" else max_bytes)

    assert encode(photo(), record_of(), how) == encode(photo(), record_of(), how)


def test_a_machine_with_fewer_cores_makes_the_same_avif() -> None:
    image, how = photo(700, 500), Encoding(format="avif")
    before = encode(image, record_of(), how)
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert encode(image, record_of(), how) == before
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_picture_carries_along_changes_no_byte(form: Format) -> None:
    how = Encoding(format=form)
    laden = picture()
    laden.info |= {"comment": b"made elsewhere", "exif": b"Exif\0\0", "xmp": b"<x/>", "hotfolder": "{}"}

    assert encode(laden, record_of(), how) == encode(picture(), record_of(), how)


@pytest.mark.parametrize("form", FORMATS)
def test_a_colour_profile_is_kept(form: Format) -> None:
    image = picture()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info["icc_profile"] = profile

    assert decoded(encode(image, record_of(), Encoding(format=form)).data).info["icc_profile"] == profile


@pytest.mark.parametrize("form", LOSSY)
def test_pixels_are_near_to_what_they_were(form: Format) -> None:
    image = picture().resize((160, 96))

    back = decoded(encode(image, record_of(), Encoding(format=form)).data)

    assert back.format == form.upper()
    away = np.abs(np.asarray(back.convert("RGB"), dtype=int) - np.asarray(image, dtype=int))
    assert away.mean() < 3


@pytest.mark.parametrize("form", ["png", "webp", "avif"])
def test_what_is_transparent_stays_so(form: Format) -> None:
    image = picture().resize((96, 64)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((96, 64)))

    back = decoded(encode(image, record_of(), Encoding(format=form)).data)

    assert back.mode == "RGBA"
    away = np.abs(np.asarray(back.getchannel("A"), dtype=int) - np.asarray(image.getchannel("A"), dtype=int))
    assert away.max() <= (8 if form == "avif" else 0)


def test_jpeg_lays_what_is_transparent_over_white() -> None:
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 16, 32))

    back = decoded(encode(image, record_of(), Encoding(format="jpeg", quality=95)).data)

    assert back.mode == "RGB"
    assert min(back.getpixel((28, 16))) > 245  # type: ignore[arg-type]  # RGB: a tuple
    assert back.getpixel((4, 16)) == pytest.approx((0, 0, 255), abs=12)


@pytest.mark.parametrize("form", LOSSY)
def test_sixteen_bits_of_a_depth_map_become_eight_over_its_whole_range(form: Format) -> None:
    ramp = np.tile(np.linspace(0, 65_535, 64).astype(np.uint16), (64, 1))

    back = decoded(encode(Image.fromarray(ramp), record_of(), Encoding(format=form, quality=95)).data)

    values = np.asarray(back.convert("L"), dtype=int)[32]
    assert (values[0], values[31], values[63]) == pytest.approx((0, 126, 255), abs=4)


@pytest.mark.parametrize("form", LOSSY)
def test_a_grey_picture_stays_grey(form: Format) -> None:
    back = decoded(encode(picture().convert("L"), record_of(), Encoding(format=form)).data)

    pixels = np.asarray(back.convert("RGB"), dtype=int)
    assert np.abs(pixels[..., 0] - pixels[..., 2]).max() <= 1


def test_png_has_no_quality_and_the_others_use_what_is_asked() -> None:
    assert encode(picture(), record_of(), PNG_ENCODING).quality is None
    assert encode(picture(), record_of(), Encoding(format="webp", quality=70)).quality == 70


@given(
    form=st.sampled_from(LOSSY),
    quality=st.integers(1, 100),
    max_bytes=st.integers(2_500, 30_000),
    seed=st.integers(0, 3),
)
@settings(deadline=None, max_examples=40)
def test_max_bytes_takes_the_quality_below_the_first_that_does_not_fit(
    form: Format, quality: int, max_bytes: int, seed: int
) -> None:
    image, record = photo(seed=seed), record_of()
    try:
        found = encode(image, record, Encoding(format=form, quality=quality, max_bytes=max_bytes))
    except JobError:
        with pytest.raises(JobError, match="even at quality 1"):
            encode(image, record, Encoding(format=form, quality=1, max_bytes=max_bytes))
        return

    assert found.quality is not None
    assert len(found.data) <= max_bytes
    if found.quality != quality:
        # Asked for one more it would be used, if it fitted.
        one_more = encode(image, record, Encoding(format=form, quality=found.quality + 1, max_bytes=max_bytes))
        assert one_more.quality != found.quality + 1


def test_quality_1_is_used_where_nothing_else_fits() -> None:
    image = photo(1200, 900)
    # Of WebP: JPEG and AVIF make the same file of several of the lowest qualities.
    smallest = encode(image, record_of(), Encoding(format="webp", quality=1)).data

    found = encode(image, record_of(), Encoding(format="webp", max_bytes=len(smallest)))

    assert (found.quality, found.data) == (1, smallest)


@pytest.mark.parametrize("form", LOSSY)
def test_a_file_that_cannot_be_small_enough_names_a_size_that_is(form: Format) -> None:
    how = Encoding(format=form, quality=80, max_bytes=4_000)

    with pytest.raises(JobError, match=r"even at quality 1, 900x700 pixels") as caught:
        encode(photo(900, 700), record_of(), how)

    assert caught.value.code == "output-too-large"
    width, height = map(int, caught.value.hint.split(" ")[0].split("x"))
    found = encode(photo(900, 700).resize((width, height)), record_of(), how)
    assert found.quality == 80


def test_where_no_size_fits_only_more_bytes_help() -> None:
    with pytest.raises(JobError) as caught:
        encode(photo(), record_of(), Encoding(format="jpeg", max_bytes=1_000))

    assert caught.value.hint == "raise max_bytes"


def test_a_picture_with_more_pixels_a_side_than_the_format_can_have_is_refused() -> None:
    wide = Image.new("RGB", (16_384, 8))

    with pytest.raises(JobError, match="webp holds 16383 pixels a side; the picture has 16384x8") as caught:
        encode(wide, record_of(), Encoding(format="webp"))

    assert caught.value.code == "output-too-large"
    assert decoded(encode(wide, record_of(), Encoding(format="jpeg")).data).width == 16_384


@pytest.mark.parametrize(
    ("letters", "negative", "left"),
    [
        (1_000, 0, {"mark", "prompt", "own", "parameters"}),
        (19_000, 0, {"mark", "prompt", "parameters"}),
        (19_000, 9_000, {"mark", "parameters"}),
        (19_000, 19_000, {"mark"}),
    ],
)
def test_a_jpeg_says_what_its_segments_can_hold(letters: int, negative: int, left: set[str]) -> None:
    record = record_of(plan(prompt="ß茶" * (letters // 2), negative_prompt="茶" * negative, true_cfg=2.0))

    data = encode(picture(), record, Encoding(format="jpeg")).data

    assert {word for word, there in words_of(data).items() if there} == left


def test_a_segment_of_a_jpeg_is_filled_to_the_last_byte() -> None:
    def record(negative: int) -> Record:
        return record_of(plan(prompt="a" * 10_000, negative_prompt="b" * negative, true_cfg=2.0))

    def length(negative: int) -> int:
        own = record(negative).model_dump_json(by_alias=True, exclude_none=True)
        return len(xmp_packet(record(negative), own=own).encode())

    limit = 65_504
    nearly = 1 + (limit - length(1)) // (length(2) - length(1))
    for negative in range(nearly - 2, nearly + 3):
        words = words_of(encode(picture(), record(negative), Encoding(format="jpeg")).data)
        assert words["own"] == (length(negative) <= limit) == (negative <= nearly)


@pytest.mark.parametrize("form", ["png", "webp", "avif"])
def test_the_other_formats_hold_the_longest_prompts(tmp_path: Path, form: Format) -> None:
    how = Encoding(format=form)
    record = record_of(plan(prompt="🫖" * 20_000, negative_prompt="茶" * 20_000, true_cfg=2.0))

    assert read_record(write(tmp_path, encode(picture(), record, how).data, how)) == record


@pytest.mark.parametrize("form", LOSSY)
def test_words_leave_most_of_max_bytes_to_the_picture(form: Format) -> None:
    record = record_of(plan(prompt="a mug " * 3_000))
    how = Encoding(format=form, max_bytes=12_000)

    data = encode(picture().resize((400, 300)), record, how).data

    assert len(data) <= 12_000
    assert words_of(data) == {"mark": True, "prompt": False, "own": False, "parameters": False}


def test_a_picture_that_no_model_touched_has_no_exif_at_all() -> None:
    none: dict[str, Any] = {"generate": None, "model": {}, "preset": None, "kind": None, "prompt": None}
    record = record_of(plan(sources=[source()])).model_copy(update=none)

    for form in LOSSY:
        data = encode(picture(), record, Encoding(format=form)).data
        assert not decoded(data).getexif()
        assert b"DigitalSourceType" not in data
    png = decoded(encode(picture(), record).data)
    assert "parameters" not in png.info
    assert json.loads(png.info[CHUNK])["candidate"] == record.candidate


def test_a_picture_from_elsewhere_says_nothing(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.avif"):
        picture().save(tmp_path / name)
        assert read_record(tmp_path / name) is None


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"schema": 1}', "[" * 100_000, "1" * 10_000])
def test_a_record_that_is_broken_is_none(tmp_path: Path, text: str) -> None:
    assert read_record(saying(tmp_path, text)) is None


def test_a_record_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    newer = {**json.loads(record_of().model_dump_json(by_alias=True)), "schema": 2}

    with pytest.raises(JobError, match=r"mug.png has schema 2; this hotfolder reads up to 1") as caught:
        read_record(saying(tmp_path, json.dumps(newer)))

    assert caught.value.code == "newer-schema"


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\nno more", b"RIFF\x20\0\0\0WEBPVP8 \x10\0\0\0" + bytes(16)])
def test_what_is_no_picture_is_called_so(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "mug.png").write_bytes(data)

    with pytest.raises(JobError, match=r"mug.png is no picture") as caught:
        read_record(tmp_path / "mug.png")

    assert caught.value.code == "bad-picture"


def saying(folder: Path, text: str) -> Path:
    """A PNG with a text of that kind under our name."""
    info = PngInfo()
    info.add_text(CHUNK, text)
    picture().save(folder / "mug.png", pnginfo=info)
    return folder / "mug.png"


def test_the_record_in_a_png_stands_once() -> None:
    info = decoded(encode(picture(), record_of()).data).info

    assert "hotfolder:Record" not in info["XML:com.adobe.xmp"]
    assert Record.model_validate_json(info[CHUNK]) == record_of()
