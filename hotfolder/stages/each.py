"""The same to every picture of a work: to the one, or to each of its variants."""

from collections.abc import Callable

from PIL import Image

from hotfolder.stages.work import Call, Work

Change = Callable[[Image.Image], Image.Image]


def each(work: Work, call: Call, stage: str, change: Change) -> dict[str, Image.Image]:
    """Change every picture of a work; the cell can be stopped before each."""
    changed = {}
    for variant, picture in work.pictures.items():
        call.tick(stage, 0, 0)
        changed[variant] = change(picture)
    return changed
