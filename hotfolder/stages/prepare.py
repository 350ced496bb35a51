"""prepare: a map of the picture's structure, for a preset of the kind control.

Sources are brought into shape when they are loaded, see `sources`.
"""

from dataclasses import replace
from typing import Final

from PIL import Image

from hotfolder.stagekeys import Prepare
from hotfolder.stages.asking import ask, image_of
from hotfolder.stages.canvas import opaque
from hotfolder.stages.work import Call, Outcome, Stage, Work


def _run(work: Work, call: Call) -> Outcome:
    keys: Prepare = call.keys
    call.tick("prepare", 0, 0)
    if keys.control is None:
        return Outcome(work=work)
    if keys.control == "canny":
        from hotfolder.stages.canny import find_edges  # and numpy with it: large, and seldom needed

        edges = find_edges(opaque(work.picture).convert("L"), keys.low, keys.high, lambda: call.tick("prepare", 0, 0))
        return Outcome(work=replace(work, control=Image.fromarray(edges).convert("RGB")))
    answer = ask(call, [work.picture])
    return Outcome(
        work=replace(work, control=image_of(answer)),
        model=answer.model,
        timings=answer.timings,
        notices=answer.notices,
    )


STAGE: Final = Stage(version=1, run=_run)
