"""The command line without a daemon: what it says, what it drops, and what it must not load."""

import json
import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from commands import Hotfolder, Said, end, job_folder, start
from conftest import Workspace
from PIL import Image

from hotfolder import journal
from hotfolder.front import call, jobs
from hotfolder.front import cli as cli_module
from hotfolder.lock import Lock
from hotfolder.settings import Settings

HEAVY = {"torch", "diffusers", "transformers", "apscheduler", "numpy"}
#: Runs a command, then says which modules it has loaded.
LOADED = """
import sys
from hotfolder.front import call
from hotfolder.front.cli import cli
code = call.run(cli, sys.argv[1:])
print("LOADED", code, *sorted({name.split(".")[0] for name in sys.modules}))
"""


@pytest.fixture
def hotfolder(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Hotfolder:
    return Hotfolder(workspace.root, capsys)


def dropped(workspace: Workspace, name: str) -> dict[str, Any]:
    """What a dropped job file says, after the line that tells the door it came through."""
    first, _, rest = (workspace.inbox / name).read_bytes().partition(b"\n")
    assert first == b"#! via cli"
    return tomllib.loads(rest.decode())


def in_inbox(workspace: Workspace) -> list[str]:
    return sorted(os.listdir(workspace.inbox))


# --- what is loaded ---


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["submit", "--prompt", "a mug"],
        ["status"],
        ["check", "mug.toml", "batch.toml"],
        ["cancel", "mug"],
        ["resume", "mug", "--from", "generate", "--set", "stage.generate.steps=3"],
        ["pipelines"],
        ["init"],
    ],
)
def test_everyday_commands_load_no_model_library(workspace: Workspace, args: list[str]) -> None:
    job_folder(workspace, "mug_take01", state="running")
    stages = [{"stage": "generate", "id": "generate"}, {"stage": "export", "id": "export"}]
    plan = job_folder(workspace, "mug_take02", state="failed") / "plan.toml"
    plan.write_text(tomli_w.dumps({"stages": stages}))
    (workspace.root / "mug.toml").write_text('prompt = "a mug"\n')
    (workspace.root / "batch.toml").write_text('image = "a.png"\nitems = "list.csv"\n')
    said = subprocess.run(
        [sys.executable, "-c", LOADED, *args], cwd=workspace.root, capture_output=True, text=True, check=True
    )
    *_, last = said.stdout.splitlines()
    _, code, *loaded = last.split()
    assert code == "0"
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize("args", [["--help"], ["status"], ["status", "mug"]])
def test_a_look_loads_neither_pydantic_nor_rich(workspace: Workspace, args: list[str]) -> None:
    job_folder(workspace, "mug_take01")
    said = subprocess.run(
        [sys.executable, "-c", LOADED, *args], cwd=workspace.root, capture_output=True, text=True, check=True
    )
    assert not {"pydantic", "rich", "structlog", "PIL"} & set(said.stdout.splitlines()[-1].split())


def test_the_ends_are_those_of_the_journal() -> None:
    assert {str(state) for state in journal.ENDS} == jobs.ENDS


# --- how every command is called, and ends ---


def test_help_lists_every_command(hotfolder: Hotfolder) -> None:
    said = hotfolder("--help")
    assert said.code == 0
    for name in cli_module.cli.commands:
        assert f"\n  {name} " in said.out


def test_without_a_command_help_is_shown_and_the_exit_code_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert call.run(cli_module.cli, []) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Make pictures" in said.err


@pytest.mark.parametrize(
    "command", ["status", "history", "presets", "pipelines", "schedule", "schema", "resume", "pause"]
)
def test_json_is_one_object_before_and_after_the_command(hotfolder: Hotfolder, command: str) -> None:
    for said in (hotfolder("--json", command), hotfolder(command, "--json")):
        assert said.code == 0
        assert said.json["ok"] is True
        assert said.json["data"]


@pytest.mark.parametrize(
    ("args", "code", "error"),
    [
        (["bogus"], 2, "bad-usage"),
        (["submit", "--bogus"], 2, "bad-usage"),
        (["submit"], 2, "bad-usage"),
        (["submit", "--set", "steps"], 2, "bad-usage"),
        (["submit", "absent.toml"], 2, "bad-usage"),
        (["submit", "--prompt", "a mug", "--preset", "flux-pro"], 2, "service-only"),
        (["submit", "--prompt", "a mug", "--wait"], 5, "no-daemon"),
        (["status", "nobody"], 4, "not-found"),
        (["logs", "nobody"], 4, "not-found"),
        (["cancel", "nobody"], 4, "not-found"),
        (["resume", "nobody", "--from", "2"], 4, "not-found"),
        (["rerun", "nobody"], 4, "not-found"),
        (["replay", "absent.png"], 4, "not-found"),
        (["use", "nobody"], 4, "not-found"),
        (["presets", "show", "flux-def"], 4, "unknown-preset"),
        (["presets", "list"], 4, "unknown-preset"),
        (["presets", "show"], 2, "bad-usage"),
    ],
)
def test_an_error_is_told_in_words_or_as_one_object(
    hotfolder: Hotfolder, args: list[str], code: int, error: str
) -> None:
    said = hotfolder(*args)
    assert said.code == code
    assert "error: " in said.err
    assert "Traceback" not in said.err
    said = hotfolder(*args, "--json")
    assert said.code == code
    assert said.json["ok"] is False
    assert said.json["error"].keys() >= {"code", "message", "hint"}
    assert said.json["error"]["code"] == error


def test_a_folder_that_is_no_workspace_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = Hotfolder(tmp_path, capsys)("status", "--json")
    assert said.code == 2
    assert said.json["error"]["code"] == "no-workspace"
    assert f"hotfolder init {tmp_path}" in said.json["error"]["hint"]


def test_the_environment_names_the_workspace(workspace: Workspace, tmp_path: Path) -> None:
    said = end(start("status", "--json", cwd=tmp_path, environ={"HOTFOLDER_WORKSPACE": str(workspace.root)}))
    assert said.json["ok"] is True


def test_wrong_settings_are_told(hotfolder: Hotfolder, workspace: Workspace) -> None:
    (workspace.root / "hotfolder.toml").write_text("devise = 'cpu'\n")
    said = hotfolder("presets", "--json")
    assert said.code == 2
    assert said.json["error"]["code"] == "bad-settings"
    assert "devise" in said.json["error"]["message"]


def test_a_reader_that_has_seen_enough_is_no_error(workspace: Workspace) -> None:
    process = start("schema", cwd=workspace.root)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert "Traceback" not in end(process).err


# --- init ---


def test_init_makes_a_workspace(tmp_path: Path) -> None:
    said = end(start("init", "studio", "--json", cwd=tmp_path))
    assert said.json["data"]["made"] == ["hotfolder.toml", "jobs_inbox/", "outputs/", "presets/"]
    assert sorted(os.listdir(tmp_path / "studio")) == ["hotfolder.toml", "jobs_inbox", "outputs", "presets"]
    assert end(start("--workspace", "studio", "status", cwd=tmp_path)).code == 0


def test_init_makes_what_is_missing_and_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "hotfolder.toml").write_text("# mine\n")
    (tmp_path / "outputs").mkdir()
    said = end(start("init", "--json", cwd=tmp_path))
    assert said.json["data"]["made"] == ["jobs_inbox/", "presets/"]
    assert (tmp_path / "hotfolder.toml").read_text() == "# mine\n"
    assert end(start("init", "--json", cwd=tmp_path)).json["data"]["made"] == []


def test_init_says_where_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "jobs_inbox").write_text("a file")
    said = end(start("init", "--json", cwd=tmp_path))
    assert (said.code, said.json["error"]["code"]) == (2, "cannot-write")


def test_the_settings_that_init_writes_are_all_there_are_with_their_defaults(tmp_path: Path) -> None:
    end(start("init", cwd=tmp_path))
    text = (tmp_path / "hotfolder.toml").read_text()
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line and "`" not in line and not line.startswith("# A ") else line
        for line in text.splitlines()
    )
    told = tomllib.loads(uncommented)
    known = {
        key: set(field.annotation.model_fields) if key in {"inbox", "worker", "batch", "outputs"} else None  # type: ignore[union-attr]  # tables
        for key, field in Settings.model_fields.items()
        if key != "workspace"
    }
    assert {key: set(value) if isinstance(value, dict) else None for key, value in told.items()} == known
    defaults = Settings.read(tmp_path, {})
    (tmp_path / "hotfolder.toml").write_text(uncommented)
    shown = Settings.read(tmp_path, {})
    # What has no default of its own is shown as an example.
    by_example = {"inbox": {"settle_s", "scan_s"}, "worker": {"vram_gb", "cpu_threads"}, "threads": True}
    assert shown.model_dump(exclude=by_example) == defaults.model_dump(exclude=by_example)  # type: ignore[arg-type]  # a mapping of sets is accepted


# --- check ---


def test_check_names_every_problem_with_its_line(hotfolder: Hotfolder, tmp_path: Path) -> None:
    file = tmp_path / "mug.toml"
    file.write_text('prompt = "a mug"\nstepz = 4\nsteps = 0\n')
    said = hotfolder("check", file)
    assert said.code == 2
    assert f"{file}:2: unknown key stepz (did you mean steps?)\n" in said.out
    assert f"{file}:3: steps = 0" in said.out
    assert said.err == "error: it would be rejected\n"
    problems = hotfolder("check", file, "--json").json["data"]["files"][0]["problems"]
    assert [problem["line"] for problem in problems] == [2, 3]


def test_check_looks_at_every_file(hotfolder: Hotfolder, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('prompt = "a mug"\n')
    bad.write_text("prompt = \n")
    said = hotfolder("check", good, bad, tmp_path / "absent.toml")
    assert said.code == 2
    assert f"{good}: ok" in said.out
    assert f"{bad}:1: not TOML" in said.out
    assert "absent.toml: cannot be read" in said.out
    assert "2 of 3 files would be rejected" in said.err
    assert hotfolder("check", good).code == 0


def test_check_tells_a_file_that_is_not_there_from_one_that_is_wrong(hotfolder: Hotfolder, tmp_path: Path) -> None:
    said = hotfolder("check", tmp_path / "nofile.toml", "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "not-found")


def test_check_knows_the_files_that_are_no_jobs(hotfolder: Hotfolder, workspace: Workspace) -> None:
    lane = workspace.drop("folder.toml", "picture_jobs = true\n", lane="mugs")
    assert "defaults of a lane" in hotfolder("check", lane).out
    lane.write_text("picture_job = true\n")
    assert "unknown key picture_job" in hotfolder("check", lane).out
    said = hotfolder("check", job_folder(workspace, "mug_take01") / "status.toml")
    assert said.code == 2
    assert "this is a status file" in said.out


def test_check_knows_what_a_lane_says(hotfolder: Hotfolder, workspace: Workspace) -> None:
    workspace.drop("folder.toml", 'prompt = "a mug"\n', lane="mugs")
    assert hotfolder("check", workspace.drop("small.toml", "width = 64\n", lane="mugs")).code == 0
    assert hotfolder("check", workspace.drop("small.toml", "width = 64\n")).code == 2


def test_check_refuses_a_picture_outside_the_inbox(hotfolder: Hotfolder, tmp_path: Path) -> None:
    file = tmp_path / "mug.toml"
    file.write_text('image = "../../etc/passwd"\n')
    said = hotfolder("check", file, "--json")
    assert said.json["data"]["files"][0]["problems"][0]["code"] == "forbidden-path"


def test_check_works_outside_of_any_workspace(tmp_path: Path) -> None:
    (tmp_path / "mug.toml").write_text('prompt = "a mug"\n')
    assert end(start("check", "mug.toml", cwd=tmp_path)).code == 0


# --- submit ---


def test_submit_without_a_daemon_drops_warns_and_succeeds(hotfolder: Hotfolder, workspace: Workspace) -> None:
    said = hotfolder("submit", "--prompt", "A red mug, on a table!", "--seed", "7", "--set", "meta.customer=Smith & Co")
    assert said.code == 0
    assert "warning: no daemon" in said.err
    wanted = {"prompt": "A red mug, on a table!", "seed": 7, "meta": {"customer": "Smith & Co"}}
    assert dropped(workspace, "a-red-mug-on-a-table.toml") == wanted


def test_submit_and_wait_without_a_daemon_drops_and_ends_with_5(hotfolder: Hotfolder, workspace: Workspace) -> None:
    assert hotfolder("submit", "--prompt", "a mug", "--wait").code == 5
    assert in_inbox(workspace) == ["a-mug.toml"]


def test_submit_keeps_the_text_of_a_job_file(hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "mug.toml"
    file.write_bytes(b'\xef\xbb\xbf# mine\r\nprompt = "a mug"\r\n')
    said = hotfolder("submit", file, "--json")
    assert said.json["data"]["job"] is None
    assert said.json["data"]["daemon"] is False
    assert (workspace.inbox / "mug.toml").read_bytes() == b'#! via cli\n# mine\r\nprompt = "a mug"\r\n'


def test_options_go_before_the_job_file(hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "mug.toml"
    file.write_text('prompt = "a mug"\nsteps = 2\n')
    hotfolder(
        "submit", file, "--set", "steps=3", "--set", 'title = "spring"', "--set", "project=2026 A", "--name", "cup"
    )
    assert dropped(workspace, "cup.toml") == {"prompt": "a mug", "steps": 3, "title": "spring", "project": "2026 A"}


def test_a_wrong_job_is_told_and_not_dropped(hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "mug.toml"
    file.write_text('prompt = "a mug"\n\nstepz = 3\nsteps = 0\n')
    said = hotfolder("submit", file)
    assert said.code == 2
    assert "error: line 3: unknown key stepz" in said.err
    assert "error: line 4: steps = 0" in said.err
    assert in_inbox(workspace) == []
    assert len(hotfolder("submit", file, "--json").json["error"]["problems"]) == 2


def test_a_drop_that_still_lies_there_is_not_overwritten(hotfolder: Hotfolder, workspace: Workspace) -> None:
    for seed in ("1", "2", "3"):
        assert hotfolder("submit", "--prompt", "a mug", "--seed", seed, "--name", "mug").code == 0
    assert in_inbox(workspace) == ["mug.toml", "mug_take02.toml", "mug_take03.toml"]
    assert [dropped(workspace, name)["seed"] for name in in_inbox(workspace)] == [1, 2, 3]


def test_a_picture_beside_the_job_file_comes_along(hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    Image.new("RGB", (16, 16), "red").save(tmp_path / "pics" / "mug.png")
    file = tmp_path / "edit.toml"
    file.write_text('preset = "tiny-kontext"\nprompt = "bigger"\nimage = "pics/mug.png"\n')
    hotfolder("submit", file)
    assert dropped(workspace, "edit.toml")["image"] == "mug.png"
    assert (workspace.inbox / "mug.png").read_bytes() == (tmp_path / "pics" / "mug.png").read_bytes()


def test_a_picture_whose_name_another_one_has_gets_a_name_of_its_own(
    hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path
) -> None:
    workspace.picture("mug.png", "blue")
    mine = tmp_path / "mug.png"
    Image.new("RGB", (16, 16), "red").save(mine)
    for name in ("a", "b"):
        hotfolder("submit", "--image", mine, "--name", name)
        assert (workspace.inbox / dropped(workspace, f"{name}.toml")["image"]).read_bytes() == mine.read_bytes()
    assert len([name for name in in_inbox(workspace) if name.endswith(".png")]) == 2


def test_a_picture_of_the_inbox_is_named_where_it_lies(hotfolder: Hotfolder, workspace: Workspace) -> None:
    picture = workspace.picture("mugs/mug.png")
    hotfolder("submit", "--image", picture, "--name", "again")
    assert dropped(workspace, "again.toml") == {"image": "mugs/mug.png"}
    assert in_inbox(workspace) == ["again.toml", "mugs"]


def test_a_picture_that_is_not_there_is_an_error_at_the_command_line_and_a_warning_in_a_file(
    hotfolder: Hotfolder, workspace: Workspace, tmp_path: Path
) -> None:
    said = hotfolder("submit", "--image", "absent.png", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "missing-picture")
    assert in_inbox(workspace) == []
    (tmp_path / "mug.toml").write_text('image = "later.png"\n')
    said = hotfolder("submit", tmp_path / "mug.toml")
    assert said.code == 0
    assert "later.png is not there yet" in said.err


def test_a_job_comes_from_standard_input(workspace: Workspace) -> None:
    said = subprocess.run(
        [sys.executable, "-c", "from hotfolder.front.cli import main; main()", "submit", "-", "--name", "piped"],
        input='prompt = "a mug"\n',
        cwd=workspace.root,
        text=True,
        check=True,
        capture_output=True,
    )
    assert "piped.toml lies in the inbox" in said.stdout
    assert dropped(workspace, "piped.toml") == {"prompt": "a mug"}


def test_a_take_is_run_again_under_its_own_name(hotfolder: Hotfolder, workspace: Workspace) -> None:
    folder = job_folder(workspace, "mug_take01")
    (folder / "job.toml").write_text('prompt = "a mug"\n')
    hotfolder("submit", folder / "job.toml")
    assert in_inbox(workspace) == ["mug.toml"]


def test_a_name_that_means_something_else_is_refused(hotfolder: Hotfolder, workspace: Workspace) -> None:
    said = hotfolder("submit", "--prompt", "a mug", "--name", "folder", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "bad-usage")
    assert in_inbox(workspace) == []


def test_a_schedule_is_dropped_and_not_waited_for(hotfolder: Hotfolder, workspace: Workspace) -> None:
    keys = ("--prompt", "a mug", "--set", "schedule.cron=0 2 * * *")
    assert hotfolder("submit", *keys, "--wait").code == 2
    said = hotfolder("submit", *keys)
    assert (said.code, in_inbox(workspace)) == (0, ["a-mug.toml"])
    assert "is scheduled" in said.out


def test_an_inbox_that_is_away_is_told(hotfolder: Hotfolder, workspace: Workspace) -> None:
    (workspace.root / "hotfolder.toml").touch()
    workspace.inbox.rmdir()
    said = hotfolder("submit", "--prompt", "a mug", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "cannot-write")


def test_run_is_refused_while_another_run_has_the_workspace(hotfolder: Hotfolder, workspace: Workspace) -> None:
    with Lock(workspace.root, mode="direct", started_at="2026-11-20T12:00:00.000Z"):
        said = hotfolder("run", "--prompt", "a mug", "--json")
        assert (said.code, said.json["error"]["code"]) == (2, "workspace-busy")
        assert in_inbox(workspace) == []
        # It takes one job only, so a drop lies until a daemon comes.
        assert hotfolder("submit", "--prompt", "a mug", "--json").json["data"]["daemon"] is False


# --- steering ---


def test_cancel_drops_a_control_file_for_the_name_or_for_one_take(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job_folder(workspace, "mug_take01", state="running")
    job_folder(workspace, "mug_take02", state="queued")
    said = hotfolder("cancel", "mug", "--json")
    assert [job["job"] for job in said.json["data"]["jobs"]] == ["mug_take01", "mug_take02"]
    hotfolder("cancel", "outputs/mug_take02/")
    assert in_inbox(workspace) == ["mug.cancel", "mug_take02.cancel"]


def test_a_job_that_has_ended_is_not_cancelled(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job_folder(workspace, "mug_take01", state="completed")
    said = hotfolder("cancel", "mug")
    assert said.code == 0
    assert "nothing to cancel: mug_take01 is completed" in said.out
    assert in_inbox(workspace) == []


def test_a_drop_that_is_not_taken_yet_can_be_cancelled(hotfolder: Hotfolder, workspace: Workspace) -> None:
    hotfolder("submit", "--prompt", "a mug", "--name", "mug")
    assert hotfolder("cancel", "mug").code == 0
    assert in_inbox(workspace) == ["mug.cancel", "mug.toml"]


def test_resume_means_the_newest_take_that_can_go_on(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job_folder(workspace, "mug_take01", state="failed")
    job_folder(workspace, "mug_take02", state="cancelled")
    job_folder(workspace, "mug_take03", state="completed")
    assert hotfolder("resume", "mug", "--force").code == 0
    assert (workspace.inbox / "mug_take02.resume").read_text() == "force = true\n"
    said = hotfolder("resume", "mug_take03", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "not-possible")


def test_pause_and_resume_without_a_name_are_for_everything(hotfolder: Hotfolder, workspace: Workspace) -> None:
    assert hotfolder("pause").code == 0
    assert in_inbox(workspace) == ["pause"]
    assert "paused" in hotfolder("submit", "--prompt", "a mug").err
    assert hotfolder("resume", "--json").json["data"]["lifted"] is True
    assert hotfolder("resume", "--json").json["data"]["lifted"] is False
    assert in_inbox(workspace) == ["a-mug.toml"]


def test_first_and_pause_are_for_jobs_that_have_not_ended(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job_folder(workspace, "mug_take01", state="queued")
    job_folder(workspace, "cup_take01", state="failed")
    for command in ("first", "pause"):
        assert hotfolder(command, "mug").code == 0
        assert hotfolder(command, "cup").code == 2
    assert in_inbox(workspace) == ["mug.first", "mug.pause"]


def test_waiting_for_what_no_daemon_does_ends_with_5(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job_folder(workspace, "mug_take01", state="running")
    assert hotfolder("cancel", "mug", "--wait").code == 5
    assert in_inbox(workspace) == ["mug.cancel"]


# --- looking ---


@pytest.mark.parametrize(
    "text", ["mug", "mug_take02", "outputs/mug_take02", "outputs/mug_take02/", "mug.toml", "mug_take02_001.png"]
)
def test_a_job_is_found_by_every_name_it_is_seen_under(hotfolder: Hotfolder, workspace: Workspace, text: str) -> None:
    job_folder(workspace, "mug_take01")
    job_folder(workspace, "mug_take02")
    assert hotfolder("status", text, "--json").json["data"]["job"] == "mug_take02"


@pytest.mark.parametrize(
    ("text", "near"), [("mugg", "mug"), ("mug_take09", "mug_take01"), ("mug_tkae01", "mug_take01")]
)
def test_an_unknown_job_is_guessed_at(hotfolder: Hotfolder, workspace: Workspace, text: str, near: str) -> None:
    job_folder(workspace, "mug_take01")
    said = hotfolder("status", text)
    assert said.code == 4
    assert f"hint: did you mean {near}?" in said.err


def test_a_job_that_is_not_taken_yet_is_told_apart_from_one_that_does_not_exist(
    hotfolder: Hotfolder, workspace: Workspace
) -> None:
    hotfolder("submit", "--prompt", "a mug", "--name", "mug")
    said = hotfolder("status", "mug")
    assert said.code == 4
    assert "jobs_inbox/mug.toml was not taken so far" in said.err


def test_status_of_a_job_shows_its_pictures_and_problems(hotfolder: Hotfolder, workspace: Workspace) -> None:
    folder = job_folder(workspace, "mug_take01", state="failed", preset="tiny", candidates=2, done=1, failed=1)
    with (folder / "status.toml").open("a") as file:
        file.write('[error]\ncode = "bad-picture"\nmessage = "mug.png: no picture"\nhint = "save it again"\n')
        file.write('[[outputs]]\nfile = "mug_take01_001.png"\ncandidate = 1\nseed = 7\n')
    said = hotfolder("status", "mug")
    assert said.code == 0
    for words in ("failed", "1 of 2, 1 failed", "mug_take01_001.png  seed 7", "mug.png: no picture", "save it again"):
        assert words in said.out
    data = hotfolder("status", "mug", "--json").json["data"]
    assert data["pictures"] == [str(folder / "mug_take01_001.png")]
    assert data["folder"] == str(folder)


def test_a_status_file_that_nobody_keeps_does_not_claim_that_a_daemon_runs(
    hotfolder: Hotfolder, workspace: Workspace
) -> None:
    told = 'state = "running"\npid = 1\nhost = "x"\nupdated_at = 2026-11-20T12:00:00.000Z\nrunning = ["mug_take01"]\n'
    (workspace.outputs / "status.toml").write_text(told)
    said = hotfolder("status")
    assert said.code == 0
    assert "none runs" in said.out
    assert "did not stop by itself" in said.out
    assert "mug_take01  running when the daemon died; goes on at the next `hotfolder serve`" in said.out
    data = hotfolder("status", "--json").json["data"]
    assert (data["state"], data["running"]) == ("stopped", [])


def test_what_a_dead_daemon_left_behind_is_not_told_with_forecasts(hotfolder: Hotfolder, workspace: Workspace) -> None:
    progress = (
        '[progress]\njob = "mug_take01"\nstage = "generate"\nstep = 3\nsteps = 9\nfraction = 0.3\nseconds_left = 77.0\n'
    )
    folder = job_folder(workspace, "mug_take01", state="running")
    with (folder / "status.toml").open("a") as file:
        file.write(progress)
    (workspace.outputs / "status.toml").write_text(
        f'state = "running"\nrunning = ["mug_take01"]\n[counts]\nrunning = 1\nqueued = 2\n{progress}'
        '[[line]]\njob = "cup_take01"\nposition = 1\neta = 2026-11-20T12:00:00.000Z\n'
    )
    said = hotfolder("status", "mug")
    assert "running when the daemon died; goes on at the next `hotfolder serve`" in said.out
    assert "77 s" not in said.out
    assert "1 min" not in said.out
    assert "progress" not in hotfolder("status", "mug", "--json").json["data"]
    glance = hotfolder("status").out
    assert "1 running" not in glance
    assert "2 queued" in glance
    assert "about" not in glance
    with Lock(workspace.root, mode="queued", started_at="2026-11-20T12:00:00.000Z"):
        assert "30 %, generate 3/9, 1 min 17 s left" in hotfolder("status", "mug").out


def test_progress_is_told_of_the_job_that_it_is_of(hotfolder: Hotfolder, workspace: Workspace) -> None:
    told = (
        f'state = "running"\npid = {os.getpid()}\nhost = "{socket.gethostname()}"\nrunning = ["a_take01", "b_take01"]\n'
        '[progress]\njob = "b_take01"\nstage = "upscale"\nphase = "upscale"\nstep = 0\nsteps = 0\nfraction = 0.5\n'
    )
    (workspace.outputs / "status.toml").write_text(told)
    with Lock(workspace.root, mode="queued", started_at="2026-11-20T12:00:00.000Z"):
        said = hotfolder("status").out.splitlines()
    assert any(line.endswith("a_take01  between pictures") for line in said)
    assert any(line.endswith("b_take01  50 %, upscale") for line in said)


def test_status_of_another_daemon_is_not_taken_for_that_of_this_one(hotfolder: Hotfolder, workspace: Workspace) -> None:
    (workspace.outputs / "status.toml").write_text('state = "paused"\npid = 1\nhost = "x"\nrunning = ["mug_take01"]\n')
    with Lock(workspace.root, mode="queued", started_at="2026-11-20T12:00:00.000Z"):
        data = hotfolder("status", "--json").json["data"]
    assert (data["state"], data["pid"]) == ("starting", os.getpid())


def test_status_tells_of_job_files_that_wait_for_a_daemon(hotfolder: Hotfolder, workspace: Workspace) -> None:
    hotfolder("submit", "--prompt", "a mug")
    workspace.picture("mug.png")
    (workspace.inbox / "dir.toml").mkdir()
    (workspace.inbox / "link.toml").symlink_to("a-mug.toml")
    assert "1 job file to be taken" in hotfolder("status").out


def test_names_are_shown_without_their_terminal_codes(hotfolder: Hotfolder, workspace: Workspace) -> None:
    job_folder(workspace, "\x1b[31mred_take01")
    said = hotfolder("status", "\x1b[31mred_take01")
    assert said.code == 0
    assert "\x1b" not in said.out
    assert "\\x1b[31mred_take01" in said.out
    assert "\x1b" not in hotfolder("status", "\x1b[31mrad").err


def test_history_is_read_from_the_status_files_where_there_is_no_index(
    hotfolder: Hotfolder, workspace: Workspace
) -> None:
    for number in (1, 2, 3):
        folder = job_folder(workspace, f"mug_take0{number}", preset="tiny", done=1)
        with (folder / "status.toml").open("a") as file:
            file.write(f"finished_at = 2026-11-20T12:00:0{number}.000Z\n")
    job_folder(workspace, "cup_take01", state="running")
    found = hotfolder("history", "-n", "2", "--json").json["data"]["jobs"]
    assert [job["job"] for job in found] == ["mug_take03", "mug_take02"]
    assert not (workspace.root / ".hotfolder").exists()


def test_logs_show_each_line_and_leave_out_a_torn_one(hotfolder: Hotfolder, workspace: Workspace) -> None:
    folder = job_folder(workspace, "mug_take01")
    line = {"event": "run_end", "level": "info", "timestamp": "2026-11-20T12:00:00.000000Z", "state": "completed"}
    (folder / "log.jsonl").write_text(json.dumps(line) + "\n" + '{"event": "to')
    said = hotfolder("logs", "mug")
    assert said.code == 0
    assert "run_end  state=completed" in said.out
    assert hotfolder("logs", "mug", "--json").json["data"]["lines"] == [line]


def test_presets_say_where_each_value_comes_from_and_whether_the_model_is_here(
    hotfolder: Hotfolder, workspace: Workspace
) -> None:
    (workspace.root / "presets").mkdir()
    (workspace.root / "presets" / "quick.toml").write_text('extends = "flux-dev"\n[keys]\nsteps = 8\n')
    found = {preset["name"]: preset for preset in hotfolder("presets", "--json").json["data"]["presets"]}
    assert found["quick"]["model_state"] == "missing"
    assert found["tiny"]["model_state"] == "built on first use"
    assert found["tiny"]["default"] is True
    assert "flux-pro" not in found
    values = hotfolder("presets", "show", "quick", "--json").json["data"]["values"]
    assert values["keys.steps"] == {"value": 8, "from": str(workspace.root / "presets" / "quick.toml")}
    assert values["keys.width"]["from"].endswith("flux-dev.toml (shipped)")


def test_a_preset_that_is_wrong_is_listed_as_such(hotfolder: Hotfolder, workspace: Workspace) -> None:
    (workspace.root / "presets").mkdir()
    (workspace.root / "presets" / "broken.toml").write_text("kind = 'text2img'\n")
    said = hotfolder("presets")
    assert said.code == 0
    assert "broken" in said.out


def test_schedules_are_listed(hotfolder: Hotfolder, workspace: Workspace) -> None:
    workspace.drop("nightly.toml", 'prompt = "a mug"\n[schedule]\ncron = "0 2 * * *"\n', lane="scheduled")
    found = hotfolder("schedule", "--json").json["data"]["schedules"]
    assert [(one["name"], one["state"]) for one in found] == [("nightly", "new")]
    assert "nightly" in hotfolder("schedule").out


def test_the_schema_knows_every_key(hotfolder: Hotfolder) -> None:
    said = hotfolder("schema")
    assert json.loads(said.out) == hotfolder("schema", "--json").json["data"]
    assert {"prompt", "mask", "schedule"} <= set(json.loads(said.out)["properties"])


def test_doctor_looks_at_everything_and_ends_with_2_where_something_will_not_work(workspace: Workspace) -> None:
    said: Said = end(start("doctor", "--json", cwd=workspace.root))
    assert said.code == 0
    about = {finding["about"] for finding in said.json["data"]["findings"]}
    assert about >= {"versions", "workspace", "daemon", "mounts", "inotify", "disk", "GPU", "models"}
    said = end(start("doctor", cwd=workspace.root, environ={"HOTFOLDER_DEVICE": "cuda:99"}))
    assert said.code == 2
    assert "cuda:99" in said.err
