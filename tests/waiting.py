"""Waiting for something to happen, with a limit; never for time to pass."""

import threading
import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0, what: str = "") -> None:
    """Return as soon as `condition` holds.

    Raises:
        AssertionError: it did not hold within `timeout_s`.
    """
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {timeout_s} s: {what or condition}")
        pause.wait(0.01)
