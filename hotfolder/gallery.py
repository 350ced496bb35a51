"""SQLite index of the jobs that ended: `history` and the counts. A cache, made again from the status files."""

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from hotfolder import durable, names, tomltext
from hotfolder.clock import Moment
from hotfolder.journal import ENDS, Ledger
from hotfolder.plan import Plan
from hotfolder.status import FILE_NAME

#: Raised when the tables change; an index of another version is made again.
_VERSION: Final = 1
#: Pages that SQLite keeps in memory. By default 2 MB, filled by some thousand jobs: the kernel has them anyhow.
_CACHE_KIB: Final = 256
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    job TEXT PRIMARY KEY, state TEXT NOT NULL, finished_at TEXT NOT NULL, preset TEXT NOT NULL, title TEXT NOT NULL,
    candidates INTEGER NOT NULL, done INTEGER NOT NULL, failed INTEGER NOT NULL, error TEXT NOT NULL,
    picture TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS newest ON jobs (finished_at DESC);
"""
_INSERT: Final = (
    "INSERT OR REPLACE INTO jobs VALUES"
    " (:job, :state, :finished_at, :preset, :title, :candidates, :done, :failed, :error, :picture)"
)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One job that ended, as `history` shows it."""

    job: str
    state: str
    finished_at: str
    preset: str = ""
    title: str = ""
    candidates: int = 0
    done: int = 0
    failed: int = 0
    error: str = ""
    #: Its first picture, "" where it has none.
    picture: str = ""


class Gallery:
    """The index of one workspace; used by several threads."""

    def __init__(self, cache_dir: Path, outputs_dir: Path, boot: str | None = None) -> None:
        """Open `cache_dir`/gallery.sqlite; one that is missing, broken or of another version is made again.

        Args:
            boot: which boot of the machine this is; by default found out.
        """
        self._path = cache_dir / "gallery.sqlite"
        self._mark = cache_dir / "gallery.open"
        self._outputs = outputs_dir
        self._lock = threading.Lock()
        boot = durable.boot_id() if boot is None else boot
        cache_dir.mkdir(parents=True, exist_ok=True)
        marked = self._marked()
        if marked not in {None, boot}:
            self._unlink()
        try:
            self._begin(self._path)
        except sqlite3.DatabaseError:
            self._begin_anew()
        if marked != boot:
            # On a full disk it stays without: only a power cut would be missed.
            with suppress(OSError):
                durable.create(self._mark, boot.encode())
                durable.sync_folder(cache_dir)

    def add(self, ended: Ended) -> None:
        """Add a job that ended, or replace what is known of it; its status file must say so already."""
        with self._changing():
            self._uncount(ended.job)
            self._base.execute(_INSERT, vars(ended))
            self._counts[ended.state] += 1

    def remove(self, job: str) -> None:
        """Forget a job: it was taken up again, and its status file says so."""
        with self._changing():
            self._uncount(job)
            self._base.execute("DELETE FROM jobs WHERE job = ?", (job,))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change it for good; where the disk does not take that, all of it is made again from the status files."""
        with self._lock:
            try:
                with self._base:
                    yield
            except sqlite3.OperationalError:
                self._base.close()
                self._begin_anew()

    def _uncount(self, job: str) -> None:
        for row in self._base.execute("SELECT state FROM jobs WHERE job = ?", (job,)):
            self._counts[row["state"]] -= 1

    def newest(self, count: int) -> list[Ended]:
        """Return the jobs that ended last, newest first."""
        with self._lock:
            rows = self._base.execute("SELECT * FROM jobs ORDER BY finished_at DESC LIMIT ?", (count,)).fetchall()
        return [Ended(**dict(row)) for row in rows]

    def counts(self) -> dict[str, int]:
        """Return how many jobs ended in each state."""
        with self._lock:
            return dict(+self._counts)

    def close(self) -> None:
        """Close the file, flushed."""
        with self._lock:
            with suppress(sqlite3.Error, OSError):
                self._base.execute("PRAGMA synchronous = FULL")
                busy, *_ = self._base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                # Where somebody reads just now, a part of it is not flushed.
                if not busy:
                    durable.remove(self._mark)
            self._base.close()

    def _marked(self) -> str | None:
        """Return in which boot it was opened and not closed again; None where it was closed."""
        try:
            return self._mark.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def _unlink(self) -> None:
        for path in self._path.parent.glob(f"{self._path.name}*"):
            path.unlink(missing_ok=True)

    def _begin_anew(self) -> None:
        """Make it again: one that is broken, or behind since the disk did not take a change."""
        try:
            self._unlink()
            self._begin(self._path)
        except (sqlite3.DatabaseError, OSError):
            # A full disk: the history is kept in memory until the next start.
            self._begin(Path(":memory:"))

    def _begin(self, path: Path) -> None:
        known = self._open(path)
        try:
            if not known:
                with self._base:
                    self._base.executemany(_INSERT, map(vars, _ended_jobs(self._outputs)))
                    self._base.execute(f"PRAGMA user_version = {_VERSION}")
            rows = self._base.execute("SELECT state, count(*) AS n FROM jobs GROUP BY state").fetchall()
        except sqlite3.DatabaseError:
            self._base.close()
            raise
        self._counts = Counter({row["state"]: row["n"] for row in rows})

    def _open(self, path: Path) -> bool:
        """Open a file; return whether it is of this version."""
        self._base = sqlite3.connect(path, check_same_thread=False, timeout=30)
        try:
            self._base.row_factory = sqlite3.Row
            # A cache: what a power cut takes is read from the status files again.
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = OFF")
            self._base.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            known = self._base.execute("PRAGMA user_version").fetchone()[0] == _VERSION
            with self._base:
                if not known:
                    self._base.execute("DROP TABLE IF EXISTS jobs")
                self._base.executescript(_TABLES)
        except sqlite3.DatabaseError:
            self._base.close()
            raise
        return bool(known)


def ended(job: str, ledger: Ledger, plan: Plan | None) -> Ended:
    """Return the row of a job that ended."""
    return Ended(
        job=job,
        state=ledger.state.value,
        finished_at=str(ledger.finished_at or ""),
        preset=(plan.preset or "") if plan else "",
        title=(plan.title or "") if plan else "",
        candidates=plan.candidates if plan else 0,
        done=len(ledger.done),
        failed=len([key for key in ledger.failed if key]),
        error=ledger.error.message if ledger.error else "",
        picture=ledger.done[min(ledger.done)][0].file if ledger.done else "",
    )


def recent(cache_dir: Path, outputs_dir: Path, count: int) -> list[Ended]:
    """Return the jobs that ended last, newest first; writes nothing, so any process may ask.

    Where there is no index that can be read, the status files are.
    """
    file = f"file:{quote(str(cache_dir / 'gallery.sqlite'))}?mode=ro"
    with suppress(sqlite3.Error, TypeError), closing(sqlite3.connect(file, uri=True)) as base:
        base.row_factory = sqlite3.Row
        if base.execute("PRAGMA user_version").fetchone()[0] == _VERSION:
            rows = base.execute("SELECT * FROM jobs ORDER BY finished_at DESC LIMIT ?", (count,)).fetchall()
            return [Ended(**dict(row)) for row in rows]
    return sorted(_ended_jobs(outputs_dir), key=lambda one: one.finished_at, reverse=True)[:count]


def _ended_jobs(outputs_dir: Path) -> Iterator[Ended]:
    for folder in sorted(outputs_dir.glob("*_take*")):
        if names.split_take(folder.name) is None:
            continue
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            table = tomltext.load((folder / FILE_NAME).read_bytes())
            if table["state"] in ENDS:
                yield Ended(
                    job=folder.name,
                    state=table["state"],
                    finished_at=str(Moment.of(table["finished_at"])),
                    preset=table.get("preset", ""),
                    title=table.get("title", ""),
                    candidates=table.get("candidates", 0),
                    done=table.get("done", 0),
                    failed=table.get("failed", 0),
                    error=table.get("error", {}).get("message", ""),
                    picture=next((one["file"] for one in table.get("outputs", ())), ""),
                )
