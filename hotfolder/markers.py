"""Which jobs are live: an empty file for each, so that a restart costs what is live and not what is finished.

A marker is set before its job stands, and removed after its end is durable: always a superset. Where the set itself is
missing, it is made again from every journal.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from hotfolder import durable, journal, names, status
from hotfolder.job import JOB_FILE
from hotfolder.journal import ENDS


class Markers:
    """The markers of one outputs/."""

    def __init__(self, cache_dir: Path, outputs: Path, identity: tuple[int, int]) -> None:
        """Open the markers, or make them.

        They speak of one outputs/: while another disk, or none, is mounted there, they stay.

        Args:
            identity: (st_dev, st_ino) of outputs/.
        """
        self._outputs = outputs
        self._folder = cache_dir / "live" / f"{os.statvfs(outputs).f_fsid:x}-{identity[1]:x}"
        if not self._folder.is_dir():
            self._make()

    def names(self) -> list[str]:
        """Return the jobs that are marked."""
        return os.listdir(self._folder)

    def set(self, jobs: Iterable[str]) -> None:
        """Mark jobs; durable when this returns."""
        if not self._folder.is_dir():
            self._make()
        for name in jobs:
            (self._folder / name).touch()
        durable.sync_folder(self._folder)

    def remove(self, job: str) -> None:
        """Take a job's marker away."""
        durable.remove(self._folder / job)

    def _make(self) -> None:
        beside = self._folder.with_suffix(".new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for entry in os.scandir(self._outputs):
            if names.split_take(entry.name) and entry.is_dir(follow_symlinks=False) and _is_live(Path(entry.path)):
                (beside / entry.name).touch()
        durable.sync_folder(beside)
        beside.rename(self._folder)
        durable.sync_folder(self._folder.parent)


def _is_live(folder: Path) -> bool:
    """Whether a job may have to go on, or its end be shown: where it cannot be told, it may."""
    try:
        ledger = journal.read(folder)
        return not ledger.ended or status.read_state(folder) is not ledger.state
    except FileNotFoundError:
        return (folder / JOB_FILE).exists() and status.read_state(folder) not in ENDS
    except OSError:
        return True
