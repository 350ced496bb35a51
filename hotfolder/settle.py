"""Whether a file is whole: renamed into place, or closed by its writer and then unchanged for a while.

Never told from the file's own times: clocks differ, and copies keep old ones.
"""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hotfolder import lease
from hotfolder.clock import Clock
from hotfolder.lease import Writer

#: Where neither the kernel nor an event tells that the writer has closed the file, it must stand still for this long.
FOREIGN_SETTLE_S: Final = 5.0
#: File systems whose changes may be made on another machine: no events come, and leases do not reach there.
_NETWORK: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "beegfs",
        "virtiofs",
        "vboxsf",
        "prl_fs",
        "davfs",
    }
)

#: Size, mtime_ns, inode.
Signature = tuple[int, int, int]


@dataclass(kw_only=True)
class _Known:
    signature: Signature
    #: When it was first seen, and first seen like this, by our own clock.
    first: float
    since: float
    #: It has no final newline and waits once more.
    torn: bool = False


class Settler:
    """Remembers how files looked, and says which of them are whole. Used by one thread."""

    def __init__(self, clock: Clock, settle_s: float, *, local: bool) -> None:
        """Args: settle_s: how long a file must stand unchanged. local: whether the kernel's word on writers counts."""
        self._clock = clock
        self._settle_s = settle_s
        self._local = local
        self._known: dict[Path, _Known] = {}

    def ready(self, path: Path, found: os.stat_result, *, moved_in: bool = False, closed: bool = False) -> bool:
        """Return whether a file is whole.

        Args:
            found: how it looks now.
            moved_in: an event said that it was renamed into place.
            closed: an event said that its writer closed it.
        """
        now = self._clock.monotonic()
        signature = (found.st_size, found.st_mtime_ns, found.st_ino)
        known = self._known.get(path)
        if known is None or known.signature != signature:
            first = known.first if known is not None and known.signature[2] == found.st_ino else now
            known = self._known[path] = _Known(signature=signature, first=first, since=now)
        writer = (
            lease.look(path) if self._local and (moved_in or now - known.since >= self._settle_s) else Writer.UNKNOWN
        )
        if writer is Writer.BUSY:
            known.since = now
            return False
        if moved_in:
            return True
        sure = writer is Writer.FREE or closed or not self._local
        wait = self._settle_s if sure else max(self._settle_s, FOREIGN_SETTLE_S)
        return now - known.since >= wait * (2 if known.torn else 1)

    def wait_again(self, path: Path) -> bool:
        """Let a file that looks torn wait one more settle; return False where it has done so already."""
        known = self._known[path]
        if known.torn:
            return False
        known.torn = True
        return True

    def forget_all_but(self, paths: Collection[Path]) -> None:
        """Forget the files that are gone."""
        for path in self._known.keys() - paths:
            del self._known[path]

    def known_for_s(self, path: Path) -> float:
        """Return for how many seconds a file has been there, whatever was written to it meanwhile."""
        return self._clock.monotonic() - self._known[path].first


def mount_type(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that `path` lies on, "" where it cannot be told."""
    best, kind = "", ""
    try:
        # Not splitlines: a mount point may hold what Unicode takes for the end of a line.
        lines = mountinfo.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n").split("\n")
    except OSError:
        return ""
    where = str(path.resolve())
    for line in lines:
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), before.split(" ")[4])
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def is_network(kind: str) -> bool:
    """Whether files may change on such a file system without our kernel knowing. FUSE counts: nobody can tell."""
    return kind in _NETWORK or kind.startswith("fuse")
