"""The stages of a pipeline: one file each, and the dict that names them."""

from collections.abc import Mapping
from typing import Final

from hotfolder.stages import (
    cleanup,
    color,
    crop,
    detail,
    detect,
    export,
    generate,
    grayscale,
    hires,
    overlay,
    pad,
    prepare,
    refine,
    resize,
    rotate,
    select,
    upscale,
    variants,
)
from hotfolder.stages.work import AnyStage, Call, Choice, Chosen, Ending, Outcome, Stage, UsedModel, Work

#: Name -> the stage, for each of `STAGE_KEYS`.
STAGES: Final[Mapping[str, AnyStage]] = {
    "prepare": prepare.STAGE,
    "generate": generate.STAGE,
    "select": select.STAGE,
    "upscale": upscale.STAGE,
    "hires": hires.STAGE,
    "refine": refine.STAGE,
    "detect": detect.STAGE,
    "detail": detail.STAGE,
    "crop": crop.STAGE,
    "resize": resize.STAGE,
    "pad": pad.STAGE,
    "rotate": rotate.STAGE,
    "grayscale": grayscale.STAGE,
    "color": color.STAGE,
    "overlay": overlay.STAGE,
    "cleanup": cleanup.STAGE,
    "variants": variants.STAGE,
    "export": export.STAGE,
}

__all__ = ["STAGES", "AnyStage", "Call", "Choice", "Chosen", "Ending", "Outcome", "Stage", "UsedModel", "Work"]
