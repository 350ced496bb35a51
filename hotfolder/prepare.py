"""From admitted to queued: read the job, take its pictures, make the plan. On a thread of its own."""

import secrets
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import structlog

from hotfolder import durable, jobfile, names, run, sources, tomltext
from hotfolder.errors import HotfolderError, Problem, Rejected
from hotfolder.jobfile import JobFile, LaneDefaults
from hotfolder.journal import Failure, State
from hotfolder.plan import Plan, Source, Wish, digest, make_plan, read_plan, wishes_of, wishes_of_plan
from hotfolder.presets import Presets
from hotfolder.run import Shop
from hotfolder.settle import Settler
from hotfolder.spool import JOB_FILE, Job, file_sha256

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


class Preparer:
    """Prepares jobs in the order in which they came; one that waits for a picture lets the others pass."""

    def __init__(self, shop: Shop, presets: Presets, settler: Settler) -> None:
        """`settler` tells which pictures are whole; it belongs to this thread."""
        self._shop = shop
        self._settings = shop.spool.settings
        self._clock = shop.clock
        self.presets = presets
        self._settler = settler
        self._new: deque[Job] = deque()
        self._waiting: dict[str, _Pending] = {}
        self._busy: Job | None = None
        #: Pictures to remove once no job names them any more.
        self._used: dict[Path, str] = {}
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

    def submit(self, job: Job) -> None:
        """Take a job that was admitted, or taken up again without a plan."""
        self._new.append(job)
        self._wake.set()

    def wake(self) -> None:
        """Something changed in the inbox: look again for what jobs wait for."""
        self._wake.set()

    def knows(self, job: Job) -> bool:
        """Whether the job is on its way already."""
        return job.name in self._waiting or job in self._new or self._busy is job

    @property
    def idle(self) -> bool:
        """Whether no job is on its way to the line."""
        return not self._new and not self._waiting and self._busy is None

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(_LOOK_AGAIN_S if self._waiting else 1.0)
            self._wake.clear()
            while self._new and not self._stop.is_set():
                self._busy = self._new[0]
                self._new.popleft()
                self._try(_Pending(job=self._busy, since=self._clock.monotonic()))
                self._busy = None
            for pending in list(self._waiting.values()):
                if not self._stop.is_set():
                    self._try(pending)
            self._release_lanes()
            self._remove_used()

    def _try(self, pending: _Pending) -> None:
        """Bring one job as far as it goes; whatever happens, the thread goes on."""
        job = pending.job
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
            _log.warning("not_prepared", job=job.name, error=str(error))
            done = False
        except Exception as error:  # noqa: BLE001 - one job's bug is not the thread's end
            _log.exception("not_prepared", job=job.name)
            run.end(self._shop, job, State.FAILED, run.failure_of(error))
            done = True
        if done:
            self._waiting.pop(job.name, None)
        else:
            self._waiting[job.name] = pending

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
        self._shop.spool.planned(job, self._plan(pending, pictures))
        if lane.hold:
            self._shop.spool.held(job, f"lane {job.ledger.origin.lane if job.ledger.origin else ''}")
        if job.ledger.held is None:
            self._shop.line.add(job)
        return True

    def _read(self, pending: _Pending, lane: LaneDefaults) -> None:
        data = (pending.job.folder / JOB_FILE).read_bytes()
        document = tomltext.parse(data)
        if tomltext.is_own(data):
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
        """Copy and check every picture; None while one is missing."""
        job = pending.job
        lane = job.ledger.origin.lane if job.ledger.origin else ""
        founds: list[sources.Found] = []
        missing: list[str] = []
        taken: list[Source] = []
        for wish in pending.wishes:
            if job.ledger.origin and job.ledger.origin.via == "picture" and wish.role == "image":
                taken.append(sources.take_trigger(self._settings, job.folder, wish))
                continue
            found = sources.find(self._settings, wish, lane)
            if found is None or not self._is_whole(found.path):
                missing.append(names.shown(wish.name))
            if found is not None:
                founds.append(found)
        job.pictures = frozenset(found.path for found in founds)
        if missing:
            if len(founds) + len(taken) < len(pending.wishes) or self._clock.monotonic() - pending.since > _SETTLING_S:
                self._wait(job, missing)
            return None
        try:
            for found in founds:
                beside = [PurePosixPath(one.file).name for one in taken]
                source = sources.take(self._settings, found, job.folder, beside)
                taken.append(source)
                if found.path.is_relative_to(self._settings.inbox_dir):
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

    def _wait(self, job: Job, missing: list[str]) -> None:
        """Let the job wait, up to `source_timeout_s` from its drop."""
        self._shop.spool.waiting(job, missing)
        since = job.ledger.queued_at
        waited = (self._shop.clock.now() - since).total_seconds() if since else 0.0
        if waited > self._settings.inbox.source_timeout_s:
            text = f"{', '.join(missing)} did not come within {self._settings.inbox.source_timeout_s:.0f} s"
            failure = Failure(code="missing-picture", message=text, hint="drop the picture, then resume the job")
            run.end(self._shop, job, State.FAILED, failure)

    def _plan(self, pending: _Pending, pictures: list[Source]) -> Plan:
        name = pending.job.name
        if isinstance(pending.text, Plan):
            return pending.text.model_copy(update={"job": name, "sources": tuple(pictures), "seed_from": "job"})
        assert pending.text is not None  # noqa: S101 - read before its pictures are taken
        return make_plan(name, pending.text, pictures, secrets.randbelow(jobfile.MAX_SEED + 1))

    def _lane(self, job: Job) -> LaneDefaults:
        """Return the defaults of the job's lane, folder by folder from the inbox down."""
        lane = job.ledger.origin.lane if job.ledger.origin else ""
        return read_lane_chain(self._settings.inbox_dir, lane)

    def _release_lanes(self) -> None:
        """Let go on what a lane held, once its folder.toml does not say so any more."""
        for job in list(self._shop.spool.live.values()):
            if (job.ledger.held or "").startswith("lane ") and not self._stop.is_set():
                with suppress(HotfolderError, OSError):
                    if not self._lane(job).hold:
                        self._shop.spool.released(job)
                        self._shop.line.add(job)

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


def read_lane_chain(inbox: Path, lane: str) -> LaneDefaults:
    """Return what folder.toml says in the inbox and in every folder down to `lane`; the inner one wins.

    Raises:
        Rejected: a folder.toml is wrong; the message names it.
    """
    keys: dict[str, object] = {}
    result = jobfile.NO_DEFAULTS
    folder = inbox
    for part in ("", *PurePosixPath(lane).parts):
        folder = folder / part
        file = folder / "folder.toml"
        try:
            document = tomltext.parse(file.read_bytes())
            own = jobfile.read_lane(document, names.shown(str(file.relative_to(inbox))))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except Rejected as error:
            where = names.shown(str(file.relative_to(inbox)))
            raise Rejected(
                [Problem(code=one.code, message=f"{where}: {one}", hint=one.hint) for one in error.problems]
            ) from error
        keys |= own.keys
        result = LaneDefaults(keys=keys, file=own.file, picture_jobs=own.picture_jobs, hold=own.hold or result.hold)
    return result


def put_rejected(inbox: Path, job: Job, error: Rejected) -> None:
    """Write NAME.rejected.toml beside the drop; one that somebody edited is never overwritten."""
    data = (job.folder / JOB_FILE).read_bytes()
    lane = job.ledger.origin.lane if job.ledger.origin else ""
    folder = inbox / lane
    text = tomltext.annotate(data, error.problems)
    for number in range(1, 1000):
        path = folder / (f"{job.stem}.rejected.toml" if number == 1 else f"{job.stem}-{number}.rejected.toml")
        marked = text if text == data else _signed(text)
        try:
            if not _is_ours(path.read_bytes()):
                continue
        except FileNotFoundError:
            pass
        durable.write(path, marked)
        durable.sync_folder(folder)
        return


def _signed(text: bytes) -> bytes:
    """Sign a text, so that we know later whether somebody edited it."""
    body = text if text.endswith(b"\n") else text + b"\n"
    return body + f"{tomltext.NOTE}mend it and rename it to end in .toml only ({digest(body)[:16]})\n".encode()


def _is_ours(data: bytes) -> bool:
    body, _, last = data.rstrip(b"\n").rpartition(b"\n")
    return last.endswith(b"(" + digest(body + b"\n")[:16].encode() + b")")
