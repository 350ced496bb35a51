"""One daemon per workspace: who comes second is told who has it, and a dead one has nothing."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hotfolder.errors import SettingsError
from hotfolder.lock import FILE_NAME, Holder, Lock, holder

SINCE = "2026-11-20T12:00:00.000Z"
#: Holds the workspace named on its command line until it is ended.
HOLD = f"""
import sys, threading
from pathlib import Path
from hotfolder.lock import Lock
lock = Lock(Path(sys.argv[1]), mode="direct", started_at="{SINCE}")
print("held", flush=True)
threading.Event().wait()
"""
#: Asks who has the workspace, as often as it can.
ASK = """
import sys
from pathlib import Path
from hotfolder.lock import holder
print("asking", flush=True)
while True:
    holder(Path(sys.argv[1]))
"""


def another_process(workspace: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(workspace)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    process.communicate(timeout=20)


def test_the_second_is_refused_and_told_who_has_the_workspace(tmp_path: Path) -> None:
    process = another_process(tmp_path)
    with pytest.raises(SettingsError) as refused:
        Lock(tmp_path, mode="queued", started_at=SINCE)
    end(process, signal.SIGTERM)
    assert refused.value.code == "workspace-busy"
    assert f"process {process.pid} on {socket.gethostname()} since {SINCE}" in refused.value.message
    assert str(tmp_path) in refused.value.message


def test_who_asks_is_told_and_takes_nothing(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with Lock(tmp_path, mode="queued", started_at=SINCE):
        assert holder(tmp_path) == Holder(pid=os.getpid(), host=socket.gethostname(), mode="queued", started_at=SINCE)
    assert holder(tmp_path) is None
    with Lock(tmp_path, mode="queued", started_at=SINCE):
        pass


def test_a_process_that_was_killed_has_nothing_though_its_name_stands_in_the_file(tmp_path: Path) -> None:
    process = another_process(tmp_path)
    end(process, signal.SIGKILL)
    assert str(process.pid) in (tmp_path / FILE_NAME).read_text()
    assert holder(tmp_path) is None
    with Lock(tmp_path, mode="queued", started_at=SINCE):
        found = holder(tmp_path)
        assert found is not None
        assert found.pid == os.getpid()


def test_the_file_stays_when_the_workspace_is_given_back(tmp_path: Path) -> None:
    """Were it removed, one could lock the old file and another a new one."""
    with Lock(tmp_path, mode="queued", started_at=SINCE):
        inode = (tmp_path / FILE_NAME).stat().st_ino
    assert (tmp_path / FILE_NAME).stat().st_ino == inode


def test_the_lock_lies_outside_the_cache_that_may_be_deleted(tmp_path: Path) -> None:
    with Lock(tmp_path, mode="queued", started_at=SINCE):
        assert (tmp_path / FILE_NAME).parent == tmp_path


@pytest.mark.parametrize(
    "text", ["", "pid = ", "pid = 1\n", "\udcff", "pid = 1\nhost = 'x'\nmode = 'queued'\nwho = 1\n"]
)
def test_a_file_that_says_nothing_of_use_is_no_reason_to_fail(tmp_path: Path, text: str) -> None:
    with Lock(tmp_path, mode="queued", started_at=SINCE):
        (tmp_path / FILE_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
        found = holder(tmp_path)
        assert found is not None
        with pytest.raises(SettingsError, match="another process"):
            Lock(tmp_path, mode="queued", started_at=SINCE)


def test_asking_all_the_time_who_has_it_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    """Pages that ask every moment must not make a daemon believe that another one is there."""
    with Lock(tmp_path, mode="queued", started_at=SINCE):
        pass
    askers = [subprocess.Popen([sys.executable, "-c", ASK, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(2)]
    for asker in askers:
        assert asker.stdout is not None
        asker.stdout.readline()
    try:
        for _ in range(10_000):
            with Lock(tmp_path, mode="queued", started_at=SINCE):
                pass
    finally:
        for asker in askers:
            asker.kill()
            asker.communicate()
