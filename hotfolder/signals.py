"""SIGTERM and SIGINT end the daemon in order, a second one at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def ended_by_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at the first signal and end the process at the second; only in the main thread.

    A thread of its own hears them. A handler in Python runs when the main thread comes round to it, and a signal that
    arrives just before that thread begins to wait, or that the kernel gives to another thread, does not wake it: the
    second would be heard once the step that hangs is over. The wakeup file is written in the very signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    thread = threading.Thread(target=_hear, args=(heard, stop), name="signals", daemon=True)
    thread.start()
    file_before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(file_before)
        os.close(told)
        thread.join()
        os.close(heard)


def _hear(heard: int, stop: threading.Event) -> None:
    while number := os.read(heard, 1):
        if number[0] in _ENDING:
            if stop.is_set():
                os._exit(128 + number[0])
            stop.set()
