"""Files that survive a crash: written beside, flushed, then put in place."""

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

#: What a full disk answers.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: What a file answers that cannot have a second name there: on another device, not ours, or without hard links at all.
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
#: What a file system answers that can only rename over what stands there, such as NFS.
_NO_RENAME: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
#: From linux/fcntl.h and linux/fs.h.
_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1


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
    with opened(path, flags) as descriptor:
        _write_all(descriptor, data)
        if sync:
            os.fsync(descriptor)


def place(source: Path, target: Path) -> bool:
    """Put a finished file under a second name, whole or not at all; False where something stands there already.

    A hard link, or where that is not possible a copy, which is on disk before it has the name. What stands is never
    overwritten, also where another process puts it there at this moment. The name is durable after `sync_folder`.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return _place_copy(source, target)
    return True


def rename_new(source: Path, target: Path) -> None:
    """Rename a file, never over one that stands.

    Raises:
        FileExistsError: something stands there.
        OSError: also where the file system cannot tell whether something does.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(source), os.fsencode(target)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(source), None, str(target))


def append(path: Path, data: bytes, *, sync: bool = True) -> int:
    """Add whole lines at the end of a file that exists, all of `data` or nothing; return where they begin, in bytes.

    A failed flush is never retried on the same descriptor. A torn line that could not be cut off stays a line of its
    own, so that it spoils no other.
    """
    with opened(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC) as descriptor:
        begins = size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
            begins += 1
        try:
            _write_all(descriptor, data)
            if sync:
                os.fsync(descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    return begins


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as descriptor:
        os.fsync(descriptor)


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file as a descriptor for a block; an error in it names the file, which the system itself does not.

    What was flushed is on disk, whatever closing says: a line that stands is not to be taken for one that does not.
    What was not flushed may be lost in any case.
    """
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        with suppress(OSError):
            os.close(descriptor)


def boot_id() -> str:
    """Return what tells this boot of the machine from every other: what was never flushed may be lost with it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def remove(path: Path) -> None:
    """Remove a file that may be gone already."""
    with suppress(FileNotFoundError):
        path.unlink()


def _place_copy(source: Path, target: Path) -> bool:
    """Copy beside and flush, then give the copy its name, if that is still free; one at a time for each name."""
    beside = target.with_name(f".{target.name}.tmp")
    with os.fdopen(_lock_beside(beside), "wb") as copy:
        try:
            with source.open("rb") as given:
                shutil.copyfileobj(given, copy)
            copy.flush()
            os.fsync(copy.fileno())
            _name_new(beside, target)
        except FileExistsError:
            beside.unlink()
            return False
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
    return True


def _name_new(beside: Path, target: Path) -> None:
    """Give a file its name where that is free: at one stroke, or else by a link."""
    try:
        rename_new(beside, target)
    except OSError as error:
        if error.errno not in _NO_RENAME:
            raise
        os.link(beside, target)
        beside.unlink()


def _lock_beside(path: Path) -> int:
    """Open a new file for writing that nobody else has open like this.

    What a crash left there is never written over, since it may be another name of a finished file.
    """
    while True:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            found = os.fstat(descriptor)
            with suppress(FileNotFoundError):
                # Who had it meanwhile may have removed or renamed it.
                if os.path.samestat(found, path.lstat()):
                    if found.st_size == 0:
                        return descriptor
                    path.unlink()
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
