"""The process that a daemon lives in, and when it ends."""

import gc
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from conftest import Serve, Workspace
from painted import PaintedEngine
from waiting import wait_until

from hotfolder.clock import Moment, SystemClock
from hotfolder.engine import Request

#: Serves a job, and says from the GPU thread which of our models nobody has built yet.
MODELS = """
import sys
from pathlib import Path
from painted import PaintedEngine
from pydantic import BaseModel
from hotfolder import daemon
from hotfolder.settings import Settings

def look(request, step):
    models = [BaseModel]
    for model in models:
        models += model.__subclasses__()
    ours = {model for model in models if model.__module__.startswith("hotfolder.")}
    print("MODELS", len(ours) > 0, sorted(model.__name__ for model in ours if not model.__pydantic_complete__))

daemon.serve(Settings.read(Path(sys.argv[1])), PaintedEngine(before_step=look), drain=True)
"""
#: Nothing of this is needed for a job whose pictures an engine makes; each takes 2 MB or more for as long as one waits.
LARGE = {"torch", "diffusers", "transformers", "apscheduler", "numpy", "rich", "urllib.request", "PIL.TiffImagePlugin"}
LOADED = """
import sys
import served
code = served.main()
print("LOADED", code, *sys.modules)
"""


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


class LateEnd(SystemClock):
    """The clock of a daemon whose one job has failed: who writes that is told the time only after many looks at it.

    Or once the daemon has given up its engine, which it does when it ends.
    """

    def __init__(self, workspace: Workspace, given_up: threading.Event) -> None:
        self._workspace, self._given_up = workspace, given_up
        self._looks = 0
        #: What the status of the job said meanwhile, and whether the daemon waited.
        self.waited: dict[str, bool] = {}

    def now(self) -> Moment:
        if threading.current_thread().name == "save" and self._workspace.status("mug_take01").get("failed"):
            enough = self._looks + 100
            # A look that began before waits for the job, which is held up here.
            with suppress(AssertionError):
                wait_until(lambda: self._looks > enough or self._given_up.is_set(), 5)
            self.waited[self._workspace.state("mug_take01")] = not self._given_up.is_set()
        return super().now()

    def monotonic(self) -> float:
        self._looks += threading.current_thread().name == "served"
        return super().monotonic()


def test_a_drain_waits_for_the_end_of_a_job_that_is_being_written(workspace: Workspace, serve: Serve) -> None:
    """Nothing of it is under way any more, but its end is not on disk yet, or not in the history."""

    def fail(request: Request, step: int) -> None:
        raise RuntimeError("no")

    engine = PaintedEngine(before_step=fail)
    clock = LateEnd(workspace, engine.closed)
    workspace.drop("mug.toml")
    assert serve(engine, clock=clock, drain=True).join() == 3
    assert clock.waited == {"running": True, "failed": True}
    assert workspace.state("mug_take01") == "failed"


def test_the_threads_of_a_daemon_find_every_model_built(workspace: Workspace) -> None:
    """Two that build the same one at once can fail. In a new process: in this one other tests may have built them."""
    workspace.drop("mug.toml", 'prompt = "a mug"\nsteps = 1\n')
    found = subprocess.run(
        [sys.executable, "-c", MODELS, str(workspace.root)],
        cwd=Path(__file__).parent,
        env={**os.environ, **workspace.variables()},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert found.stdout == "MODELS True []\n", found.stderr


def test_a_daemon_loads_nothing_large_that_its_jobs_do_not_need(workspace: Workspace) -> None:
    workspace.drop("mug.toml")
    said = subprocess.run(
        [sys.executable, "-c", LOADED, str(workspace.root), "--drain"],
        env={**os.environ, **workspace.variables(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    _, code, *loaded = said.stdout.splitlines()[-1].split()
    assert code == "0"
    assert workspace.state("mug_take01") == "completed"
    assert not LARGE & set(loaded)


def test_jobs_that_ended_leave_nothing_of_themselves_in_memory(workspace: Workspace, serve: Serve) -> None:
    engine = PaintedEngine()
    serve(engine)

    def objects_after(begin: int, end: int) -> int:
        for number in range(begin, end):
            workspace.drop(f"mug-{number}.toml", 'prompt = "a mug"\nsteps = 1\nwidth = 16\nheight = 16\n')
        wait_until(lambda: workspace.daemon_status().get("counts") == {"completed": end}, 60)
        engine.made.clear()
        # The fewest of several looks: a page that is drawn just now shows two dozen jobs.
        return min(objects() for _ in range(5))

    def objects() -> int:
        time.sleep(0.2)
        gc.collect()
        return sum(str(type(each).__module__).startswith("hotfolder.") for each in gc.get_objects())

    few = objects_after(0, 20)
    # One for each would be 60 more; what is looked at just now may differ by some.
    assert objects_after(20, 80) - few < 30
