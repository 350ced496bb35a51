"""What a name in the inbox means."""

import pytest
from hypothesis import given
from test_names import FILE_NAMES

from hotfolder.meaning import (
    Control,
    ControlName,
    Ignored,
    JobName,
    LaneFile,
    PauseAll,
    PictureName,
    meaning_of,
)


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("mug.toml", "mug"),
        ("MUG.TOML", "MUG"),
        ("mug.toml.txt", "mug"),
        ("mug_take01.toml", "mug"),
        ("mug_take123.toml", "mug"),
        ("mug_take01_001.png.toml", "mug"),
        ("mug_take01_001_16x9.png.toml", "mug"),
        ("mug.png.toml", "mug"),
        ("mug_take1.toml", "mug_take1"),
        ("mug_takeoff.toml", "mug_takeoff"),
        ("mug_take01_take02.toml", "mug_take01"),
        ("a mug.v2.toml", "a mug.v2"),
        ("_take01.toml", "job"),
        ("a\nb.toml", "a_b"),
        ("caf\udce9.toml", "caf_"),
        ("Cafe\u0301.toml", "Caf\u00e9"),
        ("con.toml", "_con"),
        ("NUL.v2.toml", "_NUL.v2"),
        ("-rf.toml", "_-rf"),
        ("mug .toml", "mug"),
        ("mug_take\u0660\u0661.toml", "mug_take\u0660\u0661"),
    ],
)
def test_a_job_file_makes_a_take_of_its_name(file_name: str, name: str) -> None:
    assert meaning_of(file_name) == JobName(name=name)


@pytest.mark.parametrize(
    ("file_name", "control"),
    [
        ("mug.cancel", ControlName(control=Control.CANCEL, name="mug", take=None)),
        ("mug.cancel.txt", ControlName(control=Control.CANCEL, name="mug", take=None)),
        ("Mug.CANCEL.TXT", ControlName(control=Control.CANCEL, name="Mug", take=None)),
        ("mug.toml.cancel", ControlName(control=Control.CANCEL, name="mug", take=None)),
        ("mug.png.first", ControlName(control=Control.FIRST, name="mug", take=None)),
        ("mug_take02.pause", ControlName(control=Control.PAUSE, name="mug", take=2)),
        ("mug_take02.toml.resume", ControlName(control=Control.RESUME, name="mug", take=2)),
        ("mug.use.txt", ControlName(control=Control.USE, name="mug", take=None)),
        ("mug_take02.use", ControlName(control=Control.USE, name="mug", take=2)),
        ("mug_take02_001.cancel", ControlName(control=Control.CANCEL, name="mug", take=2)),
        ("mug_take02_001.png.cancel", ControlName(control=Control.CANCEL, name="mug", take=2)),
        ("a\nb.cancel", ControlName(control=Control.CANCEL, name="a_b", take=None)),
    ],
)
def test_a_control_file_means_every_take_or_the_one_it_names(file_name: str, control: ControlName) -> None:
    assert meaning_of(file_name) == control


@pytest.mark.parametrize("file_name", ["pause", "pause.txt", "Pause.TXT"])
def test_pause_means_everything_also_as_windows_names_it(file_name: str) -> None:
    assert meaning_of(file_name) == PauseAll()


def test_defaults_of_a_lane_are_read_under_one_name_and_others_are_told_so() -> None:
    assert meaning_of("folder.toml") == LaneFile()
    for other in ("Folder.toml", "folder.toml.txt"):
        found = meaning_of(other)
        assert isinstance(found, Ignored)
        assert "folder.toml" in str(found.why)


@pytest.mark.parametrize(
    "file_name",
    [
        ".mug.toml.swp",
        ".mug.toml.tmp",
        "mug.toml~",
        "#mug.toml#",
        "~$mug.toml",
        "._mug.toml",
        "mug.toml.tmp",
        "mug.toml.part",
        "mug.toml.filepart",
        "mug.toml.crdownload",
        "mug.sync-conflict-20261120-ABC.toml",
        "mug (conflicted copy 2026).toml",
        "Thumbs.db",
        "desktop.ini",
        "@eaDir",
        "mug.rejected.toml",
        "mug-2.rejected.toml",
        "mug.rejected.toml.txt",
        "mug.status.toml",
        "mug.taking",
        "notes.txt",
        "mug.mp4",
        "toml",
        "mug",
    ],
)
def test_what_others_leave_behind_is_left_alone_and_the_reason_is_told(file_name: str) -> None:
    found = meaning_of(file_name)
    assert isinstance(found, Ignored)
    assert found.why


@pytest.mark.parametrize("file_name", ["mug.png", "MUG.JPG", "mug.jpeg", "mug.webp", "mug.avif", "mug.tiff"])
def test_a_picture_is_known_by_its_suffix(file_name: str) -> None:
    assert meaning_of(file_name) == PictureName(name=file_name.partition(".")[0])


@given(FILE_NAMES)
def test_any_name_has_a_meaning_of(file_name: str) -> None:
    found = meaning_of(file_name)
    if isinstance(found, (JobName, ControlName, PictureName)):
        assert found.name
