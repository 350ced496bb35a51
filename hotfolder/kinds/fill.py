"""fill: repaints what is white in the mask (inpainting, and outpainting on a larger canvas).

What is black in the mask comes out exactly as it went in. The pipeline alone does not promise that: it decodes the
whole picture, which changes every pixel a little; so the source is laid over the result again. Grey blends.
"""

from typing import Any, Final

from PIL import Image

from hotfolder.engine import Request
from hotfolder.kinds.kind import Kind


def _arguments(request: Request) -> dict[str, Any]:
    # Both are at the result's size by now; the pipeline would resize each on its own, and make 1024 x 1024 of any
    # picture if it were not told width and height. It draws from the generator for the masked picture before it draws
    # the noise, so a picture is repeatable only one at a time, with a generator of its own.
    return {"image": request.pictures["image"], "mask_image": request.pictures["mask"]}


def _finish(request: Request, picture: Image.Image) -> Image.Image:
    return Image.composite(picture, request.pictures["image"], request.pictures["mask"])


KIND: Final = Kind(
    pipeline="FluxFillPipeline",
    # Latents, those of the masked picture, and all pixels of the mask below them.
    in_channels=lambda latents: 2 * latents.packed + 4 * latents.down**2,
    needs=frozenset({"image", "mask"}),
    arguments=_arguments,
    finish=_finish,
)
