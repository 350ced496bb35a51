"""upscale: the picture as much larger as the model makes it. Swin2SR, and the ESRGAN family as single files."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from PIL import Image

from hotfolder.engine import Answer, Question
from hotfolder.helpers import single_file
from hotfolder.helpers.helper import WHITE, Helper, Ready, only

#: Larger pictures are enlarged in tiles of this many pixels, so that memory does not grow with them. On a CPU a tile
#: takes a minute or so with Swin2SR: a cancel waits no longer, and nobody takes it for a hang.
_TILE: Final = 256
#: What a tile is shown of its neighbours, so that no seam is seen. With the tile a multiple of the windows that models
#: look through, which then lie the same in each tile.
_MARGIN: Final = 32

_Area = tuple[int, int, int, int]


def _run(ready: Ready, question: Question, tick: Callable[[int, int], None]) -> Answer:
    picture = only(question)
    tiles = list(_tiles(picture.size))
    enlarged = Image.new("RGB", (0, 0))
    for number, (own, shown) in enumerate(tiles, 1):
        tile = _enlarge(ready, picture.crop(shown))
        factor = tile.width // (shown[2] - shown[0])
        if number == 1:
            enlarged = Image.new("RGB", (picture.width * factor, picture.height * factor))
        left, top = (own[0] - shown[0]) * factor, (own[1] - shown[1]) * factor
        width, height = (own[2] - own[0]) * factor, (own[3] - own[1]) * factor
        enlarged.paste(tile.crop((left, top, left + width, top + height)), (own[0] * factor, own[1] * factor))
        tick(number, len(tiles))
    return Answer(image=enlarged)


def _tiles(size: tuple[int, int]) -> Iterator[tuple[_Area, _Area]]:
    """What each tile gives of the picture, and what it is shown: left, top, right, bottom."""
    width, height = size
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            right, bottom = min(left + _TILE, width), min(top + _TILE, height)
            shown = max(left - _MARGIN, 0), max(top - _MARGIN, 0)
            yield (left, top, right, bottom), (*shown, min(right + _MARGIN, width), min(bottom + _MARGIN, height))


def _enlarge(ready: Ready, tile: Image.Image) -> Image.Image:
    import torch

    if ready.processor is None:
        larger = ready.model(**ready.inputs(x=_tensor(tile)))
    else:
        seen = ready.processor(tile, return_tensors="pt")
        larger = ready.model(**ready.inputs(**seen)).reconstruction
        # It is shown the tile with a border up to the next multiple of its window.
        factor = larger.shape[-1] // seen["pixel_values"].shape[-1]
        larger = larger[..., : tile.height * factor, : tile.width * factor]
    levels = (larger[0].float().clamp(0, 1) * WHITE).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())


def _tensor(picture: Image.Image) -> Any:
    """Return (1, 3, h, w), RGB in [0, 1]."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / WHITE


HELPER: Final = Helper(
    models={"Swin2SRForImageSuperResolution": "Swin2SRImageProcessorPil"},
    read_file=single_file.read,
    run=_run,
)
