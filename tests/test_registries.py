"""What every kind and every stage must do, be it the newest: found in the registries, not in a list of ours."""

import dataclasses
from pathlib import Path
from typing import get_args

import pytest
from painted import PaintedEngine
from PIL import Image
from samples import plan

from hotfolder import presets, run
from hotfolder.clock import SystemClock
from hotfolder.engine import JobStopped, Request
from hotfolder.gpu import GpuEngine
from hotfolder.jobfile import KIND_KEYS
from hotfolder.journal import StopReason
from hotfolder.kinds import KINDS
from hotfolder.presets import Presets
from hotfolder.settings import Settings
from hotfolder.stages import STAGES, Work

STEPS = 4


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> GpuEngine:
    folder = tmp_path_factory.mktemp("registries")
    return GpuEngine(Settings(workspace=folder, device="cpu", threads=1))


def stop_at(phase: str, step: int) -> "Stopper":
    return Stopper(phase, step)


class Stopper:
    """A tick that stops a cell at one place, and notes all that came."""

    def __init__(self, phase: str, step: int) -> None:
        self._at = (phase, step)
        self.came: list[tuple[str, int]] = []

    def __call__(self, phase: str, step: int, steps: int, /) -> None:
        self.came.append((phase, step))
        if (phase, step) == self._at:
            raise JobStopped(StopReason.CANCEL)


def request_for(kind: str, tmp_path: Path) -> Request:
    """The smallest request of a kind, by the tiny preset of its name."""
    name = "tiny" if kind == "text2img" else f"tiny-{kind}"
    preset = Presets.of(tmp_path).get(name)
    assert preset.kind == kind
    gradient = Image.linear_gradient("L").resize((64, 64))
    roles = KINDS[kind].needs | KINDS[kind].takes & {"image"} if kind == "kontext" else KINDS[kind].needs
    return Request(
        kind=kind,
        preset=name,
        model=preset.model,
        prompt="a mug",
        seed=3,
        width=64,
        height=64,
        steps=STEPS,
        max_sequence_length=preset.max_sequence_length,
        pictures={role: gradient if role == "mask" else gradient.convert("RGB") for role in roles},
    )


def test_every_kind_has_its_keys_and_its_tiny_preset() -> None:
    assert set(KINDS) == set(KIND_KEYS) == set(get_args(presets.Kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_ticks_in_all_its_phases_and_at_every_step(kind: str, engine: GpuEngine, tmp_path: Path) -> None:
    tick = stop_at("never", 0)
    engine.make(request_for(kind, tmp_path), tick)
    assert {"load", "encode", "decode"} <= {phase for phase, _ in tick.came}
    assert [step for phase, step in tick.came if phase == "denoise" and step] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [("load", 0), ("encode", 0), ("denoise", 2), ("decode", 0)])
def test_every_kind_can_be_stopped_in_every_phase_and_is_as_new(
    kind: str, at: tuple[str, int], engine: GpuEngine, tmp_path: Path
) -> None:
    request = request_for(kind, tmp_path)
    fresh = engine.make(request, stop_at("never", 0)).image.tobytes()
    tick = stop_at(*at)
    with pytest.raises(JobStopped):
        engine.make(request, tick)
    assert tick.came[-1] == at, "nothing went on after it was told to stop"
    assert engine.make(request, stop_at("never", 0)).image.tobytes() == fresh


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_asks_whether_to_stop_before_it_does_anything(stage: str, tmp_path: Path) -> None:
    work = Work(
        plan=plan(),
        plan_sha256="0" * 64,
        run_id="run",
        folder=tmp_path,
        candidate=1,
        engine=PaintedEngine(),
        tick=stop_at(stage, 0),
        finished_at=SystemClock().now(),
        versions={},
    )
    with pytest.raises(JobStopped):
        run.run_cell(stage, work)
    assert not list(tmp_path.iterdir())
    assert dataclasses.replace(work, made=None) == work
