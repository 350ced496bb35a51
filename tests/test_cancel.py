"""`.cancel`: it acts within a step, leaves nothing half, and touches no other take. A shutdown is not a cancel."""

import hashlib
import threading
from dataclasses import dataclass, field

import pytest
from conftest import Serve, Workspace
from painted import PaintedEngine
from waiting import delete, wait_until

from hotfolder import journal, record
from hotfolder.engine import Request

SMALL = "width = 16\nheight = 16\n"
LONG = f'prompt = "a mug"\nseed = 1\ncount = 3\nsteps = 50\n{SMALL}'


@dataclass
class Gate:
    """Stops the engine at a step until the test lets it go on; counts the steps that were made."""

    at: int = 3
    #: Of the picture with this seed; None: of every one.
    seed: int | None = None
    #: How long a step takes.
    step_s: float = 0.0
    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    steps: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, request: Request, step: int) -> None:
        if step == self.at and self.seed in {None, request.seed}:
            self.reached.set()
            assert self.go.wait(30)
        threading.Event().wait(self.step_s)
        self.steps.append((request.seed, step))


def journalled(workspace: Workspace, job: str, event: journal.Event) -> bool:
    lines = (workspace.outputs / job / journal.FILE_NAME).read_bytes()
    return any(line["event"] == event for line in journal.lines(lines))


def test_a_running_job_stops_within_one_step(workspace: Workspace, serve: Serve) -> None:
    gate = Gate()
    serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml", LONG)
    assert gate.reached.wait(20)
    (workspace.inbox / "mug.cancel").touch()
    wait_until(lambda: not (workspace.inbox / "mug.cancel").exists(), what="it was acted upon")
    assert workspace.state("mug_take01") == "running", "it has not ended before its cell has"
    gate.go.set()
    found = workspace.wait_for("mug_take01")
    assert (found["state"], found["done"]) == ("cancelled", 0)
    assert gate.steps == [(1, 1), (1, 2), (1, 3)]


def test_what_was_finished_stays_whole_and_nothing_half_is_left(workspace: Workspace, serve: Serve) -> None:
    gate = Gate(seed=3)
    serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml", LONG)
    assert gate.reached.wait(20)
    wait_until(lambda: workspace.status("mug_take01")["done"] == 2)
    (workspace.inbox / "mug.cancel").touch()
    wait_until(lambda: not (workspace.inbox / "mug.cancel").exists(), what="it was acted upon")
    gate.go.set()
    found = workspace.wait_for("mug_take01", "cancelled")
    assert [one["candidate"] for one in found["outputs"]] == [1, 2]
    folder = workspace.outputs / "mug_take01"
    assert sorted(path.name for path in folder.glob("*.png*")) == [
        "mug_take01_001.png",
        "mug_take01_001.png.toml",
        "mug_take01_002.png",
        "mug_take01_002.png.toml",
    ]
    for number in (1, 2):
        picture = folder / f"mug_take01_{number:03d}.png"
        said = record.load(picture.with_name(f"{picture.name}.toml").read_bytes())
        assert hashlib.sha256(picture.read_bytes()).hexdigest() == said.file_sha256
    wait_until(lambda: list(folder.glob(".*")) == [])


def test_the_next_job_is_as_if_nothing_had_been_cancelled(workspace: Workspace, serve: Serve) -> None:
    gate = Gate(seed=1)
    engine = PaintedEngine(before_step=gate)
    serve(engine)
    workspace.drop("mug.toml", LONG)
    assert gate.reached.wait(20)
    (workspace.inbox / "mug.cancel").touch()
    wait_until(lambda: not (workspace.inbox / "mug.cancel").exists(), what="it was acted upon")
    gate.go.set()
    workspace.wait_for("mug_take01", "cancelled")
    workspace.drop("next.toml", LONG.replace("seed = 1", "seed = 7"))
    assert workspace.wait_for("next_take01")["state"] == "completed"
    assert [request.seed for request in engine.made] == [7, 8, 9]


def test_a_job_that_is_queued_is_cancelled_at_once(workspace: Workspace, serve: Serve) -> None:
    gate = Gate()
    serve(PaintedEngine(before_step=gate))
    workspace.drop("first.toml", LONG)
    assert gate.reached.wait(20)
    workspace.drop("mug.toml", LONG)
    workspace.wait_for("mug_take01", "queued")
    (workspace.inbox / "mug.cancel").touch()
    assert workspace.wait_for("mug_take01")["state"] == "cancelled"
    assert workspace.status("mug_take01")["attempt"] == 0
    gate.go.set()
    assert workspace.wait_for("first_take01")["state"] == "completed"


def test_a_job_that_waits_for_its_picture_can_be_cancelled(workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.drop("mug.toml", 'prompt = "a mug"\nimage = "mug.png"\n')
    workspace.wait_for("mug_take01", "waiting")
    (workspace.inbox / "mug.cancel").touch()
    workspace.wait_for("mug_take01", "cancelled")
    workspace.picture("mug.png")
    workspace.drop("other.toml", f'prompt = "x"\nsteps = 1\n{SMALL}')
    workspace.wait_for("other_take01", "completed")
    assert workspace.state("mug_take01") == "cancelled"
    assert not journalled(workspace, "mug_take01", journal.Event.PLANNED)


def test_every_live_take_of_the_name_stops_and_no_other_job(workspace: Workspace, serve: Serve) -> None:
    gate = Gate()
    serve(PaintedEngine(before_step=gate))
    for number in (1, 2):
        workspace.drop("mug.toml", LONG)
        workspace.wait_for(f"mug_take0{number}", "running", "queued")
    workspace.drop("mugs.toml", LONG)
    workspace.wait_for("mugs_take01", "queued")
    assert gate.reached.wait(20)
    (workspace.inbox / "mug.cancel").touch()
    assert workspace.wait_for("mug_take02")["state"] == "cancelled"
    wait_until(lambda: not (workspace.inbox / "mug.cancel").exists(), what="it was acted upon")
    gate.go.set()
    assert workspace.wait_for("mug_take01")["state"] == "cancelled"
    assert workspace.wait_for("mugs_take01")["state"] == "completed"


def test_one_take_stops_and_the_others_go_on(workspace: Workspace, serve: Serve) -> None:
    gate = Gate()
    serve(PaintedEngine(before_step=gate))
    for number in (1, 2, 3):
        workspace.drop("mug.toml", LONG)
        workspace.wait_for(f"mug_take0{number}", "running", "queued")
    assert gate.reached.wait(20)
    (workspace.inbox / "mug_take02.cancel").touch()
    assert workspace.wait_for("mug_take02")["state"] == "cancelled"
    gate.go.set()
    assert workspace.wait_for("mug_take01")["state"] == "completed"
    assert workspace.wait_for("mug_take03")["state"] == "completed"


def test_a_live_job_whose_folder_is_deleted_is_cancelled_and_nothing_crashes(
    workspace: Workspace, serve: Serve
) -> None:
    gate = Gate(step_s=0.02)
    serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml", LONG)
    assert gate.reached.wait(20)
    workspace.drop("queued.toml", LONG)
    workspace.wait_for("queued_take01", "queued")
    for name in ("mug_take01", "queued_take01"):
        delete(workspace.outputs / name)
    gate.go.set()
    workspace.drop("next.toml", LONG)
    assert workspace.wait_for("next_take01")["state"] == "completed"
    assert workspace.jobs() == ["next_take01"]
    assert len(gate.steps) < 50 + 150, "the deleted jobs were not made to their end"


def test_a_live_job_whose_folder_is_moved_away_is_cancelled(workspace: Workspace, serve: Serve) -> None:
    gate = Gate(step_s=0.02)
    serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml", LONG)
    assert gate.reached.wait(20)
    away = (workspace.outputs / "mug_take01").rename(workspace.root / "away")
    gate.go.set()
    workspace.drop("next.toml", LONG)
    assert workspace.wait_for("next_take01")["state"] == "completed"
    assert list(away.glob("*.png")) == []
    assert workspace.jobs() == ["next_take01"]


def test_a_shutdown_is_not_a_cancel(workspace: Workspace, serve: Serve) -> None:
    """The same unwinding; but the job is queued again and made by the next daemon."""
    gate = Gate(step_s=0.05)
    served = serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml", LONG)
    assert gate.reached.wait(20)
    served.stop_event.set()
    gate.go.set()
    assert served.join() == 0
    assert workspace.state("mug_take01") == "queued"
    assert not journalled(workspace, "mug_take01", journal.Event.CANCEL)
    assert len(gate.steps) < 50, "not even the first picture was made to its end"
    serve()
    found = workspace.wait_for("mug_take01")
    assert (found["state"], found["attempt"]) == ("completed", 2)


def test_a_cancel_that_came_while_no_daemon_ran_starts_no_cell(workspace: Workspace, serve: Serve) -> None:
    gate = Gate(step_s=0.02)
    served = serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml", LONG)
    assert gate.reached.wait(20)
    served.stop_event.set()
    gate.go.set()
    served.join()
    (workspace.inbox / "mug.cancel").touch()
    engine = PaintedEngine()
    serve(engine)
    assert workspace.wait_for("mug_take01")["state"] == "cancelled"
    assert (engine.made, engine.loads) == ([], [])


def test_a_cancelled_job_is_taken_up_again_by_resume_and_makes_only_what_is_missing(
    workspace: Workspace, serve: Serve
) -> None:
    gate = Gate(seed=2)
    engine = PaintedEngine(before_step=gate)
    serve(engine)
    workspace.drop("mug.toml", LONG)
    assert gate.reached.wait(20)
    wait_until(lambda: workspace.status("mug_take01")["done"] == 1)
    (workspace.inbox / "mug.cancel").touch()
    wait_until(lambda: not (workspace.inbox / "mug.cancel").exists(), what="it was acted upon")
    gate.go.set()
    workspace.wait_for("mug_take01", "cancelled")
    (workspace.inbox / "mug.resume").touch()
    found = workspace.wait_for("mug_take01", "completed")
    assert found["done"] == 3
    assert [request.seed for request in engine.made] == [1, 2, 3]


def test_a_resume_that_comes_while_the_cancelled_cell_still_stops_is_not_lost(
    workspace: Workspace, serve: Serve
) -> None:
    gate = Gate(seed=2)
    serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml", LONG)
    assert gate.reached.wait(20)
    (workspace.inbox / "mug.cancel").touch()
    wait_until(lambda: not (workspace.inbox / "mug.cancel").exists(), what="it was acted upon")
    (workspace.inbox / "mug.resume").touch()
    # It settles later than the resume does: once it is a job, the resume was looked at.
    (workspace.inbox / "other.toml").write_text(LONG)
    workspace.wait_for("other_take01", "queued")
    gate.go.set()
    assert workspace.wait_for("mug_take01", "completed")["done"] == 3


def test_a_held_job_stops_within_a_step_and_goes_on_where_it_was(workspace: Workspace, serve: Serve) -> None:
    gate = Gate(seed=2)
    engine = PaintedEngine(before_step=gate)
    serve(engine)
    workspace.drop("mug.toml", LONG)
    assert gate.reached.wait(20)
    (workspace.inbox / "mug.pause").touch()
    workspace.wait_for("mug_take01", "held")
    gate.go.set()
    workspace.drop("next.toml", LONG.replace("seed = 1", "seed = 7"))
    assert workspace.wait_for("next_take01")["state"] == "completed"
    assert workspace.state("mug_take01") == "held"
    assert workspace.status("mug_take01")["done"] == 1
    (workspace.inbox / "mug.resume").touch()
    assert workspace.wait_for("mug_take01", "completed")["done"] == 3
    assert [request.seed for request in engine.made] == [1, 7, 8, 9, 2, 3]


@pytest.mark.parametrize("rounds", [25])
def test_cancel_and_resume_in_quick_turns_end_in_one_end_state(workspace: Workspace, serve: Serve, rounds: int) -> None:
    """Whatever the moment: never two ends in a row without a resume between them, never a job that is lost."""
    served = serve()
    workspace.drop("mug.toml", f'prompt = "a mug"\ncount = 400\nsteps = 1\n{SMALL}')
    workspace.wait_for("mug_take01", "running")
    for _ in range(rounds):
        (workspace.inbox / "mug.cancel").touch()
        if workspace.wait_for("mug_take01", "cancelled", "completed")["state"] == "completed":
            break
        (workspace.inbox / "mug.resume").touch()
        workspace.wait_for("mug_take01", "queued", "running", "completed")
    wait_until(lambda: not list(workspace.inbox.glob("mug.*")))
    assert workspace.wait_for("mug_take01", "completed", timeout_s=60)["done"] == 400
    served.stop()
    lines = (workspace.outputs / "mug_take01" / journal.FILE_NAME).read_bytes()
    turns = [line["event"] for line in journal.lines(lines) if line["event"] in {"ended", "resumed"}]
    assert turns == ["ended", "resumed"] * (len(turns) // 2) + ["ended"]
    assert workspace.daemon_status()["counts"] == {"completed": 1}
