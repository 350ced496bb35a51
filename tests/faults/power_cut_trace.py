r"""The calls in a trace of `strace -f -y -xx`, in which every string is written as numbers: "\x61\x62"."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

#: Also the second part of a call that was interrupted by the lines of other threads.
_LINE: Final = re.compile(r"^(?P<thread>\d+) +(?:<\.\.\. )?(?P<call>\w+)(?P<resumed> resumed>)?\(?(?P<rest>.*)$")
#: A call that the end of its process cut short has no result.
_ENDED: Final = re.compile(r"^(?P<arguments>.*)\) += (?P<result>0x[0-9a-f]+|-?\d+)")
_DESCRIPTOR: Final = re.compile(r"^(?:\d+|AT_FDCWD)<(?P<path>[^>]*)>")
_UNFINISHED: Final = " <unfinished ...>"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One system call that came to its end."""

    name: str
    #: As they are written.
    arguments: Sequence[str]
    #: Negative where it failed.
    result: int
    #: What `place` said when it began.
    began: int


def calls(lines: Iterable[str], place: Callable[[], int]) -> Iterator[Call]:
    """Yield the calls in the order in which they ended; but `close` at once, since its number may be given again.

    Args:
        place: asked when a call begins.
    """
    begun: dict[str, tuple[str, int]] = {}
    for line in lines:
        match = _LINE.match(line.rstrip("\n"))
        if match is None:
            continue
        name, rest, began = match["call"], match["rest"], place()
        if name == "close":
            if not match["resumed"]:
                yield _call(name, f"{rest.partition(')')[0].removesuffix(_UNFINISHED)}) = 0", began)
            continue
        if rest.endswith(_UNFINISHED):
            begun[match["thread"]] = (rest.removesuffix(_UNFINISHED), began)
            continue
        if match["resumed"]:
            first, began = begun.pop(match["thread"])
            rest = first + rest
        yield _call(name, rest, began)


def _call(name: str, rest: str, began: int) -> Call:
    match = _ENDED.match(rest)
    arguments, result = (match["arguments"], match["result"]) if match else ("", "-1")
    return Call(name=name, arguments=arguments.split(", "), result=int(result, 0), began=began)


def descriptor_of(argument: str) -> int:
    """Return the number of a descriptor."""
    return int(argument.partition("<")[0])


def path_of(argument: str) -> str:
    """Return the path of an open file, "" where the argument is none."""
    found = _DESCRIPTOR.match(argument)
    return _decoded(found["path"]) if found else ""


def text_of(argument: str) -> str:
    """Return a string, "" where the argument is none."""
    return _decoded(argument.strip('"')) if argument.startswith('"') else ""


def data_of(argument: str) -> bytes:
    """Return the bytes of a string.

    Raises:
        ValueError: it was cut off.
    """
    if not argument.endswith('"'):
        raise ValueError("data of a call were cut off")
    return bytes.fromhex(argument.strip('"').replace("\\x", ""))


def _decoded(text: str) -> str:
    return os.fsdecode(bytes.fromhex(text.replace("\\x", "")))
