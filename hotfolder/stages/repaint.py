"""What hires, refine and detail have in common: img2img at exactly the size of a picture."""

from dataclasses import replace
from typing import Any

from PIL import Image

from hotfolder.engine import Made
from hotfolder.presets import SIZE_STEP
from hotfolder.stages.generate import request_of
from hotfolder.stages.work import Call, Work


def repaint(call: Call, work: Work, picture: Image.Image, **changes: Any) -> Made:  # noqa: ANN401 - fields of Request
    """Move a picture towards the prompt, by `strength` of the stage's keys. An alpha channel is kept.

    Args:
        picture: sides are multiples of 16.
        changes: as of `request_of`.
    """
    request = request_of(
        call,
        work,
        picture,
        **{
            "width": picture.width,
            "height": picture.height,
            "strength": call.keys.strength,
            # Whatever else came in is not for this: a mask or control picture has another size.
            "pictures": {"image": picture},
            **changes,
        },
    )
    made = call.engine.make(request, call.tick)
    if picture.mode != "RGBA":
        return made
    image = made.image.copy()
    image.putalpha(picture.getchannel("A"))
    return replace(made, image=image)


def side_near(length: float) -> int:
    """Return the side nearest to this length that a model can make."""
    return max(SIZE_STEP, round(length / SIZE_STEP) * SIZE_STEP)
