"""Which folder is the workspace, and what lies where in it. Every command starts here: nothing slow is imported."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hotfolder.errors import SettingsError

FILE_NAME: Final = "hotfolder.toml"


@dataclass(frozen=True)
class Workspace:
    """The folder that holds everything."""

    root: Path

    @property
    def file(self) -> Path:
        """The settings file, which need not exist."""
        return self.root / FILE_NAME

    @property
    def inbox(self) -> Path:
        """Where jobs are dropped."""
        return self.root / "jobs_inbox"

    @property
    def outputs(self) -> Path:
        """Where each job gets its folder."""
        return self.root / "outputs"

    @property
    def presets(self) -> Path:
        """The workspace's own presets."""
        return self.root / "presets"

    @property
    def cache(self) -> Path:
        """What can be made again: live markers, the history index."""
        return self.root / ".hotfolder"


def find(given: Path | None, environ: Mapping[str, str] = os.environ) -> Workspace:
    """Return the workspace: `given` (--workspace), else HOTFOLDER_WORKSPACE, else the current folder.

    Raises:
        SettingsError: `no-workspace`: it has neither a hotfolder.toml nor a jobs_inbox/.
    """
    root = given or Path(environ.get("HOTFOLDER_WORKSPACE") or Path.cwd())
    workspace = Workspace(root.absolute())
    if not (workspace.file.is_file() or workspace.inbox.is_dir()):
        found = f"{root} is no workspace: it has neither {FILE_NAME} nor jobs_inbox/"
        raise SettingsError(
            "no-workspace", found, f"make one with: hotfolder init {root}; or name one with --workspace"
        )
    return workspace
