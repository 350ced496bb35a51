"""The power is cut at some point; what a file system may then have left is served, and the promise holds.

A sample of the prefixes and of what may be left of each. `power_cut_campaign.py` tries them all.
"""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from power_cut_check import record, some_states, undisturbed
from power_cut_history import History
from power_cut_model import MODELS
from power_cut_scenes import SCENES
from power_cut_workers import Workers, workers

#: Of each scene and each model.
SAMPLE = 15


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("power")


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[Workers]:
    pixels = {name: undisturbed(scene, folder) for name, scene in SCENES.items()}
    with workers(folder, pixels, 4) as started:
        yield started


@pytest.fixture
def recorded(folder: Path, needs_tool: Callable[[str], str]) -> Callable[[str], History]:
    """Records a scene."""
    strace = needs_tool("strace")
    if subprocess.run([strace, "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    return lambda name: record(SCENES[name], folder, strace)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scene", SCENES)
def test_a_power_cut_at_any_point_keeps_the_promise(
    scene: str, recorded: Callable[[str], History], pool: Workers
) -> None:
    history = recorded(scene)
    for model in MODELS.values():
        states = some_states(SCENES[scene], history, model, seed=20261128)
        distinct = {state.digest: state for state in itertools.islice(states, SAMPLE)}
        broken = [f"cut at {state.cut}: {told}" for state, told in pool.check(distinct.values()) if told]
        assert not broken, f"{len(broken)} of {len(distinct)}, such as {broken[0]}"
