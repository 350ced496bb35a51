"""A daemon is started on what a power cut may have left, and the promise is checked."""

import io
import os
import shutil
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from conftest import Workspace
from oracle import check_pictures, check_promise, pixels
from painted import PaintedEngine
from power_cut_history import write_tree
from power_cut_scenes import SCENES, Scene
from power_cut_states import State

from hotfolder import daemon, journal
from hotfolder.journal import ENDS

#: Quick to see that nothing is left to do.
_QUICK: Final = {"INBOX_SETTLE_S": "0.01", "INBOX_SCAN_S": "0.05"}


def undisturbed(scene: Scene, folder: Path) -> dict[str, Any]:
    """Return the pixels of the scene when nothing happens, a cancel neither."""
    workspace = Workspace(folder / "undisturbed")
    for drop in (scene.drop, scene.drop_then):
        drop(workspace)
        code = daemon.serve(workspace.settings(**_QUICK), PaintedEngine(), drain=True, log_to=io.StringIO())
        assert code == daemon.OK
    found = pixels(check_promise(workspace, scene.jobs, inbox=scene.pictures))
    shutil.rmtree(workspace.root)
    return found


class Checker:
    """Checks one state after the other, in a workspace of its own."""

    def __init__(self, folder: Path, undisturbed: Mapping[str, Mapping[str, Any]]) -> None:
        """Args: undisturbed: scene -> the pixels of its jobs."""
        self._workspace = Workspace(folder / f"work-{os.getpid()}")
        self._undisturbed = undisturbed

    def check(self, state: State) -> str:
        """Start a daemon on a state; return what breaks the promise, "" where nothing does."""
        workspace, scene = self._workspace, SCENES[state.scene]
        for path in workspace.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        workspace.inbox.mkdir()
        workspace.outputs.mkdir()
        write_tree(state.tree, workspace.root)
        log = io.StringIO()
        try:
            code = daemon.serve(workspace.settings(**_QUICK), PaintedEngine(), drain=True, log_to=log)
            assert code in {daemon.OK, daemon.NOT_COMPLETED}, "it ends in order"
            assert '"exception"' not in log.getvalue(), "nothing crashes"
            if scene.flushed:
                self._check_kept(scene, state)
            else:
                self._check_sound()
        except Exception:  # noqa: BLE001 - whatever it is, it is told
            return f"{traceback.format_exc()}\n{log.getvalue()[-4000:]}"
        return ""

    def _check_kept(self, scene: Scene, state: State) -> None:
        """Every job ended once, as it may, with the pictures that an undisturbed run makes.

        A half page may stay hidden in the folder of a job that ended: a start does not look at what is finished.
        """
        workspace, expected = self._workspace, self._undisturbed[scene.name]
        ended = {workspace.state(job) for job in scene.jobs}
        assert len(ended) == 1, ended
        assert ended <= state.ends, ended
        for half in workspace.outputs.glob("*/.index.html.tmp"):
            half.unlink()
        ledgers = check_promise(workspace, scene.jobs, inbox=scene.pictures, state=ended.pop())
        for job, made in pixels(ledgers).items():
            assert made.items() <= expected[job].items(), "the pixels of an undisturbed run"

    def _check_sound(self) -> None:
        """Whatever was lost of the drop, what there is ended, and is whole."""
        for job in self._workspace.jobs():
            folder = self._workspace.outputs / job
            ledger = journal.read(folder)
            assert ledger.state in ENDS
            assert self._workspace.state(job) == ledger.state.value
            check_pictures(folder, ledger)
