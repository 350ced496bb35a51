"""Pictures that few programs write: every one is a few kB, whatever it says about itself."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from PIL import Image, ImageDraw
from png_shapes import GREY, SIGNATURE, Png, chunk
from seeds import picture

#: Of every format that is read, a picture with some detail; the options make it small.
FORMATS: Final = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
_MB: Final = 1_000_000


def _zip() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("run.sh", "echo hello")
    return data.getvalue()


def _frames(form: str, **options: object) -> bytes:
    """A moving picture whose first frame is red."""
    data = io.BytesIO()
    frames = [Image.new("RGB", (12, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save(data, form, save_all=True, append_images=frames[1:], **options)
    return data.getvalue()


def _taken() -> Iterator[tuple[str, bytes, tuple[int, int]]]:
    for form, sizes in {
        "PNG": ((1, 1), (1, 65_000), (65_000, 1)),
        "JPEG": ((1, 1), (1, 65_000), (65_000, 1)),
        "WEBP": ((1, 1), (1, 16_383)),
        "AVIF": ((1, 1), (1, 9_000)),
        "TIFF": ((1, 1), (1, 65_000)),
        "BMP": ((1, 1), (65_000, 1)),
        "GIF": ((1, 1), (1, 65_000)),
    }.items():
        for size in sizes:
            yield f"{form} {size[0]}x{size[1]}", picture(form, size=size), size
    yield "CMYK JPEG", picture("JPEG", "CMYK"), (24, 16)
    yield "CMYK JPEG, progressive", picture("JPEG", "CMYK", progressive=True), (24, 16)
    yield "grey JPEG", picture("JPEG", "L"), (24, 16)
    yield "CMYK TIFF", picture("TIFF", "CMYK"), (24, 16)
    yield "LAB TIFF", picture("TIFF", "LAB"), (24, 16)
    for form in ("GIF", "PNG", "WEBP", "AVIF", "TIFF"):
        yield f"moving {form}", _frames(form), (12, 8)
    for form in ("PNG", "JPEG", "WEBP", "TIFF"):
        for orientation in (0, 3, 6, 9, 65_535):
            exif = Image.Exif()
            exif[0x0112] = orientation
            size = (16, 24) if orientation == 6 else (24, 16)
            yield f"{form} turned by {orientation}", picture(form, exif=exif), size
    for form in ("PNG", "JPEG", "WEBP"):
        yield f"{form} with a broken EXIF part", picture(form, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" * 9), (24, 16)
        endless = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x0112, 3, 0xFFFF_FFFF, 6, 8)
        yield f"{form} with an endless EXIF part", picture(form, exif=endless), (24, 16)
        yield f"{form} with a broken profile", picture(form, icc_profile=bytes(50_000)), (24, 16)
    yield "JPEG with a comment", picture("JPEG", comment=b"x" * 60_000), (24, 16)
    png = Png(colour=GREY, depth=8).write()
    yield "PNG that is a ZIP too", png + _zip(), (32, 32)
    yield "JPEG that is a page too", picture("JPEG") + b"<script>alert(1)</script>", (24, 16)
    yield "GIF that is a script too", picture("GIF") + b"*/=1;alert(1)", (24, 16)
    yield "PNG with thousands of chunks", _png(*[(b"teSt", b"")] * 5_000), (32, 32)
    yield "PNG with thousands of texts", _png(*[(b"tEXt", b"k%d\0v" % number) for number in range(5_000)]), (32, 32)
    yield "PNG whose pixels never end", _png(raw=bytes(50 * _MB)), (32, 32)
    yield "PNG of two frames", _moving(0), (32, 32)
    yield "JPEG of 90 scans", scans(64, 64, 90), (64, 64)


def _moving(lost_rows: int) -> bytes:
    """A moving PNG of two frames; its first lacks some of its last rows."""
    frame = Png(colour=GREY, depth=8, lost_rows=lost_rows)
    told = [struct.pack(">IIIIIHHBB", number, 32, 32, 0, 0, 1, 10, 0, 0) for number in (0, 1)]
    second = struct.pack(">I", 2) + zlib.compress(bytes(33 * 32))
    before = ((b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", told[0]))
    return replace(frame, before=before, after=((b"fcTL", told[1]), (b"fdAT", second))).write()


def _refused() -> Iterator[tuple[str, bytes]]:
    small = Image.new("RGB", (16, 16), "red")
    for form in ("ICO", "PPM", "TGA", "PCX", "EPS", "PDF", "SGI", "JPEG2000", "DDS", "MSP", "XBM", "QOI"):
        data = io.BytesIO()
        (small.convert("1") if form in {"MSP", "XBM"} else small).save(data, form)
        yield form, data.getvalue()
    yield "PSD", b"8BPS\0\1" + bytes(200)
    yield "HTML", b"<!doctype html><img src=x>"
    yield "SVG", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
    yield "a PNG within a page", b"<html>" + Png(colour=GREY, depth=8).write()
    yield "a program", b"\x7fELF" + bytes(200)
    yield "zeros", bytes(10_000)
    yield "PNG of two frames whose first lacks a row", _moving(1)
    bomb = zlib.compress(bytes(100 * _MB), 9)
    yield "zTXt that grows", _png((b"zTXt", b"k\0\0" + bomb))
    yield "iTXt that grows", _png((b"iTXt", b"k\0\1\0\0\0" + bomb))
    yield "iCCP that grows", _png((b"iCCP", b"k\0\0" + bomb))
    many = zlib.compress(bytes(_MB - 1), 9)
    yield "texts that grow together", _png(*[(b"zTXt", b"k%d\0\0" % number + many) for number in range(100)])
    yield "JPEG of endless scans", scans(8_000, 8_000, 5_000)
    for width, height in ((40_000, 40_000), (1, 0x7FFF_FFFF), (0x7FFF_FFFF, 0x7FFF_FFFF)):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        empty = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        yield f"PNG of {width}x{height}", SIGNATURE + chunk(b"IHDR", header) + empty
    yield "JPEG of 65500x65500", scans(65_500, 65_500, 1)
    yield "GIF of 65535x65535", b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + picture("GIF")[10:]
    yield "BMP of 2147483647x1", _with(picture("BMP"), 18, "<ii", 0x7FFF_FFFF, 1)
    yield "BMP of -1x-1", _with(picture("BMP"), 18, "<ii", -1, -1)
    yield "BMP without its pixels", picture("BMP")[:54]
    yield "TIFF of 4294967295 wide", _tiff((256, 4, 1, 0xFFFF_FFFF))
    tiles = ((322, 4, 1, 65_536), (323, 4, 1, 65_536), (324, 4, 1, 8), (325, 4, 1, 8))
    yield "TIFF with a tile of 65536x65536", _tiff(*tiles)
    yield "TIFF with endless strips", _tiff((273, 4, 0x3FFF_FFFF, 8), (279, 4, 0x3FFF_FFFF, 8))
    yield "TIFF of 65535 channels", _tiff((277, 3, 1, 65_535))
    yield "TIFF of 64 bits", _tiff((258, 3, 1, 64))
    yield "TIFF that begins nowhere", b"II*\0\xff\xff\xff\x7f"
    yield "TIFF without a tag", b"II*\0\x08\0\0\0\0\0\0\0\0\0"


def scans(width: int, height: int, count: int) -> bytes:
    """A progressive JPEG that goes over its pixels so often."""
    data = bytearray(picture("JPEG", "L", (16, 16), progressive=True))
    struct.pack_into(">HH", data, data.index(b"\xff\xc2") + 5, height, width)
    first, last = data.index(b"\xff\xda"), data.rindex(b"\xff\xda")
    there = data[first:].count(b"\xff\xda")
    return bytes(data[:-2] + data[last:-2] * (count - there) + b"\xff\xd9")


def _png(*chunks: tuple[bytes, bytes], raw: bytes = b"") -> bytes:
    """A small PNG with these chunks; or with other pixels."""
    png = Png(colour=GREY, depth=8, before=chunks).write()
    if not raw:
        return png
    header = struct.pack(">IIBBBBB", 32, 32, 8, GREY, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def _with(data: bytes, at: int, form: str, *values: int) -> bytes:
    made = bytearray(data)
    struct.pack_into(form, made, at, *values)
    return bytes(made)


def _tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """A grey TIFF of 8x8 in one strip, but for these tags: number, type, count, value."""
    plain = {256: (4, 1, 8), 257: (4, 1, 8), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    plain |= {278: (4, 1, 8), 273: (4, 1, 200), 279: (4, 1, 64)}
    if any(number == 322 for number, *_ in tags):
        plain = {number: tag for number, tag in plain.items() if number not in {273, 278, 279}}
    plain |= {number: (kind, count, value) for number, kind, count, value in tags}
    rows = b"".join(struct.pack("<HHII", number, *tag) for number, tag in sorted(plain.items()))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(plain)) + rows + bytes(4)).ljust(200, b"\0") + bytes(64)


TAKEN: Final = {name: (data, size) for name, data, size in _taken()}
REFUSED: Final = dict(_refused())


def drawn(form: str) -> bytes:
    """A picture with some detail, so that every part of the format is used."""
    image = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill="red")
    data = io.BytesIO()
    image.save(data, form)
    return data.getvalue()
