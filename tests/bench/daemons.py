"""Daemons in this process, for as long as something is measured; they log to their jobs' folders only."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import Served, Workspace
from painted import PaintedEngine
from waiting import wait_until

from hotfolder import daemon
from hotfolder.engine import Engine
from hotfolder.job import PLAN_FILE


def drain(workspace: Workspace, engine: Engine | None = None, **env: str) -> None:
    """Run a daemon until nothing is left to do."""
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        daemon.serve(workspace.settings(**env), engine or PaintedEngine(), drain=True, log_to=nowhere)


@contextmanager
def serving(workspace: Workspace, engine: Engine | None = None) -> Iterator[None]:
    """Run a daemon in a thread."""
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        served = Served(workspace.settings(), engine or PaintedEngine(), log_to=nowhere)
        try:
            yield
        finally:
            served.stop()


def queue_all(workspace: Workspace, jobs: int) -> None:
    """Have all so many jobs that were dropped in the line, none of them begun, and nobody serving."""
    pause = workspace.inbox / "pause"
    pause.touch()
    with serving(workspace):
        wait_until_in_line(workspace, jobs)
    pause.unlink()


def wait_until_in_line(workspace: Workspace, jobs: int, named: str = "*") -> None:
    """Wait until so many jobs are queued, and each of them has its plan: only then it stands in the line.

    Args:
        named: a pattern for their folders, where there are others.
    """
    wait_until(lambda: counts(workspace).get("queued") == jobs, 600)
    wait_until(lambda: len(list(workspace.outputs.glob(f"{named}/{PLAN_FILE}"))) >= jobs, 600)


def counts(workspace: Workspace) -> dict[str, int]:
    """How many jobs are in which state, as outputs/status.toml says."""
    found: dict[str, int] = workspace.daemon_status().get("counts", {})
    return found
