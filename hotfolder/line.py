"""Which cell next: priority, age, loaded model. A cache of what the spool says.

Jobs go in the order in which they came. Among jobs of equal rank one whose model is loaded may go before an older one
of another model, but over the same older job at most `MAX_OVERTAKES` times and for `MAX_OVERTAKE_S` seconds.
"""

import threading
from bisect import bisect_left, insort
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from hotfolder.clock import Clock
from hotfolder.job import Job

MAX_OVERTAKES: Final = 8
MAX_OVERTAKE_S: Final = 600.0

#: What was put in front, priority, age: smaller goes first.
Rank = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The unit of work: one candidate of one job, from its first stage that is not done."""

    job: Job
    candidate: int


@dataclass(kw_only=True)
class _Entry:
    job: Job
    rank: Rank
    #: As it was when the job was put in the line.
    model_key: str
    #: Other jobs that went before this one because their model was loaded, and since when.
    overtaken_by: set[str] = field(default_factory=set)
    overtaken_since: float | None = None


class Line:
    """The jobs that have cells to run. Used by several threads."""

    def __init__(self, clock: Clock) -> None:
        """`clock` bounds for how long a loaded model may go first."""
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._order: list[tuple[Rank, str]] = []
        #: The same, by model.
        self._models: dict[str, list[tuple[Rank, str]]] = {}
        self._closed: set[str] = set()
        self._stopping = False
        self._changed = threading.Condition()

    def add(self, job: Job) -> None:
        """Put a job in the line, or put it where it belongs by now."""
        with self._changed:
            self._remove(job)
            if job.todo and job.ledger.held is None:
                entry = _Entry(job=job, rank=job.rank, model_key=job.model_key)
                self._entries[job.name] = entry
                insort(self._order, (entry.rank, job.name))
                insort(self._models.setdefault(job.model_key, []), (entry.rank, job.name))
            self._changed.notify_all()

    def remove(self, job: Job) -> None:
        """Take a job out: it ended, or it is held."""
        with self._changed:
            self._remove(job)

    def empty(self, job: Job) -> None:
        """Take a job out for good: it ends, and has no cells any more."""
        with self._changed:
            self._remove(job)
            job.todo.clear()

    def put_back(self, cell: Cell) -> None:
        """A cell that was stopped, not cancelled, is ready again: the first of its job."""
        with self._changed:
            cell.job.todo.appendleft(cell.candidate)
            cell.job.in_flight.discard(cell.candidate)

    def let_go(self, cell: Cell) -> None:
        """A cell came to its end, whichever that is."""
        with self._changed:
            cell.job.in_flight.discard(cell.candidate)

    def has_cells(self, job: Job) -> bool:
        """Whether a cell of the job is ready or under way: a cell that moves from one to the other is never missed."""
        with self._changed:
            return bool(job.todo or job.in_flight)

    def close(self, why: str) -> None:
        """Let no new cell start, for this reason, until `open` is called for it."""
        with self._changed:
            self._closed.add(why)

    def open(self, why: str) -> None:
        """Lift one reason."""
        with self._changed:
            self._closed.discard(why)
            self._changed.notify_all()

    @property
    def closed(self) -> frozenset[str]:
        """Why no new cell starts."""
        return frozenset(self._closed)

    def stop(self) -> None:
        """Wake whoever waits in `take`; from now on it returns None."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def take(self, loaded: Collection[str]) -> Cell | None:
        """Wait for the best cell and take it; None once the line was stopped.

        Args:
            loaded: keys of the models that are ready.
        """
        with self._changed:
            while not self._stopping:
                cell = None if self._closed else self._best(loaded, note=True)
                if cell is not None:
                    cell.job.todo.popleft()
                    cell.job.in_flight.add(cell.candidate)
                    if not cell.job.todo:
                        self._remove(cell.job)
                    return cell
                self._changed.wait()
            return None

    def peek(self, loaded: Collection[str]) -> Cell | None:
        """Return the cell that `take` would return now, without taking it or waiting."""
        with self._changed:
            return None if self._closed or self._stopping else self._best(loaded, note=False)

    def __len__(self) -> int:
        """Jobs in the line."""
        return len(self._order)

    def first(self, count: int) -> list[tuple[Job, str]]:
        """Return the first jobs of the line and, where the order was changed, why."""
        with self._changed:
            return [(self._entries[name].job, self._why(self._entries[name])) for _, name in islice(self._order, count)]

    def jobs(self) -> Iterator[Job]:
        """Return all jobs of the line in order."""
        with self._changed:
            return iter([self._entries[name].job for _, name in self._order])

    def _best(self, loaded: Collection[str], *, note: bool) -> Cell | None:
        if not self._order:
            return None
        oldest = self._entries[self._order[0][1]]
        chosen = self._overtaking(oldest, loaded, note=note) or oldest
        return Cell(job=chosen.job, candidate=chosen.job.todo[0])

    def _overtaking(self, oldest: _Entry, loaded: Collection[str], *, note: bool) -> _Entry | None:
        """Return the job that may go before the oldest one because its model is loaded."""
        if oldest.model_key in loaded:
            return None
        same_rank = oldest.rank[:2]
        others = [queue[0] for key in loaded if (queue := self._models.get(key)) and queue[0][0][:2] == same_rank]
        if not others:
            return None
        name = min(others)[1]
        now = self._clock.monotonic()
        since = oldest.overtaken_since
        if since is not None and now - since >= MAX_OVERTAKE_S:
            return None
        if name not in oldest.overtaken_by and len(oldest.overtaken_by) >= MAX_OVERTAKES:
            return None
        if note:
            oldest.overtaken_by.add(name)
            oldest.overtaken_since = now if since is None else since
        return self._entries[name]

    def _why(self, entry: _Entry) -> str:
        if entry.overtaken_by:
            return f"{len(entry.overtaken_by)} later job(s) went first: their model was loaded"
        if entry.rank[0]:
            return "put in front"
        return f"priority {-entry.rank[1]}" if entry.rank[1] else ""

    def _remove(self, job: Job) -> None:
        entry = self._entries.pop(job.name, None)
        if entry is None:
            return
        for queue in (self._order, self._models[entry.model_key]):
            del queue[bisect_left(queue, (entry.rank, job.name))]
        if not self._models[entry.model_key]:
            del self._models[entry.model_key]
