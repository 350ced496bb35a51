"""color: light and colour, in this order: autocontrast, gamma, brightness, contrast, saturation."""

from dataclasses import replace
from typing import Final

from PIL import Image, ImageEnhance, ImageOps

from hotfolder.stagekeys import Color
from hotfolder.stages.canvas import beside_alpha
from hotfolder.stages.each import each
from hotfolder.stages.work import Call, Outcome, Stage, Work

#: Percent of the darkest and of the lightest pixels that autocontrast gives up: one speck must not decide.
_CUTOFF: Final = 0.1


def _run(work: Work, call: Call) -> Outcome:
    keys: Color = call.keys
    pictures = each(work, call, "color", lambda picture: beside_alpha(picture, lambda rgb: _changed(rgb, keys)))
    return Outcome(work=replace(work, pictures=pictures))


def _changed(picture: Image.Image, keys: Color) -> Image.Image:
    if keys.autocontrast:
        # One curve for all three colours: by luminance, so that none of them shifts.
        picture = ImageOps.autocontrast(picture, cutoff=_CUTOFF, preserve_tone=True)
    if keys.gamma != 1:
        curve = [round(255 * (value / 255) ** (1 / keys.gamma)) for value in range(256)]
        picture = picture.point(curve * 3)
    if keys.brightness != 1:
        picture = ImageEnhance.Brightness(picture).enhance(keys.brightness)
    if keys.contrast != 1:
        # Away from or towards the mean grey of the picture.
        picture = ImageEnhance.Contrast(picture).enhance(keys.contrast)
    if keys.saturation != 1:
        picture = ImageEnhance.Color(picture).enhance(keys.saturation)
    return picture


STAGE: Final = Stage(version=1, run=_run)
