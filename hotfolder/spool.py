"""A job's folder on disk: admit, journal, status, recover. The only writer of job state.

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
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from hotfolder import durable, journal, names, status
from hotfolder.claim import Seen, claim, claim_again, is_seen
from hotfolder.clock import Clock, Moment
from hotfolder.errors import JobError, Problem
from hotfolder.foreign import file_sha256
from hotfolder.job import JOB_FILE, PLAN_FILE, SOURCES, Job, identity_of, load, remake_journal
from hotfolder.journal import Event, Failure, Ledger, Origin, Output, State, StopReason
from hotfolder.markers import Markers
from hotfolder.plan import Plan, digest
from hotfolder.settings import Settings

#: Ends that `.resume` can leave.
RESUMABLE: Final = frozenset({State.FAILED, State.CANCELLED, State.PARTIAL})
#: Plans that are kept in memory; there may be thousands of jobs in the line.
_MAX_PLANS: Final = 64
#: A folder that is being built has a dot before its name, and this behind.
_NEW: Final = ".new"

_log = structlog.get_logger(__name__)


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


class _Plans:
    """The plans that were used last, by folder and hash. Used by several threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, str | None], Plan] = {}
        self._lock = threading.Lock()

    def get(self, key: tuple[Path, str | None]) -> Plan | None:
        """Return a plan that is known, which keeps it known."""
        with self._lock:
            plan = self._known.pop(key, None)
            if plan is not None:
                self._known[key] = plan
            return plan

    def add(self, key: tuple[Path, str | None], plan: Plan) -> None:
        """Know a plan, instead of the one that was not used for longest."""
        with self._lock:
            self._known[key] = plan
            if len(self._known) > _MAX_PLANS:
                del self._known[next(iter(self._known))]


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
        self._open()
        self._plans = _Plans()
        self._takes: dict[str, int] = {}
        #: Jobs whose source could not be taken away, live or ended.
        self._pending: dict[str, Job] = {}
        #: Jobs whose end or status the disk did not take.
        self._behind: dict[str, Job] = {}
        #: File below the inbox -> what was said about why it is no job yet.
        self._not_admitted: dict[str, str] = {}
        self._seq = 0
        self._first = 0
        self._lock = threading.RLock()

    def _open(self) -> None:
        """Look which outputs/ is there: all that follows speaks of this one."""
        #: (st_dev, st_ino): what is missing from another folder is not gone.
        self._identity = identity_of(self._outputs.stat())
        self._markers = Markers(self.settings.cache_dir, self._outputs, self._identity)

    # --- admission ---

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
            with self._lock:
                self._seq += 1
                seq = self._seq
            origin = Origin(
                file=drop.file,
                size=drop.seen.size if drop.seen else len(drop.data),
                mtime_ns=drop.seen.mtime_ns if drop.seen else 0,
                sha256=sha256,
                via=drop.via,
                lane=drop.lane,
                scheduled_for=str(drop.scheduled_for) if drop.scheduled_for else None,
            )
            first = journal.opening(self.clock.now(), seq=seq, mode=self.mode, origin=origin)
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
        self._takes[drop.name] = take
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
                self._markers.set(job.name for job in built)
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
            with self._lock:
                self.live[job.name] = job
            jobs.append(job)
        return jobs

    def _unbuild(self, job: Job, error: OSError) -> None:
        """Its folder cannot get its name: the drop stays where it is."""
        assert job.ledger.origin is not None  # noqa: S101 - the first line of every journal has it
        self._warn_not_admitted(job.ledger.origin.file, error)
        shutil.rmtree(_new(job.folder), ignore_errors=True)
        with suppress(OSError):
            self._markers.remove(job.name)

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
            # No flush: should it be lost, the next start finds the job pending and its source gone.
            self._write(job, journal.line(Event.ADMITTED, self.clock.now()), sync=False, show=False)
            if job.seen is not None:
                durable.remove(_claimed(job.seen.path, job))
        except OSError as error:
            _log.warning("source_not_removed", job=job.name, error=names.shown(str(error)))
        if not job.ledger.admitted and not job.gone:
            self._pending[job.name] = job
            return
        self._pending.pop(job.name, None)
        with self._lock:
            if job.name not in self.live:
                self._markers.remove(job.name)

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

    # --- what happens to a job, each said by one line of its journal ---

    def planned(self, job: Job, plan: Plan) -> None:
        """Write plan.toml: every choice is made, the job is in the line unless it is held."""
        data = plan.dump()
        with job.lock:
            if job.gone or job.ledger.ended or job.ending:
                return  # cancelled while its pictures were copied
            durable.write(job.folder / PLAN_FILE, data)
            durable.sync_folder(job.folder)
            sha256 = digest(data)
            self._plans.add((job.folder, sha256), plan)
            self._write(job, journal.line(Event.PLANNED, self.clock.now(), sha256=sha256, notices=list(plan.notices)))
            self._lay_out(job, plan)

    def waiting(self, job: Job, pictures: Sequence[str]) -> None:
        """A picture that the job names is not there yet."""
        with job.lock:
            if job.ledger.waiting_for != tuple(pictures) and not job.ledger.ended:
                self._write(job, journal.line(Event.WAITING, self.clock.now(), pictures=list(pictures)))

    def started(self, job: Job) -> None:
        """The first cell of the job in this process begins, or the first after it was held."""
        with job.lock:
            if job.ledger.state is State.QUEUED:
                self._write(job, journal.line(Event.STARTED, self.clock.now(), run_id=self.run_id))

    def done(self, job: Job, output: Output, *, last: bool = False) -> None:
        """A candidate's picture is on disk. With `last` the job ends at once: both lines share a flush and a status."""
        line = journal.line(Event.DONE, self.clock.now(), output=asdict(output))
        self._write(job, line, sync=not last, show=not last)

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
        """The job ends in `state`.

        Where the disk does not take that, it is noted by `catch_up` as soon as it does; `settled` tells.
        """
        with job.lock:
            if job.ledger.ended or job.ending:
                return
            rows = [{key: value for key, value in asdict(problem).items() if value} for problem in problems]
            job.ending = journal.line(
                Event.ENDED, self.clock.now(), state=state.value, error=asdict(error) if error else None, problems=rows
            )
            self._end(job)

    def _end(self, job: Job) -> None:
        assert job.ending is not None  # noqa: S101 - set by the caller
        try:
            self._write(job, job.ending, sync_status=True)
        except OSError as error:
            self._behind[job.name] = job
            _log.warning("end_not_written", job=job.name, error=names.shown(str(error)))
        else:
            job.ending = None

    def catch_up(self) -> list[Job]:
        """Write again what the disk did not take; return the jobs whose end is durable by now."""
        caught = []
        for job in list(self._behind.values()):
            with job.lock:
                if job.ending is not None:
                    self._end(job)
                if job.stale:
                    with suppress(OSError):
                        self.show(job, sync=job.ledger.ended)
                if job.gone or (job.ending is None and not job.stale):
                    self._behind.pop(job.name, None)
                    if job.ledger.ended:
                        caught.append(job)
        return caught

    def settled(self, job: Job) -> bool:
        """Whether the end of a job is on disk, and readable, so that it may be let go of; once."""
        with self._lock:
            is_live = self.live.get(job.name) is job
        return is_live and (job.gone or (job.ledger.ended and job.ending is None and not job.stale))

    def forget(self, job: Job) -> None:
        """Let go of a job that has ended. One whose source still lies in the inbox keeps its marker."""
        with self._lock:
            if self.live.get(job.name) is not job:
                return
            del self.live[job.name]
            if job.name not in self._pending:
                with suppress(OSError):
                    self._markers.remove(job.name)

    def reopen(self, name: str, *, force: bool) -> Job | None:
        """Take up an ended job again; None where there is nothing to go on with."""
        split = names.split_take(name)
        if split is None:
            return None
        with self._lock:
            before = self.live.get(name)
            if before is not None and not before.ledger.ended:
                return None
            job = self._load_or_none(name)
            if job is None or job.ledger.state not in RESUMABLE:
                return None
            try:
                plan = self._plan(job, force=force or job.ledger.force) if job.ledger.plan_sha256 else None
            except JobError as error:
                self.notice(job, f"resume: {error.message}")
                return None
            self._markers.set([name])
            # From here on whoever still lets go of the job that ended finds that it is another one's.
            self.live[name] = job
        with self._lock:
            self._seq += 1
            seq = self._seq
        self._write(job, journal.line(Event.RESUMED, self.clock.now(), force=force, seq=seq))
        if plan is not None:
            self._lay_out(job, plan)
        return job

    def newest(self, stem: str) -> Iterator[str]:
        """Return the names of the takes that stand, newest first."""
        for take in range(self._takes.get(stem, 0), 0, -1):
            folder = names.take_folder(stem, take)
            if (self._outputs / folder).is_dir():
                yield folder

    def ledger_of(self, name: str) -> Ledger | None:
        """Read the journal of any job, live or ended; None where there is none."""
        job = self.live.get(name)
        if job is not None:
            return job.ledger
        try:
            return journal.read(self._outputs / name)
        except OSError:
            return None

    def answer(self, name: str, text: str) -> None:
        """Put a notice on any job, live or ended."""
        job = self.live.get(name) or self._load_or_none(name)
        if job is not None:
            self.notice(job, text)

    def plan(self, job: Job) -> Plan:
        """Return the plan of a job that has one.

        Raises:
            JobError: `changed-file`: plan.toml is not as it was written.
        """
        return self._plan(job, force=job.ledger.force)

    def plan_if_any(self, job: Job) -> Plan | None:
        """Return the plan of a job, for what only shows it; None where it has none that can be read."""
        with suppress(JobError, OSError):
            return self.plan(job) if job.ledger.plan_sha256 else None
        return None

    def _plan(self, job: Job, *, force: bool) -> Plan:
        key = (job.folder, job.ledger.plan_sha256)
        known = self._plans.get(key)
        if known is not None:
            return known
        hint = "put it back as it was, or drop job.toml again"
        try:
            data = (job.folder / PLAN_FILE).read_bytes()
            if digest(data) != job.ledger.plan_sha256 and not force:
                raise JobError("changed-file", f"{PLAN_FILE} is not the one that was written", hint)
            plan = Plan.load(data)
        except (FileNotFoundError, ValueError) as error:
            raise JobError("changed-file", f"{PLAN_FILE} cannot be read any more", hint) from error
        self._plans.add(key, plan)
        return plan

    def show(self, job: Job, *, sync: bool = False) -> None:
        """Write the job's status file from what is known now.

        Raises:
            OSError: it cannot be written; `catch_up` tries again.
        """
        with job.lock:
            if job.gone:
                return
            data = status.job_status(job.name, job.ledger, self.plan_if_any(job), job.progress)
            try:
                status.write(job.folder, data, sync=sync)
                job.stale = False
            except OSError as error:
                if self.check_folder(job):
                    if not job.stale:
                        _log.warning("status_not_written", job=job.name, error=names.shown(str(error)))
                    job.stale = True
                    self._behind[job.name] = job
                    raise

    # --- after a crash ---

    def recover(self) -> list[Job]:
        """Read what is live, mend what a crash left, and return the jobs in the order in which they came.

        Costs what is live; only where the markers themselves are missing is all of outputs/ read.
        """
        self._open()
        for entry in os.scandir(self._outputs):
            if entry.name.startswith(".") and entry.name.endswith(_NEW) and names.split_take(entry.name[: -len(_NEW)]):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif (split := names.split_take(entry.name)) is not None and entry.is_dir(follow_symlinks=False):
                self._takes[split[0]] = max(split[1], self._takes.get(split[0], 0))
        jobs = [job for name in self._markers.names() if (job := self._load_live(name))]
        jobs.sort(key=lambda job: job.ledger.seq)
        with self._lock:
            self.live = {job.name: job for job in jobs}
            self._seq = max((job.ledger.seq for job in jobs), default=0)
            self._first = max((job.ledger.first for job in jobs), default=0)
        for job in jobs:
            self._settle(job)
        return jobs

    def _load_live(self, name: str) -> Job | None:
        try:
            return load(self._outputs / name, self.clock.now(), self.mode)
        except (FileNotFoundError, NotADirectoryError):
            self._markers.remove(name)
        except OSError as error:
            # Perhaps it can be read the next time: the marker stays.
            _log.warning("job_unreadable", job=names.shown(name), error=names.shown(str(error)))
        return None

    def _load_or_none(self, name: str) -> Job | None:
        try:
            return load(self._outputs / name, self.clock.now(), self.mode)
        except OSError as error:
            _log.warning("job_unreadable", job=names.shown(name), error=names.shown(str(error)))
            return None

    def _settle(self, job: Job) -> None:
        """Bring a job that a process left behind into order: source, leftovers, state.

        What cannot be written now, on a full disk say, changes nothing in what goes on.
        """
        try:
            for left in (*job.folder.glob(".*.tmp"), *(job.folder / SOURCES).glob(".*.tmp")):
                durable.remove(left)
            self._find_source(job)
        except OSError as error:
            _log.warning("not_tidied", job=job.name, error=names.shown(str(error)))
        if job.ledger.state is State.RUNNING:
            job.ledger.state = State.QUEUED
        if job.ledger.cancelled:
            job.stop = StopReason.CANCEL
        if job.ledger.plan_sha256 and not job.ledger.ended:
            try:
                self._lay_out(job, self.plan(job))
            except (JobError, OSError) as error:
                code, hint = (error.code, error.hint) if isinstance(error, JobError) else ("cannot-write", "")
                self.ended(job, State.FAILED, Failure(code=code, message=str(error), hint=hint))
        with suppress(OSError):
            self.show(job, sync=job.ledger.ended)

    def _find_source(self, job: Job) -> None:
        """Look for what made a job under its own name and the one it has while it is taken away; compared to the byte.

        A job that is not `pending` has nothing under its own name any more: what lies there is a new drop.
        """
        origin = job.ledger.origin
        if origin is None or origin.scheduled_for is not None:
            if not job.ledger.admitted:
                self._admitted(job)
            return
        path = self.settings.inbox_dir / origin.file
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

    def _finish_admission(self, job: Job) -> None:
        """Take the source of a `pending` job away, if it still is what it was."""
        try:
            if job.seen is not None and not claim_again(job.seen, _claimed(job.seen.path, job)):
                self._pending[job.name] = job
                return
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

    # --- writing ---

    def _lay_out(self, job: Job, plan: Plan) -> None:
        """Make the table of the job: which candidates are still to be made."""
        job.model_key, job.priority = plan.model.key, plan.priority
        job.weight = plan.generate.steps * plan.generate.width * plan.generate.height / 1e6
        ledger = job.ledger
        job.todo = deque(
            number
            for number in range(1, plan.candidates + 1)
            if number not in ledger.done and number not in ledger.failed
        )

    def _write(
        self, job: Job, line: Mapping[str, Any], *, sync: bool = True, show: bool = True, sync_status: bool = False
    ) -> None:
        """Write a line, take it in, and show what it changes.

        Raises:
            OSError: the line could not be written: what it says has not happened.
        """
        with job.lock:
            if job.gone:
                return
            try:
                journal.append(job.folder, line, sync=sync)
            except FileNotFoundError:
                if not self.check_folder(job):
                    return
                remake_journal(job.folder, self.clock.now(), self.mode)
                journal.append(job.folder, line, sync=sync)
            job.ledger.apply(line)
            if show:
                # The line stands; its status is written again by `catch_up`.
                with suppress(OSError):
                    self.show(job, sync=sync_status)

    def _lost(self, job: Job) -> None:
        """Its folder was deleted or moved away: that cancels it."""
        if not job.gone:
            _log.warning("job_folder_gone", job=job.name)
        job.gone, job.stop = True, StopReason.CANCEL

    def check_folder(self, job: Job) -> bool:
        """Return whether the job's folder still is where it was; if not, the job is cancelled.

        While outputs/ itself is not there, or another disk is mounted over it, nothing is known to be gone.
        """
        try:
            if identity_of(job.folder.lstat()) == job.identity:
                return True
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            return True
        if not self.outputs_stand:
            return True
        self._lost(job)
        return False

    @property
    def outputs_stand(self) -> bool:
        """Whether outputs/ still is the folder that was recovered from."""
        try:
            return identity_of(self._outputs.stat()) == self._identity
        except OSError:
            return False


def _new(folder: Path) -> Path:
    """Return where the folder of a job is built."""
    return folder.with_name(f".{folder.name}{_NEW}")


def _claimed(path: Path, job: Job) -> Path:
    """Return where the source of a job lies between losing its name and being gone."""
    return path.with_name(f".hotfolder-{job.name}.taking")
