"""The plans of jobs, read from their files when asked for; those that were used last are kept in memory."""

import threading
from pathlib import Path
from typing import Final

from hotfolder.errors import JobError
from hotfolder.job import Job
from hotfolder.plan import Plan, digest

#: Bytes of text whose plans are kept, some ten times as many in memory: thousands of jobs may be in the line, and
#: the plan of a single one may have 8 MB, which is kept alone.
_MAX_BYTES: Final = 1024 * 1024


class Plans:
    """The plans that were used last, by folder and hash. Used by several threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, str | None], tuple[Plan, int]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, folder: Path, sha256: str, plan: Plan, size: int) -> None:
        """Know a plan of `size` bytes, instead of those that were not used for longest."""
        with self._lock:
            self._keep((folder, sha256), plan, size)

    def forget(self, job: Job) -> None:
        """A job has ended: nobody asks for its plan any more, or seldom."""
        with self._lock:
            _, size = self._known.pop((job.folder, job.ledger.plan_sha256), (None, 0))
            self._bytes -= size

    def _get(self, key: tuple[Path, str | None]) -> Plan | None:
        """Return a plan that is known, which keeps it known."""
        with self._lock:
            known = self._known.pop(key, None)
            if known is None:
                return None
            self._known[key] = known
            return known[0]

    def of(self, job: Job) -> Plan:
        """Return the plan that holds for a job.

        One that was changed is never taken, whatever somebody forces: it says which models are loaded.

        Raises:
            JobError: `changed-file`: it is not as it was written.
        """
        key = (job.folder, job.ledger.plan_sha256)
        known = self._get(key)
        if known is not None:
            return known
        hint, file = "put it back as it was, or drop job.toml again", job.ledger.plan_file
        try:
            data = (job.folder / file).read_bytes()
            if digest(data) != job.ledger.plan_sha256:
                raise JobError("changed-file", f"{file} is not the one that was written", hint)
            plan = Plan.load(data)
        except (FileNotFoundError, IsADirectoryError, ValueError) as error:
            raise JobError("changed-file", f"{file} cannot be read any more", hint) from error
        with self._lock:
            # Nobody would let go of one that was asked for just when its job was forgotten.
            if not (job.ledger.ended or job.gone):
                self._keep(key, plan, len(data))
        return plan

    def _keep(self, key: tuple[Path, str | None], plan: Plan, size: int) -> None:
        _, before = self._known.pop(key, (plan, 0))
        self._known[key] = plan, size
        self._bytes += size - before
        while self._bytes > _MAX_BYTES and len(self._known) > 1:
            _, gone = self._known.pop(next(iter(self._known)))
            self._bytes -= gone
