"""variants: several crops of the picture, one for each shape."""

from typing import Final

from hotfolder.stagekeys import Variants
from hotfolder.stages import framing
from hotfolder.stages.work import Call, Outcome, Stage, Work


def _run(work: Work, call: Call) -> Outcome:
    keys: Variants = call.keys
    pictures, boxes, notices = {}, {}, set()
    for aspect in keys.aspects:
        call.tick("variants", 0, 0)
        area, notice = framing.place(work.picture, aspect, keys.gravity)
        name = aspect.replace(":", "x")
        pictures[name] = work.picture.crop(area)
        boxes[name] = list(area)
        notices |= {notice} if notice else set()
    return Outcome(work=Work(pictures=pictures), notices=tuple(sorted(notices)), facts={"boxes": boxes})


STAGE: Final = Stage(version=1, run=_run)
