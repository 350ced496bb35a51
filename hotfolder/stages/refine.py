"""refine: goes over the picture with a second preset, as img2img at its own size."""

from dataclasses import replace
from typing import Final

from PIL import Image

from hotfolder.presets import SIZE_STEP
from hotfolder.stages.repaint import repaint
from hotfolder.stages.work import Call, Outcome, Stage, Work


def _run(work: Work, call: Call) -> Outcome:
    picture = work.picture
    made = repaint(call, work, _padded(picture))
    image = made.image.crop((0, 0, *picture.size))
    return Outcome(
        work=replace(work, pictures={"": image}), model=made.model, timings=made.timings, notices=made.notices
    )


def _padded(picture: Image.Image) -> Image.Image:
    """Return the picture with its right and bottom edge repeated up to a size that a model can make."""
    right, bottom = (-side % SIZE_STEP for side in picture.size)
    if not right and not bottom:
        return picture
    import numpy as np  # large, and seldom needed

    return Image.fromarray(np.pad(np.asarray(picture), ((0, bottom), (0, right), (0, 0)), mode="edge"))


STAGE: Final = Stage(version=1, run=_run)
