"""`cancel`, `resume`, `first` and `pause`: drop a control file, and with --wait see what comes of it."""

import json
import time
from collections.abc import Callable
from typing import Any, Final

from hotfolder.errors import JobError, SettingsError
from hotfolder.front import drop, follow, jobs
from hotfolder.front import resume as resume_
from hotfolder.front.answer import Answer, warn
from hotfolder.front.jobs import Named, View
from hotfolder.front.resume import Wish
from hotfolder.meaning import Control
from hotfolder.names import shown
from hotfolder.workspace import Workspace

_LOOK_EVERY_S: Final = 0.2
#: Lines of a journal that say that a job goes on.
_GOES_ON: Final = frozenset({"resumed", "released", "picked"})


def cancel(workspace: Workspace, text: str, *, wait: bool) -> Answer:
    """Stop the take that is named, or every live take of a NAME.

    Raises:
        HotfolderError: there is no such job; or `wait` and no daemon hears it.
    """
    what = jobs.named(workspace, text)
    live = _live(workspace, what)
    if not live and not what.drops:
        last = jobs.newest(workspace, text)
        return Answer(
            data={"jobs": [last.data], "file": None}, text=f"nothing to cancel: {shown(last.name)} is {last.state}"
        )
    file = drop.control(workspace, what.takes[0] if what.exact else what.name, Control.CANCEL)
    data: dict[str, Any] = {"jobs": [view.data for view in live], "file": file}
    told = _listed(live) or f"{shown(what.name)}, which is not taken yet,"
    if not _heard(workspace, wait=wait):
        return Answer(data=data, text=f"{told} will be cancelled")
    if not wait:
        return Answer(data=data, text=f"{told} will stop within a step")
    _until(
        workspace, lambda: not _live(workspace, jobs.named(workspace, text)) and not jobs.named(workspace, text).drops
    )
    names = [view.name for view in live] or list(jobs.named(workspace, text).takes[-1:])
    ended = [view for name in names if (view := jobs.view(workspace, name))]
    lines = [f"{shown(view.name)} is {view.state}" for view in ended]
    return Answer(data={"jobs": [view.data for view in ended], "file": file}, text="\n".join(lines))


def first(workspace: Workspace, text: str) -> Answer:
    """Put live takes in front of the line.

    Raises:
        JobError: there is no such job, or it has ended.
    """
    return _ask(workspace, text, Control.FIRST, "goes to the front of the line")


def pause(workspace: Workspace, text: str | None) -> Answer:
    """Hold live takes, or with no name let nothing begin at all.

    Raises:
        JobError: there is no such job, or it has ended.
    """
    if text is not None:
        return _ask(workspace, text, Control.PAUSE, "is held after the step under way; hotfolder resume lets it go on")
    file = drop.pause_all(workspace)
    return Answer(data={"paused": True, "file": file}, text="Paused: no new picture is begun until hotfolder resume.")


def lift(workspace: Workspace) -> Answer:
    """Lift the pause of everything."""
    lifted = drop.lift_pause(workspace)
    return Answer(
        data={"paused": False, "lifted": lifted}, text="The pause is lifted." if lifted else "Nothing was paused."
    )


def resume(workspace: Workspace, text: str, wish: Wish, *, wait: bool, as_json: bool) -> Answer:
    """Go on with the newest stopped take of a NAME.

    Raises:
        HotfolderError: there is no such job, it cannot go on so, or `wait` and no daemon hears it.
    """
    what = jobs.named(workspace, text)
    views = [view for take in reversed(what.takes) if (view := jobs.view(workspace, take))]
    stopped = resume_.choose(views, what.name, wish)
    told = resume_.check(stopped, wish)
    before, takes = _times_gone_on(workspace, stopped.name), jobs.takes(workspace, what.name)
    file = drop.control(workspace, stopped.name, Control.RESUME, wish.data)
    data = {"jobs": [stopped.data], "file": file}
    if not _heard(workspace, wait=wait) or not wait:
        return Answer(data=data, text=told)
    _until(workspace, lambda: not file.exists())
    new = [take for take in jobs.takes(workspace, what.name) if take not in takes] if wish.from_ is not None else []
    if not new and _times_gone_on(workspace, stopped.name) == before:
        found = jobs.view(workspace, stopped.name) or stopped
        notices = [str(notice.get("text", "")) for notice in found.table.get("notices", ())]
        raise JobError("not-possible", f"{shown(found.name)} does not go on" + (f": {notices[-1]}" if notices else ""))
    job = new[0] if new else stopped.name
    with follow.reporting(as_json=as_json) as report:
        return follow.answer_of(follow.to_the_end(workspace, job, report, follow.Served(workspace)))


def _ask(workspace: Workspace, text: str, control: Control, done: str) -> Answer:
    what = jobs.named(workspace, text)
    live = _live(workspace, what)
    if not live and not what.drops:
        last = jobs.newest(workspace, text)
        raise JobError(
            "not-possible",
            f"{shown(last.name)} is {last.state}",
            "only a job that has not ended can be held or put in front",
        )
    file = drop.control(workspace, what.takes[0] if what.exact else what.name, control)
    _heard(workspace, wait=False)
    return Answer(
        data={"jobs": [view.data for view in live], "file": file}, text=f"{_listed(live) or shown(what.name)} {done}"
    )


def _live(workspace: Workspace, what: Named) -> list[View]:
    views = (jobs.view(workspace, take) for take in what.takes)
    return [view for view in views if view is not None and not view.ended]


def _listed(views: list[View]) -> str:
    return ", ".join(shown(view.name) for view in views)


def _heard(workspace: Workspace, *, wait: bool) -> bool:
    """Return whether a daemon acts on it now.

    Raises:
        SettingsError: `no-daemon`: none does, and somebody wants to wait for it.
    """
    if follow.served(workspace):
        return True
    if wait:
        raise SettingsError(
            "no-daemon", "it is asked for, but no daemon runs to do it", "start one with: hotfolder serve"
        )
    warn("no daemon runs in this workspace: it is done when one is started", "hotfolder serve")
    return False


def _until(workspace: Workspace, done: Callable[[], bool]) -> None:
    alive = follow.Served(workspace)
    while not done():
        if not alive():
            raise SettingsError(
                "no-daemon", "the daemon has stopped meanwhile", "it is done when one is started: hotfolder serve"
            )
        time.sleep(_LOOK_EVERY_S)


def _times_gone_on(workspace: Workspace, job: str) -> int:
    """Count how often a job was taken up again, by its journal."""
    try:
        lines = (workspace.outputs / job / "journal.jsonl").read_bytes().splitlines()
    except OSError:
        return 0
    count = 0
    for line in lines:
        try:
            count += json.loads(line).get("event") in _GOES_ON
        except (ValueError, AttributeError, RecursionError):
            continue
    return count
