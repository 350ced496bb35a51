"""generate: a picture of any kind, by preset: from the prompt, from a source, or from what came in."""

from typing import Any, Final

from PIL import Image

from hotfolder import loras, sizes
from hotfolder.engine import Request, UsedLora
from hotfolder.errors import JobError
from hotfolder.presets import SIZE_STEP
from hotfolder.stages.work import Call, Outcome, Stage, UsedModel, Work


def request_of(call: Call, work: Work, picture: Image.Image | None, **changes: Any) -> Request:  # noqa: ANN401 - fields of Request
    """Return what the engine is asked.

    Args:
        picture: what the picture is made from, where the kind takes one. Where the job says no size, it decides it.
        changes: what this stage wants otherwise than its generation says.
    """
    told, use = call.generation, call.use
    if told is None or use is None:
        raise RuntimeError("this stage generates, and was given no generation")
    given = {"image": picture, "mask": work.mask, "control": work.control}
    like = work.control if use.kind == "control" else picture
    width, height = told.width, told.height
    if (width is None or height is None) and like is not None:
        either = width or height
        width, height = sizes.of_side(width, height, like.size) if either else size_like(like)
    asked: dict[str, Any] = {
        "kind": use.kind,
        "preset": use.preset,
        "model": use.model,
        "seed": call.seed,
        "width": width,
        "height": height,
        "sizes": use.sizes,
        "pictures": {role: given[role] for role in told.takes if given[role] is not None},
    }
    asked |= told.model_dump(exclude={"width", "height", "takes", "loras"})
    asked["loras"] = _used_loras(told.loras or "", use)
    return Request(**asked | changes)


def _used_loras(said: str, use: UsedModel) -> tuple[UsedLora, ...]:
    """Return the LoRAs that are switched on.

    Raises:
        JobError: `bad-value`: the preset has none of such a name.
    """
    weights = loras.parse(said)
    for name in sorted(weights.keys() - use.loras.keys()):
        raise JobError("bad-value", *loras.none_of(name, use.preset, use.loras))
    return tuple(UsedLora(name=name, lora=use.loras[name], weight=weight) for name, weight in weights.items())


def size_like(picture: Image.Image) -> tuple[int, int]:
    """Return the size at which a picture is worked on: its own, sides rounded down to what a model can make."""
    across, down = (max(SIZE_STEP, side // SIZE_STEP * SIZE_STEP) for side in picture.size)
    return across, down


def _run(work: Work, call: Call) -> Outcome:
    picture = work.pictures.get("")
    made = call.engine.make(request_of(call, work, picture), call.tick)
    return Outcome(work=Work(pictures={"": made.image}), model=made.model, timings=made.timings, notices=made.notices)


STAGE: Final = Stage(version=1, run=_run)
