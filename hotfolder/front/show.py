"""Text for a person: how a job, the daemon and the history are shown in a terminal."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from hotfolder.front.jobs import View
from hotfolder.names import shown

_COLOURS: Final = {
    "completed": "green",
    "running": "cyan",
    "failed": "red",
    "rejected": "red",
    "partial": "yellow",
    "cancelled": "yellow",
    "review": "magenta",
}
_STATES: Final = (
    "running",
    "queued",
    "waiting",
    "held",
    "review",
    "completed",
    "partial",
    "failed",
    "cancelled",
    "rejected",
)
_MOST_LINES: Final = 20


def facts(rows: Iterable[tuple[str, str | Sequence[str]]]) -> str:
    """Lay out labels and what there is to say to each; one without anything is left out."""
    kept = [(label, [lines] if isinstance(lines, str) else list(lines)) for label, lines in rows if lines]
    width = max((len(label) for label, _ in kept), default=0) + 2
    result = []
    for label, lines in kept:
        for index, line in enumerate(lines):
            result.append((click.style(label.ljust(width), dim=True) if index == 0 else " " * width) + line)
    return "\n".join(result)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table; the last column is as wide as it needs."""
    widths = [max(len(click.unstyle(row[index])) for row in (head, *rows)) for index in range(len(head))]
    lines = [[click.style(cell, dim=True) for cell in head], *rows]
    return "\n".join(
        "  ".join(
            cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def state(word: str) -> str:
    """Return a state in its colour."""
    return click.style(word, fg=_COLOURS.get(word))


def where(path: Path) -> str:
    """Return a path as one would type it from here."""
    here = Path.cwd()
    return shown(str(path.relative_to(here) if path.is_relative_to(here) else path))


def when(moment: dt.datetime) -> str:
    """Return a time on this machine's clock, with its zone, and with the day unless it is today."""
    local = moment.astimezone()
    today = local.date() == dt.datetime.now().astimezone().date()
    return f"{local:%H:%M:%S %Z}" if today else f"{local:%Y-%m-%d %H:%M:%S %Z}"


def duration(seconds: float) -> str:
    """Return a time span in words."""
    if seconds < 10:  # noqa: PLR2004 - below, tenths can be felt
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(count: float) -> str:
    """Return a number of bytes as one would say it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004 - as disks are sold
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"  # noqa: PLR2004
        count /= 1000
    return f"{count:.1f} TB"


def value(found: object) -> str:
    """Return a value as one would write it in a TOML file."""
    match found:
        case bool():
            return "true" if found else "false"
        case str():
            return f'"{shown(found)}"'
        case list() | tuple():
            return f"[{', '.join(value(one) for one in found)}]"
        case _:
            return str(found)


def many(count: int, word: str) -> str:
    """Return such as `1 picture` or `20,000 pictures`."""
    return f"{count:,} {word}{'s' * (count != 1)}"


def job(view: View, left: str = "") -> str:
    """Show one job.

    Args:
        left: how the daemon that ran it ended, `died` or `stopped`; "" where one is there.
    """
    table = view.table
    of_batch = f"{table['items']:,}" if table.get("items", 1) > 1 else ""
    return facts(
        [
            ("job", click.style(shown(view.name), bold=True)),
            ("state", _state_line(view, left)),
            ("title", " / ".join(shown(str(table[key])) for key in ("project", "title") if key in table)),
            ("pipeline", str(table.get("pipeline", "")) if table.get("pipeline") != "generate" else ""),
            ("preset", str(table.get("preset", ""))),
            ("items", of_batch),
            ("pictures", _made(table)),
            ("retries", f"{many(table['retries'], 'time')} something was tried again" if table.get("retries") else ""),
            ("time", ", ".join(_times(table))),
            ("folder", where(view.folder)),
            ("stages", _stage_lines(table)),
            ("to pick", _to_pick(view)),
            ("go on", _ways_to_pick(view)),
            ("files", _outputs(view)),
            ("error", _error_lines(None if table.get("problems") else table.get("error"))),
            ("failed", _failures(table)),
            ("problems", [_problem(problem) for problem in table.get("problems", ())]),
            ("notices", [shown(str(notice.get("text", ""))) for notice in table.get("notices", ())]),
        ]
    )


def ended(view: View) -> str:
    """Show how a job that was followed has ended, and its pictures."""
    took = ""
    if "started_at" in view.table and "finished_at" in view.table:
        took = f" in {duration((view.table['finished_at'] - view.table['started_at']).total_seconds())}"
    first = [f"{shown(view.name)} {state(view.state)}{took}"] if view.state == "completed" else []
    return "\n".join(first + [where(path) for path in view.pictures])


def doing(view: View) -> str:
    """Say in a few words what a job does: `generate 14/28`, or why it does not."""
    now: Mapping[str, Any] = view.table.get("progress", {})
    if view.state == "running" and now:
        if now.get("steps"):
            return f"{now['stage']} {now['step']}/{now['steps']}"
        return _stage_and_phase(now)
    if view.state == "waiting":
        return f"waiting for {', '.join(view.table.get('waiting_for', []))}"
    return view.state


def daemon(table: Mapping[str, Any], serving: str, drops: int = 0, left: str = "") -> str:
    """Show the daemon at a glance.

    Args:
        table: outputs/status.toml; empty where there is none.
        serving: whether a daemon runs, in words.
        drops: job files that lie in the inbox and wait for one.
        left: how the last one ended, `died` or `stopped`; "" where one runs.
    """
    counts: Mapping[str, int] = table.get("counts", {})
    disk: Mapping[str, float] = table.get("disk", {})
    ignored = [f"{one.get('name')}: {one.get('why')}" for one in table.get("ignored", ())]
    return facts(
        [
            ("daemon", serving),
            ("jobs", ", ".join(f"{counts[word]} {state(word)}" for word in _STATES if counts.get(word)) or "none yet"),
            ("running", _running(table, left)),
            ("in line", _cut([_in_line(one) for one in table.get("line", ())])),
            ("inbox", f"{drops} job file{'s' * (drops > 1)} to be taken: hotfolder serve" if drops else ""),
            ("disk", f"{disk['free_gb']:.0f} GB free of {disk['total_gb']:.0f}" if "free_gb" in disk else ""),
            ("wrong", [click.style(text, fg="red") for text in table.get("wrong", ())]),
            ("notices", [str(one.get("text", "")) for one in table.get("notices", ())]),
            ("ignored", _cut(ignored, table.get("ignored_count", 0))),
        ]
    )


def _running(table: Mapping[str, Any], left: str) -> list[str]:
    names: Sequence[str] = table.get("running", ())
    if left:
        return [f"{shown(name)}  running {_left_behind(left)}" for name in names]
    now: Mapping[str, Any] = table.get("progress", {})
    of = now.get("job") or (names[0] if now and len(names) == 1 else None)
    return [f"{shown(name)}  {_progress(table) if name == of else 'between pictures'}" for name in names]


def _left_behind(left: str) -> str:
    return f"when the daemon {left}; goes on at the next `hotfolder serve`"


def _state_line(view: View, left: str) -> str:
    if view.state == "running" and left:
        return f"{state(view.state)} {_left_behind(left)}"
    text = doing(view)
    now: Mapping[str, Any] = view.table.get("progress", {})
    if view.state == "running" and now:
        return f"{state(view.state)}  {_progress(view.table)}"
    if view.state == "review":
        return f"{state('review')}: waits for you to pick"
    if view.state == "held":
        return f"{state('held')} by {view.table.get('held_by', 'somebody')}"
    return state(view.state) + (f" ({text.removeprefix('waiting ')})" if view.state == "waiting" else "")


def _progress(table: Mapping[str, Any]) -> str:
    now: Mapping[str, Any] = table.get("progress", {})
    if not now:
        return ""
    at = f"{now.get('stage', '')} {now['step']}/{now['steps']}" if now.get("steps") else _stage_and_phase(now)
    left = f", {duration(float(now['seconds_left']))} left" if "seconds_left" in now else ""
    return f"{100 * float(now.get('fraction', 0)):.0f} %, {at}{left}"


def _stage_and_phase(now: Mapping[str, Any]) -> str:
    """Return such as `generate load`; a phase that is called like its stage once."""
    return " ".join(dict.fromkeys([str(now.get("stage", "")), str(now.get("phase", ""))])).strip()


def _made(table: Mapping[str, Any]) -> str:
    """Say how many pictures there are, of how many, and what became of the others."""
    if not table.get("candidates"):
        return ""
    failed = f", {table['failed']} failed" if table.get("failed") else ""
    left_out = f", {table['left_out']} not chosen" if table.get("left_out") else ""
    return f"{table.get('done', 0)} of {table['candidates']}{failed}{left_out}"


def _stage_lines(table: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            str(one.get("number", "")),
            shown(str(one.get("name", ""))),
            state(str(one.get("state", ""))),
            str(one.get("done", 0)) + (f", {one['failed']} failed" if one.get("failed") else ""),
            duration(float(one.get("seconds", 0))) if one.get("seconds") else "",
        ]
        for one in table.get("stages", ())
    ]
    return columns(("#", "stage", "state", "done", "time"), rows).splitlines() if rows else []


def _to_pick(view: View) -> list[str]:
    return _cut(
        [f"{one.get('candidate'):>3}  {_picture_of(view, one)}  seed {one.get('seed')}" for one in view.to_pick]
    )


def _picture_of(view: View, one: Mapping[str, Any]) -> str:
    return where(view.folder / str(one["file"])) if one.get("file") else "the job's own picture"


def _ways_to_pick(view: View) -> list[str]:
    """Return the command and the file by which somebody picks, with the first candidates as an example."""
    picks = [int(one.get("candidate", 0)) for one in view.to_pick[:2]]
    if not picks:
        return []
    return [
        f"hotfolder resume {shown(view.name)} --picks {','.join(map(str, picks))}",
        f"or a file jobs_inbox/{shown(view.name)}.resume with the line: picks = [{', '.join(map(str, picks))}]",
        f"to look at them: {where(view.folder / 'index.html')}",
    ]


def pick_hint(view: View) -> str:
    """Say in one line how to go on with a job in review."""
    return "; ".join(_ways_to_pick(view))


def _failures(table: Mapping[str, Any]) -> list[str]:
    """Return what else failed besides what `[error]` tells."""
    first: Mapping[str, Any] = table.get("error", {})
    others = [
        f"candidate {one.get('candidate')}{_at_stage(one)}: {shown(str(one.get('message', '')))}"
        for one in table.get("failures", ())
        if (one.get("message"), one.get("stage_index")) != (first.get("message"), first.get("stage_index"))
    ]
    return _cut(others)


def _at_stage(error: Mapping[str, Any]) -> str:
    return f" at stage {error['stage_index']} ({error.get('stage', '')})" if error.get("stage_index") else ""


def _times(table: Mapping[str, Any]) -> Iterable[str]:
    for key, word in (("queued_at", "queued"), ("started_at", "started"), ("finished_at", "finished")):
        if key in table:
            yield f"{word} {when(table[key])}"
    if "started_at" in table and "finished_at" in table:
        yield f"took {duration((table['finished_at'] - table['started_at']).total_seconds())}"
    if table.get("attempt", 1) > 1:
        yield f"attempt {table['attempt']}"


def _outputs(view: View) -> list[str]:
    picked = view.to_pick
    outputs = [one for one in view.table.get("outputs", ()) if one not in picked]
    return _cut([f"{where(view.folder / str(one['file']))}  seed {one.get('seed')}" for one in outputs])


def _error_lines(error: Mapping[str, Any] | None) -> list[str]:
    if not error:
        return []
    if error.get("stage_index"):
        fix = f" Fix: {error['hint']}" if error.get("hint") else ""
        message = str(error.get("message", "")).rstrip(".")
        return [click.style(f"stopped{_at_stage(error)}: {message}.", fg="red") + fix]
    hint = [f"{click.style('hint:', fg='cyan')} {error['hint']}"] if error.get("hint") else []
    return [f"{click.style(str(error.get('message', '')), fg='red')} ({error.get('code', '')})", *hint]


def _problem(problem: Mapping[str, Any]) -> str:
    at = f"line {problem['line']}: " if problem.get("line") else ""
    return f"{at}{problem.get('message', '')}" + (f" ({problem['hint']})" if problem.get("hint") else "")


def _in_line(one: Mapping[str, Any]) -> str:
    eta = f"  about {when(one['eta'])}" if "eta" in one else ""
    return f"{one.get('position', ''):>3}  {shown(str(one.get('job', '')))}{eta}" + (
        f"  {one['why']}" if one.get("why") else ""
    )


def _cut(lines: list[str], total: int | None = None) -> list[str]:
    total = max(len(lines), total or 0)
    return lines[:_MOST_LINES] + ([f"... and {total - _MOST_LINES} more"] if total > _MOST_LINES else [])
