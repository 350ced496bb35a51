"""How busy others kept the machine while something was measured: what decides whether a verdict may be given."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

#: Of the machine's time, used by processes that are not ours.
MAX_OTHERS: Final = 0.15
#: Of the machine's time, taken by the machine that it is a part of.
MAX_STEAL: Final = 0.05
#: By how much the same loop may take longer, or less, after the run than before.
MAX_DRIFT: Final = 0.20

_LOOP: Final = 200_000
_LOOPS: Final = 15
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Load:
    """The machine during one measurement."""

    #: Length of the run queue over the last minute, ours included.
    minute: float
    #: Share of the machine's time, 0 to 1, that others used; that was stolen.
    others: float
    steal: float
    #: Share of the time in which something of anybody's waited for a CPU, for the disk; None: the kernel does not say.
    cpu_pressure: float | None
    io_pressure: float | None
    #: How much longer one loop of fixed work took after the run than before; below 0: less.
    drift: float
    cores: int

    @property
    def noise(self) -> str:
        """Why nothing that was measured can be judged; "" where it can."""
        if not self.busy and abs(self.drift) > MAX_DRIFT:
            return f"the same loop took {self.drift:+.0%} after the run, more than {MAX_DRIFT:.0%}"
        return self.busy

    @property
    def busy(self) -> str:
        """What others took of the machine, where that was too much; "" where it was not."""
        if self.others > MAX_OTHERS:
            return f"others used {self.others:.0%} of the machine, more than {MAX_OTHERS:.0%}"
        if self.steal > MAX_STEAL:
            return f"{self.steal:.0%} of the machine was stolen, more than {MAX_STEAL:.0%}"
        return ""

    def as_dict(self) -> dict[str, float | None]:
        """For the JSON line."""
        return {key: None if value is None else round(value, 4) for key, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The counters of the machine at one time; two of them make a `Load`."""

    at_s: float
    all_s: float
    busy_s: float
    steal_s: float
    own_s: float
    cpu_pressure_s: float | None
    io_pressure_s: float | None
    loop_s: float

    @classmethod
    def now(cls) -> Self:
        """Read the counters, and time the loop.

        Processes of ours that have not ended count as others'.
        """
        loop_s = _loop_s()
        first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
        user, nice, system, idle, waiting, hard, soft, steal = (int(part) / _TICKS_PER_S for part in first.split()[1:9])
        busy_s = user + nice + system + hard + soft
        return cls(
            at_s=time.monotonic(),
            all_s=busy_s + idle + waiting + steal,
            busy_s=busy_s,
            steal_s=steal,
            own_s=sum(os.times()[:4]),
            cpu_pressure_s=_pressure_s("cpu"),
            io_pressure_s=_pressure_s("io"),
            loop_s=loop_s,
        )

    def until(self, later: "Moment") -> Load:
        """What the machine did from this moment to a later one."""
        all_s = max(later.all_s - self.all_s, 0.01)
        others_s = (later.busy_s - self.busy_s) - (later.own_s - self.own_s)
        passed_s = max(later.at_s - self.at_s, 0.01)
        return Load(
            minute=os.getloadavg()[0],
            others=max(others_s, 0.0) / all_s,
            steal=(later.steal_s - self.steal_s) / all_s,
            cpu_pressure=_share(self.cpu_pressure_s, later.cpu_pressure_s, passed_s),
            io_pressure=_share(self.io_pressure_s, later.io_pressure_s, passed_s),
            drift=later.loop_s / self.loop_s - 1,
            cores=os.cpu_count() or 1,
        )


def _share(before_s: float | None, after_s: float | None, passed_s: float) -> float | None:
    return None if before_s is None or after_s is None else (after_s - before_s) / passed_s


def _pressure_s(what: str) -> float | None:
    """For how long, since the machine started, something waited for `what`."""
    try:
        some = Path(f"/proc/pressure/{what}").read_text(encoding="ascii").split("\n", 1)[0]
        return int(some.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError):
        return None


def _loop_s() -> float:
    """Time fixed work of one core, the best of a few."""
    return min(_one_loop_s() for _ in range(_LOOPS))


def _one_loop_s() -> float:
    started = time.perf_counter()
    found = 0
    for number in range(_LOOP):
        found ^= number
    return time.perf_counter() - started
