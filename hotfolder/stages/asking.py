"""How a stage asks its helper model."""

from collections.abc import Sequence

from PIL import Image

from hotfolder.engine import Answer, Question
from hotfolder.stages.canvas import opaque
from hotfolder.stages.work import Call


def ask(
    call: Call, pictures: Sequence[Image.Image], *, text: str = "", threshold: float = Question.threshold
) -> Answer:
    """Ask the model that the stage's preset names; pictures are given as RGB, transparency over white."""
    if call.use is None:
        raise RuntimeError("this stage asks a helper model, and was given none")
    question = Question(
        kind=call.use.kind,
        preset=call.use.preset,
        model=call.use.model,
        pictures=tuple(opaque(picture) for picture in pictures),
        text=text,
        threshold=threshold,
    )
    return call.engine.ask(question, call.tick)


def image_of(answer: Answer) -> Image.Image:
    """Return the picture of an answer that must hold one."""
    if answer.image is None:
        raise RuntimeError("the helper model was asked for a picture, and gave none")
    return answer.image
