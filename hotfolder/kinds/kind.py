"""What a kind is: which checkpoint it needs, and what its pipeline is called with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from PIL import Image, ImageOps

from hotfolder.engine import Request
from hotfolder.models import InChannels

#: A source that is larger by less than this is cropped, not scaled: sides are rounded to multiples of 16.
_ROUNDING: Final = 16


def _nothing_more(_request: Request) -> dict[str, Any]:
    return {}


def _as_it_is(_request: Request, picture: Image.Image) -> Image.Image:
    return picture


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind. The engine does the rest, the same for all: load, encode the prompt, denoise, decode."""

    #: The diffusers class that the model_index.json of a checkpoint names.
    pipeline: str
    #: `in_channels` in its transformer/config.json; None where it has no transformer.
    in_channels: InChannels | None
    #: The same two of the model that paints, where the checkpoint only conditions it (redux).
    base: str | None = None
    base_in_channels: InChannels | None = None
    #: Roles of the pictures without which it cannot run, and of those that it may be given.
    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
    #: Keys of a request that the pipeline would take, but that do not work for this kind.
    refuses: frozenset[str] = frozenset()
    #: Whether its pictures are brought to the size of the result first.
    fits: bool = True
    #: The class that runs this request, where it is not the checkpoint's own: it is given the same parts.
    runs: Callable[[Request], str | None] = lambda _request: None
    #: What the pipeline is called with, besides what all are: prompt, size, steps, guidance, generator.
    arguments: Callable[[Request], dict[str, Any]] = _nothing_more
    #: (prior pipeline, request, embeddings per token, pooled embedding) -> both, with the picture in them.
    condition: Callable[[Any, Request, Any, Any], tuple[Any, Any]] | None = None
    #: What is done with the decoded picture.
    finish: Callable[[Request, Image.Image], Image.Image] = _as_it_is


def prepare(kind: Kind, request: Request) -> tuple[Request, list[str]]:
    """Return the request with its pictures as the pipeline can take them, and notices of what that changed."""
    pictures, notices = {}, []
    size = (request.width, request.height)
    for role, picture in request.pictures.items():
        # An alpha channel reaches the VAE as a fourth one, and crashes it.
        plain = picture.convert("L" if role == "mask" else "RGB")
        pictures[role] = fit(plain, size) if kind.fits else plain
        if kind.fits and plain.size != size:
            how = "cropped" if _is_rounding(plain.size, size) else "scaled and cropped"
            notices.append(f"{role} was {how} from {plain.width}x{plain.height} to {size[0]}x{size[1]}")
    return replace(request, pictures=pictures), notices


def fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the middle of `picture` that has the shape of `size`, at that size.

    Where only the rounding of sides is cut away nothing is scaled, so that every pixel stays what it was.
    """
    if picture.size == size:
        return picture
    if _is_rounding(picture.size, size):
        left, top = (picture.width - size[0]) // 2, (picture.height - size[1]) // 2
        return picture.crop((left, top, left + size[0], top + size[1]))
    return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)


def _is_rounding(found: tuple[int, int], wanted: tuple[int, int]) -> bool:
    return all(0 <= has - needs < _ROUNDING for has, needs in zip(found, wanted, strict=True))
