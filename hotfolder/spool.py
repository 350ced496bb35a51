"""A job's folder on disk: admit, journal, status, recover. The only writer of job state.

Admission, in this order, so that a crash at any point loses nothing and doubles nothing: the folder is built whole
under a hidden name and flushed; a live marker is set; the folder gets its name; the source is taken away; the journal
says `admitted`.
"""

import functools
import hashlib
import os
import shutil
import stat
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from hotfolder import durable, journal, lease, names, status
from hotfolder.clock import Clock, Moment
from hotfolder.errors import Problem
from hotfolder.journal import Event, Failure, Ledger, Origin, Output, State, StopReason
from hotfolder.plan import Plan, digest
from hotfolder.settings import Settings
from hotfolder.status import Progress

JOB_FILE: Final = "job.toml"
PLAN_FILE: Final = "plan.toml"
SOURCES: Final = "sources"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A file as it was when it was read: taken away only if it is still the same."""

    path: Path
    size: int
    mtime_ns: int
    inode: int


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


@dataclass(kw_only=True, eq=False)
class Job:
    """One live job: its folder is its identity."""

    folder: Path
    stem: str
    take: int
    ledger: Ledger
    #: (st_dev, st_ino) of the folder: another folder of the same name is another job.
    identity: tuple[int, int] = (0, 0)
    lock: threading.RLock = field(default_factory=threading.RLock)
    #: Candidates that are being made or saved.
    in_flight: set[int] = field(default_factory=set)
    #: Candidates still to be made, in order.
    todo: deque[int] = field(default_factory=deque)
    #: What the next step of its running cell is told; read without the lock.
    stop: StopReason | None = None
    #: The folder is gone: nothing is written any more.
    gone: bool = False
    progress: Progress | None = None
    model_key: str = ""
    priority: int = 0
    #: The pictures of the inbox that it names, by path; None until its text was read.
    pictures: frozenset[Path] | None = None

    @property
    def name(self) -> str:
        """Such as "mug_take01"."""
        return self.folder.name

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sorts the line: what was put in front, then priority, then the order in which they came."""
        return (-self.ledger.first, -self.priority, self.ledger.seq)


class Spool:
    """The jobs of one workspace that are live, and their folders."""

    def __init__(self, settings: Settings, clock: Clock, run_id: str, mode: str = "queued") -> None:
        """Args: run_id: of this process. mode: "queued" or "direct"."""
        self.settings = settings
        self.clock = clock
        self.run_id = run_id
        self.mode = mode
        self.live: dict[str, Job] = {}
        self._outputs = settings.outputs_dir
        self._markers = settings.cache_dir / "live"
        self._takes: dict[str, int] = {}
        self._seq = 0
        self._first = 0
        self._lock = threading.RLock()

    # --- admission ---

    def admit(self, drops: Sequence[Drop]) -> list[Job]:
        """Make a job of each drop; drops that come together share their flushes.

        A drop that cannot be built (a full disk, a picture that went away) stays in the inbox and is logged; it is met
        again at the next scan.
        """
        jobs: list[tuple[Drop, Job]] = []
        for drop in drops:
            try:
                jobs.append((drop, self._build(drop)))
            except OSError as error:
                _log.warning("not_admitted", file=names.shown(drop.file), error=str(error))
        if not jobs:
            return []
        self._mark(job.name for _, job in jobs)
        for _, job in jobs:
            self._name(job)
        durable.sync_folder(self._outputs)
        with self._lock:
            self.live |= {job.name: job for _, job in jobs}
        self._take_away(jobs)
        return [job for _, job in jobs]

    def _build(self, drop: Drop) -> Job:
        """Build `.mug_take01.new/`: the text, the first line of the journal, a status."""
        take = self._next_take(drop.name)
        folder = self._outputs / names.take_folder(drop.name, take)
        hidden = self._outputs / f".{folder.name}.new"
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir()
        sha256 = self._copy_trigger(drop, hidden) if drop.picture else digest(drop.data)
        with self._lock:
            self._seq += 1
            self._takes[drop.name] = take
        origin = Origin(
            file=drop.file,
            size=drop.seen.size if drop.seen else len(drop.data),
            mtime_ns=drop.seen.mtime_ns if drop.seen else 0,
            sha256=sha256,
            via=drop.via,
            lane=drop.lane,
            scheduled_for=str(drop.scheduled_for) if drop.scheduled_for else None,
        )
        first = journal.line(Event.PENDING, self.clock.now(), seq=self._seq, mode=self.mode, origin=asdict(origin))
        ledger = Ledger()
        ledger.apply(first)
        durable.create(hidden / JOB_FILE, drop.data)
        durable.create(hidden / journal.FILE_NAME, journal.encode(first))
        durable.create(hidden / status.FILE_NAME, status.job_status(folder.name, ledger, None))
        durable.sync_folder(hidden)
        return Job(folder=folder, stem=drop.name, take=take, ledger=ledger)

    def _copy_trigger(self, drop: Drop, hidden: Path) -> str:
        sources = hidden / SOURCES
        sources.mkdir()
        assert drop.picture is not None  # noqa: S101 - the caller's condition, for the type checker
        name = names.make_safe(drop.picture.name)
        hasher = hashlib.sha256()
        with drop.picture.open("rb") as given, (sources / name).open("wb") as copy:
            while block := given.read(1 << 20):
                hasher.update(block)
                copy.write(block)
            copy.flush()
            os.fsync(copy.fileno())
        durable.sync_folder(sources)
        return hasher.hexdigest()

    def _name(self, job: Job) -> None:
        hidden = self._outputs / f".{job.name}.new"
        hidden.rename(job.folder)
        found = job.folder.lstat()
        job.identity = (found.st_dev, found.st_ino)

    def _take_away(self, jobs: Sequence[tuple[Drop, Job]]) -> None:
        """Remove the sources from the inbox; one that we may not remove leaves its job `pending`."""
        folders = set()
        for drop, job in jobs:
            if drop.seen is None or take_away(drop.seen):
                job.ledger.admitted = True
                if drop.seen is not None:
                    folders.add(drop.seen.path.parent)
        for folder in folders:
            with suppress(OSError):
                durable.sync_folder(folder)
        for _, job in jobs:
            if job.ledger.admitted:
                # No flush: should it be lost, the next start finds the job pending and its source gone.
                self._write(job, journal.line(Event.ADMITTED, self.clock.now()), sync=False, show=False)

    def _next_take(self, stem: str) -> int:
        highest = self._takes.get(stem, 0)
        if highest and not (self._outputs / names.take_folder(stem, highest)).exists():
            found = (names.split_take(entry) for entry in os.listdir(self._outputs))
            highest = max((take for name, take in filter(None, found) if name == stem), default=0)
        while (self._outputs / names.take_folder(stem, highest + 1)).exists():
            highest += 1
        return highest + 1

    # --- what happens to a job, each said by one line of its journal ---

    def planned(self, job: Job, plan: Plan) -> None:
        """Write plan.toml: every choice is made, the job is in the line unless it is held."""
        data = plan.dump()
        with job.lock:
            if job.gone:
                return
            durable.write(job.folder / PLAN_FILE, data)
            durable.sync_folder(job.folder)
            self._plan.cache_clear()
            self._write(
                job, journal.line(Event.PLANNED, self.clock.now(), sha256=digest(data), notices=list(plan.notices))
            )
            self._lay_out(job, plan)

    def waiting(self, job: Job, pictures: Sequence[str]) -> None:
        """A picture that the job names is not there yet."""
        if job.ledger.waiting_for != tuple(pictures):
            self._write(job, journal.line(Event.WAITING, self.clock.now(), pictures=list(pictures)))

    def started(self, job: Job) -> None:
        """The first cell of the job in this process begins, or the first after it was held."""
        with job.lock:
            if job.ledger.state is State.QUEUED:
                self._write(job, journal.line(Event.STARTED, self.clock.now(), run_id=self.run_id))

    def done(self, job: Job, output: Output) -> None:
        """A candidate's picture is on disk."""
        self._write(job, journal.line(Event.DONE, self.clock.now(), output=asdict(output)))

    def failed(self, job: Job, failure: Failure) -> None:
        """A candidate cannot be finished; the others go on."""
        self._write(job, journal.line(Event.FAILED, self.clock.now(), error=asdict(failure)))

    def died(self, job: Job, candidate: int, run_id: str, evidence: str | None) -> None:
        """A process died while it made this candidate."""
        self._write(
            job, journal.line(Event.DIED, self.clock.now(), candidate=candidate, run_id=run_id, evidence=evidence)
        )

    def held(self, job: Job, why: str) -> None:
        """No new cell of the job starts until it is released."""
        with job.lock:
            if job.ledger.held is None and not job.ledger.ended:
                self._write(job, journal.line(Event.HELD, self.clock.now(), why=why))
                job.stop = job.stop or StopReason.PAUSE

    def released(self, job: Job) -> None:
        """A held job goes back to the line."""
        with job.lock:
            if job.ledger.held is not None:
                self._write(job, journal.line(Event.RELEASED, self.clock.now()))
                if job.stop is StopReason.PAUSE:
                    job.stop = None

    def put_first(self, job: Job) -> None:
        """Put the job in front of the line."""
        with self._lock:
            self._first += 1
            rank = self._first
        self._write(job, journal.line(Event.FIRST, self.clock.now(), rank=rank))

    def cancelled(self, job: Job) -> None:
        """Somebody said stop; the job ends once nothing of it is under way."""
        with job.lock:
            if not job.ledger.cancelled and not job.ledger.ended:
                self._write(job, journal.line(Event.CANCEL, self.clock.now()), show=False)
                job.stop = StopReason.CANCEL

    def notice(self, job: Job, text: str) -> None:
        """Say what was done otherwise than asked."""
        self._write(job, journal.line(Event.NOTICE, self.clock.now(), text=text))

    def ended(self, job: Job, state: State, error: Failure | None = None, problems: Iterable[Problem] = ()) -> None:
        """The job ends in `state`; durable when this returns, so that its live marker may go."""
        with job.lock:
            if job.ledger.ended:
                return
            rows = [{key: value for key, value in asdict(problem).items() if value} for problem in problems]
            line = journal.line(
                Event.ENDED, self.clock.now(), state=state.value, error=asdict(error) if error else None, problems=rows
            )
            self._write(job, line, sync_status=True)

    def forget(self, job: Job) -> None:
        """Let go of a job that has ended."""
        with self._lock:
            self.live.pop(job.name, None)
        durable.remove(self._markers / job.name)

    def reopen(self, name: str, *, force: bool) -> Job | None:
        """Take up an ended job again; None where there is nothing to go on with."""
        folder = self._outputs / name
        split = names.split_take(name)
        if split is None or not folder.is_dir():
            return None
        self._mark([name])
        job = self._load(folder, *split)
        if job is None or job.ledger.state not in {State.FAILED, State.CANCELLED, State.PARTIAL}:
            durable.remove(self._markers / name)
            return None
        with self._lock:
            self.live[name] = job
        self._write(job, journal.line(Event.RESUMED, self.clock.now(), force=force))
        if job.ledger.plan_sha256:
            self._lay_out(job, self.plan(job))
        return job

    def newest(self, stem: str) -> Iterator[str]:
        """Return the names of the takes that stand, newest first."""
        for take in range(self._takes.get(stem, 0), 0, -1):
            folder = names.take_folder(stem, take)
            if (self._outputs / folder).is_dir():
                yield folder

    def ledger_of(self, name: str) -> Ledger | None:
        """Read the journal of any job, live or ended; None where there is none."""
        if name in self.live:
            return self.live[name].ledger
        try:
            return journal.read(self._outputs / name)
        except OSError:
            return None

    def answer(self, name: str, text: str) -> None:
        """Put a notice on any job, live or ended."""
        job = self.live.get(name)
        split = names.split_take(name)
        if job is None and split is not None:
            job = self._load(self._outputs / name, *split)
        if job is not None:
            self.notice(job, text)

    def plan(self, job: Job) -> Plan:
        """Return the plan of a job that has one."""
        return self._plan(job.folder / PLAN_FILE, job.ledger.plan_sha256)

    @functools.lru_cache(maxsize=16)  # noqa: B019 - a spool lives as long as its process
    def _plan(self, path: Path, sha256: str | None) -> Plan:  # noqa: ARG002 - the hash is the key
        return Plan.load(path.read_bytes())

    def show(self, job: Job, *, sync: bool = False) -> None:
        """Write the job's status file from what is known now."""
        with job.lock:
            if job.gone:
                return
            plan = self.plan(job) if job.ledger.plan_sha256 else None
            try:
                status.write(job.folder, status.job_status(job.name, job.ledger, plan, job.progress), sync=sync)
            except FileNotFoundError:
                self._lost(job)

    # --- after a crash ---

    def recover(self) -> list[Job]:
        """Read what is live, mend what a crash left, and return the jobs in the order in which they came.

        Costs what is live; only where the markers themselves are missing is all of outputs/ read.
        """
        for entry in os.scandir(self._outputs):
            split = names.split_take(entry.name)
            if entry.name.startswith(".") and entry.name.endswith(".new"):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif split is not None and entry.is_dir(follow_symlinks=False):
                self._takes[split[0]] = max(split[1], self._takes.get(split[0], 0))
        if not self._markers.is_dir():
            self._make_markers()
        jobs = [job for name in os.listdir(self._markers) if (job := self._load_live(name))]
        jobs.sort(key=lambda job: job.ledger.seq)
        with self._lock:
            self.live = {job.name: job for job in jobs}
            self._seq = max((job.ledger.seq for job in jobs), default=0)
            self._first = max((job.ledger.first for job in jobs), default=0)
        for job in jobs:
            self._settle(job)
        return jobs

    def _make_markers(self) -> None:
        """The markers are a cache: made again from every journal."""
        beside = self._markers.with_name("live.new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for entry in os.scandir(self._outputs):
            if names.split_take(entry.name) is None or not entry.is_dir(follow_symlinks=False):
                continue
            with suppress(OSError):
                if not journal.read(Path(entry.path)).ended:
                    (beside / entry.name).touch()
        durable.sync_folder(beside)
        beside.rename(self._markers)
        durable.sync_folder(self._markers.parent)

    def _mark(self, live: Iterable[str]) -> None:
        for name in live:
            (self._markers / name).touch()
        durable.sync_folder(self._markers)

    def _load_live(self, name: str) -> Job | None:
        split = names.split_take(name)
        job = self._load(self._outputs / name, *split) if split else None
        if job is None:
            durable.remove(self._markers / name)
        return job

    def _load(self, folder: Path, stem: str, take: int) -> Job | None:
        """Read a job from its folder; None where there is none."""
        try:
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode):
                return None
            if not (folder / journal.FILE_NAME).exists() and not self._remake_journal(folder):
                return None
            journal.mend(folder)
            ledger = journal.read(folder)
        except OSError as error:
            _log.warning("job_unreadable", job=names.shown(folder.name), error=str(error))
            return None
        return Job(folder=folder, stem=stem, take=take, ledger=ledger, identity=(found.st_dev, found.st_ino))

    def _remake_journal(self, folder: Path) -> bool:
        """Make a lost journal again from job.toml, plan.toml and, later, the sidecars."""
        try:
            data = (folder / JOB_FILE).read_bytes()
        except OSError:
            return False
        now = self.clock.now()
        origin = Origin(file=f"{folder.name}.toml", size=len(data), mtime_ns=0, sha256=digest(data))
        lines = [
            journal.line(Event.PENDING, now, seq=0, mode=self.mode, origin=asdict(origin)),
            journal.line(Event.ADMITTED, now),
        ]
        with suppress(OSError, ValueError):
            plan = (folder / PLAN_FILE).read_bytes()
            Plan.load(plan)
            lines.append(journal.line(Event.PLANNED, now, sha256=digest(plan), notices=[]))
        lines.append(
            journal.line(Event.NOTICE, now, text="the journal was lost and made again from what is in the folder")
        )
        durable.write(folder / journal.FILE_NAME, journal.encode(*lines))
        durable.sync_folder(folder)
        return True

    def _settle(self, job: Job) -> None:
        """Bring a job that a process left behind into order: source, leftovers, state."""
        if not job.ledger.admitted:
            self._finish_admission(job)
        if job.ledger.ended:
            self.show(job, sync=True)
            return
        for left in job.folder.glob(".*.tmp"):
            durable.remove(left)
        if job.ledger.state is State.RUNNING:
            job.ledger.state = State.QUEUED
        if job.ledger.plan_sha256:
            self._lay_out(job, self.plan(job))
        if job.ledger.cancelled:
            job.stop = StopReason.CANCEL
        self.show(job)

    def _finish_admission(self, job: Job) -> None:
        """Its source may still lie in the inbox: taken away if it is the same, to the byte."""
        origin = job.ledger.origin
        if origin is None:
            return
        path = self.settings.inbox_dir / origin.file
        hidden = hidden_name(path)
        for candidate in (path, hidden):
            try:
                found = candidate.lstat()
                same = stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (
                    origin.size,
                    origin.mtime_ns,
                )
                same = same and file_sha256(candidate) == origin.sha256
                if same:
                    candidate.unlink()
                    durable.sync_folder(candidate.parent)
                elif candidate == hidden:
                    put_back(hidden, path)
            except FileNotFoundError:
                continue
            except OSError as error:
                _log.warning("source_not_removed", job=job.name, file=origin.file, error=str(error))
                return
        self._write(job, journal.line(Event.ADMITTED, self.clock.now()))

    def retry_pending(self) -> None:
        """Try again to take away the sources that could not be."""
        for job in list(self.live.values()):
            if not job.ledger.admitted:
                self._finish_admission(job)

    def pending_sources(self) -> Mapping[str, Job]:
        """Return the sources that lie in the inbox though their job is admitted, by path below the inbox."""
        with self._lock:
            return {
                job.ledger.origin.file: job
                for job in self.live.values()
                if not job.ledger.admitted and job.ledger.origin
            }

    # --- writing ---

    def _lay_out(self, job: Job, plan: Plan) -> None:
        """Make the table of the job: which candidates are still to be made."""
        job.model_key, job.priority = plan.model.key, plan.priority
        ledger = job.ledger
        job.todo = deque(
            number
            for number in range(1, plan.candidates + 1)
            if number not in ledger.done and number not in ledger.failed
        )

    def _write(
        self, job: Job, line: Mapping[str, Any], *, sync: bool = True, show: bool = True, sync_status: bool = False
    ) -> None:
        """Write a line, take it in, and show what it changes."""
        with job.lock:
            if job.gone:
                return
            try:
                durable.append(job.folder / journal.FILE_NAME, journal.encode(line), sync=sync)
            except FileNotFoundError:
                self._lost(job)
                return
            job.ledger.apply(line)
            if show:
                self.show(job, sync=sync_status)

    def _lost(self, job: Job) -> None:
        """Its folder was deleted or moved away: that cancels it."""
        if not job.gone:
            _log.warning("job_folder_gone", job=job.name)
        job.gone, job.stop = True, StopReason.CANCEL

    def check_folder(self, job: Job) -> bool:
        """Return whether the job's folder still is where it was; if not, the job is cancelled."""
        try:
            found = job.folder.lstat()
        except FileNotFoundError:
            self._lost(job)
            return False
        if (found.st_dev, found.st_ino) != job.identity:
            self._lost(job)
            return False
        return True


def take_away(seen: Seen) -> bool:
    """Remove a file from the inbox if it is still the one that was read; return whether it is gone.

    It is renamed first: from then on nobody can open it by its name, so that what is looked at is what is removed. A
    file that somebody writes to meanwhile gets its name back: it is the next drop.
    """
    hidden = hidden_name(seen.path)
    try:
        seen.path.rename(hidden)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        found = hidden.lstat()
        same = (found.st_size, found.st_mtime_ns, found.st_ino) == (seen.size, seen.mtime_ns, seen.inode)
        if same and lease.look(hidden) is not lease.Writer.BUSY:
            hidden.unlink()
        else:
            put_back(hidden, seen.path)
    except FileNotFoundError:
        return True
    except OSError as error:
        _log.warning("source_not_removed", file=names.shown(seen.path.name), error=str(error))
        return False
    return True


def put_back(hidden: Path, path: Path) -> None:
    """Give a file its name back, unless something newer has it: then it gets a name beside it."""
    if path.exists() and path.samefile(hidden):
        hidden.unlink()
        return
    for number in range(1, 1000):
        name = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            os.link(hidden, name)
        except FileExistsError:
            continue
        hidden.unlink()
        return


def hidden_name(path: Path) -> Path:
    """Return where a source lies between being read and being gone; short, whatever the name's length."""
    return path.with_name(f".hotfolder-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.taking")


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
