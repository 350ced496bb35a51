"""What it costs to read something: CPU seconds of this thread, and memory of this process at its peak."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(kw_only=True)
class Cost:
    """Filled in when the block ends."""

    #: Time that others take on a shared machine does not count.
    cpu_s: float = 0.0
    #: Above what was in memory when the block began.
    peak_mb: float = 0.0


@contextmanager
def cost() -> Iterator[Cost]:
    """Measure a block."""
    found = Cost()
    # Makes the kernel forget the highest mark that this process has left so far.
    Path("/proc/self/clear_refs").write_text("5")
    before, began = _memory_mb("VmRSS"), time.thread_time()
    try:
        yield found
    finally:
        found.cpu_s = time.thread_time() - began
        found.peak_mb = _memory_mb("VmHWM") - before


def _memory_mb(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(key)
