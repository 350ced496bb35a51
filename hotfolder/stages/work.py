"""What a stage takes and gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from hotfolder.engine import Box, Engine, Tick
from hotfolder.plan import Generation
from hotfolder.presets import Lora, Model
from hotfolder.stagekeys import StageKeys


@dataclass(frozen=True, kw_only=True)
class Work:
    """One candidate on its way through the stages: what a stage is given, and gives back changed.

    Pictures are what a file can hold without loss: 8-bit RGB or RGBA. A stage never changes one in place.
    """

    #: By variant, such as "16x9"; "" is the picture itself, and the only one before the stage `variants`. Empty where
    #: nothing has been made yet and the job has no `image`.
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    #: L, of the size of the picture; white is to be repainted.
    mask: Image.Image | None = None
    #: RGB; the structure to follow.
    control: Image.Image | None = None
    #: What was found in the picture, the best first.
    boxes: tuple[Box, ...] = ()

    @property
    def picture(self) -> Image.Image:
        """The picture itself; which a stage that says it needs one always has."""
        return self.pictures[""]


@dataclass(frozen=True, kw_only=True)
class UsedModel:
    """A model as a stage is to use it: by the preset that names it."""

    preset: str
    kind: str
    model: Model
    #: The only sizes that it was taught; none: any.
    sizes: tuple[str, ...] = ()
    #: What `loras` may switch on.
    loras: Mapping[str, Lora] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One cell, as its stage sees it: everything but the pictures."""

    #: Of the class that `STAGE_KEYS` names for the stage.
    keys: Any
    #: Of this candidate.
    seed: int
    prompt: str
    engine: Engine
    tick: Tick
    #: The generating preset, or the helper's; None where the stage uses none.
    use: UsedModel | None = None
    #: Stages that generate: everything decided; where width and height are None, the size is that of what came in.
    generation: Generation | None = None
    #: Where the asset of a key lies, such as "image" of an overlay: a copy in the job's own folder.
    assets: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a cell made, and what there is to tell about how."""

    work: Work
    #: What is known of the model: repo, revision, hash, dtype ...; empty where none was used.
    model: Mapping[str, str] = field(default_factory=dict)
    #: Seconds by phase, where the stage knows better than the clock around it.
    timings: Mapping[str, float] = field(default_factory=dict)
    #: What was done otherwise than asked.
    notices: tuple[str, ...] = ()
    #: What it found out or decided, for the sidecar; plain TOML values.
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage that works on one candidate after the other.

    `run` calls `call.tick` at least once, may raise `JobError` and `SettingsError`, and what it gives depends on
    nothing but `work` and `call`.
    """

    #: Raised when the stage would make other pixels from the same keys.
    version: int
    run: Callable[[Work, Call], Outcome]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which candidates go on, the best first, and why."""

    #: Indices into what was given.
    kept: tuple[int, ...]
    #: Of each that was given, higher is better.
    scores: tuple[float, ...] = ()
    model: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A stage that looks at all candidates of an item together; `works` are in the order of their numbers."""

    version: int
    choose: Callable[[Sequence[Work], Call], Chosen]


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The last stage: what it does is put pictures on disk, see `outputs`."""

    version: int


AnyStage = Stage | Choice | Ending

Lane = Literal["gpu", "cpu", "person"]

__all__ = [
    "AnyStage", "Call", "Choice", "Chosen", "Ending", "Lane", "Outcome", "Stage", "StageKeys", "UsedModel", "Work",
]  # fmt: skip
