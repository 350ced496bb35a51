"""A job's log.jsonl, shown line by line, also while it is written."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from hotfolder.clock import Moment
from hotfolder.front.show import when
from hotfolder.names import shown

_LOOK_EVERY_S: Final = 0.2
_COLOURS: Final = {"warning": "yellow", "error": "red", "critical": "red"}


def lines(file: Path, more: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Return the lines of a log; a last one that is not whole yet is left for later.

    Args:
        more: whether lines may still come; asked at the end of what there is.
    """
    rest = b""
    position = 0
    while True:
        goes_on = more()
        try:
            with file.open("rb") as opened:
                opened.seek(position)
                rest += opened.read()
                position = opened.tell()
        except FileNotFoundError:
            pass
        *whole, rest = rest.split(b"\n")
        for line in whole:
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                yield found
        if not goes_on:
            return
        time.sleep(_LOOK_EVERY_S)


def line(facts: Mapping[str, Any]) -> str:
    """Show one line of a log: time, what happened, and the facts to it."""
    rest = dict(facts)
    level = str(rest.pop("level", "info"))
    moment = str(rest.pop("timestamp", ""))
    event = shown(str(rest.pop("event", "")))
    rest.pop("job", None)
    trace = str(rest.pop("exception", ""))
    try:
        moment = when(Moment.parse(moment))
    except ValueError:
        moment = shown(moment)
    told = "  ".join(f"{shown(key)}={_value(value)}" for key, value in rest.items() if value not in (None, ""))
    word = click.style(event, fg=_COLOURS.get(level), bold=level in _COLOURS)
    text = f"{click.style(moment, dim=True)}  {word}  {told}".rstrip()
    return text + ("\n" + "\n".join(f"    {shown(row)}" for row in trace.splitlines()) if trace else "")


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return shown(text) if " " not in text else f'"{shown(text)}"'
