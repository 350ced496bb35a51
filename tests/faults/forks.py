"""Daemons from a fork server: start one, hand its thread to strace, and hear how it ended."""

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import forkserver
from forkserver import Order

_HERE = Path(__file__).parent
#: A daemon that does not end by then never will.
_PATIENCE_S = 90.0


@dataclass(kw_only=True)
class Ended:
    """How a daemon ended."""

    pid: int = 0
    #: Negative for a signal.
    code: int = 0
    #: Native id -> name, of every thread that it had.
    threads: dict[int, str] = field(default_factory=dict)


class Forks:
    """One fork server; it serves one daemon at a time."""

    def __init__(self, kind: str = "painted") -> None:
        """Args: kind: the engine, "painted" or "tiny"."""
        paths = [str(_HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, str(_HERE / "forkserver.py"), kind],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)
        self._rest = b""

    def serve(
        self,
        order: Order,
        *,
        attach: Callable[[int], None] = lambda _: None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Ended:
        """Let a daemon serve until it ends.

        Args:
            attach: called with the native id of the thread that waits to be traced.
            meanwhile: called again and again.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(forkserver.as_line(order).encode())
        self._process.stdin.flush()
        ended = Ended()
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            for line in self._lines(0.01):
                word, number, *rest = line.split(maxsplit=2)
                match word:
                    case "pid":
                        ended.pid = int(number)
                    case "thread":
                        ended.threads[int(number)] = rest[0]
                    case "ready":
                        attach(int(number))
                    case "exit":
                        ended.code = int(number)
                        return ended
                    case _:
                        raise AssertionError(f"the fork server said {line}")
            meanwhile()
            if time.monotonic() > deadline:
                self._kill(ended.pid)
                raise AssertionError(f"the daemon does not end; see {order.log}")

    def close(self) -> None:
        """End the server."""
        self._selector.close()
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _out(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def _lines(self, timeout_s: float) -> list[str]:
        """Return the whole lines that came within that time."""
        if not self._selector.select(timeout_s):
            return []
        data = os.read(self._out, 65536)
        assert data, "the fork server has ended"
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode() for line in lines]

    def _kill(self, pid: int) -> None:
        os.kill(pid, 9)
        while not any(line.startswith("exit") for line in self._lines(1.0)):
            pass
