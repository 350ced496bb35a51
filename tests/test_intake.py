"""From the inbox to the line, through the folder alone: slow writers, late pictures, lanes, control files."""

import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from clocks import AheadClock
from conftest import Serve, Spawn, Workspace
from painted import PaintedEngine
from waiting import wait_until

from hotfolder.engine import Request
from hotfolder.errors import JobError, SettingsError

TEXT = 'prompt = "a mug"\nsteps = 2\nwidth = 64\nheight = 64\n'
#: With and without events: the scan decides either way.
EVENTS = pytest.mark.parametrize("events", ["true", "false"], ids=["with events", "without events"])
#: With a clock that is set ahead the daemon must not think that the GPU hangs.
PATIENT = {"WORKER_STEP_DEADLINE_S": "86400", "WORKER_LOAD_DEADLINE_S": "86400"}
_numbers = itertools.count(1)


def look_again(workspace: Workspace) -> None:
    """Let another job run from end to end: whatever lay in the inbox before was looked at more than once."""
    name = f"canary{next(_numbers)}"
    workspace.drop(f"{name}.toml", TEXT)
    workspace.wait_for(f"{name}_take01", "completed")


def takes(workspace: Workspace, name: str = "mug") -> list[str]:
    return [job for job in workspace.jobs() if job.rpartition("_take")[0] == name]


def notices(workspace: Workspace, job: str) -> str:
    return " ".join(notice["text"] for notice in workspace.status(job).get("notices", []))


def pause_all(workspace: Workspace) -> Path:
    file = workspace.inbox / "pause"
    file.touch()
    return file


def slow_engine() -> PaintedEngine:
    """Takes its time for each step, so that a job can be caught while it runs."""
    never = threading.Event()

    def wait(_request: Request, _step: int) -> None:
        never.wait(0.005)

    return PaintedEngine(before_step=wait)


LONG = 'prompt = "long"\nsteps = 1000\nwidth = 64\nheight = 64\n'


# --- drops ---


@EVENTS
def test_the_same_file_copied_three_times_with_its_times_is_three_takes(
    workspace: Workspace, serve: Serve, events: str, tmp_path: Path
) -> None:
    serve(env={"INBOX_EVENTS": events})
    source = tmp_path / "mug.toml"
    source.write_text(TEXT)
    for number in range(1, 4):
        subprocess.run(["cp", "-p", source, workspace.inbox], check=True)
        workspace.wait_for(f"mug_take{number:02d}", "completed")
    assert takes(workspace) == ["mug_take01", "mug_take02", "mug_take03"]
    assert not (workspace.inbox / "mug.toml").exists()


def test_what_lay_there_before_the_daemon_came_is_taken_in_the_order_of_its_times(
    workspace: Workspace, serve: Serve
) -> None:
    for age, name in ((30, "b"), (20, "c"), (40, "a")):
        path = workspace.drop(f"{name}.toml", f'prompt = "{name}"\nsteps = 1\nwidth = 64\nheight = 64\n')
        os.utime(path, (path.stat().st_mtime - age, path.stat().st_mtime - age))
    engine = PaintedEngine()
    serve(engine)
    workspace.wait_for("c_take01", "completed")
    assert [request.prompt for request in engine.made] == ["a", "b", "c"]


@EVENTS
def test_a_writer_that_keeps_the_file_open_is_never_read_half(workspace: Workspace, serve: Serve, events: str) -> None:
    clock = AheadClock()
    serve(clock=clock, env={**PATIENT, "INBOX_EVENTS": events})
    # Each piece alone is a whole job file.
    with (workspace.inbox / "mug.toml").open("w") as file:
        for piece in (TEXT, "seed = 7\n", "count = 2\n"):
            file.write(piece)
            file.flush()
            look_again(workspace)
            clock.turn(60)
            look_again(workspace)
            assert not takes(workspace)
    status = workspace.wait_for("mug_take01", "completed")
    assert [output["seed"] for output in status["outputs"]] == [7, 8]
    assert takes(workspace) == ["mug_take01"]


def test_a_writer_that_is_slow_is_shown(workspace: Workspace, serve: Serve) -> None:
    clock = AheadClock()
    serve(clock=clock, env=PATIENT)
    with (workspace.inbox / "mug.toml").open("w") as file:
        file.write(TEXT)
        look_again(workspace)
        clock.turn(3600)
        wait_until(lambda: "still being written" in ignored(workspace).get("mug.toml", ""))
        assert not takes(workspace)
    workspace.wait_for("mug_take01", "completed")


def wait_until_planned(workspace: Workspace, job: str) -> None:
    """Wait until the job has its plan and its pictures."""
    wait_until(lambda: "candidates" in workspace.status(job))


def wait_until_gone(path: Path) -> None:
    wait_until(lambda: not path.exists(), what=f"{path} is gone")


def line(workspace: Workspace) -> list[str]:
    return [one["job"] for one in workspace.daemon_status().get("line", [])]


def ignored(workspace: Workspace) -> dict[str, str]:
    return {one["name"]: one["why"] for one in workspace.daemon_status().get("ignored", [])}


def test_a_writer_of_another_user_is_waited_for_until_an_event_says_that_it_is_done(
    workspace: Workspace, spawn: Spawn, needs_tool: Callable[[str], str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    # Without this capability a lease is to be had for own files only.
    spawn(before=[needs_tool("setpriv"), "--bounding-set", "-lease"]).wait_until_ready()
    path = workspace.inbox / "mug.toml"
    with path.open("w") as file:
        os.chown(path, 65534, 65534)
        for piece in (TEXT, "seed = 7\n", "count = 2\n"):
            file.write(piece)
            file.flush()
            look_again(workspace)
            assert not takes(workspace)
    status = workspace.wait_for("mug_take01", "completed", timeout_s=4)
    assert status["candidates"] == 2


def test_a_file_without_its_last_newline_is_waited_for_once_more_and_then_taken(
    workspace: Workspace, serve: Serve
) -> None:
    serve()
    (workspace.inbox / "mug.toml").write_text(TEXT.rstrip())
    workspace.wait_for("mug_take01", "completed")


def test_a_file_that_is_overwritten_again_and_again_loses_nothing_that_stayed(
    workspace: Workspace, serve: Serve, tmp_path: Path
) -> None:
    serve()
    source = tmp_path / "new.toml"
    for number in range(40):
        source.write_text(f'prompt = "mug {number}"\nsteps = 1\nwidth = 64\nheight = 64\n')
        subprocess.run(["cp", source, workspace.inbox / "mug.toml"], check=True)
    wait_until(lambda: not list(workspace.inbox.iterdir()))
    taken = [job for name in ("mug", "mug-2") for job in takes(workspace, name)]
    for job in taken:
        workspace.wait_for(job, "completed")
    texts = [(workspace.outputs / job / "job.toml").read_text() for job in taken]
    assert all(text.endswith("height = 64\n") for text in texts), "none was read half"
    assert source.read_text() in texts, "the last one stayed, and ran"
    assert len(set(texts)) == len(texts), "none ran twice"


def test_files_renamed_over_each_other_are_each_taken_whole(workspace: Workspace, serve: Serve) -> None:
    serve()
    for number in range(100):
        workspace.drop("mug.toml", f'prompt = "mug {number}"\nsteps = 1\nwidth = 64\nheight = 64\n')
    wait_until(lambda: not list(workspace.inbox.iterdir()))
    for job in takes(workspace):
        workspace.wait_for(job, "completed")
    texts = [(workspace.outputs / job / "job.toml").read_text() for job in takes(workspace)]
    assert 'prompt = "mug 99"' in "".join(texts)
    assert len(set(texts)) == len(texts)


def test_a_plain_write_right_behind_a_rename_of_the_same_name_is_not_taken_for_whole(
    workspace: Workspace, serve: Serve
) -> None:
    serve()
    for number in range(1, 11):
        workspace.drop("mug.toml", TEXT)
        wait_until_gone(workspace.inbox / "mug.toml")
        # As `{ echo; echo; } >> file` does: closed and opened again between two lines.
        for line in ('prompt = "two lines"\n', f"seed = {number}\nsteps = 1\n"):
            with (workspace.inbox / "mug.toml").open("a") as file:
                file.write(line)
        wait_until_gone(workspace.inbox / "mug.toml")
    texts = [(workspace.outputs / job / "job.toml").read_text() for job in takes(workspace)]
    assert sorted(text for text in texts if text != TEXT) == sorted(
        f'prompt = "two lines"\nseed = {number}\nsteps = 1\n' for number in range(1, 11)
    )


@EVENTS
def test_a_folder_full_of_jobs_that_is_moved_in_is_taken_whole(
    workspace: Workspace, serve: Serve, events: str, tmp_path: Path
) -> None:
    serve(env={"INBOX_EVENTS": events})
    look_again(workspace)
    for number in range(20):
        path = tmp_path / f"batch/deep/mug{number}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEXT)
    (tmp_path / "batch").rename(workspace.inbox / "batch")
    for number in range(20):
        workspace.wait_for(f"mug{number}_take01", "completed")


def test_events_come_from_the_inbox_and_from_every_lane(workspace: Workspace, serve: Serve) -> None:
    # Without events, a scan comes far too late.
    serve(env={"INBOX_SCAN_S": "300"})
    wait_until(lambda: workspace.daemon_status().get("state") == "running")
    for number in (1, 2):
        for lane in ("", "night", "night/deep"):
            name = f"mug{number}{lane.replace('/', '')}"
            workspace.drop(f"{name}.toml", TEXT, lane=lane)
            workspace.wait_for(f"{name}_take01", "completed")
            (workspace.inbox / lane / f"plain{name}.toml").write_text(TEXT)
            workspace.wait_for(f"plain{name}_take01", "completed")
            workspace.drop(f"moved{name}.toml", TEXT, lane="../elsewhere").rename(
                workspace.inbox / lane / f"moved{name}.toml"
            )
            workspace.wait_for(f"moved{name}_take01", "completed")


def test_the_same_name_in_two_lanes_is_two_takes(workspace: Workspace, serve: Serve) -> None:
    for lane in ("", "night", "day"):
        workspace.drop("mug.toml", TEXT, lane=lane)
    serve()
    for number in (1, 2, 3):
        workspace.wait_for(f"mug_take0{number}", "completed")


@pytest.fixture
def without_rights(needs_tool: Callable[[str], str]) -> list[str]:
    """What to run a program with so that rights of files count for it, which root is free of."""
    return [needs_tool("setpriv"), "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []


def test_files_that_may_not_be_removed_count_once_and_are_shown(
    workspace: Workspace, spawn: Spawn, without_rights: list[str]
) -> None:
    paused = pause_all(workspace)
    lane = workspace.inbox / "locked"
    workspace.drop("mug.toml", TEXT, lane="locked")
    workspace.drop("mug.first", "", lane="locked")
    lane.chmod(0o555)
    spawn(before=without_rights).wait_until_ready()
    wait_until(lambda: "a job already" in ignored(workspace).get("locked/mug.toml", ""))
    wait_until(lambda: "cannot be removed" in str(workspace.daemon_status().get("notices")))
    assert any("mug_take01" in text for text in workspace.daemon_status()["wrong"])
    paused.unlink()
    workspace.wait_for("mug_take01", "completed")
    look_again(workspace)
    assert takes(workspace) == ["mug_take01"]
    journal = (workspace.outputs / "mug_take01/journal.jsonl").read_text()
    assert journal.count('"event":"first"') == 1
    lane.chmod(0o755)
    wait_until_gone(lane / "mug.toml")
    workspace.drop("mug.toml", TEXT, lane="locked")
    workspace.wait_for("mug_take02", "completed")


# --- pictures ---


@EVENTS
def test_a_job_waits_for_a_picture_that_comes_later(workspace: Workspace, serve: Serve, events: str) -> None:
    serve(env={"INBOX_EVENTS": events})
    workspace.drop("mug.toml", f'{TEXT}image = "sub/late.png"\n')
    status = workspace.wait_for("mug_take01", "waiting")
    assert status["waiting_for"] == ["sub/late.png"]
    look_again(workspace)
    workspace.picture("sub/late.png")
    status = workspace.wait_for("mug_take01", "completed")
    assert "waiting_for" not in status
    assert (workspace.inbox / "sub/late.png").exists(), "it is kept"


def test_a_picture_that_never_comes_fails_the_job_which_names_it_and_can_be_resumed(
    workspace: Workspace, serve: Serve
) -> None:
    clock = AheadClock()
    serve(clock=clock, env=PATIENT)
    workspace.drop("mug.toml", f'{TEXT}image = "never.png"\n')
    workspace.wait_for("mug_take01", "waiting")
    clock.turn(590)
    look_again(workspace)
    assert workspace.state("mug_take01") == "waiting"
    clock.turn(20)
    status = workspace.wait_for("mug_take01", "failed")
    assert status["error"]["code"] == "missing-picture"
    assert "never.png did not come within 600 s" in status["error"]["message"]
    clock.turn(3600)
    workspace.drop("mug.resume", "")
    status = workspace.wait_for("mug_take01", "waiting")
    workspace.picture("never.png")
    workspace.wait_for("mug_take01", "completed")


def test_a_picture_that_is_still_being_written_is_not_read_half(workspace: Workspace, serve: Serve) -> None:
    clock = AheadClock()
    serve(clock=clock, env=PATIENT)
    whole = workspace.picture("whole.png").read_bytes()
    with (workspace.inbox / "mug.png").open("wb") as file:
        file.write(whole[:40])
        file.flush()
        workspace.drop("mug.toml", f'{TEXT}image = "mug.png"\n')
        look_again(workspace)
        clock.turn(3600)
        status = workspace.wait_for("mug_take01", "waiting")
        assert status["waiting_for"] == ["mug.png"]
        file.write(whole[40:])
    workspace.wait_for("mug_take01", "completed")


@pytest.mark.parametrize("restart", [False, True], ids=["at once", "after a restart"])
def test_pictures_are_removed_once_every_job_that_named_them_has_ended_if_the_settings_say_so(
    workspace: Workspace, serve: Serve, *, restart: bool
) -> None:
    env = {"INBOX_SOURCES": "remove-after"}
    paused = pause_all(workspace)
    served = serve(env=env)
    for name in ("mug.png", "other.png"):
        workspace.picture(name)
    for job in ("one", "two"):
        workspace.drop(f"{job}.toml", f'{TEXT}image = "mug.png"\n')
        workspace.wait_for(f"{job}_take01", "queued")
        wait_until_planned(workspace, f"{job}_take01")
    workspace.drop("one.cancel", "")
    workspace.wait_for("one_take01", "cancelled")
    assert (workspace.inbox / "mug.png").exists(), "the other job may still want it"
    if restart:
        served.stop()
        serve(env=env)
    paused.unlink()
    workspace.wait_for("two_take01", "completed")
    wait_until_gone(workspace.inbox / "mug.png")
    assert (workspace.inbox / "other.png").exists(), "nobody named it"


def test_a_picture_that_was_replaced_meanwhile_is_not_removed(workspace: Workspace, serve: Serve) -> None:
    paused = pause_all(workspace)
    serve(env={"INBOX_SOURCES": "remove-after"})
    workspace.picture("mug.png")
    workspace.drop("mug.toml", f'{TEXT}image = "mug.png"\n')
    wait_until_planned(workspace, "mug_take01")
    workspace.picture("mug.png", "blue")
    paused.unlink()
    workspace.wait_for("mug_take01", "completed")
    look_again(workspace)
    assert (workspace.inbox / "mug.png").exists()


# --- refused jobs ---


def test_a_refused_job_is_laid_beside_with_its_problems_and_runs_once_it_is_mended(
    workspace: Workspace, serve: Serve
) -> None:
    serve()
    dropped = f"# my mug\n{TEXT}hieght = 64\n"
    workspace.drop("mug.toml", dropped, lane="night")
    status = workspace.wait_for("mug_take01", "rejected")
    assert status["problems"] == [
        {"code": "unknown-key", "message": "unknown key hieght", "hint": "did you mean height?", "line": 6}
    ]
    assert (workspace.outputs / "mug_take01/job.toml").read_text() == dropped
    note = workspace.inbox / "night/mug.rejected.toml"
    lines = note.read_text().splitlines()
    assert lines[5] == "#! unknown key hieght -- did you mean height?"
    assert [line for line in lines if not line.startswith("#! ")] == dropped.splitlines()
    note.write_text(note.read_text().replace("hieght = 64", "seed = 5"))
    note.rename(note.with_name("mug.toml"))
    status = workspace.wait_for("mug_take02", "completed")
    assert status["outputs"][0]["seed"] == 5


def test_a_refusal_that_somebody_edited_is_never_overwritten(workspace: Workspace, serve: Serve) -> None:
    serve()
    note = workspace.inbox / "mug.rejected.toml"
    workspace.drop("mug.toml", "prompt = 1\n")
    workspace.wait_for("mug_take01", "rejected")
    workspace.drop("mug.toml", "prompt = 2\n")
    workspace.wait_for("mug_take02", "rejected")
    assert "prompt = 2" in note.read_text(), "nobody had touched it"
    note.write_text(note.read_text().replace("prompt = 2", "prompt = 'mended, nearly'"))
    workspace.drop("mug.toml", "prompt = 3\n")
    workspace.wait_for("mug_take03", "rejected")
    assert "mended, nearly" in note.read_text()
    assert "prompt = 3" in (workspace.inbox / "mug-2.rejected.toml").read_text()


def test_a_text_that_cannot_be_annotated_comes_back_as_it_was_and_once(workspace: Workspace, serve: Serve) -> None:
    serve()
    data = TEXT.encode("utf-16")
    for number in (1, 2):
        beside = workspace.inbox / ".new.tmp"
        beside.write_bytes(data)
        beside.rename(workspace.inbox / "mug.toml")
        workspace.wait_for(f"mug_take0{number}", "rejected")
    assert (workspace.inbox / "mug.rejected.toml").read_bytes() == data
    assert not (workspace.inbox / "mug-2.rejected.toml").exists()


# --- lanes ---


def test_a_lane_gives_defaults_and_the_inner_one_wins(workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.drop("folder.toml", "steps = 3\ncount = 2\n", lane="night")
    workspace.drop("folder.toml", "count = 3\n", lane="night/deep")
    workspace.drop("a.toml", 'prompt = "a"\n', lane="night")
    workspace.drop("b.toml", 'prompt = "b"\nsteps = 1\n', lane="night/deep")
    a, b = workspace.wait_for("a_take01", "completed"), workspace.wait_for("b_take01", "completed")
    assert (a["candidates"], a["source"], a["lane"]) == (2, "lane", "night")
    assert (b["candidates"], b["lane"]) == (3, "night/deep")
    assert "steps = 3" in (workspace.outputs / "a_take01/plan.toml").read_text()
    assert "steps = 1" in (workspace.outputs / "b_take01/plan.toml").read_text()


def test_the_job_waits_while_the_defaults_of_its_lane_are_being_written(workspace: Workspace, serve: Serve) -> None:
    serve()
    (workspace.inbox / "night/deep").mkdir(parents=True)
    with (workspace.inbox / "night/folder.toml").open("w") as file:
        file.write("count = 2\n")
        file.flush()
        workspace.drop("mug.toml", TEXT, lane="night/deep")
        look_again(workspace)
        assert not takes(workspace)
        file.write("seed = 7\n")
    status = workspace.wait_for("mug_take01", "completed")
    assert [output["seed"] for output in status["outputs"]] == [7, 8]


@EVENTS
def test_a_picture_dropped_in_a_lane_for_pictures_is_a_job(workspace: Workspace, serve: Serve, events: str) -> None:
    serve(env={"INBOX_EVENTS": events})
    defaults = 'picture_jobs = true\npreset = "noise-kontext"\nprompt = "make it blue"\nsteps = 2\n'
    workspace.drop("folder.toml", defaults, lane="blue")
    for number in (1, 2):
        workspace.picture("blue/mug.png")
        status = workspace.wait_for(f"mug_take0{number}", "completed")
        assert status["source"] == "lane"
        assert not (workspace.inbox / "blue/mug.png").exists(), "what triggers a job is taken"
        assert (workspace.outputs / f"mug_take0{number}/sources/mug.png").exists()


def test_a_lane_that_holds_lets_go_once_it_does_not_say_so_any_more(workspace: Workspace, serve: Serve) -> None:
    engine = PaintedEngine()
    serve(engine)
    defaults = workspace.drop("folder.toml", "hold = true\n", lane="night")
    for name in ("a", "b"):
        workspace.drop(f"{name}.toml", TEXT, lane="night")
        assert workspace.wait_for(f"{name}_take01", "held")["held_by"] == "lane night"
    look_again(workspace)
    assert len(engine.made) == 1, "the canary alone"
    workspace.drop("b.resume", "")
    workspace.wait_for("b_take01", "completed")
    assert workspace.state("a_take01") == "held"
    defaults.unlink()
    workspace.wait_for("a_take01", "completed")


def test_a_job_held_by_its_lane_is_held_after_a_restart_too(workspace: Workspace, serve: Serve) -> None:
    served = serve()
    workspace.drop("folder.toml", "hold = true\n", lane="night")
    workspace.drop("mug.toml", TEXT, lane="night")
    workspace.wait_for("mug_take01", "held")
    served.stop()
    serve()
    look_again(workspace)
    assert workspace.state("mug_take01") == "held"


def test_lanes_are_three_folders_deep_and_what_is_deeper_is_told(workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.drop("three.toml", TEXT, lane="a/b/c")
    workspace.drop("four.toml", TEXT, lane="a/b/c/d")
    workspace.wait_for("three_take01", "completed")
    wait_until(lambda: ignored(workspace) == {"a/b/c/d": "lanes are at most 3 folders deep"})
    assert not takes(workspace, "four")


def test_a_lane_that_goes_away_while_everything_pauses_lets_nothing_run(workspace: Workspace, serve: Serve) -> None:
    paused = pause_all(workspace)
    engine = PaintedEngine()
    serve(engine)
    workspace.drop("mug.toml", TEXT)
    workspace.wait_for("mug_take01", "queued")
    for number in range(30):
        workspace.drop("notes.txt", "", lane=f"lane{number}/deep")
    for number in range(30):
        shutil.rmtree(workspace.inbox / f"lane{number}")
    assert not engine.made
    paused.unlink()
    workspace.wait_for("mug_take01", "completed")


# --- cancel ---


def test_a_cancel_that_comes_first_waits_for_its_job(workspace: Workspace, serve: Serve) -> None:
    serve()
    cancel = workspace.drop("mug.cancel", "")
    look_again(workspace)
    assert cancel.exists()
    workspace.drop("mug.toml", LONG)
    workspace.wait_for("mug_take01", "cancelled")
    wait_until_gone(cancel)


def test_a_cancel_waits_for_a_job_file_that_is_still_being_written(workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.drop("mug.toml", TEXT)
    workspace.wait_for("mug_take01", "completed")
    with (workspace.inbox / "mug.toml").open("w") as file:
        file.write(LONG)
        file.flush()
        cancel = workspace.drop("mug.cancel", "")
        look_again(workspace)
        assert cancel.exists()
        assert not notices(workspace, "mug_take01"), "the cancel is not about the take that ended"
    workspace.wait_for("mug_take02", "cancelled")
    wait_until_gone(cancel)


def test_a_cancel_stops_a_running_job_and_only_the_take_it_names(workspace: Workspace, serve: Serve) -> None:
    serve(slow_engine())
    workspace.drop("mug.toml", LONG)
    workspace.wait_for("mug_take01", "running")
    workspace.drop("mug.toml", LONG)
    workspace.wait_for("mug_take02", "queued")
    workspace.drop("mug_take01.cancel", "")
    workspace.wait_for("mug_take01", "cancelled")
    workspace.wait_for("mug_take02", "running")
    workspace.drop("mug.cancel", "")
    workspace.wait_for("mug_take02", "cancelled")
    assert not list(workspace.outputs.rglob("mug_take*.png"))


def test_a_cancel_of_a_job_that_waits_for_its_picture_ends_it(workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.drop("mug.toml", f'{TEXT}image = "late.png"\n')
    workspace.wait_for("mug_take01", "waiting")
    workspace.drop("mug.cancel", "")
    workspace.wait_for("mug_take01", "cancelled")
    workspace.picture("late.png")
    look_again(workspace)
    assert workspace.state("mug_take01") == "cancelled"


def test_a_cancel_that_comes_while_the_pictures_are_copied_is_the_end(workspace: Workspace, serve: Serve) -> None:
    engine = PaintedEngine()
    serve(engine)
    # Large enough that copying and checking it takes a while.
    workspace.picture("large.png", size=(4000, 4000))
    workspace.drop("mug.toml", f'{TEXT}image = "large.png"\n')
    wait_until(lambda: list(workspace.outputs.glob("mug_take01/sources/.*")))
    workspace.drop("mug.cancel", "")
    workspace.wait_for("mug_take01", "cancelled")
    look_again(workspace)
    assert workspace.state("mug_take01") == "cancelled"
    assert len(engine.made) == 1, "the canary alone"
    journal = (workspace.outputs / "mug_take01/journal.jsonl").read_text()
    assert '"event":"planned"' not in journal
    assert journal.count('"event":"ended"') == 1


def test_a_control_file_counts_in_whichever_lane_it_lies(workspace: Workspace, serve: Serve) -> None:
    pause_all(workspace)
    serve()
    workspace.drop("mug.toml", TEXT, lane="night")
    workspace.wait_for("mug_take01", "queued")
    workspace.drop("mug.cancel", "", lane="day")
    workspace.wait_for("mug_take01", "cancelled")


def test_a_cancel_that_comes_too_late_is_removed_and_noted(workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.drop("mug.toml", TEXT)
    workspace.wait_for("mug_take01", "completed")
    cancel = workspace.drop("mug.cancel", "")
    wait_until_gone(cancel)
    wait_until(lambda: "cancel came after the job had ended" in notices(workspace, "mug_take01"))
    assert workspace.state("mug_take01") == "completed"


def test_a_cancel_without_any_job_is_removed_after_a_minute_and_noted(workspace: Workspace, serve: Serve) -> None:
    clock = AheadClock()
    serve(clock=clock, env=PATIENT)
    cancel = workspace.drop("nobody.cancel", "")
    look_again(workspace)
    clock.turn(50)
    look_again(workspace)
    assert cancel.exists()
    clock.turn(20)
    wait_until_gone(cancel)
    wait_until(lambda: "no job of this name" in str(workspace.daemon_status().get("notices")))


# --- pause, first, resume ---


def test_a_paused_job_is_held_within_a_step_and_goes_on_when_resumed(workspace: Workspace, serve: Serve) -> None:
    engine = slow_engine()
    serve(engine)
    workspace.drop("mug.toml", LONG.replace("1000", "100"))
    workspace.wait_for("mug_take01", "running")
    workspace.drop("mug.pause", "")
    workspace.wait_for("mug_take01", "held")
    look_again(workspace)
    assert workspace.status("mug_take01")["held_by"] == "its own pause"
    workspace.drop("mug.resume", "")
    workspace.wait_for("mug_take01", "completed")
    assert len(engine.made) == 2


def test_a_job_that_is_paused_while_it_waits_for_its_picture_waits_on_when_resumed(
    workspace: Workspace, serve: Serve
) -> None:
    serve()
    workspace.drop("mug.toml", f'{TEXT}image = "late.png"\n')
    workspace.wait_for("mug_take01", "waiting")
    workspace.drop("mug.pause", "")
    workspace.wait_for("mug_take01", "held")
    workspace.drop("mug.resume", "")
    workspace.wait_for("mug_take01", "waiting")
    workspace.drop("mug.pause", "")
    workspace.wait_for("mug_take01", "held")
    workspace.picture("late.png")
    wait_until_planned(workspace, "mug_take01")
    assert workspace.state("mug_take01") == "held"
    workspace.drop("mug.resume", "")
    workspace.wait_for("mug_take01", "completed")


def test_the_job_that_is_to_be_first_is_and_the_latest_of_them_before_the_others(
    workspace: Workspace, serve: Serve
) -> None:
    paused = pause_all(workspace)
    engine = PaintedEngine()
    serve(engine)
    for name in "abcd":
        workspace.drop(f"{name}.toml", f'prompt = "{name}"\nsteps = 1\nwidth = 64\nheight = 64\n')
        wait_until_planned(workspace, f"{name}_take01")
    for name in "cd":
        first = workspace.drop(f"{name}.first", "")
        wait_until_gone(first)
    wait_until(lambda: line(workspace)[:2] == ["d_take01", "c_take01"])
    paused.unlink()
    for name in "abcd":
        workspace.wait_for(f"{name}_take01", "completed")
    assert [request.prompt for request in engine.made] == ["d", "c", "a", "b"]


def test_a_resumed_job_makes_only_what_is_missing(workspace: Workspace, serve: Serve) -> None:
    broken = {8}

    def fail(request: Request, _step: int) -> None:
        if request.seed in broken:
            raise JobError("out-of-memory", "it does not fit", "try 512x512")

    engine = PaintedEngine(before_step=fail)
    serve(engine)
    workspace.drop("mug.toml", f"{TEXT}seed = 7\ncount = 3\n")
    status = workspace.wait_for("mug_take01", "partial")
    assert (status["done"], status["failed"], status["error"]["code"]) == (2, 1, "out-of-memory")
    broken.clear()
    before = (workspace.outputs / "mug_take01/mug_take01_001.png").stat().st_mtime_ns
    workspace.drop("mug.resume", "")
    status = workspace.wait_for("mug_take01", "completed")
    assert [output["seed"] for output in status["outputs"]] == [7, 8, 9]
    assert [request.seed for request in engine.made] == [7, 9, 8]
    assert (workspace.outputs / "mug_take01/mug_take01_001.png").stat().st_mtime_ns == before


def test_a_cancelled_job_goes_on_from_where_it_was(workspace: Workspace, serve: Serve) -> None:
    engine = slow_engine()
    serve(engine)
    workspace.drop("mug.toml", f"{LONG.replace('1000', '40')}seed = 1\ncount = 4\n")
    wait_until(lambda: workspace.status("mug_take01").get("done", 0) >= 1)
    workspace.drop("mug.cancel", "")
    done = workspace.wait_for("mug_take01", "cancelled")["done"]
    assert done < 4
    workspace.drop("mug_take01.resume", "")
    status = workspace.wait_for("mug_take01", "completed")
    assert [output["seed"] for output in status["outputs"]] == [1, 2, 3, 4]
    assert sorted(request.seed for request in engine.made) == [1, 2, 3, 4], "none twice"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "nothing to go on with"),
        ("picks = [1, 4]\n", "nothing to go on with"),
    ],
)
def test_a_resume_of_a_job_that_is_done_is_answered_in_its_notices(
    workspace: Workspace, serve: Serve, text: str, answer: str
) -> None:
    serve()
    workspace.drop("mug.toml", TEXT)
    workspace.wait_for("mug_take01", "completed")
    resume = workspace.drop("mug.resume", text)
    wait_until_gone(resume)
    wait_until(lambda: answer in notices(workspace, "mug_take01"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("picks = [1, 4]\n", "picks are for a job in review"),
        ("pick = [1, 4]\n", "unknown key pick"),
        ("force = 1\n", "true or false is accepted"),
        ("force = \n", "not TOML"),
    ],
)
def test_a_resume_that_cannot_be_done_is_answered_and_removed(
    workspace: Workspace, serve: Serve, text: str, answer: str
) -> None:
    serve(slow_engine())
    workspace.drop("mug.toml", LONG)
    workspace.wait_for("mug_take01", "running")
    workspace.drop("mug.cancel", "")
    workspace.wait_for("mug_take01", "cancelled")
    resume = workspace.drop("mug.resume", text)
    wait_until_gone(resume)
    wait_until(lambda: answer in notices(workspace, "mug_take01"))
    assert workspace.state("mug_take01") == "cancelled"


def test_a_source_that_was_changed_stops_the_job_unless_it_is_resumed_by_force(
    workspace: Workspace, serve: Serve
) -> None:
    paused = pause_all(workspace)
    serve()
    workspace.picture("mug.png")
    workspace.drop("mug.toml", f'{TEXT}image = "mug.png"\n')
    wait_until_planned(workspace, "mug_take01")
    shutil.copy(workspace.picture("other.png", "blue"), workspace.outputs / "mug_take01/sources/mug.png")
    paused.unlink()
    status = workspace.wait_for("mug_take01", "failed")
    assert (status["error"]["code"], "sources/mug.png" in status["error"]["message"]) == ("changed-file", True)
    workspace.drop("mug.resume", "force = true\n")
    workspace.wait_for("mug_take01", "completed")


# --- folders that move ---


@EVENTS
def test_an_inbox_that_was_deleted_and_made_again_is_served_again(
    workspace: Workspace, serve: Serve, events: str
) -> None:
    serve(env={"INBOX_EVENTS": events})
    look_again(workspace)
    workspace.inbox.rmdir()
    wait_until(lambda: "jobs_inbox/ is gone" in workspace.daemon_status().get("wrong", []))
    workspace.inbox.mkdir()
    look_again(workspace)
    wait_until(lambda: "jobs_inbox/ is gone" not in workspace.daemon_status().get("wrong", []))


def test_an_inbox_that_was_renamed_away_and_replaced_is_another_one_and_loses_nothing(
    workspace: Workspace, serve: Serve
) -> None:
    serve()
    look_again(workspace)
    away = workspace.inbox.rename(workspace.root / "away")
    workspace.inbox.mkdir()
    (away / "mug.toml").write_text(TEXT)
    look_again(workspace)
    assert not takes(workspace), "it was dropped somewhere else"
    workspace.inbox.rmdir()
    away.rename(workspace.inbox)
    workspace.wait_for("mug_take01", "completed")


def test_an_inbox_may_be_a_link_and_events_come_all_the_same(workspace: Workspace, serve: Serve) -> None:
    share = workspace.root.parent / "share"
    workspace.inbox.rename(share)
    workspace.inbox.symlink_to(share)
    # Without events, a scan comes far too late.
    serve(env={"INBOX_SCAN_S": "300"})
    wait_until(lambda: workspace.daemon_status().get("state") == "running")
    workspace.drop("mug.toml", TEXT)
    workspace.wait_for("mug_take01", "completed")


def test_events_come_from_an_inbox_that_was_replaced(workspace: Workspace, serve: Serve) -> None:
    served = serve(env={"INBOX_SCAN_S": "2"})
    look_again(workspace)
    workspace.inbox.rename(workspace.root / "away")
    workspace.inbox.mkdir()
    look_again(workspace)
    look_again(workspace)
    assert served.result is None


def test_a_live_job_whose_folder_is_deleted_is_let_go_and_the_rest_goes_on(workspace: Workspace, serve: Serve) -> None:
    serve(slow_engine())
    workspace.drop("mug.toml", LONG)
    workspace.wait_for("mug_take01", "running")
    shutil.rmtree(workspace.outputs / "mug_take01", ignore_errors=True)
    look_again(workspace)
    assert not takes(workspace)
    workspace.drop("mug.toml", TEXT)
    workspace.wait_for("mug_take01", "completed")


def test_a_queued_job_whose_folder_is_moved_away_does_not_run(workspace: Workspace, serve: Serve) -> None:
    paused = pause_all(workspace)
    engine = PaintedEngine()
    serve(engine)
    workspace.drop("mug.toml", TEXT)
    wait_until(lambda: line(workspace) == ["mug_take01"])
    (workspace.outputs / "mug_take01").rename(workspace.root / "kept")
    wait_until(lambda: not line(workspace))
    paused.unlink()
    look_again(workspace)
    assert len(engine.made) == 1
    assert (workspace.root / "kept/plan.toml").exists()


def test_outputs_that_are_renamed_away_for_a_while_cost_no_job(workspace: Workspace, serve: Serve) -> None:
    serve(slow_engine())
    workspace.drop("mug.toml", f"{LONG.replace('1000', '60')}seed = 1\ncount = 3\n")
    wait_until(lambda: workspace.status("mug_take01").get("done", 0) >= 1)
    away = workspace.outputs.rename(workspace.root / "away")
    workspace.drop("cup.toml", TEXT)
    wait_until((workspace.inbox / "cup.toml").exists)
    away.rename(workspace.outputs)
    status = workspace.wait_for("mug_take01", timeout_s=40)
    assert status["state"] == "completed", status
    assert [output["seed"] for output in status["outputs"]] == [1, 2, 3]
    workspace.wait_for("cup_take01", "completed")


def test_outputs_that_were_replaced_are_served_and_so_are_the_old_ones_when_they_are_back(
    workspace: Workspace, serve: Serve
) -> None:
    paused = pause_all(workspace)
    serve()
    workspace.drop("mug.toml", TEXT)
    wait_until_planned(workspace, "mug_take01")
    wait_until(lambda: workspace.daemon_status().get("state") == "paused")
    before = workspace.daemon_status()["run_id"]
    away = workspace.outputs.rename(workspace.root / "away")
    workspace.outputs.mkdir()
    wait_until(lambda: workspace.daemon_status().get("run_id", before) != before)
    paused.unlink()
    look_again(workspace)
    assert not takes(workspace)
    workspace.outputs.rename(workspace.root / "for a while")
    away.rename(workspace.outputs)
    workspace.wait_for("mug_take01", "completed")


def test_a_second_daemon_is_told_who_serves_the_workspace(workspace: Workspace, serve: Serve) -> None:
    serve()
    look_again(workspace)
    second = serve()
    with pytest.raises(SettingsError, match=f"process {os.getpid()} on") as caught:
        second.join()
    assert caught.value.code == "workspace-busy"
    look_again(workspace)
