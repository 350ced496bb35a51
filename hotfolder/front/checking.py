"""`check`: everything that is wrong with job files, each problem at its line; and how much a right one is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from hotfolder import lanes, models, tomltext
from hotfolder import workspace as workspaces
from hotfolder.errors import HotfolderError, JobError, Problem, Rejected, SettingsError
from hotfolder.front import estimate, show, verdict
from hotfolder.front.answer import Answer, ExitCode, problem_table
from hotfolder.front.estimate import Estimate
from hotfolder.front.verdict import Checked
from hotfolder.names import shown
from hotfolder.planning import Wish
from hotfolder.settings import Settings
from hotfolder.tomltext import Document

#: Pictures that are named as absent.
_MAX_ABSENT: Final = 10
_STATUS_FILE: Final = Problem(
    code="bad-value",
    message="this is a status file: it tells where a job or the daemon is, and makes nothing",
    hint="check the job.toml or plan.toml of the job instead",
)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What was found out about one file."""

    what: str = ""
    problems: tuple[Problem, ...] = ()
    #: What `--json` says besides.
    data: Mapping[str, Any] = field(default_factory=dict)


def check(given: Path | None, files: Sequence[Path]) -> Answer:
    """Check files as the daemon of the workspace would; outside of any with the shipped presets."""
    settings, at_home = _settings(given)
    lines, rows = ([] if at_home else ["no workspace here: checked with the shipped presets only"]), []
    for file in files:
        found = _check(settings, file)
        lines += [_line(file, problem) for problem in found.problems] or [
            f"{shown(str(file))}: {click.style('ok', fg='green')}, {found.what}"
        ]
        problems = [problem_table(problem) for problem in found.problems]
        rows.append({"file": file, "ok": not problems, "problems": problems, **found.data})
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


def _settings(given: Path | None) -> tuple[Settings, bool]:
    """Return the settings, and whether they are those of a workspace."""
    try:
        return Settings.read(workspaces.find(given).root), True
    except SettingsError as error:
        if given is not None or error.code != "no-workspace":
            raise
        return Settings.read(Path.cwd()), False


def _check(settings: Settings, file: Path) -> _Found:
    try:
        document = tomltext.parse(file.read_bytes())
        if file.name == lanes.FILE_NAME:
            lanes.read_text(document, file.name)
            return _Found(what="defaults of a lane")
        if {"schema", "state"} <= document.table.keys():
            return _Found(problems=(_STATUS_FILE,))
        checked = verdict.check(settings, document, verdict.lane_of(settings, file))
    except Rejected as error:
        return _Found(problems=error.problems)
    except OSError as error:
        return _Found(problems=(Problem(code="not-found", message=f"cannot be read: {error.strerror}"),))
    if problems := tuple(_forbidden(settings, document, checked.wishes)):
        return _Found(problems=problems)
    found = _size(settings, checked)
    absent = _absent(settings, file, checked.wishes)
    models_missing = _missing_models(settings, checked)
    what = found.what
    what += f"; waits for {', '.join(absent)}: not in the inbox yet" if absent else ""
    what += f"; not on this machine: {', '.join(models_missing)}" if models_missing else ""
    return _Found(what=what, data={**found.data, "absent": absent, "models_missing": models_missing})


def _absent(settings: Settings, file: Path, wishes: Sequence[Wish]) -> list[str]:
    """Return the pictures and assets that are neither where the daemon looks for them nor beside the file."""
    if not wishes:
        return []
    # Imported only where there is something to look for: with it comes Pillow.
    from hotfolder import sources

    lane = verdict.lane_of(settings, file)
    return [
        shown(wish.name)
        for wish in wishes
        if not wish.name.startswith("@")
        and not (file.parent / wish.name).is_file()
        and sources.find(settings, wish, lane) is None
    ][:_MAX_ABSENT]


def _missing_models(settings: Settings, checked: Checked) -> list[str]:
    """Return the models of the job that are not here, each with its preset."""
    return [
        f"{used.model.repo} ({name})"
        for name, used in checked.plan.presets.items()
        if models.state(used.model, settings) == "missing"
    ]


def _forbidden(settings: Settings, document: Document, wishes: Sequence[Wish]) -> Iterator[Problem]:
    """Find the files that a job may not name."""
    if not wishes:
        return
    # Imported only where there is something to look at: with it comes Pillow.
    from hotfolder import sources

    for wish in wishes:
        try:
            sources.check_name(settings, wish)
        except HotfolderError as error:
            path = ["stage", *wish.role.split(".")] if wish.is_asset else [wish.role]
            line = document.line_of(path) or document.line_of(["matrix", wish.role])
            yield Problem(code=error.code, message=error.message, hint=error.hint, line=line)


def _size(settings: Settings, checked: Checked) -> _Found:
    """Say how much it is: items, candidates and pictures, about how long and about how many bytes."""
    plan, waits_for = checked.plan, [shown(name) for name in checked.waits_for]
    data: dict[str, Any] = {"preset": plan.preset, "pipeline": plan.pipeline, "waits_for": waits_for}
    if waits_for:
        text = f"{checked.what}, a batch that waits for {', '.join(waits_for)}: not in the inbox yet"
        return _Found(what=text, data=data)
    size = estimate.of(plan, settings.outputs_dir)
    took = "time unknown" if size.seconds is None else f"about {show.duration(size.seconds)}"
    large = "size unknown" if size.bytes is None else f"about {show.size(size.bytes)}"
    return _Found(what=f"{checked.what}, {_counts(size)}; {took}, {large}", data=data | vars(size))


def _counts(size: Estimate) -> str:
    """Return such as `24 items, 96 candidates, 480 pictures`; what is one of each is said once."""
    items = f"{show.many(size.items, 'item')}, " if size.items > 1 else ""
    candidates = f"{show.many(size.candidates, 'candidate')}, " if items or size.candidates != size.pictures else ""
    return items + candidates + show.many(size.pictures, "picture")


def _line(file: Path, problem: Problem) -> str:
    at = f"{shown(str(file))}:{problem.line}" if problem.line else shown(str(file))
    return f"{at}: {problem.message}" + (f" ({problem.hint})" if problem.hint else "")
