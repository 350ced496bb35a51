"""The table of a job, candidates down, stages across: which cells are ready, and what follows from one that ends.

Held in memory, made from the plan and the journal; it never looks at a disk. Whoever uses it holds the job's place in
the line (see `line`), so it needs no lock of its own.
"""

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from hotfolder.plan import Plan
from hotfolder.stagekeys import Lane

#: What a row waits for or has come to; else the number of the stage that comes next.
_DONE: Final = 0
_FAILED: Final = -1
#: Not chosen by a stage `select`.
_LEFT_OUT: Final = -2


@dataclass(frozen=True, order=True)
class Place:
    """One cell of the table: of one candidate, or of an item where the stage looks at all its candidates together."""

    #: Counted from 1; of an item, the first of its candidates that is there.
    candidate: int
    #: Counted from 1.
    stage: int


@dataclass(kw_only=True)
class Progressed:
    """What is known of a job before its table is made: from its journal."""

    #: Candidate -> the stages that are done.
    cells: Mapping[int, Collection[int]] = field(default_factory=dict)
    done: Collection[int] = ()
    failed: Collection[int] = ()
    #: (stage, item) -> the candidates that go on.
    chosen: Mapping[tuple[int, int], Collection[int]] = field(default_factory=dict)


class Table:
    """Which cells of one job are ready."""

    def __init__(self, plan: Plan, known: Progressed) -> None:
        self._plan = plan
        self._last = len(plan.stages)
        #: Candidate -> the stage that comes next, or how it ended. Index 0 is not used.
        self._next = [0] * (plan.candidates + 1)
        #: Of those that failed or were left out: the stage to which they came.
        self._ended_at: dict[int, int] = {}
        items, stages = range(1, plan.items + 1), range(1, len(plan.stages) + 1)
        self._chosen = {key: kept for key, kept in known.chosen.items() if key[0] in stages and key[1] in items}
        #: Ready cells on the GPU, by the model that they need; and beside it.
        self._gpu: dict[str, list[Place]] = {}
        self._cpu: list[Place] = []
        #: Candidates that wait at a stage that looks at the whole item, by (stage, item).
        self._waiting: dict[tuple[int, int], set[int]] = {}
        #: Cells whose turn comes later, by when.
        self._later: list[tuple[float, Place]] = []
        #: Cells that are under way. Replaced whole: whoever shows the job looks at it while others change it.
        self.in_flight: frozenset[Place] = frozenset()
        #: Cells that are ready, or due later.
        self._queued: set[Place] = set()
        #: Numbers of the stages that look at a whole item.
        self._choices = [number for number, stage in enumerate(plan.stages, 1) if stage.stage == "select"]
        #: Candidates that are not over.
        self.open = 0
        self._children: dict[int, list[int]] = {}
        for number, row in enumerate(plan.rows, 1):
            if row.parent is not None:
                self._children.setdefault(row.parent, []).append(number)
        #: Cells that are over or will never be, and all; of the GPU where there are any, else of the rest.
        self._counts_gpu = any(plan.item(1).lane(stage) == "gpu" for stage in range(1, self._last + 1))
        self.cells = 0
        self.cells_over = 0
        self._load(known)

    def _load(self, known: Progressed) -> None:
        plan, numbers = self._plan, range(1, self._plan.candidates + 1)
        # A journal that somebody edited may speak of what there is not.
        done, failed = ({one for one in known_ if one in numbers} for known_ in (known.done, known.failed))
        for candidate in range(1, plan.candidates + 1):
            begins = plan.row_of(candidate).begins
            if candidate in done:
                self._next[candidate] = _DONE
            else:
                over = max((one for one in known.cells.get(candidate, ()) if one <= self._last), default=begins - 1)
                self._next[candidate] = self._after(candidate, over)
        for (stage, item), kept in self._chosen.items():
            for candidate in plan.candidates_of(item):
                if 0 < self._next[candidate] <= stage and plan.row_of(candidate).begins < stage:
                    if candidate in kept:
                        self._next[candidate] = self._after(candidate, stage)
                    elif candidate not in failed:
                        self._ended_at[candidate], self._next[candidate] = stage, _LEFT_OUT
        for candidate in failed - done:
            self._ended_at[candidate], self._next[candidate] = self._next[candidate], _FAILED
        for candidate in range(1, plan.candidates + 1):
            self._end_children(candidate)
        counted = sum(self._counted(1, candidate) for candidate in plan.candidates_of(1)) if plan.candidates else 0
        self.cells = counted * plan.items
        self.cells_over = sum(
            self._counted(1, candidate)
            - (self._counted(self._next[candidate], candidate) if self._next[candidate] > 0 else 0)
            for candidate in range(1, plan.candidates + 1)
        )
        self.open = sum(stage > 0 for stage in self._next[1:])
        for candidate in range(1, plan.candidates + 1):
            self._make_ready(candidate)

    def _end_children(self, candidate: int) -> list[int]:
        """End those that would have begun with a picture that will never be; return them."""
        ended = []
        for child in self._children_of(candidate):
            if self._next[child] > 0 and not self._can_begin(child) and candidate in self._ended_at:
                self._over(child, self._next[candidate])
                ended += [child, *self._end_children(child)]
        return ended

    def _can_begin(self, candidate: int) -> bool:
        """Whether the picture that a candidate begins with is there, if it begins with one."""
        parent = self._plan.parent_of(candidate)
        if parent is None:
            return True
        at = self._next[parent] if self._next[parent] > 0 else self._ended_at.get(parent, self._last + 1)
        return at >= self._plan.row_of(candidate).begins

    def _has_begun(self, candidate: int) -> bool:
        return self._next[candidate] > self._plan.row_of(candidate).begins

    # --- what is ready ---

    @property
    def is_idle(self) -> bool:
        """Whether no cell is ready, under way, or due later; some may still wait for a person."""
        return not (self._gpu or self._cpu or self.in_flight or self._later)

    @property
    def waits_for_a_person(self) -> bool:
        """Whether candidates wait to be picked."""
        return bool(self._waiting)

    def models(self) -> Collection[str]:
        """Return the keys of the models for which a cell is ready."""
        return self._gpu.keys()

    @property
    def has_cpu(self) -> bool:
        """Whether a cell is ready that runs beside the GPU."""
        return bool(self._cpu)

    @property
    def has_ready(self) -> bool:
        """Whether any cell is ready."""
        return bool(self._gpu or self._cpu)

    def best(self, lane: Lane, loaded: Collection[str]) -> tuple[Place, str] | None:
        """Return the best cell of a lane and its model: of a loaded model if there is one, else the first of all.

        Each model is to be loaded once: while cells that need the loaded one are still on their way through stages
        beside the GPU, no other is begun.
        """
        if lane == "cpu":
            return (self._cpu[0], "") if self._cpu else None
        here = [key for key in self._gpu if not key or key in loaded]
        keys = here or list(self._gpu)
        if not keys or (not here and self._coming(loaded)):
            return None
        key = min(keys, key=lambda key: self._gpu[key][0])
        return self._gpu[key][0], key

    def _coming(self, loaded: Collection[str]) -> bool:
        """Whether a candidate that is at a stage beside the GPU now will need a loaded model next."""
        if not loaded:
            return False
        under_way = [*self.in_flight, *{place.stage: place for place in self._cpu}.values()]
        for place in under_way:
            stage = self._after(place.candidate, place.stage)
            item = self._plan.item(self._plan.item_of(place.candidate))
            while 0 < stage <= self._last:
                lane = item.lane(stage)
                if lane == "person":
                    break
                if lane == "gpu":
                    if item.model_key(stage) in loaded:
                        return True
                    break
                stage = self._after(place.candidate, stage)
        return False

    def take(self, place: Place, model: str) -> None:
        """Take a cell that `best` returned."""
        queue = self._gpu[model] if self._is_gpu(place) else self._cpu
        if queue[0] != place:
            raise ValueError(f"{place} is not the best cell")
        heapq.heappop(queue)
        self._queued.discard(place)
        if self._is_gpu(place) and not queue:
            del self._gpu[model]
        self.in_flight |= {place}
        self._forget_what_is_over()

    def put_back(self, place: Place) -> None:
        """A cell that was stopped is ready again."""
        self.in_flight -= {place}
        self._push(place)
        self._forget_what_is_over()

    def delay(self, place: Place, due: float) -> None:
        """A cell that failed for a reason that may pass is ready again at `due`."""
        self.in_flight -= {place}
        self._queued.add(place)
        heapq.heappush(self._later, (due, place))

    def wake(self, now: float) -> bool:
        """Make ready what is due; return whether anything was."""
        woken = False
        while self._later and self._later[0][0] <= now:
            self._push(heapq.heappop(self._later)[1])
            woken = True
        self._forget_what_is_over()
        return woken

    @property
    def next_due(self) -> float | None:
        """When the first of the cells is due whose turn comes later."""
        return self._later[0][0] if self._later else None

    # --- what happened ---

    def passed(self, place: Place) -> None:
        """A cell is done; the next one of its candidate becomes ready, and those that begin with what it made."""
        self.in_flight -= {place}
        self.cells_over += self._weight(place.stage)
        self._next[place.candidate] = self._after(place.candidate, place.stage)
        self._make_ready(place.candidate)
        self._make_children_ready(place.candidate)

    def finished(self, candidate: int) -> None:
        """A candidate's picture is on disk."""
        self._over(candidate, _DONE)
        self._make_children_ready(candidate)

    def failed(self, candidates: Collection[int]) -> list[int]:
        """Candidates cannot be finished; return the others that therefore cannot be begun."""
        for candidate in candidates:
            self._over(candidate, _FAILED)
        lost = [child for candidate in candidates for child in self._end_children(candidate)]
        for item in {self._plan.item_of(candidate) for candidate in candidates}:
            self._look_at_item(item)
        return lost

    def chose(self, stage: int, item: int, kept: Collection[int]) -> None:
        """A stage that looks at the whole item chose; the others are left out."""
        self._chosen[stage, item] = frozenset(kept)
        self.in_flight -= {Place(candidate, stage) for candidate in self._plan.candidates_of(item)}
        waiting = self._waiting.pop((stage, item), set()) | {
            candidate for candidate in self._plan.candidates_of(item) if self._next[candidate] == stage
        }
        for candidate in sorted(waiting):
            if candidate in kept:
                self.cells_over += self._weight(stage)
                self._next[candidate] = self._after(candidate, stage)
            else:
                self._over(candidate, _LEFT_OUT)
                self._end_children(candidate)
        for candidate in sorted(waiting & set(kept)):
            self._make_ready(candidate)
            self._make_children_ready(candidate)

    def clear(self) -> None:
        """The job ends: nothing is ready any more."""
        self._gpu.clear()
        self._cpu.clear()
        self._later.clear()
        self._waiting.clear()
        self._queued.clear()

    # --- what there is to tell ---

    def stage_of(self, candidate: int) -> int | None:
        """Return the stage at which a candidate is; None where it is over."""
        return self._next[candidate] if self._next[candidate] > 0 else None

    def left_out(self) -> int:
        """Return how many candidates were not chosen."""
        return self._next[1:].count(_LEFT_OUT)

    def state_of(self, candidate: int) -> Literal["done", "failed", "left out", "to do"]:
        """Return what became of a candidate."""
        match self._next[candidate]:
            case 0:
                return "done"
            case -1:
                return "failed"
            case -2:
                return "left out"
            case _:
                return "to do"

    def waiting(self) -> Iterator[tuple[int, int, list[int]]]:
        """Yield stage, item and the candidates that wait to be picked."""
        for (stage, item), candidates in sorted(self._waiting.items()):
            yield stage, item, sorted(candidates)

    def candidates_at(self, place: Place) -> list[int]:
        """Return the candidates that a cell of a whole item looks at."""
        item = self._plan.item_of(place.candidate)
        return [number for number in self._plan.candidates_of(item) if self._next[number] == place.stage]

    # --- inside ---

    def _after(self, candidate: int, stage: int) -> int:
        """Return the stage that comes after one: those that only add others are gone by."""
        stage += 1
        while stage <= self._last and self._plan.passes(candidate, stage):
            stage += 1
        return stage

    def _is_gpu(self, place: Place) -> bool:
        return self._plan.item(self._plan.item_of(place.candidate)).lane(place.stage) == "gpu"

    def _is_choice(self, stage: int) -> bool:
        return stage in self._choices

    def _children_of(self, candidate: int) -> list[int]:
        if not self._children:
            return []
        rows = len(self._plan.rows)
        first, row = divmod(candidate - 1, rows)
        return [first * rows + child for child in self._children.get(row + 1, ())]

    def _make_children_ready(self, candidate: int) -> None:
        for child in self._children_of(candidate):
            if self._next[child] > 0 and not self._has_begun(child):
                self._make_ready(child)

    def _make_ready(self, candidate: int) -> None:
        """Put the next cell of a candidate among those that are ready, if it is."""
        stage = self._next[candidate]
        if stage <= 0:
            return
        if stage == self._plan.row_of(candidate).begins and not self._can_begin(candidate):
            return
        if self._is_choice(stage):
            item = self._plan.item_of(candidate)
            self._waiting.setdefault((stage, item), set()).add(candidate)
            self._look_at_item(item)
            return
        self._push_once(Place(candidate, stage))

    def _look_at_item(self, item: int) -> None:
        """Make the cell of a whole item ready once all its candidates are there that will ever come."""
        for stage in self._choices:
            waiting = self._waiting.get((stage, item))
            if not waiting or self._plan.item(item).lane(stage) == "person":
                continue
            coming = any(
                0 < self._next[other] < stage and self._plan.row_of(other).begins < stage
                for other in self._plan.candidates_of(item)
            )
            if not coming:
                self._push_once(Place(min(waiting), stage))

    def _push_once(self, place: Place) -> None:
        """Make a cell ready that may be so already: a child whose parent goes on, an item of which one more failed."""
        if place not in self._queued and place not in self.in_flight:
            self._push(place)

    def _push(self, place: Place) -> None:
        self._queued.add(place)
        item = self._plan.item(self._plan.item_of(place.candidate))
        if item.lane(place.stage) == "gpu":
            heapq.heappush(self._gpu.setdefault(item.model_key(place.stage), []), place)
        else:
            heapq.heappush(self._cpu, place)

    def _over(self, candidate: int, how: int) -> None:
        if self._next[candidate] > 0:
            self.cells_over += self._counted(self._next[candidate], candidate)
            self.open -= 1
            if how != _DONE:
                self._ended_at[candidate] = self._next[candidate]
            at = (self._next[candidate], self._plan.item_of(candidate))
            if at in self._waiting:
                self._waiting[at].discard(candidate)
                if not self._waiting[at]:
                    del self._waiting[at]
        self.in_flight = frozenset(place for place in self.in_flight if place.candidate != candidate)
        self._next[candidate] = how
        self._forget_what_is_over()

    def _forget_what_is_over(self) -> None:
        """Take from among the ready cells those in front whose candidate has ended, or is at another stage."""
        for key in list(self._gpu):
            self._cut(self._gpu[key])
            if not self._gpu[key]:
                del self._gpu[key]
        self._cut(self._cpu)

    def _cut(self, queue: list[Place]) -> None:
        while queue and self._next[queue[0].candidate] != queue[0].stage:
            self._queued.discard(heapq.heappop(queue))

    def _counted(self, stage: int, candidate: int) -> int:
        """Return how many of the cells from `stage` on count for the progress."""
        begins = self._plan.row_of(candidate).begins
        return sum(
            self._weight(number)
            for number in range(max(stage, begins), self._last + 1)
            if not self._plan.passes(candidate, number)
        )

    def _weight(self, stage: int) -> int:
        if not self._counts_gpu:
            return 1
        return int(self._plan.item(1).lane(stage) == "gpu")
