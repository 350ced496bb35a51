"""What the tests of the stages start from: a photo drawn on the spot, a call, and a helper model with an answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from hotfolder.engine import Answer, Made, Question, Request, Tick, no_tick
from hotfolder.presets import Model
from hotfolder.stagekeys import STAGE_KEYS
from hotfolder.stages import STAGES
from hotfolder.stages.work import Call, Choice, Chosen, Outcome, Stage, UsedModel, Work


@dataclass
class AskedEngine:
    """Answers as it was told to, and notes what it was asked."""

    answer: Callable[[Question], Answer] = lambda _question: Answer()
    asked: list[Question] = field(default_factory=list)

    @property
    def loaded(self) -> frozenset[str]:
        return frozenset()

    def make(self, request: Request, tick: Tick) -> Made:
        raise AssertionError(f"nothing is to be made here, such as {request}")

    def ask(self, question: Question, tick: Tick) -> Answer:
        tick("infer", 0, 0)
        self.asked.append(question)
        return self.answer(question)

    def close(self) -> None:
        pass


class Ticks:
    """A tick that notes what came."""

    def __init__(self) -> None:
        self.came: list[tuple[str, int, int]] = []

    def __call__(self, phase: str, step: int, steps: int, /) -> None:
        self.came.append((phase, step, steps))


def call(
    stage: str,
    engine: AskedEngine | None = None,
    *,
    tick: Tick = no_tick,
    assets: Mapping[str, Path] | None = None,
    **keys: Any,
) -> Call:
    """A call of a stage with the keys that a job file would have."""
    parsed = STAGE_KEYS[stage].model_validate(keys)
    use = parsed.helper and UsedModel(preset=parsed.helper, kind=_KINDS[stage, keys.get("control")], model=MODEL)
    return Call(
        keys=parsed,
        seed=7,
        prompt="a red mug",
        engine=engine or AskedEngine(),
        tick=tick,
        use=use or None,
        assets=assets or {},
    )


MODEL = Model(repo="somebody/helper")
_KINDS = {
    ("prepare", "depth"): "depth",
    ("prepare", "pose"): "pose",
    ("select", None): "clip",
    ("upscale", None): "upscale",
    ("detect", None): "detect",
}


def run(stage: str, given: Image.Image | Work, engine: AskedEngine | None = None, **options: Any) -> Outcome:
    """Run a stage on a picture, or on more."""
    found = STAGES[stage]
    assert isinstance(found, Stage)
    work = given if isinstance(given, Work) else Work(pictures={"": given})
    return found.run(work, call(stage, engine, **options))


def picture_of(stage: str, given: Image.Image | Work, engine: AskedEngine | None = None, **options: Any) -> Image.Image:
    """The picture that a stage makes of a picture."""
    return run(stage, given, engine, **options).work.picture


def choose(pictures: list[Image.Image], engine: AskedEngine | None = None, **options: Any) -> Chosen:
    found = STAGES["select"]
    assert isinstance(found, Choice)
    return found.choose([Work(pictures={"": picture}) for picture in pictures], call("select", engine, **options))


def photo(width: int = 320, height: int = 240) -> Image.Image:
    """A sky, a table, and a red mug with a label and a soft shadow: something like a product photo."""
    sky = Image.linear_gradient("L").resize((width, height))
    made = Image.merge(
        "RGB", [sky.point(lambda v: 150 + v // 4), sky.point(lambda v: 170 + v // 5), sky.point(lambda v: 200)]
    )
    unit = min(width, height) / 240
    middle, table = width * 0.55, height * 0.72
    shadow = Image.new("L", made.size, 0)
    ImageDraw.Draw(shadow).ellipse((middle - 70 * unit, table - 8 * unit, middle + 90 * unit, table + 22 * unit), 110)
    made.paste((60, 60, 70), mask=shadow.filter(ImageFilter.GaussianBlur(6 * unit)))
    draw = ImageDraw.Draw(made)
    draw.ellipse(
        (middle + 20 * unit, table - 85 * unit, middle + 75 * unit, table - 25 * unit),
        outline=(150, 20, 25),
        width=max(1, round(10 * unit)),
    )
    draw.rounded_rectangle(
        (middle - 50 * unit, table - 110 * unit, middle + 45 * unit, table + 8 * unit), 12 * unit, (190, 30, 35)
    )
    draw.text(
        (middle - 38 * unit, table - 70 * unit),
        "MUG",
        (250, 240, 220),
        font=ImageFont.load_default(max(4.0, 34 * unit)),
    )
    return made


def cut_out(width: int = 64, height: int = 48) -> Image.Image:
    """A picture with alpha: a disc that fades out to its edge."""
    made = photo(width, height).convert("RGBA")
    made.putalpha(Image.radial_gradient("L").resize((width, height)).point(lambda value: 255 - value))
    return made
