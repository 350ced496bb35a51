"""What every kind and every stage must do, be it the newest: found in the registries, not in a list of ours."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import stage_calls
from PIL import Image

from hotfolder import presets, run
from hotfolder.engine import Answer, Box, JobStopped, Made, Question, Request, StopReason, Tick
from hotfolder.gpu import GpuEngine
from hotfolder.kindkeys import KIND_KEYS
from hotfolder.kinds import KINDS
from hotfolder.plan import Generation
from hotfolder.presets import Model, Presets
from hotfolder.settings import Settings
from hotfolder.stagekeys import STAGE_KEYS, Generating
from hotfolder.stages import STAGES, Call, Choice, Chosen, Ending, Outcome, UsedModel, Work

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
    """The smallest request of a kind, by the preset of random weights of its name."""
    name = "noise" if kind == "text2img" else f"noise-{kind}"
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


def test_every_kind_has_its_keys_and_its_presets_that_run_anywhere() -> None:
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


# --- stages ---

#: What a stage is told that does nothing without being told: keys that need a value, and those of helper models.
TOLD: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "prepare": [{}, {"control": "canny"}, {"control": "depth"}],
    "generate": [{"preset": "painter"}],
    "select": [{}, {"by": "clip"}],
    "upscale": [{}, {"by": "enlarger"}],
    "hires": [{"preset": "painter"}],
    "refine": [{"preset": "painter"}],
    "detect": [{}, {"by": "finder", "label": "mug"}],
    "detail": [{"preset": "painter"}],
    "crop": [{"aspect": "1:1"}, {"padding": 4}],
    "resize": [{"width": 20}],
    "pad": [{"left": 4}],
    "rotate": [{"degrees": 33.0}],
    "overlay": [{"text": "Hi"}],
    "cleanup": [{"denoise": 0.5, "sharpen": 1.0, "despeckle": True}],
    "color": [{"autocontrast": True, "saturation": 0.5}],
}
CELLS = [(stage, keys) for stage in STAGES for keys in TOLD.get(stage, [{}])]
every_cell = pytest.mark.parametrize(
    ("stage", "keys"), CELLS, ids=[f"{stage}-{'-'.join(map(str, keys.values()))}" for stage, keys in CELLS]
)


class Everyone(stage_calls.AskedEngine):
    """Makes what it is asked for, and answers as a helper model of each kind would."""

    def make(self, request: Request, tick: Tick) -> Made:
        for step in range(request.steps):
            tick("denoise", step + 1, request.steps)
        return Made(image=Image.new("RGB", (request.width, request.height), "teal"), model={}, timings={})

    def ask(self, question: Question, tick: Tick) -> Answer:
        tick("infer", 0, 0)
        first = question.pictures[0]
        larger = first.resize((first.width * 2, first.height * 2))
        return Answer(
            image=larger if question.kind == "upscale" else first,
            boxes=(Box(left=2, top=2, right=30, bottom=30, label=question.text),),
            scores=tuple(range(len(question.pictures))),
        )


def run_stage(stage: str, keys: Mapping[str, Any], tick: Tick) -> tuple[Work, Work, Outcome | Chosen | None]:
    """Run one cell; return what it was given, that as it was before, and what it made; None: it was stopped."""
    parsed = STAGE_KEYS[stage].model_validate(keys)
    use, generation = None, None
    if isinstance(parsed, Generating):
        use = UsedModel(preset="painter", kind="text2img", model=Model(repo="somebody/painter"))
        generation = Generation(steps=STEPS, strength=0.5, takes=("image",))
    elif parsed.helper:
        use = UsedModel(preset=parsed.helper, kind=HELPS[stage], model=Model(repo="somebody/helper"))
    picture, grey = stage_calls.photo(48, 40), Image.new("L", (48, 40), 128)
    given = Work(
        pictures={"": picture}, mask=grey, control=grey.convert("RGB"), boxes=(Box(left=4, top=4, right=40, bottom=36),)
    )
    before = Work(pictures={"": picture.copy()}, mask=grey.copy(), control=grey.convert("RGB"), boxes=given.boxes)
    call = Call(keys=parsed, seed=7, prompt="a mug", engine=Everyone(), tick=tick, use=use, generation=generation)
    made = None
    with contextlib.suppress(JobStopped):
        made = run.run_cell(stage, [given, given] if isinstance(STAGES[stage], Choice) else [given], call)
    return given, before, made


#: What the helper model of a stage is of.
HELPS = {"prepare": "depth", "select": "clip", "upscale": "upscale", "detect": "detect"}


class StopAfter(stage_calls.Ticks):
    """A tick that stops a cell when it was called so often."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def __call__(self, phase: str, step: int, steps: int, /) -> None:
        super().__call__(phase, step, steps)
        if len(self.came) >= self._count:
            raise JobStopped(StopReason.CANCEL)


def test_every_stage_has_its_keys_under_the_same_name() -> None:
    assert STAGES.keys() <= STAGE_KEYS.keys()
    assert {stage for stage in STAGES if isinstance(STAGES[stage], Choice)} == {
        stage for stage in STAGES if STAGE_KEYS[stage].whole_item
    }
    assert [stage for stage in STAGES if isinstance(STAGES[stage], Ending)] == ["export"]
    assert all(stage.version >= 1 for stage in STAGES.values())


@every_cell
def test_every_stage_asks_whether_to_stop_before_it_does_anything(stage: str, keys: dict[str, Any]) -> None:
    tick = stage_calls.Ticks()
    given, before, made = run_stage(stage, keys, tick)
    assert made is not None
    assert tick.came[0] == (stage, 0, 0)
    if not isinstance(STAGES[stage], Ending):
        assert len(tick.came) > 1, "the stage itself asks too, not only what runs it"
    assert same(given, before), "what it was given is as it was"


@every_cell
def test_every_stage_can_be_stopped_wherever_it_asks_and_is_as_new(stage: str, keys: dict[str, Any]) -> None:
    tick = stage_calls.Ticks()
    _, _, whole = run_stage(stage, keys, tick)
    for count in range(1, len(tick.came) + 1):
        stopping = StopAfter(count)
        given, before, made = run_stage(stage, keys, stopping)
        assert made is None, f"it went on after {stopping.came[-1]}"
        assert stopping.came == tick.came[:count], "nothing went on after it was told to stop"
        assert same(given, before)
    _, _, again = run_stage(stage, keys, stage_calls.Ticks())
    assert type(again) is type(whole)
    if isinstance(again, Outcome) and isinstance(whole, Outcome):
        assert same(again.work, whole.work)
    else:
        assert again == whole


def same(one: Work, other: Work) -> bool:
    """Whether two works hold the same pixels."""
    return told(one) == told(other) and one.boxes == other.boxes


def told(work: Work) -> dict[str, tuple[str, tuple[int, int], bytes]]:
    things = {**work.pictures, "mask": work.mask, "control": work.control}
    return {name: (image.mode, image.size, image.tobytes()) for name, image in things.items() if image is not None}
