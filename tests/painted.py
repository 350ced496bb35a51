"""An Engine that paints instead of denoising: the same request makes the same pixels, in no time.

Asked, it answers as helper models do: from the pictures and the text alone.
"""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from PIL import Image, ImageOps

from hotfolder.engine import Answer, Box, Made, Question, Request, Tick
from hotfolder.presets import Model


@dataclass
class PaintedEngine:
    """Paints a picture from the hash of its request.

    Args:
        before_step: called before each step with the request and the step, counted from 1; may block or raise.
    """

    before_step: Callable[[Request, int], None] | None = None
    made: list[Request] = field(default_factory=list)
    asked: list[Question] = field(default_factory=list)
    #: Models, helpers too, in the order in which they were loaded; one fits at a time.
    loads: list[str] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def loaded(self) -> frozenset[str]:
        return frozenset(self.loads[-1:])

    def make(self, request: Request, tick: Tick) -> Made:
        self._load(request.model, tick)
        tick("encode", 0, 0)
        for step in range(1, request.steps + 1):
            if self.before_step is not None:
                self.before_step(request, step)
            tick("denoise", step, request.steps)
        tick("decode", 0, 0)
        self.made.append(request)
        return Made(image=paint(request), model={"device": "paint"}, timings={"denoise": 0.0})

    def ask(self, question: Question, tick: Tick) -> Answer:
        self._load(question.model, tick)
        tick("infer", 0, 0)
        answer = replace(answer_to(question), model={"device": "paint"}, timings={"infer": 0.0})
        tick("infer", 0, 0)
        self.asked.append(question)
        return answer

    def close(self) -> None:
        self.closed.set()

    def _load(self, model: Model, tick: Tick) -> None:
        tick("load", 0, 0)
        if model.key not in self.loaded:
            self.loads.append(model.key)


def paint(request: Request) -> Image.Image:
    """A flat picture whose colour tells prompt, seed, size and every source."""
    told = hashlib.sha256(f"{request.prompt} {request.seed} {request.steps} {request.kind}".encode())
    for role in sorted(request.pictures):
        told.update(request.pictures[role].tobytes())
    red, green, blue = told.digest()[:3]
    return Image.new("RGB", (request.width, request.height), (red, green, blue))


def answer_to(question: Question) -> Answer:
    """What a helper of this kind says: one box in the middle half, a map, twice the size, scores."""
    if question.kind == "clip":
        return Answer(scores=tuple(_score(each, question.text) for each in question.pictures))
    (picture,) = question.pictures
    match question.kind:
        case "detect":
            width, height = picture.size
            middle = Box(
                left=width // 4,
                top=height // 4,
                right=width * 3 // 4,
                bottom=height * 3 // 4,
                label=question.text,
                score=0.9,
            )
            return Answer(boxes=(middle,))
        case "depth" | "pose":
            return Answer(image=ImageOps.invert(picture.convert("L")).convert("RGB"))
        case "upscale":
            twice = (picture.width * 2, picture.height * 2)
            return Answer(image=picture.convert("RGB").resize(twice, Image.Resampling.NEAREST))
        case _:
            raise ValueError(f"there is no helper of the kind {question.kind}")


def _score(picture: Image.Image, text: str) -> float:
    """Between 0 and 1, from both alone."""
    told = hashlib.sha256(text.encode() + picture.tobytes()).digest()
    return told[0] / 255
