"""What there is to disturb: the calls of every scenario, and a fair sample of them."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scenarios import Scenario
from scene import Scene
from syscalls import ERRORS, Fault, Point
from trials import Crew, Task, Trial, fail, kill, kill_twice

#: Second kills for each first one: so many share the trace of one recovery.
_AGAIN = 4
#: Only a call that opens a file can run out of descriptors.
_OPENS = "openat"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault in a scenario."""

    scenario: Scenario
    fault: Fault

    @property
    def key(self) -> tuple[str, str]:
        """What it is called in the file of trials."""
        return (self.scenario.name, str(self.fault))

    def task(self) -> Task:
        """Return it for a crew."""
        return (self.scenario, self._try)

    def _try(self, scene: Scene) -> list[Trial]:
        return [fail(scene, self.fault) if self.fault.error else kill(scene, self.fault.point)]


class Campaign:
    """What there is to disturb in some scenarios."""

    def __init__(self, crew: Crew, scenarios: Sequence[Scenario]) -> None:
        self.crew = crew
        self._scenarios = {scenario.name: scenario for scenario in scenarios}
        #: Scenario -> its points, in the order in which they were found.
        self._points: dict[str, dict[Point, None]] = {name: {} for name in self._scenarios}

    def enumerate(self) -> None:
        """Play each scenario once, undisturbed, and add the points that are new."""

        def look(scene: Scene) -> Iterable[Trial]:
            self._points[scene.scenario.name] |= dict.fromkeys(scene.enumerate())
            return ()

        list(self.crew.each((scenario, look) for scenario in self._scenarios.values()))

    @property
    def pairs(self) -> set[tuple[str, str, str]]:
        """Scenario, call and role of all points so far."""
        return {(name, *point.pair) for name, points in self._points.items() for point in points}

    def kills(self) -> list[Case]:
        """Return a kill at every call that changes something."""
        return [self._case(name, Fault(point=point)) for name, point in self._all() if not point.reads]

    def errors(self) -> list[Case]:
        """Return every error at every call, opens that only read among them."""
        return [
            self._case(name, Fault(point=point, error=error))
            for name, point in self._all()
            for error in ERRORS
            if error != "EMFILE" or point.call == _OPENS
        ]

    def double_kills(self, count: int, chance: random.Random, *, again: int = _AGAIN) -> list[Task]:
        """Return about `count` kills during the recovery from a kill, `again` of them for each first kill."""
        firsts = sample(self.kills(), -(-count // again), chance)
        seeds = [chance.randrange(2**32) for _ in firsts]

        def task(case: Case, seed: int) -> Task:
            return (case.scenario, lambda scene: kill_twice(scene, case.fault.point, again, random.Random(seed)))

        return [task(case, seed) for case, seed in zip(firsts, seeds, strict=True)]

    def _all(self) -> Iterator[tuple[str, Point]]:
        return ((name, point) for name, points in self._points.items() for point in points)

    def _case(self, name: str, fault: Fault) -> Case:
        return Case(scenario=self._scenarios[name], fault=fault)


def sample(cases: Sequence[Case], count: int, chance: random.Random) -> list[Case]:
    """Draw some cases: from every scenario as many, and no pair of call and role twice before each was there once."""
    drawn = list(cases)
    chance.shuffle(drawn)
    seen: Counter[tuple[str, str]] = Counter()
    by_scenario: defaultdict[str, list[tuple[int, Case]]] = defaultdict(list)
    for case in drawn:
        seen[case.fault.point.pair] += 1
        by_scenario[case.scenario.name].append((seen[case.fault.point.pair], case))
    ranked = [sorted(group, key=lambda one: one[0]) for group in by_scenario.values()]
    turns = (group[turn][1] for turn in range(len(cases)) for group in ranked if turn < len(group))
    return [case for case, _ in zip(turns, range(count), strict=False)]
