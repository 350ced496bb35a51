"""`check`: how much a job is, told from what was made before, and what a batch waits for."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from commands import Hotfolder, job_folder
from conftest import Serve, Workspace

BATCH = """items = "list.csv"
count = 4
[matrix]
image = "*.png"
strength = [0.5, 0.7]
"""
PHOTO = """prompt = "a mug"
count = 4
[[stages]]
stage = "generate"
[[stages]]
stage = "select"
keep = 2
[[stages]]
stage = "upscale"
factor = 2.0
[[stages]]
stage = "variants"
aspects = ["1:1", "16:9", "9:16"]
[matrix]
prompt = ["a mug", "a cup"]
"""


@pytest.fixture
def hotfolder(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Hotfolder:
    return Hotfolder(workspace.root, capsys)


def job(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mug.toml"
    file.write_text(text)
    return file


def checked(hotfolder: Hotfolder, file: Path) -> Any:
    return hotfolder("check", file, "--json").json["data"]["files"][0]


def row(name: str, done: int, seconds: float) -> dict[str, Any]:
    return {"number": 1, "name": name, "state": "completed", "done": done, "failed": 0, "seconds": seconds}


def test_a_batch_waits_for_what_is_not_in_the_inbox_yet(
    hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path
) -> None:
    file = job(tmp_path, BATCH)
    assert "waits for *.png, list.csv: not in the inbox yet" in hotfolder("check", file).out
    (workspace.inbox / "list.csv").write_text("prompt,seed\na mug,1\na cup,2\na jug,3\n")
    assert checked(hotfolder, file)["waits_for"] == ["*.png"]
    workspace.picture("a.png")
    workspace.picture("b.png")
    found = checked(hotfolder, file)
    assert (found["items"], found["candidates"], found["pictures"]) == (12, 48, 48)
    assert found["waits_for"] == []
    assert "12 items, 48 candidates, 48 pictures; time unknown, about" in hotfolder("check", file).out


def test_a_batch_in_a_lane_finds_what_lies_in_that_lane(hotfolder: Hotfolder, workspace: Workspace) -> None:
    workspace.picture("mugs/a.png")
    file = workspace.drop("mug.toml", '[matrix]\nimage = "*.png"\n', lane="mugs")
    assert checked(hotfolder, file)["pictures"] == 1


def test_what_is_wrong_with_a_list_is_told(hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path) -> None:
    (workspace.inbox / "list.csv").write_text("prompt,stepz\na mug,1\n")
    said = hotfolder("check", job(tmp_path, 'items = "list.csv"\n'))
    assert said.code == 2
    assert ":1: unknown key stepz" in said.out


def test_a_list_outside_the_inbox_is_refused_and_not_read(hotfolder: Hotfolder, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a mug\n")
    found = checked(hotfolder, job(tmp_path, 'items = "../../list.txt"\n'))
    assert [problem["code"] for problem in found["problems"]] == ["forbidden-path"]


def test_a_picture_of_a_matrix_that_lies_outside_is_refused(hotfolder: Hotfolder, tmp_path: Path) -> None:
    found = checked(hotfolder, job(tmp_path, '[matrix]\nimage = ["a.png", "../b.png"]\n'))
    assert [(problem["code"], problem["line"]) for problem in found["problems"]] == [("forbidden-path", 2)]


def test_more_candidates_than_the_settings_accept_are_refused(
    hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path
) -> None:
    (workspace.root / "hotfolder.toml").write_text("[batch]\nmax_candidates = 10\n")
    file = job(tmp_path, 'count = 4\n[matrix]\nprompt = ["a", "b", "c"]\n')
    said = hotfolder("check", file)
    assert said.code == 2
    assert f"{file}:2: 3 items of 4 candidates make 12 candidates; at most 10 are accepted" in said.out
    assert hotfolder("submit", file).code == 2


def test_pictures_are_counted_after_the_choice_and_in_each_variant(hotfolder: Hotfolder, tmp_path: Path) -> None:
    found = checked(hotfolder, job(tmp_path, PHOTO))
    assert (found["items"], found["candidates"], found["pictures"]) == (2, 8, 12)


def test_the_count_of_each_item_is_its_own(hotfolder: Hotfolder, tmp_path: Path) -> None:
    text = PHOTO.replace('prompt = ["a mug", "a cup"]', '"stage.select.keep" = [1, 3]')
    assert checked(hotfolder, job(tmp_path, text))["pictures"] == 12


def test_one_picture_is_said_in_one_word(hotfolder: Hotfolder, tmp_path: Path) -> None:
    said = hotfolder("check", job(tmp_path, 'preset = "noise"\nprompt = "a mug"\nwidth = 1000\nheight = 1000\n'))
    assert said.out.endswith("mug.toml: ok, preset noise (text2img), 1 picture; time unknown, about 1.5 MB\n")


def test_the_time_is_told_from_the_pace_of_jobs_with_the_same_preset(
    hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path
) -> None:
    job_folder(workspace, "a_take01", preset="tiny", stages=[row("generate", 2, 4.0), row("export", 2, 1.0)])
    job_folder(workspace, "b_take01", preset="tiny", stages=[row("generate", 2, 8.0), row("export", 0, 0.0)])
    job_folder(workspace, "c_take01", preset="flux-dev", stages=[row("generate", 1, 900.0)])
    job_folder(workspace, "d_take01", preset="tiny", state="running", stages=[row("generate", 1, 900.0)])
    file = job(tmp_path, 'prompt = "a mug"\ncount = 10\n')
    assert checked(hotfolder, file)["seconds"] == pytest.approx(10 * (3.0 + 0.5))
    assert "about 35 s" in hotfolder("check", file).out
    assert checked(hotfolder, job(tmp_path, 'prompt = "a mug"\npreset = "flux-schnell"\n'))["seconds"] is None


def test_a_batch_of_presets_takes_the_time_of_each(hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path) -> None:
    job_folder(workspace, "a_take01", preset="tiny", stages=[row("generate", 1, 1.0)])
    file = job(tmp_path, 'prompt = "a mug"\n[matrix]\npreset = ["tiny", "flux-dev"]\n')
    assert checked(hotfolder, file)["seconds"] is None
    job_folder(workspace, "b_take01", preset="flux-dev", stages=[row("generate", 1, 30.0)])
    assert checked(hotfolder, file)["seconds"] == pytest.approx(31.0)


def test_a_stage_that_no_job_went_through_leaves_the_time_unknown_where_it_needs_the_gpu(
    hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path
) -> None:
    job_folder(workspace, "a_take01", preset="tiny", stages=[row("generate", 1, 1.0)])
    stages = 'prompt = "a mug"\n[[stages]]\nstage = "generate"\n[[stages]]\nstage = '
    assert checked(hotfolder, job(tmp_path, f'{stages}"grayscale"\n'))["seconds"] == pytest.approx(1.0)
    assert checked(hotfolder, job(tmp_path, f'{stages}"refine"\n'))["seconds"] is None


def test_the_size_is_told_from_pictures_that_were_made(
    hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path
) -> None:
    outputs = [{"file": f"a_take01_00{number}.png", "candidate": number, "seed": number} for number in (1, 2)]
    folder = job_folder(workspace, "a_take01", preset="tiny", pipeline="generate", outputs=outputs)
    (folder / "a_take01_001.png").write_bytes(bytes(1000))
    (folder / "a_take01_002.png").write_bytes(bytes(3000))
    assert checked(hotfolder, job(tmp_path, 'prompt = "a mug"\ncount = 3\n'))["bytes"] == 6000


def test_the_size_of_what_was_never_made_is_told_from_its_pixels(hotfolder: Hotfolder, tmp_path: Path) -> None:
    text = PHOTO.replace("[matrix]", "[matrix]\nwidth = [128]\nheight = [128]")
    assert checked(hotfolder, job(tmp_path, text))["bytes"] == 12 * (128 * 2) * (128 * 2) * 1.5
    no_model = 'image = "a.png"\n[[stages]]\nstage = "grayscale"\n'
    assert checked(hotfolder, job(tmp_path, no_model))["bytes"] is None


def test_a_status_that_somebody_broke_is_passed_over(
    hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path
) -> None:
    folder = job_folder(workspace, "a_take01", preset="tiny", finished_at=datetime.now(UTC))
    (folder / "status.toml").write_text("state = ")
    (job_folder(workspace, "b_take01") / "status.toml").unlink()
    assert checked(hotfolder, job(tmp_path, 'prompt = "a mug"\n'))["seconds"] is None


def test_what_a_daemon_made_tells_the_time_of_the_next(
    hotfolder: Hotfolder, workspace: Workspace, serve: Serve, tmp_path: Path
) -> None:
    serve()
    workspace.drop("mug.toml")
    workspace.wait_for("mug_take01", "completed")
    found = checked(hotfolder, workspace.outputs / "mug_take01" / "plan.toml")
    size = (workspace.outputs / "mug_take01" / "mug_take01_001.png").stat().st_size
    assert (found["candidates"], found["bytes"]) == (1, size)
    assert found["seconds"] is not None
    assert (
        "ok, a plan of mug_take01: preset noise, 1 picture"
        in hotfolder("check", workspace.outputs / "mug_take01" / "plan.toml").out
    )


def test_the_list_beside_a_job_file_comes_along(hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a mug\na cup\n")
    assert hotfolder("submit", job(tmp_path, 'items = "list.txt"\n')).code == 0
    assert (workspace.inbox / "list.txt").read_text() == "a mug\na cup\n"
    assert checked(hotfolder, workspace.inbox / "mug.toml")["items"] == 2


def test_pictures_and_assets_that_are_not_there_yet_are_named(
    hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path
) -> None:
    text = 'image = "photo.png"\n[[stages]]\nstage = "overlay"\nimage = "our-logo.png"\n'
    said = hotfolder("check", job(tmp_path, text))
    assert (said.code, "waits for photo.png, our-logo.png: not in the inbox yet" in said.out) == (0, True)
    workspace.picture("photo.png")
    workspace.picture("our-logo.png")
    assert "waits for" not in hotfolder("check", job(tmp_path, text)).out


def test_a_model_that_would_have_to_be_downloaded_is_named(hotfolder: Hotfolder, tmp_path: Path) -> None:
    said = hotfolder("check", job(tmp_path, 'prompt = "a mug"\npreset = "flux-schnell"\n'))
    assert (said.code, "not on this machine: black-forest-labs/FLUX.1-schnell (flux-schnell)" in said.out) == (0, True)
