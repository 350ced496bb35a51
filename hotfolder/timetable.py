"""Schedules: which files of `jobs_inbox/scheduled/` fire, and for which time.

The files are the truth. What is due is told by the clock that is handed in, at each scan; APScheduler only wakes the
scan at the right moment. A firing has happened once its take stands: the time that the take records, not our note of
it, keeps it from happening twice.
"""

import datetime as dt
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hotfolder import claim, durable, foreign, logs, names, schedules
from hotfolder.admission import Drop
from hotfolder.claim import Seen
from hotfolder.clock import Clock, Moment
from hotfolder.errors import Rejected
from hotfolder.meaning import JobName, meaning_of
from hotfolder.schedules import FOLDER, STATUS_SUFFIX, Note, Once, State, Timing
from hotfolder.settings import Settings
from hotfolder.spool import Spool
from hotfolder.tomltext import MAX_OWN_BYTES

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler

#: An editor that saves by renaming leaves a file away for a moment: only then it is gone for good.
_GONE_S: Final = 2.0
#: A firing further ahead of the clock was made while the clock was wrong: it does not stop the schedule until then.
_BELIEVED: Final = dt.timedelta(days=1)
#: Takes that are looked at for the time of the last firing.
_MAX_TAKES: Final = 1000
_EVER: Final = Moment(1970, 1, 1, tzinfo=dt.UTC)

_log = logs.logger(__name__)


@dataclass(kw_only=True, eq=False)
class _Schedule:
    """One schedule as it was last read."""

    name: str
    file: str
    seen: Seen
    data: bytes
    #: None while the text is wrong.
    timing: Timing | None
    note: Note
    #: Times up to here are dealt with.
    looked: Moment
    #: Whether the file still is as it was read; while somebody writes to it nothing fires.
    settled: bool = True
    #: What its status file says.
    shown: Note | None = None
    #: Why the status file could not be written, said once.
    unwritable: str = ""


class Timetable:
    """The schedules of one workspace. Used by the intake thread, after `Spool.recover`."""

    def __init__(self, settings: Settings, clock: Clock, jobs: Spool, wake: Callable[[], None]) -> None:
        """`wake` is called, in another thread, when something may be due."""
        self._settings = settings
        self._clock = clock
        self._jobs = jobs
        self._folder = settings.inbox_dir / FOLDER
        self._schedules: dict[str, _Schedule] = {}
        #: NAME -> since when its file is missing.
        self._missing: dict[str, float] = {}
        #: Drops that were adopted though they could not be taken away.
        self._stuck: set[Seen] = set()
        self._recovered = False
        self._alarms = _Alarms(wake)

    def adopt(self, seen: Seen, lane: str) -> bool:
        """Move a job file with [schedule] to `scheduled/`, over an older one of its NAME.

        It is copied whole before it is taken away: after a crash in between it is met once more, to the same effect.

        Args:
            seen: the file as it was read.
            lane: the folder it was dropped in, where its pictures are looked for.
        Returns: whether it is gone from there.
        """
        means = meaning_of(seen.path.name)
        name = means.name if isinstance(means, JobName) else names.safe_name(seen.path.name)
        try:
            self._recover()
            if seen not in self._stuck:
                data = _read(seen)
                if data is None:
                    return False
                schedules.read(data, self._settings)
                self._keep(name, data, lane, str(seen.path.relative_to(self._settings.inbox_dir)))
                self._stuck.add(seen)
            if not os.access(seen.path.parent, os.W_OK) or not claim.take_away(seen):
                return False
            self._stuck.discard(seen)
            durable.sync_folder(seen.path.parent)
        except (OSError, Rejected) as error:
            _log.warning("schedule_not_adopted", file=names.shown(seen.path.name), error=str(error))
            return False
        return True

    def look(self, ready: Sequence[Seen]) -> list[tuple[str, str]]:
        """Notice schedules that are new, edited or gone, and write the status of each.

        Args:
            ready: the files of `scheduled/` that are whole.
        Returns: path below `scheduled/`, and why, of each file that is left alone.
        """
        whole = {seen.path: seen for seen in ready}
        left = [
            (self._below(path), f"schedules lie in {FOLDER}/ itself, not below it")
            for path in whole
            if path.parent != self._folder
        ]
        try:
            self._recover()
            files = schedules.files(self._settings)
            if not self._settings.inbox_dir.is_dir():
                raise FileNotFoundError(self._settings.inbox_dir)
        except OSError:
            # Not to be seen, which is not empty.
            for schedule in self._schedules.values():
                schedule.settled = False
            return left
        here: dict[str, str] = {}
        for file, name in files:
            path = self._folder / file
            if name in here:
                left.append((self._below(path), f"{here[name]} is the schedule {name} already"))
                continue
            here[name] = file
            if why := self._look_at(path, name, whole.get(path)):
                left.append((self._below(path), why))
        self._let_go(set(here))
        return left

    def due(self) -> list[Drop]:
        """Return what fires now. A firing comes again at each call until its take stands."""
        now = self._clock.now()
        drops = []
        for schedule in self._schedules.values():
            if schedule.timing is not None and schedule.settled:
                moment = self._firing(schedule, schedule.timing, now)
                self._show(schedule)
                if moment is not None:
                    drops.append(
                        Drop(
                            name=schedule.name,
                            data=schedule.data,
                            seen=None,
                            file=f"{FOLDER}/{schedule.file}",
                            lane=schedule.note.folder,
                            via="schedule",
                            scheduled_for=moment,
                        )
                    )
        return drops

    def fired(self, drop: Drop, job_name: str) -> None:
        """The take of a firing stands."""
        schedule = self._schedules.get(drop.name)
        if schedule is not None and drop.scheduled_for is not None:
            self._has_fired(schedule, drop.scheduled_for, job_name)
            self._show(schedule)

    def stop(self) -> None:
        """Wake nobody any more."""
        self._alarms.stop()

    # --- the files ---

    def _keep(self, name: str, data: bytes, lane: str, dropped: str) -> None:
        """Write a schedule and its status into `scheduled/`; both are durable when this returns."""
        path = self._folder / f"{name}.toml"
        if not self._folder.exists():
            self._folder.mkdir(exist_ok=True)
            durable.sync_folder(self._folder.parent)
        if not stat.S_ISDIR(self._folder.lstat().st_mode):
            raise NotADirectoryError(f"{FOLDER} is no folder")
        known = self._schedules.get(name)
        old = known.note if known else self._remember(name, path.name)
        note = replace(old, schedule=path.name, folder=lane, dropped=dropped)
        # The status first: the schedule never stands there without the folder it came from.
        durable.write(schedules.status_file(self._folder, name), note.dump())
        durable.write(path, data)
        durable.sync_folder(self._folder)
        self._missing.pop(name, None)
        self._show(self._take_in(name, _seen(path), data, note))

    def _look_at(self, path: Path, name: str, whole: Seen | None) -> str | None:
        """Look at one file; return why it is left alone, None where it is not."""
        schedule = self._schedules.get(name)
        self._missing.pop(name, None)
        try:
            if schedule is not None and schedule.file == path.name and _is_same(schedule.seen, path):
                schedule.settled = True
            else:
                if schedule is not None:
                    schedule.settled = False
                data = _read(whole) if whole else None
                if whole is None or data is None:
                    return None
                note = schedule.note if schedule else self._remember(name, path.name)
                schedule = self._take_in(name, whole, data, replace(note, schedule=names.shown(path.name)))
            if not schedules.status_file(self._folder, name).exists():
                schedule.shown = None
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        except Rejected as error:
            return str(error)
        self._show(schedule)
        return str(schedule.note.error) if schedule.note.error else None

    def _take_in(self, name: str, seen: Seen, data: bytes, note: Note) -> _Schedule:
        """Take a text as the schedule `name` from now on.

        The same timing as before goes on as before, whatever else was edited; another one begins now.
        """
        now, old = self._clock.now(), self._schedules.get(name)
        schedule = _Schedule(name=name, file=seen.path.name, seen=seen, data=data, timing=None, note=note, looked=now)
        if old is not None:
            schedule.shown, schedule.unwritable = old.shown, old.unwritable
        self._schedules[name] = schedule
        try:
            timing = schedule.timing = schedules.read(data, self._settings)
        except Rejected as error:
            schedule.note = replace(
                note, state=State.WRONG, when="", since=None, next_run=None, firing=None, error=error.problems[0]
            )
            self._alarms.set(name, None)
            return schedule
        goes_on = note.when == str(timing.when) and note.since is not None
        if not goes_on:
            note = replace(note, since=now, firing=None, skipped=None)
        schedule.note = replace(note, when=str(timing.when), catch_up=timing.catch_up, error=None)
        if timing.catch_up and isinstance(timing.when, Once):
            schedule.looked = _EVER
        elif timing.catch_up and goes_on and old is None:
            schedule.looked = note.since or now
        elif goes_on and old is not None:
            schedule.looked = old.looked
        elif note.firing is None:
            self._say_skipped(schedule, timing, now)
        self._plan_next(schedule, timing, now)
        return schedule

    def _remember(self, name: str, file: str) -> Note:
        """Return what is known of a schedule: its note, and what its newest takes say.

        Raises:
            Rejected: a newer version wrote the note.
        """
        note = Note.load(schedules.status_file(self._folder, name))
        if note is None:
            note = Note(schedule=names.shown(file), state=State.WAITING, folder=FOLDER)
        for take in islice(self._jobs.newest(name), _MAX_TAKES):
            moment = self._scheduled_for(take)
            if moment is not None:
                if note.last_run is None or moment > note.last_run:
                    note = replace(note, last_run=moment, last_take=take)
                break
        return note

    def _recover(self) -> None:
        """Mend once what a crash in the middle of an adoption left behind."""
        if self._recovered:
            return
        for left in self._folder.glob(f".*{STATUS_SUFFIX}.tmp"):
            durable.remove(left)
        for path in self._folder.glob(f"*{STATUS_SUFFIX}"):
            try:
                note = Note.load(path)
                if note is not None and note.dropped is not None:
                    self._finish_adoption(self._settings.inbox_dir / note.dropped, self._folder / note.schedule)
            except (OSError, Rejected) as error:
                _log.warning("schedule_drop_stays", file=names.shown(path.name), error=str(error))
        self._recovered = True

    def _finish_adoption(self, dropped: Path, schedule: Path) -> None:
        """A drop may lie there under its hidden name: removed if it is the schedule, else put back, a drop again."""
        hidden = claim.hidden_name(dropped)
        if not hidden.exists():
            return
        if schedule.is_file() and foreign.file_sha256(hidden) == foreign.file_sha256(schedule):
            hidden.unlink()
        else:
            claim.put_back(hidden, dropped)
        durable.sync_folder(dropped.parent)

    def _let_go(self, here: set[str]) -> None:
        """Forget the schedules whose file is gone, and remove their status."""
        now = self._clock.monotonic()
        try:
            entries = os.listdir(self._folder)
        except OSError:
            entries = []
        statuses = {entry.removesuffix(STATUS_SUFFIX) for entry in entries if entry.endswith(STATUS_SUFFIX)}
        for name in (statuses | self._schedules.keys()) - here:
            if name in self._schedules:
                self._schedules[name].settled = False
            if now - self._missing.setdefault(name, now) >= _GONE_S:
                self._forget(name)

    def _forget(self, name: str) -> None:
        path = schedules.status_file(self._folder, name)
        try:
            if Note.load(path) is not None:
                durable.remove(path)
                durable.sync_folder(self._folder)
        except (OSError, Rejected) as error:
            _log.warning("schedule_status_stays", file=names.shown(path.name), error=str(error))
        self._missing.pop(name, None)
        if self._schedules.pop(name, None):
            self._alarms.set(name, None)

    def _below(self, path: Path) -> str:
        return names.shown(str(path.relative_to(self._folder)))

    # --- the times ---

    def _firing(self, schedule: _Schedule, timing: Timing, now: Moment) -> Moment | None:
        """Return the time for which a schedule fires now; of several that passed, the last."""
        note = schedule.note
        if note.next_run is not None and note.next_run <= now:
            passed = timing.when.last(self._dealt_with(schedule, timing, now), now)
            if passed is not None:
                # Durable before it is acted on: a daemon that dies from here on makes up for it.
                schedule.note = replace(note, firing=passed)
            schedule.looked = now
            self._plan_next(schedule, timing, now)
        elif now < schedule.looked:
            schedule.looked = now
            self._plan_next(schedule, timing, now)
        schedule.looked = now
        moment = schedule.note.firing
        if moment is None:
            return None
        take = self._take_for(schedule.name, moment)
        if take is None:
            return moment
        self._has_fired(schedule, moment, take)
        return None

    def _has_fired(self, schedule: _Schedule, moment: Moment, take: str) -> None:
        schedule.note = replace(schedule.note, last_run=moment, last_take=take, firing=None, skipped=None)
        if schedule.timing is not None:
            self._plan_next(schedule, schedule.timing, self._clock.now())

    def _plan_next(self, schedule: _Schedule, timing: Timing, now: Moment) -> None:
        moment = timing.when.after(self._dealt_with(schedule, timing, now))
        waits = moment is not None or schedule.note.firing is not None
        schedule.note = replace(schedule.note, next_run=moment, state=State.WAITING if waits else State.OVER)
        self._alarms.set(schedule.name, moment)

    def _dealt_with(self, schedule: _Schedule, timing: Timing, now: Moment) -> Moment:
        """Return the moment up to which nothing fires any more. It does not go back with the clock."""
        last = schedule.note.last_run
        if last is None:
            return schedule.looked
        counts = last == timing.when.moment if isinstance(timing.when, Once) else last <= now + _BELIEVED
        return max(schedule.looked, last) if counts else schedule.looked

    def _say_skipped(self, schedule: _Schedule, timing: Timing, now: Moment) -> None:
        """Note the last time that passed while nobody was there to see it."""
        note = schedule.note
        since = _EVER if isinstance(timing.when, Once) else note.since or now
        passed = timing.when.last(max(since, note.last_run or since), now)
        if passed is not None and passed != note.skipped:
            _log.warning("schedule_skipped", schedule=schedule.name, scheduled_for=str(passed))
            schedule.note = replace(note, skipped=passed)

    def _take_for(self, name: str, moment: Moment) -> str | None:
        """Return the take that fired for this time, None where none stands."""
        for take in islice(self._jobs.newest(name), _MAX_TAKES):
            found = self._scheduled_for(take)
            if found == moment:
                return take
            if found is not None and found < moment - _BELIEVED:
                return None
        return None

    def _scheduled_for(self, take: str) -> Moment | None:
        ledger = self._jobs.ledger_of(take)
        text = ledger.origin.scheduled_for if ledger and ledger.origin else None
        return Moment.parse(text) if text else None

    def _show(self, schedule: _Schedule) -> None:
        """Write the status file where it has changed."""
        if schedule.note == schedule.shown:
            return
        try:
            durable.write(schedules.status_file(self._folder, schedule.name), schedule.note.dump())
            durable.sync_folder(self._folder)
        except OSError as error:
            # It says how things are; what fires does not depend on it.
            if str(error) != schedule.unwritable:
                _log.warning("schedule_status_not_written", schedule=schedule.name, error=str(error))
            schedule.unwritable = str(error)
            return
        schedule.shown, schedule.unwritable = schedule.note, ""


class _Alarms:
    """Wakes the scan when a schedule is due, to the moment. APScheduler is started with the first alarm."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._set: dict[str, Moment] = {}
        self._scheduler: BackgroundScheduler | None = None
        self._stopped = False

    def set(self, name: str, moment: Moment | None) -> None:
        """Set the alarm of schedule `name`, or take it away."""
        if self._stopped or self._set.get(name) == moment:
            return
        scheduler = self._started()
        if moment is None:
            del self._set[name]
            if scheduler.get_job(name):
                scheduler.remove_job(name)
            return
        from apscheduler.triggers.date import DateTrigger

        self._set[name] = moment
        trigger = DateTrigger(run_date=moment, timezone=dt.UTC)
        scheduler.add_job(self._ring, trigger, id=name, replace_existing=True)

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        if self._scheduler is not None:
            # Waits until nothing is being rung: a scheduler that is shut down then cannot find what it has just rung.
            self._scheduler.remove_all_jobs()
            self._scheduler.shutdown()
            self._scheduler = None

    def _started(self) -> "BackgroundScheduler":
        if self._scheduler is None:
            from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
            from apscheduler.executors.pool import ThreadPoolExecutor
            from apscheduler.schedulers.background import BackgroundScheduler

            self._scheduler = BackgroundScheduler(
                timezone=dt.UTC,
                executors={"default": ThreadPoolExecutor(1)},
                # However late, and once for all that were missed: its own default drops what is a second late.
                job_defaults={"misfire_grace_time": None, "coalesce": True},
            )
            self._scheduler.add_listener(self._missed, EVENT_JOB_MISSED | EVENT_JOB_ERROR | EVENT_JOB_MAX_INSTANCES)
            self._scheduler.start()
        return self._scheduler

    def _ring(self) -> None:
        self._wake()

    def _missed(self, event: object) -> None:
        """Whatever becomes of an alarm, the scan looks at what is due."""
        _log.warning("schedule_alarm_missed", schedule=str(getattr(event, "job_id", "")))
        self._wake()


def _read(seen: Seen) -> bytes | None:
    """Return what is in a file, None where it is not the one that was seen any more.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(seen.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        # One byte more than is accepted, whose reader says so.
        data = file.read(MAX_OWN_BYTES + 1)
        found = os.fstat(descriptor)
    same = stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns, found.st_ino) == _identity(seen)
    return data if same else None


def _seen(path: Path) -> Seen:
    found = path.lstat()
    return Seen(path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)


def _is_same(seen: Seen, path: Path) -> bool:
    return _identity(_seen(path)) == _identity(seen)


def _identity(seen: Seen) -> tuple[int, int, int]:
    return (seen.size, seen.mtime_ns, seen.inode)
