"""Daemons as processes of their own, started and ended by tests."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from waiting import wait_until

if TYPE_CHECKING:
    from conftest import Workspace

SERVED = Path(__file__).with_name("served.py")


class Process:
    """`tests/served.py` on a workspace; what it says goes to a file."""

    def __init__(
        self,
        workspace: "Workspace",
        *options: str,
        log_file: Path,
        env: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        """Args: env: as `Workspace.settings` takes it. environ: as it is. before: a program that runs it, as strace."""
        self.workspace = workspace
        self.log_file = log_file
        self._log: IO[bytes] = self.log_file.open("ab")
        self._process = subprocess.Popen(
            [*before, sys.executable, str(SERVED), str(workspace.root), *options],
            env={**os.environ, **workspace.variables(**(env or {})), **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> Self:
        """Wait until it serves."""
        wait_until(self._is_ready, 30, f"{self.log}")
        return self

    def _is_ready(self) -> bool:
        assert self.runs, self.log
        return self.workspace.daemon_status().get("pid") == self.pid

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def send_to_another_thread(self, number: signal.Signals) -> None:
        """Have the signal taken by a thread that is not the main one."""
        other = next(int(task.name) for task in Path(f"/proc/{self.pid}/task").iterdir() if int(task.name) != self.pid)
        if ctypes.CDLL(None, use_errno=True).tgkill(self.pid, other, number) != 0:
            raise OSError(ctypes.get_errno(), "tgkill")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.join()

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        self.send(signal.SIGTERM)
        return self.join()

    def join(self, timeout_s: float = 30.0) -> int:
        """Wait until it has ended; return the exit code, negative for a signal."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the daemon does not end; it said: {self.log}") from None
        finally:
            self._log.close()

    @property
    def said(self) -> str:
        """All that it, and every one before it with the same file, has logged."""
        return self.log_file.read_text(errors="replace")

    @property
    def log(self) -> str:
        """The end of it, for who has to find out what went wrong."""
        return self.said[-8000:]
