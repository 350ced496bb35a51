"""grayscale: the picture without its colour; still RGB, so that every stage can follow."""

from dataclasses import replace
from typing import Final

from hotfolder.stages.canvas import beside_alpha
from hotfolder.stages.each import each
from hotfolder.stages.work import Call, Outcome, Stage, Work


def _run(work: Work, call: Call) -> Outcome:
    # L is the luminance of Rec. 601: 0.299 red + 0.587 green + 0.114 blue.
    pictures = each(
        work, call, "grayscale", lambda picture: beside_alpha(picture, lambda rgb: rgb.convert("L").convert("RGB"))
    )
    return Outcome(work=replace(work, pictures=pictures))


STAGE: Final = Stage(version=1, run=_run)
