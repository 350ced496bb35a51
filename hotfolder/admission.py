"""How a drop becomes a job: its folder is built, named, and the drop taken away; and which takes stand.

Admission, in this order, so that a crash at any point loses nothing and doubles nothing: the folder is built whole
under a hidden name and flushed; a live marker is set; the folder gets its name; the source loses its name; the journal
says `admitted`; the source is removed. It keeps a name of its job's own until then, so that whatever lies under its
old name by then is a new drop, be it the same to the byte.
"""

import errno
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from hotfolder import durable, journal, logs, names, status
from hotfolder.claim import Seen, claim, claim_again, is_seen, release_control
from hotfolder.clock import Clock, Moment
from hotfolder.foreign import file_sha256
from hotfolder.job import JOB_FILE, PLAN_FILE, SOURCES, Job, identity_of
from hotfolder.journal import Event, Ledger, Origin
from hotfolder.markers import Markers
from hotfolder.plan import Plan, digest
from hotfolder.settings import Settings

#: A folder that is being built has a dot before its name, and this behind.
_NEW: Final = ".new"
#: What was being written to outputs/ itself: status, page, which take is active.
_HALF: Final = (".toml.tmp", ".html.tmp")
#: Around the name of a source's job, from when the source has lost its own name until it is removed.
_CLAIM, _TAKING = names.TAKING

_log = logs.logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Something that is to become a job."""

    name: str
    #: The text of the job, byte for byte.
    data: bytes
    #: What lies in the inbox and goes once the job stands; None for a schedule's firing.
    seen: Seen | None
    #: Relative to the inbox: where it lay, and its lane ("" is the inbox itself).
    file: str
    lane: str = ""
    via: str = "dropped"
    scheduled_for: Moment | None = None
    #: A picture that is the trigger: copied into the job, then taken away.
    picture: Path | None = None


#: Puts into a folder what a new take takes over, and returns the lines of the journal that say so.
Fill = Callable[[Path], Sequence[Mapping[str, Any]]]


class Write(Protocol):
    """Writes a line into the journal of a job."""

    def __call__(self, job: Job, line: Mapping[str, Any], /, *, sync: bool, show: bool) -> None:
        """Raises: OSError: it could not be written."""


class Admission:
    """Makes takes in one outputs/, and takes away what they were made of."""

    def __init__(self, settings: Settings, clock: Clock, mode: str, live: dict[str, Job], write: Write) -> None:
        """Args: live: the jobs that are live, by name; they are added here. mode: "queued" or "direct"."""
        self._settings = settings
        self._clock = clock
        self._mode = mode
        self._live = live
        self._write = write
        self._outputs = settings.outputs_dir
        #: NAME -> its highest take; most names have but one, which need not be remembered to be found.
        self._takes: dict[str, int] = {}
        #: Jobs whose source could not be taken away, live or ended.
        self._pending: dict[str, Job] = {}
        #: File below the inbox -> what was said about why it is no job yet.
        self._not_admitted: dict[str, str] = {}
        #: Of the job that came last.
        self.last_seq = 0
        self.lock = threading.RLock()
        self.open()

    def open(self) -> None:
        """Look which outputs/ is there: all that follows speaks of this one."""
        #: (st_dev, st_ino): what is missing from another folder is not gone.
        self.identity = identity_of(self._outputs.stat())
        self.markers = Markers(self._settings.cache_dir, self._outputs, self.identity)

    def look_around(self) -> None:
        """See which takes stand, and remove what a crash left half built."""
        for entry in os.scandir(self._outputs):
            if entry.name.startswith(".") and entry.name.endswith(_NEW) and names.split_take(entry.name[: -len(_NEW)]):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name.startswith(".") and entry.name.endswith(_HALF):
                with suppress(OSError):
                    durable.remove(Path(entry.path))
            elif (split := names.split_take(entry.name)) is not None and entry.is_dir(follow_symlinks=False):
                self._note_take(*split)

    def _note_take(self, stem: str, take: int) -> None:
        if take > max(self._takes.get(stem, 0), 1):
            self._takes[stem] = take

    def newest(self, stem: str) -> Iterator[str]:
        """Return the names of the takes that stand, newest first."""
        for take in range(self._takes.get(stem, 1), 0, -1):
            folder = names.take_folder(stem, take)
            if (self._outputs / folder).is_dir():
                yield folder

    def next_seq(self) -> int:
        """Return the next number in the order in which jobs came."""
        with self.lock:
            self.last_seq += 1
            return self.last_seq

    def forget(self, job: Job) -> None:
        """A job has ended; one whose source still lies in the inbox keeps its marker."""
        if job.name not in self._pending:
            with suppress(OSError):
                self.markers.remove(job.name)

    def admit(self, drops: Sequence[Drop]) -> list[Job]:
        """Make a job of each drop; drops that come together share their flushes.

        A drop that cannot be built (a full disk, a picture that went away) stays in the inbox and is logged; it is met
        again at the next scan.
        """
        jobs = self._name(list(self._build_each(drops)))
        try:
            if jobs:
                durable.sync_folder(self._outputs)
        except OSError as error:
            # They stand, but perhaps not for good: until they do, the sources stay.
            _log.warning("not_flushed", folder=str(self._outputs), error=str(error))
            self._pending |= {job.name: job for job in jobs}
        else:
            self._take_away(jobs)
        return jobs

    def _build_each(self, drops: Sequence[Drop]) -> Iterator[Job]:
        for drop in drops:
            try:
                yield self._build(drop)
                self._not_admitted.pop(drop.file, None)
            except Exception as error:  # noqa: BLE001 - one drop's bug must not keep the others out
                self._warn_not_admitted(drop.file, error)
                if isinstance(error, OSError) and error.errno in durable.NO_ROOM:
                    return

    def _warn_not_admitted(self, file: str, error: Exception) -> None:
        """Say it once: what is not admitted is met again at every scan."""
        if self._not_admitted.get(file) != str(error):
            bug = None if isinstance(error, OSError) else error
            _log.warning("not_admitted", file=names.shown(file), error=names.shown(str(error)), exc_info=bug)
        self._not_admitted[file] = str(error)

    def _build(self, drop: Drop) -> Job:
        """Build `.mug_take01.new/`: the text, the first line of the journal, a status."""
        take = self._next_take(drop.name)
        folder = self._outputs / names.take_folder(drop.name, take)
        hidden = _new(folder)
        try:
            hidden.mkdir()
            sha256 = self._copy_trigger(drop, hidden) if drop.picture else digest(drop.data)
            seq = self.next_seq()
            origin = Origin(
                file=drop.file,
                size=drop.seen.size if drop.seen else len(drop.data),
                mtime_ns=drop.seen.mtime_ns if drop.seen else 0,
                sha256=sha256,
                via=drop.via,
                lane=drop.lane,
                scheduled_for=str(drop.scheduled_for) if drop.scheduled_for else None,
            )
            first = journal.opening(self._clock.now(), seq=seq, mode=self._mode, origin=origin)
            ledger = Ledger()
            ledger.apply(first)
            durable.create(hidden / JOB_FILE, drop.data)
            durable.create(hidden / journal.FILE_NAME, journal.encode(first))
            # Not flushed: a view, written again at every start.
            durable.create(hidden / status.FILE_NAME, status.job_status(folder.name, ledger, None), sync=False)
            durable.sync_folder(hidden)
            identity = identity_of(hidden.lstat())
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        self._note_take(drop.name, take)
        return Job(folder=folder, stem=drop.name, take=take, ledger=ledger, identity=identity, seen=drop.seen)

    def _copy_trigger(self, drop: Drop, hidden: Path) -> str:
        """Copy the picture that is the trigger; return its sha256.

        Raises:
            OSError: it is not the one that was seen any more; the next scan looks at it anew.
        """
        assert drop.picture is not None  # noqa: S101 - the caller's condition, for the type checker
        sources = hidden / SOURCES
        sources.mkdir()
        name = names.make_safe(drop.picture.name)
        hasher = hashlib.sha256()
        descriptor = os.open(drop.picture, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as given, (sources / name).open("wb") as copy:
            while block := given.read(1 << 20):
                hasher.update(block)
                copy.write(block)
            copy.flush()
            os.fsync(copy.fileno())
            if drop.seen is not None and not is_seen(os.fstat(descriptor), drop.seen):
                raise BlockingIOError(errno.EAGAIN, "written to while it was copied", str(drop.picture))
        durable.sync_folder(sources)
        return hasher.hexdigest()

    def _name(self, built: Sequence[Job]) -> list[Job]:
        """Mark the jobs as live and give their folders their names; from then on they stand."""
        jobs = []
        try:
            if built:
                self.markers.set(job.name for job in built)
        except OSError as error:
            for job in built:
                self._unbuild(job, error)
            return []
        for job in built:
            try:
                _new(job.folder).rename(job.folder)
            except OSError as error:
                self._unbuild(job, error)
                continue
            with self.lock:
                self._live[job.name] = job
            jobs.append(job)
        return jobs

    def _unbuild(self, job: Job, error: OSError) -> None:
        """Its folder cannot get its name: the drop stays where it is."""
        assert job.ledger.origin is not None  # noqa: S101 - the first line of every journal has it
        self._warn_not_admitted(job.ledger.origin.file, error)
        shutil.rmtree(_new(job.folder), ignore_errors=True)
        with suppress(OSError):
            self.markers.remove(job.name)

    def _take_away(self, jobs: Sequence[Job]) -> None:
        """Remove the sources from the inbox; one that we may not remove leaves its job `pending`."""
        claimed, folders = [], set()
        for job in jobs:
            if job.seen is None:
                claimed.append(job)
            elif claim(job.seen, _claimed(job.seen.path, job)):
                claimed.append(job)
                folders.add(job.seen.path.parent)
            else:
                self._pending[job.name] = job
        for folder in folders:
            with suppress(OSError):
                durable.sync_folder(folder)
        for job in claimed:
            self._admitted(job)

    def _admitted(self, job: Job) -> None:
        """The source has lost its name: note that, then remove it."""
        try:
            if not job.ledger.admitted:
                # No flush: should it be lost, the next start finds the job pending and its source gone.
                self._write(job, journal.line(Event.ADMITTED, self._clock.now()), sync=False, show=False)
            if job.seen is not None:
                durable.remove(_claimed(job.seen.path, job))
        except OSError as error:
            if job.name not in self._pending:
                _log.warning("source_not_removed", job=job.name, error=names.shown(str(error)))
            self._pending[job.name] = job
            return
        if not job.ledger.admitted and not job.gone:
            self._pending[job.name] = job
            return
        self._pending.pop(job.name, None)
        with self.lock:
            if job.name not in self._live:
                self.markers.remove(job.name)

    def _next_take(self, stem: str) -> int:
        """Return one more than the highest take that stands, or is being built."""
        highest = self._takes.get(stem, 0)
        if highest and not self._is_taken(stem, highest):
            found = (names.split_take(entry) for entry in os.listdir(self._outputs))
            highest = max((take for name, take in filter(None, found) if name == stem), default=0)
        while self._is_taken(stem, highest + 1):
            highest += 1
        return highest + 1

    def _is_taken(self, stem: str, take: int) -> bool:
        folder = self._outputs / names.take_folder(stem, take)
        return os.path.lexists(folder) or _new(folder).exists()

    def branch(self, before: Path, plan: Plan, fill: Fill, *, force: bool) -> tuple[Job, Plan]:
        """Make the next take of an ended job, which goes on from a part of what that one has made.

        Args:
            before: the folder of the job.
            plan: of the new take but for its name.
            fill: puts into a folder what is taken over, and returns the lines of the journal that say so.
            force: whether what was changed is taken as it is.

        Raises:
            OSError: it cannot be built; nothing of it stays.
        """
        split = names.split_take(before.name)
        assert split is not None  # noqa: S101 - it is the folder of a job
        stem = split[0]
        take = self._next_take(stem)
        folder = self._outputs / names.take_folder(stem, take)
        hidden = _new(folder)
        plan = plan.changed(job=folder.name)
        now = self._clock.now()
        try:
            hidden.mkdir()
            data = (before / JOB_FILE).read_bytes()
            durable.create(hidden / JOB_FILE, data)
            planned = plan.dump()
            durable.create(hidden / PLAN_FILE, planned)
            cells = fill(hidden)
            seq = self.next_seq()
            origin = Origin(file=f"{before.name}.resume", size=len(data), mtime_ns=0, sha256=digest(data), via="resume")
            text = f"goes on from what {before.name} has made"
            lines = [
                journal.opening(now, seq=seq, mode=self._mode, origin=origin),
                journal.line(Event.ADMITTED, now),
                journal.line(Event.PLANNED, now, sha256=digest(planned), notices=[*plan.notices, text], force=force),
                *cells,
            ]
            durable.create(hidden / journal.FILE_NAME, journal.encode(*lines))
            ledger = journal.read(hidden)
            durable.create(hidden / status.FILE_NAME, status.job_status(folder.name, ledger, plan), sync=False)
            durable.sync_folder(hidden)
            identity = identity_of(hidden.lstat())
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        self._note_take(stem, take)
        job = Job(folder=folder, stem=stem, take=take, ledger=ledger, identity=identity)
        if not self._name([job]):
            raise OSError(errno.EIO, "the folder of the new take cannot get its name", str(folder))
        durable.sync_folder(self._outputs)
        return job, plan

    # --- what a process before left ---

    def find_source(self, job: Job) -> None:
        """Look for what made a job under its own name and the one it has while it is taken away; compared to the byte.

        A job that is not `pending` has nothing under its own name any more: what lies there is a new drop.
        """
        origin = job.ledger.origin
        if origin is None or origin.scheduled_for is not None:
            if not job.ledger.admitted:
                self._admitted(job)
            return
        path = self._settings.inbox_dir / origin.file
        claimed = _claimed(path, job)
        if job.ledger.admitted:
            durable.remove(claimed)
            return
        where = claimed if os.path.lexists(claimed) else path
        inode = 0
        with suppress(FileNotFoundError, NotADirectoryError):
            found = where.lstat()
            same = stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (origin.size, origin.mtime_ns)
            if same and file_sha256(where) == origin.sha256:
                inode = found.st_ino
        job.seen = Seen(path=path, size=origin.size, mtime_ns=origin.mtime_ns, inode=inode)
        self._finish_admission(job)

    def clear_claimed(self, gone: Collection[str]) -> None:
        """Remove the sources of jobs that are not live any more, and give control files their names back.

        Those of jobs that ended, since their removal is not flushed and a power cut may bring them back; and those of
        jobs that were live and are `gone`, because somebody deleted their folder. Of a job that is not known its
        source may be all there is: it stays.
        """
        for path in self._settings.inbox_dir.rglob(f"{_CLAIM}*{_TAKING}"):
            name = path.name.removeprefix(_CLAIM).removesuffix(_TAKING)
            with suppress(OSError):
                if names.split_take(name) is None:
                    release_control(path)
                elif name not in self._live and (name in gone or journal.read(self._outputs / name).admitted):
                    durable.remove(path)

    def _finish_admission(self, job: Job) -> None:
        """Take the source of a `pending` job away, if it still is what it was."""
        try:
            if job.seen is not None:
                if not claim_again(job.seen, _claimed(job.seen.path, job)):
                    self._pending[job.name] = job
                    return
                with suppress(FileNotFoundError, NotADirectoryError):
                    durable.sync_folder(job.seen.path.parent)
        except OSError as error:
            if job.name not in self._pending:
                _log.warning("source_not_removed", job=job.name, error=names.shown(str(error)))
            self._pending[job.name] = job
            return
        self._admitted(job)

    def retry_pending(self) -> None:
        """Try again to take away the sources that could not be."""
        pending = list(self._pending.values())
        try:
            if pending:
                durable.sync_folder(self._outputs)
        except OSError:
            return
        for job in pending:
            self._finish_admission(job)

    def pending_sources(self) -> Mapping[str, Job]:
        """Return the sources that lie in the inbox though their job is admitted, by path below the inbox."""
        return {job.ledger.origin.file: job for job in list(self._pending.values()) if job.ledger.origin}


def _new(folder: Path) -> Path:
    """Return where the folder of a job is built."""
    return folder.with_name(f".{folder.name}{_NEW}")


def _claimed(path: Path, job: Job) -> Path:
    """Return where the source of a job lies between losing its name and being gone."""
    return path.with_name(f"{_CLAIM}{job.name}{_TAKING}")
