"""control: a picture that follows the structure of another: a depth map or canny edges, as the model was trained."""

from typing import Any, Final

from hotfolder.engine import Request
from hotfolder.kinds.kind import Kind


def _arguments(request: Request) -> dict[str, Any]:
    return {"control_image": request.pictures["control"]}


KIND: Final = Kind(
    pipeline="FluxControlPipeline",
    in_channels=lambda latents: 2 * latents.packed,  # its own, and those of the control picture
    needs=frozenset({"control"}),
    arguments=_arguments,
)
