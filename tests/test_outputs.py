import errno
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SmallDisk
from PIL import Image
from samples import made, picture, plan, record_of

from hotfolder import durable, outputs
from hotfolder.encoding import Encoding, Format
from hotfolder.errors import JobError
from hotfolder.outputs import Written
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


def written_at(path: Path) -> tuple[int, int]:
    """Which file it is, and when it was written; when it was last read may change."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def test_the_same_picture_finished_before_a_crash_stays_as_it_is(tmp_path: Path) -> None:
    first = outputs.write(tmp_path, STEM, picture(), record_of())
    before = written_at(tmp_path / first.file)

    again = outputs.write(tmp_path, STEM, picture(), record_of())

    assert (again.file, again.sha256, again.pixels_sha256) == (first.file, first.sha256, first.pixels_sha256)
    assert written_at(tmp_path / first.file) == before


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


@pytest.mark.parametrize(("form", "suffix"), [("png", ".png"), ("jpeg", ".jpg"), ("webp", ".webp"), ("avif", ".avif")])
def test_every_format_has_its_sidecar_and_is_found_and_discarded(tmp_path: Path, form: Format, suffix: str) -> None:
    written = outputs.write(tmp_path, STEM, picture(), record_of(), Encoding(format=form))

    assert names(tmp_path) == [f"{STEM}{suffix}", f"{STEM}{suffix}.toml"]
    sidecar = load(outputs.sidecar_of(tmp_path / written.file).read_bytes())
    assert (sidecar.file_sha256, sidecar.notices) == (written.sha256, ())
    assert sidecar.pixels_sha256 == written.pixels_sha256 == record_of().pixels_sha256
    assert written.quality == (None if form == "png" else 90)
    found = outputs.find(tmp_path, STEM, suffix)
    assert found is not None
    assert (found.file, found.sha256) == (written.file, written.sha256)

    outputs.discard(tmp_path, STEM, suffix)

    assert names(tmp_path) == []


def test_one_candidate_may_stand_in_two_formats(tmp_path: Path) -> None:
    outputs.write(tmp_path, STEM, picture(), record_of())
    outputs.write(tmp_path, STEM, picture(), record_of(), Encoding(format="webp"))

    assert len(names(tmp_path)) == 4
    outputs.discard(tmp_path, STEM, ".webp")
    assert outputs.find(tmp_path, STEM) is not None


def test_a_quality_that_was_lowered_is_said_in_the_sidecar(tmp_path: Path) -> None:
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    how = Encoding(format="jpeg", quality=95, max_bytes=12_000)

    written = outputs.write(tmp_path, STEM, noise, record_of(), how)

    assert written.quality is not None
    assert written.quality < 95
    assert (tmp_path / written.file).stat().st_size <= 12_000
    assert load((tmp_path / f"{STEM}.jpg.toml").read_bytes()).notices == (
        f"the quality was lowered from 95 to {written.quality}: max_bytes is 12000",
    )


def test_a_picture_that_cannot_be_small_enough_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="max_bytes is 1000"):
        outputs.write(tmp_path, STEM, picture(), record_of(), Encoding(format="jpeg", max_bytes=1_000))

    assert names(tmp_path) == []


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The folder of a job."""
    folder = tmp_path / "outputs" / "mug_take01"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def processed(job: Path) -> Path:
    return job.parent / "processed"


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another device, where no hard link leads."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to write to")
    folder = Path(tempfile.mkdtemp(dir=shared, prefix="hotfolder-test-"))
    yield folder
    shutil.rmtree(folder)


def finished(job: Path, seed: int = 0, stem: str = STEM) -> Written:
    return outputs.write(job, stem, picture(seed), record_of())


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_published_picture_is_a_second_name_of_the_same_file(job: Path, processed: Path) -> None:
    written = finished(job)

    published = outputs.publish(written.file, job, processed)

    assert published == processed / written.file
    assert bytes_of(processed) == bytes_of(job)
    assert published.samefile(job / written.file)


def test_on_another_device_it_is_copied(job: Path, other_disk: Path) -> None:
    written = finished(job)

    published = outputs.publish(written.file, job, other_disk / "shop")

    assert bytes_of(other_disk / "shop") == bytes_of(job)
    assert published.stat().st_nlink == 1


@pytest.mark.parametrize("times", [2, 3])
def test_publishing_again_after_a_crash_changes_nothing(job: Path, processed: Path, times: int) -> None:
    written = finished(job)

    published = {outputs.publish(written.file, job, processed) for _ in range(times)}

    assert published == {processed / written.file}
    assert bytes_of(processed) == bytes_of(job)


def test_a_crash_between_picture_and_sidecar_is_made_good(job: Path, processed: Path, other_disk: Path) -> None:
    written = finished(job)
    for where in (processed, other_disk):
        outputs.publish(written.file, job, where)
        (where / f"{written.file}.toml").unlink()

        assert outputs.publish(written.file, job, where) == where / written.file
        assert bytes_of(where) == bytes_of(job)


def test_half_a_copy_that_a_crash_left_is_written_over(job: Path, other_disk: Path) -> None:
    written = finished(job)
    (other_disk / f".{written.file}.tmp").write_bytes(b"half a picture " * 100_000)

    outputs.publish(written.file, job, other_disk)

    assert bytes_of(other_disk) == bytes_of(job)


def test_a_name_that_a_crash_left_on_a_finished_file_is_only_taken_away(job: Path, other_disk: Path) -> None:
    written = finished(job)
    moved = outputs.publish(written.file, job, other_disk).rename(other_disk / "kept.png")
    (other_disk / f".{written.file}.tmp").hardlink_to(moved)
    before = moved.read_bytes()

    outputs.publish(written.file, job, other_disk)

    assert moved.read_bytes() == before
    assert names(other_disk) == ["kept.png", written.file, f"{written.file}.toml"]


def test_another_picture_of_the_name_stays_and_the_new_one_is_numbered(job: Path, processed: Path) -> None:
    processed.mkdir()
    (processed / f"{STEM}.png").write_bytes(b"somebody's own")
    (processed / f"{STEM}-2.png").mkdir()
    (processed / f"{STEM}-3.png").symlink_to("nowhere")
    (processed / f"{STEM}-4.png.toml").write_text("somebody's own")
    written = finished(job)

    published = outputs.publish(written.file, job, processed)

    assert published.name == f"{STEM}-5.png"
    assert (processed / f"{STEM}.png").read_bytes() == b"somebody's own"
    assert not (processed / f"{STEM}-4.png").exists()
    assert outputs.sidecar_of(published).read_bytes() == (job / f"{STEM}.png.toml").read_bytes()
    assert outputs.publish(written.file, job, processed) == published


def test_the_same_happens_where_it_is_copied(job: Path, other_disk: Path) -> None:
    (other_disk / f"{STEM}.png").write_bytes(b"somebody's own")

    published = outputs.publish(finished(job).file, job, other_disk)

    assert names(other_disk) == [f"{STEM}-2.png", f"{STEM}-2.png.toml", f"{STEM}.png"]
    assert published.name == f"{STEM}-2.png"
    assert (other_disk / f"{STEM}.png").read_bytes() == b"somebody's own"


@pytest.mark.parametrize("disk", ["processed", "other_disk"])
def test_pictures_of_one_name_published_at_once_all_stand_in_the_end(
    tmp_path: Path, disk: str, request: pytest.FixtureRequest
) -> None:
    where: Path = request.getfixturevalue(disk)
    where.mkdir(exist_ok=True)
    jobs = []
    for number in range(6):
        folder = tmp_path / f"job{number}"
        folder.mkdir()
        # Each picture is published twice at the same time, as two daemons might.
        jobs += [(folder, finished(folder, number))] * 2
    ready = threading.Barrier(len(jobs))
    results: dict[int, Path] = {}

    def publish(number: int) -> None:
        ready.wait(30)
        results[number] = outputs.publish(jobs[number][1].file, jobs[number][0], where)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(results) == len(jobs)
    for number, published in results.items():
        folder, written = jobs[number]
        assert published.read_bytes() == (folder / written.file).read_bytes()
        sidecar = outputs.sidecar_of(published).read_bytes()
        assert sidecar == outputs.sidecar_of(folder / written.file).read_bytes()
    assert len(set(results.values())) == 6
    assert len(names(where)) == 12


def test_nothing_is_published_without_its_sidecar(job: Path, processed: Path) -> None:
    written = finished(job)
    (job / f"{written.file}.toml").unlink()

    with pytest.raises(FileNotFoundError):
        outputs.publish(written.file, job, processed)

    assert names(processed) == []


def test_a_folder_whose_parent_is_gone_is_not_made(job: Path, tmp_path: Path) -> None:
    written = finished(job)

    with pytest.raises(FileNotFoundError):
        outputs.publish(written.file, job, tmp_path / "unmounted" / "shop")

    assert not (tmp_path / "unmounted").exists()


def test_a_full_disk_leaves_no_half_copy(job: Path, tmp_path: Path, small_disk: SmallDisk) -> None:
    written = outputs.write(job, STEM, Image.effect_noise((400, 400), 90), record_of())
    disk = small_disk(64)

    with pytest.raises(OSError, match="No space left") as caught:
        outputs.publish(written.file, job, disk)

    assert caught.value.errno == errno.ENOSPC
    assert names(disk) == []


def test_a_rename_never_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")

    with pytest.raises(FileExistsError):
        durable.rename_new(tmp_path / "new", tmp_path / "old")

    assert (tmp_path / "old").read_text() == "old"
    durable.rename_new(tmp_path / "new", tmp_path / "free")
    assert (tmp_path / "free").read_text() == "new"
    assert not os.path.lexists(tmp_path / "new")
