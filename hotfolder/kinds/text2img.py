"""text2img: a picture from a prompt; with a source and `strength` that source, moved towards the prompt (img2img)."""

from typing import Any, Final

from hotfolder.engine import Request
from hotfolder.errors import JobError
from hotfolder.kinds.kind import Kind


def _runs(request: Request) -> str | None:
    return "FluxImg2ImgPipeline" if "image" in request.pictures else None


def _arguments(request: Request) -> dict[str, Any]:
    image = request.pictures.get("image")
    if image is None:
        return {}
    if request.strength is None:
        raise JobError("missing-key", "strength is missing: it says how far to move from image", "try strength = 0.6")
    if steps_left(request.steps, request.strength) < 1:
        found = f"strength = {request.strength:g} leaves none of {request.steps} steps"
        raise JobError("bad-value", found, "raise strength or steps")
    return {"image": image}


def steps_left(steps: int, strength: float) -> int:
    """Return how many steps img2img really makes: the first ones are skipped, their noise being more than asked for.

    Source: diffusers, `FluxImg2ImgPipeline.get_timesteps`.
    """
    return steps - int(max(steps - min(steps * strength, steps), 0))


KIND: Final = Kind(
    pipeline="FluxPipeline",
    in_channels=lambda latents: latents.packed,
    takes=frozenset({"image"}),
    runs=_runs,
    arguments=_arguments,
)
