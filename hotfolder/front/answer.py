"""What a command says at its end: text for a person, or one JSON object; and the exit code that goes with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import click

from hotfolder.errors import HotfolderError, Problem, Rejected


class ExitCode(IntEnum):
    """How a command ended, for scripts."""

    DONE = 0
    #: Ours: a traceback says more.
    BUG = 1
    #: The command line, the text of a job, or the settings are wrong.
    USAGE = 2
    #: The job failed, was rejected, or finished only some of its pictures.
    NOT_COMPLETED = 3
    #: There is no such job, preset, pipeline or file.
    NOT_FOUND = 4
    #: No daemon has the workspace, and without one it cannot be done.
    NO_DAEMON = 5
    #: The job was cancelled, or Ctrl-C was pressed.
    CANCELLED = 130


_EXIT_OF: Final = {
    "not-found": ExitCode.NOT_FOUND,
    "unknown-preset": ExitCode.NOT_FOUND,
    "unknown-pipeline": ExitCode.NOT_FOUND,
    "no-daemon": ExitCode.NO_DAEMON,
    "not-completed": ExitCode.NOT_COMPLETED,
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command found or did."""

    #: For `--json`.
    data: Mapping[str, Any] = field(default_factory=dict)
    #: For a person; empty where everything was said on the way.
    text: str = ""
    #: Why it is no success; `text` and `data` then say what there is nevertheless.
    error: HotfolderError | None = None
    exit_code: ExitCode = ExitCode.DONE


def exit_code_of(error: HotfolderError) -> ExitCode:
    """Return the exit code of an error."""
    if isinstance(error, Rejected):  # its code is that of its first problem
        return ExitCode.USAGE
    return _EXIT_OF.get(error.code, ExitCode.USAGE)


def give(answer: Answer, *, as_json: bool) -> None:
    """Say how a command ended."""
    if as_json:
        found = {"ok": answer.error is None}
        click.echo(
            encode(
                found
                | ({"error": _error(answer.error)} if answer.error else {})
                | ({"data": answer.data} if answer.data or not answer.error else {})
            )
        )
        return
    if answer.text:
        click.echo(answer.text)
    if answer.error is not None:
        complain(answer.error)


def complain(error: HotfolderError) -> None:
    """Tell a person what went wrong and what to do, on stderr."""
    word = click.style("error:", fg="red", bold=True)
    if isinstance(error, Rejected):
        for problem in error.problems:
            click.echo(f"{word} {problem}", err=True)
        return
    click.echo(f"{word} {error.message}", err=True)
    _hint(error.hint)


def warn(message: str, hint: str = "") -> None:
    """Tell a person what may not be as they think, on stderr."""
    click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {message}", err=True)
    _hint(hint)


def note(message: str) -> None:
    """Tell a person on stderr what is going on."""
    click.echo(message, err=True)


def encode(data: object) -> str:
    """Return JSON on one line; times as status files write them, names that are no UTF-8 escaped."""
    import json

    return json.dumps(data, default=_plain)


def problem_table(problem: Problem) -> dict[str, Any]:
    """Return one problem of a job's text as data."""
    return {key: value for key, value in vars(problem).items() if value not in (None, "")}


def _hint(hint: str) -> None:
    if hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {hint}", err=True)


def _error(error: HotfolderError) -> dict[str, Any]:
    table: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint}
    if isinstance(error, Rejected):
        table["problems"] = [problem_table(problem) for problem in error.problems]
    return table


def _plain(value: object) -> object:
    import datetime as dt

    from hotfolder.names import shown

    match value:
        case dt.datetime() if value.tzinfo is not None:
            from hotfolder.clock import Moment

            return str(Moment.of(value))
        case dt.date() | dt.time():
            return value.isoformat()
        case Path():
            return shown(str(value))
        case set() | frozenset():
            return sorted(value)
        case _:
            raise TypeError(f"{type(value)} is no JSON")
