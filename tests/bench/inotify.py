"""The kernel's word on a folder, without a library in between: for the reference, and for who takes the times."""

import ctypes
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

#: From linux/inotify.h.
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CLOSE_WRITE: Final = 0x8
DELETE: Final = 0x200
OVERFLOW: Final = 0x4000
_HEAD: Final = struct.Struct("iIII")


class Event(NamedTuple):
    """What happened to a name in the folder."""

    mask: int
    name: str


class Inotify:
    """Events of one folder. The queue can overflow: an event with `OVERFLOW` says so."""

    def __init__(self, folder: Path, mask: int) -> None:
        self._descriptor = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        _call("inotify_add_watch", self._descriptor, os.fsencode(folder), mask)

    def read(self, timeout_s: float) -> Iterator[Event]:
        """Yield all events that are there; the first one is waited for."""
        if not select.select([self._descriptor], [], [], timeout_s)[0]:
            return
        data = os.read(self._descriptor, 1 << 16)
        at = 0
        while at < len(data):
            _, mask, _, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            yield Event(mask, os.fsdecode(data[at : at + length].rstrip(b"\0")))
            at += length

    def close(self) -> None:
        os.close(self._descriptor)


def _call(name: str, *arguments: int | bytes) -> int:
    result: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
