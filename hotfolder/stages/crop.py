"""crop: a part of the picture: a box, the best of the things that were found, or a shape."""

from typing import Final

from PIL import Image

from hotfolder.errors import JobError
from hotfolder.stagekeys import Crop
from hotfolder.stages import framing
from hotfolder.stages.each import each
from hotfolder.stages.framing import Area
from hotfolder.stages.work import Call, Outcome, Stage, Work

CUT: Final = "the box does not fit into a frame of this shape inside the picture: part of it was cut off"


def _run(work: Work, call: Call) -> Outcome:
    keys: Crop = call.keys
    kept: list[Area] = []
    notices: list[str] = []

    def change(picture: Image.Image) -> Image.Image:
        area, notice = _area(picture, keys, _box(picture, keys, work))
        kept.append(area)
        notices.extend([notice] if notice else [])
        return picture.crop(area)

    pictures = each(work, call, "crop", change)
    facts = {"box": list(kept[0])} if len(kept) == 1 else {}
    return Outcome(work=Work(pictures=pictures), notices=tuple(dict.fromkeys(notices)), facts=facts)


def _box(picture: Image.Image, keys: Crop, work: Work) -> Area | None:
    """Return what is asked for, or what was found; None where neither is there."""
    if keys.box is None:
        return next(((box.left, box.top, box.right, box.bottom) for box in work.boxes), None)
    if keys.box[2] > picture.width or keys.box[3] > picture.height:
        found = f"box = {list(keys.box)} reaches beyond the picture, which has {picture.width}x{picture.height} pixels"
        raise JobError("bad-value", found, "a box is [left, top, right, bottom] in pixels of the picture as it is then")
    return keys.box


def _area(picture: Image.Image, keys: Crop, box: Area | None) -> tuple[Area, str | None]:
    """Return what to keep, and what there is to tell about it."""
    if box is None:
        if keys.aspect is None:
            raise RuntimeError("crop was asked for no box and no shape, and nothing was detected")
        return framing.place(picture, keys.aspect, keys.gravity)
    left, top = max(0, box[0] - keys.padding), max(0, box[1] - keys.padding)
    right, bottom = min(picture.width, box[2] + keys.padding), min(picture.height, box[3] + keys.padding)
    if keys.aspect is None:
        return (left, top, right, bottom), None
    inner = (right - left, bottom - top)
    frame = framing.smallest(inner, keys.aspect)
    if frame[0] > picture.width or frame[1] > picture.height:
        frame = framing.largest(picture.size, keys.aspect)
    cut = frame[0] < inner[0] or frame[1] < inner[1]
    return framing.around((left, top, right, bottom), frame, picture.size), CUT if cut else None


STAGE: Final = Stage(version=1, run=_run)
