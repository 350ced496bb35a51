"""Celery with Redis and its prefork pool: a worker of its own, as the peer that everybody knows.

A Python that has `celery[redis]` is named by BENCH_CELERY_PYTHON; by default this one. `redis-server` is found in PATH.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from waiting import wait_until

from bench.harness import Skipped

_TASKS: Final = """
import os, sys, time
from celery import Celery, group

app = Celery("tasks", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4)

@app.task
def nothing(number):
    return number

if __name__ == "__main__":
    count = int(sys.argv[1])
    nothing.delay(0).get(timeout=60)
    started = time.perf_counter()
    found = group(nothing.s(number) for number in range(count)).apply_async().get(timeout=600)
    assert len(found) == count
    print((time.perf_counter() - started) / count)
"""


@dataclass(frozen=True, kw_only=True)
class CeleryWorker:
    """A worker that runs, and the way to give it work."""

    folder: Path
    pid: int
    environ: dict[str, str]

    def job_s(self, jobs: int) -> float:
        """Seconds a job that does nothing, from handing in the first to having the result of the last."""
        done = subprocess.run(
            [_python(), "tasks.py", str(jobs)],
            cwd=self.folder,
            env=self.environ,
            check=True,
            capture_output=True,
            text=True,
        )
        return float(done.stdout)


@contextmanager
def celery_worker(folder: Path, *, synced: bool) -> Iterator[CeleryWorker]:
    """Start Redis and a worker, both of their own; end them afterwards.

    Args:
        synced: whether Redis flushes to the disk before it answers, as a folder of files does.

    Raises:
        Skipped: one of them is not installed here.
    """
    python, redis = _python(), shutil.which("redis-server")
    if redis is None:
        raise Skipped("redis-server is not installed: apt-get install redis-server")
    if subprocess.run([python, "-c", "import celery, redis"], check=False, capture_output=True).returncode:
        raise Skipped("celery[redis] is not installed: name a Python that has it in BENCH_CELERY_PYTHON")
    socket = folder / "redis.socket"
    (folder / "tasks.py").write_text(_TASKS, encoding="utf-8")
    environ = {**os.environ, "BENCH_REDIS": f"redis+socket://{socket}"}
    durable = ["--appendonly", "yes", "--appendfsync", "always"] if synced else ["--appendonly", "no"]
    with ExitStack() as stack:
        _start(stack, folder, environ, redis, "--port", "0", "--unixsocket", str(socket), "--save", "", *durable)
        wait_until(socket.exists, what="redis-server listens")
        command = [python, "-m", "celery", "-A", "tasks", "worker", "--pool", "prefork", "--loglevel", "WARNING"]
        worker = _start(stack, folder, environ, *command)
        found = CeleryWorker(folder=folder, pid=worker.pid, environ=environ)
        found.job_s(1)
        yield found


def _start(stack: ExitStack, folder: Path, environ: dict[str, str], *command: str) -> subprocess.Popen[bytes]:
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def _python() -> str:
    return os.environ.get("BENCH_CELERY_PYTHON", sys.executable)
