"""`pipelines`: which there are, and of one what each stage does, needs and leaves open."""

from typing import Any

import pytest
from commands import Hotfolder
from conftest import Workspace

PHOTO = """title = "Product photo"
[[stages]]
stage = "generate"
[[stages]]
stage = "detect"
by = "finder"
[[stages]]
stage = "crop"
padding = 50
[[stages]]
stage = "rotate"
[[stages]]
stage = "cleanup"
enabled = false
[[stages]]
stage = "resize"
id = "small"
[[stages]]
stage = "export"
format = "jpeg"
"""
FINDER = 'kind = "detect"\ntitle = "Finds things"\n[model]\nrepo = "somebody/finder"\n'


@pytest.fixture
def hotfolder(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Hotfolder:
    (workspace.root / "presets" / "pipelines").mkdir(parents=True)
    return Hotfolder(workspace.root, capsys)


def pipeline(workspace: Workspace, name: str, text: str) -> None:
    (workspace.root / "presets" / "pipelines" / f"{name}.toml").write_text(text)


def told(hotfolder: Hotfolder, name: str) -> Any:
    return hotfolder("pipelines", "show", name, "--json").json["data"]


def test_pipelines_are_listed_with_their_stages_and_whose_they_are(hotfolder: Hotfolder, workspace: Workspace) -> None:
    pipeline(workspace, "photo", PHOTO)
    said = hotfolder("pipelines")
    assert said.code == 0
    line = next(line for line in said.out.splitlines() if line.startswith("photo "))
    shown = "photo own generate > detect > crop > rotate > small > export Product photo"
    assert line.split() == shown.split()
    found = {one["name"]: one for one in hotfolder("pipelines", "--json").json["data"]["pipelines"]}
    assert (found["generate"]["own"], found["generate"]["default"]) == (False, True)
    assert (found["photo"]["own"], found["photo"]["default"]) == (True, False)


def test_a_workspaces_own_pipeline_hides_the_shipped_one_of_its_name(
    hotfolder: Hotfolder, workspace: Workspace
) -> None:
    pipeline(workspace, "generate", PHOTO)
    found = {one["name"]: one for one in hotfolder("pipelines", "--json").json["data"]["pipelines"]}
    assert (found["generate"]["own"], found["generate"]["title"]) == (True, "Product photo")


def test_a_pipeline_that_is_wrong_is_listed_as_such(hotfolder: Hotfolder, workspace: Workspace) -> None:
    pipeline(workspace, "broken", '[[stages]]\nstage = "generat"\n')
    said = hotfolder("pipelines")
    assert said.code == 0
    assert "broken" in said.out
    assert "there is no stage 'generat'" in said.out
    said = hotfolder("pipelines", "show", "broken", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "bad-pipeline")


def test_each_key_says_where_its_value_comes_from(hotfolder: Hotfolder, workspace: Workspace) -> None:
    pipeline(workspace, "photo", PHOTO)
    keys = {stage["id"]: stage["keys"] for stage in told(hotfolder, "photo")["stages"]}
    assert keys["crop"]["padding"] == {"value": 50, "from": "pipeline"}
    assert keys["crop"]["gravity"] == {"value": "center", "from": "default"}
    assert keys["rotate"]["degrees"] == {"value": None, "from": "open"}
    assert keys["generate"]["steps"] == {"value": None, "from": "job"}
    out = hotfolder("pipelines", "show", "photo").out
    assert "padding  50        pipeline  Pixels to leave around the box." in out
    assert "5 cleanup, switched off" in out
    assert "6 small (resize)" in out


def test_what_the_job_must_say_is_told_of_all_stages_together(hotfolder: Hotfolder, workspace: Workspace) -> None:
    pipeline(workspace, "photo", PHOTO)
    prompt, label, degrees, size = told(hotfolder, "photo")["job_says"]
    assert (prompt, degrees) == ("prompt", "stage.rotate.degrees")
    assert label.startswith('stage.detect: by = "finder" needs label')
    assert size == "stage.small: width, height or both are needed"


def test_a_pipeline_without_a_stage_that_makes_pictures_asks_for_one(
    hotfolder: Hotfolder, workspace: Workspace
) -> None:
    pipeline(workspace, "grey", '[[stages]]\nstage = "grayscale"\n[[stages]]\nstage = "color"\n')
    assert told(hotfolder, "grey")["job_says"] == ["image"]


def test_a_preset_asks_for_what_its_kind_needs_and_no_stage_gives(hotfolder: Hotfolder, workspace: Workspace) -> None:
    fill = '[[stages]]\nstage = "generate"\npreset = "noise-fill"\n'
    pipeline(workspace, "repair", fill)
    pipeline(workspace, "outpaint", f'[[stages]]\nstage = "pad"\naspect = "16:9"\n{fill}')
    control = '[[stages]]\nstage = "generate"\npreset = "noise-control"\n'
    pipeline(workspace, "trace", f'[[stages]]\nstage = "prepare"\ncontrol = "canny"\n{control}')
    assert told(hotfolder, "repair")["job_says"] == ["image", "mask"]
    assert told(hotfolder, "outpaint")["job_says"] == ["image"]
    assert told(hotfolder, "trace")["job_says"] == ["image", "prompt"]


def test_the_models_are_told_with_whether_they_are_on_this_machine(hotfolder: Hotfolder, workspace: Workspace) -> None:
    pipeline(workspace, "photo", PHOTO)
    detect = told(hotfolder, "photo")["stages"][1]
    assert detect["preset"]["kind"] is None
    assert "there is no preset 'finder'" in hotfolder("pipelines", "show", "photo").out
    (workspace.root / "presets" / "finder.toml").write_text(FINDER)
    generate, detect = told(hotfolder, "photo")["stages"][:2]
    assert generate["preset"] == {
        "name": "tiny", "kind": "text2img", "model_state": "built on first use", "from_job": True,
    }  # fmt: skip
    assert detect["preset"] == {"name": "finder", "kind": "detect", "model_state": "missing", "from_job": False}


def test_a_stage_that_finds_nothing_to_work_on_is_told(hotfolder: Hotfolder, workspace: Workspace) -> None:
    pipeline(workspace, "cut", '[[stages]]\nstage = "crop"\n[[stages]]\nstage = "rotate"\ndegrees = 400.0\n')
    crop, rotate = told(hotfolder, "cut")["stages"]
    assert crop["wrong"] == ["needs boxes, and no stage before it gives that"]
    assert rotate["wrong"] == ["degrees: input should be less than or equal to 360"]


def test_the_shipped_pipelines_are_all_right(hotfolder: Hotfolder) -> None:
    for one in hotfolder("pipelines", "--json").json["data"]["pipelines"]:
        assert "error" not in one
        assert [stage["wrong"] for stage in told(hotfolder, one["name"])["stages"]] == [[]] * len(one["stages"])


@pytest.mark.parametrize(
    ("args", "code", "error"),
    [(["show", "generat"], 4, "unknown-pipeline"), (["show"], 2, "bad-usage"), (["show", "a", "b"], 2, "bad-usage")],
)
def test_a_pipeline_that_is_not_there_is_guessed_at(
    hotfolder: Hotfolder, args: list[str], code: int, error: str
) -> None:
    said = hotfolder("pipelines", *args, "--json")
    assert (said.code, said.json["error"]["code"]) == (code, error)
