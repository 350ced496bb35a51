"""One state that a power cut may leave: a daemon is started on it, and the promise is checked."""

import io
import os
import random
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import power_cut_record
import power_cut_scenes
from conftest import Workspace
from oracle import check_pictures, check_promise, pixels
from painted import PaintedEngine
from power_cut_history import History, Names, Sync, Tree, Write, digest, write_tree
from power_cut_model import ALL_UP_TO, Model
from power_cut_scenes import CANCEL, SCENES, Scene
from processes import SERVED

from hotfolder import daemon, durable, journal
from hotfolder.journal import ENDS

_VIEWS: Final = {"log.jsonl", "index.html"}
#: Quick to see that nothing is left to do.
_QUICK: Final = {"INBOX_SETTLE_S": "0.01", "INBOX_SCAN_S": "0.05"}


@dataclass(frozen=True, kw_only=True)
class State:
    """What a power cut may leave, and how the jobs may end after it."""

    scene: str
    #: Where the power was cut.
    cut: int
    tree: Tree
    ends: frozenset[str]

    @property
    def digest(self) -> str:
        """What tells it from every other."""
        return f"{digest(self.tree)} {sorted(self.ends)}"


def is_view(path: str) -> bool:
    """Whether a start writes this file anew, removes it unread or only reads it as a cache.

    Live markers are no views, and neither is the status of a job: after its end nobody writes it again.
    """
    folder, _, name = path.rpartition("/")
    if folder.split("/")[0] == ".hotfolder":
        return not f"{path}/".startswith(".hotfolder/live/")
    is_half = name.startswith(".") and name.endswith(".tmp")
    return is_half or name in _VIEWS or path in {".hotfolder.lock", "outputs/status.toml"}


# --- what may be left ---


def record(scene: Scene, folder: Path, strace: str) -> History:
    """Serve a scene and return all that was done to files."""
    workspace = Workspace(folder / "recorded")
    environ = {**workspace.variables(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if scene.served_before:
        command = [sys.executable, str(SERVED), str(workspace.root), "--drain"]
        subprocess.run(command, env={**os.environ, **environ}, check=True, capture_output=True)
    scene.drop(workspace)
    lies = [str(path.relative_to(workspace.root)) for path in sorted(workspace.inbox.iterdir()) if path.is_file()]
    command = [sys.executable, power_cut_scenes.__file__, str(workspace.root), scene.name]
    unflushed = [] if scene.flushed else lies
    try:
        return _rebooted(power_cut_record.record(strace, workspace.root, command, environ, unflushed=unflushed))
    finally:
        shutil.rmtree(workspace.root)


def _rebooted(history: History) -> History:
    """Return a history as if it were of another boot than this one: a machine whose power was cut boots again."""
    boot = durable.boot_id().encode()
    operations = (
        replace(operation, data=operation.data.replace(boot, b"-" * len(boot)))
        if isinstance(operation, Write) and boot
        else operation
        for operation in history.operations
    )
    return replace(history, operations=tuple(operations))


def undisturbed(scene: Scene, folder: Path) -> dict[str, Any]:
    """Return the pixels of the scene when nothing happens, a cancel neither."""
    workspace = Workspace(folder / "undisturbed")
    scene.drop(workspace)
    assert daemon.serve(workspace.settings(**_QUICK), PaintedEngine(), drain=True, log_to=io.StringIO()) == daemon.OK
    found = pixels(check_promise(workspace, scene.jobs, inbox=scene.pictures))
    shutil.rmtree(workspace.root)
    return found


def all_states(
    scene: Scene, history: History, model: Model, *, samples: int, seed: int, all_up_to: int = ALL_UP_TO
) -> Iterator[State]:
    """Yield every state of each prefix that leaves no more than so many; of those that leave more a part is drawn.

    Args:
        samples: that are drawn, of all those prefixes together.
    """
    chance = random.Random(seed)
    cuts = {cut: model(history, cut, is_view) for cut in range(history.settled, len(history.operations) + 1)}
    large = [cut for cut, choices in cuts.items() if choices.count > all_up_to]
    for cut, choices in cuts.items():
        trees = choices.sample(-(-samples // len(large)), chance) if cut in large else choices.all()
        yield from map(partial(_state, scene, history, cut), trees)


def some_states(scene: Scene, history: History, model: Model, *, seed: int) -> Iterator[State]:
    """Yield states for ever, each of a prefix that is drawn."""
    chance = random.Random(seed)
    while True:
        cut = chance.randint(history.settled, len(history.operations))
        for tree in model(history, cut, is_view).sample(1, chance):
            yield _state(scene, history, cut, tree)


def _state(scene: Scene, history: History, cut: int, tree: Tree) -> State:
    return State(scene=scene.name, cut=cut, tree=tree, ends=_ends(scene, history, cut))


def _ends(scene: Scene, history: History, cut: int) -> frozenset[str]:
    """Return how the jobs may end: a cancel holds from when it was flushed."""
    if not scene.cancelled:
        return frozenset({"completed"})
    dropped, inbox = next(
        (place, slot[0])
        for place, operation in enumerate(history.operations)
        if isinstance(operation, Names)
        for slot, node in operation.changes
        if slot[1] == CANCEL and node is not None
    )
    flushed = next(
        place
        for place, operation in enumerate(history.operations)
        if isinstance(operation, Sync) and operation.node == inbox and operation.began > dropped
    )
    return frozenset({"cancelled"} if cut > flushed else {"completed", "cancelled"})


# --- what must come of it ---


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
        """Every job ended once, as it may, with the pictures that an undisturbed run makes."""
        workspace, expected = self._workspace, self._undisturbed[scene.name]
        ended = {workspace.state(job) for job in scene.jobs}
        assert ended <= state.ends
        assert len(ended) == 1
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
