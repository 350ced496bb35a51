from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from samples import picture, plan, record_of, source

from hotfolder import compare, outputs
from hotfolder.compare import Difference, Verdict
from hotfolder.encoding import Encoding, Format
from hotfolder.errors import JobError
from hotfolder.record import Record

STEM = "mug_take01_003"
OTHER = "9" * 64
LOSSY: tuple[Format, ...] = ("jpeg", "webp", "avif")


def changed(old: Record, **other: Any) -> Record:
    return old.model_copy(update=other)


def other_pixels(old: Record, **other: Any) -> Record:
    """The same made again, with other pixels from the stage generate on."""
    stages = tuple(stage.model_copy(update={"gave": (OTHER,)}) for stage in old.stages)
    return changed(old, pixels_sha256=OTHER, stages=stages, **other)


def told(old: Record, new: Record) -> dict[str, tuple[str | None, str | None, bool]]:
    return {one.what: (one.old, one.new, one.explains) for one in compare.differences(old, new)}


def test_the_same_picture_made_again_differs_in_nothing() -> None:
    old = record_of(plan(sources=[source()]))
    again = changed(old, run_id="run-2", job="mug_take02", timings={"denoise": 9.0}, title="again")

    assert compare.differences(old, again) == []
    assert compare.verdict(old, again) is Verdict.IDENTICAL


def test_the_same_pixels_are_identical_whatever_else_differs() -> None:
    old = record_of()
    again = changed(old, versions={**old.versions, "torch": "2.14.0"}, model={**old.model, "device": "cuda:0"})

    assert compare.verdict(old, again) is Verdict.IDENTICAL
    assert told(old, again) == {
        "model.device": ("cpu", "cuda:0", True),
        "versions.torch": ("2.13.0", "2.14.0", True),
    }


@pytest.mark.parametrize("key", ["hash", "dtype", "attention", "threads", "device", "gpu", "offload"])
def test_what_tells_of_the_model_and_the_machine_can_explain_other_pixels(key: str) -> None:
    old = record_of()
    again = other_pixels(old, model={**old.model, key: "another"})

    assert told(old, again)[f"model.{key}"] == (old.model.get(key), "another", True)
    assert compare.verdict(old, again) is Verdict.EXPLAINED


def test_a_stage_that_makes_other_pixels_by_now_is_named() -> None:
    old = record_of()
    newer = tuple(stage.model_copy(update={"version": 2}) for stage in other_pixels(old).stages[:1])
    again = other_pixels(old).model_copy(update={"stages": (*newer, *other_pixels(old).stages[1:])})

    assert told(old, again)["stages.generate.version"] == ("1", "2", True)
    assert compare.verdict(old, again) is Verdict.EXPLAINED


def test_the_first_stage_that_gave_other_pixels_is_named() -> None:
    old = record_of()
    first, last = old.stages
    again = changed(old, pixels_sha256=OTHER, stages=(first, last.model_copy(update={"gave": (OTHER,)})))

    assert compare.differences(old, again) == [
        Difference(what="pixels_sha256", old=old.pixels_sha256, new=OTHER, explains=False),
        Difference(what="stages.export.gave", old=last.gave[0], new=OTHER, explains=False),
    ]


def test_other_pixels_without_a_reason_are_unexplained() -> None:
    old = record_of()

    assert compare.verdict(old, other_pixels(old)) is Verdict.UNEXPLAINED


def test_a_newer_python_or_hotfolder_is_told_but_is_no_reason() -> None:
    old = record_of()
    again = other_pixels(old, versions={**old.versions, "python": "3.12.1", "hotfolder": "0.2.0"})

    assert told(old, again)["versions.python"] == ("3.11.7", "3.12.1", False)
    assert compare.verdict(old, again) is Verdict.UNEXPLAINED


def test_what_only_one_of_them_says_is_told_too() -> None:
    old = record_of()
    less = {key: value for key, value in old.versions.items() if key != "torch"}
    again = changed(old, versions={**less, "xformers": "1.0"})

    assert told(old, again) == {
        "versions.torch": ("2.13.0", None, True),
        "versions.xformers": (None, "1.0", True),
    }


def test_only_exact_promises_the_same_pixels() -> None:
    fast = changed(record_of(), speed="fast")

    assert compare.verdict(fast, other_pixels(fast)) is Verdict.EXPLAINED
    assert told(record_of(), fast) == {"speed": ("exact", "fast", True)}


def test_what_was_asked_for_is_compared_too() -> None:
    old = record_of(plan(sources=[source()], steps=28))
    other = source().model_copy(update={"sha256": "6" * 64})
    new = record_of(plan(sources=[other], steps=20), candidate=2)

    assert told(old, new) == {
        "seed": ("44", "43", True),
        "generate.steps": ("28", "20", True),
        "sources.1.image.sha256": ("5" * 64, "6" * 64, True),
    }


def test_pictures_that_no_model_touched_are_compared_by_their_stages() -> None:
    old = changed(record_of(), generate=None, model={}, preset=None, kind=None, prompt=None)

    assert compare.verdict(old, old) is Verdict.IDENTICAL
    assert compare.verdict(old, other_pixels(old)) is Verdict.UNEXPLAINED


def written(folder: Path, how: Encoding) -> Path:
    return folder / outputs.write(folder, STEM, picture(), record_of(), how).file


@pytest.mark.parametrize("form", ["png", *LOSSY])
def test_a_record_is_read_from_the_sidecar_or_the_picture_alone(tmp_path: Path, form: Format) -> None:
    path = written(tmp_path, Encoding(format=form))
    sidecar = outputs.sidecar_of(path)

    assert compare.read(path) == compare.read(sidecar)
    assert compare.read(path).file_sha256 is not None

    sidecar.unlink()
    assert compare.read(path) == record_of()
    with pytest.raises(JobError, match=r"toml does not say") as caught:
        compare.read(sidecar)
    assert caught.value.code == "not-found"


def test_a_file_that_is_not_there_or_says_nothing_is_named(tmp_path: Path) -> None:
    picture().save(tmp_path / "plain.png")

    for name in ("plain.png", "gone.png", "gone.png.toml"):
        with pytest.raises(JobError, match=name) as caught:
            compare.read(tmp_path / name)
        assert caught.value.code == "not-found"


def test_a_broken_sidecar_is_not_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path, Encoding())
    outputs.sidecar_of(path).write_text("schema = 1\n")

    with pytest.raises(JobError, match=rf"{path.name}.toml is no sidecar") as caught:
        compare.read(path)

    assert caught.value.code == "changed-file"


@pytest.mark.parametrize("form", ["png", *LOSSY])
def test_a_picture_as_it_was_written_passes(tmp_path: Path, form: Format) -> None:
    path = written(tmp_path, Encoding(format=form))

    assert compare.check(path, compare.read(path))


def test_a_png_may_lose_its_text_but_no_pixel(tmp_path: Path) -> None:
    path = written(tmp_path, Encoding())
    record = compare.read(path)
    info = PngInfo()
    info.add_text("Comment", "seen by Ann")
    picture().save(path, pnginfo=info)
    assert compare.check(path, record)

    picture(7).save(path)
    with pytest.raises(JobError, match=f"{path.name} is not the picture") as caught:
        compare.check(path, record)
    assert caught.value.code == "changed-file"


def test_a_png_without_its_sidecar_is_known_by_its_pixels(tmp_path: Path) -> None:
    path = written(tmp_path, Encoding())
    outputs.sidecar_of(path).unlink()

    assert compare.check(path, compare.read(path))


def test_half_a_png_is_not_the_picture(tmp_path: Path) -> None:
    path = written(tmp_path, Encoding())
    record = compare.read(path)
    for data in (path.read_bytes()[:-200], b"", b"GIF89a"):
        path.write_bytes(data)
        with pytest.raises(JobError, match="is not the picture"):
            compare.check(path, record)


@pytest.mark.parametrize("form", LOSSY)
def test_other_formats_are_known_by_their_file(tmp_path: Path, form: Format) -> None:
    path = written(tmp_path, Encoding(format=form))
    record = compare.read(path)
    with Image.open(path) as image:
        image.load()
    image.save(path, quality=30)

    with pytest.raises(JobError, match="is not the picture"):
        compare.check(path, record)
    assert not compare.check(path, record.model_copy(update={"file_sha256": None})), "nobody knows"
