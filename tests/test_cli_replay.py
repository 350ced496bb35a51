"""The same again: `replay` makes one picture again and can say whether it is identical, `rerun` repeats a whole job."""

import os
import shutil
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from commands import Hotfolder, end, job_folder, start
from conftest import Serve, Workspace
from PIL import Image

SMALL = 'prompt = "a mug"\nsteps = 2\nwidth = 64\nheight = 64\nseed = 7\ncount = 2\n'


@pytest.fixture
def hotfolder(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Hotfolder:
    return Hotfolder(workspace.root, capsys)


@pytest.fixture
def made(workspace: Workspace, serve: Serve) -> Path:
    """The second picture of a job; the daemon goes on."""
    serve()
    workspace.drop("mug.toml", SMALL)
    workspace.wait_for("mug_take01", "completed")
    return workspace.outputs / "mug_take01" / "mug_take01_002.png"


def sidecar_of(picture: Path) -> Path:
    return picture.with_name(f"{picture.name}.toml")


def change(picture: Path, **changes: Any) -> None:
    """Let a sidecar say something else."""
    table = tomllib.loads(sidecar_of(picture).read_text())
    for key, value in changes.items():
        table[key] = table[key] | value if isinstance(value, dict) else value
    sidecar_of(picture).write_text(tomli_w.dumps(table))


# --- replay ---


@pytest.mark.parametrize("by", ["picture", "sidecar"])
def test_a_picture_is_made_again_by_itself_or_by_its_sidecar(
    hotfolder: Hotfolder, workspace: Workspace, made: Path, by: str
) -> None:
    given = made if by == "picture" else sidecar_of(made)
    said = hotfolder("replay", given, "--wait", "--json")
    assert (said.code, said.json["data"]["job"]) == (0, "mug_take02")
    (again,) = said.json["data"]["pictures"]
    assert Path(again).read_bytes()[:8] == made.read_bytes()[:8]
    with Image.open(again) as one, Image.open(made) as other:
        assert one.tobytes() == other.tobytes()
    assert workspace.status("mug_take02")["source"] == "replay"
    text = (workspace.outputs / "mug_take02" / "job.toml").read_bytes()
    assert text == b"#! via replay\n" + sidecar_of(made).read_bytes()


def test_replay_without_a_daemon_drops_and_warns(hotfolder: Hotfolder, workspace: Workspace, made: Path) -> None:
    (workspace.root.parent / "alone" / "jobs_inbox").mkdir(parents=True)
    (workspace.root.parent / "alone" / "outputs").mkdir()
    said = end(start("replay", made, cwd=workspace.root.parent / "alone"))
    assert said.code == 0
    assert "warning: no daemon" in said.err
    assert os.listdir(workspace.root.parent / "alone" / "jobs_inbox") == ["mug.toml"]


def test_a_picture_without_a_sidecar_says_itself_how_it_was_made(
    hotfolder: Hotfolder, made: Path, tmp_path: Path
) -> None:
    copy = shutil.copy(made, tmp_path / "found.png")
    said = hotfolder("replay", copy, "--verify", "--json")
    assert (said.code, said.json["data"]["verdict"]) == (0, "identical")
    assert said.json["data"]["job"] == "found_take01"


def test_verify_says_identical(hotfolder: Hotfolder, workspace: Workspace, made: Path) -> None:
    said = hotfolder("replay", made, "--verify")
    assert said.code == 0
    assert f"identical: {workspace.outputs}/mug_take02/mug_take02_001.png\n" in said.out
    assert workspace.status("mug_take02")["source"] == "replay"
    said = hotfolder("replay", sidecar_of(made), "--verify", "--json")
    assert said.json["data"]["differences"] == []


def test_verify_names_what_differs_and_can_be_why(hotfolder: Hotfolder, made: Path) -> None:
    change(made, pixels_sha256="0" * 64, versions={"torch": "1.0"})
    said = hotfolder("replay", made, "--verify")
    assert said.code == 3
    assert "pixels_sha256: 000000000000... -> " in said.out
    assert "versions.torch: 1.0 -> " in said.out
    assert ", which can be why\n" in said.out
    assert "error: mug_take01_002.png: other pixels, and that is explained" in said.err
    assert "hint: the same torch would be needed" in said.err
    data = hotfolder("replay", made, "--verify", "--json").json
    assert (data["error"]["code"], data["data"]["verdict"]) == ("not-identical", "explained")
    explains = {one["what"]: one["explains"] for one in data["data"]["differences"]}
    assert (explains["pixels_sha256"], explains["versions.torch"]) == (False, True)


def test_verify_tells_a_difference_without_a_reason(hotfolder: Hotfolder, made: Path) -> None:
    change(made, pixels_sha256="0" * 64)
    said = hotfolder("replay", made, "--verify", "--json")
    assert (said.code, said.json["data"]["verdict"]) == (3, "unexplained")
    assert "a defect of this program or of the machine" in said.json["error"]["hint"]


def test_verify_says_that_a_speed_promises_nothing(hotfolder: Hotfolder, made: Path) -> None:
    change(made, pixels_sha256="0" * 64, speed="max")
    said = hotfolder("replay", made, "--verify")
    assert said.code == 3
    assert 'mug_take01_002.png was made with speed "max", which does not promise the same pixels' in said.out


def test_the_same_pixels_from_another_version_are_identical(hotfolder: Hotfolder, made: Path) -> None:
    change(made, versions={"torch": "1.0"})
    said = hotfolder("replay", made, "--verify")
    assert said.code == 0
    assert "identical: " in said.out
    assert "  though versions.torch: 1.0 -> " in said.out


def test_a_picture_that_was_changed_is_told_before_it_is_made_again(
    hotfolder: Hotfolder, workspace: Workspace, made: Path
) -> None:
    Image.new("RGB", (64, 64)).save(made)
    said = hotfolder("replay", made, "--verify", "--json")
    assert (said.code, said.json["error"]["code"]) == (3, "changed-file")
    assert workspace.jobs() == ["mug_take01"]


@pytest.mark.parametrize("name", ["absent.png", "absent.png.toml", "plain.png"])
def test_what_does_not_say_how_it_was_made_cannot_be_replayed(
    hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path, name: str
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "plain.png")
    for options in ([], ["--verify"]):
        said = hotfolder("replay", tmp_path / name, *options, "--json")
        assert (said.code, said.json["error"]["code"]) == (4, "not-found")
    assert list(workspace.inbox.iterdir()) == []


def test_a_picture_of_another_model_than_the_preset_has_here_is_refused(
    hotfolder: Hotfolder, workspace: Workspace, made: Path
) -> None:
    (workspace.root / "presets").mkdir()
    (workspace.root / "presets" / "noise.toml").write_text('extends = "noise"\n[model]\nrepo = "somebody/else"\n')
    said = hotfolder("replay", made, "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "wrong-model")


def test_verify_makes_the_picture_in_this_process_where_no_daemon_is(workspace: Workspace) -> None:
    small = ["--set", "steps=1", "--set", "width=64", "--set", "height=64", "--json"]
    said = end(start("run", "--prompt", "a mug", "--name", "mug", *small, cwd=workspace.root))
    (picture,) = said.json["data"]["pictures"]
    said = end(start("replay", picture, "--verify", "--json", cwd=workspace.root))
    assert (said.code, said.json["data"]["verdict"]) == (0, "identical"), said
    assert workspace.status("mug_take02")["mode"] == "direct"


# --- rerun ---


def test_the_last_job_is_repeated_exactly(hotfolder: Hotfolder, workspace: Workspace, made: Path) -> None:
    workspace.drop("cup.toml", SMALL.replace("seed = 7\n", ""))
    workspace.wait_for("cup_take01", "completed")
    said = hotfolder("rerun", "--wait", "--json")
    assert (said.code, said.json["data"]["job"], said.json["data"]["of"]) == (0, "cup_take02", "cup_take01")
    assert workspace.status("cup_take02")["seed"] == workspace.status("cup_take01")["seed"]
    pixels = [
        [
            tomllib.loads(file.read_text())["pixels_sha256"]
            for file in sorted((workspace.outputs / take).glob("*.png.toml"))
        ]
        for take in ("cup_take01", "cup_take02")
    ]
    assert pixels[0] == pixels[1]
    assert len(pixels[0]) == 2


def test_the_newest_take_of_a_name_is_repeated(hotfolder: Hotfolder, workspace: Workspace, made: Path) -> None:
    workspace.drop("cup.toml")
    workspace.wait_for("cup_take01", "completed")
    said = hotfolder("rerun", "mug")
    assert said.code == 0
    assert "mug_take02 is in the line (the same as mug_take01)" in said.out
    workspace.wait_for("mug_take02", "completed")
    text = (workspace.outputs / "mug_take02" / "job.toml").read_bytes()
    assert text == b"#! via cli\n" + (workspace.outputs / "mug_take01" / "plan.toml").read_bytes()


def test_the_last_job_is_the_one_that_was_queued_last(hotfolder: Hotfolder, workspace: Workspace) -> None:
    for name, day in (("a_take01", 3), ("b_take01", 5), ("c_take01", 4)):
        job_folder(workspace, name, queued_at=datetime(2026, 11, day, tzinfo=UTC))
    # One that came earlier was finished later.
    (workspace.outputs / "a_take01" / "a_take01_001.png").touch()
    said = hotfolder("rerun", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "not-possible")
    assert said.json["error"]["message"].startswith("b_take01 is completed")


def test_a_job_without_a_plan_cannot_be_repeated(hotfolder: Hotfolder, workspace: Workspace) -> None:
    assert hotfolder("rerun", "--json").json["error"]["code"] == "not-found"
    job_folder(workspace, "mug_take01", state="rejected")
    said = hotfolder("rerun", "mug")
    assert said.code == 2
    assert "mug_take01 was rejected: it has no plan" in said.err
