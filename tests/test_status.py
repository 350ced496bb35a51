"""What status files say: a job's own, and the daemon at a glance. Read as other programs read them."""

import os
import threading
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import samples
from clocks import NOON
from conftest import Serve, Workspace
from painted import PaintedEngine
from waiting import wait_until

from hotfolder import journal, status
from hotfolder.engine import Request
from hotfolder.journal import ENDS, Event, Failure, Ledger, Origin, Output, State
from hotfolder.plan import Plan
from hotfolder.status import DaemonStatus, Progress, Waiting

PLAN = samples.plan()
SMALL = "width = 16\nheight = 16\n"


def ledger_of(state: State = State.QUEUED, *, done: int = 0, failed: tuple[int, ...] = ()) -> Ledger:
    ledger = Ledger(
        seq=1,
        origin=Origin(file="mug.toml", size=1, mtime_ns=1, sha256="a", via="dropped"),
        queued_at=NOON,
        started_at=NOON,
        state=state,
        plan_sha256="b" * 64,
        runs={"run-1"},
        run_id="run-1",
    )
    for number in range(1, done + 1):
        output = Output(
            candidate=number,
            file=f"mug_{number:03d}.png",
            seed=41 + number,
            sha256="",
            pixels_sha256="",
            seconds=1.5,
            save_seconds=0.25,
        )
        ledger.done[number] = (output,)
    for number in failed:
        ledger.failed[number] = Failure(
            code="out-of-memory", message="no room", stage="generate", stage_index=1, candidate=number, item=1
        )
    if ledger.ended:
        ledger.finished_at = NOON
    return ledger


def told(ledger: Ledger, plan: Plan | None = PLAN, progress: Progress | None = None) -> dict[str, Any]:
    return tomllib.loads(status.job_status("mug_take01", ledger, plan, progress=progress).decode())


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_told_by_its_own_word(state: State) -> None:
    found = told(ledger_of(state))
    assert (found["schema"], found["job"], found["state"]) == (1, "mug_take01", state.value)
    assert ("finished_at" in found) == (state in ENDS)


def test_a_job_that_was_only_admitted_has_a_readable_status() -> None:
    found = told(Ledger(origin=Origin(file="a", size=1, mtime_ns=1, sha256="a"), queued_at=NOON), None)
    assert found["state"] == "queued"
    assert (found["attempt"], found["done"], found["failed"]) == (0, 0, 0)
    assert str(found["queued_at"]) == "2026-11-20 12:00:00+00:00"


def test_counts_and_stages_add_up() -> None:
    found = told(ledger_of(State.RUNNING, done=2, failed=(3,)))
    assert (found["items"], found["candidates"], found["done"], found["failed"]) == (1, 4, 2, 1)
    generate, export = found["stages"]
    assert generate == {"number": 1, "name": "generate", "state": "running", "done": 2, "failed": 1, "seconds": 3.0}
    assert export == {"number": 2, "name": "export", "state": "running", "done": 2, "failed": 0, "seconds": 0.5}


def test_outputs_and_failures_stand_there_from_the_end_on() -> None:
    assert "outputs" not in told(ledger_of(State.RUNNING, done=2, failed=(3,)))
    found = told(ledger_of(State.PARTIAL, done=2, failed=(3,)))
    assert found["outputs"] == [
        {"file": "mug_001.png", "candidate": 1, "seed": 42},
        {"file": "mug_002.png", "candidate": 2, "seed": 43},
    ]
    [failure] = found["failures"]
    assert (failure["code"], failure["candidate"], failure["stage"]) == ("out-of-memory", 3, "generate")


def test_progress_is_told_only_while_the_job_runs() -> None:
    progress = Progress(
        stage="generate", stage_index=1, stages=2, candidate=3, phase="denoise", step=14, steps=28, fraction=0.5
    )
    assert told(ledger_of(State.RUNNING), progress=progress)["progress"]["step"] == 14
    assert "seconds_left" not in told(ledger_of(State.RUNNING), progress=progress)["progress"]
    assert "progress" not in told(ledger_of(State.HELD), progress=progress)


def test_the_callers_own_words_are_carried_as_they_are() -> None:
    plan = samples.plan(title='spring "26"\n', project="mugs", meta={"order": 17, "tags": ["a", "b"], "who": {"x": 1}})
    found = told(ledger_of(State.COMPLETED, done=4), plan)
    assert found["title"] == 'spring "26"\n'
    assert (found["project"], found["meta"]) == ("mugs", {"order": 17, "tags": ["a", "b"], "who": {"x": 1}})


def test_a_text_with_bytes_that_are_no_unicode_is_still_readable() -> None:
    ledger = ledger_of(State.FAILED)
    name = os.fsdecode(b"m\xfcg\n\x1b[31m.png")
    ledger.error = Failure(code="cannot-write", message=f"no: {name}", hint=name)
    ledger.notices = [name]
    ledger.problems = ({"code": "bad-value", "message": name, "line": 3},)
    found = told(ledger)
    assert "\\udcfc" in found["error"]["message"]
    assert "\\udcfc" in found["notices"][0]["text"]
    assert "\\udcfc" in found["problems"][0]["message"]


def test_a_notice_is_told_once_however_often_it_was_given() -> None:
    ledger = ledger_of()
    ledger.notices = ["rounded", "tiled", "rounded"]
    assert [notice["text"] for notice in told(ledger)["notices"]] == ["rounded", "tiled"]


def test_a_thousand_pictures_are_listed_and_the_rest_is_counted() -> None:
    plan = samples.plan()
    found = told(ledger_of(State.COMPLETED, done=1200), plan.changed(count=1200))
    assert (len(found["outputs"]), found["done"]) == (1000, 1200)


def test_the_state_is_read_back_and_nothing_else_is_taken_for_one(tmp_path: Path) -> None:
    assert status.read_state(tmp_path) is None
    status.write(tmp_path, status.job_status("mug_take01", ledger_of(State.PARTIAL), PLAN), sync=True)
    assert status.read_state(tmp_path) is State.PARTIAL
    for text in (b"", b"state = ", b'state = "gone"', b"state = 7", b"\xff", b"schema = 1"):
        (tmp_path / status.FILE_NAME).write_bytes(text)
        assert status.read_state(tmp_path) is None


def test_the_daemon_at_a_glance_can_be_read() -> None:
    glance = DaemonStatus(
        state="running",
        pid=7,
        host="studio",
        updated_at=NOON,
        started_at=NOON,
        run_id="run-1",
        mode="queued",
        counts={"queued": 2},
        running=["mug_take01"],
        line=[
            Waiting(job="a_take01", position=1, eta=NOON),
            Waiting(job="b_take01", position=2, why="put in front"),
        ],
        free_gb=1.234567,
        total_gb=2,
        wrong=["disk full"],
        ignored=[("x.txt", "not a job file")],
        ignored_count=1,
        notices=["cancel, but there is no job of this name"],
    )
    found = tomllib.loads(glance.dump().decode())
    assert (found["state"], found["pid"], found["host"]) == ("running", 7, "studio")
    assert (found["counts"], found["disk"]["free_gb"]) == ({"queued": 2}, 1.23)
    assert found["line"][1] == {"job": "b_take01", "position": 2, "why": "put in front"}
    assert found["ignored"] == [{"name": "x.txt", "why": "not a job file"}]
    assert replace(glance, line=[], ignored=[], notices=[]).dump().count(b"[[") == 0


def test_whoever_reads_while_it_is_written_finds_it_whole(workspace: Workspace, serve: Serve) -> None:
    """Thousands of readings while a job runs: always TOML, never empty, never a state that goes back."""
    serve(PaintedEngine())
    found: list[dict[str, Any]] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            files = (workspace.outputs / "mug_take01" / "status.toml", workspace.outputs / "status.toml")
            found.extend(tomllib.loads(file.read_text(encoding="utf-8")) for file in files if file.exists())

    thread = threading.Thread(target=read)
    thread.start()
    workspace.drop("mug.toml", f'prompt = "a mug"\nsteps = 2\ncount = 60\n{SMALL}')
    workspace.wait_for("mug_take01")
    stop.set()
    thread.join()
    done = [one["done"] for one in found if "done" in one]
    assert done == sorted(done)
    assert all(one["schema"] == 1 for one in found)
    assert any(one["state"] == "running" for one in found if "done" in one)


def test_the_last_status_of_a_daemon_says_that_it_stopped(workspace: Workspace, serve: Serve) -> None:
    served = serve()
    wait_until(lambda: workspace.daemon_status().get("state") == "running")
    served.stop()
    assert workspace.daemon_status()["state"] == "stopped"
    assert workspace.daemon_status()["running"] == []


def test_a_paused_daemon_says_so_and_its_jobs_stay_queued(workspace: Workspace, serve: Serve) -> None:
    (workspace.inbox / "pause").touch()
    serve()
    workspace.drop("mug.toml")
    workspace.wait_for("mug_take01", "queued")
    wait_until(lambda: workspace.daemon_status().get("state") == "paused")
    wait_until(lambda: workspace.daemon_status().get("counts") == {"queued": 1})
    assert workspace.daemon_status()["line"][0]["job"] == "mug_take01"
    (workspace.inbox / "pause").unlink()
    workspace.wait_for("mug_take01", "completed")
    wait_until(lambda: workspace.daemon_status().get("counts") == {"completed": 1})


def test_a_job_that_is_taken_up_again_is_counted_where_it_is(workspace: Workspace, serve: Serve) -> None:
    broken = threading.Event()
    broken.set()

    def fail(request: Request, step: int) -> None:
        if broken.is_set():
            raise RuntimeError("no")

    serve(PaintedEngine(before_step=fail))
    workspace.drop("mug.toml")
    workspace.wait_for("mug_take01", "failed")
    wait_until(lambda: workspace.daemon_status().get("counts") == {"failed": 1})
    broken.clear()
    (workspace.inbox / "mug.resume").touch()
    workspace.wait_for("mug_take01", "completed")
    wait_until(lambda: workspace.daemon_status().get("counts") == {"completed": 1})


def test_what_the_journal_says_is_what_the_status_says(workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.drop("mug.toml", f'prompt = "a mug"\nsteps = 2\ncount = 3\n{SMALL}')
    found = workspace.wait_for("mug_take01")
    ledger = journal.read(workspace.outputs / "mug_take01")
    assert (ledger.state.value, len(ledger.done), ledger.attempt) == (found["state"], found["done"], found["attempt"])
    lines = (workspace.outputs / "mug_take01" / journal.FILE_NAME).read_text().splitlines()
    assert [line.split('"event":"')[1].split('"')[0] for line in lines] == [
        Event.PENDING,
        Event.ADMITTED,
        Event.PLANNED,
        Event.STARTED,
        Event.DONE,
        Event.DONE,
        Event.DONE,
        Event.ENDED,
    ]
