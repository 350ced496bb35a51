"""A picture as a file: encoded together with what it says about itself, and that read back."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Final, Literal

from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from hotfolder.errors import JobError
from hotfolder.metadata import own_record, parameters_text, xmp_packet
from hotfolder.names import shown
from hotfolder.record import SCHEMA, Record

Format = Literal["png", "jpeg", "webp", "avif"]

#: The PNG text chunk that holds our own record, as JSON.
CHUNK: Final = "hotfolder"

_SUFFIXES: Final[dict[Format, str]] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "avif": ".avif"}

#: Pixels of the longer side that a format, or else the library that decodes it, can have.
_LONGEST_SIDE: Final[dict[Format, int]] = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383, "avif": 32_768}

#: zlib's fastest level with run lengths only: an eighth of the default's time, and on photo-like pictures smaller.
_COMPRESS_LEVEL: Final = 1
_COMPRESS_TYPE: Final = 3

#: The same on every machine: the AVIF encoder makes other bytes with another number of threads.
_AVIF_THREADS: Final = 4

#: What a segment of a JPEG can hold: 64 kB less its own length, and for XMP less the name in front.
_JPEG_EXIF: Final = 65_533
_JPEG_XMP: Final = 65_504

#: Of `max_bytes` at most this part is spent on words.
_WORDS_SHARE: Final = 8

#: https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf, 4.6.5: the first 8 bytes of a UserComment name its code.
_UNICODE: Final = b"UNICODE\0"

#: A picture smaller than this is no advice.
_SMALLEST_SIDE: Final = 16


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a picture is written."""

    format: Format = "png"
    #: 1 .. 100; PNG has none.
    quality: int = 90
    #: The most that a file may have, not its sidecar; the quality is lowered until it fits. Not for PNG.
    max_bytes: int | None = None

    @property
    def suffix(self) -> str:
        """Return the end of a file's name, with the dot."""
        return _SUFFIXES[self.format]


PNG_ENCODING: Final = Encoding()


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A picture as the bytes of a file."""

    data: bytes
    #: The one that was used; None for PNG.
    quality: int | None


@dataclass(frozen=True, kw_only=True)
class _Words:
    """What a picture other than a PNG says about itself."""

    exif: bytes
    xmp: bytes

    def __len__(self) -> int:
        return len(self.exif) + len(self.xmp)


def encode(image: Image.Image, record: Record, how: Encoding = PNG_ENCODING) -> Encoded:
    """Return a file with A1111's text, our own record and the mark that a model made it. The same makes the same bytes.

    PNG keeps every pixel, in every mode that stages hand on. The others have 8 bits a channel; WebP and AVIF keep what
    is transparent, JPEG lays it over white. A segment of a JPEG holds 64 kB, and words are to take an eighth of
    `max_bytes` at most: where they do not fit, our own record is left out first (the sidecar has it all), then the
    prompts; the mark always stays.

    Raises:
        JobError: `output-too-large`: even at quality 1 it has more than `max_bytes`, or it has more pixels a side than
            the format can have.
    """
    if how.format == "png":
        return Encoded(data=_png(image, record), quality=None)
    longest = _LONGEST_SIDE[how.format]
    if max(image.size) > longest:
        raise JobError(
            "output-too-large",
            f"{how.format} holds {longest} pixels a side; the picture has {image.width}x{image.height}",
            'make it smaller with a stage "resize" before export, or choose format = "png"',
        )
    image = _plain(image, alpha=how.format != "jpeg")
    words = _words(record, how)
    found = _best_that_fits(lambda quality: _lossy(image, words, how.format, quality), how)
    if found is None:
        raise _too_large(image, words, how)
    return found


def read_record(path: Path) -> Record | None:
    """Return what a picture that we wrote says about itself; None where it says nothing that can be understood.

    Raises:
        JobError: `bad-picture`: it is no picture of a format that is written here; `newer-schema`: a newer version of
            this program wrote it.
        OSError: it cannot be read.
    """
    # Nothing is decoded, so that its size does not matter.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(path, formats=[name.upper() for name in _SUFFIXES]) as image:
            text, packet = image.info.get(CHUNK), image.info.get("xmp")
    except Exception as error:
        # Whatever a decoder raises, where the picture is broken; but a disk that fails has a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise JobError(
            "bad-picture",
            f"{shown(path.name)} is no picture that can be read",
            f"pictures made here are {', '.join(_SUFFIXES)}",
        ) from error
    if isinstance(packet, bytes) and not text:
        text = own_record(packet.decode(errors="replace"))
    if not isinstance(text, str):
        return None
    try:
        table = json.loads(text)
        schema = table.get("schema") if isinstance(table, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            raise JobError(
                "newer-schema",
                f"{shown(path.name)} has schema {schema}; this hotfolder reads up to {SCHEMA}",
                "a newer hotfolder wrote it: use that one",
            )
        return Record.model_validate_json(text)
    except (ValueError, RecursionError):
        return None


def _best_that_fits(encode_at: Callable[[int], bytes], how: Encoding) -> Encoded | None:
    """Find by bisection the quality that is asked, or one that fits while the next higher one does not."""
    data = encode_at(how.quality)
    if how.max_bytes is None or len(data) <= how.max_bytes:
        return Encoded(data=data, quality=how.quality)
    best = None
    fits, too_high = 0, how.quality
    while too_high - fits > 1:
        middle = (fits + too_high) // 2
        data = encode_at(middle)
        if len(data) <= how.max_bytes:
            fits, best = middle, Encoded(data=data, quality=middle)
        else:
            too_high = middle
    return best


def _too_large(image: Image.Image, words: _Words, how: Encoding) -> JobError:
    """Say what would fit at the quality that was asked, tried out."""
    hint = "raise max_bytes"
    room = (how.max_bytes or 0) - len(words)
    scale = sqrt(max(room, 0) / len(_lossy(image, words, how.format, how.quality)))
    while min(image.size) * scale >= _SMALLEST_SIDE:
        size = (int(image.width * scale), int(image.height * scale))
        if len(_lossy(image.resize(size), words, how.format, how.quality)) <= (how.max_bytes or 0):
            hint = f'{size[0]}x{size[1]} would fit: add a stage "resize" before export, or raise max_bytes'
            break
        scale *= 0.8
    smallest = len(_lossy(image, words, how.format, 1))
    return JobError(
        "output-too-large",
        f"even at quality 1, {image.width}x{image.height} pixels of {how.format} are {smallest} bytes; "
        f"max_bytes is {how.max_bytes}",
        hint,
    )


def _lossy(image: Image.Image, words: _Words, form: Format, quality: int) -> bytes:
    threads: dict[str, int | bool] = {"max_threads": _AVIF_THREADS, "autotiling": False} if form == "avif" else {}
    profile = image.info.get("icc_profile")
    buffer = io.BytesIO()
    image.save(buffer, form.upper(), quality=quality, exif=words.exif, xmp=words.xmp, icc_profile=profile, **threads)
    return buffer.getvalue()


def _plain(image: Image.Image, *, alpha: bool) -> Image.Image:
    """Return a picture in 8 bits, L, RGB or RGBA; without `alpha`, transparency is laid over white.

    Nothing that it carries from elsewhere goes into the file, but for the profile that tells what its colours mean.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        import numpy as np  # large, and seldom needed

        values = np.asarray(image, dtype=np.uint32)
        image = Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        if not alpha:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    else:
        image = image.copy() if image.mode == "L" else image.convert("RGB")
    image.info = {"icc_profile": profile} if profile else {}
    return image


def _words(record: Record, how: Encoding) -> _Words:
    """Return the most words that fit, or else the fewest there are."""
    most = None if how.max_bytes is None else how.max_bytes // _WORDS_SHARE
    words = _Words(exif=b"", xmp=b"")
    for words in _from_most_to_fewest(record):
        in_segments = how.format != "jpeg" or (len(words.exif) <= _JPEG_EXIF and len(words.xmp) <= _JPEG_XMP)
        if in_segments and (most is None or len(words) <= most):
            break
    return words


def _from_most_to_fewest(record: Record) -> Iterator[_Words]:
    exif = _exif(parameters_text(record))
    own = record.model_dump_json(by_alias=True, exclude_none=True)
    yield _Words(exif=exif, xmp=xmp_packet(record, own=own).encode())
    yield _Words(exif=exif, xmp=xmp_packet(record).encode())
    yield _Words(exif=exif, xmp=xmp_packet(record, prompt=False).encode())
    yield _Words(exif=b"", xmp=xmp_packet(record, prompt=False).encode())


def _exif(text: str | None) -> bytes:
    """Return EXIF with a UserComment, as A1111 writes it; big-endian like the text in it, since readers go by that."""
    if text is None:
        return b""
    exif = Image.Exif()
    exif.endian = ">"
    exif.get_ifd(IFD.Exif)[Base.UserComment] = _UNICODE + text.encode("utf-16-be")
    return exif.tobytes()


def _png(image: Image.Image, record: Record) -> bytes:
    info = PngInfo()
    parameters = parameters_text(record)
    if parameters is not None:
        _add_text(info, "parameters", parameters)
    _add_text(info, CHUNK, record.model_dump_json(by_alias=True, exclude_none=True))
    info.add_itxt("XML:com.adobe.xmp", xmp_packet(record))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, compress_level=_COMPRESS_LEVEL, compress_type=_COMPRESS_TYPE)
    return buffer.getvalue()


def _add_text(info: PngInfo, key: str, text: str) -> None:
    """Latin-1 in a tEXt chunk is read as UTF-8 by some programs, so that chunk is kept for plain ASCII."""
    if text.isascii():
        info.add_text(key, text)
    else:
        info.add_itxt(key, text)
