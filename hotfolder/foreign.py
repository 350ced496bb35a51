"""Files that somebody else made or still makes: opened without waiting, never through a link, read with a limit."""

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_file(path: Path, beneath: Path | None = None) -> BinaryIO:
    """Open a regular file for reading.

    A pipe would be waited for without end, a device may have none, and a link may lead anywhere.

    Args:
        beneath: a folder above it, from which on no folder on the way may be a link either. None: its own.

    Raises:
        OSError: it is not there, may not be read, or is no regular file.
    """
    base = path.parent if beneath is None else beneath
    folder = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.relative_to(base).parts[:-1]:
            deeper = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = deeper
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path.name, flags, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read(path: Path, limit: int) -> bytes:
    """Return what is in a file; of one that has more than `limit` bytes one byte more, so that its reader can tell.

    Raises:
        OSError: as `open_file`.
    """
    with open_file(path) as file:
        return file.read(limit + 1)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
