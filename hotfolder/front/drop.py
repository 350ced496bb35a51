"""Putting files into the inbox: whole, and never over one that still lies there."""

import ctypes
import errno
import hashlib
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hotfolder import durable
from hotfolder.errors import JobError, SettingsError
from hotfolder.meaning import Control
from hotfolder.names import make_safe, shown
from hotfolder.workspace import Workspace

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_MOST_DROPS: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A job file that lies in the inbox."""

    path: Path
    #: NAME: what its take will be called.
    name: str
    #: By which the take that came of it is known.
    sha256: str
    #: Takes of NAME that stood before.
    before: frozenset[str]
    #: Whether we put it there; else it lay there before.
    ours: bool = True


def job_file(workspace: Workspace, name: str, data: bytes) -> Path:
    """Drop the text of a job; while a drop of this NAME still lies there, as NAME_take02.toml: its next take too."""
    for number in range(1, _MOST_DROPS):
        file = f"{name}.toml" if number == 1 else f"{name}_take{number:02d}.toml"
        with suppress(FileExistsError):
            return _put(workspace.inbox, file, data)
    raise _cannot(workspace.inbox / f"{name}.toml", f"{_MOST_DROPS} drops of this name lie there already")


def picture(workspace: Workspace, given: Path) -> str:
    """Copy a picture into the inbox and return its name there, with a short hash where another one has its own."""
    data = given.read_bytes()
    name = make_safe(given.name)
    for candidate in (name, f"{Path(name).stem}-{hashlib.sha256(data).hexdigest()[:8]}{Path(name).suffix}"):
        try:
            return _put(workspace.inbox, candidate, data).name
        except FileExistsError:
            if (workspace.inbox / candidate).read_bytes() == data:
                return candidate
    raise _cannot(workspace.inbox / name, "another file of this name lies there")


def control(workspace: Workspace, name: str, what: Control, data: bytes = b"") -> Path:
    """Drop a control file for NAME or one take; one that lies there already asks for the same.

    Raises:
        JobError: `not-possible`: a `.resume` lies there that says something else.
    """
    return _ask(workspace, f"{name}.{what.value}", data, means_something=what is Control.RESUME)


def use(workspace: Workspace, name: str, data: bytes) -> Path:
    """Drop NAME.use, which says which picture of a job is the active one.

    Raises:
        JobError: `not-possible`: one lies there that says something else.
    """
    return _ask(workspace, f"{name}.use", data, means_something=True)


def _ask(workspace: Workspace, file: str, data: bytes, *, means_something: bool) -> Path:
    """Drop a file; of one that lies there already `means_something` says whether it is read."""
    try:
        return _put(workspace.inbox, file, data)
    except FileExistsError:
        path = workspace.inbox / file
    with suppress(FileNotFoundError):
        if means_something and path.read_bytes() != data:
            raise JobError(
                "not-possible",
                f"{shown(file)} lies in the inbox already, and says something else",
                "wait until a daemon has taken it, or remove it",
            )
        return path
    return _ask(workspace, file, data, means_something=means_something)  # it was taken just now


def pause_all(workspace: Workspace) -> Path:
    """Let no new cell start."""
    try:
        return _put(workspace.inbox, "pause", b"")
    except FileExistsError:
        return workspace.inbox / "pause"


def lift_pause(workspace: Workspace) -> bool:
    """Let cells start again; return whether they were paused."""
    lifted = False
    for name in ("pause", "pause.txt"):
        with suppress(FileNotFoundError):
            (workspace.inbox / name).unlink()
            lifted = True
    return lifted


def _put(inbox: Path, name: str, data: bytes) -> Path:
    """Write a file under a hidden name and rename it into place.

    Raises:
        FileExistsError: a file of this name lies there.
        SettingsError: `cannot-write`.
    """
    beside = inbox / f".{name[:40]}.{secrets.token_hex(4)}.tmp"
    path = inbox / name
    try:
        durable.create(beside, data)
        _rename(beside, path)
        durable.sync_folder(inbox)
    except FileExistsError:
        raise
    except FileNotFoundError as error:
        raise SettingsError(
            "cannot-write", f"{shown(str(inbox))} is not there", "hotfolder init makes what is missing"
        ) from error
    except OSError as error:
        raise _cannot(path, error.strerror or str(error)) from error
    finally:
        durable.remove(beside)
    return path


def _rename(source: Path, target: Path) -> None:
    """Rename without replacing; a rename, unlike a hard link, tells the daemon at once that the file is whole.

    Raises:
        FileExistsError: the target is there.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        done = rename(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE)
        error = ctypes.get_errno()
        if done == 0:
            return
        if error == errno.EEXIST:
            raise FileExistsError(error, os.strerror(error), str(target))
    # Not every file system can do that: a hard link does not replace either.
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        if target.exists():
            raise FileExistsError(str(target)) from None
        source.rename(target)


def _cannot(path: Path, why: str) -> SettingsError:
    return SettingsError(
        "cannot-write",
        f"{shown(str(path))} cannot be written: {why}",
        "look at the rights of the folder and the room on its disk",
    )
