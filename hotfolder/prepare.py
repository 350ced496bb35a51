"""From admitted to queued: read the job, take its pictures, make the plan. On a thread of its own."""

import os
import secrets
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Final, Literal, assert_never

from hotfolder import batch, durable, jobfile, lanes, logs, names, rejected, run, sources, takes, tomltext
from hotfolder.batch import Found
from hotfolder.clock import Moment
from hotfolder.dropped import read_plan, wishes_of_plan
from hotfolder.errors import HotfolderError, JobError, Problem, Rejected
from hotfolder.foreign import file_sha256
from hotfolder.job import JOB_FILE, SOURCES, Job
from hotfolder.jobfile import JobFile
from hotfolder.journal import Failure, State
from hotfolder.kindkeys import MAX_SEED
from hotfolder.lanes import LaneDefaults
from hotfolder.plan import MissingSource, Plan, Source
from hotfolder.planning import Wish, check_places, check_size, make_plan, wishes_of
from hotfolder.presets import Presets, shipped_dir
from hotfolder.settle import Settler
from hotfolder.shop import Shop, failure_of, job_log

#: How often a job that waits for a picture is looked at again.
_LOOK_AGAIN_S: Final = 0.25
#: Pictures dropped together with their job are there, and whole in a moment: not worth calling the job waiting.
_SETTLING_S: Final = 2.0
#: For so long a job waits for the drops that are being admitted: they are on disk the sooner, it is in any case.
_COURTESY_S: Final = 0.05
#: A pattern has found all that it will once nothing of it changed for so long.
_GLOB_SETTLE_S: Final = 3.0
#: Files that are copied before other jobs get their turn.
_TAKEN_A_PASS: Final = 20
_MAX_PROBLEMS: Final = 100
#: Files that a job says it waits for.
_MAX_WAITING_FOR: Final = 20

_log = logs.logger(__name__)


@dataclass(kw_only=True)
class _Pending:
    """A job on its way to the line."""

    job: Job
    #: What was read: a job file, or the plan that was dropped.
    text: JobFile | Plan | None = None
    wishes: tuple[Wish, ...] = ()
    #: What its batch names: the list of items, and what its patterns found.
    items: Source | None = None
    found: Found = field(default_factory=Found)
    #: Pattern -> what it found, and since when that is so.
    seen: dict[str, tuple[tuple[object, ...], float]] = field(default_factory=dict)
    #: What was taken already, in passes: a large batch lets others in between.
    taken: dict[tuple[str, str], Source] = field(default_factory=dict)
    #: What some items need and cannot have.
    lost: dict[tuple[str, str], MissingSource] = field(default_factory=dict)
    #: Where the pictures lie, of those that were found.
    paths: set[Path] = field(default_factory=set)
    #: What was taken otherwise than asked.
    notices: list[str] = field(default_factory=list)
    #: Jobs whose pictures it names and which have not finished them; replaced whole, looked at by others too.
    waits_on: frozenset[str] = frozenset()
    since: float
    #: From when on it has waited for its pictures: its drop, or when somebody took it up again.
    asked_at: Moment
    #: Why it could not be brought further; said once.
    trouble: str = ""


class Preparer:
    """Prepares jobs in the order in which they came; one that waits for a picture lets the others pass."""

    def __init__(self, shop: Shop, presets: Presets, settler: Settler) -> None:
        """`settler` tells which pictures are whole; it belongs to this thread."""
        self._shop = shop
        self._settings = shop.spool.settings
        self._clock = shop.clock
        self.presets = presets
        self._settler = settler
        self._new: deque[_Pending] = deque()
        self._waiting: dict[str, _Pending] = {}
        #: Pictures to remove once no job names them any more.
        self._used: dict[Path, str] = {}
        #: Since when it is at one job.
        self._since: float | None = None
        self._wake = threading.Event()
        self._free = threading.Event()
        self._free.set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prepare")

    def start(self) -> None:
        """Begin; before a job can end: its pictures are to be known by then."""
        try:
            self._remember_used()
        except Exception as error:  # noqa: BLE001 - a picture that stays is no reason not to begin
            self._tell(error)
        self._thread.start()

    def stop(self) -> None:
        """End after the job under way; the others are read again at the next start."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def submit(self, job: Job, *, again: bool = False) -> None:
        """Take a job that was admitted, or taken up `again` without a plan: its pictures then have the time anew."""
        now = self._clock.now()
        asked_at = now if again else job.ledger.queued_at or now
        self._new.append(_Pending(job=job, since=self._clock.monotonic(), asked_at=asked_at))
        self._wake.set()

    def wake(self) -> None:
        """Something changed in the inbox: look again for what jobs wait for."""
        self._wake.set()

    def hold(self) -> None:
        """Drops are being admitted: begin no job for a moment, since both would wait for each other's turns."""
        self._free.clear()

    def let_go(self) -> None:
        """They are; go on."""
        self._free.set()

    def knows(self, job: Job) -> bool:
        """Whether the job is on its way already."""
        return any(pending.job is job for pending in (*self._new, *self._waiting.values()))

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def busy_s(self) -> float:
        """For how long it has been at one job."""
        since = self._since
        return 0.0 if since is None else self._clock.monotonic() - since

    @property
    def idle(self) -> bool:
        """Whether no job is on its way to the line, but for those that wait for what a person holds."""
        return not self._new and all(self._waits_for_a_person(pending) for pending in list(self._waiting.values()))

    def _waits_for_a_person(self, pending: _Pending) -> bool:
        live = self._shop.spool.live
        jobs = [job for name in self._waits_on(pending.waits_on) if (job := live.get(name)) is not None]
        return any(job.ledger.held is not None or job.ledger.state is State.REVIEW for job in jobs)

    def _run(self) -> None:
        while not self._stop.is_set():
            # The intake wakes it after each of its passes.
            self._wake.wait(_LOOK_AGAIN_S if self._waiting else None)
            self._wake.clear()
            try:
                self._pass()
            except Exception as error:  # noqa: BLE001 - the thread must go on
                self._tell(error)
            self._since = None
        self._remove_used()

    def _tell(self, error: Exception) -> None:
        _log.error("not_prepared", error=names.shown(str(error)), exc_info=logs.bug(error))

    def _pass(self) -> None:
        """Look once at everything that is on its way."""
        waiting = list(self._waiting.values())
        while self._new and not self._stop.is_set():
            pending = self._new[0]
            # First here, then gone from there: it is never nowhere.
            self._waiting[pending.job.name] = pending
            self._new.popleft()
            self._try(pending)
        for pending in waiting:
            if self._waiting.get(pending.job.name) is pending and not self._stop.is_set():
                self._try(pending)
        if not self._waiting:
            self._settler.forget_all_but(())
        self._release_lanes()
        self._remove_used()

    def _try(self, pending: _Pending) -> None:
        """Bring one job as far as it goes; whatever happens, the thread goes on."""
        job = pending.job
        self._free.wait(_COURTESY_S)
        self._since = self._clock.monotonic()
        try:
            if job.gone or job.ledger.ended or job.ledger.cancelled:
                done = True
                run.conclude(self._shop, job)
            else:
                done = self._prepare(pending)
        except Rejected as error:
            self._reject(job, error)
            done = True
        except HotfolderError as error:
            run.end(self._shop, job, State.FAILED, failure_of(error))
            done = True
        except OSError as error:
            # A full disk, a share that is away: the job stays where it is and is tried again.
            if pending.trouble != str(error):
                _log.warning("not_prepared", job=job.name, error=names.shown(str(error)))
            pending.trouble = str(error)
            done = False
        except Exception as error:  # noqa: BLE001 - one job's bug is not the thread's end
            _log.exception("not_prepared", job=job.name)
            run.end(self._shop, job, State.FAILED, failure_of(error))
            done = True
        if done:
            del self._waiting[job.name]

    def _prepare(self, pending: _Pending) -> bool:
        """Return whether the job is done with here: in the line, held or ended."""
        job = pending.job
        if not self._shop.spool.check_folder(job):
            run.conclude(self._shop, job)
            return True
        lane = self._lane(job)
        if pending.text is None or (isinstance(pending.text, JobFile) and (pending.text.globs or pending.text.items)):
            self._read(pending, lane)
            if not self._look_at_batch(pending):
                return False
            if pending.text is None:
                self._read(pending, lane)
        if not self._take_pictures(pending):
            return False
        plan = self._plan(pending)
        if lane.hold:
            # Before it has a plan: a crash in between must not let it run.
            self._shop.spool.held(job, f"lane {names.shown(_lane_of(job))}")
        self._shop.spool.planned(job, plan)
        if job.ledger.held is None:
            self._shop.line.add(job)
            run.conclude(self._shop, job)
        return True

    def _read(self, pending: _Pending, lane: LaneDefaults) -> None:
        data = (pending.job.folder / JOB_FILE).read_bytes()
        document = tomltext.parse(data)
        if document.is_own:
            plan = read_plan(document, self.presets)
            check_size(plan, self._settings.batch.max_candidates)
            check_places(plan, self._settings, document)
            pending.text, pending.wishes = plan, wishes_of_plan(plan)
        else:
            job = jobfile.read(document, self.presets, self._settings.default_preset, lane, pending.found)
            pending.text, pending.wishes = job, wishes_of(job)
            if not (job.globs or job.items):
                line = document.line_of(["matrix"]) or document.line_of(["items"])
                drafted = make_plan(pending.job.name, job, (), 0)
                check_size(drafted, self._settings.batch.max_candidates, line)
                check_places(drafted, self._settings, document)
        self._check_names(pending.wishes, document)

    def _check_names(self, wishes: tuple[Wish, ...], document: tomltext.Document) -> None:
        problems = []
        for wish in wishes:
            try:
                sources.check_name(self._settings, wish)
            except HotfolderError as error:
                path = ["stage", *wish.role.split(".")] if wish.is_asset else [wish.role]
                line = document.line_of(path) or document.line_of(["matrix", wish.role])
                problems.append(Problem(code=error.code, message=error.message, hint=error.hint, line=line))
        if problems:
            raise Rejected(problems[:_MAX_PROBLEMS])

    # --- what a batch names ---

    def _look_at_batch(self, pending: _Pending) -> bool:
        """Find the list of items and what patterns name; return False while they are not there, or still change."""
        job = pending.text
        if not isinstance(job, JobFile) or not (job.globs or job.items):
            return True
        missing: list[str] = []
        matches: dict[str, list[str]] = {}
        for glob in job.globs:
            names_found = self._settled_matches(pending, glob)
            if names_found is None:
                missing.append(glob)
            else:
                matches[glob] = names_found
        data = None
        if job.items is not None:
            data = self._take_items(pending, job.items)
            if data is None:
                missing.append(job.items)
        if missing:
            self._shop.spool.waiting(pending.job, [names.shown(name) for name in missing])
            self._give_up_late(pending, [names.shown(name) for name in missing])
            return False
        pending.found = Found(items=data, most=self._settings.batch.max_candidates, matches=matches)
        pending.text = None
        return True

    def _settled_matches(self, pending: _Pending, glob: str) -> list[str] | None:
        """Return what a pattern names once nothing of it has changed for a while; None until then."""
        if glob.startswith(takes.MARK):
            text = f"{names.shown(glob)!r} is not accepted: a pattern finds pictures in the inbox"
            raise Rejected([Problem(code="bad-value", message=text, hint='a list is: ["@mug", "@cup"]')])
        sources.check_name(self._settings, Wish(role="image", name=glob))
        found = batch.matches(self._settings.inbox_dir, _lane_of(pending.job), glob)
        now = self._clock.monotonic()
        stamp: tuple[object, ...] = tuple((name, one.st_size, one.st_mtime_ns, one.st_ino) for name, one in found)
        before = pending.seen.get(glob)
        if before is None or before[0] != stamp:
            pending.seen[glob] = (stamp, now)
            return None
        return [name for name, _ in found] if found and now - before[1] >= _GLOB_SETTLE_S else None

    def _take_items(self, pending: _Pending, name: str) -> bytes | None:
        """Copy the list of items; return what it holds, None while it is not there or is being written."""
        wish = Wish(role="items", name=name)
        found = sources.find(self._settings, wish, _lane_of(pending.job))
        if found is None or not self._is_whole(found.path):
            return None
        if found.path.stat().st_size > tomltext.MAX_OWN_BYTES:
            text = f"{names.shown(name)} has more than {tomltext.MAX_OWN_BYTES // 1024**2} MB"
            raise Rejected([Problem(code="too-large", message=text, hint="split it")])
        try:
            pending.items = sources.take(self._settings, found, pending.job.folder)
        except (FileNotFoundError, BlockingIOError):
            return None
        return (pending.job.folder / SOURCES / PurePosixPath(pending.items.file).name).read_bytes()

    # --- its pictures ---

    def _take_pictures(self, pending: _Pending) -> bool:
        """Copy and check every file; return False while one is missing, is being written, or it is others' turn."""
        job = pending.job
        missing: list[str] = []
        unsettled: list[str] = []
        unfinished: list[Wish] = []
        pending.waits_on = frozenset()
        taken = 0
        for wish in pending.wishes:
            key = (wish.role, wish.name)
            if key in pending.taken or key in pending.lost:
                continue
            if taken >= _TAKEN_A_PASS:
                self._wake.set()
                return False
            state = self._take(pending, wish)
            taken += state == "taken"
            if state == "missing":
                missing.append(names.shown(wish.name))
            elif state == "unsettled":
                unsettled.append(names.shown(wish.name))
            elif state == "unfinished":
                unfinished.append(wish)
            elif state == "unreadable":
                missing.append(f"{names.shown(wish.name)} (which we may not read)")
        job.pictures = frozenset(pending.paths)
        if not (missing or unsettled or unfinished):
            return True
        if missing or unfinished or self._clock.monotonic() - pending.since > _SETTLING_S:
            made = [names.shown(wish.name) for wish in unfinished]
            self._shop.spool.waiting(job, [*missing, *made, *unsettled][:_MAX_WAITING_FOR])
        if missing and self._is_late(pending):
            return self._do_without(pending, unfinished)
        return False

    def _take(
        self, pending: _Pending, wish: Wish
    ) -> Literal["taken", "missing", "unsettled", "unreadable", "unfinished"]:
        """Take one file, if it is there and whole; one that is bad is lost to the items that need it."""
        job = pending.job
        key = (wish.role, wish.name)
        beside = [PurePosixPath(one.file).name for one in (*pending.taken.values(), *filter(None, [pending.items]))]
        try:
            if job.ledger.origin and job.ledger.origin.via == "picture" and wish.role == "image":
                pending.taken[key] = sources.take_trigger(self._settings, job.folder, wish)
                return "taken"
            if wish.is_reference:
                meant = self._resolve(pending, wish)
                if not isinstance(meant, Wish):
                    return meant
                wish = meant
            found = sources.find(self._settings, wish, _lane_of(job))
            if found is None:
                return "missing"
            pending.paths.add(found.path)
            if not os.access(found.path, os.R_OK):
                return "unreadable"
            # A finished picture is whole.
            if not (wish.is_of_job or self._is_whole(found.path)):
                return "unsettled"
            source = sources.take(self._settings, found, job.folder, beside)
        except (FileNotFoundError, BlockingIOError):
            # It went, or is written to, between the look and the copy.
            return "unsettled"
        except JobError as error:
            if not self._shop.spool.outputs_stand:
                return "unsettled"  # what is away is not gone
            if wish.is_asset or not self._is_batch(pending):
                raise
            pending.lost[key] = MissingSource(
                role=wish.role, name=wish.name, code=error.code, message=error.message, hint=error.hint
            )
            return "taken"
        pending.taken[key] = source
        if found.base == shipped_dir() / "assets":
            where = "presets/assets/ of this workspace"
            pending.notices.append(f"there is no {names.shown(wish.name)} in {where}: the sample was used")
        if found.base == self._settings.inbox_dir:
            self._used[found.path] = source.sha256
        return "taken"

    def _resolve(self, pending: _Pending, wish: Wish) -> Wish | Literal["missing", "unfinished"]:
        """Find out which picture of another job is meant, and where it lies.

        Raises:
            JobError: `missing-picture`: it will never be there.
        """
        reference = takes.parse(wish.name)
        assert reference is not None  # noqa: S101 - its name was checked when the job was read
        meant = self._shop.takes.resolve(reference, pending.job)
        match meant:
            case takes.Finished():
                return replace(wish, place=meant.file, via=meant.file, sha256=meant.sha256)
            case takes.Unfinished():
                pending.waits_on |= frozenset(meant.jobs)
                if pending.job.name in self._waits_on(meant.jobs):
                    text = f"{names.shown(wish.name)}: {', '.join(meant.jobs)} waits for {pending.job.name} in turn"
                    raise JobError("missing-picture", text, "one of the two has to begin with another picture")
                # In direct mode nobody else makes it: then it is waited for no longer than for any other picture.
                return "missing" if self._shop.spool.mode == "direct" else "unfinished"
            case None:
                return "missing"
            case _:
                assert_never(meant)

    def _waits_on(self, jobs: Iterable[str]) -> set[str]:
        """Return these jobs, those that they wait for, those that these wait for in turn, and so on."""
        found: set[str] = set()
        ahead = set(jobs)
        while ahead:
            name = ahead.pop()
            found.add(name)
            other = self._waiting.get(name)
            ahead |= (other.waits_on if other is not None else frozenset()) - found
        return found

    @staticmethod
    def _is_batch(pending: _Pending) -> bool:
        """Whether there are several items, so that one may do without what another needs."""
        return pending.text is not None and bool(pending.text.axes)

    def _do_without(self, pending: _Pending, unfinished: Sequence[Wish]) -> bool:
        """Give up waiting: the job ends, but of a batch those items that have their pictures are made.

        What another job still makes is waited for.
        """
        limit = self._settings.inbox.source_timeout_s
        here = {*pending.taken, *pending.lost, *((wish.role, wish.name) for wish in unfinished)}
        absent = [wish for wish in pending.wishes if (wish.role, wish.name) not in here]
        if not self._is_batch(pending) or any(wish.is_asset for wish in absent):
            self._give_up_late(pending, [names.shown(wish.name) for wish in absent])
            return False
        for wish in absent:
            pending.lost[wish.role, wish.name] = MissingSource(
                role=wish.role,
                name=wish.name,
                code="missing-picture",
                message=f"{names.shown(wish.name)} did not come within {limit:.0f} s",
                hint="drop the picture, then the job again",
            )
        return not unfinished

    def _is_whole(self, path: Path) -> bool:
        try:
            return self._settler.ready(path, path.lstat())
        except FileNotFoundError:
            return False

    def _is_late(self, pending: _Pending) -> bool:
        """Whether its files had the time that they have; one that is being written is waited for."""
        limit = self._settings.inbox.source_timeout_s
        return pending.job.ledger.held is None and (self._clock.now() - pending.asked_at).total_seconds() > limit

    def _give_up_late(self, pending: _Pending, missing: list[str]) -> None:
        """End the job once a file has not come in time."""
        if self._is_late(pending):
            limit = self._settings.inbox.source_timeout_s
            text = f"{', '.join(missing[:_MAX_WAITING_FOR])} did not come within {limit:.0f} s"
            failure = Failure(code="missing-picture", message=text, hint="drop the picture, then resume the job")
            run.end(self._shop, pending.job, State.FAILED, failure)

    def _plan(self, pending: _Pending) -> Plan:
        name = pending.job.name
        order = [(wish.role, wish.name) for wish in pending.wishes]
        taken = [pending.taken[key] for key in order if key in pending.taken]
        lost = [pending.lost[key] for key in order if key in pending.lost]
        if pending.items is not None:
            taken.append(pending.items)
        if isinstance(pending.text, Plan):
            missing = (*pending.text.missing, *lost)
            plan = pending.text.changed(job=name, sources=tuple(taken), seed_from="job", missing=missing)
        else:
            assert pending.text is not None  # noqa: S101 - read before its pictures are taken
            plan = make_plan(name, pending.text, taken, secrets.randbelow(MAX_SEED + 1), lost)
        plan = plan.changed(notices=tuple(dict.fromkeys((*plan.notices, *pending.notices))))
        return self._without_misfits(plan)

    def _without_misfits(self, plan: Plan) -> Plan:
        """Check what the pictures of each item must share; an item of a batch that is wrong fails alone.

        Raises:
            JobError: `bad-picture`, where there is only one item.
        """
        if not any(source.role == "mask" for source in plan.sources):
            return plan
        lost = {}
        for number in range(1, plan.items + 1):
            item = plan.item(number)
            try:
                sources.check_sizes(item.sources())
            except JobError as error:
                if not plan.axes:
                    raise
                lost["mask", str(item.said["mask"])] = MissingSource(
                    role="mask", name=str(item.said["mask"]), code=error.code, message=error.message, hint=error.hint
                )
        return plan.changed(missing=(*plan.missing, *lost.values())) if lost else plan

    def _lane(self, job: Job) -> LaneDefaults:
        """Return the defaults of the job's lane, folder by folder from the inbox down."""
        return lanes.read(self._settings.inbox_dir, _lane_of(job))

    def _release_lanes(self) -> None:
        """Let go on what a lane held, once its folder.toml does not say so any more."""
        holds: dict[str, bool] = {}
        for job in list(self._shop.spool.live.values()):
            if (job.ledger.held or "").startswith("lane ") and not self._stop.is_set():
                with suppress(HotfolderError, OSError):
                    lane = _lane_of(job)
                    if lane not in holds:
                        holds[lane] = self._lane(job).hold
                    if not holds[lane]:
                        self._shop.spool.released(job)
                        self._shop.line.add(job)

    def _remember_used(self) -> None:
        """Know again, after a restart, what the jobs that are on their way have taken."""
        if self._settings.inbox.sources != "remove-after":
            return
        for job in list(self._shop.spool.live.values()):
            plan = self._shop.spool.plan_if_any(job)
            paths = set()
            for source in plan.sources if plan else ():
                with suppress(HotfolderError, OSError):
                    found = sources.find(self._settings, Wish(role=source.role, name=source.name), _lane_of(job))
                    if found is not None and found.base == self._settings.inbox_dir:
                        paths.add(found.path)
                        self._used[found.path] = source.sha256
            job.pictures = frozenset(paths) if plan else None

    def _remove_used(self) -> None:
        """With `sources = "remove-after"`, remove a picture once every job that named it has ended."""
        if self._settings.inbox.sources != "remove-after" or not self._used:
            self._used.clear()
            return
        live = list(self._shop.spool.live.values())
        if any(job.pictures is None and not job.ledger.plan_sha256 for job in live):
            return
        named = frozenset().union(*(job.pictures or frozenset() for job in live))
        for path in [path for path in self._used if path not in named]:
            sha256 = self._used.pop(path)
            with suppress(OSError):
                if file_sha256(path) == sha256:
                    path.unlink()
                    durable.sync_folder(path.parent)

    def _reject(self, job: Job, error: Rejected) -> None:
        """End the job and lay its text, with each problem at its line, beside where it was dropped."""
        with suppress(OSError):
            rejected.put(self._settings.inbox_dir / _lane_of(job), job, error)
        first = error.problems[0]
        self._shop.spool.ended(
            job,
            State.REJECTED,
            Failure(code=first.code, message=error.message, hint=first.hint),
            problems=error.problems,
        )
        run.let_go_of_ended(self._shop, job)
        job_log(job).warning("rejected", problems=[str(problem) for problem in error.problems])


def _lane_of(job: Job) -> str:
    return job.ledger.origin.lane if job.ledger.origin else ""
