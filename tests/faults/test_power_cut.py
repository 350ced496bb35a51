"""The power is cut at some point; what a file system may then have left is served, and the promise holds.

A sample of the prefixes and of what may be left of each. `power_cut_campaign.py` tries them all.
"""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from power_cut_check import undisturbed
from power_cut_model import MODELS
from power_cut_scenes import SCENES
from power_cut_states import Recording, State, record, record_start, some_states
from power_cut_workers import Workers, workers

#: Of each scene and each model.
SAMPLE = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("power")


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[Workers]:
    pixels = {name: undisturbed(scene, folder) for name, scene in SCENES.items()}
    with workers(folder, pixels, 4) as started:
        yield started


@pytest.fixture
def strace(needs_tool: Callable[[str], str]) -> str:
    found = needs_tool("strace")
    if subprocess.run([found, "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scene", SCENES)
def test_a_power_cut_at_any_point_keeps_the_promise(scene: str, strace: str, folder: Path, pool: Workers) -> None:
    check_sample(record(SCENES[scene], folder, strace), pool, SAMPLE)


@pytest.mark.timeout(300)
def test_a_second_power_cut_while_the_first_is_recovered_from_keeps_it_too(
    strace: str, folder: Path, pool: Workers
) -> None:
    recording = record(SCENES["job"], folder, strace)
    state = next(one for one in some_states(recording, MODELS["weak"], seed=2) if is_half_made(one))
    check_sample(record_start(state, folder, strace), pool, SAMPLE // 2)


def is_half_made(state: State) -> bool:
    """Whether one of the two pictures is finished."""
    return sum(path.endswith(".png.toml") for path in state.tree) == 1


def check_sample(recording: Recording, pool: Workers, count: int) -> None:
    """Check so many states of each model."""
    for model in MODELS.values():
        states = some_states(recording, model, seed=20261128)
        distinct = {state.digest: state for state in itertools.islice(states, count)}
        broken = [f"cut at {state.cut}: {told}" for state, told in pool.check(distinct.values()) if told]
        assert not broken, f"{len(broken)} of {len(distinct)}, such as {broken[0]}"
