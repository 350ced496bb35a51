"""Going on with a job at the command line, looking at one that stopped or waits for a person, and `use`."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from commands import Hotfolder, job_folder
from conftest import Serve, Workspace
from painted import PaintedEngine
from PIL import Image

STAGES: list[dict[str, Any]] = [
    {"stage": "generate", "id": "generate"},
    {"stage": "select", "id": "select", "by": "review"},
    {"stage": "detect", "id": "find", "by": "subject"},
    {"stage": "crop", "id": "crop", "padding": 50},
    {"stage": "export", "id": "export"},
]
REVIEW = """prompt = "a mug"
count = 3
steps = 1
width = 64
height = 64
[[stages]]
stage = "generate"
[[stages]]
stage = "select"
by = "review"
"""


@pytest.fixture
def hotfolder(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Hotfolder:
    return Hotfolder(workspace.root, capsys)


def rows(*done: int) -> list[dict[str, Any]]:
    """`[[stages]]` of a status file."""
    return [
        {"number": number, "name": stage["id"], "state": "completed", "done": count, "failed": 0, "seconds": 1.5}
        for number, (stage, count) in enumerate(zip(STAGES, done, strict=True), 1)
    ]


def job(workspace: Workspace, name: str = "mug_take01", **status: Any) -> Path:
    """A job of four candidates that has a plan."""
    told = {"items": 1, "candidates": 4, "stages": rows(4, 4, 0, 0, 0)} | status
    folder = job_folder(workspace, name, **told)
    (folder / "plan.toml").write_text(tomli_w.dumps({"type": "plan", "stages": STAGES}))
    return folder


def in_review(workspace: Workspace) -> Path:
    outputs = [
        {"file": "mug_take01_001.png", "candidate": 1, "seed": 7},
        {"file": "work/002_01_generate.png", "candidate": 2, "seed": 8},
        {"file": "work/003_01_generate.png", "candidate": 3, "seed": 9},
        {"file": "", "candidate": 4, "seed": 10},
    ]
    return job(workspace, state="review", outputs=outputs, done=1)


def asked(workspace: Workspace, name: str = "mug_take01.resume") -> dict[str, Any]:
    return tomllib.loads((workspace.inbox / name).read_text())


# --- resume ---


def test_resume_without_options_drops_an_empty_file(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job(workspace, state="failed")
    said = hotfolder("resume", "mug")
    assert (said.code, said.out) == (0, "mug_take01 goes on\n")
    assert asked(workspace) == {}
    assert "no daemon runs" in said.err


@pytest.mark.parametrize("picks", [["--pick", "2", "--pick", "4"], ["--picks", "2,4"], ["--picks", "2, 4"]])
def test_picks_are_dropped_as_the_protocol_has_them(
    hotfolder: Hotfolder, workspace: Workspace, picks: list[str]
) -> None:
    in_review(workspace)
    said = hotfolder("resume", "mug", *picks)
    assert (said.code, said.out) == (0, "mug_take01 goes on with candidates 2, 4\n")
    assert asked(workspace) == {"picks": [2, 4]}


def test_picks_that_are_not_there_are_told_with_those_that_are(hotfolder: Hotfolder, workspace: Workspace) -> None:
    in_review(workspace)
    for wrong in ("1", "9"):
        said = hotfolder("resume", "mug", "--picks", f"2,{wrong}", "--json")
        assert (said.code, said.json["error"]["code"]) == (2, "bad-value")
        assert f"candidate {wrong} is not there" in said.json["error"]["message"]
        assert said.json["error"]["hint"] == "there are 2, 3, 4"
    assert list(workspace.inbox.iterdir()) == []


def test_a_job_in_review_does_not_go_on_without_picks(hotfolder: Hotfolder, workspace: Workspace) -> None:
    in_review(workspace)
    said = hotfolder("resume", "mug")
    assert said.code == 2
    assert "mug_take01 waits for you to pick, of 2, 3, 4" in said.err
    assert "--picks 2,3" in said.err


def test_picks_mean_the_take_that_is_in_review(hotfolder: Hotfolder, workspace: Workspace) -> None:
    in_review(workspace)
    job(workspace, "mug_take02", state="failed")
    assert hotfolder("resume", "mug", "--pick", "3").code == 0
    assert asked(workspace) == {"picks": [3]}
    said = hotfolder("resume", "mug_take02", "--pick", "3", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "not-possible")


@pytest.mark.parametrize(("stage", "written"), [("4", 4), ("crop", "crop"), ("detect", "detect"), ("find", "find")])
def test_a_job_begins_again_at_a_stage_by_its_number_or_name(
    hotfolder: Hotfolder, workspace: Workspace, stage: str, written: int | str
) -> None:
    job(workspace, stages=rows(4, 4, 4, 4, 4))
    said = hotfolder("resume", "mug", "--from", stage)
    assert said.code == 0
    assert "the next take begins with what mug_take01 made before stage" in said.out
    assert asked(workspace) == {"from": written}


def test_from_a_stage_that_nothing_has_come_to_yet_is_just_going_on(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job(workspace, state="failed")
    assert hotfolder("resume", "mug", "--from", "crop").out == "mug_take01 goes on\n"


def test_a_stage_that_is_not_in_the_plan_is_told_with_those_that_are(
    hotfolder: Hotfolder, workspace: Workspace
) -> None:
    job(workspace, state="failed")
    for stage in ("9", "0", "upscale"):
        said = hotfolder("resume", "mug", "--from", stage, "--json")
        assert (said.code, said.json["error"]["code"]) == (2, "bad-value")
        assert said.json["error"]["message"] == f"mug_take01 has no stage {stage}"
        assert "3 (find)" in said.json["error"]["hint"]


def test_the_newest_plan_counts(hotfolder: Hotfolder, workspace: Workspace) -> None:
    folder = job(workspace, state="failed")
    (folder / "plan_02.toml").write_text(tomli_w.dumps({"stages": STAGES[:1]}))
    (folder / "plan_10.toml").write_text(tomli_w.dumps({"stages": STAGES[:2]}))
    assert hotfolder("resume", "mug", "--from", "select").code == 0
    assert hotfolder("resume", "mug", "--from", "crop").code == 2


def test_keys_of_a_stage_are_changed(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job(workspace, state="failed")
    said = hotfolder(
        "resume", "mug", "--force", "--set", "stage.find.label=mug", "--set", "stage.find.threshold=0.5",
        "--set", "stage.crop.padding=20",
    )  # fmt: skip
    assert said.code == 0
    stage = {"find": {"label": "mug", "threshold": 0.5}, "crop": {"padding": 20}}
    assert asked(workspace) == {"force": True, "stage": stage}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--set", "stage.crop.paddin=1"], "unknown-key", "stage.crop.paddin: unknown key"),
        (["--set", "stage.crop.padding=-1"], "bad-value", "stage.crop.padding: input should be greater"),
        (["--set", "stage.generate.count=9"], "not-possible", "cannot be changed on the way"),
        (["--set", "stage.nope.a=1"], "bad-value", "has no stage nope"),
        (["--set", "crop.padding=1"], "bad-usage", "stage.NAME.KEY=value is accepted"),
        (["--set", "stage.generate.steps=3"], "not-possible", "is done already in every candidate"),
        (["--from", "crop", "--set", "stage.find.label=mug"], "not-possible", "comes before the one to begin with"),
        (["--picks", "a"], "bad-usage", "numbers of candidates are accepted"),
        (["--picks", "1"], "not-possible", "mug_take01 is failed"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_dropped(
    hotfolder: Hotfolder, workspace: Workspace, options: list[str], code: str, words: str
) -> None:
    job(workspace, state="failed")
    said = hotfolder("resume", "mug", *options, "--json")
    assert (said.code, said.json["error"]["code"]) == (2, code)
    assert words in said.json["error"]["message"]
    assert list(workspace.inbox.iterdir()) == []


def test_only_what_has_ended_begins_again_at_a_stage(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job(workspace, state="held")
    said = hotfolder("resume", "mug", "--from", "crop")
    assert said.code == 2
    assert "hint: cancel it first: hotfolder cancel mug_take01" in said.err
    job(workspace, "cup_take01", state="running")
    assert hotfolder("resume", "cup", "--from", "crop").code == 2


def test_a_completed_job_is_told_how_it_could_begin_again(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job(workspace)
    assert "begin again at a stage of it with --from STAGE" in hotfolder("resume", "mug").err


def test_a_job_without_a_plan_has_no_stages_to_name(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job_folder(workspace, "mug_take01", state="failed")
    said = hotfolder("resume", "mug", "--from", "2")
    assert (said.code, "has no plan yet" in said.err) == (2, True)
    assert hotfolder("resume", "mug").code == 0


def test_the_options_of_resume_are_for_one_job(hotfolder: Hotfolder) -> None:
    said = hotfolder("resume", "--from", "2", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "bad-usage")


def test_a_resume_that_lies_there_is_not_overwritten_by_another_one(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job(workspace, state="failed")
    assert hotfolder("resume", "mug", "--force").code == 0
    assert hotfolder("resume", "mug", "--force").code == 0, "it asks for the same"
    said = hotfolder("resume", "mug", "--from", "crop", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "not-possible")
    assert asked(workspace) == {"force": True}


# --- status ---


def test_status_shows_items_stages_retries_and_what_was_not_chosen(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job(workspace, items=2, done=2, failed=1, left_out=1, retries=3)
    out = hotfolder("status", "mug").out
    assert "2 of 4, 1 failed, 1 not chosen" in out
    assert "3 times something was tried again" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["2", "select", "completed", "4", "1.5", "s"] in lines
    assert ["items", "2"] in lines


def test_status_says_at_which_stage_a_job_stopped_and_how_to_mend_it(
    hotfolder: Hotfolder, workspace: Workspace
) -> None:
    error = {
        "code": "not-found", "message": "nothing was found", "hint": "lower threshold", "stage": "find",
        "stage_index": 3, "candidate": 1,
    }  # fmt: skip
    other = error | {"message": "out of memory", "stage": "crop", "stage_index": 4, "candidate": 3}
    same = error | {"candidate": 2}
    job(workspace, state="partial", done=1, failed=3, error=error, failures=[error, same, other])
    out = hotfolder("status", "mug").out
    assert "stopped at stage 3 (find): nothing was found. Fix: lower threshold\n" in out
    assert "candidate 3 at stage 4 (crop): out of memory" in out
    assert "candidate 2" not in out


def test_status_of_a_job_in_review_says_what_there_is_and_how_to_go_on(
    hotfolder: Hotfolder, workspace: Workspace
) -> None:
    folder = in_review(workspace)
    out = hotfolder("status", "mug").out
    assert "review: waits for you to pick" in out
    assert f"2  {folder}/work/002_01_generate.png  seed 8" in out
    assert "4  the job's own picture  seed 10" in out
    assert "hotfolder resume mug_take01 --picks 2,3" in out
    assert "jobs_inbox/mug_take01.resume with the line: picks = [2, 3]" in out
    assert f"{folder}/mug_take01_001.png  seed 7" in out, "one was finished before"


def test_who_waits_for_a_job_is_told_where_a_person_must_pick(
    hotfolder: Hotfolder, workspace: Workspace, serve: Serve, tmp_path: Path
) -> None:
    serve()
    (tmp_path / "mug.toml").write_text(REVIEW)
    said = hotfolder("submit", tmp_path / "mug.toml", "--wait", "--json")
    assert (said.code, said.json["error"]["code"]) == (3, "not-completed")
    assert said.json["error"]["message"] == "mug_take01 waits for you to pick"
    assert "hotfolder resume mug_take01 --picks 1,2" in said.json["error"]["hint"]
    assert said.json["data"]["state"] == "review"
    assert [one["candidate"] for one in said.json["data"]["outputs"]] == [1, 2, 3]


def test_those_that_were_picked_go_on(hotfolder: Hotfolder, workspace: Workspace, serve: Serve, tmp_path: Path) -> None:
    serve()
    workspace.drop("mug.toml", REVIEW)
    workspace.wait_for("mug_take01", "review")
    said = hotfolder("resume", "mug", "--picks", "1,3", "--wait", "--json")
    assert (said.code, said.json["data"]["state"]) == (0, "completed")
    assert [Path(picture).name for picture in said.json["data"]["pictures"]] == [
        "mug_take01_001.png", "mug_take01_003.png",
    ]  # fmt: skip
    assert "2 of 3, 1 not chosen" in hotfolder("status", "mug").out


def test_a_completed_job_begins_again_at_a_stage_as_its_next_take(
    hotfolder: Hotfolder, workspace: Workspace, serve: Serve
) -> None:
    engine = serve().engine
    stages = '[[stages]]\nstage = "generate"\n[[stages]]\nstage = "rotate"\ndegrees = 90.0\n'
    workspace.drop("mug.toml", f'prompt = "a mug"\nsteps = 1\nwidth = 64\nheight = 32\n{stages}')
    workspace.wait_for("mug_take01", "completed")
    said = hotfolder("resume", "mug", "--from", "rotate", "--set", "stage.rotate.degrees=180.0", "--wait", "--json")
    assert (said.code, said.json["data"]["job"]) == (0, "mug_take02"), said
    with Image.open(said.json["data"]["pictures"][0]) as picture:
        assert picture.size == (64, 32)
    assert isinstance(engine, PaintedEngine)
    assert len(engine.made) == 1, "the picture was not painted again"


# --- use ---


def finished(workspace: Workspace, name: str, *candidates: int) -> Path:
    outputs = [{"file": f"{name}_{one:03d}.png", "candidate": one, "seed": one} for one in candidates]
    return job_folder(workspace, name, outputs=outputs)


@pytest.mark.parametrize(
    ("options", "written", "picture"),
    [
        ([], {}, "mug_take02_001.png"),
        (["--take", "1"], {"take": 1}, "mug_take01_001.png"),
        (["--picture", "2"], {"picture": 2}, "mug_take02_002.png"),
        (["--take", "1", "--picture", "3"], {"take": 1, "picture": 3}, "mug_take01_003.png"),
    ],
)
def test_use_says_which_picture_a_name_means(
    hotfolder: Hotfolder, workspace: Workspace, options: list[str], written: dict[str, int], picture: str
) -> None:
    finished(workspace, "mug_take01", 1, 3)
    finished(workspace, "mug_take02", 1, 2)
    job_folder(workspace, "mug_take03", state="failed")
    said = hotfolder("use", "mug", *options)
    assert said.code == 0
    assert f"@mug is {picture} from now on" in said.out
    assert asked(workspace, "mug.use") == written


def test_use_takes_the_name_of_a_take(hotfolder: Hotfolder, workspace: Workspace) -> None:
    finished(workspace, "mug_take01", 1, 2)
    finished(workspace, "mug_take02", 1)
    data = hotfolder("use", "mug_take01", "--picture", "2", "--json").json["data"]
    assert (data["take"], data["job"]) == (1, "mug_take01")
    assert asked(workspace, "mug.use") == {"take": 1, "picture": 2}
    assert hotfolder("use", "mug_take01", "--take", "2").code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["mug", "--take", "9"], "there is no mug_take09"),
        (["mug", "--take", "1", "--picture", "9"], "mug_take01 has no picture 9"),
        (["mug", "--take", "3"], "mug_take03 has no finished picture"),
        (["nobody"], "there is no job nobody"),
    ],
)
def test_use_of_what_is_not_there_is_told(
    hotfolder: Hotfolder, workspace: Workspace, options: list[str], words: str
) -> None:
    finished(workspace, "mug_take01", 1, 3)
    job_folder(workspace, "mug_take03", state="failed")
    said = hotfolder("use", *options, "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "not-found")
    assert words in said.json["error"]["message"]
    assert list(workspace.inbox.iterdir()) == []
