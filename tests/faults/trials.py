"""Trials of one scene: a kill, a kill and another during the recovery, an error; and a crew that makes many of them."""

import queue
import random
import shutil
import threading
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from forks import Forks
from scenarios import Scenario
from scene import Scene
from syscalls import Fault, Point

#: A point that a run did not come to, since its threads went otherwise, is tried so often.
_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of a fault, or of two."""

    scenario: str
    fault: Fault
    #: The second kill, at a call of the recovery.
    again: Point | None = None
    #: Whether the run came to that point.
    hit: bool = True
    #: What was not as promised; empty: nothing.
    problem: str = ""


def kill(scene: Scene, point: Point) -> Trial:
    """Kill it there, start it again, and look."""
    fault = Fault(point=point)

    def look(_: object) -> None:
        scene.finish()
        scene.check()

    return _tried(scene, fault, lambda: _once(scene, fault, look))


def fail(scene: Scene, fault: Fault) -> Trial:
    """Let a call fail, look at what that made of it, let it go on, and look again."""
    return _tried(scene, fault, lambda: _once(scene, fault, scene.check_after_error))


def kill_twice(scene: Scene, point: Point, count: int, chance: random.Random) -> list[Trial]:
    """Kill it there, and at each of some calls of the recovery from that."""
    fault = Fault(point=point)
    found: list[Point] = []

    def trace(_: object) -> None:
        scene.catch_up()
        scene.keep("killed")
        found.extend(one for one in scene.trace() if not one.reads)
        scene.finish()
        scene.check()

    first = _tried(scene, fault, lambda: _once(scene, fault, trace))
    if first.problem or not first.hit:
        return [first]
    return [
        _tried(scene, fault, partial(_second, scene, again), again=again)
        for again in chance.sample(found, min(count, len(found)))
    ]


def _second(scene: Scene, point: Point) -> bool:
    scene.restore("killed")
    hit = scene.disturb(Fault(point=point)) is not None
    scene.finish()
    scene.check()
    return hit


def _once(scene: Scene, fault: Fault, then: Callable[..., object]) -> bool:
    for _ in range(_ATTEMPTS):
        scene.reset()
        ended = scene.disturb(fault)
        if ended is not None:
            then(ended)
            return True
    return False


def _tried(scene: Scene, fault: Fault, play: Callable[[], bool], *, again: Point | None = None) -> Trial:
    try:
        hit, problem = play(), ""
    except Exception:  # noqa: BLE001 - whatever it is, it is what this trial found
        hit, problem = True, f"{traceback.format_exc(limit=-3)}\n{scene.said[-4000:]}"
    return Trial(scenario=scene.scenario.name, fault=fault, again=again, hit=hit, problem=problem)


#: What is to be done in a scene of this scenario.
Task = tuple[Scenario, Callable[[Scene], Iterable[Trial]]]


class Crew:
    """Some hands, each with a fork server and a scene of every scenario that it came to."""

    def __init__(self, folder: Path, size: int, kind: str = "painted") -> None:
        """Args: kind: the engine, "painted" or "tiny"."""
        self._hands = [_Hand(folder / str(number), kind) for number in range(size)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for hand in self._hands:
            hand.close()

    def each(self, tasks: Iterable[Task]) -> Iterator[Trial]:
        """Do all tasks, and yield what came of them as it comes."""
        todo = _Todo(tasks)
        done: queue.SimpleQueue[Trial | BaseException | None] = queue.SimpleQueue()
        threads = [threading.Thread(target=hand.work, args=(todo, done)) for hand in self._hands]
        for thread in threads:
            thread.start()
        left = len(threads)
        try:
            while left:
                match done.get():
                    case None:
                        left -= 1
                    case Trial() as trial:
                        yield trial
                    case error:
                        raise error
        finally:
            todo.clear()
            for thread in threads:
                thread.join()


class _Todo:
    """The tasks that nobody has begun."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._lock = threading.Lock()
        self._tasks: defaultdict[Scenario, deque[Task]] = defaultdict(deque)
        for task in tasks:
            self._tasks[task[0]].append(task)

    def take(self, known: Collection[Scenario]) -> Task | None:
        """Return a task, of a scenario that is set up already if there is one; None where nothing is left."""
        with self._lock:
            open_ = [scenario for scenario, tasks in self._tasks.items() if tasks]
            best = max(open_, key=lambda scenario: (scenario in known, len(self._tasks[scenario])), default=None)
            return None if best is None else self._tasks[best].popleft()

    def clear(self) -> None:
        """Leave the rest."""
        with self._lock:
            self._tasks.clear()


class _Hand:
    def __init__(self, folder: Path, kind: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        self._forks = Forks(kind)
        self._scenes: dict[Scenario, Scene] = {}

    def work(self, todo: _Todo, done: "queue.SimpleQueue[Trial | BaseException | None]") -> None:
        """Do what is to be done, until nothing is left."""
        try:
            while (task := todo.take(self._scenes)) is not None:
                scenario, do = task
                for trial in do(self._scene(scenario)):
                    done.put(trial)
        except BaseException as error:  # noqa: BLE001 - raised where the trials are awaited
            done.put(error)
        finally:
            done.put(None)

    def close(self) -> None:
        self._forks.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _scene(self, scenario: Scenario) -> Scene:
        if scenario not in self._scenes:
            self._scenes[scenario] = Scene(self._folder / scenario.name, scenario, self._forks)
        return self._scenes[scenario]
