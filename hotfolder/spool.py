"""A job's folder on disk: journal, status, recover. The only writer of job state; `admission` makes new ones."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from hotfolder import durable, journal, logs, names, status
from hotfolder.admission import Admission, Drop, Fill
from hotfolder.clock import Clock
from hotfolder.engine import StopReason
from hotfolder.errors import JobError, Problem
from hotfolder.job import PLAN_FILE, SOURCES, Job, ReadCells, identity_of, load, remake_journal
from hotfolder.journal import Event, Failure, Kept, Ledger, Output, State
from hotfolder.plan import Plan, digest
from hotfolder.plans import Plans
from hotfolder.settings import Settings
from hotfolder.stagekeys import Generating
from hotfolder.table import Progressed, Table

#: Ends that `.resume` can leave.
RESUMABLE: Final = frozenset({State.FAILED, State.CANCELLED, State.PARTIAL})
#: The status of a job with more candidates left than this is written at most so often while it runs.
_LARGE: Final = 50
_SHOW_EVERY_S: Final = 0.5

_log = logs.logger(__name__)


class Spool:
    """The jobs of one workspace that are live, and their folders."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        run_id: str,
        mode: str = "queued",
        read_cells: ReadCells = lambda _folder: (),
    ) -> None:
        """Open the workspace's jobs.

        Args:
            run_id: of this process.
            mode: "queued" or "direct".
            read_cells: what the pictures in work/ of a job say of their cells, for a journal that was lost.
        """
        self._read_cells = read_cells
        self.settings = settings
        self.clock = clock
        self.run_id = run_id
        self.mode = mode
        self.live: dict[str, Job] = {}
        self._outputs = settings.outputs_dir
        self._plans = Plans()
        self._admission = Admission(settings, clock, mode, self.live, self._write)
        #: Jobs whose end or status the disk did not take.
        self._behind: dict[str, Job] = {}
        #: Jobs whose counts changed since their status was written.
        self.unshown: set[str] = set()
        self._first = 0
        self._lock = self._admission.lock

    # --- new takes ---

    def admit(self, drops: Sequence[Drop]) -> list[Job]:
        """Make a job of each drop; see `admission`."""
        return self._admission.admit(drops)

    def branch(self, before: Path, plan: Plan, fill: Fill, *, force: bool) -> Job:
        """Make the next take of an ended job, which goes on from a part of what that one has made.

        Raises:
            OSError: it cannot be built; nothing of it stays.
        """
        job, plan = self._admission.branch(before, plan, fill, force=force)
        self._plans.add(job.folder, job.ledger.plan_sha256 or "", plan, len(plan.dump()))
        self._lay_out(job, plan)
        return job

    def retry_pending(self) -> None:
        """Try again to take away the sources that could not be."""
        self._admission.retry_pending()

    def pending_sources(self) -> Mapping[str, Job]:
        """Return the sources that lie in the inbox though their job is admitted, by path below the inbox."""
        return self._admission.pending_sources()

    def newest(self, stem: str) -> Iterator[str]:
        """Return the names of the takes that stand, newest first."""
        return self._admission.newest(stem)

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
            self._plans.add(job.folder, sha256, plan, len(data))
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

    def replanned(self, job: Job, plan: Plan) -> None:
        """Some keys were changed for what is still to be made: plan_02.toml and so on.

        Raises:
            OSError: it was not written; the plan before holds.
        """
        data, number = plan.dump(), 2
        while (job.folder / f"plan_{number:02d}.toml").exists():
            number += 1
        file = f"plan_{number:02d}.toml"
        with job.lock:
            durable.write(job.folder / file, data)
            durable.sync_folder(job.folder)
            sha256 = digest(data)
            self._plans.add(job.folder, sha256, plan, len(data))
            text = f"from here on {file} holds"
            self._write(job, journal.line(Event.PLANNED, self.clock.now(), sha256=sha256, file=file, notices=[text]))

    def passed(self, job: Job, line: Mapping[str, Any]) -> Kept:
        """A cell is done: its pictures are on disk, and `line` says so; see `checkpoint`."""
        with job.lock:
            self._write(job, line, show=False)
            self._show_soon(job)
            return job.ledger.cells[line["candidate"]][line["stage"]]

    def chose(self, job: Job, stage: int, item: int, kept: Sequence[int], scores: Mapping[str, float]) -> None:
        """A stage chose which candidates of an item go on, the best first."""
        chosen = [[stage, item, list(kept)]]
        self._write(job, journal.line(Event.CHOSEN, self.clock.now(), chosen=chosen, scores=dict(scores)))

    def in_review(self, job: Job) -> None:
        """All that is left to do waits for a person to pick."""
        with job.lock:
            if job.ledger.state is not State.REVIEW and not job.ledger.ended:
                self._write(job, journal.line(Event.REVIEW, self.clock.now()), sync_status=True)

    def picked(self, job: Job, chosen: Sequence[tuple[int, int, Sequence[int]]], *, force: bool) -> None:
        """A person picked: (stage, item, candidates) each."""
        rows = [[stage, item, list(kept)] for stage, item, kept in chosen]
        with job.lock:
            self._write(job, journal.line(Event.PICKED, self.clock.now(), chosen=rows, force=force))

    def retried(self, job: Job, failure: Failure, tries: int) -> None:
        """A cell failed for a reason that may pass: it was tried so often."""
        self._write(job, journal.line(Event.RETRY, self.clock.now(), error=asdict(failure), tries=tries))

    def done(self, job: Job, outputs: Sequence[Output], *, last: bool = False) -> None:
        """A candidate's pictures are on disk. With `last` the job ends at once, and both lines share a flush."""
        line = journal.line(Event.DONE, self.clock.now(), outputs=[asdict(output) for output in outputs])
        self._write(job, line, sync=not last, show=False)
        if not last:
            self._show_soon(job)

    def failed(self, job: Job, *failures: Failure) -> None:
        """Candidates cannot be finished; the others go on."""
        lines = [journal.line(Event.FAILED, self.clock.now(), error=asdict(failure)) for failure in failures]
        if lines:
            self._write(job, *lines)

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
                        self.show(job)
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
            self._admission.forget(job)
        self._plans.forget(job)

    def reopen(self, name: str, *, force: bool, change: Callable[[Plan], Plan] | None = None) -> Job | None:
        """Take up an ended job again; None where there is nothing to go on with.

        Args:
            change: what is to be otherwise in the plan of what is still to be made.

        Raises:
            JobError: the plan cannot be changed like that.
        """
        split = names.split_take(name)
        if split is None:
            return None
        with self._lock:
            before = self.live.get(name)
            if before is not None and not before.ledger.ended:
                return None
            job = self._load_or_none(name)
            # One that is not live has stopped, whatever the last line of its journal says.
            if job is None or job.ledger.state in {State.COMPLETED, State.REJECTED}:
                return None
            plan = self._plans.of(job) if job.ledger.plan_sha256 else None
            changed = change(plan) if change is not None and plan is not None else None
            self._admission.markers.set([name])
            # From here on whoever still lets go of the job that ended finds that it is another one's.
            self.live[name] = job
        seq = self._admission.next_seq()
        self._write(job, journal.line(Event.RESUMED, self.clock.now(), force=force, seq=seq))
        if changed is not None:
            self.replanned(job, changed)
        if plan is not None:
            self._lay_out(job, changed or plan)
        return job

    def load_ended(self, name: str) -> Job | None:
        """Read a job that has ended; None where it has not, or cannot be read."""
        job = self.live.get(name)
        return None if job is not None and not job.ledger.ended else self._load_or_none(name)

    def lay_out(self, job: Job) -> None:
        """Make the table of a job, whose plan could not be read before.

        Raises:
            JobError: see `plan`.
            OSError: it still cannot be read.
        """
        with job.lock:
            if job.table is None and job.ledger.plan_sha256 and not job.ledger.ended:
                self._lay_out(job, self.plan(job))

    def lay_out_again(self, job: Job, plan: Plan) -> None:
        """Make the table of a job anew, whose plan was changed while nothing of it is under way."""
        self._lay_out(job, plan)

    def ledger_of(self, name: str) -> Ledger | None:
        """Read the journal of any job, live or ended; None where there is none."""
        job = self.live.get(name)
        if job is not None:
            return job.ledger
        try:
            return journal.read(self._outputs / name)
        except OSError:
            job = self._load_or_none(name)
            return None if job is None else job.ledger

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
        return self._plans.of(job)

    def plan_if_any(self, job: Job) -> Plan | None:
        """Return the plan of a job, for what only shows it; None where it has none that can be read."""
        with suppress(JobError, OSError):
            return self.plan(job) if job.ledger.plan_sha256 else None
        return None

    def show(self, job: Job, *, sync: bool = False) -> None:
        """Write the job's status file from what is known now.

        That of a job that ended is flushed whatever `sync` says: no start would write it again.

        Raises:
            OSError: it cannot be written; `catch_up` tries again.
        """
        with job.lock:
            if job.gone:
                return
            job.shown_at = self.clock.monotonic()
            self.unshown.discard(job.name)
            data = status.job_status(job.name, job.ledger, self.plan_if_any(job), job.table, job.progress)
            try:
                status.write(job.folder, data, sync=sync or job.ledger.ended)
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
        self._admission.open()
        self._admission.look_around()
        gone: set[str] = set()
        jobs = [job for name in self._admission.markers.names() if (job := self._load_live(name, gone))]
        jobs.sort(key=lambda job: job.ledger.seq)
        with self._lock:
            self.live.clear()
            self.live.update((job.name, job) for job in jobs)
            self._admission.last_seq = max((job.ledger.seq for job in jobs), default=0)
            self._first = max((job.ledger.first for job in jobs), default=0)
        for job in jobs:
            self._settle(job)
        self._admission.clear_claimed(gone)
        for name in gone:
            self._admission.markers.remove(name)
        return jobs

    def _load_live(self, name: str, gone: set[str]) -> Job | None:
        try:
            return load(self._outputs / name, self.clock.now(), self.mode, self._read_cells)
        except (FileNotFoundError, NotADirectoryError):
            gone.add(name)
        except OSError as error:
            # Perhaps it can be read the next time: the marker stays.
            _log.warning("job_unreadable", job=names.shown(name), error=names.shown(str(error)))
        return None

    def _load_or_none(self, name: str) -> Job | None:
        try:
            return load(self._outputs / name, self.clock.now(), self.mode, self._read_cells)
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
            self._admission.find_source(job)
        except OSError as error:
            _log.warning("not_tidied", job=job.name, error=names.shown(str(error)))
        if job.ledger.state is State.RUNNING:
            job.ledger.state = State.QUEUED
        if job.ledger.cancelled:
            job.stop = StopReason.CANCEL
        if job.ledger.plan_sha256 and not job.ledger.ended:
            try:
                self._lay_out(job, self.plan(job))
            except OSError as error:
                # Perhaps it can be read the next time: see `lay_out`.
                _log.warning("not_laid_out", job=job.name, error=names.shown(str(error)))
            except JobError as error:
                self.ended(job, State.FAILED, Failure(code=error.code, message=error.message, hint=error.hint))
            except Exception as error:  # noqa: BLE001 - whatever it is
                # One job's damage is no reason not to serve the others.
                _log.exception("not_laid_out", job=job.name)
                message = f"{job.ledger.plan_file} and journal do not fit: {type(error).__name__}: {error}"
                self.ended(job, State.FAILED, Failure(code="internal", message=names.shown(message)))
        with suppress(OSError):
            self.show(job)

    # --- writing ---

    def _lay_out(self, job: Job, plan: Plan) -> None:
        """Make the table of the job: which of its cells are still to be run."""
        job.priority = plan.priority
        item, ledger = plan.item(1), job.ledger
        first = next(
            (stage for stage in range(1, len(plan.stages) + 1) if isinstance(item.keys(stage), Generating)), None
        )
        if first is not None:
            told = item.generation(first)
            job.model_key = item.model_key(first)
            job.weight = told.steps * (told.width or 1024) * (told.height or 1024) / 1e6
        self._fail_what_misses_a_picture(job, plan)
        job.table = Table(
            plan,
            Progressed(cells=ledger.cells, done=ledger.done, failed=ledger.failed.keys() - {0}, chosen=ledger.chosen),
        )

    def _fail_what_misses_a_picture(self, job: Job, plan: Plan) -> None:
        """Fail the candidates of items whose picture is bad or did not come."""
        if not plan.missing:
            return
        failures = [
            Failure(code=one.code, message=one.message, hint=one.hint, candidate=candidate, item=item)
            for item in range(1, plan.items + 1)
            if (one := plan.item(item).missing()) is not None
            for candidate in plan.candidates_of(item)
            if candidate not in job.ledger.failed
        ]
        self.failed(job, *failures)

    def _write(
        self, job: Job, *lines: Mapping[str, Any], sync: bool = True, show: bool = True, sync_status: bool = False
    ) -> None:
        """Write lines, take them in, and show what they change.

        Raises:
            OSError: they could not be written: what they say has not happened.
        """
        with job.lock:
            if job.gone:
                return
            try:
                at = journal.append(job.folder, *lines, sync=sync)
            except FileNotFoundError:
                if not self.check_folder(job):
                    return
                remake_journal(job.folder, self.clock.now(), self.mode, list(self._read_cells(job.folder)))
                # Its lines begin elsewhere now.
                job.ledger.cells = journal.read(job.folder).cells
                at = journal.append(job.folder, *lines, sync=sync)
            for line in lines:
                job.ledger.apply(line, at)
                at += len(journal.encode(line))
            if show:
                # The lines stand; its status is written again by `catch_up`.
                with suppress(OSError):
                    self.show(job, sync=sync_status)

    def _show_soon(self, job: Job) -> None:
        """Write the status of a job whose counts changed: at once, but for a large job not at every cell."""
        now = self.clock.monotonic()
        if job.table is None or job.table.open < _LARGE or now - job.shown_at >= _SHOW_EVERY_S:
            with suppress(OSError):
                self.show(job)
        else:
            self.unshown.add(job.name)

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
            return identity_of(self._outputs.stat()) == self._admission.identity
        except OSError:
            return False
