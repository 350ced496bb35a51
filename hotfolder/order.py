"""How many jobs of the loaded model go before older ones, so that models are loaded least often.

Whoever lets as many go first as may wastes what the others would have needed: in a line of three models in turn the
first run takes up the patience of all that wait, and every second one of those that follow is short. So the next jobs
are looked at together: all ways to go through them are followed from load to load, the best few at a time.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from typing import Final

#: How far ahead: jobs and loads. More of either saves next to no load.
LOOK_AHEAD: Final = 64
_LOADS: Final = 6
#: Ways that are followed after each load: those on which most jobs have run.
_WAYS: Final = 16

#: One way: how many jobs of each model have run. Those of one model run in their order, so that it says which.
_Ran = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that waits."""

    model: str
    #: By how many more later jobs it may be overtaken.
    patience: int


def best_stay(jobs: Sequence[Waiting], loaded: str) -> int:
    """Return how many jobs of the loaded model best go before the oldest job.

    After them it is the oldest one's turn: its model is loaded and puts out the other, and so on. That stay is the best
    with which the fewest loads do for all jobs or, where there are too many, with which most jobs run until a few loads
    later. Of equals it is the longest: it puts off the next load.

    Args:
        jobs: in their order; the first is of another model.
    """
    ahead = _Ahead(jobs, loaded)
    begin: _Ran = (0,) * len(ahead.queues)
    # The stay with which each way began.
    ways = {ran: stay for stay, ran in enumerate(ahead.ends_of_run(begin, loaded))}
    for _ in range(_LOADS):
        through: list[tuple[int, int]] = []
        further: dict[_Ran, int] = {}
        for ran, stay in ways.items():
            for after in ahead.ends_of_run(ran, ahead.oldest(ran)):
                further[after] = max(stay, further.get(after, 0))
                if sum(after) == len(jobs):
                    # The fewer are left for the last load, the more of those that come meanwhile can go with them.
                    through.append((sum(ran), stay))
        if through:
            return max(through)[1]
        ways = {ran: further[ran] for ran in nlargest(_WAYS, further, key=sum)}
    return max((sum(ran), stay) for ran, stay in ways.items())[1]


class _Ahead:
    """The jobs that are looked at, by their places."""

    def __init__(self, jobs: Sequence[Waiting], loaded: str) -> None:
        self._jobs = jobs
        self._models = list(dict.fromkeys([loaded, *(job.model for job in jobs)]))
        self.queues = [[place for place, job in enumerate(jobs) if job.model == model] for model in self._models]
        #: Of each job: how many of each model are older.
        self._older = [[bisect_left(queue, place) for queue in self.queues] for place in range(len(jobs))]

    def oldest(self, ran: _Ran) -> str:
        """Return the model of the oldest job that has not run."""
        return self._jobs[min(self._heads(ran))].model

    def ends_of_run(self, ran: _Ran, loaded: str) -> Iterator[_Ran]:
        """Yield where a run of the loaded model may end: before each job that would overtake, and where none may."""
        left = {head: self._patience(head, ran) for head in self._heads(ran) if self._jobs[head].model != loaded}
        model = self._models.index(loaded)
        count = ran[model]
        for place in islice(self.queues[model], count, None):
            overtaken = [head for head in left if head < place]
            if overtaken:
                yield (*ran[:model], count, *ran[model + 1 :])
            if any(left[head] <= 0 for head in overtaken):
                return
            for head in overtaken:
                left[head] -= 1
            count += 1
        yield (*ran[:model], count, *ran[model + 1 :])

    def _heads(self, ran: _Ran) -> list[int]:
        """Return the first job of each model that has not run."""
        return [queue[count] for queue, count in zip(self.queues, ran, strict=True) if count < len(queue)]

    def _patience(self, place: int, ran: _Ran) -> int:
        """Return by how many more a job may be overtaken, of those that wait, after some of them have run."""
        overtook = sum(max(0, count - older) for count, older in zip(ran, self._older[place], strict=True))
        return self._jobs[place].patience - overtook
