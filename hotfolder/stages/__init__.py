"""The stages of a pipeline: one file each, and the dict that names them."""

from typing import Final

from hotfolder.stages import export, generate
from hotfolder.stages.work import Stage, Work

STAGES: Final[dict[str, Stage]] = {
    "generate": generate.STAGE,
    "export": export.STAGE,
}

__all__ = ["STAGES", "Stage", "Work"]
