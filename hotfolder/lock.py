"""One daemon per workspace: a lock file outside the deletable cache, which also says who has it."""

import fcntl
import os
import time
import tomllib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from hotfolder.errors import SettingsError

FILE_NAME: Final = ".hotfolder.lock"
#: Who only asks has the lock for a moment; who serves, for good.
_ATTEMPTS: Final = 20
_PAUSE_S: Final = 0.02


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who has a workspace."""

    pid: int
    host: str
    #: "queued" (a daemon) or "direct" (`hotfolder run`).
    mode: str
    started_at: str


class Lock:
    """Holds a workspace until it is closed or the process ends."""

    def __init__(self, workspace: Path, *, mode: str, started_at: str) -> None:
        """Take the lock.

        Raises:
            SettingsError: `workspace-busy`, naming who has it.
            OSError: the file cannot be written; it names it.
        """
        # Whoever only asks who has it, as `hotfolder status` does, has no use for these.
        import socket

        import tomli_w

        path = workspace / FILE_NAME
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(self._descriptor)
        except BlockingIOError as error:
            os.close(self._descriptor)
            who = _read(path)
            by = f"process {who.pid} on {who.host} since {who.started_at}" if who else "another process"
            raise SettingsError(
                "workspace-busy", f"{workspace} is served already, by {by}", "stop that one first, or drop jobs for it"
            ) from error
        text = tomli_w.dumps(
            asdict(Holder(pid=os.getpid(), host=socket.gethostname(), mode=mode, started_at=started_at))
        )
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text.encode(), 0)
        except OSError as error:
            os.close(self._descriptor)
            raise OSError(error.errno, error.strerror, str(path)) from error

    def close(self) -> None:
        """Give the workspace back. The file stays: removing it could let two in."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        with suppress(OSError):
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        """Hold it for a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self.close()


def holder(workspace: Path) -> Holder | None:
    """Return who has the workspace, None where nobody has. Takes nothing."""
    path = workspace / FILE_NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path) or Holder(pid=0, host="", mode="queued", started_at="")
    else:
        return None
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Lock a file, a few times over: `holder` has it for a moment while it looks.

    Raises:
        BlockingIOError: another process has it.
    """
    for _ in range(_ATTEMPTS):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_PAUSE_S)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**tomllib.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
