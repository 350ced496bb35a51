"""clip: how near pictures are to a text: the cosine of the angle between what CLIP makes of both, -1 to 1."""

from collections.abc import Callable
from typing import Final

from hotfolder.engine import Answer, Question
from hotfolder.helpers.helper import Helper, Ready


def _run(ready: Ready, question: Question, tick: Callable[[int, int], None]) -> Answer:
    # A text of more than 77 tokens is cut, as in all programs that use this model.
    words = ready.tokenizer(question.text, truncation=True, max_length=77, return_tensors="pt")
    scores = []
    # One at a time: the same score whatever else is compared, and no more memory for many than for one.
    for number, picture in enumerate(question.pictures, 1):
        seen = ready.processor(picture.convert("RGB"), return_tensors="pt")
        found = ready.model(**ready.inputs(**words, **seen))
        scores.append(float((found.image_embeds[0] * found.text_embeds[0]).float().sum()))
        tick(number, len(question.pictures))
    return Answer(scores=tuple(scores))


HELPER: Final = Helper(models={"CLIPModel": "CLIPImageProcessorPil"}, tokenizer="CLIPTokenizer", run=_run)
