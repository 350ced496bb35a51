"""Cron expressions, and the moments they mean in a time zone, also on the days when its clocks are turned.

Days and weekdays are cron's: 0 and 7 are Sunday, and where both day and weekday are restricted one of them is enough.
A time that a turning of the clocks leaves out runs as soon as they are turned, a time that comes twice runs the first
time; where minute or hour begins with `*` the job runs by the hours that really pass. So do Debian's cron and cronie.
"""

import calendar
import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final, Self
from zoneinfo import ZoneInfo

from hotfolder.clock import Moment

_DAY: Final = dt.timedelta(days=1)
_SECOND: Final = dt.timedelta(seconds=1)
_PART: Final = re.compile(r"(\*|(\d{1,9}|[a-z]{3})(?:-(\d{1,9}|[a-z]{3}))?)(?:/(\d{1,9}))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class _Field:
    name: str
    lowest: int
    highest: int
    #: From `lowest` on.
    words: tuple[str, ...] = ()


_FIELDS: Final = (
    _Field(name="minute", lowest=0, highest=59),
    _Field(name="hour", lowest=0, highest=23),
    _Field(name="day", lowest=1, highest=31),
    _Field(
        name="month",
        lowest=1,
        highest=12,
        words=("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    ),
    _Field(name="weekday", lowest=0, highest=7, words=("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


@dataclass(frozen=True, kw_only=True)
class Cron:
    """An expression that was read: which minutes, hours, days, months and weekdays it names."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    #: 0 is Sunday.
    weekdays: frozenset[int]
    #: Neither day nor weekday begins with `*`: one of them is enough.
    either: bool
    #: Minute or hour begins with `*`: by the hours that pass, not by what the clock shows.
    steady: bool

    @classmethod
    def parse(cls, expression: str) -> Self:
        """Read five fields of numbers, names, `*`, ranges, lists and steps.

        Raises:
            ValueError: names the field, what was found and what is accepted; or says that the day never comes.
        """
        texts = expression.lower().split()
        if len(texts) != len(_FIELDS):
            raise ValueError(
                f"{len(texts)} fields; accepted are five: minute hour day month weekday, as in '0 2 * * *'"
            )
        minutes, hours, days, months, weekdays = (
            frozenset(number for part in text.split(",") for number in _numbers(part, field))
            for text, field in zip(texts, _FIELDS, strict=True)
        )
        cron = cls(
            minutes=minutes,
            hours=hours,
            days=days,
            months=months,
            weekdays=frozenset(number % 7 for number in weekdays),
            either=not texts[2].startswith("*") and not texts[4].startswith("*"),
            steady=texts[0].startswith("*") or texts[1].startswith("*"),
        )
        if not cron.either and min(days) > max(_longest(month) for month in months):
            raise ValueError(f"day {texts[2]} of month {texts[3]} never comes")
        return cron

    def after(self, moment: dt.datetime, zone: ZoneInfo) -> Moment:
        """Return the first moment later than `moment`."""
        # From the day before: a day that a zone leaves out whole runs at the start of the next.
        start = moment.astimezone(zone).date() - _DAY
        days = (start + number * _DAY for number in count())
        return Moment.of(next(found for day in days for found in self._moments(day, zone) if found > moment))

    def last(self, after: dt.datetime, until: dt.datetime, zone: ZoneInfo) -> Moment | None:
        """Return the last moment later than `after` and not later than `until`, None where there is none."""
        day, earliest = until.astimezone(zone).date() + _DAY, after.astimezone(zone).date() - _DAY
        while day >= earliest:
            found = [moment for moment in self._moments(day, zone) if after < moment <= until]
            if found:
                return Moment.of(found[-1])
            day -= _DAY
        return None

    def _moments(self, day: dt.date, zone: ZoneInfo) -> Iterable[dt.datetime]:
        """Return the moments of one day, in order."""
        if not self._names(day):
            return ()
        start = dt.datetime(day.year, day.month, day.day, tzinfo=zone)
        shown = (
            start.replace(hour=hour, minute=minute) for hour in sorted(self.hours) for minute in sorted(self.minutes)
        )
        if len({(start + days).replace(fold=fold).utcoffset() for days in (0 * _DAY, _DAY) for fold in (0, 1)}) == 1:
            midnight = start.astimezone(dt.UTC)
            return (midnight + dt.timedelta(hours=one.hour, minutes=one.minute) for one in shown)
        if self.steady:
            return sorted({moment for one in shown for moment in _when_shown(one)})
        return sorted({moment_of(one) for one in shown})

    def _names(self, day: dt.date) -> bool:
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_day or by_weekday) if self.either else (by_day and by_weekday)


def moment_of(shown: dt.datetime) -> Moment:
    """Return the moment at which clocks show this time, which has its zone.

    One that comes twice is taken the first time; one that is left out, at the moment when the clocks are turned.
    """
    first, second = Moment.of(shown.replace(fold=0)), Moment.of(shown.replace(fold=1))
    if first <= second:
        return first
    # Left out: with the offset from before it lies after the turning, and the other way round.
    zone, old = shown.tzinfo, second.astimezone(shown.tzinfo).utcoffset()
    before, late = second.replace(microsecond=0), first.replace(microsecond=0)
    while late - before > _SECOND:
        middle = before + (late - before) // 2 // _SECOND * _SECOND
        if middle.astimezone(zone).utcoffset() == old:
            before = middle
        else:
            late = middle
    return late


def _when_shown(shown: dt.datetime) -> Iterator[Moment]:
    """Yield each moment at which clocks show this time: none, one or two."""
    for fold in (0, 1):
        moment = Moment.of(shown.replace(fold=fold))
        if moment.astimezone(shown.tzinfo).replace(tzinfo=None, fold=0) == shown.replace(tzinfo=None):
            yield moment


def _numbers(part: str, field: _Field) -> range:
    """Return the numbers that one part of a list means."""
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(f"{field.name} {part!r} is not understood; accepted are *, 5, 1-5, */2 and lists of these")
    whole, first, last, step = match.groups()
    if step is not None and not 1 <= int(step) <= field.highest:
        raise ValueError(f"{field.name} {part!r}: a step is 1 to {field.highest}")
    low = field.lowest if whole == "*" else _number(first, field)
    if last is not None:
        high = _number(last, field)
        if field.name == "weekday" and high == 0 < low:
            high = 7  # fri-sun
    else:
        high = low if whole != "*" and step is None else field.highest
    if high < low:
        raise ValueError(f"{field.name} {part!r} runs backwards")
    return range(low, high + 1, int(step or 1))


def _number(text: str, field: _Field) -> int:
    if not text.isdecimal():
        if text not in field.words:
            raise ValueError(f"{field.name} {text!r} is no name of a {field.name}")
        return field.words.index(text) + field.lowest
    if not field.lowest <= int(text) <= field.highest:
        raise ValueError(f"{field.name} {text}: accepted are {field.lowest} to {field.highest}")
    return int(text)


def _longest(month: int) -> int:
    """Return the days of a month in a leap year."""
    return calendar.monthrange(2000, month)[1]
