"""Files that survive a crash: written beside, flushed, then put in place."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

#: What a full disk answers.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def write(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Put `data` at `path` whole or not at all; a reader never sees half of it.

    With `sync` the data is on disk before the name is; the name itself is durable after `sync_folder`.
    """
    beside = path.with_name(f".{path.name}.tmp")
    try:
        create(beside, data, sync=sync)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def create(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file that nobody else looks at yet.

    In a folder where strangers may write, a link or a pipe may lie under its name: neither is written through.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    try:
        _write_all(descriptor, data)
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Add whole lines at the end of a file that exists, all of `data` or nothing.

    A failed flush is never retried on the same descriptor. A torn line that could not be cut off stays a line of its
    own, so that it spoils no other.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        try:
            _write_all(descriptor, data)
            if sync:
                os.fsync(descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file that may be gone already."""
    with suppress(FileNotFoundError):
        path.unlink()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
