"""Ten thousand job files at once: none is lost, none is doubled, and meanwhile the daemon does what it is told.

On a file system in memory where there is one: what is counted here is jobs, not the flushes of this machine's disk.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Served, Workspace
from painted import PaintedEngine
from processes import Process
from waiting import wait_until

from hotfolder import journal
from hotfolder.engine import Request

MANY = 10_000
_MEMORY = Path("/dev/shm")


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace for tens of thousands of files, gone after the test."""
    in_memory = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 2e9
    folder = Path(tempfile.mkdtemp(prefix="hotfolder-", dir=_MEMORY if in_memory else tmp_path))
    yield Workspace(folder / "work")
    shutil.rmtree(folder)


def text_of(number: int) -> str:
    return f'prompt = "mug {number}"\nseed = {number}\nsteps = 1\nwidth = 16\nheight = 16\n'


def elsewhere(folder: Path) -> dict[str, str]:
    """Settings: a daemon in this process leaves the folder of its models in the environment, and the next makes it."""
    return {"MODELS_DIR": str(folder / "models")}


def rename_in(inbox: Path, name: str, text: str) -> None:
    """As careful writers do."""
    beside = inbox / f".{name}.tmp"
    beside.write_text(text)
    beside.rename(inbox / name)


def write_plainly(inbox: Path, name: str, text: str) -> None:
    """As `printf > file` does."""
    (inbox / name).write_text(text)


def job_files(workspace: Workspace) -> list[str]:
    return [name for name in os.listdir(workspace.inbox) if name.endswith((".toml", ".taking"))]


def queued(workspace: Workspace) -> int:
    return int(workspace.daemon_status().get("counts", {}).get("queued", 0))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("write", "events"),
    [(rename_in, "true"), (write_plainly, "true"), (write_plainly, "false")],
    ids=["tmp and rename", "plain writes", "plain writes, no events"],
)
def test_ten_thousand_drops_are_ten_thousand_jobs(
    roomy: Workspace, tmp_path: Path, write: Callable[[Path, str, str], None], events: str
) -> None:
    (roomy.inbox / "pause").touch()
    process = Process(roomy, log_file=tmp_path / "serve.log", env={"INBOX_EVENTS": events})
    try:
        process.wait_until_ready()
        for number in range(MANY):
            write(roomy.inbox, f"j{number:05d}.toml", text_of(number))
        wait_until(lambda: queued(roomy) == MANY, 500, "all are in the line")
        threads, memory_kb = size_of(process)
        assert process.stop() == 0
    finally:
        process.kill()
    assert job_files(roomy) == []
    assert roomy.jobs() == [f"j{number:05d}_take01" for number in range(MANY)]
    for number in range(MANY):
        folder = roomy.outputs / f"j{number:05d}_take01"
        assert (folder / "job.toml").read_text() == text_of(number)
        lines = journal.lines((folder / journal.FILE_NAME).read_bytes())
        assert [line["event"] for line in lines][:2] == ["pending", "admitted"]
    print(f"{memory_kb / 1024:.0f} MB and {threads} threads with {MANY} jobs in the line")
    assert threads <= 12
    assert memory_kb / MANY < 40, "kB of the whole process for each job in the line"


def size_of(process: Process) -> tuple[int, int]:
    """Return threads and resident kB of a process."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    found = {key: value for key, _, value in (line.partition(":") for line in lines)}
    return int(found["Threads"]), int(found["VmRSS"].split()[0])


@pytest.mark.timeout(300)
def test_a_thousand_drops_are_made_to_the_end_once_each(roomy: Workspace, tmp_path: Path) -> None:
    engine = PaintedEngine()
    served = Served(roomy.settings(**elsewhere(tmp_path)), engine)
    try:
        for number in range(1000):
            rename_in(roomy.inbox, f"j{number:04d}.toml", text_of(number))
        wait_until(lambda: roomy.daemon_status().get("counts") == {"completed": 1000}, 200, "all are completed")
    finally:
        assert served.stop() == 0
    assert sorted(request.seed for request in engine.made) == list(range(1000))
    for number in range(1000):
        folder = roomy.outputs / f"j{number:04d}_take01"
        assert {path.name for path in folder.glob("*.png*")} == {
            f"{folder.name}_001.png",
            f"{folder.name}_001.png.toml",
        }
        events = [line["event"] for line in journal.lines((folder / journal.FILE_NAME).read_bytes())]
        assert events == ["pending", "admitted", "planned", "started", "done", "ended"]


@pytest.mark.timeout(300)
def test_jobs_of_a_burst_are_made_in_the_order_of_their_times(roomy: Workspace, tmp_path: Path) -> None:
    """Not in the order in which a folder happens to list them."""
    engine = PaintedEngine()
    (roomy.root / "burst").mkdir()
    for number in range(300):
        path = roomy.root / "burst" / f"j{number * 7919 % 300:03d}.toml"
        path.write_text(text_of(number))
        os.utime(path, ns=(number * 1_000_000, number * 1_000_000))
    served = Served(roomy.settings(**elsewhere(tmp_path)), engine)
    try:
        (roomy.root / "burst").rename(roomy.inbox / "burst")
        wait_until(lambda: len(engine.made) == 300, 100, "all are made")
    finally:
        served.stop()
    assert [request.seed for request in engine.made] == list(range(300))


@pytest.mark.timeout(300)
def test_a_cancel_in_the_middle_of_a_burst_acts_at_sight(roomy: Workspace, tmp_path: Path) -> None:
    """It does not wait until thousands of drops are admitted."""
    let_go = threading.Event()

    def slowly(request: Request, step: int) -> None:
        let_go.wait(0.01)

    served = Served(roomy.settings(**elsewhere(tmp_path)), PaintedEngine(before_step=slowly))
    try:
        roomy.drop("mug.toml", 'prompt = "a mug"\nsteps = 1000\ncount = 100\nwidth = 16\nheight = 16\n')
        roomy.wait_for("mug_take01", "running")
        (roomy.root / "burst").mkdir()
        for number in range(5000):
            (roomy.root / "burst" / f"j{number:04d}.toml").write_text(text_of(number))
        (roomy.root / "burst").rename(roomy.inbox / "burst")
        wait_until(lambda: len(roomy.jobs()) > 1, 60, "the burst is being admitted")
        (roomy.inbox / "mug.cancel").touch()
        (roomy.inbox / "pause").touch()
        roomy.wait_for("mug_take01", "cancelled")
        left = len(os.listdir(roomy.inbox / "burst"))
        print(f"{left} of 5000 drops were still to be admitted")
        assert left > 1000
    finally:
        let_go.set()
        served.stop()
