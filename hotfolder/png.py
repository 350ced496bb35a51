"""What Pillow passes over in a PNG: the checksums of its pixels, and rows that never come."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from hotfolder import names

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
#: Length and kind of a chunk.
_CHUNK: Final = struct.Struct(">I4s")
#: Width, height, bits of a sample, colour type, compression, filter, whether it is interlaced.
_HEADER: Final = struct.Struct(">IIBBBBB")
#: Colour type -> samples of a pixel: grey, RGB, palette, grey and alpha, RGB and alpha.
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: Of each pass: first column and row, and the steps between them. Source: the PNG specification, "Interlace methods".
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_WHOLE: Final = ((0, 0, 1, 1),)
_BLOCK: Final = 1 << 20
#: Bytes that deflate makes of one, at most. Source: zlib.net, "zlib Technical Details".
_MOST: Final = 1032


def find_fault(path: Path) -> str | None:
    """Say what is wrong with a PNG that Pillow has decoded; None where nothing is, or where it is another format."""
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return None
        pixels = _Pixels()
        for kind, length in _chunks(file):
            found = zlib.crc32(kind)
            for block in _blocks(file, length):
                found = zlib.crc32(block, found)
                pixels.take(kind, block)
            # A chunk that does not matter to the pixels begins with a small letter.
            if file.read(4) != struct.pack(">I", found) and kind[:1].isupper():
                return f"the checksum of {names.shown(kind.decode('latin-1'))} is wrong"
    return pixels.fault


def can_hold(path: Path) -> bool:
    """Whether a PNG is large enough for the pixels that its header tells of: else nobody should make room for them."""
    with path.open("rb") as file:
        head = file.read(len(_SIGNATURE) + _CHUNK.size + _HEADER.size)
        size = file.seek(0, 2)
    header = head[len(_SIGNATURE) + _CHUNK.size :]
    return len(header) == _HEADER.size and _bytes_of(header) <= _MOST * size


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The kind and the length of each chunk, as far as IEND; whoever asks for the next one has read this one."""
    kind = b""
    while kind != b"IEND" and len(head := file.read(_CHUNK.size)) == _CHUNK.size:
        length, kind = _CHUNK.unpack(head)
        yield kind, length


def _blocks(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length and (block := file.read(min(length, _BLOCK))):
        length -= len(block)
        yield block


class _Pixels:
    """Counts the pixels that are there, in bytes, without keeping them: Pillow leaves black what does not come."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj()
        self._wanted = self._lacking = 0
        self._error = ""

    def take(self, kind: bytes, block: bytes) -> None:
        """Take a piece of a chunk. The frames of a moving picture after the first are in chunks of their own, fdAT."""
        if kind == b"IHDR" and len(block) >= _HEADER.size:
            self._wanted = self._lacking = _bytes_of(block)
        elif kind == b"IDAT" and not self._error:
            try:
                self._inflate(block)
            except zlib.error as error:
                self._error = str(error)

    def _inflate(self, block: bytes) -> None:
        # No more than there should be: a few kB can become as many GB.
        while self._lacking and not self._inflater.eof:
            asked = min(self._lacking, _BLOCK)
            piece = self._inflater.decompress(block, asked)
            self._lacking -= len(piece)
            if len(piece) < asked:
                return
            block = self._inflater.unconsumed_tail

    @property
    def fault(self) -> str | None:
        """What is wrong with them, once all are taken."""
        if self._error:
            return f"its pixels are broken: {self._error}"
        if self._lacking:
            return f"only {self._wanted - self._lacking} of {self._wanted} bytes of its pixels are there"
        return None


def _bytes_of(header: bytes) -> int:
    """Return how many bytes the pixels are, with the one before each row that names its filter."""
    width, height, bits, colour, _, _, interlaced = _HEADER.unpack_from(header)
    bits *= _SAMPLES.get(colour, 0)
    total = 0
    for left, top, across, down in _ADAM7 if interlaced else _WHOLE:
        columns, rows = len(range(left, width, across)), len(range(top, height, down))
        if columns:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total
