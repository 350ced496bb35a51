"""The words that `run`, the stages, the kinds and the GPU share: pictures, requests, the tick and the Engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from PIL import Image

from hotfolder.presets import Lora, Model


class StopReason(StrEnum):
    """Why a cell was told to stop."""

    #: Somebody dropped `.cancel`: the job ends.
    CANCEL = "cancel"
    #: Somebody dropped `.pause`: the job is held.
    PAUSE = "pause"
    #: The daemon stops: the cell becomes ready again.
    SHUTDOWN = "shutdown"


class JobStopped(BaseException):
    """Unwinds a cell that was told to stop; a BaseException so that no `except Exception` on the way swallows it."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class BrokenDevice(RuntimeError):
    """The device is beyond repair in this process (a broken CUDA context): the daemon must be started again."""


class Tick(Protocol):
    """Says how far a stage is, and raises `JobStopped` where the cell must stop.

    Called at least once before and once after each part that cannot be interrupted (load, encode, decode) and after
    every denoising step. Cheap: no system call.
    """

    def __call__(self, phase: str, step: int, steps: int, /) -> None:
        """Report `step` of `steps` of `phase`: download, load, encode, denoise, decode; 0 where it has no steps."""


def no_tick(_phase: str, _step: int, _steps: int, /) -> None:
    """A tick for what is never stopped and shows no progress."""


@dataclass(frozen=True, kw_only=True)
class UsedLora:
    """A LoRA as a picture has it switched on."""

    name: str
    lora: Lora
    weight: float


@dataclass(frozen=True, kw_only=True)
class Request:
    """All a kind needs to make one picture. Nothing is left open: the same request makes the same pixels."""

    kind: str
    preset: str
    model: Model
    prompt: str
    seed: int
    #: Pixels; multiples of 16.
    width: int
    height: int
    #: The only sizes that the model was taught, such as "128x128"; none: any. A picture that it is shown is brought to
    #: that of the result.
    sizes: tuple[str, ...] = ()
    steps: int
    #: The embedded (distilled) guidance; None where the model has none.
    guidance: float | None = None
    #: Classifier-free guidance; above 1 a second pass is made with `negative_prompt`.
    true_cfg: float | None = None
    negative_prompt: str | None = None
    #: How far img2img moves from its source: 0 keeps it, 1 forgets it.
    strength: float | None = None
    #: How strongly redux follows its source; 1 is the model's own weight.
    image_strength: float | None = None
    max_sequence_length: int = 512
    loras: tuple[UsedLora, ...] = ()
    #: RGB, EXIF-rotated, 8 bit, keyed by role: "image", "mask" (mode L, white is repainted), "control".
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Made:
    """One picture an engine made, and what there is to tell about how."""

    image: Image.Image
    #: What is known of the model that made it: repo, revision, hash, dtype, offload, attention, speed, device.
    model: Mapping[str, str]
    #: Seconds by phase: load, encode, denoise, decode.
    timings: Mapping[str, float]
    #: What was done otherwise than asked (a rung of the memory ladder, a prompt cut short).
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Box:
    """A thing in a picture: pixels from its top left corner; right and bottom are the first that are not in it."""

    left: int
    top: int
    right: int
    bottom: int
    label: str = ""
    #: How sure the finder is, 0 to 1.
    score: float = 1.0

    @property
    def width(self) -> int:
        """Pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels."""
        return self.bottom - self.top


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a helper model is asked: to find, to measure, or to enlarge; it makes no picture of its own."""

    #: detect, depth, pose, clip or upscale.
    kind: str
    preset: str
    model: Model
    #: RGB, 8 bit; one, or for clip any number.
    pictures: tuple[Image.Image, ...]
    #: detect: what to look for. clip: the prompt to compare with.
    text: str = ""
    #: detect: how sure it must be.
    threshold: float = 0.3


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a helper model says, and what is known of it."""

    #: depth and pose: a map of the picture's size, RGB. upscale: the picture, as much larger as the model makes it.
    image: Image.Image | None = None
    #: detect: the best first.
    boxes: tuple[Box, ...] = ()
    #: clip: one for each picture; higher is nearer to the text.
    scores: tuple[float, ...] = ()
    model: Mapping[str, str] = field(default_factory=dict)
    #: Seconds by phase: load, infer.
    timings: Mapping[str, float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


class Engine(Protocol):
    """Makes pictures; owned by the one GPU thread, which alone calls it.

    `daemon.serve(settings, engine=...)` takes any object with these four members.
    """

    @property
    def loaded(self) -> frozenset[str]:
        """Keys (`Model.key`) of the models that are ready without loading; read from other threads."""

    def make(self, request: Request, tick: Tick) -> Made:
        """Make one picture.

        Raises:
            JobError: the request cannot be met; its author must act.
            SettingsError: the model is missing, broken or of another kind.
            JobStopped: from `tick`; the engine must be usable again afterwards.
        """

    def ask(self, question: Question, tick: Tick) -> Answer:
        """Ask a helper model.

        Raises: as `make`.
        """

    def close(self) -> None:
        """Give back all memory."""
