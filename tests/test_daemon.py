"""The process that a daemon lives in."""

import sys

from conftest import Serve, Workspace
from painted import PaintedEngine

from hotfolder.engine import Request


def test_threads_take_their_turns_quickly_for_as_long_as_a_daemon_serves(workspace: Workspace, serve: Serve) -> None:
    """The GPU thread needs its turn after every step, whatever the others draw meanwhile."""
    before, turns = sys.getswitchinterval(), []

    def look(request: Request, step: int) -> None:
        turns.append(sys.getswitchinterval())

    served = serve(PaintedEngine(before_step=look))
    workspace.drop("mug.toml")
    assert workspace.wait_for("mug_take01")["state"] == "completed"
    assert served.stop() == 0
    assert max(turns) < before / 5
    assert sys.getswitchinterval() == before
