"""Which cell is blamed for the death of a process: only one that there is evidence against."""

import json
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Spawn, Workspace
from waiting import wait_until

from hotfolder import journal
from hotfolder.blame import Death, RunningNote
from hotfolder.clock import SystemClock
from hotfolder.salvage import MAX_BLAMED, MAX_UNEXPLAINED

SMALL = "width = 16\nheight = 16\nsteps = 3\n"
DEADLY = f'prompt = "deadly"\ncount = 1\n{SMALL}'
HARMLESS = f'prompt = "a mug"\ncount = 2\n{SMALL}'


def note_of(cache: Path, run_id: str = "run-2") -> RunningNote:
    return RunningNote(cache, run_id, SystemClock())


def test_a_process_that_ended_in_order_left_no_death(tmp_path: Path) -> None:
    note = note_of(tmp_path, "run-1")
    note.begin()
    note.write("mug_take01", 3)
    note.close()
    following = note_of(tmp_path)
    assert following.death() is None
    following.close()


def test_a_process_that_vanished_left_its_cell_but_no_evidence(tmp_path: Path) -> None:
    note = note_of(tmp_path, "run-1")
    note.begin()
    note.write("mug_take01", 3)
    note.abandon()
    following = note_of(tmp_path)
    assert following.death() == Death(job="mug_take01", candidate=3, run_id="run-1", evidence=None)
    following.begin()
    assert following.death() is None
    following.close()


def test_between_two_cells_nobody_is_noted(tmp_path: Path) -> None:
    note = note_of(tmp_path, "run-1")
    note.begin()
    note.write("mug_take01", 3)
    note.clear()
    note.abandon()
    following = note_of(tmp_path)
    assert following.death() is None
    following.close()


def test_what_the_process_said_before_it_ended_itself_is_the_evidence(tmp_path: Path) -> None:
    note = note_of(tmp_path, "run-1")
    note.begin()
    note.write("mug_take01", 3)
    note.testify("no sign of life from denoise for 300 s")
    note.abandon()
    following = note_of(tmp_path)
    assert following.death() == Death(
        job="mug_take01", candidate=3, run_id="run-1", evidence="no sign of life from denoise for 300 s"
    )
    following.close()


def test_a_reboot_in_between_is_a_power_cut_and_blames_nobody(tmp_path: Path) -> None:
    note = note_of(tmp_path, "run-1")
    note.begin()
    note.write("mug_take01", 3)
    note.testify("no sign of life")
    note.abandon()
    page = (tmp_path / "running").read_bytes()
    left = json.loads(page.partition(b"\0")[0])
    text = json.dumps(left | {"boot": "another"}).encode()
    (tmp_path / "running").write_bytes(text + b"\0" * (len(page) - len(text)))
    following = note_of(tmp_path)
    assert following.death() is None
    following.close()


@pytest.mark.parametrize("page", [b"", b"\0" * 10, b"{", b"[]", b"7", b'{"job": 1}', b"\xff" * 5000])
def test_a_note_that_cannot_be_read_blames_nobody(tmp_path: Path, page: bytes) -> None:
    (tmp_path / "running").write_bytes(page)
    note = note_of(tmp_path)
    assert note.death() is None
    note.begin()
    note.write("m" * 80 + "_take01", 1000)
    note.close()


def test_the_longest_name_fits_into_the_note(tmp_path: Path) -> None:
    name = "\U0001f5bc" * 20 + "_take99999"
    note = note_of(tmp_path, "run-1")
    note.begin()
    note.write("x_take01", 1)
    note.write(name, 1000)
    note.abandon()
    following = note_of(tmp_path)
    found = following.death()
    assert found is not None
    assert (found.job, found.candidate) == (name, 1000)
    following.close()


def deaths(workspace: Workspace, job: str = "bad_take01") -> tuple[dict[int, int], dict[int, int]]:
    """Return (blamed, unexplained) as the journal has them."""
    ledger = journal.read(workspace.outputs / job)
    return ledger.blamed, ledger.unexplained


@pytest.mark.parametrize("action", ["segv", "abort", "hang", "break"])
def test_a_cell_that_kills_the_process_twice_is_given_up_and_the_others_go_on(
    workspace: Workspace, spawn: Spawn, action: str
) -> None:
    """A fatal signal, our own hang deadline and a broken device are evidence."""
    workspace.drop("bad.toml", DEADLY)
    env = {"WORKER_STEP_DEADLINE_S": "1"}
    codes = [spawn("--at", "2", action, env=env).join() for _ in range(MAX_BLAMED)]
    assert deaths(workspace) == ({1: MAX_BLAMED - 1}, {}), "the last death is noted by the next start"
    wanted = {"segv": -signal.SIGSEGV, "abort": -signal.SIGABRT, "hang": 70, "break": 1}[action]
    assert codes == [wanted] * MAX_BLAMED
    workspace.drop("good.toml", HARMLESS)
    spawn("--at", "2", action, env=env)
    assert workspace.wait_for("good_take01")["state"] == "completed"
    found = workspace.wait_for("bad_take01")
    assert (found["state"], found["error"]["code"], found["attempt"]) == ("failed", "crashed-worker", 2)
    assert found["error"]["hint"]


def test_the_other_candidates_of_a_deadly_job_are_made(workspace: Workspace, spawn: Spawn) -> None:
    """The first picture is on disk, the second kills, the third is made: partial."""
    workspace.drop("mug.toml", HARMLESS)
    text = f'prompt = "deadly"\ncount = 3\nseed = 5\n{SMALL}'
    workspace.drop("bad.toml", text)
    for _ in range(MAX_BLAMED):
        assert spawn("--at", "2", "segv-second").join() == -signal.SIGSEGV
    spawn("--at", "2", "segv-second")
    found = workspace.wait_for("bad_take01")
    assert (found["state"], found["done"], found["failed"]) == ("partial", 2, 1)
    assert [(one["candidate"], one["code"]) for one in found["failures"]] == [(2, "crashed-worker")]
    assert [one["candidate"] for one in found["outputs"]] == [1, 3]
    assert workspace.state("mug_take01") == "completed"


def test_one_death_is_no_verdict(workspace: Workspace, spawn: Spawn) -> None:
    workspace.drop("bad.toml", DEADLY)
    assert spawn("--at", "2", "segv").join() == -signal.SIGSEGV
    spawn()
    found = workspace.wait_for("bad_take01")
    assert (found["state"], found["attempt"]) == ("completed", 2)


@pytest.mark.timeout(180)
def test_kill_is_never_blamed_but_twenty_unexplained_deaths_in_a_row_are(workspace: Workspace, spawn: Spawn) -> None:
    workspace.drop("bad.toml", DEADLY)
    known: set[str] = set()
    for killed in range(MAX_UNEXPLAINED):
        process = spawn("--at", "2", "hang")
        wait_until(lambda: noted_run(workspace) not in {"", *known}, 30, "the deadly cell is under way")
        known.add(noted_run(workspace))
        if killed:
            assert deaths(workspace) == ({}, {1: killed})
        process.kill()
    spawn("--at", "2", "hang")
    found = workspace.wait_for("bad_take01")
    assert (found["state"], found["error"]["code"]) == ("failed", "crashed-worker")
    assert found["attempt"] == MAX_UNEXPLAINED == 20


def noted_run(workspace: Workspace) -> str:
    """The process whose cell is noted as under way, "" where none is."""
    page = workspace.root / ".hotfolder" / "running"
    with suppress(OSError, ValueError):
        return str(json.loads(page.read_bytes().partition(b"\0")[0])["run_id"])
    return ""


def test_a_stop_in_order_is_no_death(workspace: Workspace, spawn: Spawn) -> None:
    workspace.drop("bad.toml", f'prompt = "slow"\ncount = 1\nsteps = 1000\n{SMALL.replace("steps = 3", "")}')
    process = spawn("--step-ms", "50")
    workspace.wait_for("bad_take01", "running")
    assert process.stop() == 0
    assert deaths(workspace) == ({}, {})
    spawn().wait_until_ready()
    assert deaths(workspace) == ({}, {})
