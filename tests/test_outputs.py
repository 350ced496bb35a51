import hashlib
from pathlib import Path

import pytest
from PIL import Image
from samples import made, picture, plan, record_of

from hotfolder import outputs
from hotfolder.errors import JobError
from hotfolder.record import load, pixels_sha256

STEM = "mug_take01_003"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_picture_and_its_sidecar_stand_in_the_folder_and_nothing_else(tmp_path: Path) -> None:
    record = record_of()
    written = outputs.write(tmp_path, STEM, picture(), record)

    assert names(tmp_path) == [f"{STEM}.png", f"{STEM}.png.toml"]
    assert written.file == f"{STEM}.png"
    assert written.pixels_sha256 == record.pixels_sha256
    with Image.open(tmp_path / written.file) as image:
        assert pixels_sha256(image) == record.pixels_sha256


def test_the_sidecar_knows_the_file_and_how_long_saving_took(tmp_path: Path) -> None:
    record = record_of()
    written = outputs.write(tmp_path, STEM, picture(), record)
    said = load((tmp_path / f"{STEM}.png.toml").read_bytes())

    assert said.file_sha256 == written.sha256 == hashlib.sha256((tmp_path / written.file).read_bytes()).hexdigest()
    assert said.timings["denoise"] == 1.25
    assert said.timings["save"] == pytest.approx(written.seconds, abs=1e-4)
    kept = {"file_sha256": None, "timings": record.timings}
    assert said.model_copy(update=kept) == record


def test_a_picture_that_a_crash_left_without_sidecar_is_replaced(tmp_path: Path) -> None:
    (tmp_path / f"{STEM}.png").write_bytes(b"half a picture")
    (tmp_path / f".{STEM}.png.tmp").write_bytes(b"less than half")

    written = outputs.write(tmp_path, STEM, picture(), record_of())

    assert outputs.find(tmp_path, STEM) == outputs.write(tmp_path, STEM, picture(), record_of())
    assert names(tmp_path) == [written.file, f"{written.file}.toml"]


def test_a_sidecar_whose_picture_was_deleted_is_replaced_too(tmp_path: Path) -> None:
    outputs.write(tmp_path, STEM, picture(), record_of())
    (tmp_path / f"{STEM}.png").unlink()

    assert outputs.find(tmp_path, STEM) is None
    written = outputs.write(tmp_path, STEM, picture(7), record_of())

    assert load((tmp_path / f"{STEM}.png.toml").read_bytes()).file_sha256 == written.sha256


def test_the_same_picture_finished_before_a_crash_stays_as_it_is(tmp_path: Path) -> None:
    first = outputs.write(tmp_path, STEM, picture(), record_of())
    before = (tmp_path / first.file).stat()

    again = outputs.write(tmp_path, STEM, picture(), record_of())

    assert (again.file, again.sha256, again.pixels_sha256) == (first.file, first.sha256, first.pixels_sha256)
    assert (tmp_path / first.file).stat() == before


def test_another_finished_picture_is_never_overwritten(tmp_path: Path) -> None:
    first = outputs.write(tmp_path, STEM, picture(), record_of())

    with pytest.raises(RuntimeError, match="never overwritten"):
        outputs.write(tmp_path, STEM, picture(7), record_of(candidate=4))

    assert hashlib.sha256((tmp_path / first.file).read_bytes()).hexdigest() == first.sha256


@pytest.mark.parametrize(
    ("name", "text"), [(f"{STEM}.png", b"x"), (f"{STEM}.png.toml", b"x")], ids=["picture", "sidecar"]
)
def test_a_finished_picture_that_was_changed_is_called_by_name(tmp_path: Path, name: str, text: bytes) -> None:
    outputs.write(tmp_path, STEM, picture(), record_of())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + text)

    with pytest.raises(JobError, match=name) as caught:
        outputs.find(tmp_path, STEM)

    assert caught.value.code == "changed-file"


def test_nothing_is_left_where_the_folder_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        outputs.write(tmp_path / "gone", STEM, picture(), record_of())

    assert names(tmp_path) == []


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
def test_pixels_come_back_as_they_were_in_every_mode_that_stages_hand_on(tmp_path: Path, mode: str) -> None:
    image = Image.effect_noise((64, 48), 60)
    image = (
        image.convert("I").point(lambda value: value * 257).convert("I;16") if mode == "I;16" else image.convert(mode)
    )

    written = outputs.write(tmp_path, STEM, image, record_of(result=made()))

    with Image.open(tmp_path / written.file) as back:
        assert pixels_sha256(back) == pixels_sha256(image)


def test_a_prompt_of_twenty_thousand_letters_goes_into_the_picture(tmp_path: Path) -> None:
    prompt = "größer " * 2_800
    written = outputs.write(tmp_path, STEM, picture(), record_of(plan(prompt=prompt)))

    with Image.open(tmp_path / written.file) as image:
        image.load()
        assert prompt.strip() in str(image.info["parameters"])
