"""hires: makes the picture larger, then repaints it so that it gets the detail of its new size."""

from typing import Final

from PIL import Image, ImageOps

from hotfolder.stages.repaint import repaint, side_near
from hotfolder.stages.work import Call, Outcome, Stage, Work


def _run(work: Work, call: Call) -> Outcome:
    width, height = (side_near(side * call.keys.factor) for side in work.picture.size)
    # Where rounding the sides changes the shape, a few pixels are cut off rather than all of them stretched.
    enlarged = ImageOps.fit(work.picture, (width, height), Image.Resampling.LANCZOS)
    made = repaint(call, work, enlarged)
    return Outcome(work=Work(pictures={"": made.image}), model=made.model, timings=made.timings, notices=made.notices)


STAGE: Final = Stage(version=1, run=_run)
