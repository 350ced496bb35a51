"""The daemon is stopped for seconds (SIGSTOP), in the middle of whatever it does, and goes on."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clocks import SetClock
from conftest import Spawn, Workspace
from processes import Process
from waiting import wait_until

from hotfolder.worker import Silence

#: Longer than a step may take by the settings below.
STOPPED_S = 2.5
DEADLINES = {"WORKER_STEP_DEADLINE_S": "2", "WORKER_LOAD_DEADLINE_S": "2"}
SMALL = "width = 16\nheight = 16\n"


def test_silence_grows_until_a_sign_is_given() -> None:
    clock = SetClock()
    silence = Silence(clock)
    found = [silence.look("step 1")]
    for _ in range(3):
        clock.turn(0.5)
        found.append(silence.look("step 1"))
    clock.turn(0.5)
    found.append(silence.look("step 2"))
    assert found == [0.0, 0.5, 1.0, 1.5, 0.0]


def test_time_in_which_nobody_could_look_either_is_no_silence() -> None:
    clock = SetClock()
    silence = Silence(clock)
    silence.look("step 1")
    clock.turn(3600)
    assert silence.look("step 1") <= 1.0


@contextmanager
def stopped(process: Process, seconds: float) -> Iterator[None]:
    """Stop a process for at least so long; then it goes on."""
    process.send(signal.SIGSTOP)
    try:
        wait_until(lambda: state_of(process) == "T", what="it is stopped")
        until = time.monotonic() + seconds
        yield
        wait_until(lambda: time.monotonic() >= until)
    finally:
        process.send(signal.SIGCONT)


def state_of(process: Process) -> str:
    """Return what the kernel says a process does."""
    return Path(f"/proc/{process.pid}/stat").read_text(errors="replace").rpartition(") ")[2][0]


def test_a_daemon_that_was_stopped_for_longer_than_a_step_may_take_does_not_hang(
    workspace: Workspace, spawn: Spawn
) -> None:
    process = spawn("--step-ms", "300", env=DEADLINES).wait_until_ready()
    workspace.drop("mug.toml", f'prompt = "a mug"\nsteps = 4\n{SMALL}')
    workspace.wait_for("mug_take01", "running")
    with stopped(process, STOPPED_S):
        pass
    status = workspace.wait_for("mug_take01", timeout_s=60)
    assert (status["state"], status["attempt"]) == ("completed", 1)
    assert process.runs


def test_a_burst_in_the_middle_of_which_the_daemon_is_stopped_is_taken_whole(
    workspace: Workspace, spawn: Spawn
) -> None:
    process = spawn(env=DEADLINES).wait_until_ready()
    jobs = [f"j{number:03d}" for number in range(90)]

    def drop(some: list[str]) -> None:
        for job in some:
            workspace.drop(f"{job}.toml", f'prompt = "{job}"\nsteps = 1\n{SMALL}')

    drop(jobs[:30])
    wait_until(workspace.jobs, what="the first are taken")
    with stopped(process, STOPPED_S):
        drop(jobs[30:60])
    drop(jobs[60:])
    wait_until(lambda: workspace.daemon_status().get("counts") == {"completed": len(jobs)}, 60, "all are completed")
    takes = [f"{job}_take01" for job in jobs]
    assert workspace.jobs() == takes
    assert {workspace.status(take)["attempt"] for take in takes} == {1}
    assert process.stop() == 0
