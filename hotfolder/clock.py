"""Time, handed in so that tests can turn it."""

import datetime as dt
import time
from typing import Protocol, Self


class Moment(dt.datetime):
    """A UTC time that is written to the millisecond with a Z, in TOML too."""

    def __str__(self) -> str:
        return f"{self.isoformat(timespec='milliseconds')[:23]}Z"

    @classmethod
    def of(cls, value: dt.datetime) -> Self:
        """Return `value`, which knows its offset, as a Moment."""
        utc = value.astimezone(dt.UTC)
        return cls(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, dt.UTC)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote."""
        return cls.of(dt.datetime.fromisoformat(text))


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> Moment:
        """Return the time of day, which may step back."""

    def monotonic(self) -> float:
        """Return seconds that only grow; for durations."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> Moment:
        """Return the time of day in UTC."""
        return Moment.now(dt.UTC)

    def monotonic(self) -> float:
        """Return seconds since some fixed point."""
        return time.monotonic()
