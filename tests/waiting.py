"""Waiting for something to happen, with a limit; never for time to pass."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path


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


def delete(folder: Path) -> None:
    """Delete a folder with all that is in it, though somebody may just write to it."""

    def is_deleted() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    wait_until(is_deleted, what=f"{folder} is deleted")
