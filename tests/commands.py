"""The command line as its user has it: a command in, an exit code and two streams out."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from conftest import Workspace

from hotfolder.front import call
from hotfolder.front.cli import cli

#: With Ctrl-C as a terminal gives it: where tests run in the background it is ignored, and that is handed down.
_IN_A_PROCESS = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from hotfolder.front.cli import main; main()"
)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, f"not one line: {self.out!r} {self.err}"
        return json.loads(lines[0])


class Hotfolder:
    """Runs commands in this process, on one workspace."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._root, self._capsys = root, capsys

    def __call__(self, *args: str | Path, environ: Mapping[str, str] | None = None) -> Said:
        self._capsys.readouterr()
        code = call.run(cli, [*map(str, args), "--workspace", str(self._root)], environ or {})
        said = self._capsys.readouterr()
        return Said(code=code, out=said.out, err=said.err)


def start(*args: str | Path, cwd: Path, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a command in a process of its own; its output is piped."""
    return subprocess.Popen(
        [sys.executable, "-c", _IN_A_PROCESS, *map(str, args)],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], timeout_s: float = 60.0) -> Said:
    """Wait for a command that was started."""
    out, err = process.communicate(timeout=timeout_s)
    return Said(code=process.returncode, out=out, err=err)


def job_folder(workspace: Workspace, name: str, **status: Any) -> Path:
    """A job's folder with a status file, as a daemon left it."""
    folder = workspace.outputs / name
    folder.mkdir()
    told = {"schema": 1, "job": name, "state": "completed"} | status
    (folder / "status.toml").write_text(tomli_w.dumps(told))
    return folder
