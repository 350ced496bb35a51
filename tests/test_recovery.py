"""What a daemon leaves when it is killed, stopped or out of room, and what the next one makes of it."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
from conftest import Serve, SmallDisk, Spawn, Workspace
from listener import Listener
from oracle import check_promise, is_over, pixels
from painted import PaintedEngine
from processes import SERVED
from waiting import delete, wait_until

from hotfolder import journal
from hotfolder.engine import BrokenDevice, Request
from hotfolder.errors import SettingsError

SMALL = "width = 32\nheight = 16\n"


def job(seed: int, *, count: int = 4, steps: int = 6) -> str:
    return f'prompt = "a mug"\nseed = {seed}\ncount = {count}\nsteps = {steps}\n{SMALL}'


#: Four jobs with several candidates each.
FOUR = {
    "a_take01": job(10, count=5),
    "b_take01": job(20, count=3),
    "c_take01": job(30, count=6),
    "d_take01": job(40, count=4),
}


def drop(workspace: Workspace, jobs: Mapping[str, str]) -> None:
    for name, text in jobs.items():
        workspace.drop(f"{name.removesuffix('_take01')}.toml", text)


def undisturbed(folder: Path, jobs: Mapping[str, str]) -> dict[str, object]:
    """The pixels of a run of the same jobs that nothing disturbs."""
    workspace = Workspace(folder)
    drop(workspace, jobs)
    code = subprocess.run(
        [sys.executable, str(SERVED), str(folder), "--drain"],
        env={**workspace.variables(), "PATH": ""},
        capture_output=True,
        check=False,
    )
    assert code.returncode == 0, code.stderr
    return pixels(check_promise(workspace, jobs))


def test_jobs_survive_twelve_kills_at_random_moments_and_look_as_if_there_had_been_none(
    workspace: Workspace, spawn: Spawn, tmp_path: Path
) -> None:
    """Every job completes by itself, once, with the same pixels; `attempt` counts the processes that started it."""
    chance = random.Random(20261120)
    drop(workspace, FOUR)
    for _ in range(12):
        # From before it has begun to a few pictures later; where in a step, in a write or in a save, is chance.
        target = lines_written(workspace) + chance.randrange(7)
        process = spawn("--step-ms", "15")
        wait_until(partial(has_written, workspace, target), 60, process.log)
        process.kill()
    assert not is_over(workspace, FOUR), "the kills came while there was work"
    process = spawn("--step-ms", "1")
    wait_until(lambda: is_over(workspace, FOUR), 60, process.log)
    assert process.stop() == 0
    ledgers = check_promise(workspace, FOUR)
    assert pixels(ledgers) == undisturbed(tmp_path / "undisturbed", FOUR)
    attempts = [ledger.attempt for ledger in ledgers.values()]
    assert max(attempts) > 1
    assert sum(attempts) <= 4 + 12
    assert all(ledger.blamed == {} for ledger in ledgers.values()), "a kill blames nobody"


def lines_written(workspace: Workspace) -> int:
    """Lines of all journals together."""
    return sum(path.read_bytes().count(b"\n") for path in workspace.outputs.glob("*/journal.jsonl"))


def has_written(workspace: Workspace, lines: int) -> bool:
    return lines_written(workspace) >= lines


def test_the_attempt_is_the_number_of_processes_that_started_the_job(workspace: Workspace, spawn: Spawn) -> None:
    text = job(5, count=3, steps=40)
    workspace.drop("mug.toml", text)
    for attempt in (1, 2, 3):
        process = spawn("--step-ms", "25")
        wait_until(partial(is_attempt, workspace, attempt), 20, process.log)
        process.kill()
    spawn()
    assert workspace.wait_for("mug_take01")["attempt"] == 4


def is_attempt(workspace: Workspace, attempt: int) -> bool:
    return workspace.status("mug_take01").get("attempt") == attempt


@pytest.mark.timeout(240)
def test_a_burst_survives_kills_in_the_middle_of_its_admission(workspace: Workspace, spawn: Spawn) -> None:
    """300 drops, six kills: each is one take, and its text is whole."""
    chance = random.Random(7)
    jobs = {f"j{number:03d}_take01": job(number, count=1, steps=1) for number in range(300)}
    (workspace.inbox / "pause").touch()
    drop(workspace, jobs)
    for _ in range(6):
        target = len(workspace.jobs()) + chance.randrange(1, 48)
        process = spawn()
        wait_until(partial(has_folders, workspace, target), 60, process.log)
        process.kill()
    assert len(workspace.jobs()) < 300, "the kills came while drops were admitted"
    assert not any(workspace.status(name).get("attempt") for name in workspace.jobs()), "nothing starts in a pause"
    (workspace.inbox / "pause").unlink()
    process = spawn()
    wait_until(lambda: len(workspace.jobs()) == 300 and is_over(workspace, jobs), 120, process.log)
    assert process.stop() == 0
    check_promise(workspace, jobs)


def has_folders(workspace: Workspace, count: int) -> bool:
    """Whether so many jobs stand or are being built."""
    return len([name for name in os.listdir(workspace.outputs) if "_take" in name]) >= count


def test_sigterm_stops_within_one_step_and_puts_the_cell_back(workspace: Workspace, spawn: Spawn) -> None:
    text = job(5, count=2, steps=100)
    workspace.drop("mug.toml", text)
    process = spawn("--step-ms", "300").wait_until_ready()
    workspace.wait_for("mug_take01", "running")
    wait_until(lambda: workspace.status("mug_take01").get("progress", {}).get("step", 0) > 0)
    assert process.stop() == 0
    lines = [line for line in process.said.splitlines() if '"event": "stopped"' in line]
    assert any('"why": "shutdown"' in line for line in lines)
    found = workspace.status("mug_take01")
    assert (found["state"], found["done"], found["attempt"]) == ("queued", 0, 1)
    assert "progress" not in found
    assert workspace.daemon_status()["state"] == "stopped"
    assert list((workspace.outputs / "mug_take01").glob("*.png*")) == []
    process = spawn()
    assert workspace.wait_for("mug_take01")["attempt"] == 2
    assert process.stop() == 0
    check_promise(workspace, {"mug_take01": text})


def test_sigterm_while_idle_ends_at_once_with_zero(workspace: Workspace, spawn: Spawn) -> None:
    process = spawn().wait_until_ready()
    assert process.stop() == 0
    assert workspace.daemon_status()["state"] == "stopped"


@pytest.mark.parametrize("thread", ["main", "other"])
def test_a_second_sigterm_ends_at_once_and_loses_nothing(
    workspace: Workspace, spawn: Spawn, listener: Listener, thread: str
) -> None:
    """A step that hangs would keep the first one waiting.

    The kernel may give a signal to any thread, and then the main thread, which waits for that step, is not woken.
    """
    text = 'prompt = "deadly"\nsteps = 5\nseed = 1\n' + SMALL
    workspace.drop("mug.toml", text)
    process = spawn("--at", "3", "hang", environ={"NOTIFY_SOCKET": listener.address})
    workspace.wait_for("mug_take01", "running")
    process.send(signal.SIGTERM)
    listener.hear_until("STOPPING=1")
    assert process.runs
    if thread == "main":
        process.send(signal.SIGTERM)
    else:
        process.send_to_another_thread(signal.SIGTERM)
    assert process.join() == 128 + signal.SIGTERM
    process = spawn()
    assert workspace.wait_for("mug_take01")["state"] == "completed"
    assert process.stop() == 0
    check_promise(workspace, {"mug_take01": text})


def test_sigint_stops_as_sigterm_does(workspace: Workspace, spawn: Spawn) -> None:
    process = spawn().wait_until_ready()
    process.send(signal.SIGINT)
    assert process.join() == 0


def test_the_second_daemon_is_refused_and_told_who_has_the_workspace(
    workspace: Workspace, spawn: Spawn, serve: Serve
) -> None:
    process = spawn().wait_until_ready()
    with pytest.raises(SettingsError) as refused:
        serve().join()
    assert refused.value.code == "workspace-busy"
    assert f"process {process.pid} on {socket.gethostname()}" in refused.value.message
    workspace.drop("mug.toml")
    assert workspace.wait_for("mug_take01")["state"] == "completed"
    assert process.stop() == 0
    assert workspace.jobs() == ["mug_take01"]


def test_a_broken_device_ends_the_process_with_the_queue_safe(workspace: Workspace, serve: Serve) -> None:
    jobs = {"a_take01": job(1), "b_take01": job(2), "c_take01": job(3)}

    def break_at(request: Request, step: int) -> None:
        if request.seed == 3 and step == 2:
            raise BrokenDevice("CUDA error: an illegal memory access was encountered")

    drop(workspace, jobs)
    assert serve(PaintedEngine(before_step=break_at)).join() == 1
    assert workspace.daemon_status()["state"] == "stopped"
    assert workspace.state("a_take01") == "queued"
    served = serve()
    wait_until(lambda: is_over(workspace, jobs))
    assert served.stop() == 0
    ledgers = check_promise(workspace, jobs)
    assert ledgers["a_take01"].blamed == {3: 1}


def test_a_full_disk_loses_nothing_and_goes_on_when_there_is_room(small_disk: SmallDisk, spawn: Spawn) -> None:
    """Full in the middle of a job: no picture without its sidecar, no half file, no job lost; room, and it goes on."""
    disk = small_disk(3000)
    on_disk = Workspace(disk / "work")
    ballast = disk / "ballast"
    jobs = {"a_take01": job(1, count=30), "b_take01": job(2, count=2)}
    process = spawn("--step-ms", "25", on=on_disk)
    drop(on_disk, {"a_take01": jobs["a_take01"]})
    wait_until(lambda: on_disk.status("a_take01").get("done", 0) >= 3, 30, process.log)
    fill(ballast)
    wait_until(lambda: "disk full" in process.said or "No space" in process.said, 30, process.log)
    done = len(list((on_disk.outputs / "a_take01").glob("*.png.toml")))
    assert done < 30
    assert process.runs
    ballast.unlink()
    drop(on_disk, {"b_take01": jobs["b_take01"]})
    wait_until(lambda: is_over(on_disk, jobs), 60, process.log)
    assert process.stop() == 0
    check_promise(on_disk, jobs)


@pytest.mark.parametrize("room_kb", [0, 4, 12, 20, 28, 40])
def test_wherever_the_disk_fills_up_nothing_is_lost(small_disk: SmallDisk, spawn: Spawn, room_kb: int) -> None:
    """Room for a part of a job, its admission included; then the rest."""
    disk = small_disk(4000)
    on_disk = Workspace(disk / "work")
    ballast = disk / "ballast"
    process = spawn("--step-ms", "5", on=on_disk)
    wait_until(lambda: on_disk.daemon_status().get("state") == "running", 30, process.log)
    drop(on_disk, {"a_take01": job(1, count=3)})
    fill(ballast, leave_kb=room_kb)
    wait_until(lambda: is_over(on_disk, {"a_take01": ""}) or "No space" in process.said, 30, process.log)
    assert process.runs
    ballast.unlink()
    wait_until(lambda: is_over(on_disk, {"a_take01": ""}), 60, process.log)
    assert process.stop() == 0
    check_promise(on_disk, {"a_take01": job(1, count=3)})


def test_a_daemon_that_starts_on_a_full_disk_waits_for_room(small_disk: SmallDisk, spawn: Spawn) -> None:
    disk = small_disk(4000)
    on_disk = Workspace(disk / "work")
    ballast = disk / "ballast"
    jobs = {"a_take01": job(1, count=3)}
    process = spawn("--step-ms", "5", on=on_disk)
    drop(on_disk, jobs)
    wait_until(lambda: on_disk.status("a_take01").get("done", 0) >= 1, 30, process.log)
    process.kill()
    fill(ballast)
    process = spawn("--step-ms", "5", on=on_disk)
    wait_until(lambda: process.said.count('"event": "serving"') == 2, 30, process.log)
    assert process.runs, process.log
    ballast.unlink()
    wait_until(lambda: is_over(on_disk, jobs), 60, process.log)
    assert process.stop() == 0
    check_promise(on_disk, jobs)


def fill(path: Path, *, leave_kb: int = 0) -> None:
    """Fill the disk up to the last byte, then make so much room again."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - leave_kb * 1024))


def test_live_markers_may_be_deleted_between_two_runs(workspace: Workspace, spawn: Spawn) -> None:
    text = job(5, count=3, steps=40)
    workspace.drop("mug.toml", text)
    process = spawn("--step-ms", "25")
    workspace.wait_for("mug_take01", "running")
    process.kill()
    for path in sorted((workspace.root / ".hotfolder").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    process = spawn()
    assert workspace.wait_for("mug_take01")["state"] == "completed"
    assert process.stop() == 0
    check_promise(workspace, {"mug_take01": text})


def test_a_journal_that_was_lost_in_the_crash_is_made_again_from_the_pictures(
    workspace: Workspace, spawn: Spawn, tmp_path: Path
) -> None:
    jobs = {"mug_take01": job(5, count=4, steps=20)}
    drop(workspace, jobs)
    process = spawn("--step-ms", "15")
    wait_until(lambda: workspace.status("mug_take01").get("done", 0) >= 2, 30, process.log)
    process.kill()
    (workspace.outputs / "mug_take01" / journal.FILE_NAME).unlink()
    made = sorted((workspace.outputs / "mug_take01").glob("*.png"))
    times = [path.stat().st_mtime_ns for path in made[:2]]
    process = spawn()
    found = workspace.wait_for("mug_take01")
    assert (found["state"], found["done"]) == ("completed", 4)
    assert "made again" in found["notices"][0]["text"]
    assert [path.stat().st_mtime_ns for path in made[:2]] == times, "what was finished is not made again"
    assert process.stop() == 0
    assert pixels(check_promise(workspace, jobs)) == undisturbed(tmp_path / "undisturbed", jobs)


def test_a_half_picture_of_a_job_that_is_cancelled_after_the_crash_goes(workspace: Workspace, spawn: Spawn) -> None:
    """A picture whose sidecar was not written any more is no result."""
    workspace.drop("mug.toml", job(5, count=3, steps=40))
    process = spawn("--step-ms", "25")
    workspace.wait_for("mug_take01", "running")
    process.kill()
    folder = workspace.outputs / "mug_take01"
    (folder / "mug_take01_003.png").write_bytes(b"half")
    (workspace.inbox / "mug.cancel").touch()
    process = spawn("--step-ms", "25")
    workspace.wait_for("mug_take01", "cancelled")
    assert process.stop() == 0
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures == {path.name.removesuffix(".toml") for path in folder.glob("*.png.toml")}
    assert "mug_take01_003.png" not in pictures


def test_what_a_power_cut_brings_back_of_ended_jobs_goes(workspace: Workspace, serve: Serve) -> None:
    """Removals that were not flushed; of a job that is not known, a source is all there is, and stays."""
    text = job(5, count=1)
    workspace.drop("mug.toml", text, lane="big")
    served = serve()
    workspace.wait_for("mug_take01")
    served.stop()
    workspace.drop(".hotfolder-mug_take01.taking", text, lane="big")
    workspace.drop(".hotfolder-cup_take01.taking", text)
    (workspace.outputs / ".mug.active.toml.tmp").write_text("half")
    served = serve()
    wait_until(lambda: workspace.daemon_status().get("state") == "running")
    served.stop()
    check_promise(workspace, {"mug_take01": text}, inbox=(".hotfolder-cup_take01.taking",))


def test_a_source_that_a_power_cut_leaves_both_its_names_is_no_new_drop(workspace: Workspace, spawn: Spawn) -> None:
    """On some file systems the new name of a renamed file may reach the disk without the loss of the old one."""
    (workspace.inbox / "pause").touch()
    text = job(5, count=1)
    dropped = workspace.drop("mug.toml", text).stat()
    process = spawn()
    journal_file = workspace.outputs / "mug_take01" / journal.FILE_NAME
    wait_until(lambda: journal_file.exists() and journal.read(journal_file.parent).admitted, 20, process.log)
    process.kill()
    # Only the first line was flushed by then.
    journal_file.write_bytes(journal_file.read_bytes().splitlines(keepends=True)[0])
    source = workspace.drop(".hotfolder-mug_take01.taking", text)
    os.utime(source, ns=(dropped.st_mtime_ns, dropped.st_mtime_ns))
    (workspace.inbox / "mug.toml").hardlink_to(source)
    (workspace.inbox / "pause").unlink()
    process = spawn()
    wait_until(lambda: is_over(workspace, {"mug_take01": text}), 20, process.log)
    assert process.stop() == 0
    check_promise(workspace, {"mug_take01": text})


def test_an_end_that_was_noted_but_not_shown_is_shown_though_the_markers_are_lost(
    workspace: Workspace, serve: Serve
) -> None:
    text = job(5, count=1)
    workspace.drop("mug.toml", text)
    served = serve()
    workspace.wait_for("mug_take01")
    served.stop()
    (workspace.outputs / "mug_take01" / "status.toml").write_bytes(b"")
    delete(workspace.root / ".hotfolder")
    served = serve()
    wait_until(lambda: workspace.daemon_status().get("state") == "running")
    served.stop()
    check_promise(workspace, {"mug_take01": text})


def test_outputs_that_go_away_and_come_back_cost_no_job(workspace: Workspace, serve: Serve) -> None:
    """A disk that is unmounted for a while: gone is not deleted."""
    go = threading.Event()

    def hold(request: Request, step: int) -> None:
        assert go.wait(30)

    jobs = {"a_take01": job(1, count=2), "b_take01": job(2, count=2)}
    served = serve(PaintedEngine(before_step=hold))
    drop(workspace, jobs)
    workspace.wait_for("a_take01", "running")
    workspace.wait_for("b_take01", "queued")
    away = workspace.outputs.rename(workspace.root / "away")
    go.set()
    workspace.outputs.mkdir()
    wait_until((workspace.outputs / "status.toml").exists, 20, "another outputs/ is noticed")
    delete(workspace.outputs)
    away.rename(workspace.outputs)
    wait_until(lambda: is_over(workspace, jobs), 30)
    assert served.stop() == 0
    check_promise(workspace, jobs)


def test_a_drain_ends_when_all_is_done_however_seldom_the_inbox_is_scanned(workspace: Workspace, serve: Serve) -> None:
    jobs = {"a_take01": job(1, count=2)}
    drop(workspace, jobs)
    assert serve(env={"INBOX_SCAN_S": "100"}, drain=True).join(30) == 0
    check_promise(workspace, jobs)
