"""What is asked of every reader: little time, little memory, words that a person can use; and how often it is asked.

`HYPOTHESIS_PROFILE=hostile` tries many more texts and pictures than the usual run.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings

from hotfolder.errors import CODES, Problem

#: Characters of a message: more is nobody's to read.
MAX_MESSAGE = 2000

settings.register_profile("hostile", max_examples=20_000, deadline=None)
_PROFILE = os.environ.get("HYPOTHESIS_PROFILE")
if _PROFILE:
    settings.load_profile(_PROFILE)
#: Texts for each reader.
EXAMPLES = settings().max_examples if _PROFILE else 60


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


def check_problem(problem: Problem) -> None:
    """Check that somebody can read it and act upon it."""
    assert problem.code in CODES
    assert problem.message
    assert problem.message.isprintable(), "it can be shown in a terminal"
    assert problem.hint.isprintable()
    assert len(problem.message) <= MAX_MESSAGE


def _memory_mb(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(key)
