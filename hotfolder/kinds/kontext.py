"""kontext: an edit of a picture, as the prompt tells; without a picture a plain text2img."""

import math
from typing import Any, Final

from PIL import Image

from hotfolder.engine import Request
from hotfolder.kinds.kind import Kind, fit


def _arguments(request: Request) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        # Without these two the result has about a million pixels whatever was asked for, and the reference is
        # stretched to the nearest of 17 shapes.
        "max_area": request.width * request.height,
        "_auto_resize": False,
    }
    if "image" in request.pictures:
        arguments["image"] = _reference(request.pictures["image"], request)
    return arguments


def _reference(picture: Image.Image, request: Request) -> Image.Image:
    """Return the reference in its own shape, with about as many pixels as the result.

    The model was trained on references of about the result's size, and each 16 x 16 pixels are a token: a photo from a
    camera would not fit in any memory. One that knows few sizes was trained on no other shape either.
    """
    if request.sizes:
        return fit(picture, (request.width, request.height))
    area = request.width * request.height
    scale = math.sqrt(area / (picture.width * picture.height))
    return fit(picture, (_side(picture.width * scale), _side(picture.height * scale)))


def _side(length: float) -> int:
    return max(16, int(length + 0.5) // 16 * 16)


KIND: Final = Kind(
    pipeline="FluxKontextPipeline",
    in_channels=lambda latents: latents.packed,
    takes=frozenset({"image"}),
    fits=False,
    arguments=_arguments,
)
