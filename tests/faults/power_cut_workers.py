"""States are checked by several processes at once: a daemon that looks whether it is done mostly waits."""

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from power_cut_check import Checker
from power_cut_states import State

_checkers: list[Checker] = []


class Workers:
    """Processes that check states, each in a workspace of its own."""

    def __init__(self, pool: ProcessPoolExecutor, count: int) -> None:
        """Args: count: how many processes `pool` has."""
        self._pool = pool
        self._ahead = 2 * count

    def check(self, states: Iterable[State]) -> Iterator[tuple[State, str]]:
        """Yield each state and what breaks the promise there, "" where nothing does; in order."""
        under_way: deque[tuple[State, Future[str]]] = deque()
        for state in states:
            under_way.append((state, self._pool.submit(_check, state)))
            if len(under_way) > self._ahead:
                checked, told = under_way.popleft()
                yield checked, told.result()
        for checked, told in under_way:
            yield checked, told.result()


@contextmanager
def workers(folder: Path, undisturbed: Mapping[str, Mapping[str, Any]], count: int) -> Iterator[Workers]:
    """Start so many processes, for a while. Args: folder, undisturbed: see `Checker`."""
    context = multiprocessing.get_context("forkserver")
    # They are forked from one that has all the modules.
    context.set_forkserver_preload([Checker.__module__])
    with ProcessPoolExecutor(count, context, _begin, (folder, undisturbed)) as pool:
        yield Workers(pool, count)


def _begin(folder: Path, undisturbed: Mapping[str, Mapping[str, Any]]) -> None:
    _checkers.append(Checker(folder, undisturbed))


def _check(state: State) -> str:
    (checker,) = _checkers
    return checker.check(state)
