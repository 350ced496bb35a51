"""Which cell next: priority, age, loaded model. A cache of what the spool says.

Jobs go in the order in which they came. Among jobs of equal rank one whose model is loaded may go before an older one
of another model, but over the same older job at most `MAX_OVERTAKES` times and for `MAX_OVERTAKE_S` seconds. How many
of those that may do is foreseen by `order`.
"""

import threading
from bisect import bisect_left, insort
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from hotfolder.clock import Clock
from hotfolder.job import Job
from hotfolder.order import LOOK_AHEAD, Waiting, best_stay
from hotfolder.stagekeys import Lane
from hotfolder.table import Place

MAX_OVERTAKES: Final = 8
MAX_OVERTAKE_S: Final = 600.0
#: How often it is looked whether a cell is due whose turn comes later.
_LOOK_S: Final = 0.2

#: What was put in front, priority, age: smaller goes first.
Rank = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The unit of work: one stage of one candidate of one job, or of all candidates of an item."""

    job: Job
    place: Place
    #: Key of the model that it needs, "" where it needs none.
    model: str = ""

    @property
    def candidate(self) -> int:
        """The candidate, counted from 1."""
        return self.place.candidate

    @property
    def stage(self) -> int:
        """The stage, counted from 1."""
        return self.place.stage


@dataclass(kw_only=True)
class _Entry:
    job: Job
    rank: Rank
    #: As they were when the job was put in the line: the models that it has cells for, and whether beside the GPU.
    models: frozenset[str]
    cpu: bool
    #: Other jobs that went before this one because their model was loaded, with their ranks, and since when.
    overtaken_by: dict[str, Rank] = field(default_factory=dict)
    overtaken_since: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Stay:
    """Which jobs of the loaded model go before the oldest one; kept until a job comes that may change it."""

    oldest: str
    loaded: str
    first: frozenset[str]


class Line:
    """The jobs that have cells to run. Used by several threads; every table is looked at and changed only here."""

    def __init__(self, clock: Clock) -> None:
        """`clock` bounds for how long a loaded model may go first."""
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        #: All jobs of the line; those with a cell for the GPU; those with a cell beside it.
        self._order: list[tuple[Rank, str]] = []
        self._gpu: list[tuple[Rank, str]] = []
        self._cpu: list[tuple[Rank, str]] = []
        #: Those with a cell for the GPU, by model.
        self._models: dict[str, list[tuple[Rank, str]]] = {}
        #: What was foreseen last.
        self._stay: _Stay | None = None
        #: Jobs with cells whose turn comes later.
        self._later: set[str] = set()
        self._closed: set[str] = set()
        self._stopping = False
        self._lock = threading.RLock()
        #: A thread that waits for a cell of one lane is not woken for what it cannot run.
        self._changed: dict[Lane, threading.Condition] = {
            "gpu": threading.Condition(self._lock),
            "cpu": threading.Condition(self._lock),
        }

    def add(self, job: Job) -> None:
        """Put a job in the line, or put it where it belongs by now."""
        with self._lock:
            self._sync(job)

    def remove(self, job: Job) -> None:
        """Take a job out: it ended, or it is held."""
        with self._lock:
            self._remove(job)

    def empty(self, job: Job) -> None:
        """Take a job out for good: it ends, and has no cells any more."""
        with self._lock:
            self._remove(job)
            if job.table is not None:
                job.table.clear()

    # --- what became of a cell ---

    def put_back(self, cell: Cell) -> None:
        """A cell that was stopped, not cancelled, is ready again; its job is not in the line by that."""
        with self._lock:
            if cell.job.table is not None:
                cell.job.table.put_back(cell.place)

    def delay(self, cell: Cell, seconds: float) -> None:
        """A cell is ready again after a while."""
        with self._lock:
            if cell.job.table is not None:
                cell.job.table.delay(cell.place, self._clock.monotonic() + seconds)
            self._sync_if_there(cell.job)

    def passed(self, cell: Cell) -> None:
        """A cell is done, and the next one of its candidate may be ready."""
        with self._lock:
            if cell.job.table is not None:
                cell.job.table.passed(cell.place)
            self._sync_if_there(cell.job)

    def chose(self, job: Job, stage: int, item: int, kept: Collection[int]) -> None:
        """A stage that looks at a whole item chose."""
        with self._lock:
            if job.table is not None:
                job.table.chose(stage, item, kept)
            self._sync_if_there(job)

    def finished(self, job: Job, candidate: int) -> None:
        """A candidate's pictures are on disk."""
        with self._lock:
            if job.table is not None:
                job.table.finished(candidate)
            self._sync_if_there(job)

    def failed(self, job: Job, candidates: Collection[int]) -> list[int]:
        """Candidates cannot be finished; return the others that therefore cannot be begun."""
        with self._lock:
            lost = job.table.failed(candidates) if job.table is not None else []
            self._sync_if_there(job)
            return lost

    def drop(self, cell: Cell) -> None:
        """A cell of a job that is cancelled came to its end."""
        with self._lock:
            if cell.job.table is not None:
                cell.job.table.in_flight -= {cell.place}

    def has_cells(self, job: Job) -> bool:
        """Whether a cell of the job is ready, due later, or under way."""
        with self._lock:
            return job.table is not None and not job.table.is_idle

    def candidates_at(self, cell: Cell) -> list[int]:
        """Return the candidates that a cell of a whole item looks at."""
        with self._lock:
            return cell.job.table.candidates_at(cell.place) if cell.job.table is not None else []

    def is_last(self, cell: Cell) -> bool:
        """Whether nothing of the job is left to do beside this cell."""
        with self._lock:
            table = cell.job.table
            return table is not None and table.in_flight == {cell.place} and not table.has_ready and table.open == 1

    # --- open and closed ---

    def close(self, why: str) -> None:
        """Let no new cell start, for this reason, until `open` is called for it."""
        with self._lock:
            self._closed.add(why)

    def open(self, why: str) -> None:
        """Lift one reason."""
        with self._lock:
            if why in self._closed:
                self._closed.discard(why)
                self._wake_all()

    @property
    def closed(self) -> frozenset[str]:
        """Why no new cell starts."""
        return frozenset(self._closed)

    def stop(self) -> None:
        """Wake whoever waits in `take`; from now on it returns None."""
        with self._lock:
            self._stopping = True
            self._wake_all()

    # --- the next cell ---

    def take(self, lane: Lane, loaded: Collection[str] = ()) -> Cell | None:
        """Wait for the best cell of a lane and take it; None once the line was stopped.

        Args:
            loaded: keys of the models that are ready.
        """
        with self._lock:
            while not self._stopping:
                self._make_due_ready()
                cell = None if self._closed else self._best(lane, loaded, note=True)
                if cell is not None:
                    assert cell.job.table is not None  # noqa: S101 - what is in the line has a table
                    cell.job.table.take(cell.place, cell.model)
                    self._sync(cell.job)
                    return cell
                self._changed[lane].wait(_LOOK_S if self._later else None)
            return None

    def peek(self, lane: Lane, loaded: Collection[str] = ()) -> Cell | None:
        """Return the cell that `take` would return now, without taking it or waiting."""
        with self._lock:
            return None if self._closed or self._stopping else self._best(lane, loaded, note=False)

    def __len__(self) -> int:
        """Jobs in the line."""
        return len(self._order)

    def first(self, count: int) -> list[tuple[Job, str]]:
        """Return the first jobs of the line and, where the order was changed, why."""
        with self._lock:
            return [(self._entries[name].job, self._why(self._entries[name])) for _, name in islice(self._order, count)]

    def jobs(self) -> Iterator[Job]:
        """Return all jobs of the line in order."""
        with self._lock:
            return iter([self._entries[name].job for _, name in self._order])

    def _make_due_ready(self) -> None:
        if not self._later:
            return
        now = self._clock.monotonic()
        for name in list(self._later):
            job = self._entries[name].job
            if job.table is not None and job.table.wake(now):
                self._sync(job)

    def _best(self, lane: Lane, loaded: Collection[str], *, note: bool) -> Cell | None:
        if lane == "cpu":
            for _, name in self._cpu:
                cell = self._cell_of(self._entries[name], lane, loaded)
                if cell is not None:
                    return cell
            return None
        waits = False
        for _, name in self._gpu:
            entry = self._entries[name]
            cell = self._cell_of(entry, lane, loaded)
            if cell is None:
                # It waits for one of its own cells beside the GPU rather than put out the model that this one needs.
                waits = True
                continue
            if cell.model in loaded:
                return cell
            if waits:
                continue
            return self._overtaking(entry, loaded, note=note) or cell
        return None

    @staticmethod
    def _cell_of(entry: _Entry, lane: Lane, loaded: Collection[str]) -> Cell | None:
        best = entry.job.table.best(lane, loaded) if entry.job.table is not None else None
        return None if best is None else Cell(job=entry.job, place=best[0], model=best[1])

    def _overtaking(self, oldest: _Entry, loaded: Collection[str], *, note: bool) -> Cell | None:
        """Return a cell of the job that may go before the oldest one because its model is loaded.

        It goes before the others in between too; the first of each model speaks for those behind it.
        """
        same_rank = oldest.rank[:2]
        others = {key: queue[0] for key in loaded if (queue := self._models.get(key)) and queue[0][0][:2] == same_rank}
        if not others:
            return None
        rank, name = min(others.values())
        heads = [queue[0] for key, queue in self._models.items() if key not in loaded]
        overtaken = [self._entries[head] for at, head in dict.fromkeys(heads) if same_rank == at[:2] and at < rank]
        now = self._clock.monotonic()
        for entry in overtaken:
            since = entry.overtaken_since
            if since is not None and now - since >= MAX_OVERTAKE_S:
                return None
            if name not in entry.overtaken_by and len(entry.overtaken_by) >= MAX_OVERTAKES:
                return None
        # Where several are loaded it is not known which of them a load puts out: then as many go first as may.
        if len(others) == 1 and name not in oldest.overtaken_by and name not in self._going_first(oldest, *others):
            return None
        for entry in overtaken if note else ():
            entry.overtaken_by[name] = rank
            entry.overtaken_since = now if entry.overtaken_since is None else entry.overtaken_since
        return self._cell_of(self._entries[name], "gpu", loaded)

    def _going_first(self, oldest: _Entry, loaded: str) -> Collection[str]:
        """Return which jobs of the loaded model go before the oldest one, so that models are loaded least often."""
        stay = self._stay
        if stay is None or (stay.oldest, stay.loaded) != (oldest.job.name, loaded):
            # The next jobs, and those of the loaded model, wherever they stand.
            near = {*self._gpu[:LOOK_AHEAD], *self._models[loaded][:MAX_OVERTAKES]}
            waiting: dict[str, Waiting] = {}
            for rank, name in sorted(near):
                cell = self._cell_of(self._entries[name], "gpu", {loaded}) if rank[:2] == oldest.rank[:2] else None
                if cell is not None:
                    waiting[name] = Waiting(model=cell.model, patience=self._patience(cell.model, rank))
            count = best_stay(list(waiting.values()), loaded)
            first = islice((name for name, job in waiting.items() if job.model == loaded), count)
            self._stay = stay = _Stay(oldest=oldest.job.name, loaded=loaded, first=frozenset(first))
        return stay.first

    def _patience(self, model: str, rank: Rank) -> int:
        """Return how many more may overtake a job of a model: whoever went before the first of it, and is younger."""
        queue = self._models.get(model)
        # None where the job's own cell was put back, and it is not in the line again by that.
        overtook = self._entries[queue[0][1]].overtaken_by.values() if queue else ()
        return MAX_OVERTAKES - sum(other > rank for other in overtook)

    def _why(self, entry: _Entry) -> str:
        if entry.overtaken_by:
            return f"{len(entry.overtaken_by)} later job(s) went first: their model was loaded"
        if entry.rank[0]:
            return "put in front"
        return f"priority {-entry.rank[1]}" if entry.rank[1] else ""

    # --- the order ---

    def _sync_if_there(self, job: Job) -> None:
        """Bring a job's place up to date, unless it was taken out: held, cancelled, set aside."""
        if job.in_line:
            self._sync(job)

    def _sync(self, job: Job) -> None:
        """Put a job where its table and its rank say; what is known of who overtook it stays."""
        table = job.table
        before = self._entries.get(job.name)
        job.in_line = table is not None and job.ledger.held is None
        if table is None or not job.in_line or not (table.has_ready or table.next_due is not None):
            self._unlist(job.name)
            return
        entry = _Entry(job=job, rank=job.rank, models=frozenset(table.models()), cpu=table.has_cpu)
        if before is not None and before.job is job:
            entry.overtaken_by, entry.overtaken_since = before.overtaken_by, before.overtaken_since
            if (before.rank, before.models, before.cpu) == (entry.rank, entry.models, entry.cpu):
                self._note_later(job)
                self._wake(entry)
                return
        self._unlist(job.name)
        self._entries[job.name] = entry
        at = (entry.rank, job.name)
        insort(self._order, at)
        if entry.models:
            insort(self._gpu, at)
            if self._stay and (self._stay.loaded in entry.models or bisect_left(self._gpu, at) < LOOK_AHEAD):
                self._stay = None
        if entry.cpu:
            insort(self._cpu, at)
        for key in entry.models:
            insort(self._models.setdefault(key, []), at)
        self._note_later(job)
        self._wake(entry)

    def _note_later(self, job: Job) -> None:
        if job.table is not None and job.table.next_due is not None:
            self._later.add(job.name)
            self._wake_all()
        else:
            self._later.discard(job.name)

    def _remove(self, job: Job) -> None:
        job.in_line = False
        self._unlist(job.name)

    def _unlist(self, name: str) -> None:
        entry = self._entries.pop(name, None)
        self._later.discard(name)
        if entry is None:
            return
        # Another job may have waited behind this one.
        self._wake(entry)
        at = (entry.rank, name)
        for queue in (self._order, *([self._gpu] if entry.models else []), *([self._cpu] if entry.cpu else [])):
            del queue[bisect_left(queue, at)]
        for key in entry.models:
            queue = self._models[key]
            del queue[bisect_left(queue, at)]
            if not queue:
                del self._models[key]
            elif at < queue[0]:
                _inherit(self._entries[queue[0][1]], entry)

    # --- who is woken ---

    def _wake(self, entry: _Entry) -> None:
        """Wake the threads that can run a cell of this job, or of one behind it; while none may start, `open` does."""
        if entry.models and not self._closed:
            self._changed["gpu"].notify_all()
        if entry.cpu and not self._closed:
            self._changed["cpu"].notify_all()

    def _wake_all(self) -> None:
        for changed in self._changed.values():
            changed.notify_all()


def _inherit(heir: _Entry, before: _Entry) -> None:
    """The next job of a model was overtaken by whoever went before the one ahead of it, and is younger than both."""
    for name, rank in before.overtaken_by.items():
        if rank > heir.rank:
            heir.overtaken_by[name] = rank
            heir.overtaken_since = heir.overtaken_since or before.overtaken_since
