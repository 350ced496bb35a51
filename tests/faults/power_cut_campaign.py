"""Every state that the model of a power cut knows, but for those beyond its limit, of which a sample is drawn.

    PYTHONPATH=tests python tests/faults/power_cut_campaign.py [--results FILE] [--samples N] [--workers N] ...

Of each pair of scene and model, first all states after one power cut; then, of some of these, states after a second
one that comes while the daemon recovers. What is done is kept in FILE, pair by pair; another run goes on with the pairs
that are missing. Ends with 1 where a state broke the promise; FILE then says which.
"""

import argparse
import itertools
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from power_cut_check import undisturbed
from power_cut_model import ALL_UP_TO, MODELS
from power_cut_scenes import SCENES
from power_cut_states import State, all_states, record, record_start, some_states
from power_cut_workers import Workers, workers

_SHOW_EVERY_S: Final = 10.0
#: States that broke the promise and are told whole.
_TOLD: Final = 20


@dataclass(kw_only=True)
class Result:
    """What came of one scene on one model."""

    scene: str
    model: str
    #: Calls that changed or flushed something while the scene was recorded.
    operations: int
    #: Combinations of what a power cut may leave, and different trees among them, each of which was served.
    tried: int = 0
    distinct: int = 0
    #: Those among the distinct ones that a second power cut left.
    second: int = 0
    broken: int = 0
    seconds: float = 0.0
    told: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{self.tried:,} states tried, {self.distinct:,} distinct ({self.second:,} after a second cut)"
        return f"{counts}, {self.broken} broke the promise"


def main() -> int:
    options = _options()
    # The processes are ended in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    file: Path = options.results
    results = [Result(**one) for one in json.loads(file.read_text())] if file.exists() else []
    done = {(one.scene, one.model) for one in results}
    with tempfile.TemporaryDirectory(prefix="power-", dir=options.folder) as name:
        folder = Path(name)
        pixels = {scene: undisturbed(SCENES[scene], folder) for scene in options.scenes}
        with workers(folder, pixels, options.workers) as pool:
            for pair in itertools.product(options.scenes, options.models):
                if pair not in done:
                    results.append(_try(*pair, folder, pool, options))
                    file.write_text(json.dumps([asdict(one) for one in results], indent=1))
    print(_summary(results))
    return 1 if any(one.broken for one in results) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path, default=Path("power-cut.json"))
    parser.add_argument("--all-up-to", type=int, default=ALL_UP_TO, help="states of a prefix that are all tried")
    parser.add_argument("--samples", type=int, default=10_000, help="drawn of the other prefixes of a pair together")
    parser.add_argument("--second", type=int, default=25, help="states of a pair in whose recovery it is cut again")
    parser.add_argument("--second-samples", type=int, default=40, help="states drawn of each of those")
    parser.add_argument("--workers", type=int, default=6, help="processes; each mostly waits")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where workspaces are put")
    parser.add_argument("--strace", default="strace")
    return parser.parse_args()


def _try(scene: str, model: str, folder: Path, pool: Workers, options: argparse.Namespace) -> Result:
    """Serve every state of one pair."""
    chance = random.Random(options.seed)
    recording = record(SCENES[scene], folder, options.strace)
    history = recording.history
    result = Result(scene=scene, model=model, operations=len(history.operations) - history.settled)
    began = time.monotonic()
    seen: set[str] = set()

    def second() -> Iterator[State]:
        firsts = some_states(recording, MODELS[model], seed=options.seed)
        for first in itertools.islice(firsts, options.second):
            again = record_start(first, folder, options.strace)
            states = some_states(again, MODELS[model], seed=chance.randrange(1 << 30))
            yield from itertools.islice(states, options.second_samples)

    first = all_states(
        recording, MODELS[model], samples=options.samples, seed=options.seed, all_up_to=options.all_up_to
    )
    _serve(_distinct(first, result, seen), result, pool)
    before = result.distinct
    _serve(_distinct(second(), result, seen), result, pool)
    result.second = result.distinct - before
    result.seconds = round(time.monotonic() - began, 1)
    print(f"{scene}, {model}: {result}, {result.seconds:.0f} s", flush=True)
    return result


def _serve(states: Iterable[State], result: Result, pool: Workers) -> None:
    shown = time.monotonic()
    for state, told in pool.check(states):
        if told:
            result.broken += 1
            result.told = [*result.told, f"cut at {state.cut}: {told}"][:_TOLD]
        if time.monotonic() - shown > _SHOW_EVERY_S:
            shown = time.monotonic()
            print(f"{result.scene}, {result.model}, cut at {state.cut}: {result}", flush=True)


def _distinct(states: Iterator[State], result: Result, seen: set[str]) -> Iterator[State]:
    """Yield each state that was not met before, and count."""
    for state in states:
        result.tried += 1
        digest = state.digest
        if digest not in seen:
            seen.add(digest)
            result.distinct += 1
            yield state


def _summary(results: list[Result]) -> str:
    total = Result(scene="", model="", operations=0)
    for one in results:
        total.tried += one.tried
        total.distinct += one.distinct
        total.second += one.second
        total.broken += one.broken
    return f"power cut: {len(results)} pairs of scene and model, {total}"


if __name__ == "__main__":
    sys.exit(main())
