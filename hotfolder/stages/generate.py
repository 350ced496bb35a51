"""generate: a picture from the prompt and the sources, by the preset's kind."""

from dataclasses import replace
from typing import Final

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
        pictures=work.pictures,
    )


def _run(work: Work) -> Work:
    return replace(work, made=work.engine.make(request_of(work), work.tick))


STAGE: Final = Stage(lane="gpu", version=1, run=_run)
