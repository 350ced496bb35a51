"""Good texts and pictures made nearly right: what gets further into a reader than bytes that mean nothing."""

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

#: Put anywhere.
PIECES: Final = (
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b"=",
        b".",
        b",",
        b"#",
        b'"',
        b"'",
        b"\\",
        b"\n",
        b"\r",
        b"\r\n",
        b"\t",
        b"\0",
        b"\x1b[31m",
    ),
    *(b'"""', b"'''", b"[[", b"]]", b"#! ", b"\xef\xbb\xbf", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"),
    *(text.encode() for text in ("\u0085", "\u2028", "\u202e", "\u200b", "\ufeff", "e\u0301", "\u00e9", "\U0001f44d")),
    *(
        b"a.b.c",
        b"a = 1\n",
        b"[a]\n",
        b"[[stages]]\n",
        b"[stage.crop]\n",
        b"[matrix]\n",
        b'type = "plan"\n',
        b"schema = 2\n",
    ),
    *(b"[" * 20, b"{a=" * 20, b"a." * 20, b"[" * 2000, b'{"a":' * 2000, b"9" * 70, b"x" * 300, b"\\ud800", b"\\u0000"),
)
#: Put where a value stands, in TOML or in JSON.
VALUES: Final = (
    *(b"0", b"-1", b"1", b"2", b"7", b"1000", b"4294967296", b"9223372036854775807", b"9223372036854775808", b"1e308"),
    *(b"1e999", b"-0.0", b"0.5", b"1e-320", b"nan", b"-inf", b"Infinity", b"9" * 5000, b"0x7f", b"1_000", b"01", b"+1"),
    *(
        b"true",
        b"false",
        b"null",
        b"[]",
        b"{}",
        b"[[]]",
        b"[{}]",
        b"[1, 2]",
        b'["a"]',
        b"[1, 'a']",
        b"{a = 1}",
        b'{"a": 1}',
    ),
    *(b"1979-05-27T07:32:00Z", b"1979-05-27", b"07:32:00", b"0001-01-01T00:00:00Z", b"9999-12-31T23:59:59-12:00"),
    *(
        b'""',
        b'" "',
        b'"a"',
        b'"*.png"',
        b'"../../etc/passwd"',
        b'"/etc/passwd"',
        b'"@mug"',
        b'"a\\u0000b"',
        b'"\\ud800"',
    ),
    *(
        b'"\\u001b[31m"',
        b'"noise"',
        b'"noise-fill"',
        b'"1:1"',
        b'"999:1"',
        b'"0 2 * * *"',
        b'"0 0 30 2 *"',
        b'"Mars/Olympus"',
    ),
    *(
        b'"' + b"x" * 30_000 + b'"',
        b"'" + "\u00fc".encode() * 200 + b"'",
        b'"con"',
        b'"~nobody/x"',
        b'"self"',
        b'"plan"',
    ),
)
#: Put where a key stands.
KEYS: Final = (
    *(b"prompt", b"preset", b"image", b"mask", b"seed", b"count", b"steps", b"stage", b"stages", b"matrix", b"items"),
    *(
        b"type",
        b"schema",
        b"meta",
        b"schedule",
        b"self",
        b"cls",
        b"name",
        b"keys",
        b"id",
        b"__class__",
        b"a.b.c",
        b'""',
    ),
    *(b'"a b"', b'"\\u0000"', b"'\xc3\xbc'", b'"' + b"k" * 500 + b'"', b".".join([b"k"] * 17), b"1", b"-"),
)

_VALUE: Final = re.compile(rb"""(?<=[=:,\[])[ ]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s,{}\[\]"'=:]+)""")
_KEY: Final = re.compile(rb"""^[ ]*\[*(?:[\w.-]+|"[^"\n]*")|(?<=[{,])[ ]*(?:\w+|"\w*")(?=[ ]*[=:])""", re.MULTILINE)
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


def nearly_right(random: Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of the seeds with one to four things wrong with it; now and then as it is."""
    data = random.choice(seeds)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        data = random.choice(_ANY)(random, data, seeds)
    return sealed(data) if data.startswith(_SIGNATURE) and random.random() < 0.7 else data


def sealed(data: bytes) -> bytes:
    """Make the checksums of a PNG right, so that what is wrong in its chunks is met."""
    made, at = bytearray(data), len(_SIGNATURE)
    while at + 8 <= len(made):
        (length,) = struct.unpack_from(">I", made, at)
        if at + length + 12 > len(made):
            break
        struct.pack_into(">I", made, at + 8 + length, zlib.crc32(made[at + 4 : at + 8 + length]))
        at += length + 12
    return bytes(made)


def _cut(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: random.randint(0, len(data))]


def _without(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = random.randint(0, len(data))
    return data[:start] + data[start + random.randint(1, 20) :]


def _flipped(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    made = bytearray(data)
    made[random.randrange(len(made))] ^= 1 << random.randrange(8)
    return bytes(made)


def _with_piece(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = random.randint(0, len(data))
    return data[:at] + random.choice(PIECES) + data[at:]


def _with_other_value(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return _replaced(random, data, _VALUE, VALUES)


def _with_other_key(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return _replaced(random, data, _KEY, KEYS)


def _replaced(random: Random, data: bytes, what: re.Pattern[bytes], by: Sequence[bytes]) -> bytes:
    found = list(what.finditer(data))
    if not found:
        return data + random.choice(by)
    place = random.choice(found)
    return data[: place.start()] + b" " + random.choice(by) + data[place.end() :]


def _with_line_twice(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    line = random.choice(lines)
    lines.insert(random.randint(0, len(lines)), line)
    return b"\n".join(lines)


def _without_line(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    del lines[random.randrange(len(lines))]
    return b"\n".join(lines)


def _spliced(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Go on with another seed from some place on."""
    other = random.choice(seeds)
    return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]


def _repeated(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """A piece of it many times over."""
    start = random.randint(0, len(data))
    piece = data[start : start + random.randint(1, 40)]
    return data[:start] + piece * random.choice((2, 20, 200)) + data[start:]


def _with_wild_number(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Four bytes that some format takes as a length or a size."""
    if len(data) < 4:
        return data
    at = random.randint(0, len(data) - 4)
    number = random.choice((0, 1, 0x7F, 0xFF, 0xFFFF, 65_535 << 16, 0x7FFF_FFFF, 0xFFFF_FFFF))
    return data[:at] + struct.pack(random.choice((">I", "<I")), number) + data[at + 4 :]


_ANY: Final[tuple[Callable[[Random, bytes, Sequence[bytes]], bytes], ...]] = (
    _cut,
    _without,
    _flipped,
    _flipped,
    _with_piece,
    _with_piece,
    _with_other_value,
    _with_other_value,
    _with_other_value,
    _with_other_key,
    _with_line_twice,
    _without_line,
    _spliced,
    _repeated,
    _with_wild_number,
)
