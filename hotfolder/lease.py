"""Whether somebody still has a file open for writing, asked of the kernel.

A read lease is granted only while nobody has the file open for writing. It works on local file systems, for our own
files; elsewhere the answer is `UNKNOWN`, and FUSE grants it wrongly, so it is never relied on alone.
"""

import fcntl
import os
import signal
from enum import Enum
from pathlib import Path


class Writer(Enum):
    """Whether somebody writes to a file."""

    #: Nobody has it open for writing.
    FREE = "free"
    #: Somebody has.
    BUSY = "busy"
    #: The kernel does not tell.
    UNKNOWN = "unknown"


def look(path: Path) -> Writer:
    """Take a lease on a file and give it back at once."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return Writer.UNKNOWN
    try:
        # A writer that comes just now breaks the lease, and SIGIO, which says so, would end the process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return Writer.BUSY
    except OSError:
        return Writer.UNKNOWN
    finally:
        os.close(descriptor)
    return Writer.FREE
