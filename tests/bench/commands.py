"""How long a command takes, from its start to its end, against a click program that does nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from conftest import Workspace

from bench.harness import Bench, Finding, Target, at_most, in_turns, ratios
from bench.store import finished_jobs

EMPTY: Final = "import click; click.command()(lambda: None)()"
HOTFOLDER: Final = "from hotfolder.front.cli import main; main()"
_JOB: Final = 'prompt = "a mug"\npreset = "flux-dev"\nsteps = 20\n'


def _environ(cache: Path) -> dict[str, str]:
    """As for an installed program, whose modules were compiled when it was installed."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return environ | {"PYTHONPYCACHEPREFIX": str(cache / "compiled")}


def command_s(program: str, *args: str, cwd: Path) -> float:
    """Run one to its end.

    Raises:
        CalledProcessError: it failed, so that its time would tell nothing.
    """
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program, *args],
        cwd=cwd,
        env=_environ(cwd),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    return time.perf_counter() - started


def metric(bench: Bench) -> Iterator[Finding]:
    """`--help` and `status`, which only look, and `check` and `submit`, which read a job as the daemon will."""
    with bench.folder() as folder:
        workspace = Workspace(folder / "work")
        finished_jobs(workspace, 20)
        job = folder / "mug.toml"
        job.write_text(_JOB)
        targets: dict[tuple[str, ...], Target] = {
            ("--help",): at_most(1.5),
            ("status",): at_most(1.5),
            ("check", str(job)): at_most(4.0),
            ("submit", str(job)): at_most(4.0),
        }
        for args, target in targets.items():
            where = () if args == ("--help",) else ("--workspace", str(workspace.root))
            call = (*args, *where)
            rounds = bench.size(40, 5)
            command_s(EMPTY, cwd=folder)
            command_s(HOTFOLDER, *call, cwd=folder)
            pairs = in_turns(
                lambda call=call: command_s(HOTFOLDER, *call, cwd=folder),  # type: ignore[misc]  # bound at once
                lambda: command_s(EMPTY, cwd=folder),
                rounds,
            )
            yield Finding(
                metric=f"hotfolder {args[0]}",
                against="a click program that does nothing",
                unit="s",
                target=target,
                disk=bench.disk,
                pairs=ratios(pairs),
            )
