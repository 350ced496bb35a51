"""depth: how near each pixel is; white is nearest. Depth Anything and DPT."""

from collections.abc import Callable
from typing import Final

from PIL import Image

from hotfolder.engine import Answer, Question
from hotfolder.helpers.helper import WHITE, Helper, Ready, only

#: Metric models: what is nearer than this is as near.
_NEAREST_M: Final = 0.1


def _run(ready: Ready, question: Question, _tick: Callable[[int, int], None]) -> Answer:
    import torch

    picture = only(question)
    seen = ready.processor(picture, return_tensors="pt")
    depth = ready.model(**ready.inputs(**seen)).predicted_depth.float()  # (1, h, w)
    if getattr(ready.model.config, "depth_estimation_type", "relative") == "metric":
        depth = 1 / depth.clamp(min=_NEAREST_M)  # metres: others tell the inverse, which is largest where it is nearest
    size = (picture.height, picture.width)
    whole = torch.nn.functional.interpolate(depth[None], size, mode="bicubic", align_corners=False)[0, 0].cpu()
    lowest, highest = whole.min(), whole.max()
    # Only what is nearer than what is told, so the whole range is used; a wall gives a black map.
    levels = (whole - lowest) / (highest - lowest).clamp(min=1e-6) * WHITE
    return Answer(image=Image.fromarray(levels.round().to(torch.uint8).numpy()).convert("RGB"))


HELPER: Final = Helper(
    models={
        "DepthAnythingForDepthEstimation": "DPTImageProcessorPil",
        "DPTForDepthEstimation": "DPTImageProcessorPil",
    },
    run=_run,
)
