"""detect: things in the picture: the one that stands out, or what a model finds by its name."""

import math
from dataclasses import replace
from typing import Any, Final

from hotfolder.engine import Answer, Box
from hotfolder.errors import JobError
from hotfolder.names import shown
from hotfolder.stagekeys import Detect
from hotfolder.stages.asking import ask
from hotfolder.stages.work import Call, Outcome, Stage, Work


def _run(work: Work, call: Call) -> Outcome:
    keys: Detect = call.keys
    call.tick("detect", 0, 0)
    answer = _asked(work, call)
    inside = [_clipped(box, work.picture.size) for box in answer.boxes]
    found = [box for box in inside if box.width > 0 and box.height > 0]
    if not found:
        raise _nothing(keys)
    large = [box for box in found if _short(box) >= (keys.min_size or 0)]
    if found[0] not in large:
        raise _too_small(found[0], keys.min_size or 0, work.picture.size)
    notices = answer.notices
    if len(large) < len(found):
        notices += (f"{len(found) - len(large)} of {len(found)} things found are below min_size, and were left out",)
    return Outcome(
        work=replace(work, boxes=tuple(large)),
        model=answer.model,
        timings=answer.timings,
        notices=notices,
        facts={"boxes": [_told(box) for box in large]},
    )


def _asked(work: Work, call: Call) -> Answer:
    keys: Detect = call.keys
    if keys.helper:
        return ask(call, [work.picture], text=keys.label or "", threshold=keys.threshold)
    from hotfolder.stages.subject import find_subject  # and numpy with it: large, and seldom needed

    subject = find_subject(work.picture, keys.label or "subject")
    return Answer(boxes=(subject,) if subject else ())


def _clipped(box: Box, size: tuple[int, int]) -> Box:
    """Keep a box inside the picture: models are a few pixels off at its edge."""
    return replace(
        box,
        left=max(0, box.left),
        top=max(0, box.top),
        right=min(size[0], box.right),
        bottom=min(size[1], box.bottom),
    )


def _short(box: Box) -> int:
    return min(box.width, box.height)


def _told(box: Box) -> dict[str, Any]:
    return {
        "left": box.left,
        "top": box.top,
        "right": box.right,
        "bottom": box.bottom,
        "label": box.label,
        "score": round(box.score, 4),
    }


def _nothing(keys: Detect) -> JobError:
    if keys.helper:
        found = f"no {shown(keys.label or '')!r} was found in the picture, with threshold = {keys.threshold}"
        return JobError("nothing-detected", found, "name it otherwise, lower threshold, or take another picture")
    return JobError(
        "nothing-detected",
        "nothing stands out in the picture",
        "take a picture with a calmer background, or find it by name with a preset of the kind detect",
    )


def _too_small(box: Box, min_size: int, size: tuple[int, int]) -> JobError:
    grow = min_size / _short(box)
    width, height = (math.ceil(side * grow) for side in size)
    return JobError(
        "image-too-small",
        f"{shown(box.label) or 'what was found'} is {box.width}x{box.height} pixels in a picture of "
        f"{size[0]}x{size[1]}; min_size = {min_size} asks for {min_size} on the shorter side",
        f"take a picture of at least {width}x{height} pixels, or a closer view",
    )


STAGE: Final = Stage(version=1, run=_run)
