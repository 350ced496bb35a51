"""pad: a border around the picture, and the mask of what was added."""

from typing import Final

from PIL import Image

from hotfolder.stagekeys import Pad
from hotfolder.stages import framing
from hotfolder.stages.canvas import check_size, ground
from hotfolder.stages.each import each
from hotfolder.stages.framing import Area
from hotfolder.stages.work import Call, Outcome, Stage, Work


def _run(work: Work, call: Call) -> Outcome:
    keys: Pad = call.keys
    pictures = each(work, call, "pad", lambda picture: _padded(picture, keys))
    whole = work.pictures.get("")
    return Outcome(work=Work(pictures=pictures, mask=None if whole is None else _added(whole, keys)))


def _padded(picture: Image.Image, keys: Pad) -> Image.Image:
    size, area = _layout(picture, keys)
    made = ground(size, keys.color, picture)
    made.paste(picture.convert(made.mode), area)
    return made


def _added(picture: Image.Image, keys: Pad) -> Image.Image:
    """Return the mask: L, white where something was added."""
    size, area = _layout(picture, keys)
    mask = Image.new("L", size, "white")
    mask.paste(0, area)
    return mask


def _layout(picture: Image.Image, keys: Pad) -> tuple[tuple[int, int], Area]:
    """Return the size to make, and where the picture comes to lie in it."""
    width, height = picture.width + keys.left + keys.right, picture.height + keys.top + keys.bottom
    size = framing.smallest((width, height), keys.aspect) if keys.aspect else (width, height)
    check_size(size, "pad")
    left, top = keys.left + (size[0] - width) // 2, keys.top + (size[1] - height) // 2
    return size, (left, top, left + picture.width, top + picture.height)


STAGE: Final = Stage(version=1, run=_run)
