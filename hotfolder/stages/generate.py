"""generate: a picture from the prompt and the sources, by the preset's kind."""

from dataclasses import replace
from typing import Final

from PIL import Image, ImageOps

from hotfolder.engine import Request
from hotfolder.stages.work import Stage, Work


def request_of(work: Work) -> Request:
    """Return what the engine is asked for this candidate."""
    plan, keys = work.plan, work.plan.generate
    return Request(
        kind=plan.kind,
        preset=plan.preset,
        model=plan.model,
        prompt=keys.prompt,
        seed=plan.seed_of(work.candidate),
        width=keys.width,
        height=keys.height,
        steps=keys.steps,
        guidance=keys.guidance,
        true_cfg=keys.true_cfg,
        negative_prompt=keys.negative_prompt,
        strength=keys.strength,
        image_strength=keys.image_strength,
        max_sequence_length=keys.max_sequence_length,
        pictures=_fitted(work),
    )


def _fitted(work: Work) -> dict[str, Image.Image]:
    """Bring the sources to the size of the picture, cropped around the middle where the shape differs.

    Pipelines would resize each by a rule of its own. Redux looks at its source as it is.
    """
    size = (work.plan.generate.width, work.plan.generate.height)
    if work.plan.kind == "redux":
        return dict(work.pictures)
    return {
        role: image if image.size == size else ImageOps.fit(image, size, Image.Resampling.LANCZOS)
        for role, image in work.pictures.items()
    }


def _run(work: Work) -> Work:
    return replace(work, made=work.engine.make(request_of(work), work.tick))


STAGE: Final = Stage(lane="gpu", version=1, run=_run)
