"""The daemon at a glance: outputs/status.toml and outputs/index.html, and progress of the jobs that run."""

import datetime as dt
import os
import shutil
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hotfolder import durable, logs, names, pages, status
from hotfolder.clock import Moment
from hotfolder.intake import Intake
from hotfolder.job import Job
from hotfolder.journal import ENDS, State
from hotfolder.shop import Shop, picture_s
from hotfolder.status import DaemonStatus, Waiting
from hotfolder.watch import Watch

#: Progress is written twice a second, whoever looks how often; less often, up to `_STATUS_S`, where that would take
#: much of the time.
_PROGRESS_S: Final = 0.45
_MOST_OF_THE_TIME: Final = 0.05
#: At the end `stopped` must be said, so that a passing fault is tried again.
_LAST_TRIES: Final = 3
#: The status is written when it changes, and at the latest after so long; the pages, for the eye, no more often.
_STATUS_S: Final = 5.0
_PAGES_S: Final = 5.0
_SHOWN_IN_LINE: Final = 50
_SHOWN_ENDED: Final = 24
_SHOWN_IGNORED: Final = 100

_log = logs.logger(__name__)


class Glance:
    """Writes what there is to see, when it changed. Used by the daemon's main thread."""

    def __init__(self, *, shop: Shop, intake: Intake, watch: Watch, mode: str) -> None:
        """`mode` is "queued" or "direct"."""
        self._shop, self._intake, self._watch, self._mode = shop, intake, watch, mode
        self._settings = shop.spool.settings
        self._outputs = self._settings.outputs_dir
        self._started_at = shop.clock.now()
        self._settings_stamp = _stamp(self._settings.file)
        #: What stands in the status file, less what changes all the time.
        self._written: list[bytes] = []
        self._written_at = self._pages_at = shop.clock.monotonic() - _STATUS_S
        self._next_at = shop.clock.monotonic()

    def show(self, *, last: bool = False) -> None:
        """Write progress, and status and pages where something changed; `last`: the daemon stops.

        What cannot be shown is no reason to stop: the next look tries again, and at the end there are a few.
        """
        began = self._shop.clock.monotonic()
        if not last and began < self._next_at:
            return
        for _ in range(_LAST_TRIES if last else 1):
            try:
                self._show(last=last)
            except Exception as error:  # noqa: BLE001 - a view: a full disk, a spoiled history, a bug of ours
                _log.warning("status_not_written", error=names.shown(str(error)), exc_info=logs.bug(error))
            else:
                break
        took_s = self._shop.clock.monotonic() - began
        self._next_at = began + min(max(_PROGRESS_S, took_s / _MOST_OF_THE_TIME), _STATUS_S)

    def _show(self, *, last: bool) -> None:
        spool = self._shop.spool
        # Gone through once: there may be ten thousand.
        live = list(spool.live.values())
        busy = [job for job in live if job.busy]
        advanced = [job for job in busy if job.progress is not None and job.ledger.state is State.RUNNING]
        unshown = [job for name in list(spool.unshown) if (job := spool.live.get(name)) is not None]
        for job in dict.fromkeys([*advanced, *unshown]):
            spool.show(job)
        if self._outputs.is_dir():
            self._show_status(live, busy, last=last)

    def _show_status(self, live: Sequence[Job], busy: Sequence[Job], *, last: bool) -> None:
        now = self._shop.clock.monotonic()
        found = self._status("stopped" if last else None, live, busy)
        data = found.dump()
        lasting = _lasting(data)
        if not last and lasting == self._written and now - self._written_at < _STATUS_S:
            return
        durable.write(self._outputs / status.FILE_NAME, data, sync=last)
        self._written, self._written_at = lasting, now
        if last or now - self._pages_at >= _PAGES_S:
            self._pages_at = now
            self._show_pages(found, live, busy)

    def _show_pages(self, found: DaemonStatus, live: Sequence[Job], busy: Sequence[Job]) -> None:
        plans = [(job, self._shop.spool.plan_if_any(job)) for job in busy]
        running = [(job, plan) for job, plan in plans if plan is not None]
        for job, plan in running:
            # Whoever ends the job writes them too, and has the last word.
            with job.lock:
                if not (job.ledger.ended or job.gone):
                    pages.write_job(job, plan, self._shop.thumbs, self._shop.clock.now())
        to_pick = [job for job in live if job.ledger.state is State.REVIEW]
        planned = [(job, self._shop.spool.plan_if_any(job)) for job in to_pick]
        pages.write_daemon(
            self._outputs,
            found=found,
            running=running,
            reviews=[(job, plan) for job, plan in planned if plan is not None],
            queued=[job for job, _ in self._shop.line.first(_SHOWN_IN_LINE)],
            ended=self._shop.gallery.newest(_SHOWN_ENDED),
            thumbs=self._shop.thumbs,
        )

    def _status(self, state: str | None, live: Sequence[Job], busy: Sequence[Job]) -> DaemonStatus:
        line, last = self._shop.line, self._intake.last
        counts = Counter(self._shop.gallery.counts())
        counts.update(
            {
                state.value: count
                for state, count in Counter(job.ledger.state for job in live).items()
                if state not in ENDS
            }
        )
        disk = shutil.disk_usage(self._outputs)
        ignored = sorted(last.ignored.items())
        return DaemonStatus(
            state=state or ("paused" if "pause" in line.closed else "running"),
            mode=self._mode,
            pid=os.getpid(),
            host=socket.gethostname(),
            run_id=self._shop.spool.run_id,
            started_at=self._started_at,
            updated_at=self._shop.clock.now(),
            counts=dict(sorted(counts.items())),
            running=sorted(job.name for job in live if job.ledger.state is State.RUNNING),
            line=self._waiting(busy),
            free_gb=disk.free / 1e9,
            total_gb=disk.total / 1e9,
            wrong=self._wrong(),
            ignored=ignored[:_SHOWN_IGNORED],
            ignored_count=len(ignored),
            notices=list(self._intake.controls.notices),
            progress=next(((job.name, job.progress) for job in busy if job.progress), None),
        )

    def _waiting(self, busy: Sequence[Job]) -> list[Waiting]:
        """Return the first of the line, with the time at which each should begin as far as the pace is known."""
        rows, now = [], self._shop.clock.now()
        ahead_s: float | None = 0.0
        for job in busy:
            part = job.progress.step / job.progress.steps if job.progress and job.progress.steps else 0.0
            ahead_s = self._then(ahead_s, job, _under_way(job) - part)
        for position, (job, why) in enumerate(self._shop.line.first(_SHOWN_IN_LINE), 1):
            eta = None if ahead_s is None else Moment.of(now + dt.timedelta(seconds=ahead_s))
            rows.append(Waiting(job=job.name, position=position, eta=eta, why=why))
            ahead_s = self._then(ahead_s, job, job.table.open if job.table else 0)
        return rows

    def _then(self, ahead_s: float | None, job: Job, candidates: float) -> float | None:
        each_s = picture_s(self._shop, job)
        return None if ahead_s is None or each_s is None else ahead_s + each_s * max(candidates, 0.0)

    def _wrong(self) -> list[str]:
        """Say what whoever runs the daemon must see to."""
        wrong = [f"no new cell starts: {why}" for why in sorted(self._shop.line.closed - {"pause"})]
        if self._intake.last.gone:
            wrong.append("jobs_inbox/ is gone")
        if self._watch.problem:
            wrong.append(self._watch.problem)
        if _stamp(self._settings.file) != self._settings_stamp:
            wrong.append("hotfolder.toml was changed: restart needed")
        lanes = self._intake.wrong_lanes.items()
        wrong += [
            f"jobs dropped in {lane or 'jobs_inbox'}/ are refused until this is mended: {why}" for lane, why in lanes
        ]
        stuck = sorted(job.name for job in self._shop.spool.pending_sources().values())
        return wrong + [f"{job}: its job file could not be removed from the inbox" for job in stuck]


def _under_way(job: Job) -> int:
    return len(job.table.in_flight) if job.table is not None else 0


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _lasting(data: bytes) -> list[bytes]:
    """Leave out what changes all the time."""
    return [line for line in data.split(b"\n") if not line.startswith((b"updated_at", b"free_gb", b"eta"))]
