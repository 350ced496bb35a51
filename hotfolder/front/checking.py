"""`check`: everything that is wrong with job files, each problem at its line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from hotfolder import jobfile, lanes, tomltext
from hotfolder import workspace as workspaces
from hotfolder.errors import HotfolderError, JobError, Problem, Rejected, SettingsError
from hotfolder.front import draft
from hotfolder.front.answer import Answer, ExitCode, problem_table
from hotfolder.names import shown
from hotfolder.plan import Wish
from hotfolder.settings import Settings
from hotfolder.tomltext import Document

_STATUS_FILE: Final = Problem(
    code="bad-value",
    message="this is a status file: it tells where a job or the daemon is, and makes nothing",
    hint="check the job.toml or plan.toml of the job instead",
)


def check(given: Path | None, files: Sequence[Path]) -> Answer:
    """Check files as the daemon of the workspace would; outside of any with the shipped presets."""
    settings = _settings(given)
    lines, rows = [], []
    for file in files:
        what, problems = _check(settings, file)
        lines += [_line(file, problem) for problem in problems] or [
            f"{shown(str(file))}: {click.style('ok', fg='green')}, {what}"
        ]
        rows.append(_row(file, problems))
    wrong = [row for row in rows if not row["ok"]]
    if not wrong:
        return Answer(data={"files": rows}, text="\n".join(lines))
    what = "it" if len(files) == 1 else f"{len(wrong)} of {len(files)} files"
    codes = [row["problems"][0]["code"] for row in wrong]
    none_there = set(codes) == {"not-found"}
    return Answer(
        data={"files": rows},
        text="\n".join(lines),
        error=JobError(codes[0], f"{what} cannot be read" if none_there else f"{what} would be rejected"),
        exit_code=ExitCode.NOT_FOUND if none_there else ExitCode.USAGE,
    )


def _settings(given: Path | None) -> Settings:
    try:
        return Settings.read(workspaces.find(given).root)
    except SettingsError as error:
        if given is not None or error.code != "no-workspace":
            raise
        return Settings.read(Path.cwd())


def _check(settings: Settings, file: Path) -> tuple[str, tuple[Problem, ...]]:
    try:
        document = tomltext.parse(file.read_bytes())
        if file.name == lanes.FILE_NAME:
            jobfile.read_lane(document, file.name)
            return "defaults of a lane", ()
        if {"schema", "state"} <= document.table.keys():
            return "", (_STATUS_FILE,)
        what = draft.check(settings, document, draft.lane_of(settings, file))
        return what, tuple(_forbidden(settings, document))
    except Rejected as error:
        return "", error.problems
    except OSError as error:
        return "", (Problem(code="not-found", message=f"cannot be read: {error.strerror}"),)


def _forbidden(settings: Settings, document: Document) -> Iterator[Problem]:
    """Find the pictures that a job file may not name."""
    named = [(role, name) for role in jobfile.PICTURE_KEYS if isinstance(name := document.table.get(role), str)]
    if not named or document.is_own:
        return
    # Imported only where there is something to look at: with it come numpy and Pillow.
    from hotfolder import sources

    for role, name in named:
        try:
            sources.check_name(settings, Wish(role=role, name=name))
        except HotfolderError as error:
            yield Problem(code=error.code, message=error.message, hint=error.hint, line=document.line_of([role]))


def _line(file: Path, problem: Problem) -> str:
    at = f"{shown(str(file))}:{problem.line}" if problem.line else shown(str(file))
    return f"{at}: {problem.message}" + (f" ({problem.hint})" if problem.hint else "")


def _row(file: Path, problems: Sequence[Problem]) -> dict[str, Any]:
    return {"file": file, "ok": not problems, "problems": [problem_table(problem) for problem in problems]}
