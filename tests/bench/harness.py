"""What a benchmark is made of: two things measured in turns, the target, and a verdict that may be refused."""

import math
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from bench.machine import Load
from hotfolder.settle import mount_type

#: Where some pairs meet the target and others miss it: how far the middle half of them may spread, in medians.
MAX_SPREAD: Final = 0.25
#: So many pairs that all meet the target, or all miss it, are believed on a machine whose speed changed meanwhile.
AGREED: Final = 5

_T = TypeVar("_T")


class Skipped(Exception):
    """A metric cannot be measured here: its text says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a ratio must be."""

    bound: float
    at_most: bool = True

    def met_by(self, value: float) -> bool:
        """Whether a value is on the right side."""
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:g}"


def at_most(bound: float) -> Target:
    """The ratio must not be higher."""
    return Target(bound=bound)


def at_least(bound: float) -> Target:
    """The ratio must not be lower."""
    return Target(bound=bound, at_most=False)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What to draw of a metric: points by series."""

    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    #: Axes on which each decade is as long as the next.
    log_x: bool = False
    log_y: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For the JSON line."""
        series = {name: [(_rounded(x), _rounded(y)) for x, y in points] for name, points in self.series.items()}
        return {**vars(self), "series": series}


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What was measured in turns: one of each pair, in the unit of its metric, and what is judged of it."""

    ours: Sequence[float]
    theirs: Sequence[float]
    #: The ratio of each pair, or the exponent of growth.
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One metric measured."""

    metric: str
    against: str
    unit: str
    pairs: Pairs
    target: Target | None = None
    #: What the measured things wrote to: `Bench.disk`, "" where nothing is written.
    disk: str = ""
    #: How many things (jobs, pictures) each measurement was about.
    size: int | None = None
    note: str = ""
    #: Whether it depends on what else the machine does: memory, and what is counted, does not.
    timed: bool = True
    #: Why the machine could not do what was to be measured, "" where it could.
    overloaded: str = ""
    curve: Curve | None = None
    #: Whatever else was counted.
    counts: Mapping[str, Any] = field(default_factory=dict)

    def verdict(self, load: Load) -> tuple[str, str]:
        """Return "met", "missed", "too noisy" or "reported", and why where that is not plain."""
        if self.target is None:
            return "reported", load.noise if self.timed else ""
        met = [self.target.met_by(value) for value in self.pairs.values]
        # Each pair was measured together: that the machine grew faster or slower did not make all of them agree.
        agreed = len(met) >= AGREED and len(set(met)) == 1
        noise = load.busy if agreed else load.noise
        if self.overloaded or (self.timed and noise):
            return "too noisy", self.overloaded or noise
        if len(set(met)) > 1 and (spread := _spread(self.pairs.values)) > MAX_SPREAD:
            return "too noisy", f"the middle half of the pairs spreads over {spread:.0%} of their median"
        return ("met" if self.target.met_by(statistics.median(self.pairs.values)) else "missed"), ""

    def line(self, load: Load) -> dict[str, Any]:
        """As it is printed."""
        verdict, why = self.verdict(load)
        line: dict[str, Any] = {
            "metric": self.metric,
            "against": self.against,
            "ratio": _rounded(statistics.median(self.pairs.values)),
            "min": _rounded(min(self.pairs.values)),
            "max": _rounded(max(self.pairs.values)),
            "target": str(self.target) if self.target else None,
            "verdict": verdict,
            "why": why,
            "n": len(self.pairs.values),
            "unit": self.unit,
            "ours": _rounded(statistics.median(self.pairs.ours)),
            "theirs": _rounded(statistics.median(self.pairs.theirs)),
            "size": self.size,
            "disk": self.disk,
            "note": self.note,
            "counts": dict(self.counts),
            "load": load.as_dict(),
        }
        if self.curve is not None:
            line["curve"] = self.curve.as_dict()
        return {key: value for key, value in line.items() if value not in ("", None, {})}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every metric is given."""

    #: A folder on the disk that is to be measured.
    root: Path
    #: Small sizes and few rounds: to see that it works, and for the gates of continuous integration.
    quick: bool = False

    @property
    def disk(self) -> str:
        """The file system of what is written here."""
        return mount_type(self.root)

    def size(self, full: int, quick: int) -> int:
        """Return the one that is asked for."""
        return quick if self.quick else full

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A new folder on that disk; gone afterwards."""
        self.root.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(dir=self.root))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


Metric = Callable[[Bench], Iterator[Finding]]


def in_turns(ours: Callable[[], _T], theirs: Callable[[], _T], rounds: int) -> list[tuple[_T, _T]]:
    """Measure both, so many times; every other pair begins with theirs, so that a drift favours nobody."""
    pairs = []
    for turn in range(rounds):
        if turn % 2:
            second = theirs()
            pairs.append((ours(), second))
        else:
            first = ours()
            pairs.append((first, theirs()))
    return pairs


def ratios(pairs: Sequence[tuple[float, float]]) -> Pairs:
    """Judge ours / theirs."""
    values = [ours / theirs for ours, theirs in pairs]
    return Pairs(ours=[ours for ours, _ in pairs], theirs=[theirs for _, theirs in pairs], values=values)


def exponents(pairs: Sequence[tuple[float, float]], times: float) -> Pairs:
    """Judge growth: ours is of so many `times` as much as theirs; an exponent of 1 is linear."""
    values = [math.log(large / small) / math.log(times) for large, small in pairs]
    return replace(ratios(pairs), values=values)


def percentile(values: Sequence[float], per_cent: float) -> float:
    """The value that so many per cent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * per_cent / 100) - 1)]


def _spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return (third - first) / abs(statistics.median(values) or 1.0)


def _rounded(value: float) -> float:
    """Four digits: more would only pretend."""
    return float(f"{value:.4g}")
