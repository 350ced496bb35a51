"""From admitted to queued: read the job, take its pictures, make the plan. On a thread of its own."""

import os
import secrets
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import structlog

from hotfolder import durable, foreign, jobfile, lanes, names, run, sources, tomltext
from hotfolder.clock import Moment
from hotfolder.errors import HotfolderError, Problem, Rejected
from hotfolder.foreign import file_sha256
from hotfolder.job import JOB_FILE, Job
from hotfolder.jobfile import JobFile, LaneDefaults
from hotfolder.journal import Failure, State
from hotfolder.plan import Plan, Source, Wish, digest, make_plan, read_plan, wishes_of, wishes_of_plan
from hotfolder.presets import Presets
from hotfolder.run import Shop
from hotfolder.settle import Settler

#: How often a job that waits for a picture is looked at again.
_LOOK_AGAIN_S: Final = 0.25
#: Pictures dropped together with their job are there, and whole in a moment: not worth calling the job waiting.
_SETTLING_S: Final = 2.0

_log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class _Pending:
    """A job on its way to the line."""

    job: Job
    #: What was read: a job file, or the plan that was dropped.
    text: JobFile | Plan | None = None
    wishes: tuple[Wish, ...] = ()
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
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prepare")

    def start(self) -> None:
        """Begin."""
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
        """Whether no job is on its way to the line."""
        return not self._new and not self._waiting

    def _run(self) -> None:
        first = True
        while not self._stop.is_set():
            self._wake.wait(_LOOK_AGAIN_S if self._waiting else 1.0)
            self._wake.clear()
            try:
                if first:
                    self._remember_used()
                    first = False
                self._pass()
            except Exception:  # noqa: BLE001 - the thread must go on
                _log.exception("prepare")
            self._since = None
        self._remove_used()

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
            run.end(self._shop, job, State.FAILED, run.failure_of(error))
            done = True
        except OSError as error:
            # A full disk, a share that is away: the job stays where it is and is tried again.
            if pending.trouble != str(error):
                _log.warning("not_prepared", job=job.name, error=names.shown(str(error)))
            pending.trouble = str(error)
            done = False
        except Exception as error:  # noqa: BLE001 - one job's bug is not the thread's end
            _log.exception("not_prepared", job=job.name)
            run.end(self._shop, job, State.FAILED, run.failure_of(error))
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
        if pending.text is None:
            self._read(pending, lane)
        pictures = self._take_pictures(pending)
        if pictures is None:
            return False
        sources.check_sizes(pictures)
        if lane.hold:
            # Before it has a plan: a crash in between must not let it run.
            self._shop.spool.held(job, f"lane {names.shown(_lane_of(job))}")
        self._shop.spool.planned(job, self._plan(pending, pictures))
        if job.ledger.held is None:
            self._shop.line.add(job)
        return True

    def _read(self, pending: _Pending, lane: LaneDefaults) -> None:
        data = (pending.job.folder / JOB_FILE).read_bytes()
        document = tomltext.parse(data)
        if document.is_own:
            plan = read_plan(document, self.presets)
            pending.text, pending.wishes = plan, wishes_of_plan(plan)
        else:
            job = jobfile.read(document, self.presets, self._settings.default_preset, lane)
            pending.text, pending.wishes = job, wishes_of(job)
        self._check_names(pending.wishes, document)

    def _check_names(self, wishes: tuple[Wish, ...], document: tomltext.Document) -> None:
        problems = []
        for wish in wishes:
            try:
                sources.check_name(self._settings, wish)
            except HotfolderError as error:
                problems.append(
                    Problem(code=error.code, message=error.message, hint=error.hint, line=document.line_of([wish.role]))
                )
        if problems:
            raise Rejected(problems)

    def _take_pictures(self, pending: _Pending) -> list[Source] | None:
        """Copy and check every picture; None while one is missing, or is being written."""
        job = pending.job
        founds: list[sources.Found] = []
        missing: list[str] = []
        unsettled: list[str] = []
        taken: list[Source] = []
        for wish in pending.wishes:
            if job.ledger.origin and job.ledger.origin.via == "picture" and wish.role == "image":
                taken.append(sources.take_trigger(self._settings, job.folder, wish))
                continue
            found = sources.find(self._settings, wish, _lane_of(job))
            if found is None:
                missing.append(names.shown(wish.name))
                continue
            founds.append(found)
            if not os.access(found.path, os.R_OK):
                missing.append(f"{names.shown(wish.name)} (which we may not read)")
            elif not self._is_whole(found.path):
                unsettled.append(names.shown(wish.name))
        job.pictures = frozenset(found.path for found in founds)
        if missing or unsettled:
            if missing or self._clock.monotonic() - pending.since > _SETTLING_S:
                self._shop.spool.waiting(job, [*missing, *unsettled])
            if missing:
                self._give_up_late(pending, missing)
            return None
        try:
            for found in founds:
                beside = [PurePosixPath(one.file).name for one in taken]
                source = sources.take(self._settings, found, job.folder, beside)
                taken.append(source)
                if found.base == self._settings.inbox_dir:
                    self._used[found.path] = source.sha256
        except (FileNotFoundError, BlockingIOError):
            # It went, or is written to, between the look and the copy.
            return None
        return taken

    def _is_whole(self, path: Path) -> bool:
        try:
            return self._settler.ready(path, path.lstat())
        except FileNotFoundError:
            return False

    def _give_up_late(self, pending: _Pending, missing: list[str]) -> None:
        """End the job once a picture has not come for `source_timeout_s`; one that is being written is waited for."""
        limit = self._settings.inbox.source_timeout_s
        if pending.job.ledger.held is None and (self._clock.now() - pending.asked_at).total_seconds() > limit:
            text = f"{', '.join(missing)} did not come within {limit:.0f} s"
            failure = Failure(code="missing-picture", message=text, hint="drop the picture, then resume the job")
            run.end(self._shop, pending.job, State.FAILED, failure)

    def _plan(self, pending: _Pending, pictures: list[Source]) -> Plan:
        name = pending.job.name
        if isinstance(pending.text, Plan):
            return pending.text.model_copy(update={"job": name, "sources": tuple(pictures), "seed_from": "job"})
        assert pending.text is not None  # noqa: S101 - read before its pictures are taken
        return make_plan(name, pending.text, pictures, secrets.randbelow(jobfile.MAX_SEED + 1))

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
            put_rejected(self._settings.inbox_dir, job, error)
        first = error.problems[0]
        self._shop.spool.ended(
            job,
            State.REJECTED,
            Failure(code=first.code, message=error.message, hint=first.hint),
            problems=error.problems,
        )
        run.let_go_of_ended(self._shop, job)
        run.job_log(job).warning("rejected", problems=[str(problem) for problem in error.problems])


def _lane_of(job: Job) -> str:
    return job.ledger.origin.lane if job.ledger.origin else ""


def put_rejected(inbox: Path, job: Job, error: Rejected) -> None:
    """Write NAME.rejected.toml beside the drop; one that somebody edited is never overwritten."""
    data = (job.folder / JOB_FILE).read_bytes()
    folder = inbox / _lane_of(job)
    text = tomltext.annotate(data, error.problems)
    marked = (
        text if text == data else _signed(text, f"{tomltext.NOTE}mend it, then rename this file to {job.stem}.toml")
    )
    for number in range(1, 1000):
        path = folder / (f"{job.stem}.rejected.toml" if number == 1 else f"{job.stem}-{number}.rejected.toml")
        try:
            stands = foreign.read(path, 2 * tomltext.MAX_OWN_BYTES)
        except FileNotFoundError:
            stands = b""
        except OSError:
            continue  # somebody else's, whatever it is
        if not stands or _is_ours(stands):
            durable.write(path, marked)
            durable.sync_folder(folder)
        elif stands != marked:
            continue
        return


def _signed(text: bytes, advice: str) -> bytes:
    """Add what to do, and a signature, so that we know later whether somebody edited it."""
    body = text if text.endswith(b"\n") else text + b"\n"
    body += f"{advice}\n".encode()
    return body + f"{tomltext.NOTE}signature {digest(body)[:16]}\n".encode()


def _is_ours(data: bytes) -> bool:
    body, _, last = data.rstrip(b"\n").rpartition(b"\n")
    signature = digest(body + b"\n")[:16]
    return last == f"{tomltext.NOTE}signature {signature}".encode()
