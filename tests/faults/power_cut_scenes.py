"""The scenes in which the power is cut: what is dropped, and what a daemon with a painted engine makes of it.

    python tests/faults/power_cut_scenes.py WORKSPACE SCENE

serves one until nothing is left to do; traced, that is what is recorded.
"""

import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conftest import Workspace
from painted import PaintedEngine

from hotfolder import daemon
from hotfolder.engine import Request
from hotfolder.settings import Settings

_SMALL: Final = "width = 32\nheight = 16\n"
_ONE: Final = f'prompt = "a mug"\nseed = 7\nsteps = 1\n{_SMALL}'
_STAGES: Final = """
[[stages]]
stage = "generate"
[[stages]]
stage = "pad"
left = 8
[[stages]]
stage = "export"
"""
_WITH_A_PICTURE: Final = (
    f'prompt = "a mug"\nimage = "cup.png"\nstrength = 0.5\nseed = 42\ncount = 2\nsteps = 2\n{_SMALL}'
)
_REVIEW: Final = f"""prompt = "a mug"
seed = 42
count = 2
steps = 2
{_SMALL}
[[stages]]
stage = "generate"
[[stages]]
stage = "select"
by = "review"
[[stages]]
stage = "export"
"""
_LONG: Final = f'prompt = "a mug"\nseed = 42\ncount = 2\nsteps = 200\n{_SMALL}'
#: The candidate during which the cancel is dropped, by its seed.
_SECOND: Final = 43


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is dropped, and what must come of it."""

    name: str
    #: Job -> its text.
    jobs: Mapping[str, str]
    #: Pictures that they name; they stay in the inbox.
    pictures: tuple[str, ...] = ()
    #: Whether the workspace was served before: then there are live markers to keep up.
    served_before: bool = False
    #: Whether somebody drops a cancel, durably, in the middle of it.
    cancelled: bool = False
    #: Control files and their texts, dropped once a first daemon has done what it can: only what follows is recorded.
    then: Mapping[str, str] = field(default_factory=dict)
    #: Whether who dropped the jobs flushed them first. Otherwise a power cut may take what they dropped.
    flushed: bool = True

    def drop(self, workspace: Workspace) -> None:
        """Drop everything."""
        for picture in self.pictures:
            workspace.picture(picture)
        for job, text in self.jobs.items():
            workspace.drop(f"{job.removesuffix('_take01')}.toml", text)

    def drop_then(self, workspace: Workspace) -> None:
        """Drop the control files."""
        for name, text in self.then.items():
            workspace.drop(name, text)

    def engine(self, workspace: Path) -> PaintedEngine:
        """Return the engine of the run that is recorded."""
        return PaintedEngine(before_step=_Cancel(workspace / "jobs_inbox" / CANCEL) if self.cancelled else None)


CANCEL: Final = "mug.cancel"
SCENES: Final = {
    scene.name: scene
    for scene in (
        Scene(name="admission", jobs={"cup_take01": _ONE, "mug_take01": _ONE}, served_before=True),
        Scene(name="job", jobs={"mug_take01": _WITH_A_PICTURE + _STAGES}, pictures=("cup.png",)),
        Scene(name="cancel", jobs={"mug_take01": _LONG}, cancelled=True, served_before=True),
        Scene(name="late-cancel", jobs={"mug_take01": _ONE}, then={CANCEL: ""}, served_before=True),
        Scene(name="review", jobs={"mug_take01": _REVIEW}, then={"mug.resume": "picks = [1, 2]\n"}, served_before=True),
        Scene(name="unflushed", jobs={"mug_take01": _ONE}, flushed=False, served_before=True),
    )
}


@dataclass
class _Cancel:
    """Drops a cancel while the second candidate is made, flushed as a careful program does it, and lets it arrive."""

    path: Path
    _dropped: bool = field(default=False, init=False)
    _never: threading.Event = field(default_factory=threading.Event, init=False)

    def __call__(self, request: Request, _: int) -> None:
        if request.seed != _SECOND:
            return
        if not self._dropped:
            self._dropped = True
            self.path.touch()
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(folder)
            os.close(folder)
        self._never.wait(0.02)


def serve(workspace: Path, engine: PaintedEngine) -> int:
    return daemon.serve(Settings.read(workspace), engine, drain=True)


if __name__ == "__main__":
    served = Path(sys.argv[1])
    sys.exit(serve(served, SCENES[sys.argv[2]].engine(served)))
