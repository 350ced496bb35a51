"""What a power cut may leave of a scene: it is served and recorded, and cut at each of its operations."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import power_cut_scenes
from conftest import Workspace
from power_cut_history import History, Names, Sync, Tree, Write, digest, write_tree
from power_cut_model import ALL_UP_TO, Model
from power_cut_record import NotRecorded
from power_cut_record import record as record_program
from power_cut_scenes import CANCEL, SCENES, Scene
from processes import SERVED

from hotfolder import durable

_VIEWS: Final = {"log.jsonl", "index.html"}
#: Threads may overtake each other between a call and its line in the trace.
_ATTEMPTS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What was done to files while a scene, or what a power cut had left of it, was served."""

    scene: Scene
    history: History
    #: How the jobs may end, wherever the power is cut; None: as the scene has it.
    ends: frozenset[str] | None = None


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


# --- recordings ---


def record(scene: Scene, folder: Path, strace: str) -> Recording:
    """Serve a scene, and take down what is done to files."""

    def drop(workspace: Workspace) -> list[str]:
        if scene.then:
            scene.drop(workspace)
        if scene.served_before:
            command = [sys.executable, str(SERVED), str(workspace.root), "--drain"]
            subprocess.run(command, env={**os.environ, **_environ(workspace)}, check=True, capture_output=True)
        scene.drop_then(workspace)
        if not scene.then:
            scene.drop(workspace)
        lie = [path for path in sorted(workspace.inbox.iterdir()) if path.is_file()]
        return [] if scene.flushed else [str(path.relative_to(workspace.root)) for path in lie]

    program = power_cut_scenes.__file__, scene.name
    return Recording(scene=scene, history=_record(folder, strace, drop, *program))


def record_start(state: State, folder: Path, strace: str) -> Recording:
    """Serve what a power cut has left, and take down what is done to files: the power may be cut again."""

    def put(workspace: Workspace) -> list[str]:
        write_tree(state.tree, workspace.root)
        return []

    history = _record(folder, strace, put, str(SERVED), "--drain")
    return Recording(scene=SCENES[state.scene], history=history, ends=state.ends)


def _record(
    folder: Path, strace: str, prepare: Callable[[Workspace], list[str]], program: str, *options: str
) -> History:
    """Record a program on a workspace that `prepare` fills; it returns what lies there without having been flushed."""
    for attempt in range(1, _ATTEMPTS + 1):
        workspace = Workspace(folder / "recorded")
        try:
            unflushed = prepare(workspace)
            command = [sys.executable, program, str(workspace.root), *options]
            return _rebooted(record_program(strace, workspace.root, command, _environ(workspace), unflushed=unflushed))
        except NotRecorded:
            if attempt == _ATTEMPTS:
                raise
        finally:
            shutil.rmtree(folder / "recorded")
    raise AssertionError("the last attempt returns or raises")


def _environ(workspace: Workspace) -> dict[str, str]:
    return {**workspace.variables(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


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


# --- states ---


def all_states(
    recording: Recording, model: Model, *, samples: int, seed: int, all_up_to: int = ALL_UP_TO
) -> Iterator[State]:
    """Yield every state of each prefix that leaves no more than so many; of those that leave more a part is drawn.

    Args:
        samples: that are drawn, of all those prefixes together.
    """
    chance = random.Random(seed)
    cuts = {cut: model(recording.history, cut, is_view) for cut in _cuts(recording.history)}
    large = [cut for cut, choices in cuts.items() if choices.count > all_up_to]
    for cut, choices in cuts.items():
        for tree in choices.sample(-(-samples // len(large)), chance) if cut in large else choices.all():
            yield _state(recording, cut, tree)


def some_states(recording: Recording, model: Model, *, seed: int) -> Iterator[State]:
    """Yield states for ever, each of a prefix that is drawn."""
    chance = random.Random(seed)
    while True:
        cut = chance.choice(_cuts(recording.history))
        for tree in model(recording.history, cut, is_view).sample(1, chance):
            yield _state(recording, cut, tree)


def is_view(path: str) -> bool:
    """Whether a start writes this file anew, removes it unread or only reads it as a cache.

    Live markers are no views, and neither is the status of a job: after its end nobody writes it again.
    """
    folder, _, name = path.rpartition("/")
    if folder.split("/")[0] == ".hotfolder":
        return not f"{path}/".startswith(".hotfolder/live/")
    is_half = name.startswith(".") and name.endswith(".tmp")
    return is_half or name in _VIEWS or path in {".hotfolder.lock", "outputs/status.toml"}


def _cuts(history: History) -> Sequence[int]:
    return range(history.settled, len(history.operations) + 1)


def _state(recording: Recording, cut: int, tree: Tree) -> State:
    ends = recording.ends or _ends(recording.scene, recording.history, cut)
    return State(scene=recording.scene.name, cut=cut, tree=tree, ends=ends)


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
