"""`status` and `logs`: where the daemon or a job is, once or again and again."""

import datetime as dt
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from hotfolder.errors import JobError
from hotfolder.front import jobs, show
from hotfolder.front.answer import Answer
from hotfolder.front.jobs import View
from hotfolder.names import shown
from hotfolder.workspace import Workspace

_LOOK_EVERY_S: Final = 0.5


def daemon(workspace: Workspace, *, watch: bool, as_json: bool) -> Answer:
    """Return the daemon at a glance."""
    if watch and as_json:
        raise JobError("bad-usage", "--watch has no end, so it has no closing answer", "leave --json or --watch out")
    answer = _daemon(workspace)
    if watch:
        _again(lambda: _daemon(workspace).text, lambda: True)
        return Answer(data=answer.data)
    return answer


def job(workspace: Workspace, text: str, *, watch: bool, as_json: bool) -> Answer:
    """Return where a job is; with `watch` once it has ended.

    Raises:
        JobError: `not-found`.
    """
    found, left = _as_it_is(workspace, jobs.newest(workspace, text))

    def look() -> str:
        nonlocal found, left
        found, left = _as_it_is(workspace, jobs.view(workspace, found.name) or found)
        return show.job(found, left)

    if not watch:
        return Answer(data=found.data, text=show.job(found, left))
    there = found.folder.is_dir
    if as_json:
        while not found.ended and there():
            time.sleep(_LOOK_EVERY_S)
            look()
        return Answer(data=found.data)
    _again(look, lambda: not found.ended and there())
    return Answer(data=found.data)


def log(workspace: Workspace, text: str, *, follow: bool, as_json: bool) -> Answer:
    """Return the log of a job; with `follow` each line as it is written, until the job has ended.

    Raises:
        JobError: `not-found`.
    """
    from hotfolder.front import tail

    found = jobs.newest(workspace, text)

    def live() -> bool:
        now = jobs.view(workspace, found.name)
        return now is not None and not now.ended

    lines = []
    for line in tail.lines(found.folder / "log.jsonl", live if follow else lambda: False):
        if as_json:
            lines.append(line)
        else:
            click.echo(tail.line(line))
    return Answer(data={"job": found.name, "lines": lines})


def _daemon(workspace: Workspace) -> Answer:
    """A status file that nobody keeps must not say that somebody does: the lock tells."""
    from hotfolder.lock import holder

    who = holder(workspace.root)
    table = jobs.daemon(workspace)
    if who is None:
        last = table.get("updated_at")
        ago = f"; the last one was here until {show.when(last)}" if isinstance(last, dt.datetime) else ""
        left = _how_it_ended(table)
        unclean = " and did not stop by itself" if ago and left == "died" else ""
        drops = jobs.drops(workspace)
        still = _without_forecasts(table)
        data = {**still, "state": "stopped", "running": [], "inbox": len(drops)}
        counts = {word: count for word, count in table.get("counts", {}).items() if word != "running"}
        told = show.daemon({**still, "counts": counts, "wrong": []}, f"none runs{ago}{unclean}", len(drops), left)
        return Answer(data=data, text=told)
    mine = table if table.get("pid") == who.pid and table.get("host") == who.host else {}
    state = str(mine.get("state", "starting"))
    word = "runs one job" if who.mode == "direct" else "runs"
    paused = click.style("; paused until hotfolder resume", fg="yellow") if state == "paused" else ""
    since = f" since {show.when(dt.datetime.fromisoformat(who.started_at))}" if who.started_at else ""
    data = {**mine, "state": state, "pid": who.pid, "host": who.host, "mode": who.mode}
    return Answer(data=data, text=show.daemon(mine, f"{word}{since}, process {who.pid} on {shown(who.host)}{paused}"))


def _as_it_is(workspace: Workspace, view: View) -> tuple[View, str]:
    """Take out of a job's status what nobody works towards any more; say how the daemon ended, "" where one is there.

    A status file that a daemon left behind goes on saying that the job runs: the lock tells.
    """
    from hotfolder.lock import holder

    if view.ended or holder(workspace.root) is not None:
        return view, ""
    return View(folder=view.folder, table=_without_forecasts(view.table)), _how_it_ended(jobs.daemon(workspace))


def _how_it_ended(table: Mapping[str, Any]) -> str:
    return "stopped" if table.get("state") == "stopped" else "died"


def _without_forecasts(table: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out how far the job under way is, and when those in the line would begin."""
    line = [{key: value for key, value in one.items() if key != "eta"} for one in table.get("line", ())]
    kept = {key: value for key, value in table.items() if key not in {"progress", "line"}}
    return kept | ({"line": line} if line else {})


def _again(look: Callable[[], str], more: Callable[[], bool]) -> None:
    """Show something until there is no more to come, or until Ctrl-C: in place on a terminal, else at each change."""
    try:
        if sys.stdout.isatty():
            _in_place(look, more)
        else:
            _at_each_change(look, more)
    except KeyboardInterrupt:
        return


def _in_place(look: Callable[[], str], more: Callable[[], bool]) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(Text.from_ansi(look()), refresh=True)
            if not more():
                return
            time.sleep(_LOOK_EVERY_S)


def _at_each_change(look: Callable[[], str], more: Callable[[], bool]) -> None:
    last = None
    while True:
        text = look()
        if text != last:
            click.echo(text + "\n")
            last = text
        if not more():
            return
        time.sleep(_LOOK_EVERY_S)
