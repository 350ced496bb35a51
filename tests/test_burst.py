"""Thousands of job files at once: none is lost, none is doubled, and meanwhile the daemon does what it is told.

On a file system in memory where there is one: what is counted here is jobs, not the flushes of this machine's disk.
"""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Served, Workspace
from painted import PaintedEngine
from processes import Process
from waiting import wait_until

from hotfolder import journal
from hotfolder.engine import Request

#: LOAD=full drops as many as a busy night; by default it is a sample.
FULL = os.environ.get("LOAD") == "full"
MANY = 50_000 if FULL else 1_000
TO_THE_END = 1_000 if FULL else 150
ORDERED = 300 if FULL else 60
BEHIND_A_CANCEL = 5_000 if FULL else 3_000
EACH_WRITER = 2_500 if FULL else 60


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


@pytest.mark.timeout(3600 if FULL else 300)
@pytest.mark.parametrize(
    ("write", "events"),
    [(rename_in, "true"), (write_plainly, "true"), (write_plainly, "false")],
    ids=["tmp and rename", "plain writes", "plain writes, no events"],
)
def test_as_many_drops_are_as_many_jobs(
    roomy: Workspace, tmp_path: Path, write: Callable[[Path, str, str], None], events: str
) -> None:
    (roomy.inbox / "pause").touch()
    process = Process(roomy, log_file=tmp_path / "serve.log", env={"INBOX_EVENTS": events})
    try:
        process.wait_until_ready()
        for number in range(MANY):
            write(roomy.inbox, f"j{number:05d}.toml", text_of(number))
        wait_until(lambda: queued(roomy) == MANY, 1800 if FULL else 200, "all are in the line")
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
    assert memory_kb < 100_000 + 12 * MANY, "kB of the whole process"


def size_of(process: Process) -> tuple[int, int]:
    """Return threads and resident kB of a process."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    found = {key: value for key, _, value in (line.partition(":") for line in lines)}
    return int(found["Threads"]), int(found["VmRSS"].split()[0])


@pytest.mark.timeout(300)
def test_drops_are_made_to_the_end_once_each(roomy: Workspace, tmp_path: Path) -> None:
    engine = PaintedEngine()
    served = Served(roomy.settings(**elsewhere(tmp_path)), engine)
    try:
        for number in range(TO_THE_END):
            rename_in(roomy.inbox, f"j{number:04d}.toml", text_of(number))
        wait_until(lambda: roomy.daemon_status().get("counts") == {"completed": TO_THE_END}, 200, "all are completed")
    finally:
        assert served.stop() == 0
    assert sorted(request.seed for request in engine.made) == list(range(TO_THE_END))
    for number in range(TO_THE_END):
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
    for number in range(ORDERED):
        path = roomy.root / "burst" / f"j{number * 7919 % ORDERED:03d}.toml"
        path.write_text(text_of(number))
        os.utime(path, ns=(number * 1_000_000, number * 1_000_000))
    served = Served(roomy.settings(**elsewhere(tmp_path)), engine)
    try:
        (roomy.root / "burst").rename(roomy.inbox / "burst")
        wait_until(lambda: len(engine.made) == ORDERED, 100, "all are made")
    finally:
        served.stop()
    assert [request.seed for request in engine.made] == list(range(ORDERED))


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
        for number in range(BEHIND_A_CANCEL):
            (roomy.root / "burst" / f"j{number:04d}.toml").write_text(text_of(number))
        (roomy.root / "burst").rename(roomy.inbox / "burst")
        wait_until(lambda: len(roomy.jobs()) > 1, 60, "the burst is being admitted")
        (roomy.inbox / "mug.cancel").touch()
        (roomy.inbox / "pause").touch()
        roomy.wait_for("mug_take01", "cancelled")
        left = len(os.listdir(roomy.inbox / "burst"))
        print(f"{left} of {BEHIND_A_CANCEL} drops were still to be admitted")
        assert left > BEHIND_A_CANCEL / 5
    finally:
        let_go.set()
        served.stop()


# --- four at once ---

#: Drops under names of its own and under names that all use, as fast as it can; prints when each shared one was named.
_WRITER = """
import json, os, sys, time
inbox, who, count, shared = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
named = []
def drop(name, seed):
    beside = f"{inbox}/.{who}-{seed}.tmp"
    with open(beside, "w") as file:
        file.write(f'prompt = "{who}"\\nseed = {seed}\\nsteps = 1\\nwidth = 16\\nheight = 16\\n')
    before = time.monotonic_ns()
    os.rename(beside, f"{inbox}/{name}.toml")
    return before, time.monotonic_ns()
for number in range(count):
    drop(f"{who}-{number}", number)
    name = f"shared-{number % shared}"
    named.append([name, count + number, *drop(name, count + number)])
print(json.dumps(named))
"""


@dataclass(frozen=True, kw_only=True, order=True)
class Named:
    """A drop under a shared name got it between two moments."""

    before: int
    after: int
    who: str
    seed: int


@pytest.mark.timeout(1800 if FULL else 300)
def test_of_four_who_write_at_once_nothing_is_lost(roomy: Workspace, tmp_path: Path) -> None:
    """What they drop under one name becomes takes in the order in which it got it, or was overwritten before."""
    (roomy.inbox / "pause").touch()
    process = Process(roomy, log_file=tmp_path / "serve.log").wait_until_ready()
    shared_names = 5
    try:
        shared = write_at_once(roomy, ("ada", "bob", "cyd", "dee"), EACH_WRITER, shared_names)
        wait_until(lambda: not job_files(roomy), 600, "all are taken")
        wait_until(lambda: queued(roomy) == len(roomy.jobs()), 600, "all are in the line")
        assert process.stop() == 0
    finally:
        process.kill()
    jobs = set(roomy.jobs())
    for who in ("ada", "bob", "cyd", "dee"):
        own = {f"{who}-{number}_take01" for number in range(EACH_WRITER)}
        assert own <= jobs, "what has a name of its own is one job"
        jobs -= own
    for name, drops in shared.items():
        takes = [f"{name}_take{number:02d}" for number in range(1, len(drops) + 1)]
        standing = [take for take in takes if take in jobs]
        assert standing == takes[: len(standing)], "takes are numbered one by one"
        # Where a name gets two others between being read and taken away, the older of them is laid beside: NAME-2.
        beside = [job for job in sorted(jobs) if job.rpartition("_")[0].rpartition("-")[0] == name]
        jobs -= {*standing, *beside}
        texts, older = ([(roomy.outputs / job / "job.toml").read_text() for job in some] for some in (standing, beside))
        check_order(texts, drops)
        assert len({*texts, *older}) == len(texts) + len(older), "each is there once"
        assert set(older) <= {text_from(drop) for drop in drops}
    assert jobs == set(), "and nothing else"


def write_at_once(workspace: Workspace, who: tuple[str, ...], count: int, shared: int) -> dict[str, list[Named]]:
    """Let them all write, each in a process of its own; return what got each shared name."""
    command = [sys.executable, "-c", _WRITER, str(workspace.inbox)]
    writers = [
        subprocess.Popen([*command, one, str(count), str(shared)], stdout=subprocess.PIPE, text=True) for one in who
    ]
    found: dict[str, list[Named]] = defaultdict(list)
    for one, writer in zip(who, writers, strict=True):
        out, _ = writer.communicate(timeout=600)
        assert writer.returncode == 0
        for name, seed, before, after in json.loads(out):
            found[name].append(Named(before=before, after=after, who=one, seed=seed))
    return found


def text_from(drop: Named) -> str:
    return f'prompt = "{drop.who}"\nseed = {drop.seed}\nsteps = 1\nwidth = 16\nheight = 16\n'


def check_order(texts: list[str], drops: list[Named]) -> None:
    """Check takes of one name, in their order, against who got the name when."""
    by_text = {text_from(drop): drop for drop in drops}
    ran = [by_text[text] for text in texts]
    assert len(set(ran)) == len(ran), "none ran twice"
    for earlier, later in itertools.pairwise(ran):
        assert earlier.before < later.after, "in the order of the file system"
    last_began = max(drop.before for drop in drops)
    assert ran[-1].after >= last_began, "the last one is never overwritten"
