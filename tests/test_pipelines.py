"""Pipelines, batches, review, resume and retry, from drop to picture, with a painted engine."""

import errno
import threading
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve, Workspace
from painted import PaintedEngine
from PIL import Image
from waiting import wait_until

from hotfolder import journal
from hotfolder.engine import Request
from hotfolder.errors import JobError

SMALL = "steps = 1\nwidth = 64\nheight = 64\n"


def pixels(workspace: Workspace, job: str) -> dict[str, str]:
    """File without the take -> sha256 of the pixels that its sidecar names."""
    return {
        path.name.removeprefix(job): tomllib.loads(path.read_text())["pixels_sha256"]
        for path in sorted((workspace.outputs / job).glob("*.png.toml"))
    }


def sidecar(workspace: Workspace, job: str, candidate: int = 1) -> dict[str, Any]:
    return tomllib.loads((workspace.outputs / job / f"{job}_{candidate:03d}.png.toml").read_text())


EDIT = """
[[stages]]
stage = "resize"
width = 40
height = 30

[[stages]]
stage = "grayscale"
"""

FOUR = (
    SMALL
    + """
prompt = "a mug"
count = 3
[[stages]]
stage = "generate"
[[stages]]
stage = "resize"
width = 48
[[stages]]
stage = "color"
brightness = 1.2
[[stages]]
stage = "export"
"""
)


def test_a_pipeline_without_a_model_works_on_a_picture(workspace: Workspace, serve: Serve) -> None:
    workspace.picture("photo.png", "red", (80, 60))
    workspace.drop("edit.toml", 'image = "photo.png"\n' + EDIT)
    engine = PaintedEngine()
    serve(engine)
    status = workspace.wait_for("edit_take01")
    assert status["state"] == "completed"
    assert [stage["name"] for stage in status["stages"]] == ["resize", "grayscale", "export"]
    assert {stage["state"] for stage in status["stages"]} == {"completed"}
    assert [stage["done"] for stage in status["stages"]] == [1, 1, 1]
    with Image.open(workspace.outputs / "edit_take01" / "edit_take01_001.png") as picture:
        assert picture.size == (40, 30)
        red, green, blue = picture.convert("RGB").getpixel((3, 3))  # type: ignore[misc]
        assert red == green == blue
        assert "parameters" not in picture.info
    assert engine.made == []
    told = sidecar(workspace, "edit_take01")
    assert [stage["name"] for stage in told["stages"]] == ["resize", "grayscale", "export"]
    assert "preset" not in told
    assert told["stages"][1]["took"] == told["stages"][0]["gave"]


def test_every_combination_of_a_matrix_is_made(workspace: Workspace, serve: Serve) -> None:
    text = SMALL + 'prompt = "a mug"\n[matrix]\npreset = ["noise", "other"]\nseed = [1, 2, 3]\n'
    own_preset(workspace, "other")
    workspace.drop("grid.toml", text)
    engine = PaintedEngine()
    serve(engine)
    status = workspace.wait_for("grid_take01")
    assert (status["state"], status["items"], status["candidates"], status["done"]) == ("completed", 6, 6, 6)
    assert [one["seed"] for one in status["outputs"]] == [1, 2, 3, 1, 2, 3]
    assert len(engine.loads) == 2, "each model is loaded once"
    assert len(set(pixels(workspace, "grid_take01").values())) == 3, "the painted engine does not look at the model"
    assert sidecar(workspace, "grid_take01", 5)["values"] == {"preset": "other", "seed": 2}


def test_one_candidate_that_fails_leaves_the_others_and_a_partial_job(workspace: Workspace, serve: Serve) -> None:
    def fail_seed_two(request: Request, step: int) -> None:
        if request.seed == 2 and request.preset == "other":
            raise JobError("bad-value", "this one cannot be")

    own_preset(workspace, "other")
    workspace.drop("grid.toml", SMALL + 'prompt = "a mug"\n[matrix]\npreset = ["noise", "other"]\nseed = [1, 2, 3]\n')
    serve(PaintedEngine(before_step=fail_seed_two))
    status = workspace.wait_for("grid_take01")
    assert (status["state"], status["done"], status["failed"]) == ("partial", 5, 1)
    assert status["failures"] == [
        {
            "code": "bad-value",
            "message": "this one cannot be",
            "stage": "generate",
            "stage_index": 1,
            "candidate": 5,
            "item": 5,
        }
    ]


def own_preset(workspace: Workspace, name: str) -> None:
    folder = workspace.root / "presets"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.toml").write_text(f'extends = "noise"\n[model]\nrepo = "hotfolder/{name}"\n')


def test_pictures_are_named_by_a_pattern(workspace: Workspace, serve: Serve) -> None:
    for number in range(3):
        workspace.picture(f"shots/p{number}.png", "blue", (20 + number, 20))
    workspace.drop("all.toml", EDIT + '[matrix]\nimage = "shots/*.png"\n')
    serve()
    status = workspace.wait_for("all_take01")
    assert (status["state"], status["items"], status["done"]) == ("completed", 3, 3)
    sources = sorted(path.name for path in (workspace.outputs / "all_take01" / "sources").iterdir())
    assert sources == ["p0.png", "p1.png", "p2.png"]


def test_a_broken_picture_fails_its_own_item_only(workspace: Workspace, serve: Serve) -> None:
    workspace.picture("a.png", "blue")
    (workspace.inbox / "b.png").write_bytes(b"this is no picture at all\n")
    workspace.drop("two.toml", EDIT + '[matrix]\nimage = ["a.png", "b.png"]\n')
    serve()
    status = workspace.wait_for("two_take01")
    assert (status["state"], status["done"], status["failed"]) == ("partial", 1, 1)
    assert status["failures"][0]["code"] == "bad-picture"
    assert status["failures"][0]["candidate"] == 2


def test_items_come_from_a_list(workspace: Workspace, serve: Serve) -> None:
    (workspace.inbox / "list.csv").write_text('prompt,seed,steps\n"a mug, red",7,\na cup,8,2\n')
    workspace.drop("list-job.toml", 'width = 64\nheight = 64\nsteps = 1\nitems = "list.csv"\n')
    engine = PaintedEngine()
    serve(engine)
    status = workspace.wait_for("list-job_take01")
    assert (status["state"], status["items"]) == ("completed", 2)
    assert [(one.prompt, one.seed, one.steps) for one in engine.made] == [("a mug, red", 7, 1), ("a cup", 8, 2)]


def test_a_stage_that_adds_keeps_what_came_in_beside(workspace: Workspace, serve: Serve) -> None:
    workspace.drop(
        "ads.toml",
        SMALL
        + 'prompt = "a mug"\nseed = 10\n[[stages]]\nstage = "generate"\nid = "hero"\n'
        + '[[stages]]\nstage = "generate"\nid = "more"\ncount = 3\nadd = true\n'
        + '[[stages]]\nstage = "variants"\naspects = ["1:1", "16:9"]\n[[stages]]\nstage = "export"\n',
    )
    engine = PaintedEngine()
    serve(engine)
    status = workspace.wait_for("ads_take01")
    assert (status["state"], status["candidates"], status["done"]) == ("completed", 4, 4)
    assert [one.seed for one in engine.made] == [10, 11, 12, 13]
    names = [one["file"] for one in status["outputs"]]
    assert names[:2] == ["ads_take01_001_1x1.png", "ads_take01_001_16x9.png"]
    assert len(names) == 8


def test_the_sharpest_candidates_go_on(workspace: Workspace, serve: Serve) -> None:
    workspace.drop(
        "best.toml",
        SMALL + 'prompt = "a mug"\ncount = 4\n[[stages]]\nstage = "generate"\n[[stages]]\nstage = "select"\nkeep = 2\n',
    )
    serve()
    status = workspace.wait_for("best_take01")
    assert (status["state"], status["done"], status["left_out"], status["failed"]) == ("completed", 2, 2, 0)


REVIEW = (
    SMALL
    + 'prompt = "a mug"\ncount = 4\nseed = 1\n[[stages]]\nstage = "generate"\n'
    + '[[stages]]\nstage = "select"\nby = "review"\n[[stages]]\nstage = "grayscale"\n'
)


def test_a_person_picks_also_after_a_restart(workspace: Workspace, serve: Serve) -> None:
    workspace.drop("pick.toml", REVIEW)
    served = serve()
    status = workspace.wait_for("pick_take01", "review")
    assert [one["candidate"] for one in status["outputs"]] == [1, 2, 3, 4]
    assert status["stages"][1]["state"] == "review"
    assert (workspace.outputs / "pick_take01" / status["outputs"][0]["file"]).is_file()
    served.stop()
    assert workspace.state("pick_take01") == "review"
    engine = PaintedEngine()
    serve(engine)
    workspace.drop("pick.resume", "picks = [1, 4]\n")
    status = workspace.wait_for("pick_take01")
    assert (status["state"], status["done"], status["left_out"]) == ("completed", 2, 2)
    assert [one["candidate"] for one in status["outputs"]] == [1, 4]
    assert engine.made == []


def test_picks_that_are_not_there_change_nothing(workspace: Workspace, serve: Serve) -> None:
    workspace.drop("pick.toml", REVIEW)
    serve()
    workspace.wait_for("pick_take01", "review")
    for text in ("picks = [9]\n", "", "picks = []\n", 'from = "generate"\n'):
        path = workspace.drop("pick.resume", text)
        wait_until(lambda path=path: not path.exists())  # type: ignore[misc]
        assert workspace.state("pick_take01") == "review"
    texts = [one["text"] for one in workspace.status("pick_take01")["notices"]]
    assert any("candidate 9 is not there" in text for text in texts)
    assert any("waits for you to pick" in text for text in texts)


def test_a_changed_intermediate_is_refused_by_name_and_taken_with_force(workspace: Workspace, serve: Serve) -> None:
    workspace.drop("pick.toml", REVIEW)
    serve()
    status = workspace.wait_for("pick_take01", "review")
    spoiled = status["outputs"][0]["file"]
    Image.new("RGB", (64, 64), "white").save(workspace.outputs / "pick_take01" / spoiled)
    workspace.drop("pick.resume", "picks = [1, 2]\n")
    status = workspace.wait_for("pick_take01")
    assert (status["state"], status["error"]["code"]) == ("failed", "changed-file")
    assert spoiled in status["error"]["message"]
    workspace.drop("pick.resume", "force = true\n")
    status = workspace.wait_for("pick_take01", "completed")
    assert status["done"] == 2
    told = sidecar(workspace, "pick_take01")
    assert any(one["text"] == f"{spoiled} was changed, and taken as it is (force)" for one in told["notices"])
    grey = next(stage for stage in told["stages"] if stage["stage"] == "grayscale")
    assert grey["took"] != told["stages"][0]["gave"], "what was really taken stands in the sidecar"


def test_a_stage_that_failed_is_resumed_with_other_keys_and_nothing_is_made_again(
    workspace: Workspace, serve: Serve
) -> None:
    """Each sidecar says which plan made it."""
    workspace.drop(
        "cut.toml",
        SMALL
        + 'prompt = "a mug"\ncount = 2\n[[stages]]\nstage = "generate"\n[[stages]]\nstage = "grayscale"\n'
        + '[[stages]]\nstage = "crop"\nbox = [0, 0, 500, 500]\n',
    )
    engine = PaintedEngine()
    serve(engine)
    status = workspace.wait_for("cut_take01")
    assert (status["state"], status["error"]["stage"], status["error"]["stage_index"]) == ("failed", "crop", 3)
    workspace.drop("cut.resume", "[stage.crop]\nbox = [0, 0, 20, 10]\n")
    status = workspace.wait_for("cut_take01", "completed")
    assert len(engine.made) == 2
    assert (workspace.outputs / "cut_take01" / "plan_02.toml").is_file()
    told = sidecar(workspace, "cut_take01")
    assert told["plan_sha256"] == status["plan_sha256"]
    assert told["stages"][0]["plan_sha256"] != told["stages"][2]["plan_sha256"]
    assert told["stages"][2]["keys"]["box"] == [0, 0, 20, 10]


def test_from_a_stage_that_is_done_makes_the_next_take(workspace: Workspace, serve: Serve) -> None:
    workspace.drop("four.toml", FOUR)
    engine = PaintedEngine()
    serve(engine)
    workspace.wait_for("four_take01", "completed")
    before = pixels(workspace, "four_take01")
    workspace.drop("four.resume", 'from = "color"\n[stage.color]\nbrightness = 0.5\n')
    status = workspace.wait_for("four_take02", "completed")
    assert status["source"] == "resume"
    assert len(engine.made) == 3
    assert pixels(workspace, "four_take01") == before
    assert set(pixels(workspace, "four_take02").values()).isdisjoint(before.values())
    workspace.drop("four_take01.resume", "from = 2\n")
    workspace.wait_for("four_take03", "completed")
    assert pixels(workspace, "four_take03") == before
    assert len(engine.made) == 3


def test_a_lost_journal_is_made_again_from_the_pictures(workspace: Workspace, serve: Serve) -> None:
    workspace.drop(
        "cut.toml",
        SMALL
        + 'prompt = "a mug"\ncount = 2\n[[stages]]\nstage = "generate"\n'
        + '[[stages]]\nstage = "crop"\nbox = [0, 0, 500, 500]\n',
    )
    engine = PaintedEngine()
    served = serve(engine)
    workspace.wait_for("cut_take01", "failed")
    served.stop()
    (workspace.outputs / "cut_take01" / journal.FILE_NAME).unlink()
    workspace.drop("cut.resume", "[stage.crop]\nbox = [0, 0, 20, 10]\n")
    engine = PaintedEngine()
    serve(engine)
    status = workspace.wait_for("cut_take01", "completed")
    assert status["done"] == 2
    assert engine.made == []


def test_a_journal_that_is_lost_while_the_job_runs_costs_nothing(workspace: Workspace, serve: Serve) -> None:
    workspace.drop("pick.toml", REVIEW)
    engine = PaintedEngine()
    served = serve(engine)
    workspace.wait_for("pick_take01", "review")
    served.stop()
    (workspace.outputs / "pick_take01" / journal.FILE_NAME).unlink()
    engine = PaintedEngine()
    serve(engine)
    workspace.wait_for("pick_take01", "review")
    workspace.drop("pick.resume", "picks = [2]\n")
    status = workspace.wait_for("pick_take01", "completed")
    assert status["done"] == 1
    assert engine.made == []


def test_an_error_that_may_pass_is_tried_again_and_counted(workspace: Workspace, serve: Serve) -> None:
    failures = Counter[int]()

    def fail_twice(request: Request, step: int) -> None:
        failures[request.seed] += 1
        if failures[request.seed] <= 2 and request.seed == 1:
            raise OSError(errno.EIO, "input/output error")

    workspace.drop("mug.toml", SMALL + 'prompt = "a mug"\ncount = 2\nseed = 1\n')
    engine = PaintedEngine(before_step=fail_twice)
    serve(engine)
    status = workspace.wait_for("mug_take01")
    assert (status["state"], status["retries"], status["done"]) == ("completed", 2, 2)
    assert [one.seed for one in engine.made] == [2, 1], "the other candidate did not wait"


def test_after_five_attempts_it_fails(workspace: Workspace, serve: Serve) -> None:
    tried = threading.Semaphore(0)

    def fail(request: Request, step: int) -> None:
        tried.release()
        raise JobError("out-of-memory", "somebody else has it", transient=True)

    workspace.drop("mug.toml", SMALL + 'prompt = "a mug"\n')
    serve(PaintedEngine(before_step=fail))
    status = workspace.wait_for("mug_take01", timeout_s=40)
    assert (status["state"], status["retries"], status["error"]["code"]) == ("failed", 4, "out-of-memory")
    assert all(tried.acquire(blocking=False) for _ in range(5))
    assert not tried.acquire(blocking=False)


def test_other_errors_stop_at_once(workspace: Workspace, serve: Serve) -> None:
    def fail(request: Request, step: int) -> None:
        raise JobError("bad-value", "never")

    workspace.drop("mug.toml", SMALL + 'prompt = "a mug"\n')
    serve(PaintedEngine(before_step=fail))
    status = workspace.wait_for("mug_take01")
    assert status["state"] == "failed"
    assert "retries" not in status


@pytest.mark.parametrize("end", ["before", "after"])
def test_a_restart_between_the_stages_changes_no_pixel(workspace: Workspace, serve: Serve, end: str) -> None:
    workspace.drop("four.toml", FOUR + "\n")
    served = serve()
    workspace.wait_for("four_take01", "completed")
    wanted = pixels(workspace, "four_take01")
    served.stop()
    started = threading.Event()
    go_on = threading.Event()

    def stop_at_third(request: Request, step: int) -> None:
        if request.seed % 3 == 2:
            started.set()
            go_on.wait(20 if end == "after" else 0)

    plan = (workspace.outputs / "four_take01" / "plan.toml").read_text()
    workspace.drop("four.toml", plan)
    served = serve(PaintedEngine(before_step=stop_at_third))
    wait_until(lambda: started.is_set() or workspace.state("four_take02") == "completed")
    go_on.set()
    served.stop()
    serve()
    workspace.wait_for("four_take02", "completed")
    assert pixels(workspace, "four_take02") == wanted


def test_an_urgent_job_starts_at_the_next_cell(workspace: Workspace, serve: Serve) -> None:
    order: list[str] = []
    reached, go_on = threading.Event(), threading.Event()

    def note(request: Request, step: int) -> None:
        order.append(request.prompt)
        if len(order) == 3:
            reached.set()
            go_on.wait(20)

    workspace.drop("night.toml", SMALL + 'prompt = "night"\n[matrix]\nseed = [1, 2, 3, 4, 5, 6, 7, 8]\n')
    serve(PaintedEngine(before_step=note))
    assert reached.wait(20)
    workspace.drop("urgent.toml", SMALL + 'prompt = "urgent"\npriority = 10\n')
    wait_until(lambda: "urgent_take01" in {one["job"] for one in workspace.daemon_status().get("line", ())})
    go_on.set()
    workspace.wait_for("night_take01", "completed")
    assert order.index("urgent") == 3, "not one cell of the batch goes before it"


def test_a_batch_beyond_the_limit_is_refused(workspace: Workspace, serve: Serve) -> None:
    workspace.drop("much.toml", SMALL + 'prompt = "a mug"\ncount = 1000\n[matrix]\nseed = [1, 2, 3]\nsteps = [1, 2]\n')
    serve(env={"BATCH_MAX_CANDIDATES": "5000"})
    status = workspace.wait_for("much_take01")
    assert status["state"] == "rejected"
    assert "6000" in status["error"]["message"]
    assert "max_candidates" in status["error"]["hint"]


def test_ten_thousand_cells_are_planned_and_a_picture_is_made_at_once(workspace: Workspace, serve: Serve) -> None:
    made = threading.Event()
    engine = PaintedEngine(before_step=lambda _request, _step: made.set())
    workspace.drop(
        "huge.toml",
        'prompt = "a"\nwidth = 16\nheight = 16\ncount = 1000\n[matrix]\nsteps = [1, 2]\nguidance = [1, 2, 3, 4, 5]\n',
    )
    serve(engine)
    assert made.wait(30)
    plan = Path(workspace.outputs / "huge_take01" / "plan.toml")
    assert plan.stat().st_size < 4000
    workspace.drop("huge.cancel")
    assert workspace.wait_for("huge_take01", "cancelled")["candidates"] == 10_000


def test_marketing_assets_that_failed_at_its_third_stage_goes_on_without_any_generate(
    workspace: Workspace, serve: Serve
) -> None:
    held, go_on = threading.Event(), threading.Event()

    def wait_once(request: Request, step: int) -> None:
        held.set()
        go_on.wait(20)

    own_preset(workspace, "flux-schnell")
    workspace.drop(
        "ads.toml",
        'pipeline = "marketing-assets"\nprompt = "a mug"\nwidth = 64\nheight = 64\nseed = 1\n'
        "[stage.hero]\nsteps = 2\n[stage.supporting]\nsteps = 1\n[stage.resize]\nwidth = 96\nheight = 96\n",
    )
    engine = PaintedEngine(before_step=wait_once)
    serve(engine)
    assert held.wait(20)
    in_the_way = [workspace.outputs / "ads_take01" / "work" / f"{number:03d}_03_resize.png" for number in range(1, 5)]
    for path in in_the_way:
        path.mkdir(parents=True)
    go_on.set()
    status = workspace.wait_for("ads_take01")
    assert (status["state"], status["error"]["stage"], status["error"]["stage_index"]) == ("failed", "resize", 3)
    assert len(engine.made) == 4
    for path in in_the_way:
        path.rmdir()
    workspace.drop("ads.resume", "")
    status = workspace.wait_for("ads_take01", "completed")
    assert len(engine.made) == 4, "no picture was generated again"
    assert len(status["outputs"]) == 12


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_going_on_from_any_stage_makes_the_same_pixels(workspace: Workspace, serve: Serve, stage: int) -> None:
    workspace.drop("four.toml", FOUR + "")
    engine = PaintedEngine()
    serve(engine)
    workspace.wait_for("four_take01", "completed")
    workspace.drop("four.resume", f"from = {stage}\n")
    workspace.wait_for("four_take02", "completed")
    assert pixels(workspace, "four_take02") == pixels(workspace, "four_take01")
    assert len(engine.made) == (6 if stage == 1 else 3)


def test_from_the_export_of_a_plain_job_takes_its_finished_pictures(workspace: Workspace, serve: Serve) -> None:
    """The same file was the checkpoint of both cells."""
    workspace.drop("mug.toml", SMALL + 'prompt = "a mug"\ncount = 2\n')
    engine = PaintedEngine()
    serve(engine)
    workspace.wait_for("mug_take01", "completed")
    workspace.drop("mug.resume", 'from = "export"\n[stage.export]\nformat = "jpeg"\n')
    status = workspace.wait_for("mug_take02", "completed")
    assert [one["file"] for one in status["outputs"]] == ["mug_take02_001.jpg", "mug_take02_002.jpg"]
    assert len(engine.made) == 2
    told = tomllib.loads((workspace.outputs / "mug_take02" / "mug_take02_001.jpg.toml").read_text())
    assert told["stages"][0]["stage"] == "generate"
    assert told["prompt"] == "a mug"


def test_a_model_is_not_put_out_while_a_cell_that_needs_it_is_on_its_way(workspace: Workspace, serve: Serve) -> None:
    """Every candidate goes through both models, with a stage beside the GPU in between."""
    own_preset(workspace, "other")
    workspace.drop(
        "two.toml",
        SMALL
        + 'prompt = "a mug"\ncount = 4\n[[stages]]\nstage = "generate"\n[[stages]]\nstage = "resize"\nwidth = 64\n'
        + '[[stages]]\nstage = "generate"\nid = "again"\nstrength = 0.5\n[[stages]]\nstage = "grayscale"\n'
        + '[[stages]]\nstage = "generate"\nid = "last"\npreset = "other"\nstrength = 0.5\n',
    )
    engine = PaintedEngine()
    serve(engine)
    assert workspace.wait_for("two_take01")["state"] == "completed"
    assert engine.loads == ["hotfolder/noise@main float32", "hotfolder/other@main float32"]


def test_finished_pictures_are_also_put_where_to_says(workspace: Workspace, serve: Serve) -> None:
    workspace.drop(
        "mug.toml",
        SMALL + 'prompt = "a mug"\n[[stages]]\nstage = "generate"\n[[stages]]\nstage = "export"\nto = "processed"\n',
    )
    serve()
    workspace.wait_for("mug_take01", "completed")
    copy = workspace.outputs / "processed" / "mug_take01_001.png"
    assert copy.read_bytes() == (workspace.outputs / "mug_take01" / "mug_take01_001.png").read_bytes()
    assert copy.with_name(f"{copy.name}.toml").is_file()


def test_a_folder_that_to_may_not_name_is_refused_before_anything_runs(workspace: Workspace, serve: Serve) -> None:
    engine = PaintedEngine()
    for number, where in enumerate(('"/etc"', '"../out"', '"elsewhere"')):
        workspace.drop(
            f"mug{number}.toml",
            SMALL + f'prompt = "a mug"\n[[stages]]\nstage = "generate"\n[[stages]]\nstage = "export"\nto = {where}\n',
        )
    serve(engine)
    for number in range(3):
        status = workspace.wait_for(f"mug{number}_take01")
        assert (status["state"], status["error"]["code"]) == ("rejected", "forbidden-path")
    assert engine.made == []


def test_an_item_without_a_prompt_is_refused_at_its_line(workspace: Workspace, serve: Serve) -> None:
    (workspace.inbox / "list.csv").write_text("prompt,seed\na mug,7\n\n,8\n")
    workspace.drop("list-job.toml", SMALL + 'items = "list.csv"\n')
    serve()
    status = workspace.wait_for("list-job_take01")
    assert status["state"] == "rejected"
    assert [one["message"] for one in status["problems"]] == ["list.csv, line 4: a prompt or an image is needed"]


def test_a_key_that_does_nothing_is_said_in_a_notice(workspace: Workspace, serve: Serve) -> None:
    workspace.drop("mug.toml", SMALL + 'prompt = "a mug"\n[stage.generate]\nsteps = 2\n')
    serve()
    status = workspace.wait_for("mug_take01", "completed")
    assert [one["text"] for one in status["notices"]] == [
        "steps does nothing: each stage that would take it says its own"
    ]


def test_stages_that_nothing_came_to_are_not_reached(workspace: Workspace, serve: Serve) -> None:
    workspace.drop(
        "cut.toml",
        SMALL
        + 'prompt = "a mug"\n[[stages]]\nstage = "generate"\n[[stages]]\nstage = "crop"\nbox = [0, 0, 500, 500]\n',
    )
    serve()
    status = workspace.wait_for("cut_take01", "failed")
    assert [stage["state"] for stage in status["stages"]] == ["completed", "failed", "not reached"]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ('[[stages]]\nstage = "export"\nname = "../x"\n', "without folders"),
        ('[[stages]]\nstage = "export"\nname = "{job}-{seed}"\n', "{seed} is not known here"),
        ('[[stages]]\nstage = "overlay"\ntext = "x"\nposition = [1]\n', "a list of two numbers, [x, y] is accepted"),
        ('[[stages]]\nstage = "overlay"\ntext = "x"\nimage = "y.png"\n', "exclude each other"),
        (
            '[[stages]]\nstage = "detect"\n[[stages]]\nstage = "rotate"\ndegrees = 90\n[[stages]]\nstage = "crop"\n',
            "what was found does not fit any more after rotate",
        ),
    ],
)
def test_a_mistake_in_the_stages_is_said_as_it_is(workspace: Workspace, serve: Serve, stages: str, said: str) -> None:
    workspace.drop("mug.toml", SMALL + 'prompt = "a mug"\n[[stages]]\nstage = "generate"\n' + stages)
    serve()
    status = workspace.wait_for("mug_take01")
    assert status["state"] == "rejected"
    assert said in status["error"]["message"]


def test_pausing_and_going_on_again_and_again_costs_no_picture(workspace: Workspace, serve: Serve) -> None:
    """Cells that are on their way to the disk meanwhile are neither taken in twice nor thrown away."""
    for number in range(60):
        workspace.picture(f"p/{number:02d}.png", "blue", (24, 24))
    workspace.drop("all.toml", EDIT + '[matrix]\nimage = "p/*.png"\n')
    serve(env={"WORKER_CPU_THREADS": "4"})
    workspace.wait_for("all_take01", "running", "completed")
    while workspace.state("all_take01") != "completed":
        for control in ("all.pause", "all.resume"):
            path = workspace.drop(control, "")
            wait_until(lambda path=path: not path.exists())  # type: ignore[misc]
    folder = workspace.outputs / "all_take01"
    assert len(list(folder.glob("*.png"))) == len(list(folder.glob("*.png.toml"))) == 60
    lines = list(journal.lines((folder / journal.FILE_NAME).read_bytes()))
    assert sum(line["event"] == "done" for line in lines) == 60


def test_a_cancel_while_a_cell_fails_for_a_while_ends_the_job(workspace: Workspace, serve: Serve) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def fail(request: Request, step: int) -> None:
        reached.set()
        go_on.wait(20)
        raise OSError(errno.EIO, "input/output error")

    workspace.drop("mug.toml", SMALL + 'prompt = "a mug"\n')
    serve(PaintedEngine(before_step=fail))
    assert reached.wait(20)
    path = workspace.drop("mug.cancel", "")
    wait_until(lambda: not path.exists())
    go_on.set()
    assert workspace.wait_for("mug_take01")["state"] == "cancelled"


@pytest.mark.parametrize(
    "second",
    [
        'id = "more"\nadd = true\nstrength = 0.5\ncount = 2\n',
        'id = "edit"\npreset = "noise-kontext"\ncount = 3\n',
    ],
)
def test_the_sidecar_of_a_branch_makes_that_picture_again(workspace: Workspace, serve: Serve, second: str) -> None:
    """Each with the seed that the picture had from which it began."""
    stages = '[[stages]]\nstage = "generate"\n[[stages]]\nstage = "generate"\n'
    workspace.drop("tree.toml", SMALL + 'prompt = "a mug"\nseed = 5\n' + stages + second)
    serve()
    assert workspace.wait_for("tree_take01")["state"] == "completed"
    wanted = pixels(workspace, "tree_take01")
    for number, (file, sha256) in enumerate(sorted(wanted.items()), 2):
        text = (workspace.outputs / "tree_take01" / f"tree_take01{file}").read_text()
        workspace.drop("tree.toml", text)
        job = f"tree_take{number:02d}"
        assert workspace.wait_for(job)["state"] == "completed"
        assert list(pixels(workspace, job).values()) == [sha256]


def test_a_job_that_is_paused_before_its_review_is_picked_from_at_once(workspace: Workspace, serve: Serve) -> None:
    workspace.drop("pick.toml", REVIEW)
    serve()
    workspace.wait_for("pick_take01", "review")
    workspace.drop("pick.pause", "")
    workspace.wait_for("pick_take01", "held")
    workspace.drop("pick.resume", "picks = [3]\n")
    status = workspace.wait_for("pick_take01", "completed")
    assert [one["candidate"] for one in status["outputs"]] == [3]


def test_from_a_stage_with_force_takes_what_was_changed(workspace: Workspace, serve: Serve) -> None:
    workspace.drop("four.toml", FOUR)
    serve()
    workspace.wait_for("four_take01", "completed")
    spoiled = workspace.outputs / "four_take01" / "work" / "001_01_generate.png"
    Image.new("RGB", (64, 64), "white").save(spoiled)
    path = workspace.drop("four.resume", "from = 2\n")
    wait_until(lambda: not path.exists())
    assert any("001_01_generate.png" in one["text"] for one in workspace.status("four_take01")["notices"])
    workspace.drop("four.resume", "from = 2\nforce = true\n")
    assert workspace.wait_for("four_take02", "completed")["done"] == 3


def test_a_new_take_shares_no_file_with_the_one_before(workspace: Workspace, serve: Serve) -> None:
    """An editor that saves in place must not change a finished picture."""
    workspace.drop("mug.toml", SMALL + 'prompt = "a mug"\n')
    serve()
    workspace.wait_for("mug_take01", "completed")
    workspace.drop("mug.resume", 'from = "export"\n')
    workspace.wait_for("mug_take02", "completed")
    taken = workspace.outputs / "mug_take02" / "work" / "001_01_generate.png"
    assert taken.stat().st_nlink == 1


@pytest.mark.parametrize(
    "line",
    [
        '"event":"cell","candidate":1,"stage":99,"files":[],"boxes":[],"seconds":0,"record":{}',
        '"event":"cell","candidate":1,"stage":"a","files":[],"boxes":[],"seconds":0,"record":{}',
        '"event":"failed","error":{"code":"internal","message":"x","candidate":77}',
        '"event":"failed","error":{"code":"internal","message":"x","candidate":"z"}',
        '"event":"chosen","chosen":[[99,1,[1]]]',
        '"event":"chosen","chosen":[[2,9,[1]]]',
    ],
)
def test_a_journal_that_was_tampered_with_keeps_no_other_job_from_being_made(
    workspace: Workspace, serve: Serve, line: str
) -> None:
    workspace.drop("pick.toml", REVIEW)
    served = serve()
    workspace.wait_for("pick_take01", "review")
    served.stop()
    with (workspace.outputs / "pick_take01" / journal.FILE_NAME).open("a") as file:
        file.write('{"at":"2026-11-20T12:00:00.000Z",' + line + "}\n")
    workspace.drop("mug.toml", SMALL + 'prompt = "a mug"\n')
    serve()
    assert workspace.wait_for("mug_take01")["state"] == "completed"


def test_a_plan_that_was_changed_is_never_taken_whatever_is_forced(workspace: Workspace, serve: Serve) -> None:
    """It says which models are loaded."""
    workspace.drop(
        "cut.toml",
        SMALL
        + 'prompt = "a mug"\n[[stages]]\nstage = "generate"\n[[stages]]\nstage = "crop"\nbox = [0, 0, 500, 500]\n',
    )
    engine = PaintedEngine()
    served = serve(engine)
    workspace.wait_for("cut_take01", "failed")
    served.stop()
    plan = workspace.outputs / "cut_take01" / "plan.toml"
    plan.write_text(plan.read_text().replace("hotfolder/noise", "evil/weights"))
    engine = PaintedEngine()
    serve(engine)
    path = workspace.drop("cut.resume", 'force = true\nfrom = "generate"\n')
    wait_until(lambda: not path.exists())
    assert any("plan.toml is not the one" in one["text"] for one in workspace.status("cut_take01")["notices"])
    assert engine.loads == []


def test_a_list_whose_first_line_is_odd_is_read_at_once(workspace: Workspace, serve: Serve) -> None:
    (workspace.inbox / "list.csv").write_text("prompt," + ",".join(f'"a{n}" ' for n in range(14_000)) + "\n1\n")
    workspace.drop("list-job.toml", SMALL + 'items = "list.csv"\n')
    serve()
    status = workspace.wait_for("list-job_take01", timeout_s=10)
    assert status["state"] == "rejected"
    assert "list.csv: " in status["error"]["message"]


def test_absurd_counts_are_refused_before_they_fill_the_memory(workspace: Workspace, serve: Serve) -> None:
    more = '[[stages]]\nstage = "generate"\nid = "m{}"\nadd = true\nstrength = 0.5\ncount = 1000\n'
    workspace.drop(
        "much.toml",
        SMALL + 'prompt = "a"\n[[stages]]\nstage = "generate"\ncount = 1000\n' + more.format(1) + more.format(2),
    )
    serve()
    status = workspace.wait_for("much_take01", timeout_s=10)
    assert status["state"] == "rejected"
    assert "candidates of each item" in status["error"]["message"]
