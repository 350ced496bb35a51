"""One pass after another: what lies in the inbox becomes jobs, and control files are acted on. A thread of its own."""

import os
import re
import threading
from collections.abc import Sequence
from typing import Final

import tomli_w

from hotfolder import lanes, logs, names, run, schedules, tomltext
from hotfolder.admission import Drop
from hotfolder.controls import Controls
from hotfolder.errors import HotfolderError, Rejected
from hotfolder.job import Job
from hotfolder.prepare import Preparer
from hotfolder.scanner import Ready, Scan, Scanner
from hotfolder.shop import Shop, job_log
from hotfolder.timetable import Timetable
from hotfolder.watch import Watch

#: Drops that are admitted together share their flushes; a burst is cut so that its first jobs start at once.
_BATCH: Final = 64
#: While something settles it is looked at this often.
_SOON_S: Final = 0.05
#: While a burst is admitted, control files are looked for this often.
_LOOK_S: Final = 0.25
#: Whether folders are still where they were is looked at so often, of so many queued jobs each time.
_FOLDERS_S: Final = 0.25
_FOLDERS_A_LOOK: Final = 200
_VIA: Final = re.compile(rb"^#! via ([a-z]{1,12})\r?$", re.MULTILINE)
_KNOWN_VIA: Final = frozenset({"cli", "api", "page", "mcp", "replay"})

_log = logs.logger(__name__)


class Intake:
    """Turns drops into jobs."""

    def __init__(
        self,
        *,
        shop: Shop,
        scanner: Scanner,
        watch: Watch,
        preparer: Preparer,
        timetable: Timetable,
        wake: threading.Event,
        only: str | None = None,
    ) -> None:
        """Args: wake: set by the watch. only: admit jobs of this NAME alone (direct mode)."""
        self._shop = shop
        self._scanner = scanner
        self._watch = watch
        self._preparer = preparer
        self._timetable = timetable
        self._wake = wake
        self._only = only
        self._stop = threading.Event()
        self._looked_at = 0
        self._folders_due = 0.0
        self.controls = Controls(shop, preparer)
        #: What the last look found; replaced whole.
        self.last = Scan()
        #: Passes that were made; a drain waits for one that began after it did.
        self.passes = 0
        #: The same with the looks in the middle of a pass: a sign of life.
        self.looks = 0
        self._looked = 0.0
        #: Why the folder.toml of a lane does not count.
        self.wrong_lanes: dict[str, str] = {}
        #: Jobs admitted by this process.
        self.admitted: list[Job] = []
        self._thread = threading.Thread(target=self._run, name="intake")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the pass under way."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._preparer.hold()
            try:
                wait_s = self.step()
            except Exception as error:  # noqa: BLE001 - the thread must go on
                # Whatever it was: the inbox is looked at again, nothing in it was lost.
                _log.error("not_looked_at", error=names.shown(str(error)), exc_info=logs.bug(error))
                wait_s = self._scanner.scan_s
            finally:
                self._preparer.let_go()
            self.passes += 1
            self.looks += 1
            self._wake.wait(wait_s)
            self._wake.clear()

    def step(self) -> float:
        """Make one pass; return after how many seconds the next one is due."""
        shop = self._shop
        pending = shop.spool.pending_sources()
        scan = self._scanner.scan(frozenset(shop.spool.settings.inbox_dir / file for file in pending))
        if scan.gone:
            self.last = scan
            return self._scanner.scan_s
        if pending:
            shop.spool.retry_pending()
        anew = self._watch.follow([shop.spool.settings.inbox_dir / lane for lane in scan.lanes])
        self._read_lanes(scan)
        if scan.pause:
            shop.line.close("pause")
        else:
            shop.line.open("pause")
        ready = [one for one in scan.ready if self._only in {None, one.name}]
        # Cancels reach the jobs that are running before new ones are admitted.
        self.controls.act(scan.controls, scan.unadmitted)
        for start in range(0, len(ready), _BATCH):
            if self._stop.is_set():
                break
            left = ready[start + _BATCH :]
            self._admit(ready[start : start + _BATCH], scan, left)
            self._look_between(scan, left)
        if self._only is None:
            scan.ignored |= {f"scheduled/{name}": why for name, why in self._timetable.look(scan.scheduled)}
            self._fire()
        self._check_folders()
        self._preparer.wake()
        self.last = scan
        soon = scan.unsettled > scan.slow or ready or anew
        return min(_SOON_S, self._scanner.scan_s) if soon else self._scanner.scan_s

    def _look_between(self, scan: Scan, left: Sequence[Ready]) -> None:
        """In the middle of a burst, too, a job is cancelled at sight."""
        now = self._shop.clock.monotonic()
        if now - self._looked < _LOOK_S or not left:
            return
        self._looked = now
        self.looks += 1
        self._look_at_controls(scan, left)
        self._check_folders()

    def _look_at_controls(self, scan: Scan, left: Sequence[Ready]) -> None:
        found = self._scanner.controls(scan)
        if found.pause:
            self._shop.line.close("pause")
        self.controls.act(found.controls, scan.waiting | found.waiting | {one.name for one in left}, whole=False)

    def _admit(self, ready: Sequence[Ready], scan: Scan, left: Sequence[Ready]) -> None:
        drops = [_drop(one) for one in ready if not self._adopt(one, scan)]
        jobs = self._shop.spool.admit(drops)
        if not jobs and drops:
            scan.unsettled += 1
        if jobs and scan.controls:
            # A cancel that came before its job acts before a cell of it can begin.
            self._look_at_controls(scan, left)
        for job in jobs:
            self._hand_on(job)

    def _hand_on(self, job: Job) -> None:
        self.admitted.append(job)
        if self._only is None:
            # A daemon runs for months: it keeps no list of what ended.
            self.admitted = [one for one in self.admitted[-1:] if not one.ledger.ended]
        job_log(job).info("admitted", source=job.ledger.origin.via if job.ledger.origin else "")
        self._preparer.submit(job)

    def _adopt(self, one: Ready, scan: Scan) -> bool:
        """Hand a job file with a valid [schedule] to the timetable; a wrong one becomes a job, to be rejected.

        In direct mode it is run now, whatever its schedule says.
        """
        data, settings = one.data or b"", self._shop.spool.settings
        if self._only is not None or b"schedule" not in data or tomltext.is_own(data):
            return False
        try:
            if not isinstance(tomltext.parse(data).table.get("schedule"), dict):
                return False
            schedules.read(data, settings)
        except HotfolderError:
            return False
        if not self._timetable.adopt(one.seen, one.lane):
            below = str(one.seen.path.relative_to(settings.inbox_dir))
            scan.ignored[names.shown(below)] = "a schedule that could not be moved to scheduled/"
        return True

    def _fire(self) -> None:
        for drop in self._timetable.due():
            for job in self._shop.spool.admit([drop]):
                self._timetable.fired(drop, job.name)
                self._hand_on(job)

    def _read_lanes(self, scan: Scan) -> None:
        """Find out in which lanes a picture is a job."""
        inbox = self._shop.spool.settings.inbox_dir
        taking = set()
        wrong: dict[str, str] = {}
        for lane in scan.lanes:
            if not os.path.lexists(inbox / lane / lanes.FILE_NAME):
                continue
            try:
                if not lanes.read(inbox, lane).picture_jobs:
                    continue
                if lane:
                    taking.add(lane)
                else:
                    # What jobs name lies here, and would become a job each.
                    wrong[lane] = "picture_jobs counts in a lane, not in the inbox itself"
            except Rejected as error:
                wrong[names.shown(lane)] = "; ".join(str(problem) for problem in error.problems)
            except OSError as error:
                wrong[names.shown(lane)] = names.shown(str(error))
        self._scanner.picture_lanes = frozenset(taking)
        self.wrong_lanes = wrong

    def _check_folders(self) -> None:
        """A live job whose folder was deleted or moved is cancelled; the running ones are looked at every time."""
        now = self._shop.clock.monotonic()
        if now < self._folders_due:
            return
        self._folders_due = now + _FOLDERS_S
        live = list(self._shop.spool.live.values())
        some = live[self._looked_at : self._looked_at + _FOLDERS_A_LOOK]
        self._looked_at = self._looked_at + _FOLDERS_A_LOOK if self._looked_at + _FOLDERS_A_LOOK < len(live) else 0
        for job in {*some, *(job for job in live if job.busy)}:
            if not self._shop.spool.check_folder(job):
                self._shop.line.remove(job)
                run.conclude(self._shop, job)


def _drop(one: Ready) -> Drop:
    """Return what becomes of a ready file: a job file as it is, a picture with a job file made for it."""
    below = f"{one.lane}/{one.seen.path.name}" if one.lane else one.seen.path.name
    if one.data is None:
        text = tomli_w.dumps({"image": names.make_safe(one.seen.path.name)})
        return Drop(
            name=one.name,
            data=text.encode(),
            seen=one.seen,
            file=below,
            lane=one.lane,
            via="picture",
            picture=one.seen.path,
        )
    found = _VIA.search(one.data[:256])
    via = found.group(1).decode() if found else ""
    default = "lane" if one.lane else "dropped"
    return Drop(
        name=one.name,
        data=one.data,
        seen=one.seen,
        file=below,
        lane=one.lane,
        via=via if via in _KNOWN_VIA else default,
    )
