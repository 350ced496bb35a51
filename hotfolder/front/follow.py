"""Following a job to its end, by what its status file says."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

import click

from hotfolder.errors import JobError, SettingsError
from hotfolder.front import jobs
from hotfolder.front.answer import Answer, ExitCode, note
from hotfolder.front.drop import Dropped
from hotfolder.front.jobs import View
from hotfolder.front.show import doing, ended, pick_hint
from hotfolder.names import shown
from hotfolder.workspace import Workspace

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LOOK_EVERY_S: Final = 0.2
#: On a network a drop settles for seconds; after more it is worth a word.
_TELL_AFTER_S: Final = 10.0
#: A daemon that is started again by systemd is away for a few seconds.
PATIENCE_S: Final = 30.0


class Report(Protocol):
    """Told where a job is, again and again."""

    def __call__(self, view: View) -> None:
        """Show it."""


def served(workspace: Workspace) -> bool:
    """Whether a daemon takes what lies in the inbox."""
    from hotfolder.lock import holder

    who = holder(workspace.root)
    return who is not None and who.mode != "direct"


def take_of(workspace: Workspace, dropped: Dropped) -> str | None:
    """Return the take that came of a drop; None while there is none."""
    for take in jobs.takes(workspace, dropped.name):
        if take not in dropped.before and _origin_sha256(workspace, take) == dropped.sha256:
            return take
    return None


class Served:
    """Whether it is worth waiting for a daemon: one runs, or did so a moment ago."""

    def __init__(self, workspace: Workspace, patience_s: float = PATIENCE_S) -> None:
        """Args: patience_s: how long it may be away."""
        self._workspace, self._patience_s = workspace, patience_s
        self._seen = time.monotonic()

    def __call__(self) -> bool:
        """Look whether one runs."""
        now = time.monotonic()
        if served(self._workspace):
            self._seen = now
        return now - self._seen <= self._patience_s


def wait_for_take(
    workspace: Workspace, dropped: Dropped, alive: Callable[[], bool], within_s: float | None = None
) -> str | None:
    """Wait until a drop has become a job, and return its name; None where that takes longer than `within_s`.

    Args:
        alive: whether somebody still takes drops.

    Raises:
        SettingsError: `no-daemon`: nobody does any more.
    """
    since = time.monotonic()
    told = False
    while True:
        last_look = not alive()
        take = take_of(workspace, dropped)
        if take is not None:
            return take
        if last_look:
            found = f"{shown(dropped.path.name)} lies in the inbox, but no daemon takes it"
            raise SettingsError("no-daemon", found, "start one with: hotfolder serve")
        if within_s is not None and time.monotonic() - since > within_s:
            return None
        if not told and time.monotonic() - since > _TELL_AFTER_S:
            told = True
            note(f"{shown(dropped.path.name)} is not taken yet{_why_not(workspace, dropped)}")
        time.sleep(_LOOK_EVERY_S)


def to_the_end(workspace: Workspace, job: str, report: Report, alive: Callable[[], bool]) -> View:
    """Follow a job until it has ended, or waits for a person to pick.

    Args:
        alive: whether somebody still works.

    Raises:
        SettingsError: `no-daemon`: nobody does any more.
        JobError: `not-completed`: its folder is gone.
    """
    while True:
        last_look = not alive()
        view = jobs.view(workspace, job)
        if view is not None:
            report(view)
            if view.over:
                return view
        elif not (workspace.outputs / job).is_dir():
            raise JobError("not-completed", f"{shown(job)}: its folder was deleted or moved away, which cancels it")
        if last_look:
            raise SettingsError(
                "no-daemon",
                f"nobody works on {shown(job)} any more",
                "it goes on when a daemon is started: hotfolder serve",
            )
        time.sleep(_LOOK_EVERY_S)


def answer_of(view: View) -> Answer:
    """Return how a command ends that saw a job to its end."""
    match view.state:
        case "completed":
            return Answer(data=view.data, text=ended(view))
        case "cancelled":
            error = JobError("not-completed", f"{shown(view.name)} was cancelled")
            return Answer(data=view.data, text=ended(view), error=error, exit_code=ExitCode.CANCELLED)
        case "review":
            error = JobError("not-completed", f"{shown(view.name)} waits for you to pick", pick_hint(view))
            return Answer(data=view.data, text=ended(view), error=error, exit_code=ExitCode.NOT_COMPLETED)
        case state:
            told: Mapping[str, Any] = view.table.get("error", {})
            why = f": {told['message']}" if "message" in told else ""
            error = JobError(
                "not-completed", f"{shown(view.name)} {_ENDED.get(state, state)}{why}", str(told.get("hint", ""))
            )
            return Answer(data=view.data, text=ended(view), error=error, exit_code=ExitCode.NOT_COMPLETED)


_ENDED: Final = {"partial": "is finished in part only", "failed": "failed", "rejected": "was rejected"}


@contextmanager
def reporting(*, as_json: bool) -> Iterator[Report]:
    """Show progress: a bar on a terminal, plain lines otherwise; on stderr where stdout is for JSON."""
    stream = sys.stderr if as_json else sys.stdout
    if not stream.isatty():
        yield Lines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[job]}", markup=False),
        BarColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        yield _Bar(progress)


class Lines:
    """Plain lines: `PROGRESS: 50 | generate 14/28`, percent of the whole job, then its stage and step."""

    def __init__(self, stream: TextIO) -> None:
        """Args: stream: where the lines go."""
        self._stream = stream
        self._percent, self._last = 0, ""

    def __call__(self, view: View) -> None:
        """Write a line if something changed."""
        # Never backwards: a candidate that is made again, or a phase without steps, takes nothing away.
        self._percent = max(self._percent, _percent(view))
        line = f"PROGRESS: {self._percent} | {doing(view)}"
        if line != self._last:
            self._last = line
            click.echo(line, file=self._stream)


class _Bar:
    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def __call__(self, view: View) -> None:
        if self._task is None:
            self._task = self._progress.add_task("", total=100, job=shown(view.name))
        done = max(_percent(view), self._progress.tasks[0].completed)
        self._progress.update(self._task, completed=done, description=doing(view))


def _percent(view: View) -> int:
    if view.state == "completed":
        return 100
    return int(100 * float(view.table.get("progress", {}).get("fraction", 0)))


def _why_not(workspace: Workspace, dropped: Dropped) -> str:
    """Say why a daemon leaves a drop alone, as far as it says so itself."""
    name = shown(str(dropped.path.relative_to(workspace.inbox)))
    reasons = (one.get("why", "") for one in jobs.daemon(workspace).get("ignored", ()) if one.get("name") == name)
    return next((f": {reason}" for reason in reasons), "")


def _origin_sha256(workspace: Workspace, take: str) -> str:
    """Read the first line of a take's journal: it says what the job was made of."""
    try:
        with (workspace.outputs / take / "journal.jsonl").open("rb") as file:
            first = json.loads(file.readline())
        return str(first["origin"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
