"""Which cell was being made when a process died, and whether there is evidence that the cell did it.

The note of the running cell is a memory-mapped page: the GPU thread writes it without touching a file, and what was
written outlives the process. A power cut loses it; that is as it should be, since power cuts are never blamed.
"""

import faulthandler
import json
import math
import mmap
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from hotfolder import durable
from hotfolder.clock import Clock

_PAGE: Final = 4096
#: The kernel is asked no more often than this by who watches, and before a cell only where its answer is older.
_ASK_S: Final = 0.5
_OLD_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Death:
    """What an earlier process was doing when it died."""

    job: str
    candidate: int
    run_id: str
    #: Why the cell is to blame; None where nothing says so: SIGKILL, a power cut, an operator.
    evidence: str | None


class RunningNote:
    """Notes the cell under way, for the next process to find."""

    def __init__(self, cache_dir: Path, run_id: str, clock: Clock) -> None:
        """Open the note in `cache_dir`; read what the process before left with `death` first."""
        self._path = cache_dir / "running"
        self._evidence = cache_dir / "evidence"
        self._run_id = run_id
        self._clock = clock
        #: How often the kernel ran out of memory, and when it was asked last.
        self._kills, self._asked_at = 0, -math.inf
        # Another boot means a power cut or a restart of the machine, which are never blamed.
        self._boot = durable.boot_id()
        self._crash_file: TextIO | None = None
        with durable.opened(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC) as descriptor:
            # Not a hole: writing into one on a full disk would be a bus error.
            os.posix_fallocate(descriptor, 0, _PAGE)
            self._page = mmap.mmap(descriptor, _PAGE)

    def death(self) -> Death | None:
        """Return what the process before was making when it died; None where it ended in order."""
        text = bytes(self._page).partition(b"\0")[0]
        try:
            note = json.loads(text)
            boot, kills = note["boot"], note["oom_kills"]
            found = Death(job=note["job"], candidate=int(note["candidate"]), run_id=note["run_id"], evidence=None)
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if boot != self._boot:
            return None
        return Death(job=found.job, candidate=found.candidate, run_id=found.run_id, evidence=self._find_evidence(kills))

    def begin(self) -> None:
        """Forget the process before, and have fatal signals leave their dump as evidence."""
        self.clear()
        self._crash_file = self._evidence.open("w", encoding="utf-8")
        faulthandler.enable(self._crash_file)

    def look(self) -> None:
        """Ask the kernel how often it ran out of memory: to be called again and again while cells are made.

        It takes 2 ms to answer. Before every cell that would be a hundredth of the time of a GPU.
        """
        now = self._clock.monotonic()
        if now - self._asked_at >= _ASK_S:
            self._kills, self._asked_at = _oom_kills(), now

    def write(self, job: str, candidate: int) -> None:
        """Note that this cell begins."""
        if self._clock.monotonic() - self._asked_at > _OLD_S:
            self.look()
        note = {
            "job": job,
            "candidate": candidate,
            "run_id": self._run_id,
            "boot": self._boot,
            "oom_kills": self._kills,
        }
        data = json.dumps(note).encode() + b"\0"
        self._page[: len(data)] = data

    def clear(self) -> None:
        """Note that no cell is under way."""
        self._page[:1] = b"\0"

    def testify(self, text: str) -> None:
        """Leave evidence before ending this process on purpose: a hang, a broken device."""
        if self._crash_file is not None:
            with suppress(OSError):
                self._crash_file.write(f"{text}\n")
                self._crash_file.flush()

    def close(self) -> None:
        """End in order."""
        self.clear()
        self.abandon()
        with suppress(OSError):
            self._evidence.unlink()

    def abandon(self) -> None:
        """End in disorder: what was noted stays for the next process to find."""
        if self._crash_file is not None:
            faulthandler.disable()
            with suppress(OSError):
                self._crash_file.close()
        self._page.close()

    def _find_evidence(self, oom_kills_then: int) -> str | None:
        with suppress(OSError):
            lines = self._evidence.read_text(encoding="utf-8", errors="replace").splitlines()
            if lines:
                return lines[0][:200]
        if _oom_kills() > oom_kills_then:
            return "the kernel ran out of memory and killed a process"
        return None


def _oom_kills() -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/vmstat").read_bytes().split(b"\noom_kill ", 1)[1].split(None, 1)[0])
    return 0
