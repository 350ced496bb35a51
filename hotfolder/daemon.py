"""serve(settings, engine=None): wires the parts, and ends them in order.

The order at the end: no new cell, the GPU thread within one step, what was made is saved, intake, preparation, the
status says `stopped`, the workspace is free.
"""

import os
import shutil
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

from pydantic import BaseModel

from hotfolder import checkpoint, logs, names, run, salvage
from hotfolder import settings as settings_
from hotfolder.blame import RunningNote
from hotfolder.clock import Clock, SystemClock
from hotfolder.engine import Engine
from hotfolder.errors import SettingsError
from hotfolder.gallery import Gallery
from hotfolder.glance import Glance
from hotfolder.intake import Intake
from hotfolder.job import Job
from hotfolder.journal import ENDS, State
from hotfolder.line import Line
from hotfolder.lock import Lock
from hotfolder.notify import Notifier
from hotfolder.prepare import Preparer
from hotfolder.presets import Presets
from hotfolder.scanner import Scanner
from hotfolder.settings import Settings
from hotfolder.settle import Settler
from hotfolder.shop import Shop, failure_of
from hotfolder.signals import ended_by_signals
from hotfolder.spool import Spool
from hotfolder.takes import Takes
from hotfolder.thumbs import Thumbs
from hotfolder.timetable import Timetable
from hotfolder.watch import Hints, Watch
from hotfolder.worker import Worker

#: How often the daemon looks after its parts and writes progress; where it may end by itself, more often.
_LOOK_S: Final = 0.5
_LOOK_SOON_S: Final = 0.1
#: While no job is live nothing but the free disk changes.
_LOOK_IDLE_S: Final = 1.0
#: Why the line is closed while there is no outputs/.
_GONE: Final = "outputs/ is gone"
#: A disk that was full is tried again after so long.
_FULL_S: Final = 5.0
#: A thread of ours that makes no pass for so long is stuck, and systemd should know.
_PASS_DEADLINE_S: Final = 120.0
#: Of a job with no more candidates left than this, what it goes on from is verified at the start.
_VERIFIED_AT_START: Final = 100
#: For how long a thread may compute while another waits for its turn in Python. By default ten times as much: the GPU
#: thread, which needs its turn after every step, would wait for whoever draws a page, and a drop for many such turns.
_TURN_S: Final = 0.0005
#: EX_SOFTWARE: the process ended itself; systemd starts it again.
_EXIT_HUNG: Final = 70

OK, NOT_COMPLETED, BROKEN, CANCELLED = 0, 3, 1, 130

_log = logs.logger(__name__)


def serve(
    settings: Settings,
    engine: Engine | None = None,
    *,
    drain: bool = False,
    only: str | None = None,
    stop: threading.Event | None = None,
    clock: Clock | None = None,
    log_to: TextIO | None = None,
) -> int:
    """Serve a workspace until told to stop.

    Args:
        engine: what makes the pictures; by default diffusers on this machine's GPU.
        drain: end when nothing is left that can go on by itself.
        only: direct mode: admit and run just the next drop of this NAME, then end.
        stop: set it to stop, as SIGTERM does.
        clock: where the time comes from.
        log_to: where the log goes besides each job's log.jsonl; None: standard error.

    Returns: 0; 3 if something that ended in this run did not complete (drain, only); 130 if it was cancelled (only);
        1 if the process must be started again.

    Raises:
        SettingsError: the workspace is busy, or cannot be used.
    """
    logs.set_up(log_to)
    clock = clock or SystemClock()
    stop = stop or threading.Event()
    _make_folders(settings)
    settings_.prepare_models(settings)
    mode = "direct" if only else "queued"
    with ExitStack() as stack:
        stack.enter_context(Lock(settings.workspace, mode=mode, started_at=str(clock.now())))
        stack.enter_context(ended_by_signals(stop))
        _build_models()
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(_TURN_S)
        while not stop.is_set():
            with suppress(_OutputsGone):
                daemon = _Daemon(
                    settings, _gpu_engine(settings) if engine is None else engine, clock, stop, drain=drain, only=only
                )
                result = daemon.run()
                if result is not None:
                    return result
            _log.warning("outputs_replaced", what="starting again from what is there now")
            while not settings.outputs_dir.is_dir() and not stop.wait(_LOOK_S):
                pass
        return OK


def _build_models() -> None:
    """Build the models of pydantic that are put off until their first use: only one thread at a time may do that."""
    todo: list[type[BaseModel]] = [BaseModel]
    for cls in todo:
        todo += [below for below in cls.__subclasses__() if below.__module__.startswith("hotfolder.")]
        if cls is not BaseModel:
            cls.model_rebuild()


class _OutputsGone(Exception):
    """outputs/ went away while the parts were put together."""


@contextmanager
def _while_outputs_stand(outputs: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if outputs.is_dir():
            raise
        raise _OutputsGone from error


def _gpu_engine(settings: Settings) -> Engine:
    """Imported here: a daemon with another engine, or without a model, never loads torch."""
    from hotfolder.gpu import GpuEngine

    return GpuEngine(settings)


class _Daemon:
    """One life of the parts; made anew where outputs/ was replaced under it."""

    def __init__(
        self, settings: Settings, engine: Engine, clock: Clock, stop: threading.Event, *, drain: bool, only: str | None
    ) -> None:
        self._settings, self._clock, self._stop, self._drain, self._only = settings, clock, stop, drain, only
        self._run_id = uuid.uuid4().hex[:12]
        self._mode = "direct" if only else "queued"
        self._stopping = threading.Event()
        self._note = RunningNote(settings.cache_dir, self._run_id, clock)
        with _while_outputs_stand(settings.outputs_dir):
            spool = Spool(settings, clock, self._run_id, self._mode, checkpoint.lines)
        gallery = Gallery(settings.cache_dir, settings.outputs_dir)
        self._shop = Shop(
            spool=spool,
            line=Line(clock),
            gallery=gallery,
            thumbs=Thumbs(cache=settings.cache_dir / "thumbs"),
            takes=Takes(spool),
            engine=engine,
            clock=clock,
            stopping=self._stopping.is_set,
        )
        hints, self._wake = Hints(), threading.Event()
        presets = Presets.of(settings.presets_dir)
        self._scanner = Scanner(settings.inbox_dir, settings.inbox, clock, hints)
        settler = Settler(clock, self._scanner.settle_s, local=not self._scanner.network)
        self._preparer = Preparer(self._shop, presets, settler)
        self._watch = Watch(hints, self._wake, on=settings.inbox.events and not self._scanner.network)
        self._timetable = Timetable(settings, clock, spool, self._wake.set)
        self._intake = Intake(
            shop=self._shop,
            scanner=self._scanner,
            watch=self._watch,
            preparer=self._preparer,
            timetable=self._timetable,
            wake=self._wake,
            only=only,
        )
        self._worker = Worker(self._shop, self._note)
        self._notifier = Notifier()
        self._glance = Glance(shop=self._shop, intake=self._intake, watch=self._watch, mode=self._mode)
        self._passes = (0, clock.monotonic())
        self._full_at: float | None = None

    def run(self) -> int | None:
        """Serve; return the exit code, None where outputs/ was replaced and all must be read anew."""
        try:
            with _while_outputs_stand(self._settings.outputs_dir):
                self._recover()
        except _OutputsGone:
            self._shop.gallery.close()
            raise
        for part in (self._preparer, self._worker, self._intake):
            part.start()
        self._notifier.send("READY=1", "STATUS=serving")
        _log.info(
            "serving", workspace=str(self._settings.workspace), run_id=self._run_id, jobs=len(self._shop.spool.live)
        )
        result: int | None = OK
        try:
            result = self._watch_over()
        finally:
            self._end()
        return BROKEN if self._worker.broken is not None else result

    def _recover(self) -> None:
        """Go on where the process before stopped."""
        shop = self._shop
        jobs = shop.spool.recover()
        death = self._note.death()
        for job in jobs:
            if death is not None and death.job == job.name and death.run_id != self._run_id and not job.ledger.ended:
                with suppress(OSError):
                    shop.spool.died(job, death.candidate, death.run_id, death.evidence)
        self._note.begin()
        for job in jobs:
            try:
                self._recover_job(job)
            except OSError as error:
                # A full disk, say: the others go on, this one when it can be written to.
                _log.warning("not_recovered", job=job.name, error=names.shown(str(error)))
                shop.aside[job.name] = self._clock.monotonic()
            except Exception as error:  # noqa: BLE001 - whatever it is
                # One job's damage is no reason not to serve the others.
                _log.error("not_recovered", job=job.name, error=names.shown(str(error)), exc_info=logs.bug(error))
                run.end(shop, job, State.FAILED, failure_of(error))
        self._look_first()

    def _look_first(self) -> None:
        """See pause and control files before the first cell starts: they may have come while nobody was there."""
        scan = self._scanner.scan()
        if scan.pause:
            self._shop.line.close("pause")
        self._intake.controls.act(scan.controls, scan.unadmitted)

    def _recover_job(self, job: Job) -> None:
        shop = self._shop
        if job.ledger.ended:
            run.let_go_of_ended(shop, job)
            return
        if job.ledger.plan_sha256:
            shop.spool.lay_out(job)
            salvage.adopt_finished(shop, job)
            salvage.give_up_on_deadly(shop, job)
            if job.ledger.cells and job.ledger.state is not State.REVIEW:
                salvage.check_checkpoint(shop, job, at_most=_VERIFIED_AT_START)
        run.conclude(shop, job)
        if job.name not in shop.spool.live or self._only is not None:
            return
        if not job.ledger.plan_sha256:
            self._preparer.submit(job)
        elif job.ledger.held is None:
            shop.line.add(job)

    def _watch_over(self) -> int | None:
        """Write what is shown, feed the watchdog, and see when it is time to end."""
        while not self._stop.wait(self._next_look_s()):
            if not (self._worker.alive and self._intake.alive and self._preparer.alive):
                return BROKEN
            if not self._look_at_outputs():
                return None
            self._look_at_disk()
            run.try_again(self._shop)
            self._look_for_hang()
            if self._shop.spool.live:
                self._note.look()
            self._glance.show()
            if self._only is not None and (result := self._result_of_only()) is not None:
                return result
            if self._drain and self._drained():
                return OK if set(self._shop.results) <= {State.COMPLETED} else NOT_COMPLETED
        return CANCELLED if self._only is not None else OK

    def _next_look_s(self) -> float:
        if self._drain or self._only:
            return _LOOK_SOON_S
        return _LOOK_S if self._shop.spool.live else _LOOK_IDLE_S

    def _end(self) -> None:
        self._notifier.send("STOPPING=1", "STATUS=stopping")
        self._stopping.set()
        self._worker.stop()
        self._intake.stop()
        self._preparer.stop()
        self._timetable.stop()
        self._watch.stop()
        if self._worker.broken is not None:
            _log.error("worker_broken", why=str(self._worker.broken), exc_info=self._worker.broken)
        for job in list(self._shop.spool.live.values()):
            if job.ledger.state is State.RUNNING:
                job.ledger.state = State.QUEUED
                job.progress = None
                with suppress(OSError):
                    self._shop.spool.show(job)
        self._glance.show(last=True)
        if self._worker.broken is None:
            self._note.close()
        else:
            self._note.abandon()
        self._shop.gallery.close()
        _log.info("stopped", **{str(state): count for state, count in self._shop.results.items()})

    # --- when to end ---

    def _drained(self) -> bool:
        """Whether nothing is left that can go on by itself: scheduled, held and paused jobs stay."""
        began = self._intake.passes
        if began == 0 or not self._seems_drained():
            return False
        # A job may have been handed from one part to the next between two looks: one more whole pass says so.
        deadline = self._clock.monotonic() + 10 * self._scanner.scan_s
        while self._intake.passes < began + 2 and self._clock.monotonic() < deadline:
            self._wake.set()
            if self._stop.wait(0.01):
                break
        return self._seems_drained()

    def _seems_drained(self) -> bool:
        last, line = self._intake.last, self._shop.line
        if last.unsettled or last.ready or not self._preparer.idle or self._shop.aside:
            return False
        # The line before its jobs: a cell that has left it is under way, or its job says what came of it.
        paused = line.closed == {"pause"}
        if len(line) and not paused:
            return False
        return not any(self._goes_on(job, paused=paused) for job in list(self._shop.spool.live.values()))

    def _goes_on(self, job: Job, *, paused: bool) -> bool:
        """Whether a cell of a job is under way, or its end is on its way to disk, history and exit code."""
        # What the disk did not take is taken up again.
        if job.busy or job.ending or job.stale:
            return True
        state = job.ledger.state
        if state is State.RUNNING:
            # In a pause what is left of it stays in the line.
            return not (paused and self._shop.line.has_cells(job))
        return state in ENDS

    def _result_of_only(self) -> int | None:
        """Return the exit code once the jobs of this NAME have ended, or can no longer end by themselves."""
        admitted = list(self._intake.admitted)
        # A drop of the same NAME that lay there before is made too: which of them is meant, only who dropped it knows.
        if not admitted or self._only in self._intake.last.unadmitted:
            return None
        if any(not (job.ledger.ended or job.ledger.held or job.gone) for job in admitted):
            return None
        if all(job.ledger.state is State.COMPLETED for job in admitted):
            return OK
        return CANCELLED if any(job.ledger.state is State.CANCELLED or job.gone for job in admitted) else NOT_COMPLETED

    # --- what may go wrong around it ---

    def _look_at_outputs(self) -> bool:
        """No cell starts while outputs/ is away; return False where all must be read anew.

        That is so where another folder has taken its place, and also where the same one is back: cells that were under
        way meanwhile could not be kept.
        """
        if not self._settings.outputs_dir.is_dir():
            self._shop.line.close(_GONE)
            return True
        return _GONE not in self._shop.line.closed and self._shop.spool.outputs_stand

    def _look_at_disk(self) -> None:
        """No cell starts while the disk is full; nor for a while after a write found it so, whatever is said of it."""
        line, now = self._shop.line, self._clock.monotonic()
        with suppress(OSError):
            free = shutil.disk_usage(self._settings.outputs_dir).free
            if free < self._settings.outputs.min_free_gb * 1e9:
                line.close(run.DISK_FULL)
                self._full_at = now
        if run.DISK_FULL not in line.closed:
            self._full_at = None
        elif self._full_at is None:
            self._full_at = now
        elif now - self._full_at >= _FULL_S:
            line.open(run.DISK_FULL)

    def _look_for_hang(self) -> None:
        """End the process, with the line safe on disk, where the GPU thread gives no sign of life."""
        phase, silence = self._worker.silence()
        limits = self._settings.worker
        limit = limits.load_deadline_s if phase in {"load", "start", "generate"} else limits.step_deadline_s
        if silence > limit:
            text = f"no sign of life from {phase} for {silence:.0f} s"
            self._note.testify(text)
            _log.critical("hung", why=text)
            os._exit(_EXIT_HUNG)
        if self._intake.looks != self._passes[0]:
            self._passes = (self._intake.looks, self._clock.monotonic())
        busy_s = (self._clock.monotonic() - self._passes[1], self._worker.saving_s, self._preparer.busy_s)
        if max(busy_s) < _PASS_DEADLINE_S:
            self._notifier.send("WATCHDOG=1")


def _make_folders(settings: Settings) -> None:
    try:
        for folder in (settings.inbox_dir, settings.outputs_dir, settings.cache_dir):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            "no-workspace", f"{error.filename}: {error.strerror}", "the daemon must be able to write there"
        ) from error
