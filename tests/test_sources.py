"""Pictures that a job names: where they may lie, what is taken of them, and how they are loaded."""

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import samples
from PIL import Image, ImageOps
from taking import found_at, loaded, png, put, refused, settings_in, take, take_bytes, wish

from hotfolder import sources
from hotfolder.errors import JobError
from hotfolder.settings import Settings
from hotfolder.sources import Found

#: One pixel of each corner tells how a picture was turned.
CORNERS = {(0, 0): (255, 0, 0), (1, 0): (0, 255, 0), (0, 1): (0, 0, 255), (1, 1): (255, 255, 255)}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


# --- where a picture may lie ---


def test_a_picture_is_looked_for_beside_the_job_and_then_in_the_inbox_root(settings: Settings) -> None:
    root = put(settings.inbox_dir / "a.png")
    assert found_at(settings, "a.png", "night") == root
    beside = put(settings.inbox_dir / "night/a.png")
    assert found_at(settings, "a.png", "night") == beside
    below = put(settings.inbox_dir / "night/sub/b.png")
    assert found_at(settings, "sub/b.png", "night") == below
    assert found_at(settings, "c.png", "night") is None


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "../../etc/passwd",
        "sub/../../a.png",
        "sub/..",
        "..",
        ".",
        "./",
        "/",
        "/etc/passwd",
        "@mug/../cup",
        "@mug\0",
        "a\0.png",
    ],
)
def test_a_name_that_leads_out_of_the_inbox_is_refused_before_anything_is_looked_at(
    settings: Settings, name: str
) -> None:
    with pytest.raises(JobError) as caught:
        sources.check_name(settings, wish(name))
    assert caught.value.code == "forbidden-path"
    assert caught.value.hint
    assert str(caught.value).isprintable()


def test_a_symbolic_link_is_never_followed_wherever_it_stands(settings: Settings, tmp_path: Path) -> None:
    put(tmp_path / "secret/a.png")
    (settings.inbox_dir / "a.png").symlink_to(tmp_path / "secret/a.png")
    (settings.inbox_dir / "lane").symlink_to(tmp_path / "secret")
    (settings.inbox_dir / "dangling.png").symlink_to(tmp_path / "nothing")
    for name in ("a.png", "lane/a.png", "dangling.png"):
        with pytest.raises(JobError, match="not accepted") as caught:
            found_at(settings, name)
        assert "symbolic link" in caught.value.hint


def test_a_folder_that_becomes_a_link_after_the_look_is_not_followed_either(settings: Settings, tmp_path: Path) -> None:
    put(tmp_path / "secret/a.png")
    put(settings.inbox_dir / "sub/a.png")
    found = sources.find(settings, wish("sub/a.png"), "")
    assert found is not None
    (settings.inbox_dir / "sub").rename(settings.inbox_dir / "away")
    (settings.inbox_dir / "sub").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        sources.take(settings, found, settings.outputs_dir / "mug_take01")


def test_an_inbox_that_is_itself_a_link_is_the_operators_choice(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "jobs_inbox").symlink_to(tmp_path / "share")
    settings = settings_in(tmp_path)
    put(tmp_path / "share/a.png")
    assert take(settings, "a.png").width == 8


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_regular_file_is_refused(settings: Settings, make: Callable[[Path], None]) -> None:
    make(settings.inbox_dir / "a.png")
    with pytest.raises(JobError) as caught:
        found_at(settings, "a.png")
    assert caught.value.code == "forbidden-path"


def test_a_pipe_that_takes_the_place_of_a_picture_holds_nobody_up(settings: Settings) -> None:
    path = put(settings.inbox_dir / "a.png")
    found = sources.find(settings, wish("a.png"), "")
    assert found is not None
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        sources.take(settings, found, settings.outputs_dir / "mug_take01")


def test_a_name_that_no_file_can_have_is_refused(settings: Settings) -> None:
    with pytest.raises(JobError):
        found_at(settings, "x" * 300)


def test_an_allowed_folder_may_be_named_by_absolute_path_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "disk/photos").mkdir(parents=True)
    (tmp_path / "photos").symlink_to(tmp_path / "disk/photos")
    settings = settings_in(tmp_path, ALLOWED_ROOTS=f'["{tmp_path}/photos"]')
    put(tmp_path / "disk/photos/sub/a.png")
    put(tmp_path / "other/a.png")
    (tmp_path / "disk/photos/link.png").symlink_to(tmp_path / "other/a.png")
    assert take(settings, f"{tmp_path}/photos/sub/a.png").width == 8
    for name in ("other/a.png", "photos/../other/a.png", "photos", "photos2/a.png", "photos/link.png"):
        with pytest.raises(JobError) as caught:
            found_at(settings, f"{tmp_path}/{name}")
        assert caught.value.code == "forbidden-path"


def test_a_plan_finds_its_pictures_in_outputs_and_else_by_name_in_the_inbox(settings: Settings) -> None:
    sha256 = hashlib.sha256(png()).hexdigest()
    name = "outputs/cup_take01/sources/a.png"
    assert found_at(settings, name, sha256=sha256) is None
    in_inbox = put(settings.inbox_dir / "a.png")
    assert found_at(settings, name, sha256=sha256) == in_inbox
    in_outputs = put(settings.outputs_dir / "cup_take01/sources/a.png")
    assert found_at(settings, name, sha256=sha256) == in_outputs
    for other in ("hotfolder.toml", "presets/assets/a.png", "outputs", "outputs/../presets/a.png", "./"):
        with pytest.raises(JobError):
            sources.check_name(settings, wish(other, sha256=sha256))


def test_a_plan_finds_its_pictures_where_outputs_is_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "outputs").symlink_to(tmp_path / "disk")
    settings = settings_in(tmp_path)
    picture = put(settings.outputs_dir / "mug_take01/sources/a.png")
    sha256 = hashlib.sha256(png()).hexdigest()
    assert found_at(settings, "outputs/mug_take01/sources/a.png", sha256=sha256) == picture


# --- what is taken ---


def test_a_picture_is_copied_and_hashed_and_left_where_it_was(settings: Settings) -> None:
    source = take_bytes(settings, png())
    copy = settings.workspace / source.file
    assert copy.read_bytes() == png()
    assert source.sha256 == hashlib.sha256(png()).hexdigest()
    assert (source.role, source.name, source.width, source.height) == ("image", "a.png", 8, 6)
    assert (settings.inbox_dir / "a.png").exists()


def test_two_pictures_of_one_name_are_both_kept(settings: Settings) -> None:
    put(settings.inbox_dir / "a/x.png", png(Image.new("L", (8, 6), 0)))
    put(settings.inbox_dir / "b/x.png", png(Image.new("L", (8, 6), 255)))
    folder = settings.outputs_dir / "mug_take01"
    image = take(settings, "a/x.png")
    found = sources.find(settings, wish("b/x.png", "mask"), "")
    assert found is not None
    mask = sources.take(settings, found, folder, ["x.png"])
    pictures = sources.load(folder, {"image": image, "mask": mask})
    assert pictures["image"].getpixel((0, 0)) == (0, 0, 0)
    assert pictures["mask"].getpixel((0, 0)) == 255


@pytest.mark.parametrize("name", ["a\nb.png", "con.png", "\x1b[31m.png", f"{'x' * 240}.png"])
def test_a_picture_with_an_odd_name_gets_a_safe_one(settings: Settings, name: str) -> None:
    source = take_bytes(settings, png(), name)
    assert (settings.workspace / source.file).is_file()
    assert source.file.isprintable()
    assert source.name == name


def test_a_picture_that_is_not_the_one_a_plan_was_made_with_is_refused(settings: Settings) -> None:
    path = put(settings.inbox_dir / "a.png")
    found = Found(wish=wish("outputs/x/sources/a.png", sha256="5" * 64), path=path, base=settings.inbox_dir)
    with pytest.raises(JobError) as caught:
        sources.take(settings, found, settings.outputs_dir / "mug_take01")
    assert caught.value.code == "changed-file"


def test_a_picture_larger_than_is_allowed_is_refused_unread(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, MAX_PICTURE_MB="1")
    path = put(settings.inbox_dir / "a.png")
    os.truncate(path, 50_000_000_000)
    with pytest.raises(JobError, match="50000 MB; at most 1 are accepted") as caught:
        take(settings, "a.png")
    assert caught.value.code == "bad-picture"


def test_a_copy_that_was_changed_is_noticed_and_force_goes_on(settings: Settings) -> None:
    source = take_bytes(settings, png())
    folder, wanted = settings.outputs_dir / "mug_take01", {"image": source}
    (settings.workspace / source.file).write_bytes(png(Image.new("RGB", (8, 6), "blue")))
    with pytest.raises(JobError, match=r"sources/a.png") as caught:
        sources.load(folder, wanted)
    assert caught.value.code == "changed-file"
    assert sources.load(folder, wanted, force=True)["image"].getpixel((0, 0)) == (0, 0, 255)
    (settings.workspace / source.file).unlink()
    with pytest.raises(JobError) as caught:
        sources.load(folder, wanted, force=True)
    assert caught.value.code == "changed-file"


# --- what is refused ---


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no picture"),
        (b"a mug, please\n", "no picture"),
        (b"%PDF-1.7\n", "no picture"),
        (b"\0\0\0\x18ftypmp42" + bytes(200), "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (png()[:40], "no picture"),
        (png()[:45], "decoded to the end"),
        (png(Image.effect_noise((64, 64), 99))[:-200], "decoded to the end"),
        (png()[:50] + b"\xff\xff" + png()[52:], "decoded to the end"),
        (bomb(30_000, 30_000), "30000x30000 pixels; at most 128 million"),
        (bomb(1, 2**31 - 1), "at most 128 million"),
        (bomb(1000, 1000), "decoded to the end"),
    ],
)
def test_what_is_no_whole_picture_is_refused_with_the_reason(settings: Settings, data: bytes, why: str) -> None:
    error = refused(settings, data)
    assert error.code == "bad-picture"
    assert why in error.message
    assert error.message.startswith("a.png: ")
    assert error.hint


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PNG"])
def test_every_format_is_read_whatever_its_name_says_and_noticed_when_cut_off(settings: Settings, kind: str) -> None:
    data = io.BytesIO()
    Image.effect_noise((64, 48), 99).convert("RGB").save(data, format=kind)
    assert take_bytes(settings, data.getvalue()).width == 64
    for path in (settings.outputs_dir / "mug_take01/sources").iterdir():
        path.unlink()
    assert refused(settings, data.getvalue()[: len(data.getvalue()) // 2]).code == "bad-picture"


def test_broken_exif_spoils_no_picture(settings: Settings) -> None:
    data = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(data, format="JPEG", exif=b"Exif\0\0MM\0\0\0\0\0\x08nonsense")
    assert loaded(settings, data.getvalue()).size == (8, 6)


def test_a_mask_has_the_size_of_its_image() -> None:
    image, mask = samples.source("image"), samples.source("mask")
    sources.check_sizes({"image": image, "mask": mask})
    small = mask.model_copy(update={"width": 8, "height": 6})
    with pytest.raises(JobError, match=r"8x6 pixels, and mug\.png has 640x480"):
        sources.check_sizes({"image": image, "mask": small})


# --- how it is loaded ---


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(settings: Settings, orientation: int) -> None:
    image = Image.new("RGB", (2, 3))
    for (x, y), colour in CORNERS.items():
        image.putpixel((x, y * 2), colour)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = loaded(settings, png(image, exif=exif))
    assert turned.size == ((3, 2) if orientation >= 5 else (2, 3))
    # What a viewer does: the transposed picture, without its EXIF part.
    with Image.open(io.BytesIO(png(image, exif=exif))) as viewed:
        assert turned.tobytes() == ImageOps.exif_transpose(viewed).tobytes()
    if orientation == 6:
        assert [turned.getpixel((x, y)) for x, y in ((0, 0), (2, 0), (0, 1), (2, 1))] == [
            CORNERS[0, 1],
            CORNERS[0, 0],
            CORNERS[1, 1],
            CORNERS[1, 0],
        ]


def test_transparency_is_laid_over_white_and_of_a_mask_over_black(settings: Settings) -> None:
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    half.putpixel((1, 0), (255, 0, 0, 0))
    image = loaded(settings, png(half))
    assert [image.getpixel((x, 0)) for x in range(2)] == [(255, 0, 0), (255, 255, 255)]
    mask = loaded(settings, png(Image.new("LA", (2, 1), (255, 0))), role="mask")
    assert (mask.mode, mask.getpixel((0, 0))) == ("L", 0)


def test_a_transparent_colour_of_a_palette_is_laid_over_white(settings: Settings) -> None:
    image = Image.new("P", (2, 1), 1)
    image.putpalette([0, 255, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    seen = loaded(settings, png(image, transparency=1))
    assert [seen.getpixel((x, 0)) for x in range(2)] == [(0, 255, 0), (255, 255, 255)]


@pytest.mark.parametrize(("value", "seen"), [(0, 0), (257, 1), (0x8000, 128), (65535, 255)])
def test_sixteen_bits_are_scaled_and_not_cut_off(settings: Settings, value: int, seen: int) -> None:
    assert loaded(settings, png(Image.new("I;16", (4, 4), value))).getpixel((1, 1)) == (seen, seen, seen)


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf"), -3.0])
def test_fractions_are_scaled_and_what_is_no_number_does_no_harm(settings: Settings, value: float) -> None:
    data = io.BytesIO()
    Image.new("F", (4, 4), value).save(data, format="TIFF")
    expected = {0.5: 128, float("inf"): 255}.get(value, 0)
    assert loaded(settings, data.getvalue()).getpixel((1, 1)) == (expected,) * 3


def test_the_colours_of_print_become_those_of_a_screen(settings: Settings) -> None:
    data = io.BytesIO()
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(data, format="TIFF")
    assert loaded(settings, data.getvalue()).getpixel((1, 1)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_comes_as_three_times_8_bits_and_a_mask_as_one(settings: Settings, mode: str) -> None:
    assert loaded(settings, png(Image.new(mode, (4, 4)))).mode == "RGB"
    assert loaded(settings, png(Image.new(mode, (4, 4))), role="mask").mode == "L"


def test_the_first_picture_of_a_moving_one_is_taken(settings: Settings) -> None:
    data = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(data, format="GIF", save_all=True, append_images=frames[1:])
    assert loaded(settings, data.getvalue()).getpixel((1, 1)) == (255, 0, 0)
