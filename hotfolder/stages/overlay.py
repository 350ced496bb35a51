"""overlay: a picture, such as a logo, or a text over the picture."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

from hotfolder.errors import JobError
from hotfolder.names import shown
from hotfolder.sources import FORMATS, upright
from hotfolder.stagekeys import Overlay
from hotfolder.stages import framing
from hotfolder.stages.canvas import MAX_PIXELS, colour_of
from hotfolder.stages.each import each
from hotfolder.stages.framing import Size
from hotfolder.stages.work import Call, Outcome, Stage, Work

#: Pixels of the type that is measured, before it is known how large it can be.
_MEASURED: Final = 64
#: Pixels around a text, for ink that reaches beyond what its typeface tells.
_SPARE: Final = 4
_MAX_SHOWN: Final = 200
#: No typeface has it, so it is drawn as all are that are absent.
_NO_CHARACTER: Final = "\uffff"

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _run(work: Work, call: Call) -> Outcome:
    keys: Overlay = call.keys
    call.tick("overlay", 0, 0)
    notices: list[str] = []
    logo = _logo(keys, call.assets) if keys.image is not None else None

    def change(picture: Image.Image) -> Image.Image:
        room = _room(picture.size, keys)
        layer = _scaled(logo, keys, room, notices) if logo else _written(keys, call.assets, room, notices)
        return _laid_over(picture, layer, _place(layer.size, picture.size, keys), notices)

    pictures = each(work, call, "overlay", change)
    return Outcome(work=replace(work, pictures=pictures), notices=tuple(dict.fromkeys(notices)))


def _room(size: Size, keys: Overlay) -> Size:
    """Return how large the overlay may be: with an anchor the margins stay free, unless they would leave nothing."""
    margin = keys.margin if keys.position is None else 0
    width, height = (side - 2 * margin if side > 2 * margin else side for side in size)
    return width, height


def _logo(keys: Overlay, assets: Mapping[str, Path]) -> Image.Image:
    """Return the picture to lay over, RGBA, upright.

    Raises:
        JobError: `bad-picture`.
    """
    name = shown(keys.image or "")
    try:
        with Image.open(assets["image"], formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise JobError("bad-picture", f"image = {name!r} is too large: {image.width}x{image.height} pixels")
            image.load()
            if image.has_transparency_data:
                return ImageOps.exif_transpose(image).convert("RGBA")
            return upright(image).convert("RGBA")
    except JobError:
        raise
    except Exception as error:
        # A disk that fails has a number; a broken picture raises anything.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        what = shown(str(error))[:_MAX_SHOWN] or type(error).__name__
        accepted = f"accepted are {', '.join(FORMATS)}"
        raise JobError("bad-picture", f"image = {name!r} cannot be read: {what}", accepted) from error


def _scaled(logo: Image.Image, keys: Overlay, room: Size, notices: list[str]) -> Image.Image:
    """Return the picture in the size that is asked for, or that there is room for."""
    shrink = _shrink((logo.width * keys.scale, logo.height * keys.scale), room, notices)
    width, height = (max(1, round(side * keys.scale * shrink)) for side in logo.size)
    layer = logo.resize((width, height), Image.Resampling.LANCZOS)
    return _fainter(layer, keys.opacity)


def _written(keys: Overlay, assets: Mapping[str, Path], room: Size, notices: list[str]) -> Image.Image:
    """Return the text as a picture, RGBA, just as large as its ink.

    Raises:
        JobError: `bad-value`: the font is broken.
    """
    try:
        shape = _shape_of_text(keys, assets, room, notices)
    except OSError as error:
        # FreeType's errors have no number, those of a disk that fails have one.
        if keys.font is None or error.errno is not None:
            raise
        found = f"font = {shown(keys.font)!r} cannot be read: {shown(str(error))[:_MAX_SHOWN]}"
        raise JobError("bad-value", found, "a TTF or OTF file is accepted; without font, one is built in") from error
    *rgb, alpha = colour_of(keys.color)
    layer = Image.new("RGBA", shape.size, tuple(rgb))
    layer.putalpha(shape)
    return _fainter(layer, keys.opacity * alpha / 255)


def _shape_of_text(keys: Overlay, assets: Mapping[str, Path], room: Size, notices: list[str]) -> Image.Image:
    """Return the ink: L, white where the text is.

    It is measured small, and written in the size in which it fits: a long text in large type would fill any memory.
    """
    text = "\n".join(line.expandtabs(4) for line in (keys.text or "").splitlines()).rstrip()
    measured = _font(keys, assets, _MEASURED)
    if absent := _absent(text, measured):
        which = "its font" if keys.font else "the built-in font"
        notices.append(f"{which} has no {shown(' '.join(absent))}: name another with font")
    left, top, right, bottom = _ink(text, measured)
    if right <= left or bottom <= top:
        notices.append("the text has nothing that could be seen")
        return Image.new("L", (1, 1))
    wanted = keys.size * keys.scale
    size = wanted * _shrink(((right - left) * wanted / _MEASURED, (bottom - top) * wanted / _MEASURED), room, notices)
    font = _font(keys, assets, max(1.0, size))
    left, top, right, bottom = _ink(text, font)
    shape = Image.new("L", (right - left + 2 * _SPARE, bottom - top + 2 * _SPARE))
    ImageDraw.Draw(shape).multiline_text((_SPARE - left, _SPARE - top), text, fill=255, font=font, align=_align(keys))
    shape = shape.crop(shape.getbbox() or (0, 0, 1, 1))
    # Type grows in whole steps: what is a little too large after all is brought to size.
    shape.thumbnail(room, Image.Resampling.LANCZOS)
    return shape


def _align(keys: Overlay) -> str:
    """Lines keep to the side to which the whole keeps."""
    if keys.position is not None or "left" in keys.anchor:
        return "left"
    return "right" if "right" in keys.anchor else "center"


def _ink(text: str, font: _Font) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a text, from where it is written; its ink may reach a pixel beyond."""
    box = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font=font)
    left, top, right, bottom = box
    return int(left // 1), int(top // 1), int(-(-right // 1)), int(-(-bottom // 1))


def _absent(text: str, font: _Font) -> list[str]:
    """Return the characters that are drawn as a box, since the typeface lacks them."""
    box = bytes(font.getmask(_NO_CHARACTER))
    return sorted(letter for letter in set(text) if not letter.isspace() and bytes(font.getmask(letter)) == box)


def _font(keys: Overlay, assets: Mapping[str, Path], size: float) -> _Font:
    """Return the typeface in a size, in pixels."""
    return ImageFont.load_default(size) if keys.font is None else ImageFont.truetype(assets["font"], size)


def _shrink(size: tuple[float, float], room: Size, notices: list[str]) -> float:
    """Return how many times as large it must be to fit: 1, or less with a notice."""
    shrink = min(1.0, room[0] / size[0], room[1] / size[1])
    if shrink < 1:
        notices.append("the overlay is larger than the room in the picture, and was scaled down")
    return shrink


def _fainter(layer: Image.Image, opacity: float) -> Image.Image:
    layer.putalpha(layer.getchannel("A").point([round(value * opacity) for value in range(256)]))
    return layer


def _place(layer: Size, picture: Size, keys: Overlay) -> tuple[int, int]:
    """Return left and top; what fits into the picture, but not with its margins, is kept inside."""
    if keys.position is not None:
        left, top = (at if at >= 0 else side + at for at, side in zip(keys.position, picture, strict=True))
        return left, top
    left, top = framing.corner(layer, picture, keys.anchor, keys.margin)
    return max(0, min(left, picture[0] - layer[0])), max(0, min(top, picture[1] - layer[1]))


def _laid_over(picture: Image.Image, layer: Image.Image, at: tuple[int, int], notices: list[str]) -> Image.Image:
    """Return the two together; what reaches beyond the picture is cut off."""
    left, top = max(0, at[0]), max(0, at[1])
    right, bottom = min(picture.width, at[0] + layer.width), min(picture.height, at[1] + layer.height)
    if (right - left, bottom - top) != layer.size:
        notices.append("part of the overlay lies beyond the edge of the picture")
    made = picture.copy()
    if right <= left or bottom <= top:
        return made
    visible = layer.crop((left - at[0], top - at[1], right - at[0], bottom - at[1]))
    if made.mode == "RGBA":
        made.alpha_composite(visible, (left, top))
    else:
        made.paste(visible.convert("RGB"), (left, top), visible.getchannel("A"))
    return made


STAGE: Final = Stage(version=1, run=_run)
