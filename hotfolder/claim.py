"""Taking a file out of the inbox: exactly the one that was read, and never one that somebody put in its place."""

import errno
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hotfolder import durable, lease, logs, names
from hotfolder.meaning import ControlName, meaning_of

#: Bytes of a file's name that file systems allow.
_MAX_FILE_NAME: Final = 255
#: What file systems without hard links answer.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

_log = logs.logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A file as it was when it was read: taken away only if it is still the same."""

    path: Path
    size: int
    mtime_ns: int
    inode: int


def is_seen(found: os.stat_result, seen: Seen) -> bool:
    """Whether a file still is the one that was read."""
    return (found.st_size, found.st_mtime_ns, found.st_ino) == (seen.size, seen.mtime_ns, seen.inode)


def claim_again(seen: Seen, hidden: Path) -> bool:
    """Claim a source where an earlier attempt, or process, may have stopped half-way.

    Raises:
        OSError: not now.
    """
    if os.path.lexists(hidden):
        if not is_seen(hidden.lstat(), seen):
            put_back(hidden, seen.path)
            return True
        with suppress(FileNotFoundError, NotADirectoryError):
            # A power cut may leave a file both names of a rename: it is no new drop.
            if os.path.samestat(seen.path.lstat(), hidden.lstat()):
                seen.path.unlink()
        return True
    with suppress(FileNotFoundError, NotADirectoryError):
        if is_seen(seen.path.lstat(), seen):
            return claim(seen, hidden)
    return True


def claim(seen: Seen, hidden: Path) -> bool:
    """Take a file's name away if it is still the one that was read; return whether that is dealt with.

    It is looked at after it was renamed: nobody can open it by its name any more. A file that somebody writes to
    meanwhile gets its name back: it is the next drop.
    """
    try:
        seen.path.rename(hidden)
        if not is_seen(hidden.lstat(), seen) or lease.look(hidden) is lease.Writer.BUSY:
            put_back(hidden, seen.path)
    except FileNotFoundError:
        return True
    except OSError as error:
        _log.warning("source_not_removed", file=names.shown(seen.path.name), error=names.shown(str(error)))
        return False
    return True


def take_away(seen: Seen) -> bool:
    """Remove a file from the inbox if it is still the one that was read; return whether it is gone from its name."""
    hidden = hidden_name(seen.path)
    if not claim(seen, hidden):
        return False
    try:
        durable.remove(hidden)
    except OSError as error:
        _log.warning("source_not_removed", file=names.shown(seen.path.name), error=names.shown(str(error)))
        return False
    return True


def remove_control(seen: Seen) -> None:
    """Remove a control file that was acted on; one that was dropped again meanwhile is another, which nobody has read.

    Raises:
        OSError: it cannot be removed.
    """
    hidden = _hidden_control(seen.path)
    try:
        seen.path.rename(hidden)
        if is_seen(hidden.lstat(), seen):
            durable.remove(hidden)
        else:
            _release(hidden, seen.path)
        durable.sync_folder(seen.path.parent)
    except FileNotFoundError:
        return


def release_control(hidden: Path) -> None:
    """Give a control file that a crash left between its name and being gone its name back, if it is one.

    Raises:
        OSError: not now.
    """
    begins, ends = names.TAKING
    name = hidden.name.removeprefix(begins).removesuffix(ends)
    if isinstance(meaning_of(name), ControlName):
        _release(hidden, hidden.with_name(name))


def put_back(hidden: Path, path: Path) -> None:
    """Give a file its name back, unless something newer has it: then it gets a name beside it."""
    if path.exists() and path.samefile(hidden):
        hidden.unlink()
        return
    for number in range(1, 1000):
        name = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        if _take_name(hidden, name):
            return


def _release(hidden: Path, path: Path) -> None:
    """Give a control file its name back, unless a newer one has it: as if that had overwritten this one."""
    if not _take_name(hidden, path):
        hidden.unlink()


def _take_name(hidden: Path, name: Path) -> bool:
    """Rename a file if that name is free, and return whether it was; a rename alone would overwrite."""
    try:
        os.link(hidden, name)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(name):
            return False
        hidden.rename(name)
        return True
    hidden.unlink()
    return True


def _hidden_control(path: Path) -> Path:
    """Return where a control file lies between being acted on and being gone: its name tells what it was."""
    begins, ends = names.TAKING
    hidden = path.with_name(f"{begins}{path.name}{ends}")
    return hidden if len(os.fsencode(hidden.name)) <= _MAX_FILE_NAME else hidden_name(path)


def hidden_name(path: Path) -> Path:
    """Return where a source lies between being read and being gone; short, whatever the name's length."""
    begins, ends = names.TAKING
    return path.with_name(f"{begins}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}{ends}")
