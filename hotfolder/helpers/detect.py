"""detect: where in a picture things are, told by words. Grounding DINO."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from hotfolder.engine import Answer, Box, Question
from hotfolder.helpers.helper import Helper, Ready, only

#: Two boxes that share more than this part of their area are the same thing; the model may find one twice.
_SAME: Final = 0.8


def _run(ready: Ready, question: Question, _tick: Callable[[int, int], None]) -> Answer:
    picture = only(question)
    labels = [label for part in question.text.split(".") if (label := part.strip())]
    # As it was trained: small letters, and a full stop after each thing.
    words = ready.tokenizer("".join(f"{label.lower()}. " for label in labels).strip(), return_tensors="pt")
    seen = ready.processor(picture, return_tensors="pt")
    found = ready.model(**ready.inputs(**words, **seen))
    # (queries, tokens): how well each token fits; (queries, 4): centre, width and height, as parts of the picture.
    fits, places = found.logits[0].float().sigmoid(), found.pred_boxes[0].float().cpu()
    scores = [fits[:, span].amax(dim=1).cpu() for span in _spans(ready.tokenizer, words["input_ids"][0].tolist())]
    boxes = []
    for query, place in enumerate(places.tolist()):
        score, label = max(
            ((float(of_label[query]), label) for of_label, label in zip(scores, labels, strict=False)),
            default=(0.0, ""),
        )
        if score >= question.threshold and (box := _box(place, picture.size, label, score)):
            boxes.append(box)
    boxes.sort(key=lambda box: (-box.score, box.left, box.top, box.right, box.bottom))
    return Answer(boxes=tuple(_each_once(boxes)))


def _spans(tokenizer: Any, tokens: list[int]) -> Iterator[list[int]]:
    """Where the tokens of each thing are; full stops stand between them."""
    stop = tokenizer.convert_tokens_to_ids(".")
    span: list[int] = []
    for position, token in enumerate(tokens):
        if token == stop:
            if span:
                yield span
            span = []
        elif token not in tokenizer.all_special_ids or token == tokenizer.unk_token_id:
            span.append(position)


def _box(place: list[float], size: tuple[int, int], label: str, score: float) -> Box | None:
    """Return a box in pixels, inside the picture; None where nothing of it is."""
    across, down, width, height = place
    left, right = (min(max(round((across + half * width / 2) * size[0]), 0), size[0]) for half in (-1, 1))
    top, bottom = (min(max(round((down + half * height / 2) * size[1]), 0), size[1]) for half in (-1, 1))
    if left >= right or top >= bottom:
        return None
    return Box(left=left, top=top, right=right, bottom=bottom, label=label, score=round(score, 4))


def _each_once(boxes: list[Box]) -> Iterator[Box]:
    kept: list[Box] = []
    for box in boxes:
        if all(_shared(box, other) <= _SAME for other in kept):
            kept.append(box)
            yield box


def _shared(one: Box, other: Box) -> float:
    """The part of the area of both together that both cover."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (one.width * one.height + other.width * other.height - both)


HELPER: Final = Helper(
    models={"GroundingDinoForObjectDetection": "GroundingDinoImageProcessorPil"},
    tokenizer="BertTokenizer",
    run=_run,
)
