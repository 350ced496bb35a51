"""select: the best candidates of an item. What a person picks is no code: see `controls`."""

from collections.abc import Sequence
from typing import Final, assert_never

from PIL import Image

from hotfolder.stagekeys import Select
from hotfolder.stages.asking import ask
from hotfolder.stages.canvas import opaque
from hotfolder.stages.work import Call, Choice, Chosen, Work

#: Pixels of the long side at which sharpness is measured, at most.
_SIDE: Final = 1024


def _choose(works: Sequence[Work], call: Call) -> Chosen:
    keys: Select = call.keys
    call.tick("select", 0, 0)
    pictures = [work.picture for work in works]
    match keys.by:
        case "sharpness":
            scores = _sharpness(pictures, call)
            return Chosen(kept=_best(scores, keys.keep), scores=scores)
        case "clip":
            answer = ask(call, pictures, text=call.prompt)
            if len(answer.scores) != len(works):
                raise RuntimeError(f"clip was asked about {len(works)} pictures, and gave {len(answer.scores)} scores")
            kept = _best(answer.scores, keys.keep)
            return Chosen(kept=kept, scores=answer.scores, model=answer.model, notices=answer.notices)
        case "review":
            raise RuntimeError("what a person is to pick was given to the stage")
    assert_never(keys.by)


def _best(scores: Sequence[float], keep: int) -> tuple[int, ...]:
    """Return the indices of the highest, the best first; of equals, those that come first."""
    return tuple(sorted(range(len(scores)), key=lambda index: -scores[index])[:keep])


def _sharpness(pictures: Sequence[Image.Image], call: Call) -> tuple[float, ...]:
    """Measure all at the size of the smallest: a large picture has softer edges, pixel by pixel, than a small one."""
    side = min([_SIDE, *(max(picture.size) for picture in pictures)])
    scores = []
    for picture in pictures:
        call.tick("select", 0, 0)
        scores.append(_laplacian_variance(picture, side))
    return tuple(scores)


def _laplacian_variance(picture: Image.Image, side: int) -> float:
    import numpy as np  # large, and seldom needed

    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    light = opaque(picture).convert("L").resize((width, height), Image.Resampling.LANCZOS)
    grey = np.pad(np.asarray(light, dtype=np.float64), 1, mode="edge")
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return round(float(laplacian.var()), 4)


STAGE: Final = Choice(version=1, choose=_choose)
