"""A clock that stands still until it is turned."""

import datetime as dt

from hotfolder.clock import Moment, SystemClock

NOON = Moment(2026, 11, 20, 12, 0, 0, 0, dt.UTC)


class SetClock:
    """A Clock whose time only the test turns."""

    def __init__(self, now: Moment = NOON) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> Moment:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        self._now = Moment.of(self._now + dt.timedelta(seconds=seconds))
        self._monotonic += seconds


class AheadClock(SystemClock):
    """The clock of this machine, which a test may set ahead: what waits for a minute need not be waited for."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> Moment:
        return Moment.of(super().now() + dt.timedelta(seconds=self._ahead))

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead

    def turn(self, seconds: float) -> None:
        """Let time pass at once."""
        self._ahead += seconds
