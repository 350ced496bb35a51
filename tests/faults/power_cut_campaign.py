"""Every state that the model of a power cut knows, but for those beyond its limit, of which a sample is drawn.

    PYTHONPATH=tests python tests/faults/power_cut_campaign.py [--results FILE] [--samples N] [--workers N] ...

What is done is kept in FILE, pair by pair of scene and model; a second run goes on with the pairs that are missing.
Ends with 1 where a state broke the promise; FILE then says which.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from power_cut_check import State, all_states, record, undisturbed
from power_cut_model import ALL_UP_TO, MODELS
from power_cut_scenes import SCENES
from power_cut_workers import Workers, workers

_SHOW_EVERY_S: Final = 10.0
#: States that broke the promise and are told whole.
_TOLD: Final = 20


@dataclass(kw_only=True)
class Result:
    """What came of one scene on one model."""

    scene: str
    model: str
    #: Calls that changed or flushed something.
    operations: int
    #: Combinations of what a power cut may leave, and different trees among them, each of which was served.
    tried: int = 0
    distinct: int = 0
    broken: int = 0
    seconds: float = 0.0
    told: list[str] = field(default_factory=list)


def main() -> int:
    options = _options()
    file: Path = options.results
    results = [Result(**one) for one in json.loads(file.read_text())] if file.exists() else []
    done = {(one.scene, one.model) for one in results}
    with tempfile.TemporaryDirectory(prefix="power-", dir=options.folder) as name:
        folder = Path(name)
        pixels = {scene: undisturbed(SCENES[scene], folder) for scene in options.scenes}
        with workers(folder, pixels, options.workers) as pool:
            for scene in options.scenes:
                for model in options.models:
                    if (scene, model) not in done:
                        results.append(_try(scene, model, folder, pool, options))
                        file.write_text(json.dumps([asdict(one) for one in results], indent=1))
    print(_summary(results))
    return 1 if any(one.broken for one in results) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path, default=Path("power-cut.json"))
    parser.add_argument("--all-up-to", type=int, default=ALL_UP_TO, help="states of a prefix that are all tried")
    parser.add_argument("--samples", type=int, default=10_000, help="drawn of the other prefixes of a pair together")
    parser.add_argument("--workers", type=int, default=6, help="each mostly waits")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where workspaces are put")
    parser.add_argument("--strace", default="strace")
    return parser.parse_args()


def _try(scene: str, model: str, folder: Path, pool: Workers, options: argparse.Namespace) -> Result:
    """Serve every state of one pair."""
    history = record(SCENES[scene], folder, options.strace)
    result = Result(scene=scene, model=model, operations=len(history.operations) - history.settled)
    states = all_states(
        SCENES[scene],
        history,
        MODELS[model],
        samples=options.samples,
        seed=options.seed,
        all_up_to=options.all_up_to,
    )
    began = shown = time.monotonic()
    served = 0
    for state, told in pool.check(_distinct(states, result)):
        served += 1
        if told:
            result.broken += 1
            result.told = [*result.told, f"cut at {state.cut}: {told}"][:_TOLD]
        if time.monotonic() - shown > _SHOW_EVERY_S:
            shown = time.monotonic()
            print(f"{scene}, {model}: at {state.cut} of {len(history.operations)}, {_counts(result)}", flush=True)
    result.seconds = round(time.monotonic() - began, 1)
    assert served == result.distinct
    print(f"{scene}, {model}: {_counts(result)}, {result.seconds:.0f} s", flush=True)
    return result


def _distinct(states: Iterator[State], result: Result) -> Iterator[State]:
    """Yield each state that was not met before, and count."""
    seen = set()
    for state in states:
        result.tried += 1
        digest = state.digest
        if digest not in seen:
            seen.add(digest)
            result.distinct += 1
            yield state


def _counts(result: Result) -> str:
    return f"{result.tried:,} states tried, {result.distinct:,} distinct, {result.broken} broke the promise"


def _summary(results: list[Result]) -> str:
    tried, distinct, broken = (sum(getattr(one, key) for one in results) for key in ("tried", "distinct", "broken"))
    pairs = f"{len(results)} pairs of scene and model"
    return f"power cut: {pairs}, {tried:,} states tried, {distinct:,} distinct, {broken} broke the promise"


if __name__ == "__main__":
    sys.exit(main())
