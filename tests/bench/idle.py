"""What a daemon that waits for work costs: memory and CPU, against a Celery worker that waits."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from conftest import Workspace
from processes import Process

from bench.celery_peer import celery_worker
from bench.harness import Bench, Finding, at_most, ratios
from bench.looking import cpu_s

_AGAINST: Final = "a Celery worker, prefork, on Redis"
_WINDOWS: Final = 3
#: Tests scan more often than a daemon does on a local disk by itself.
_AS_INSTALLED: Final = {"INBOX_SCAN_S": "1", "INBOX_SETTLE_S": "0.3"}


def metric(bench: Bench) -> Iterator[Finding]:
    """Both wait side by side, so that what the machine does besides is the same for both."""
    window_s = bench.size(20, 2)
    with ExitStack() as stack:
        folder = stack.enter_context(bench.folder())
        (folder / "celery").mkdir()
        peer = stack.enter_context(celery_worker(folder / "celery", synced=True))
        workspace = Workspace(folder / "work")
        process = Process(workspace, log_file=folder / "serve.log", env=_AS_INSTALLED)
        stack.callback(process.kill)
        process.wait_until_ready()
        workspace.drop("warm.toml")
        workspace.wait_for("warm_take01", "completed")
        if "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8"):
            raise RuntimeError("torch is loaded, though no model was used")
        time.sleep(window_s / 4)  # what the last job leaves to be done
        cpu, memory = [], []
        for _ in range(_WINDOWS):
            before = [family_cpu_s(pid) for pid in (process.pid, peer.pid)]
            time.sleep(window_s)
            after = [family_cpu_s(pid) for pid in (process.pid, peer.pid)]
            cpu.append((after[0] - before[0], after[1] - before[1]))
            memory.append((family_mb(process.pid), family_mb(peer.pid)))
    yield Finding(
        metric="idle, memory without torch",
        against=_AGAINST,
        unit="MB",
        timed=False,
        target=at_most(0.5),
        pairs=ratios(memory),
    )
    yield Finding(
        metric=f"idle, CPU over {window_s * _WINDOWS} s",
        against=_AGAINST,
        unit=f"s of CPU in {window_s} s",
        target=at_most(1.0),
        disk=bench.disk,
        pairs=ratios(cpu),
    )


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
    return found


def family_cpu_s(pid: int) -> float:
    """CPU time that they have used so far."""
    return sum(cpu_s(one) for one in family(pid))


def family_mb(pid: int) -> float:
    """Memory of all of them, what several share counted once in all (PSS)."""
    return sum(_pss_kb(one) for one in family(pid)) / 1024


def _pss_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
