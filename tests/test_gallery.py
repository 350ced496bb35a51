"""The history of jobs that ended: a cache, so that nothing is lost with it."""

import ctypes
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import samples
from clocks import NOON
from conftest import Serve, Workspace
from waiting import wait_until

from hotfolder import gallery, status
from hotfolder.gallery import Ended, Gallery, recent
from hotfolder.journal import Failure, Ledger, Origin, Output, State


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder


def ended(job: str, state: str = "completed", at: str = "2026-11-20T12:00:00.000Z", **more: str) -> Ended:
    return Ended(job=job, state=state, finished_at=at, **more)  # type: ignore[arg-type]  # texts only, as written here


def job_on_disk(outputs: Path, name: str, state: State) -> Ledger:
    """A job's folder with a status file that this program wrote."""
    ledger = Ledger(
        origin=Origin(file="x", size=1, mtime_ns=1, sha256="a"),
        queued_at=NOON,
        started_at=NOON,
        finished_at=NOON if state in {State.COMPLETED, State.FAILED} else None,
        state=state,
        plan_sha256="b" * 64,
    )
    if state is State.COMPLETED:
        output = Output(candidate=1, file=f"{name}_001.png", seed=1, sha256="", pixels_sha256="", seconds=1)
        ledger.done[1] = (output,)
    if state is State.FAILED:
        ledger.error = Failure(code="internal", message="no")
    (outputs / name).mkdir()
    plan = samples.plan(title="spring")
    status.write(outputs / name, status.job_status(name, ledger, plan), sync=False)
    return ledger


def test_the_newest_stand_first(cache: Path, outputs: Path) -> None:
    base = Gallery(cache, outputs)
    for number in (2, 1, 3):
        base.add(ended(f"j{number}_take01", at=f"2026-11-20T12:00:0{number}.000Z"))
    assert [one.job for one in base.newest(2)] == ["j3_take01", "j2_take01"]
    base.close()


def test_a_job_is_counted_once_where_it_is(cache: Path, outputs: Path) -> None:
    base = Gallery(cache, outputs)
    base.add(ended("a_take01", "failed"))
    base.add(ended("a_take01", "failed"))
    assert base.counts() == {"failed": 1}
    base.remove("a_take01")
    assert base.counts() == {}
    base.add(ended("a_take01", "completed"))
    base.add(ended("b_take01", "cancelled"))
    base.remove("never_take01")
    assert base.counts() == {"completed": 1, "cancelled": 1}
    base.close()
    again = Gallery(cache, outputs)
    assert again.counts() == {"completed": 1, "cancelled": 1}
    again.close()


def test_one_that_is_gone_is_made_again_from_the_status_files(cache: Path, outputs: Path) -> None:
    ledger = job_on_disk(outputs, "mug_take01", State.COMPLETED)
    job_on_disk(outputs, "bad_take01", State.FAILED)
    job_on_disk(outputs, "now_take01", State.RUNNING)
    (outputs / "odd_take01").mkdir()
    (outputs / "odd_take01" / status.FILE_NAME).write_bytes(b"\xff")
    (outputs / "mine").mkdir()
    base = Gallery(cache, outputs)
    rows = {one.job: one for one in base.newest(10)}
    base.close()
    assert rows["mug_take01"] == gallery.ended("mug_take01", ledger, samples.plan(title="spring"))
    assert rows["bad_take01"].error == "no"
    assert set(rows) == {"mug_take01", "bad_take01"}


@pytest.mark.parametrize("spoil", ["torn", "other", "newer", "empty"])
def test_one_that_is_spoiled_is_made_again(cache: Path, outputs: Path, spoil: str) -> None:
    job_on_disk(outputs, "mug_take01", State.COMPLETED)
    Gallery(cache, outputs).close()
    path = cache / "gallery.sqlite"
    match spoil:
        case "torn":
            path.write_bytes(path.read_bytes()[:3000])
        case "other":
            path.write_bytes(b"this is no database" * 100)
        case "newer":
            base = sqlite3.connect(path)
            base.execute("DROP TABLE jobs")
            base.execute("CREATE TABLE jobs (other)")
            base.execute("PRAGMA user_version = 99")
            base.close()
        case _:
            path.write_bytes(b"")
    again = Gallery(cache, outputs)
    assert [one.job for one in again.newest(10)] == ["mug_take01"]
    assert again.counts() == {"completed": 1}
    again.close()


def test_what_a_power_cut_took_of_it_is_read_from_the_status_files_again(cache: Path, outputs: Path) -> None:
    """The rows that were added last never reached the disk."""
    base = Gallery(cache, outputs, boot="first")
    on_disk = {path: path.read_bytes() for path in cache.iterdir()}
    job_on_disk(outputs, "mug_take01", State.COMPLETED)
    base.add(ended("mug_take01"))
    base.close()
    for path, data in on_disk.items():
        path.write_bytes(data)
    again = Gallery(cache, outputs, boot="second")
    assert [one.job for one in again.newest(10)] == ["mug_take01"]
    assert again.counts() == {"completed": 1}
    again.close()


@pytest.mark.parametrize(("closed", "boot"), [(False, "first"), (True, "first"), (True, "second")])
def test_nothing_is_read_again_after_a_kill_or_an_orderly_end(
    cache: Path, outputs: Path, closed: bool, boot: str
) -> None:
    """A start costs what is live, not what is finished."""
    base = Gallery(cache, outputs, boot="first")
    base.add(ended("only_in_the_index_take01"))
    if closed:
        base.close()
    again = Gallery(cache, outputs, boot=boot)
    assert again.counts() == {"completed": 1}
    again.close()
    base.close()


def test_any_process_may_ask_while_it_is_written(cache: Path, outputs: Path) -> None:
    base = Gallery(cache, outputs)
    stop = threading.Event()
    found: list[int] = []

    def ask() -> None:
        while not stop.is_set():
            found.append(len(recent(cache, outputs, 1000)))

    thread = threading.Thread(target=ask)
    thread.start()
    for number in range(300):
        base.add(ended(f"j{number}_take01"))
    stop.set()
    thread.join()
    base.close()
    assert found == sorted(found)
    assert len(recent(cache, outputs, 1000)) == 300


def test_asking_without_an_index_reads_the_status_files_and_writes_nothing(cache: Path, outputs: Path) -> None:
    job_on_disk(outputs, "mug_take01", State.COMPLETED)
    assert [one.job for one in recent(cache, outputs, 10)] == ["mug_take01"]
    assert not cache.exists()


class MallInfo(ctypes.Structure):
    """What glibc says of its memory; see mallinfo2(3)."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        ("uordblks", ctypes.c_size_t),
        *((name, ctypes.c_size_t) for name in ("fordblks", "keepcost")),
    )


@pytest.fixture
def allocated() -> Callable[[], int]:
    """Bytes that C code has allocated and not freed."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("needs glibc 2.33")
    libc.mallinfo2.restype = MallInfo
    return lambda: int(libc.mallinfo2().uordblks)


def test_thousands_of_jobs_take_no_memory(cache: Path, outputs: Path, allocated: Callable[[], int]) -> None:
    base = Gallery(cache, outputs)

    def add(begin: int, end: int) -> int:
        for number in range(begin, end):
            base.add(ended(f"mug-{number:06d}_take01", picture=f"mug-{number:06d}_take01_001.png"))
        return allocated()

    before = add(0, 1_000)
    assert add(1_000, 6_000) - before < 250_000
    base.close()


def test_the_history_survives_the_loss_of_the_cache(workspace: Workspace, serve: Serve) -> None:
    served = serve()
    for name in ("a", "b"):
        workspace.drop(f"{name}.toml")
        workspace.wait_for(f"{name}_take01", "completed")
    served.stop()
    before = recent(workspace.root / ".hotfolder", workspace.outputs, 10)
    for path in (workspace.root / ".hotfolder").glob("gallery*"):
        path.unlink()
    serve().stop()
    after = recent(workspace.root / ".hotfolder", workspace.outputs, 10)
    assert sorted(after, key=lambda one: one.job) == sorted(before, key=lambda one: one.job)
    assert workspace.daemon_status()["counts"] == {"completed": 2}


def test_an_index_that_is_spoiled_while_it_is_used_stops_no_job(workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.drop("a.toml")
    workspace.wait_for("a_take01", "completed")
    for path in (workspace.root / ".hotfolder").glob("gallery*"):
        path.write_bytes(b"\xa5" * path.stat().st_size)
    for name in ("b", "c"):
        workspace.drop(f"{name}.toml")
        assert workspace.wait_for(f"{name}_take01")["state"] == "completed"
    wait_until(lambda: workspace.daemon_status().get("counts", {"queued": 1}).get("queued", 0) == 0)
    assert workspace.daemon_status()["state"] == "running"
    assert (workspace.outputs / "c_take01" / "index.html").exists()
