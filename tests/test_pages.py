"""The pages of jobs, as they stand in their folders: what is on them, and which of them are written when."""

import datetime as dt
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import samples
from browser import Page
from clocks import NOON
from conftest import Serve, Workspace
from painted import PaintedEngine
from PIL import Image

from hotfolder import pages
from hotfolder.clock import Moment
from hotfolder.engine import Request
from hotfolder.errors import JobError
from hotfolder.job import Job
from hotfolder.journal import Failure, Kept, Ledger, Output, State
from hotfolder.plan import Axis, Plan, PlannedStage
from hotfolder.table import Progressed, Table
from hotfolder.thumbs import Thumbs

SMALL = 'preset = "noise"\nwidth = 32\nheight = 32\nsteps = 1\n'
REVIEW = '[[stages]]\nstage = "generate"\n[[stages]]\nstage = "select"\nby = "review"\n[[stages]]\nstage = "export"\n'


@dataclass(frozen=True, kw_only=True)
class AskedThumbs(Thumbs):
    """Thumbnails, and which of them were asked for."""

    asked: list[str] = field(default_factory=list)

    def of(self, picture: Path) -> bytes | None:
        self.asked.append(picture.name)
        return super().of(picture)


def page_of(workspace: Workspace, job: str, name: str = "index.html") -> Page:
    return Page((workspace.outputs / job / name).read_bytes())


def stages(*names: str, **keys: Any) -> tuple[PlannedStage, ...]:
    return tuple(PlannedStage(stage=name, id=name, keys=keys if name == "select" else {}) for name in names)


def finished(number: int, *variants: str) -> tuple[Output, ...]:
    return tuple(
        Output(
            candidate=number,
            file=f"mug_take01_{number:03d}{'_' if variant else ''}{variant}.png",
            seed=41 + number,
            sha256=str(number),
            pixels_sha256="",
            seconds=2.0,
            save_seconds=0.25,
            variant=variant,
        )
        for variant in variants or ("",)
    )


def kept(file: str, seconds: float = 2.0) -> Kept:
    return Kept(files=(("picture", file, "0"),), boxes=(), seconds=seconds, at=0)


class Studio:
    """One job in a folder, whose ledger the test writes."""

    def __init__(self, root: Path, plan: Plan, state: State = State.RUNNING) -> None:
        self.folder = root / "outputs" / "mug_take01"
        (self.folder / "work").mkdir(parents=True)
        self.plan = plan
        self.ledger = Ledger(state=state, plan_sha256="0")
        self.job = Job(folder=self.folder, stem="mug", take=1, ledger=self.ledger)
        self.thumbs = AskedThumbs(cache=root / "cache")
        self.now = Moment.of(NOON)
        self.load()

    def load(self) -> None:
        """Make the table again from the ledger."""
        known = Progressed(
            cells=self.ledger.cells, done=self.ledger.done, failed=self.ledger.failed, chosen=self.ledger.chosen
        )
        self.job.table = Table(self.plan, known)

    def picture(self, file: str, colour: str = "red") -> None:
        Image.new("RGB", (16, 16), colour).save(self.folder / file)

    def finish(self, *numbers: int) -> None:
        for number in numbers:
            self.ledger.done[number] = finished(number)
            if self.job.table is not None and self.job.table.stage_of(number) is not None:
                self.job.table.finished(number)

    def look(self, after_s: float = 1.0) -> list[str]:
        """Write the pages; return the names of those that were written."""
        for path in self.folder.glob("index*.html"):
            os.utime(path, (0, 0))
        self.thumbs.asked.clear()
        self.now = Moment.of(self.now + dt.timedelta(seconds=after_s))
        pages.write_job(self.job, self.plan, self.thumbs, self.now)
        written = [path.name for path in self.folder.glob("index*.html") if path.stat().st_mtime_ns]
        return sorted(written, key=lambda name: (len(name), name))

    def page(self, name: str = "index.html") -> Page:
        return Page((self.folder / name).read_bytes())


def many(tmp_path: Path, candidates: int = 10_000) -> Studio:
    return Studio(tmp_path, samples.plan(count=1, axes=(Axis(key="steps", values=tuple(range(1, candidates + 1))),)))


# --- through the folder ---


def test_a_dropped_batch_becomes_a_grid_of_its_axes(workspace: Workspace, serve: Serve) -> None:
    workspace.drop("mug.toml", SMALL + '[matrix]\nprompt = ["a mug", "a cup"]\nseed = [1, 2, 3]\n')
    served = serve()
    workspace.wait_for("mug_take01", "completed")
    served.stop()

    page = page_of(workspace, "mug_take01")
    assert page.texts("th")[:6] == ["prompt ↓\nseed →", "1", "2", "3", "a mug", "a cup"]
    assert page.all("img", "alt") == [f"candidate {n}, seed {(n - 1) % 3 + 1}" for n in range(1, 7)]
    assert page.texts("dd")[:2] == ["a mug", "noise"]
    # What differs from picture to picture is no setting of the job.
    assert "prompt" not in page.texts("th")[6:]
    assert "seed" not in page.texts("th")[6:]


def test_a_batch_over_pictures_shows_them_at_the_heads_of_the_rows(workspace: Workspace, serve: Serve) -> None:
    workspace.picture("a.png", "red")
    workspace.picture("b.png", "blue")
    workspace.drop("mug.toml", SMALL + 'prompt = "a mug"\n[matrix]\nimage = ["a.png", "b.png"]\nseed = [1, 2]\n')
    served = serve()
    workspace.wait_for("mug_take01", "completed")
    served.stop()

    page = page_of(workspace, "mug_take01")
    assert [alt for alt in page.all("img", "alt") if alt.startswith("source")] == ["source a.png", "source b.png"]
    assert all(
        (workspace.outputs / "mug_take01" / file).is_file() for file in page.all("a", "href") if "sources" in file
    )


def test_a_list_of_items_becomes_a_list_with_the_values_of_its_columns(workspace: Workspace, serve: Serve) -> None:
    (workspace.inbox / "list.csv").write_text("prompt,guidance\na mug,\na cup,2.5\n")
    workspace.drop("mug.toml", SMALL + 'items = "list.csv"\nseed = 7\ncount = 2\n')
    served = serve()
    workspace.wait_for("mug_take01", "completed")
    served.stop()

    page = page_of(workspace, "mug_take01")
    assert page.classed("axis-head") == ["prompt a mug", "prompt a cupguidance 2.5"]


def test_a_job_in_review_shows_the_pictures_to_pick_from_and_how_to(workspace: Workspace, serve: Serve) -> None:
    workspace.drop("mug.toml", SMALL + 'prompt = "a mug"\nseed = 5\ncount = 3\n' + REVIEW)
    served = serve()
    workspace.wait_for("mug_take01", "review")
    served.stop()

    page = page_of(workspace, "mug_take01")
    assert page.classed("big") == ["1", "2", "3"]
    assert page.texts("pre") == ["picks = [1]", "hotfolder resume mug_take01 --picks 1"]
    assert page.texts("code")[0] == "mug_take01.resume"
    told = [one["file"] for one in workspace.status("mug_take01")["outputs"]]
    assert told == [file for file in page.all("a", "href") if file in told]
    assert all(file.startswith("work/") for file in told)
    assert len(page.all("img", "src")) == 3

    front = Page((workspace.outputs / "index.html").read_bytes())
    assert "Waits for you" in front.text
    assert "3 pictures to pick from" in front.text
    assert "mug_take01/index.html" in front.all("a", "href")


def test_what_failed_says_where_why_and_what_to_do_in_its_place(workspace: Workspace, serve: Serve) -> None:
    def before_step(request: Request, step: int) -> None:
        if request.seed == 6:
            raise JobError("out-of-memory", "it does not fit", "try 16x16")

    workspace.drop("mug.toml", SMALL + 'prompt = "a mug"\nseed = 5\ncount = 2\n')
    served = serve(PaintedEngine(before_step=before_step))
    workspace.wait_for("mug_take01", "partial")
    served.stop()

    page = page_of(workspace, "mug_take01")
    assert page.classed("why") == ["stopped at stage 1 (generate): it does not fit. Fix: try 16x16"]


# --- what is on them ---


def test_where_nothing_was_made_yet_the_job_s_own_picture_is_there_to_pick(tmp_path: Path) -> None:
    plan = samples.plan(
        preset=None, presets={}, sources=[samples.source()], stages=stages("select", "export", by="review"), count=1
    )
    studio = Studio(tmp_path, plan, State.REVIEW)
    (studio.folder / "sources").mkdir()
    studio.picture("sources/mug.png")
    studio.look()

    page = studio.page()
    assert page.classed("big") == ["1"]
    assert page.all("img", "alt") == ["image: mug.png", "candidate 1, waits to be picked"]
    assert "seed" not in page.text


def test_what_was_left_out_says_at_which_stage_and_shows_the_picture_as_it_stood(tmp_path: Path) -> None:
    plan = samples.plan(count=3, stages=stages("generate", "select", "export"))
    studio = Studio(tmp_path, plan, State.COMPLETED)
    for number in (1, 2, 3):
        studio.ledger.cells[number] = {1: kept(f"work/{number:03d}_01_generate.png")}
        studio.picture(f"work/{number:03d}_01_generate.png")
    studio.ledger.chosen[2, 1] = (2,)
    studio.ledger.done[2] = finished(2)
    studio.picture("mug_take01_002.png")
    studio.job.table = None  # as of a job that ended before this process began
    studio.look()

    page = studio.page()
    assert page.all("figure", "class") == ["card left-out", "card", "card left-out"]
    assert page.text.count("left out at stage 2 (select)") == 2
    assert page.all("img", "alt") == [
        "candidate 1, seed 42, left out",
        "candidate 2, seed 43",
        "candidate 3, seed 44, left out",
    ]
    assert "1 of 3 pictures, 2 left out" in page.text
    assert page.texts("ol") == ["generate 2.0 s", "generate 2.0 sselectexport 0.2 s", "generate 2.0 s"]


def test_one_that_failed_late_shows_how_far_it_came(tmp_path: Path) -> None:
    plan = samples.plan(count=1, stages=stages("generate", "detect", "export"))
    studio = Studio(tmp_path, plan, State.FAILED)
    studio.ledger.cells[1] = {1: kept("work/001_01_generate.png")}
    studio.picture("work/001_01_generate.png")
    studio.ledger.failed[1] = Failure(
        code="no-boxes", message="nothing stands out", hint="use a label", stage="detect", stage_index=2, candidate=1
    )
    studio.load()
    studio.look()

    page = studio.page()
    assert page.classed("why") == ["stopped at stage 2 (detect): nothing stands out. Fix: use a label"]
    assert page.all("img", "alt") == ["candidate 1, seed 42, failed"]


def test_a_picture_of_work_that_was_cleared_away_is_no_dead_link(tmp_path: Path) -> None:
    studio = Studio(tmp_path, samples.plan(count=1, stages=stages("generate", "detect", "export")), State.FAILED)
    studio.ledger.cells[1] = {1: kept("work/001_01_generate.png")}
    studio.ledger.failed[1] = Failure(code="no-boxes", message="no", stage="detect", stage_index=2, candidate=1)
    studio.load()
    studio.look()

    assert not [file for file in studio.page().all("a", "href") if file.startswith("work/")]


def test_each_variant_of_a_finished_picture_is_shown(tmp_path: Path) -> None:
    plan = samples.plan(count=1, stages=stages("generate", "variants", "export"))
    studio = Studio(tmp_path, plan, State.COMPLETED)
    studio.ledger.done[1] = finished(1, "1x1", "16x9")
    for output in studio.ledger.done[1]:
        studio.picture(output.file)
    studio.look()

    assert studio.page().classed("variant") == ["1x1", "16x9"]
    assert len(studio.page().all("img", "src")) == 2


def test_a_candidate_on_its_way_says_at_which_stage_it_is(tmp_path: Path) -> None:
    studio = Studio(tmp_path, samples.plan(count=1, stages=stages("generate", "detect", "export")))
    studio.ledger.cells[1] = {1: kept("work/001_01_generate.png")}
    studio.load()
    studio.look()

    assert "at stage 2 (detect)" in studio.page().text


def test_a_notice_of_one_picture_stands_with_it_alone(tmp_path: Path) -> None:
    studio = Studio(tmp_path, samples.plan(count=2), State.COMPLETED)
    studio.finish(1, 2)
    studio.ledger.notices = ["2 boxes were too small"]
    (studio.folder / "mug_take01_002.png.toml").write_text('[[notices]]\ntext = "2 boxes were too small"\n')
    studio.look()

    assert studio.page().texts("dd").count("2 boxes were too small") == 1


# --- which of them are written ---


def test_the_first_look_at_a_huge_job_reads_the_thumbnails_of_a_few_pages_only(tmp_path: Path) -> None:
    studio = many(tmp_path)
    studio.finish(*range(1, 9_001))

    assert studio.look() == ["index.html", "index-2.html", "index-3.html", "index-4.html"]
    assert len(studio.thumbs.asked) == 2_000
    assert studio.look() == ["index-5.html", "index-6.html", "index-7.html"]


def test_only_a_page_on_which_something_happened_is_written_again(tmp_path: Path) -> None:
    studio = many(tmp_path, 3_000)
    while studio.look():
        pass

    studio.finish(2_400)

    assert studio.look() == ["index-5.html"]
    assert studio.thumbs.asked == ["mug_take01_2400.png"]
    assert studio.look() == []


def test_the_page_under_way_goes_before_the_others(tmp_path: Path) -> None:
    studio = many(tmp_path)
    studio.finish(*range(1, 9_000))
    studio.load()
    assert studio.job.table is not None
    place, model = studio.job.table.best("gpu", ()) or (None, "")
    assert place is not None
    studio.job.table.take(place, model)

    assert studio.look() == ["index.html", "index-2.html", "index-3.html", "index-18.html"]


def test_the_first_page_tells_how_far_the_job_is_as_often_as_a_browser_looks(tmp_path: Path) -> None:
    few, lots = Studio(tmp_path / "few", samples.plan(count=4)), many(tmp_path / "lots", 400)
    few.look()
    lots.look()

    assert few.look(after_s=4) == []
    assert few.look(after_s=1) == ["index.html"]
    assert lots.look(after_s=29) == []
    assert lots.look(after_s=1) == ["index.html"]


def test_at_an_end_every_page_is_as_it_should_be(tmp_path: Path) -> None:
    studio = many(tmp_path, 5_000)
    studio.finish(*range(1, 4_001))
    studio.look()
    studio.ledger.state = State.CANCELLED

    written = studio.look()

    assert written == ["index.html", *(f"index-{number}.html" for number in range(5, 11))]
    assert "cancelled" in studio.page("index-10.html").text
    for number in range(1, 11):
        page = studio.page("index.html" if number == 1 else f"index-{number}.html")
        assert page.refresh is None
        assert len(page.texts("figure")) == 500


def test_a_page_whose_pictures_are_all_finished_is_not_written_again_when_the_job_ends(tmp_path: Path) -> None:
    studio = many(tmp_path, 1_500)
    studio.finish(*range(1, 1_001))
    studio.look()
    studio.finish(*range(1_001, 1_501))
    studio.ledger.state = State.COMPLETED

    assert studio.look() == ["index.html", "index-3.html"]


def test_pictures_of_another_page_are_reached_from_the_first(tmp_path: Path) -> None:
    studio = many(tmp_path, 1_200)
    studio.ledger.state = State.PARTIAL
    studio.finish(*range(1, 1_200))
    studio.ledger.failed[1_200] = Failure(code="internal", message="oops", candidate=1_200, item=1_200)
    studio.look()

    assert {"index-2.html", "index-3.html", "index-3.html#c1200"} <= set(studio.page().all("a", "href"))
