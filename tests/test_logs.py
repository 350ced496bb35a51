"""The log on the console."""

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from hotfolder import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def say(stream: io.StringIO) -> str:
    """Log an error of ours, and return what the console shows."""
    logs.set_up(stream)

    def fail(mug: str) -> None:
        raise ValueError(f"no {mug}")

    try:
        fail("handle")
    except ValueError as error:
        logs.logger("kiln").error("broken", exc_info=error)
    return stream.getvalue()


def test_a_terminal_shows_a_traceback_with_the_values_that_led_to_it() -> None:
    said = say(Terminal())
    assert "Traceback" in said
    assert "mug" in said
    assert "'handle'" in said


def test_what_is_no_terminal_gets_one_line_of_json() -> None:
    (line,) = say(io.StringIO()).splitlines()
    told = json.loads(line)
    assert (told["event"], told["level"]) == ("broken", "error")
    assert told["exception"].endswith("ValueError: no handle")
