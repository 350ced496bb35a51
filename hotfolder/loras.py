"""Which small changes of a model (LoRA) a job switches on, as text: "night, sketch:0.5"."""

import difflib
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated, Final

from pydantic import AfterValidator, Field

#: Of a LoRA, in the table of its preset and in a job.
NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}"
#: At once, in one picture.
MOST: Final = 16
#: The largest weight, in either direction.
_STRONGEST: Final = 10.0
_ONE: Final = re.compile(rf"({NAME})(?::(-?\d{{1,3}}(?:\.\d{{1,6}})?))?")


def parse(text: str) -> dict[str, float]:
    """Return name -> weight, in the order in which they stand; "" is none, and so is one whose weight is 0.

    Raises:
        ValueError: it is none of these forms.
    """
    found: dict[str, float] = {}
    for part in (part.strip() for part in text.split(",")) if text.strip() else ():
        match = _ONE.fullmatch(part)
        if match is None:
            raise ValueError('names with commas between them are accepted, each with a weight: "night, sketch:0.5"')
        name, weight = match[1], float(match[2] or 1)
        if abs(weight) > _STRONGEST:
            raise ValueError(f"a weight is from -{_STRONGEST:g} to {_STRONGEST:g}")
        if name in found:
            raise ValueError(f"{name} stands twice")
        found[name] = weight
    if len(found) > MOST:
        raise ValueError(f"at most {MOST} are accepted")
    return {name: weight for name, weight in found.items() if weight}


def _checked(text: str) -> str:
    parse(text)
    return text


#: As a key of a job or a stage. It is one text, so that an axis of a batch can hold it.
Loras = Annotated[str, Field(max_length=1000), AfterValidator(_checked)]


def named(texts: Iterable[object]) -> set[str]:
    """Return all names in these texts; what is no such text names nothing, and is told elsewhere."""
    found: set[str] = set()
    for text in texts:
        with suppress(ValueError):
            found |= parse(text).keys() if isinstance(text, str) else set()
    return found


def none_of(name: str, preset: str, known: Iterable[str]) -> tuple[str, str]:
    """Return message and hint for a preset that has no LoRA of a name."""
    near = difflib.get_close_matches(name, known := sorted(known), n=1)
    did = f"did you mean {near[0]!r}? " if near else ""
    has = f"it has {', '.join(known)}" if known else "it has none: a table [loras.NAME] of the preset tells of one"
    return f"loras: preset {preset!r} has no LoRA {name!r}", f"{did}{has}"
