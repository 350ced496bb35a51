"""What systemd is told, heard on a real socket."""

import signal
from pathlib import Path

from conftest import Spawn, Workspace
from listener import Listener

from hotfolder.notify import Notifier


def test_nothing_happens_without_systemd() -> None:
    Notifier({}).send("READY=1")


def test_a_socket_that_is_gone_is_no_reason_to_stop(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).send("READY=1")


def test_lines_arrive_as_one_datagram(listener: Listener) -> None:
    Notifier({"NOTIFY_SOCKET": listener.address}).send("READY=1", "STATUS=serving")
    assert listener.hear() == ["READY=1", "STATUS=serving"]


def test_an_abstract_address_is_understood() -> None:
    listener = Listener("@hotfolder-test-notify")
    Notifier({"NOTIFY_SOCKET": listener.address}).send("WATCHDOG=1")
    assert listener.hear() == ["WATCHDOG=1"]
    listener.close()


def test_the_watchdog_time_is_read_in_seconds() -> None:
    assert Notifier({"WATCHDOG_USEC": "90000000"}).watchdog_s == 90
    assert Notifier({"WATCHDOG_USEC": "soon"}).watchdog_s is None


def test_a_daemon_says_that_it_is_ready_alive_and_stopping_in_this_order(spawn: Spawn, listener: Listener) -> None:
    process = spawn(environ={"NOTIFY_SOCKET": listener.address})
    assert listener.hear() == ["READY=1", "STATUS=serving"]
    listener.hear_until("WATCHDOG=1")
    process.send(signal.SIGTERM)
    assert "READY=1" not in listener.hear_until("STOPPING=1")
    assert process.join() == 0


def test_a_daemon_that_hangs_is_not_called_alive_for_ever(
    workspace: Workspace, spawn: Spawn, listener: Listener
) -> None:
    """It ends itself at its own deadline, with the queue safe, and says so to whoever starts it again."""
    workspace.drop("mug.toml", 'prompt = "deadly"\nsteps = 3\nwidth = 16\nheight = 16\n')
    process = spawn(
        "--at", "2", "hang", env={"WORKER_STEP_DEADLINE_S": "1"}, environ={"NOTIFY_SOCKET": listener.address}
    )
    assert process.join() == 70
    spawn()
    assert workspace.wait_for("mug_take01")["state"] == "completed"
