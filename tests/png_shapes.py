"""PNGs of every shape that the format has, written byte by byte, each with the pixels that a viewer shows.

The shapes are those of PngSuite: colour types and bit depths, interlacing, odd sizes, filters, transparency,
background, gamma, palettes, chunks and levels of compression; and its broken files.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
#: Colour type -> the bit depths that it may have.
DEPTHS: Final[Mapping[int, tuple[int, ...]]] = {
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGBA: (8, 16),
}
_CHANNELS: Final = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
#: Of each pass of Adam7: first column and row, and the steps between them.
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

Pixel = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Png:
    """What is to be written."""

    colour: int
    depth: int
    width: int = 32
    height: int = 32
    interlaced: bool = False
    #: 0 to 4 for every row; None: another one in each.
    filter: int | None = 0
    level: int = 6
    #: Whether tRNS makes the first sample, or of a palette half of its colours, transparent.
    transparent: bool = False
    #: Chunks before the first IDAT.
    before: tuple[tuple[bytes, bytes], ...] = ()
    #: Bytes of each IDAT; None: one for all.
    idat: int | None = None
    #: Rows that never come: the last ones, of an interlaced picture those of the last passes.
    lost_rows: int = 0
    after: tuple[tuple[bytes, bytes], ...] = field(default=())

    def sample(self, x: int, y: int) -> tuple[int, ...]:
        """The values of one pixel, of `depth` bits each."""
        top = (1 << self.depth) - 1
        unit = max(1, top // 31)
        return tuple((x * unit * (1 + k) + y * unit * (3 - k % 3) + k * unit) % (top + 1) for k in range(self.channels))

    @property
    def channels(self) -> int:
        return _CHANNELS[self.colour]

    def palette(self) -> list[Pixel]:
        return [(k * 7 % 256, 255 - k * 5 % 256, k * 3 % 256) for k in range(1 << self.depth)]

    def shown(self, x: int, y: int) -> Pixel:
        """What a viewer shows on white."""
        values = self.sample(x, y)
        if self.colour == PALETTE:
            colour = self.palette()[values[0]]
            return (255, 255, 255) if self.transparent and values[0] % 2 else colour
        if self.transparent and values == self.sample(0, 0):
            return (255, 255, 255)
        top = (1 << self.depth) - 1
        eight = [round(value * 255 / top) for value in values]
        alpha = eight.pop() if self.colour in {GREY_ALPHA, RGBA} else 255
        red, green, blue = eight if len(eight) > 1 else eight * 3
        return _over(red, alpha), _over(green, alpha), _over(blue, alpha)

    def write(self) -> bytes:
        """Return the file."""
        header = struct.pack(
            ">IIBBBBB", self.width, self.height, self.depth, self.colour, 0, 0, 1 if self.interlaced else 0
        )
        rows = list(self._rows())
        data = zlib.compress(b"".join(rows[: len(rows) - self.lost_rows]), self.level)
        size = self.idat or len(data)
        parts = [(b"IHDR", header)]
        if self.colour == PALETTE:
            parts.append((b"PLTE", bytes(value for colour in self.palette() for value in colour)))
        if self.transparent:
            parts.append((b"tRNS", self._transparency()))
        parts += self.before
        parts += [(b"IDAT", data[at : at + size]) for at in range(0, len(data), size)]
        parts += [*self.after, (b"IEND", b"")]
        return SIGNATURE + b"".join(chunk(kind, content) for kind, content in parts)

    def _transparency(self) -> bytes:
        if self.colour == PALETTE:
            return bytes(0 if k % 2 else 255 for k in range(1 << self.depth))
        return b"".join(struct.pack(">H", value) for value in self.sample(0, 0))

    def _rows(self) -> Iterator[bytes]:
        for left, top, across, down in _ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            columns, before = range(left, self.width, across), b""
            for number, y in enumerate(range(top, self.height, down)):
                if columns:
                    row = self._packed([value for x in columns for value in self.sample(x, y)])
                    kind = number % 5 if self.filter is None else self.filter
                    yield bytes([kind]) + self._filtered(kind, row, before or bytes(len(row)))
                    before = row

    def _packed(self, values: list[int]) -> bytes:
        if self.depth == 16:
            return struct.pack(f">{len(values)}H", *values)
        each = 8 // self.depth
        values = [*values, *[0] * (-len(values) % each)]
        packed = bytearray()
        for at in range(0, len(values), each):
            byte = 0
            for value in values[at : at + each]:
                byte = byte << self.depth | value
            packed.append(byte)
        return bytes(packed)

    def _filtered(self, kind: int, row: bytes, above: bytes) -> bytes:
        step = max(1, self.channels * self.depth // 8)
        left = bytes(step) + row
        corner = bytes(step) + above
        guesses: list[Callable[[int], int]] = [
            lambda _: 0,
            lambda k: left[k],
            lambda k: above[k],
            lambda k: (left[k] + above[k]) // 2,
            lambda k: _paeth(left[k], above[k], corner[k]),
        ]
        guess = guesses[kind]
        return bytes((value - guess(k)) % 256 for k, value in enumerate(row))


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((left, above, corner), key=lambda value: abs(guess - value))


def _over(value: int, alpha: int) -> int:
    return round((value * alpha + 255 * (255 - alpha)) / 255)


def _shapes() -> Iterator[tuple[str, Png]]:
    plain = [Png(colour=colour, depth=depth) for colour, depths in DEPTHS.items() for depth in depths]
    for png in plain:
        name = f"{png.colour}-{png.depth}"
        yield name, png
        yield f"{name} interlaced", replace(png, interlaced=True)
        yield f"{name} filtered", replace(png, filter=None)
        if png.colour in {GREY, RGB, PALETTE}:
            yield f"{name} transparent", replace(png, transparent=True)
        background = b"\0" if png.colour == PALETTE else struct.pack(">H", 1) * (3 if png.colour in {RGB, RGBA} else 1)
        yield f"{name} background", replace(png, before=((b"bKGD", background),))
    paletted = Png(colour=PALETTE, depth=8)
    for size in (*range(1, 10), *range(32, 41)):
        for interlaced in (False, True):
            yield f"{size}x{size} {interlaced}", replace(paletted, width=size, height=size, interlaced=interlaced)
    rgb = Png(colour=RGB, depth=8)
    for kind in range(5):
        yield f"filter {kind}", replace(rgb, filter=kind)
        yield f"grey filter {kind}", replace(rgb, colour=GREY, filter=kind)
    for level in (0, 3, 6, 9):
        yield f"level {level}", replace(rgb, level=level)
    for gamma in (35_000, 45_000, 55_000, 70_000, 100_000, 250_000):
        yield f"gamma {gamma}", replace(rgb, before=((b"gAMA", struct.pack(">I", gamma)),))
    for size in (1, 2, 7, 100):
        yield f"IDAT of {size}", replace(rgb, idat=size)
    said = {
        "cHRM": struct.pack(">8I", 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000),
        "sBIT": b"\5\5\5",
        "pHYs": struct.pack(">IIB", 1, 4, 0),
        "tIME": b"\x07\xd0\1\1\x0c\x22\x38",
        "sRGB": b"\0",
        "hIST": bytes(512),
        "sPLT": b"six\0\x08" + bytes(range(6)),
        "tEXt": b"Title\0PngSuite",
        "zTXt": b"Title\0\0" + zlib.compress(b"PngSuite" * 99),
        "iTXt": b"Title\0\0\0en\0Title\0" + "\u00fc".encode(),
        "eXIf": b"MM\0*\0\0\0\x08\0\0\0\0\0\0",
        "teSt": b"of nobody's",
    }
    for name, data in said.items():
        yield name, replace(rgb, before=((name.encode(), data),))
        yield f"{name} at the end", replace(rgb, after=((name.encode(), data),))


SHAPES: Final = dict(_shapes())


def _broken() -> Iterator[tuple[str, bytes]]:
    good = Png(colour=GREY, depth=8).write()
    header = good[16:29]
    yield "signature, first byte", b"\x89\x50\x4e\x47\x0d\x0a\x1a\x0a".replace(b"\x89", b"\x09") + good[8:]
    yield "signature, PNG in small letters", b"\x89png\r\n\x1a\n" + good[8:]
    yield "signature, CR added", good.replace(b"\n", b"\r\n")
    yield "signature, LF alone", good.replace(b"\r\n", b"\n")
    yield "seven bits", bytes(byte & 0x7F for byte in good)
    yield "IHDR checksum", good[:29] + bytes([good[29] ^ 1]) + good[30:]
    yield "no IDAT", good[:33] + chunk(b"IEND", b"")
    yield "no IHDR", good[:8] + good[33:]
    for colour in (1, 5, 7, 9):
        yield f"colour type {colour}", _with_header(good, header[:9] + bytes([colour]) + header[10:])
    for depth in (0, 3, 99):
        yield f"bit depth {depth}", _with_header(good, header[:8] + bytes([depth]) + header[9:])
    for colour, depth in ((RGB, 4), (PALETTE, 16), (RGBA, 2)):
        wrong = header[:8] + bytes([depth, colour]) + header[10:]
        yield f"colour type {colour} of {depth} bits", _with_header(good, wrong)
    yield "width 0", _with_header(good, bytes(4) + header[4:])
    yield "interlace 2", _with_header(good, header[:12] + b"\2")
    yield "IHDR too short", good[:8] + chunk(b"IHDR", header[:9]) + good[33:]
    yield "zlib header", _with_idat(b"\0" + zlib.compress(bytes(33 * 32))[1:])
    yield "zlib checksum", _with_idat(zlib.compress(bytes(33 * 32))[:-1] + b"\xff")
    yield "filter 5", _with_idat(zlib.compress(b"\5" + bytes(33 * 32 - 1)))
    yield "IDAT checksum", good[:-16] + bytes([good[-16] ^ 1]) + good[-15:]
    yield "cut", good[: len(good) // 2]


def _with_header(good: bytes, header: bytes) -> bytes:
    return good[:8] + chunk(b"IHDR", header) + good[33:]


def _with_idat(data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", 32, 32, 8, GREY, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


BROKEN: Final = dict(_broken())
