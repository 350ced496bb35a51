"""`hotfolder init`: makes a folder a workspace, and overwrites nothing."""

import os
import shlex
from pathlib import Path

from hotfolder import durable
from hotfolder.errors import SettingsError
from hotfolder.front.answer import Answer
from hotfolder.front.show import where
from hotfolder.names import shown
from hotfolder.workspace import FILE_NAME, Workspace


def init(folder: Path) -> Answer:
    """Make `folder` a workspace, and say how to go on.

    Raises:
        SettingsError: `cannot-write`.
    """
    root = folder.absolute()
    made = make_workspace(root)
    done = f"made {', '.join(made)}" if made else "it was one already, nothing was changed"
    lines = [f"{where(root) if root != Path.cwd() else 'This folder'} is a workspace: {done}.", "", "Try it:"]
    if root != Path.cwd():
        lines.append(f"  cd {shlex.quote(where(root))}")
    lines.append('  hotfolder run --prompt "a red mug"   # one picture, now')
    lines.append(
        "  hotfolder serve                      # a daemon: drop job files into jobs_inbox/, look into outputs/"
    )
    return Answer(data={"workspace": root, "made": made}, text="\n".join(lines))


def make_workspace(root: Path) -> list[str]:
    """Make what is missing of a workspace in `root`; return the names of what was made.

    Raises:
        SettingsError: `cannot-write`.
    """
    workspace = Workspace(root)
    made = []
    try:
        root.mkdir(parents=True, exist_ok=True)
        for folder in (workspace.inbox, workspace.outputs, workspace.presets):
            if not folder.is_dir():
                folder.mkdir()
                made.append(f"{folder.name}/")
        if not os.path.lexists(workspace.file):
            durable.write(workspace.file, (Path(__file__).parent / FILE_NAME).read_bytes())
            made.insert(0, FILE_NAME)
        durable.sync_folder(root)
    except OSError as error:
        found = f"{shown(str(error.filename or root))} cannot be made: {error.strerror}"
        raise SettingsError("cannot-write", found, "name another folder, or look at the rights of this one") from error
    return made
