"""Takes of a name, through the folder alone: which one is active, `.use`, and "@mug" in another job."""

import hashlib
import threading
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from clocks import AheadClock
from conftest import Serve, Workspace
from painted import PaintedEngine
from PIL import Image
from waiting import delete, wait_until

from hotfolder.engine import Request
from hotfolder.errors import JobError

TEXT = 'prompt = "a mug"\nsteps = 1\nseed = 1\nwidth = 64\nheight = 64\n'
NEXT = 'prompt = "next"\nsteps = 1\nseed = 7\n'
#: With a clock that is set ahead the daemon must not think that the GPU hangs.
PATIENT = {"WORKER_STEP_DEADLINE_S": "86400", "WORKER_LOAD_DEADLINE_S": "86400"}


@dataclass
class Gate:
    """Stops the engine before the picture with this prompt and seed until the test lets it go on."""

    prompt: str = "slow"
    seed: int = 1
    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, request: Request, _step: int) -> None:
        if (request.prompt, request.seed) == (self.prompt, self.seed):
            self.reached.set()
            assert self.go.wait(30)


def fail(request: Request, _step: int) -> None:
    """Fails every picture of the prompt "bad", and of "half" those with an even seed."""
    if request.prompt == "bad" or (request.prompt == "half" and request.seed % 2 == 0):
        raise JobError("out-of-memory", "it does not fit", "try 512x512")


def make(workspace: Workspace, name: str = "mug", text: str = TEXT) -> str:
    """Let a take be made; return its folder."""
    number = 1
    while (workspace.outputs / f"{name}_take{number:02d}").exists():
        number += 1
    workspace.drop(f"{name}.toml", text)
    job = f"{name}_take{number:02d}"
    workspace.wait_for(job, "completed", "partial", "failed")
    return job


def active(workspace: Workspace, name: str = "mug") -> dict[str, Any]:
    path = workspace.outputs / f"{name}.active.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def chosen(workspace: Workspace, name: str = "mug") -> tuple[str, str, int | None]:
    found = active(workspace, name)
    return found.get("take", ""), found.get("by", ""), found.get("picture")


def use(workspace: Workspace, file: str, text: str = "") -> None:
    """Drop a `.use`, and wait until it was acted upon."""
    path = workspace.drop(file, text)
    wait_until(lambda: not path.exists(), what=f"{file} is gone")


def answers(workspace: Workspace, job: str) -> str:
    return " ".join(notice["text"] for notice in workspace.status(job).get("notices", []))


def taken(workspace: Workspace, job: str, role: str = "image") -> dict[str, Any]:
    """What plan.toml says of the picture of a role, which lies in the job's own folder."""
    plan = tomllib.loads((workspace.outputs / job / "plan.toml").read_text(encoding="utf-8"))
    found: dict[str, Any] = next(source for source in plan["sources"] if source["role"] == role)
    copy = workspace.root / str(found["file"])
    assert copy.parent == workspace.outputs / job / "sources"
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == found["sha256"]
    return found


def same_bytes(workspace: Workspace, job: str, picture: str, role: str = "image") -> bool:
    """Whether a job has taken this picture of another one."""
    found = taken(workspace, job, role)
    assert found["via"] == f"outputs/{picture}"
    copy = workspace.root / str(found["file"])
    return copy.read_bytes() == (workspace.outputs / picture).read_bytes()


# --- which take is active ---


def test_the_newest_completed_take_is_active_and_a_file_says_so(workspace: Workspace, serve: Serve) -> None:
    serve(PaintedEngine(before_step=fail))
    make(workspace, text=f"{TEXT}count = 2\n")
    wait_until(lambda: active(workspace))
    files = [f"outputs/mug_take01/mug_take01_00{number}.png" for number in (1, 2)]
    assert active(workspace) == {
        "schema": 1,
        "job": "mug",
        "take": "mug_take01",
        "by": "newest",
        "files": [
            {
                "candidate": number,
                "file": file,
                "sha256": hashlib.sha256((workspace.root / file).read_bytes()).hexdigest(),
            }
            for number, file in enumerate(files, 1)
        ],
    }
    make(workspace)
    wait_until(lambda: chosen(workspace) == ("mug_take02", "newest", None))
    assert make(workspace, text=TEXT.replace("a mug", "bad")) == "mug_take03"
    assert make(workspace, text=f"{TEXT.replace('a mug', 'half')}count = 2\n") == "mug_take04"
    assert workspace.state("mug_take04") == "partial"
    make(workspace, "cup")
    wait_until(lambda: active(workspace, "cup"))
    assert chosen(workspace) == ("mug_take02", "newest", None), "what failed, also in part, is not active"


def test_a_take_that_is_completed_late_is_not_newer(workspace: Workspace, serve: Serve) -> None:
    gate = Gate()
    serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml", TEXT.replace("a mug", "slow"))
    assert gate.reached.wait(20)
    workspace.drop("mug.pause", "")
    workspace.wait_for("mug_take01", "held")
    gate.go.set()
    make(workspace)
    wait_until(lambda: chosen(workspace) == ("mug_take02", "newest", None))
    workspace.drop("mug_take01.resume", "")
    workspace.wait_for("mug_take01", "completed")
    make(workspace, "cup")
    assert chosen(workspace) == ("mug_take02", "newest", None)


def test_use_names_a_take_which_stays_until_an_empty_one_lets_it_go(workspace: Workspace, serve: Serve) -> None:
    serve()
    for _ in range(3):
        make(workspace, text=f"{TEXT}count = 3\n")
    use(workspace, "mug.use", "take = 2\npicture = 3\n")
    assert chosen(workspace) == ("mug_take02", "use", 3)
    assert len(active(workspace)["files"]) == 3
    use(workspace, "mug_take01.use")
    assert chosen(workspace) == ("mug_take01", "use", None)
    make(workspace)
    make(workspace, "cup")
    assert chosen(workspace) == ("mug_take01", "use", None), "a newer take changes nothing"
    use(workspace, "mug_take03.use.txt", "picture = 2\n")
    assert chosen(workspace) == ("mug_take03", "use", 2)
    use(workspace, "mug.use")
    assert chosen(workspace) == ("mug_take04", "newest", None)
    use(workspace, "mug.use", "picture = 1")
    assert chosen(workspace) == ("mug_take04", "use", 1)
    assert "notices" not in workspace.daemon_status()
    use(workspace, "mug.use")
    make(workspace)
    wait_until(lambda: chosen(workspace) == ("mug_take05", "newest", None))


def test_use_may_name_a_take_of_which_a_part_is_finished(workspace: Workspace, serve: Serve) -> None:
    serve(PaintedEngine(before_step=fail))
    make(workspace)
    make(workspace, text=f"{TEXT.replace('a mug', 'half')}count = 3\n")
    use(workspace, "mug.use", "take = 2\n")
    assert chosen(workspace) == ("mug_take02", "use", None)
    assert [one["candidate"] for one in active(workspace)["files"]] == [1, 3]


def test_use_of_a_take_that_ended_does_not_wait_for_another_one(workspace: Workspace, serve: Serve) -> None:
    gate = Gate()
    serve(PaintedEngine(before_step=gate))
    make(workspace)
    make(workspace)
    workspace.drop("mug.toml", TEXT.replace("a mug", "slow"))
    assert gate.reached.wait(20)
    use(workspace, "mug.use", "take = 1\n")
    assert chosen(workspace) == ("mug_take01", "use", None)
    gate.go.set()
    workspace.wait_for("mug_take03", "completed")
    make(workspace, "cup")
    assert chosen(workspace) == ("mug_take01", "use", None)


def test_a_use_that_comes_before_its_take_waits_for_it(workspace: Workspace, serve: Serve) -> None:
    gate = Gate(seed=2)
    serve(PaintedEngine(before_step=gate))
    waits = workspace.drop("mug.use", "take = 1\n")
    workspace.drop("mug.toml", f"{TEXT.replace('a mug', 'slow')}count = 2\n")
    assert gate.reached.wait(20)
    use(workspace, "mug.use.txt", "take = 1\npicture = 1\n")
    assert chosen(workspace) == ("mug_take01", "use", 1), "a picture that is finished can be chosen at once"
    assert waits.exists()
    gate.go.set()
    wait_until(lambda: not waits.exists())
    assert chosen(workspace) == ("mug_take01", "use", None)
    assert [one["candidate"] for one in active(workspace)["files"]] == [1, 2]


def test_a_use_that_comes_with_the_next_drop_is_about_that_one(workspace: Workspace, serve: Serve) -> None:
    serve(PaintedEngine(before_step=fail))
    make(workspace, text=TEXT.replace("a mug", "bad"))
    with (workspace.inbox / "mug.toml").open("w") as file:
        file.write(TEXT)
        file.flush()
        waits = workspace.drop("mug.use", "picture = 1\n")
        make(workspace, "cup")
        assert waits.exists()
    wait_until(lambda: not waits.exists())
    assert chosen(workspace) == ("mug_take02", "use", 1)
    assert not answers(workspace, "mug_take01")


def test_a_take_that_was_chosen_while_it_was_made_is_told_whole_once_it_is_completed(
    workspace: Workspace, serve: Serve
) -> None:
    gate = Gate(seed=2)
    serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml", f"{TEXT.replace('a mug', 'slow')}count = 2\n")
    assert gate.reached.wait(20)
    use(workspace, "mug.use", "take = 1\npicture = 1\n")
    assert [one["candidate"] for one in active(workspace)["files"]] == [1]
    gate.go.set()
    wait_until(lambda: [one["candidate"] for one in active(workspace)["files"]] == [1, 2])
    assert chosen(workspace) == ("mug_take01", "use", 1)


@pytest.mark.parametrize(
    ("file", "text", "answer", "told"),
    [
        ("mug.use", "take = 2\n", "mug_take02 ended failed and has no finished picture", "mug_take02"),
        (
            "mug.use",
            "take = 1\npicture = 4\n",
            "mug_take01 ended completed and has no finished picture 4",
            "mug_take02",
        ),
        ("mug.use", "take = \n", "not TOML", "mug_take02"),
        ("mug.use", "picks = [1]\n", "unknown key picks; take and picture are accepted", "mug_take02"),
        ("mug.use", "take = 0\n", "take = 0: a number from 1 on is accepted", "mug_take02"),
        ("mug.use", "take = true\n", "a number from 1 on", "mug_take02"),
        ("mug.use", 'picture = "2"\n', "picture = 2: a number from 1 on is accepted", "mug_take02"),
        ("mug_take01.use", "take = 2\n", "the name of the file says take 1", "mug_take01"),
    ],
)
def test_a_use_that_cannot_be_done_is_answered_and_removed(
    workspace: Workspace, serve: Serve, *, file: str, text: str, answer: str, told: str
) -> None:
    serve(PaintedEngine(before_step=fail))
    make(workspace)
    make(workspace, text=TEXT.replace("a mug", "bad"))
    before = active(workspace)
    use(workspace, file, text)
    wait_until(lambda: answer in answers(workspace, told))
    wait_until(lambda: answer in str(workspace.daemon_status().get("notices")))
    assert active(workspace) == before


def test_a_use_of_a_take_that_is_not_there_is_answered_after_a_minute(workspace: Workspace, serve: Serve) -> None:
    clock = AheadClock()
    serve(clock=clock, env=PATIENT)
    make(workspace)
    strange = workspace.drop("mug.use", "take = 7\n")
    nobody = workspace.drop("nobody.use", "")
    make(workspace, "cup")
    assert strange.exists()
    assert nobody.exists()
    clock.turn(70)
    wait_until(lambda: not strange.exists() and not nobody.exists())
    wait_until(lambda: "there is no mug_take07" in answers(workspace, "mug_take01"))
    wait_until(lambda: "use: there is no take of nobody" in str(workspace.daemon_status().get("notices")))


def test_a_use_of_a_picture_that_was_deleted_is_answered(workspace: Workspace, serve: Serve) -> None:
    serve()
    make(workspace, text=f"{TEXT}count = 2\n")
    make(workspace)
    for number in (2, 1):
        (workspace.outputs / f"mug_take01/mug_take01_00{number}.png").unlink()
        use(workspace, "mug_take01.use", f"picture = {number}\n")
    use(workspace, "mug_take01.use")
    told = [f"use: mug_take01 ended completed and has no finished picture{which}" for which in (" 2", " 1", "")]
    wait_until(lambda: [one["text"] for one in workspace.status("mug_take01").get("notices", [])] == told)
    assert chosen(workspace) == ("mug_take02", "newest", None)


def test_a_use_of_what_lies_behind_a_link_is_answered(workspace: Workspace, serve: Serve) -> None:
    serve()
    make(workspace)
    make(workspace)
    away = (workspace.outputs / "mug_take01").rename(workspace.root / "away")
    (workspace.outputs / "mug_take01").symlink_to(away)
    use(workspace, "mug_take01.use")
    wait_until(lambda: "no finished picture" in str(workspace.daemon_status().get("notices")))
    assert chosen(workspace) == ("mug_take02", "newest", None)


@pytest.mark.parametrize("restart", [False, True], ids=["at once", "after a restart"])
def test_what_the_disk_did_not_take_is_written_as_soon_as_it_does(
    workspace: Workspace, serve: Serve, *, restart: bool
) -> None:
    clock = AheadClock()
    served = serve(clock=clock, env=PATIENT)
    in_the_way = workspace.outputs / ".mug.active.toml.tmp"
    in_the_way.mkdir()
    make(workspace)
    make(workspace, "cup")
    assert not active(workspace)
    if restart:
        served.stop()
    in_the_way.rmdir()
    if restart:
        serve()
    clock.turn(20)
    wait_until(lambda: chosen(workspace) == ("mug_take01", "newest", None))
    wait_until(lambda: list((workspace.root / ".hotfolder/live").glob("*/*")) == [], what="it is let go of")


# --- "@mug" ---


def test_a_job_begins_with_the_active_picture_of_another_one(workspace: Workspace, serve: Serve) -> None:
    serve()
    make(workspace, text=f"{TEXT}count = 2\n")
    workspace.drop("next.toml", f'{NEXT}image = "@mug"\n')
    workspace.wait_for("next_take01", "completed")
    assert same_bytes(workspace, "next_take01", "mug_take01/mug_take01_001.png")
    assert taken(workspace, "next_take01")["name"] == "@mug"
    sidecar = tomllib.loads((workspace.outputs / "next_take01/next_take01_001.png.toml").read_text())
    assert [(source["name"], source["via"]) for source in sidecar["sources"]] == [
        ("@mug", "outputs/mug_take01/mug_take01_001.png")
    ]
    use(workspace, "mug.use", "picture = 2\n")
    workspace.drop("next.toml", f'{NEXT}image = "@mug"\n')
    workspace.wait_for("next_take02", "completed")
    assert same_bytes(workspace, "next_take02", "mug_take01/mug_take01_002.png")


def test_a_dropped_plan_or_sidecar_has_the_picture_though_the_other_job_is_gone(
    workspace: Workspace, serve: Serve
) -> None:
    serve()
    make(workspace)
    workspace.drop("next.toml", f'{NEXT}image = "@mug"\n')
    workspace.wait_for("next_take01", "completed")
    delete(workspace.outputs / "mug_take01")
    for number, file in ((2, "plan.toml"), (3, "next_take01_001.png.toml")):
        workspace.drop("next.toml", (workspace.outputs / "next_take01" / file).read_text())
        workspace.wait_for(f"next_take0{number}", "completed")
        again = taken(workspace, f"next_take0{number}")
        assert again["name"] == "@mug"
        assert again["via"] == "outputs/mug_take01/mug_take01_001.png"
        assert again["sha256"] == taken(workspace, "next_take01")["sha256"]


@pytest.mark.parametrize(
    ("said", "picture"),
    [
        ("@mug", "mug_take02/mug_take02_001.png"),
        ("@mug.toml", "mug_take02/mug_take02_001.png"),
        ("@mug/2", "mug_take02/mug_take02_002.png"),
        ("@mug_take01", "mug_take01/mug_take01_001.png"),
        ("@mug_take01/2", "mug_take01/mug_take01_002.png"),
    ],
)
def test_a_reference_means_a_picture(workspace: Workspace, serve: Serve, said: str, picture: str) -> None:
    serve()
    for _ in range(2):
        make(workspace, text=f"{TEXT}count = 2\n")
    workspace.drop("next.toml", f'{NEXT}image = "{said}"\n')
    workspace.wait_for("next_take01", "completed")
    assert same_bytes(workspace, "next_take01", picture)


@pytest.mark.parametrize("said", ["@", "@/1", "@ .", "@mug/", "@mug/0", "@mug/x", "@mug/1/2", "@mug_take01_002.png"])
def test_a_reference_that_means_nothing_is_refused(workspace: Workspace, serve: Serve, said: str) -> None:
    serve()
    workspace.drop("next.toml", f'{NEXT}image = "{said}"\n')
    status = workspace.wait_for("next_take01", "rejected")
    assert (status["error"]["code"], status["problems"][0]["line"]) == ("bad-value", 4)
    assert "@mug_take01/2" in status["error"]["hint"]


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("Tasse №1 [rot]", "Tasse №1 [rot].toml", "@Tasse №1 [rot]"),
        ("a_b", "a:b.toml", "@a:b"),
        ("_@mug", "@mug.toml", "@@mug"),
        ("caf\u00e9", "cafe\u0301.toml", "@cafe\u0301/1"),
        ("_con", "con.toml", "@con"),
        ("mug_take02", "mug_take02_take09.toml", "@mug_take02_take01"),
        ("mug.v2", "mug.v2.toml", "@mug.v2_take01/1"),
    ],
)
def test_names_are_made_safe_as_they_are_everywhere(
    workspace: Workspace, serve: Serve, name: str, file: str, said: str
) -> None:
    serve()
    workspace.drop(file, TEXT)
    workspace.wait_for(f"{name}_take01", "completed")
    workspace.drop("next.toml", f'{NEXT}image = "{said}"\n')
    workspace.wait_for("next_take01", "completed")
    assert same_bytes(workspace, "next_take01", f"{name}_take01/{name}_take01_001.png")
    assert taken(workspace, "next_take01")["name"] == said


def test_a_mask_may_be_the_picture_of_another_job(workspace: Workspace, serve: Serve) -> None:
    serve()
    make(workspace)
    make(workspace, "shape")
    workspace.drop("next.toml", f'preset = "noise-fill"\n{NEXT}image = "@mug"\nmask = "@shape_take01/1"\n')
    workspace.wait_for("next_take01", "completed")
    assert same_bytes(workspace, "next_take01", "mug_take01/mug_take01_001.png")
    assert same_bytes(workspace, "next_take01", "shape_take01/shape_take01_001.png", "mask")


def test_a_logo_may_be_the_picture_of_another_job_but_a_font_may_not(workspace: Workspace, serve: Serve) -> None:
    serve()
    make(workspace, "logo")
    (workspace.inbox / "pause").touch()
    stages = '[[stages]]\nstage = "generate"\n[[stages]]\nstage = "overlay"\n{}[[stages]]\nstage = "export"\n'
    workspace.drop("next.toml", NEXT + stages.format('image = "@logo"\n'))
    wait_until(lambda: "candidates" in workspace.status("next_take01"), what="it has a plan")
    assert same_bytes(workspace, "next_take01", "logo_take01/logo_take01_001.png", "overlay.image")
    workspace.drop("text.toml", NEXT + stages.format('text = "x"\nfont = "@logo"\n'))
    assert workspace.wait_for("text_take01", "rejected")["error"]["code"] == "forbidden-path"


def test_a_job_waits_for_every_live_take_and_then_has_the_newest(workspace: Workspace, serve: Serve) -> None:
    gate = Gate()
    serve(PaintedEngine(before_step=gate))
    make(workspace)
    for _ in range(2):
        workspace.drop("mug.toml", TEXT.replace("a mug", "slow"))
        wait_until(lambda: not (workspace.inbox / "mug.toml").exists())
    assert gate.reached.wait(20)
    workspace.drop("next.toml", f'{NEXT}image = "@mug"\n')
    status = workspace.wait_for("next_take01", "waiting")
    assert status["waiting_for"] == ["@mug"]
    workspace.drop("first.toml", f'{NEXT}image = "@mug_take01"\n')
    wait_until(lambda: "candidates" in workspace.status("first_take01"), what="an ended take is not waited for")
    gate.go.set()
    status = workspace.wait_for("next_take01", "completed")
    assert "waiting_for" not in status
    assert same_bytes(workspace, "next_take01", "mug_take03/mug_take03_001.png")


def test_a_job_does_not_wait_where_somebody_chose_the_active_take(workspace: Workspace, serve: Serve) -> None:
    gate = Gate()
    serve(PaintedEngine(before_step=gate))
    make(workspace)
    workspace.drop("mug.toml", TEXT.replace("a mug", "slow"))
    assert gate.reached.wait(20)
    workspace.drop("next.toml", f'{NEXT}image = "@mug"\n')
    workspace.wait_for("next_take01", "waiting")
    use(workspace, "mug_take01.use")
    workspace.wait_for("next_take01", "queued")
    assert same_bytes(workspace, "next_take01", "mug_take01/mug_take01_001.png")
    gate.go.set()
    workspace.wait_for("next_take01", "completed")


def test_a_candidate_of_a_running_job_is_taken_as_soon_as_it_is_finished(workspace: Workspace, serve: Serve) -> None:
    gate = Gate(seed=3)
    serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml", f"{TEXT.replace('a mug', 'slow')}count = 4\n")
    assert gate.reached.wait(20)
    workspace.drop("whole.toml", f'{NEXT}image = "@mug"\n')
    workspace.drop("later.toml", f'{NEXT}image = "@mug_take01/4"\n')
    workspace.drop("next.toml", f'{NEXT}image = "@mug_take01/2"\n')
    wait_until(lambda: "candidates" in workspace.status("next_take01"), what="it has its picture")
    assert same_bytes(workspace, "next_take01", "mug_take01/mug_take01_002.png")
    assert workspace.wait_for("later_take01", "waiting")["waiting_for"] == ["@mug_take01/4"]
    workspace.wait_for("whole_take01", "waiting")
    gate.go.set()
    for job in ("next_take01", "later_take01", "whole_take01"):
        workspace.wait_for(job, "completed")
    assert same_bytes(workspace, "later_take01", "mug_take01/mug_take01_004.png")


def test_a_job_that_waits_goes_on_waiting_after_a_restart(workspace: Workspace, serve: Serve) -> None:
    reached, never = threading.Event(), threading.Event()

    def take_long(request: Request, _step: int) -> None:
        if request.seed == 2:
            reached.set()
            never.wait(0.02)

    served = serve(PaintedEngine(before_step=take_long))
    workspace.drop("mug.toml", f"{TEXT.replace('steps = 1', 'steps = 1000')}count = 3\n")
    assert reached.wait(20)
    workspace.drop("next.toml", f'{NEXT}image = "@mug"\n')
    workspace.drop("third.toml", f'{NEXT}image = "@mug_take01/3"\n')
    for job in ("next_take01", "third_take01"):
        workspace.wait_for(job, "waiting")
    served.stop()
    assert workspace.state("mug_take01") == "queued"
    (workspace.inbox / "pause").touch()
    serve()
    wait_until(lambda: workspace.daemon_status().get("state") == "paused")
    assert workspace.state("next_take01") == "waiting"
    (workspace.inbox / "pause").unlink()
    for job in ("next_take01", "third_take01"):
        workspace.wait_for(job, "completed")
    assert same_bytes(workspace, "next_take01", "mug_take01/mug_take01_001.png")
    assert same_bytes(workspace, "third_take01", "mug_take01/mug_take01_003.png")


def test_what_was_chosen_holds_after_a_restart_and_what_nobody_chose_is_told_by_the_journals(
    workspace: Workspace, serve: Serve
) -> None:
    served = serve()
    for name in ("mug", "mug", "cup", "cup"):
        make(workspace, name)
    use(workspace, "mug_take01.use")
    served.stop()
    (workspace.outputs / "cup.active.toml").unlink()
    serve()
    workspace.drop("next.toml", f'preset = "noise-fill"\n{NEXT}image = "@mug"\nmask = "@cup"\n')
    workspace.wait_for("next_take01", "completed")
    assert same_bytes(workspace, "next_take01", "mug_take01/mug_take01_001.png")
    assert same_bytes(workspace, "next_take01", "cup_take02/cup_take02_001.png", "mask")


@pytest.mark.parametrize("said", ["@mug", "@mug_take01", "@mug_take01/1"])
def test_a_job_that_ended_without_pictures_fails_the_one_that_names_it_at_once(
    workspace: Workspace, serve: Serve, said: str
) -> None:
    serve(PaintedEngine(before_step=fail))
    make(workspace, text=TEXT.replace("a mug", "bad"))
    workspace.drop("next.toml", f'{NEXT}image = "{said}"\n')
    status = workspace.wait_for("next_take01", "failed")
    assert status["error"]["code"] == "missing-picture"
    assert said in status["error"]["message"]
    assert "mug_take01 ended failed" in status["error"]["message"]
    make(workspace)
    if said == "@mug":
        workspace.drop("next.resume", "")
        workspace.wait_for("next_take01", "completed")
        assert same_bytes(workspace, "next_take01", "mug_take02/mug_take02_001.png")


def test_a_job_that_is_cancelled_fails_the_one_that_waits_for_it(workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.drop("mug.toml", f'{TEXT}image = "never.png"\n')
    workspace.wait_for("mug_take01", "waiting")
    workspace.drop("next.toml", f'{NEXT}image = "@mug"\n')
    workspace.wait_for("next_take01", "waiting")
    workspace.drop("mug.cancel", "")
    status = workspace.wait_for("next_take01", "failed")
    assert "mug_take01 ended cancelled" in status["error"]["message"]


def test_a_part_is_not_active_by_itself_but_can_be_named(workspace: Workspace, serve: Serve) -> None:
    serve(PaintedEngine(before_step=fail))
    make(workspace, text=f"{TEXT.replace('a mug', 'half').replace('seed = 1', 'seed = 2')}count = 2\n")
    for name, said in (("active", "@mug"), ("failed", "@mug_take01/1"), ("first", "@mug_take01")):
        workspace.drop(f"{name}.toml", f'{NEXT}image = "{said}"\n')
    assert "mug_take01 ended partial" in workspace.wait_for("active_take01", "failed")["error"]["message"]
    assert "without a picture 1" in workspace.wait_for("failed_take01", "failed")["error"]["message"]
    workspace.wait_for("first_take01", "completed")
    assert same_bytes(workspace, "first_take01", "mug_take01/mug_take01_002.png")
    use(workspace, "mug_take01.use")
    workspace.drop("active.toml", f'{NEXT}image = "@mug"\n')
    workspace.wait_for("active_take02", "completed")


def test_where_there_is_no_such_job_it_is_waited_for_like_any_picture(workspace: Workspace, serve: Serve) -> None:
    clock = AheadClock()
    serve(clock=clock, env=PATIENT)
    for name, said in (("next", "@mug"), ("never", "@cup"), ("second", "@mug_take02")):
        workspace.drop(f"{name}.toml", f'{NEXT}image = "{said}"\n')
        assert workspace.wait_for(f"{name}_take01", "waiting")["waiting_for"] == [said]
    make(workspace)
    workspace.wait_for("next_take01", "completed")
    clock.turn(620)
    for name, said in (("never", "@cup"), ("second", "@mug_take02")):
        status = workspace.wait_for(f"{name}_take01", "failed")
        assert status["error"]["code"] == "missing-picture"
        assert f"{said} did not come within 600 s" in status["error"]["message"]


def test_a_job_that_is_made_is_waited_for_without_limit(workspace: Workspace, serve: Serve) -> None:
    clock, gate = AheadClock(), Gate()
    serve(PaintedEngine(before_step=gate), clock=clock, env=PATIENT)
    workspace.drop("mug.toml", TEXT.replace("a mug", "slow"))
    assert gate.reached.wait(20)
    workspace.drop("next.toml", f'{NEXT}image = "@mug"\n')
    workspace.drop("never.toml", f'{NEXT}image = "@cup"\n')
    for name in ("next", "never"):
        workspace.wait_for(f"{name}_take01", "waiting")
    clock.turn(4000)
    workspace.wait_for("never_take01", "failed")
    assert workspace.state("next_take01") == "waiting"
    gate.go.set()
    workspace.wait_for("next_take01", "completed")


def test_its_own_name_means_the_takes_before(workspace: Workspace, serve: Serve) -> None:
    gate = Gate()
    serve(PaintedEngine(before_step=gate))
    workspace.drop("mug.toml", f'{TEXT}image = "@mug"\n')
    status = workspace.wait_for("mug_take01", "failed")
    assert "there is no take of mug before mug_take01" in status["error"]["message"]
    workspace.drop("mug.toml", f'{TEXT}image = "@mug_take02/1"\n')
    status = workspace.wait_for("mug_take02", "failed")
    assert "a picture of its own" in status["error"]["message"]
    workspace.drop("mug.toml", TEXT.replace("a mug", "slow"))
    assert gate.reached.wait(20)
    for number in (4, 5):
        workspace.drop("mug.toml", f'{TEXT}image = "@mug"\n')
        workspace.wait_for(f"mug_take0{number}", "waiting")
    gate.go.set()
    for number in (4, 5):
        workspace.wait_for(f"mug_take0{number}", "completed")
        assert same_bytes(workspace, f"mug_take0{number}", f"mug_take0{number - 1}/mug_take0{number - 1}_001.png")


def test_jobs_that_wait_for_each_other_in_a_circle_fail_and_say_so(workspace: Workspace, serve: Serve) -> None:
    serve()
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        workspace.drop(f"{name}.toml", f'{NEXT}image = "@{other}"\n')
    errors = [workspace.wait_for(f"{name}_take01", "failed")["error"] for name in "abc"]
    assert {error["code"] for error in errors} == {"missing-picture"}
    assert sum("in turn" in error["message"] for error in errors) == 1
    assert sum("ended failed" in error["message"] for error in errors) == 2


def test_of_a_batch_the_items_whose_picture_cannot_be_had_fail_alone(workspace: Workspace, serve: Serve) -> None:
    gate = Gate()

    def step(request: Request, number: int) -> None:
        fail(request, number)
        gate(request, number)

    serve(PaintedEngine(before_step=step))
    workspace.picture("own.png")
    make(workspace)
    make(workspace, "broken", TEXT.replace("a mug", "bad"))
    workspace.drop("late.toml", TEXT.replace("a mug", "slow"))
    assert gate.reached.wait(20)
    images = '["@mug", "@broken", "own.png", "@late", "@next"]'
    workspace.drop("next.toml", f"{NEXT}[matrix]\nimage = {images}\n")
    wait_until(lambda: workspace.status("next_take01").get("waiting_for") == ["@late"])
    gate.go.set()
    status = workspace.wait_for("next_take01", "partial")
    assert (status["done"], status["failed"]) == (3, 2)
    assert [(failure["item"], failure["code"]) for failure in status["failures"]] == [
        (2, "missing-picture"),
        (5, "missing-picture"),
    ]
    assert "broken_take01 ended failed" in status["failures"][0]["message"]


def test_of_a_batch_what_another_job_makes_is_waited_for_longer_than_what_nobody_makes(
    workspace: Workspace, serve: Serve
) -> None:
    clock, gate = AheadClock(), Gate()
    serve(PaintedEngine(before_step=gate), clock=clock, env=PATIENT)
    workspace.drop("mug.toml", TEXT.replace("a mug", "slow"))
    assert gate.reached.wait(20)
    workspace.drop("next.toml", f'{NEXT}[matrix]\nimage = ["@mug", "@nobody"]\n')
    workspace.wait_for("next_take01", "waiting")
    clock.turn(620)
    wait_until(lambda: workspace.status("next_take01").get("waiting_for") == ["@mug"])
    gate.go.set()
    status = workspace.wait_for("next_take01", "partial")
    assert (status["done"], [failure["item"] for failure in status["failures"]]) == (1, [2])


def test_a_pattern_finds_pictures_in_the_inbox_only(workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.picture("@mug.png")
    workspace.drop("next.toml", f'{NEXT}[matrix]\nimage = "*.png"\n')
    workspace.wait_for("next_take01", "completed")
    assert "via" not in taken(workspace, "next_take01")
    workspace.drop("next.toml", f'{NEXT}[matrix]\nimage = "@*"\n')
    assert workspace.wait_for("next_take02", "rejected")["error"]["code"] == "bad-value"


# --- what somebody did to the outputs ---


def replace_by_link(picture: Path) -> None:
    picture.rename(picture.with_name("elsewhere.png"))
    picture.symlink_to("elsewhere.png")


def replace_folder_by_link(picture: Path) -> None:
    away = picture.parent.rename(picture.parent.with_name("away"))
    picture.parent.symlink_to(away)


def repaint(picture: Path) -> None:
    Image.new("RGB", (64, 64), "blue").save(picture)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (replace_by_link, "forbidden-path"),
        (replace_folder_by_link, "forbidden-path"),
        (Path.unlink, "missing-picture"),
        (repaint, "changed-file"),
    ],
)
@pytest.mark.parametrize("said", ["@mug", "@mug_take01/1"])
@pytest.mark.parametrize("named", [False, True], ids=["newest", "by use"])
def test_a_picture_that_is_not_as_it_was_finished_is_refused(
    workspace: Workspace, serve: Serve, change: Callable[[Path], None], code: str, said: str, *, named: bool
) -> None:
    serve()
    make(workspace)
    if named:
        use(workspace, "mug_take01.use")
    # Of this name it may lie in the inbox; that is another one.
    workspace.picture("mug_take01_001.png")
    change(workspace.outputs / "mug_take01/mug_take01_001.png")
    workspace.drop("next.toml", f'{NEXT}image = "{said}"\n')
    error = workspace.wait_for("next_take01", "failed")["error"]
    assert error["code"] == code
    assert said in error["message"]
    if code != "forbidden-path":
        assert "outputs/mug_take01/mug_take01_001.png" in error["message"]


def test_a_take_that_was_deleted_leaves_the_one_before(workspace: Workspace, serve: Serve) -> None:
    serve()
    make(workspace)
    make(workspace)
    delete(workspace.outputs / "mug_take02")
    workspace.drop("next.toml", f'{NEXT}image = "@mug"\n')
    workspace.wait_for("next_take01", "completed")
    assert same_bytes(workspace, "next_take01", "mug_take01/mug_take01_001.png")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("schema = 2\n", "newer-schema"),
        ("take = \n", "changed-file"),
        ("schema = 1\n", "changed-file"),
        (
            (
                'schema = 1\njob = "mug"\ntake = "mug_take01"\nby = "use"\n[[files]]\ncandidate = 1\n'
                f'file = "jobs_inbox/a.png"\nsha256 = "{"0" * 64}"\n'
            ),
            "changed-file",
        ),
        (
            (
                'schema = 1\njob = "mug"\ntake = "mug_take01"\nby = "use"\n[[files]]\ncandidate = 1\n'
                f'file = "outputs/../jobs_inbox/a.png"\nsha256 = "{"0" * 64}"\n'
            ),
            "forbidden-path",
        ),
    ],
)
def test_an_active_file_that_was_edited_leads_nowhere_and_use_writes_it_again(
    workspace: Workspace, serve: Serve, text: str, code: str
) -> None:
    serve()
    make(workspace)
    wait_until(lambda: active(workspace))
    workspace.picture("a.png")
    (workspace.outputs / "mug.active.toml").write_text(text)
    workspace.drop("next.toml", f'{NEXT}image = "@mug"\n')
    error = workspace.wait_for("next_take01", "failed")["error"]
    assert error["code"] == code
    if code != "forbidden-path":
        assert "outputs/mug.active.toml" in error["message"]
    make(workspace)
    assert (workspace.outputs / "mug.active.toml").read_text() == text, "it may say what somebody chose"
    use(workspace, "mug.use")
    assert chosen(workspace) == ("mug_take02", "newest", None)


def test_a_drain_is_not_kept_by_a_job_that_waits_for_one_that_is_held(workspace: Workspace, serve: Serve) -> None:
    served = serve()
    workspace.drop("folder.toml", "hold = true\n", lane="kept")
    workspace.drop("mug.toml", TEXT, lane="kept")
    workspace.wait_for("mug_take01", "held")
    for name, said in (("next", "@mug"), ("after", "@next")):
        workspace.drop(f"{name}.toml", f'{NEXT}image = "{said}"\n')
        workspace.wait_for(f"{name}_take01", "waiting")
    served.stop()
    drained = serve(drain=True)
    assert drained.join() == 0
    assert [workspace.state(f"{name}_take01") for name in ("mug", "next", "after")] == ["held", "waiting", "waiting"]
