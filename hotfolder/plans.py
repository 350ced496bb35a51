"""The plans of jobs, read from their files when asked for; those that were used last are kept in memory."""

import threading
from pathlib import Path
from typing import Final

from hotfolder.errors import JobError
from hotfolder.job import Job
from hotfolder.plan import Plan, digest

#: Plans that are kept; there may be thousands of jobs in the line.
_MAX_PLANS: Final = 64


class Plans:
    """The plans that were used last, by folder and hash. Used by several threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, str | None], Plan] = {}
        self._lock = threading.Lock()

    def add(self, folder: Path, sha256: str, plan: Plan) -> None:
        """Know a plan, instead of the one that was not used for longest."""
        with self._lock:
            self._known[folder, sha256] = plan
            if len(self._known) > _MAX_PLANS:
                del self._known[next(iter(self._known))]

    def _get(self, key: tuple[Path, str | None]) -> Plan | None:
        """Return a plan that is known, which keeps it known."""
        with self._lock:
            plan = self._known.pop(key, None)
            if plan is not None:
                self._known[key] = plan
            return plan

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
        self.add(job.folder, job.ledger.plan_sha256 or "", plan)
        return plan
