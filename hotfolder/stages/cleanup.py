"""cleanup: specks, noise and softness, in this order."""

from dataclasses import replace
from typing import Final

from PIL import Image, ImageFilter

from hotfolder.stagekeys import Cleanup
from hotfolder.stages.canvas import beside_alpha
from hotfolder.stages.each import each
from hotfolder.stages.work import Call, Outcome, Stage, Work

#: Pixels; percent at sharpen = 1; and the difference, of 255, below which noise is left alone.
_SHARP_RADIUS: Final = 1.5
_SHARP_PERCENT: Final = 120
_SHARP_LEVEL: Final = 2


def _run(work: Work, call: Call) -> Outcome:
    pictures = each(work, call, "cleanup", lambda picture: beside_alpha(picture, lambda rgb: _cleaned(rgb, call)))
    return Outcome(work=replace(work, pictures=pictures))


def _cleaned(picture: Image.Image, call: Call) -> Image.Image:
    from hotfolder.stages import specks  # and numpy with it: large, and seldom needed

    keys: Cleanup = call.keys
    if keys.despeckle:
        picture = specks.despeckled(picture, lambda: call.tick("cleanup", 0, 0))
    if keys.denoise:
        picture = specks.denoised(picture, keys.denoise, lambda: call.tick("cleanup", 0, 0))
    if keys.sharpen:
        percent = round(_SHARP_PERCENT * keys.sharpen)
        picture = picture.filter(ImageFilter.UnsharpMask(_SHARP_RADIUS, percent, _SHARP_LEVEL))
    return picture


STAGE: Final = Stage(version=1, run=_run)
