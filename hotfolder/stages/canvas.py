"""What lies under and around a picture: the colours a job names, grounds and transparency; and how large it may be."""

from collections.abc import Callable
from typing import Final

from PIL import Image, ImageColor

from hotfolder.errors import JobError

#: The most that a stage makes, in pixels: a square of the longest side that a job may ask for, 1 GiB of memory.
MAX_PIXELS: Final = 16_384**2
_OPAQUE: Final = 255


def colour_of(text: str) -> tuple[int, int, int, int]:
    """Return red, green, blue and alpha of a `stagekeys.Colour`, such as "#ff8800", "#ff880080" or "white"."""
    if text == "transparent":
        return 0, 0, 0, 0
    red, green, blue, *alpha = ImageColor.getrgb(text)
    return red, green, blue, alpha[0] if alpha else _OPAQUE


def ground(size: tuple[int, int], colour: str, under: Image.Image) -> Image.Image:
    """Return a plain picture to put another one on: with alpha, where that one or the colour has any."""
    *rgb, alpha = colour_of(colour)
    if alpha == _OPAQUE and under.mode != "RGBA":
        return Image.new("RGB", size, tuple(rgb))
    return Image.new("RGBA", size, (*rgb, alpha))


def opaque(picture: Image.Image) -> Image.Image:
    """Return it as RGB, transparency over white: what models and measurements are given."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def beside_alpha(picture: Image.Image, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Change red, green and blue of a picture, and leave its alpha, if it has any, as it is."""
    if picture.mode != "RGBA":
        return change(picture)
    changed = change(picture.convert("RGB"))
    changed.putalpha(picture.getchannel("A"))
    return changed


def check_size(size: tuple[int, int], key: str) -> None:
    """Check that a picture is not too large to be made.

    Raises:
        JobError: `bad-value`, naming `key`.
    """
    width, height = size
    if width * height > MAX_PIXELS:
        raise JobError(
            "bad-value",
            f"{key} would make a picture of {width}x{height} pixels; at most {MAX_PIXELS / 1e6:.0f} million are made",
            "ask for less, or start from a smaller picture",
        )
