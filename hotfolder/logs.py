"""structlog: to the console, pretty on a terminal and JSON otherwise, and each job's events to its log.jsonl."""

import json
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

from hotfolder.errors import HotfolderError


@contextmanager
def _as_if_absent(module: str) -> Iterator[None]:
    """Within this an import of a module fails, as where it is not installed; one that is loaded already stays."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # what Python has for that, though typeshed does not
    try:
        yield
    finally:
        del sys.modules[module]


# It loads rich if it can, for tracebacks that only a terminal shows: 5 MB of a daemon that waits. See `_traceback`.
with _as_if_absent("rich"):
    import structlog
    from structlog.typing import EventDict, ExcInfo, WrappedLogger

Log = structlog.stdlib.BoundLogger

FILE_NAME: Final = "log.jsonl"


def logger(name: str) -> Log:
    """Return the log of a module."""
    return structlog.get_logger(name)  # type: ignore[no-any-return]  # structlog's proxy


def set_up(stream: TextIO | None = None) -> None:
    """Set up logging for a process that runs jobs; `stream` is standard error by default."""
    stream = stream or sys.stderr
    console = _Console(stream)
    pretty = stream.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=_traceback)
        if pretty
        else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _to_job,
    ]
    if not pretty:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        logger_factory=lambda *_: console,
        cache_logger_on_first_use=False,
    )


def bug(error: BaseException) -> BaseException | None:
    """Return an error whose traceback is to be logged: a bug of ours; None for what an author, or a disk, did."""
    return None if isinstance(error, (HotfolderError, OSError, sqlite3.OperationalError)) else error


class _Console:
    """Writes lines to the console; one that is full, closed or gone is no reason to stop."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def msg(self, message: str) -> None:
        with self._lock, suppress(OSError, ValueError):
            self._stream.write(f"{message}\n")
            self._stream.flush()

    log = debug = info = warning = warn = error = critical = fatal = exception = msg


def _traceback(stream: TextIO, error: ExcInfo) -> None:
    """Write a traceback as structlog does where it finds rich."""
    from rich.console import Console
    from rich.traceback import Traceback

    stream.write("\n")
    shown = Traceback.from_exception(*error, width=None, word_wrap=True, show_locals=True)
    Console(file=stream, color_system="truecolor").print(shown)


def _to_job(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Write an event that belongs to a job into the job's folder; what cannot be written there is still shown."""
    folder = event.pop("folder", "")
    if folder:
        line = dict(event)
        if line.get("exc_info"):
            line = dict(structlog.processors.format_exc_info(None, "", line))
        try:
            _append(f"{folder}/{FILE_NAME}", json.dumps(line, ensure_ascii=False, default=str) + "\n")
        except OSError:
            event["log_file"] = "not written"
    return event


def _append(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        os.write(descriptor, text.encode("utf-8", "backslashreplace"))
    finally:
        os.close(descriptor)
