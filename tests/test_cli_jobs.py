"""The command line with a daemon, and `run` without one: jobs followed, steered and waited for to their end."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Hotfolder, end, job_folder, start
from conftest import Serve, Workspace
from painted import PaintedEngine
from waiting import wait_until

from hotfolder.engine import Request
from hotfolder.front.follow import Lines
from hotfolder.front.jobs import View


@pytest.fixture
def hotfolder(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Hotfolder:
    return Hotfolder(workspace.root, capsys)


class Gate:
    """Holds a painted engine at its second step until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def __call__(self, request: Request, step: int) -> None:
        if step > 1:
            self._open.wait(60)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


class Typed:
    """Commands that are typed elsewhere while this test goes on."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def __call__(self, *args: str) -> subprocess.Popen[str]:
        return start(*args, cwd=self._workspace.root)


@pytest.fixture
def typed(workspace: Workspace) -> Typed:
    return Typed(workspace)


def first_in_line(workspace: Workspace) -> str:
    """The job that is to run next, as outputs/status.toml says."""
    line = workspace.daemon_status().get("line", [])
    return str(line[0]["job"]) if line else ""


# --- submit and run, with a daemon ---


def test_submit_and_wait_shows_progress_and_ends_with_the_pictures(
    hotfolder: Hotfolder, workspace: Workspace, serve: Serve
) -> None:
    serve()
    said = hotfolder("submit", "--prompt", "a mug", "--set", "count=2", "--name", "mug", "--wait")
    assert said.code == 0
    *progress, ended, first, second = said.out.splitlines()
    assert progress[-1] == "PROGRESS: 100 | completed"
    assert all(line.startswith("PROGRESS: ") for line in progress)
    assert ended.startswith("mug_take01 completed in ")
    assert [first, second] == [str(workspace.outputs / "mug_take01" / f"mug_take01_00{n}.png") for n in (1, 2)]
    assert workspace.status("mug_take01")["source"] == "cli"


def test_with_json_progress_goes_to_stderr(hotfolder: Hotfolder, serve: Serve) -> None:
    serve()
    said = hotfolder("submit", "--prompt", "a mug", "--name", "mug", "--wait", "--json")
    assert said.json["data"]["state"] == "completed"
    assert "PROGRESS: 100 | completed" in said.err


def test_submit_says_which_take_it_became(hotfolder: Hotfolder, workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.drop("mug.toml")
    workspace.wait_for("mug_take01")
    data = hotfolder("submit", "--prompt", "a mug", "--name", "mug", "--json").json["data"]
    assert (data["job"], data["daemon"]) == ("mug_take02", True)


def test_a_take_of_somebody_else_is_not_taken_for_ours(workspace: Workspace, typed: Typed) -> None:
    small = "steps = 1\nwidth = 64\nheight = 64\n"
    workspace.drop("mug.toml", f'prompt = "somebody else\'s"\n{small}')
    (workspace.root / "mine.toml").write_text(f'prompt = "mine"\n{small}')
    said = end(typed("run", "mine.toml", "--name", "mug", "--json"))
    assert (said.code, said.json["data"]["state"]) == (0, "completed")
    ours = workspace.outputs / said.json["data"]["job"] / "job.toml"
    assert ours.read_text() == f'#! via cli\nprompt = "mine"\n{small}'
    assert workspace.jobs() == ["mug_take01", "mug_take02"]


def test_a_job_that_fails_ends_with_3_and_says_why(hotfolder: Hotfolder, workspace: Workspace, serve: Serve) -> None:
    serve()
    (workspace.inbox / "mug.png").write_text("no picture")
    said = hotfolder("submit", "--set", "image=jobs_inbox/mug.png", "--name", "mug", "--wait")
    assert said.code == 2, "named as seen from the current folder"
    said = hotfolder("submit", "--image", workspace.inbox / "mug.png", "--name", "mug", "--wait")
    assert said.code == 3
    assert "error: mug_take01 failed: mug.png: " in said.err
    said = hotfolder("submit", "--image", workspace.inbox / "mug.png", "--name", "mug", "--wait", "--json")
    assert (said.code, said.json["error"]["code"]) == (3, "not-completed")
    assert said.json["data"]["error"]["code"] == "bad-picture"


def test_run_goes_to_the_front_of_a_daemons_line(workspace: Workspace, serve: Serve, gate: Gate, typed: Typed) -> None:
    engine = PaintedEngine(before_step=gate)
    serve(engine)
    for name in ("a", "b", "c"):
        workspace.drop(f"{name}.toml", f'prompt = "{name}"\nsteps = 2\n')
        workspace.wait_for(f"{name}_take01", "queued", "running")
    process = typed("run", "--prompt", "urgent", "--set", "steps=2", "--name", "urgent", "--json")
    wait_until(lambda: first_in_line(workspace) == "urgent_take01", 30)
    gate.open()
    assert end(process).code == 0
    workspace.wait_for("c_take01")
    assert [request.prompt for request in engine.made] == ["a", "urgent", "b", "c"]


def test_ctrl_c_while_following_leaves_the_job_to_the_daemon(
    workspace: Workspace, serve: Serve, gate: Gate, typed: Typed
) -> None:
    serve(PaintedEngine(before_step=gate))
    process = typed("submit", "--prompt", "a mug", "--name", "mug", "--wait", "--json")
    assert process.stderr is not None
    while "generate" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    said = end(process)
    assert said.code == 130
    assert "goes on without being followed" in said.json["error"]["message"]
    gate.open()
    workspace.wait_for("mug_take01", "completed")


# --- steering, with a daemon ---


def test_cancel_and_wait_ends_a_running_job_and_who_follows_it_gets_130(
    hotfolder: Hotfolder, workspace: Workspace, serve: Serve, gate: Gate, typed: Typed
) -> None:
    serve(PaintedEngine(before_step=gate))
    follower = typed("submit", "--prompt", "a mug", "--name", "mug", "--wait", "--json")
    workspace.wait_for("mug_take01", "running", timeout_s=30)
    threading.Timer(0.3, gate.open).start()
    said = hotfolder("cancel", "mug", "--wait", "--json")
    assert said.code == 0
    assert [job["state"] for job in said.json["data"]["jobs"]] == ["cancelled"]
    followed = end(follower)
    assert (followed.code, followed.json["data"]["state"]) == (130, "cancelled")


def test_resume_and_wait_finishes_a_cancelled_job(
    hotfolder: Hotfolder, workspace: Workspace, serve: Serve, gate: Gate
) -> None:
    serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml")
    workspace.wait_for("mug_take01", "running")
    hotfolder("cancel", "mug")
    gate.open()
    workspace.wait_for("mug_take01", "cancelled")
    said = hotfolder("resume", "mug", "--wait", "--json")
    assert (said.code, said.json["data"]["state"]) == (0, "completed")


def test_a_resume_that_cannot_be_done_is_told(hotfolder: Hotfolder, workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.drop("mug.toml")
    workspace.wait_for("mug_take01", "completed")
    # A status file that is behind: the daemon knows better.
    told = (workspace.outputs / "mug_take01" / "status.toml").read_text()
    (workspace.outputs / "mug_take01" / "status.toml").write_text(told.replace('"completed"', '"failed"', 1))
    said = hotfolder("resume", "mug", "--wait", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "not-possible")
    assert "nothing to go on with" in said.json["error"]["message"]


def test_a_held_job_goes_on_after_resume(hotfolder: Hotfolder, workspace: Workspace, serve: Serve) -> None:
    hotfolder("pause")
    serve()
    workspace.drop("mug.toml")
    workspace.wait_for("mug_take01", "queued")
    hotfolder("pause", "mug")
    workspace.wait_for("mug_take01", "held")
    assert "held by its own pause" in hotfolder("status", "mug").out
    hotfolder("resume")
    assert hotfolder("resume", "mug", "--wait").code == 0


def test_a_line_of_the_log_that_no_parser_can_read_is_passed_over(hotfolder: Hotfolder, workspace: Workspace) -> None:
    folder = job_folder(workspace, "mug_take01")
    (folder / "log.jsonl").write_text("[" * 100_000 + '\n{"event": "run_end", "level": "info"}\n')
    said = hotfolder("logs", "mug")
    assert said.code == 0
    assert "run_end" in said.out


# --- looking, with a daemon ---


def test_status_shows_who_serves_and_what_runs(
    hotfolder: Hotfolder, workspace: Workspace, serve: Serve, gate: Gate
) -> None:
    served = serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml")
    workspace.wait_for("mug_take01", "running")
    wait_until(lambda: workspace.daemon_status().get("running"))
    data = hotfolder("status", "--json").json["data"]
    assert (data["state"], data["pid"], data["running"]) == ("running", os.getpid(), ["mug_take01"])
    assert "mug_take01" in hotfolder("status").out
    hotfolder("pause")
    wait_until(lambda: workspace.daemon_status().get("state") == "paused")
    assert "paused until hotfolder resume" in hotfolder("status").out
    gate.open()
    served.stop()
    assert "none runs" in hotfolder("status").out


def test_status_watched_ends_with_the_job(workspace: Workspace, serve: Serve, gate: Gate, typed: Typed) -> None:
    serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml")
    workspace.wait_for("mug_take01", "running")
    as_text, as_json = typed("status", "mug", "--watch"), typed("status", "mug", "--watch", "--json")
    assert as_text.stdout is not None
    first = as_text.stdout.readline()
    gate.open()
    said = end(as_text)
    assert "mug_take01" in first
    states = [line.split() for line in said.out.splitlines() if line.startswith("state ")]
    assert (said.code, states.count(["state", "completed"])) == (0, 1)
    assert end(as_json).json["data"]["state"] == "completed"


def test_logs_followed_end_with_the_job(workspace: Workspace, serve: Serve, gate: Gate, typed: Typed) -> None:
    serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml")
    workspace.wait_for("mug_take01", "running")
    process = typed("logs", "mug", "--follow", "--json")
    gate.open()
    events = [line["event"] for line in end(process).json["data"]["lines"]]
    assert [events[0], events[-1]] == ["admitted", "run_end"]


def test_history_lists_what_ended_newest_first(hotfolder: Hotfolder, workspace: Workspace, serve: Serve) -> None:
    serve()
    for name in ("mug", "cup"):
        workspace.drop(f"{name}.toml")
        workspace.wait_for(f"{name}_take01", "completed")
    wait_until(lambda: len(hotfolder("history", "--json").json["data"]["jobs"]) == 2)
    assert [job["job"] for job in hotfolder("history", "--json").json["data"]["jobs"]] == ["cup_take01", "mug_take01"]


def test_a_second_daemon_is_told_who_has_the_workspace(
    hotfolder: Hotfolder, workspace: Workspace, serve: Serve
) -> None:
    serve()
    wait_until(workspace.daemon_status)
    said = hotfolder("serve", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "workspace-busy")
    assert f"process {os.getpid()} " in said.json["error"]["message"]


# --- without a daemon: this process does it ---


def test_serve_drains_and_says_so_in_one_object(workspace: Workspace, typed: Typed) -> None:
    workspace.drop("mug.toml", "steps = 1\n")
    said = end(typed("serve", "--drain", "--json"))
    assert said.code == 3
    assert said.json["error"]["code"] == "not-completed"
    assert end(typed("serve", "--drain", "--json")).json["ok"] is True


def test_run_makes_the_picture_in_this_process(workspace: Workspace, typed: Typed) -> None:
    said = end(
        typed("run", "--prompt", "a mug", "--set", "steps=2", "--set", "width=64", "--set", "height=64", "--json")
    )
    assert said.code == 0
    data = said.json["data"]
    assert (data["job"], data["mode"]) == ("a-mug_take01", "direct")
    assert all(Path(picture).is_file() for picture in data["pictures"])
    assert "PROGRESS: 100 | completed" in said.err
    assert os.listdir(workspace.inbox) == []


def test_run_makes_a_job_that_lies_in_the_inbox(workspace: Workspace, typed: Typed) -> None:
    workspace.drop("other.toml")
    workspace.drop("mug.toml", 'prompt = "a mug"\nsteps = 1\nwidth = 64\nheight = 64\n')
    said = end(typed("run", "jobs_inbox/mug.toml", "--json"))
    assert (said.code, said.json["data"]["job"]) == (0, "mug_take01")
    assert os.listdir(workspace.inbox) == ["other.toml"]


def slow(typed: Typed) -> subprocess.Popen[str]:
    """A run that takes minutes, once it paints."""
    process = typed("run", "--prompt", "a mug", "--set", "steps=1000", "--name", "mug", "--json")
    assert process.stderr is not None
    while "/1000" not in process.stderr.readline():
        assert process.poll() is None
    return process


def test_ctrl_c_cancels_what_runs_in_this_process(workspace: Workspace, typed: Typed) -> None:
    process = slow(typed)
    process.send_signal(signal.SIGINT)
    said = end(process)
    assert (said.code, said.json["data"]["state"]) == (130, "cancelled")
    assert workspace.state("mug_take01") == "cancelled"


def test_a_run_that_is_terminated_leaves_its_job_to_be_gone_on_with(workspace: Workspace, typed: Typed) -> None:
    process = slow(typed)
    process.terminate()
    said = end(process)
    assert said.code == 3
    assert "goes on when a daemon is started" in said.json["error"]["hint"]
    assert workspace.state("mug_take01") == "queued"


# --- how progress is told ---


def progress(tmp_path: Path, state: str, **now: object) -> View:
    return View(folder=tmp_path / "mug_take01", table={"state": state, "progress": now} if now else {"state": state})


def test_progress_lines_say_percent_stage_and_step_and_never_go_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell = Lines(sys.stdout)
    tell(progress(tmp_path, "queued"))
    tell(progress(tmp_path, "running", stage="generate", phase="load", step=0, steps=0, fraction=0.0))
    tell(progress(tmp_path, "running", stage="generate", phase="denoise", step=14, steps=28, fraction=0.5))
    tell(progress(tmp_path, "running", stage="generate", phase="denoise", step=14, steps=28, fraction=0.5))
    tell(progress(tmp_path, "running", stage="generate", phase="decode", step=0, steps=0, fraction=0.0))
    tell(progress(tmp_path, "completed"))
    assert capsys.readouterr().out.splitlines() == [
        "PROGRESS: 0 | queued",
        "PROGRESS: 0 | generate load",
        "PROGRESS: 50 | generate 14/28",
        "PROGRESS: 50 | generate decode",
        "PROGRESS: 100 | completed",
    ]


def test_a_terminal_gets_a_bar_and_the_same_answer(workspace: Workspace, serve: Serve) -> None:
    serve()
    told = in_a_terminal(workspace, "submit", "--prompt", "a mug", "--name", "mug", "--wait")
    assert "PROGRESS" not in told
    assert "━" in told
    assert "mug_take01_001.png" in told
    assert "\x1b[" in in_a_terminal(workspace, "status", "mug")
    assert "\x1b[" not in in_a_terminal(workspace, "status", "mug", NO_COLOR="1")


def in_a_terminal(workspace: Workspace, *args: str, **environ: str) -> str:
    """Run a command on a terminal of its own; return what it wrote there."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-c", "from hotfolder.front.cli import main; main()", *args],
            cwd=workspace.root,
            env={**os.environ, "TERM": "xterm", **environ},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        told = b""
        try:
            while block := terminal.read(4096):
                told += block
        except OSError:
            pass  # EIO: the other side was closed
        process.wait(60)
    return told.decode()
