"""The files of `jobs_inbox/scheduled/`: what a job file says about when, and what NAME.status.toml says beside it."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import tomli_w

from hotfolder import cron, jobfile, kindkeys, names, tomltext
from hotfolder.clock import Moment
from hotfolder.errors import Problem, Rejected
from hotfolder.meaning import JobName, meaning_of
from hotfolder.presets import Presets
from hotfolder.settings import Settings

SCHEMA: Final = 1
#: Below the inbox.
FOLDER: Final = "scheduled"
STATUS_SUFFIX: Final = ".status.toml"
#: The rest depends on preset and lane as they are when it fires.
_CERTAIN: Final = frozenset({"unknown-key", "bad-value"})
#: Keys of a note that hold a path, which need not be UTF-8.
_PATHS: Final = ("folder", "dropped")


class State(StrEnum):
    """Where a schedule is."""

    #: It will fire.
    WAITING = "waiting"
    #: It has fired, or its time had passed, and no other time comes.
    OVER = "over"
    #: Its text is wrong: it does not fire.
    WRONG = "wrong"
    #: No daemon has seen it yet. Never stands in a file.
    NEW = "new"


@dataclass(frozen=True, kw_only=True)
class Once:
    """Fires once."""

    moment: Moment

    def after(self, moment: Moment) -> Moment | None:
        """Return the first time later than `moment`."""
        return self.moment if self.moment > moment else None

    def last(self, after: Moment, until: Moment) -> Moment | None:
        """Return the last time later than `after` and not later than `until`."""
        return self.moment if after < self.moment <= until else None

    def __str__(self) -> str:
        return f"at {self.moment}"


@dataclass(frozen=True, kw_only=True)
class Again:
    """Fires again and again."""

    expression: str
    cron: cron.Cron
    zone: ZoneInfo

    def after(self, moment: Moment) -> Moment | None:
        """Return the first time later than `moment`."""
        return self.cron.after(moment, self.zone)

    def last(self, after: Moment, until: Moment) -> Moment | None:
        """Return the last time later than `after` and not later than `until`."""
        return self.cron.last(after, until, self.zone)

    def __str__(self) -> str:
        return f"cron {' '.join(self.expression.split())} ({self.zone.key})"


When = Once | Again


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What [schedule] of a job file says."""

    when: When
    #: Whether a time that passed while no daemon ran is made up for, once.
    catch_up: bool


@dataclass(frozen=True, kw_only=True)
class Note:
    """What NAME.status.toml says."""

    #: The schedule's file name, as it may be shown.
    schedule: str
    state: State
    #: Folder below the inbox where it was dropped ("" is the inbox itself): pictures are looked for there.
    folder: str
    #: Such as "cron 0 2 * * * (Europe/Berlin)"; "" while the text is wrong.
    when: str = ""
    catch_up: bool = False
    #: Since when it has had this timing.
    since: Moment | None = None
    next_run: Moment | None = None
    #: The time for which it last fired, and the take that came of it.
    last_run: Moment | None = None
    last_take: str | None = None
    #: A time that passed while no daemon ran and was not made up for.
    skipped: Moment | None = None
    #: It fires for this time just now: a daemon that dies meanwhile is made up for, unless the take stands.
    firing: Moment | None = None
    #: The file that was dropped, below the inbox.
    dropped: str | None = None
    error: Problem | None = None

    def dump(self) -> bytes:
        """Return the text of the file."""
        table: dict[str, Any] = {"schema": SCHEMA, **vars(self), "state": self.state.value}
        table |= {key: _written(table[key]) for key in _PATHS if table[key] is not None}
        table["error"] = {key: value for key, value in vars(self.error).items() if value} if self.error else None
        return tomli_w.dumps({key: value for key, value in table.items() if value is not None}).encode()

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read the file; None where there is none, or where it is not as we write it.

        Raises:
            Rejected: a newer version wrote it.
        """
        try:
            table = tomltext.load(_read(path))
        except (OSError, ValueError):
            return None
        schema = table.pop("schema", None)
        if isinstance(schema, int) and schema > SCHEMA:
            message = f"{names.shown(path.name)} has schema {schema}; this version reads up to {SCHEMA}"
            raise Rejected(
                [Problem(code="newer-schema", message=message, hint="a newer version wrote it; use that one")]
            )
        try:
            return cls(**_typed(table)) if schema == SCHEMA else None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None


@dataclass(frozen=True, kw_only=True)
class ScheduleRow:
    """One schedule as its files show it."""

    name: str
    #: Below the inbox.
    file: str
    note: Note


def listing(settings: Settings) -> list[ScheduleRow]:
    """Return the schedules of a workspace, sorted by name. Only reads files: a daemon need not run.

    Raises:
        OSError: the folder cannot be read; one that does not exist has no schedules.
    """
    rows = []
    for file, name in files(settings):
        folder = settings.inbox_dir / FOLDER
        unseen = Note(schedule=names.shown(file), state=State.NEW, folder=FOLDER)
        try:
            note = Note.load(status_file(folder, name))
        except Rejected as error:
            note = Note(schedule=names.shown(file), state=State.WRONG, folder=FOLDER, error=error.problems[0])
        if note is None or note.schedule != unseen.schedule:
            note = unseen
        rows.append(ScheduleRow(name=name, file=f"{FOLDER}/{names.shown(file)}", note=note))
    return sorted(rows, key=lambda row: (row.name, row.file))


def files(settings: Settings) -> list[tuple[str, str]]:
    """Return file name and NAME of each file in `scheduled/` that may be a schedule.

    Of two with one NAME the one that bears it comes first.

    Raises:
        OSError: the folder cannot be read; one that does not exist has no files.
    """
    found = []
    try:
        with os.scandir(settings.inbox_dir / FOLDER) as entries:
            for entry in entries:
                means = meaning_of(entry.name)
                if isinstance(means, JobName) and entry.is_file(follow_symlinks=False):
                    found.append((entry.name, means.name))
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda pair: (pair[0] != f"{pair[1]}.toml", pair))


def status_file(folder: Path, name: str) -> Path:
    """Return where the status of schedule `name` lies."""
    return folder / f"{name}{STATUS_SUFFIX}"


def read(data: bytes, settings: Settings) -> Timing:
    """Read the text of a schedule.

    Raises:
        Rejected: it is no TOML, has no [schedule] or a wrong one, or other keys that are wrong whatever preset and
            lane will say when it fires.
    """
    document = tomltext.parse(data)
    table = document.table.get("schedule")
    if not isinstance(table, Mapping):
        hint = "a job without one goes into the inbox itself"
        raise Rejected([Problem(code="missing-key", message="there is no table [schedule]", hint=hint)])
    try:
        jobfile.read(document, Presets.of(settings.presets_dir), settings.default_preset)
    except Rejected as error:
        certain = [problem for problem in error.problems if problem.code in _CERTAIN]
        if certain:
            raise Rejected(certain) from error
    try:
        return _timing(kindkeys.Schedule(**table))
    except (ValueError, OverflowError, ZoneInfoNotFoundError) as error:
        line = document.line_of(["schedule"])
        raise Rejected([Problem(code="bad-value", message=f"schedule: {error}", line=line)]) from error


def _timing(schedule: kindkeys.Schedule) -> Timing:
    zone = ZoneInfo(schedule.timezone)
    if schedule.cron is not None:
        when: When = Again(expression=schedule.cron, cron=cron.Cron.parse(schedule.cron), zone=zone)
        return Timing(when=when, catch_up=schedule.catch_up)
    at = schedule.at
    if at is None:
        raise ValueError("exactly one of at and cron is needed")
    # What is written has milliseconds; what is compared with it must have no more.
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)
    moment = Moment.of(at) if at.tzinfo else cron.moment_of(at.replace(tzinfo=zone))
    return Timing(when=Once(moment=moment), catch_up=schedule.catch_up)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
        return file.read(tomltext.MAX_JOB_BYTES)


def _typed(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a status file says as a Note holds it; a key that has another type is an error."""
    typed: dict[str, Any] = dict(table)
    typed["state"] = State(typed["state"])
    for key in ("since", "next_run", "last_run", "skipped", "firing"):
        if key in typed:
            typed[key] = Moment.of(typed[key])
    typed |= {key: _as_it_was(typed[key]) for key in _PATHS if key in typed}
    if "error" in typed:
        typed["error"] = Problem(**typed["error"])
    # Pictures are looked for there: a forged note must not lead out of the inbox.
    paths = [PurePosixPath(typed.get(key, "")) for key in _PATHS]
    if any(path.is_absolute() or ".." in path.parts for path in paths):
        raise ValueError("not below the inbox")
    wrong = [key for key in ("schedule", "when", "last_take") if not isinstance(typed.get(key, ""), str)]
    told = vars(typed["error"]) if "error" in typed else {}
    wrong += [key for key, value in told.items() if not isinstance(value, str | int | None)]
    if wrong or "/" in typed["schedule"]:
        raise TypeError(wrong)
    return typed


def _written(path: str) -> str:
    r"""Return a path as text: a byte that is no UTF-8 as \xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _as_it_was(text: str) -> str:
    """Return the path that `_written` wrote."""
    return re.sub(r"\\x([89a-f][0-9a-f])", lambda match: os.fsdecode(bytes.fromhex(match[1])), text)
