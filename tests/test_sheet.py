import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from browser import Page
from samples import picture

from hotfolder import grid
from hotfolder.cards import ShownCandidate, ShownPicture, ShownStage
from hotfolder.frontpage import DaemonSheet, EndedJob, LineJob, ReviewJob, RunningJob, daemon_page
from hotfolder.grid import PAGE_PICTURES, Head, ShownAxis
from hotfolder.parts import Reason, ShownProgress
from hotfolder.sheet import JobSheet, Review, ShownSource, job_page, job_pages
from hotfolder.thumbs import MAX_BYTES, thumbnail

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SMALL = thumbnail(picture())
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\x1b[2J\u202egnp\udcff\x00</style></title>"


def a_job(
    candidates: Sequence[ShownCandidate] = (),
    axes: Sequence[ShownAxis] = (),
    per_item: int = 1,
    pictures_each: int = 1,
    **fields: Any,
) -> JobSheet:
    usual: dict[str, Any] = {
        "job": "mug_take01",
        "state": "running",
        "updated_at": NOON,
        "prompt": "a mug",
        "preset": "noise",
        "kind": "text2img",
        "layout": grid.lay_out(axes, per_item=per_item, candidates=len(candidates), pictures_each=pictures_each),
        "candidate": lambda number: candidates[number - 1],
        "done": sum(one.state == "done" for one in candidates),
        "failed": sum(one.state == "failed" for one in candidates),
    }
    return JobSheet(**(usual | fields))


def candidates(count: int, **fields: Any) -> list[ShownCandidate]:
    found = []
    for number in range(1, count + 1):
        usual: dict[str, Any] = {"number": number, "seed": 41 + number, "state": "done"}
        usual["pictures"] = [ShownPicture(file=f"mug_take01_{number:03d}.png")]
        found.append(ShownCandidate(**(usual | fields)))
    return found


def axis(key: str, *values: object) -> ShownAxis:
    return ShownAxis(key=key, size=len(values), head=lambda index: Head(facts=[(key, str(values[index]))]))


def with_pictures(file: str) -> bytes | None:
    return SMALL


def without_pictures(file: str) -> bytes | None:
    return None


def shown(sheet: JobSheet | DaemonSheet, number: int = 1) -> Page:
    data = job_page(sheet, with_pictures, number) if isinstance(sheet, JobSheet) else daemon_page(sheet, with_pictures)
    return Page(data)


def test_a_contact_sheet_holds_its_pictures_and_leads_to_the_files() -> None:
    page = shown(a_job(candidates=candidates(2)))

    images = page.all("img", "src")
    assert len(images) == 2
    assert base64.b64decode(images[0].removeprefix("data:image/webp;base64,")) == SMALL
    assert page.all("img", "alt")[1] == "candidate 2, seed 43"
    links = page.all("a", "href")
    assert {"mug_take01_001.png", "mug_take01_001.png.toml", "mug_take01_002.png", "../index.html"} <= set(links)
    assert "seed 43" in page.text
    assert "a mug" in page.text


def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    for data in (job_page(a_job(candidates=candidates(3)), with_pictures), daemon_page(a_daemon(), with_pictures)):
        page = Page(data)
        names = {name for name, _ in page.elements}
        assert not names & {"script", "iframe", "object", "form", "base"}
        assert all(source.startswith("data:") for source in page.all("img", "src"))
        assert not [link for link in page.all("a", "href") if ":" in link or link.startswith("/")]
        assert b"url(" not in data
        assert b"@import" not in data
        assert b"default-src &#x27;none&#x27;" in data


def test_both_light_and_dark_are_served() -> None:
    data = job_page(a_job(), with_pictures)

    assert b"prefers-color-scheme: dark" in data
    assert b'content="light dark"' in data


def test_whatever_a_name_holds_it_is_only_text() -> None:
    reason = Reason(code=HOSTILE, message=HOSTILE, hint=HOSTILE, line=3, stage=HOSTILE)
    job = a_job(
        job=HOSTILE,
        title=HOSTILE,
        project=HOSTILE,
        preset=HOSTILE,
        kind=HOSTILE,
        prompt=HOSTILE,
        state=HOSTILE,
        progress=ShownProgress(text=HOSTILE, fraction=0.5),
        errors=[reason],
        notices=[HOSTILE],
        settings={HOSTILE: HOSTILE},
        sources=[ShownSource(role=HOSTILE, name=HOSTILE, file="sources/a.png")],
        candidates=[
            ShownCandidate(
                number=1,
                seed=1,
                state=HOSTILE,
                where=HOSTILE,
                pictures=[ShownPicture(file="a<b>.png", variant=HOSTILE)],
                facts=[(HOSTILE, HOSTILE)],
                stages=[ShownStage(number=1, name=HOSTILE)],
                notices=[HOSTILE],
                failure=reason,
            ),
            ShownCandidate(number=2, seed=2, state=HOSTILE),
        ],
        axes=[axis(HOSTILE, HOSTILE, HOSTILE)],
        batch=HOSTILE,
        failures=[(reason, [1])],
        review=Review(waiting=[2], example=[2], keep=1),
        files=["job.toml"],
    )
    daemon = DaemonSheet(
        state=HOSTILE,
        updated_at=NOON,
        workspace=HOSTILE,
        host=HOSTILE,
        pid=1,
        counts={HOSTILE: 1},
        reviews=[ReviewJob(job=HOSTILE, waiting=1, title=HOSTILE, pictures=[(1, "a_take05/x.png")])],
        running=[
            RunningJob(
                job="a_take01", title=HOSTILE, done=0, candidates=1, progress=ShownProgress(text=HOSTILE, fraction=0)
            )
        ],
        line=[LineJob(job="a_take02", state=HOSTILE, why=HOSTILE)],
        wrong=[HOSTILE],
        notices=[HOSTILE],
        ignored=[(HOSTILE, HOSTILE)],
        ended=[
            EndedJob(job="a_take03", state=HOSTILE, title=HOSTILE, picture="a_take03/x.png"),
            EndedJob(job="a_take04", state="rejected", reason=HOSTILE),
        ],
    )
    for page in (shown(job), shown(daemon)):
        assert "script" not in {name for name, _ in page.elements}
        assert not [name for name, attributes in page.elements if "onerror" in attributes]
        assert "<script>alert(1)</script>" in page.text
        assert not re.search("[\x00\x1b\u202e\udc80-\udcff]", page.text)
        assert "\\x1b[2J\\u202egnp\\udcff\\x00" in page.text


def test_a_failure_says_why_and_what_to_do_above_the_pictures_and_in_the_place_of_each() -> None:
    why = Reason(code="no-boxes", message="nothing was found", hint="lower threshold", stage="stage 3 (detect)")
    struck = [ShownCandidate(number=n, seed=n, state="failed", failure=why) for n in (1, 2)]
    page = shown(a_job(state="failed", candidates=struck, failures=[(why, [1, 2])]))

    assert page.text.count("stopped at stage 3 (detect): nothing was found. Fix: lower threshold") == 2
    assert page.text.count("no-boxes stage 3 (detect): nothing was found") == 1
    assert "Candidates 1, 2" in page.text
    assert [link for link in page.all("a", "href") if link.startswith("#")] == ["#c1", "#c2"]
    assert "0 of 2 pictures, 2 failed" in page.text


def test_reasons_without_number_do_not_push_the_pictures_off_the_page() -> None:
    reasons = [(Reason(code="internal", message=f"oops {n}"), [n]) for n in range(1, 31)]
    page = shown(a_job(candidates=candidates(30), failures=reasons))

    assert "oops 20" in page.text
    assert "oops 21" not in page.text
    assert "10 more failed for other reasons" in page.text


def test_a_rejected_job_shows_every_problem_with_its_line() -> None:
    problems = [
        Reason(code="unknown-key", message="unknown key promt", hint="did you mean prompt?", line=2),
        Reason(code="bad-value", message="steps"),
    ]
    todo = "Mend jobs_inbox/mug.rejected.toml, then rename it to mug.toml"
    page = shown(
        a_job(state="rejected", preset=None, kind=None, prompt="", errors=problems, todo=todo, files=["job.toml"])
    )

    assert "unknown-key line 2: unknown key promt" in page.text
    assert "did you mean prompt?" in page.text
    assert page.text.index("bad-value steps") < page.text.index(todo)


def test_a_job_without_pictures_tells_why_on_the_front_page_and_every_card_names_the_folder() -> None:
    ended = [
        EndedJob(job="mug_take01", state="rejected", title="A mug", reason="unknown key promt"),
        EndedJob(job="cup_take01", state="cancelled"),
    ]
    page = shown(DaemonSheet(state="running", updated_at=NOON, workspace="/studio", ended=ended))

    assert "unknown key promt" in page.text
    assert page.text.count("no picture") == 1
    assert "mug_take01" in page.text


def test_a_picture_that_is_not_finished_has_its_place() -> None:
    places = [ShownCandidate(number=1, seed=1, state="running"), ShownCandidate(number=2, seed=2, state="queued")]
    page = shown(a_job(width=1024, height=768, candidates=places))

    assert not page.all("img", "src")
    assert "queued" in page.text
    assert page.all("div", "style") == ["--shape: 1024 / 768"]


def test_a_thumbnail_that_is_gone_leaves_the_link() -> None:
    page = Page(job_page(a_job(candidates=candidates(1)), without_pictures))

    assert "mug_take01_001.png" in page.all("a", "href")
    assert "no preview" in page.text


def test_a_thousand_pictures_are_two_pages_of_bounded_size() -> None:
    largest = bytes(MAX_BYTES)
    sheet = a_job(candidates=candidates(1000, facts=[("prompt", "p" * 20_000)]))

    pages = dict(job_pages(sheet, lambda file: largest))

    assert list(pages) == ["index.html", "index-2.html"]
    assert max(map(len, pages.values())) < PAGE_PICTURES * (MAX_BYTES * 4 // 3 + 1_600) + 30_000
    second = Page(pages["index-2.html"])
    assert len(second.all("img", "src")) == 500
    assert "candidate 501, seed 542" in second.all("img", "alt")
    assert "index.html" in second.all("a", "href")
    assert "Pictures 501 to 1000 of 1000" in second.text


def test_a_page_holds_no_more_pictures_where_each_candidate_has_several() -> None:
    files = [ShownPicture(file=f"a_{shape}.png", variant=shape) for shape in ("1x1", "16x9", "9x16")]
    sheet = a_job(candidates=candidates(600, pictures=files), pictures_each=3)

    assert len(shown(sheet).all("img", "src")) <= PAGE_PICTURES


def test_only_the_pictures_of_a_page_are_asked_for() -> None:
    asked: list[str] = []

    def thumbnail_of(file: str) -> bytes | None:
        asked.append(file)
        return None

    job_page(a_job(candidates=candidates(501)), thumbnail_of, 2)

    assert asked == ["mug_take01_501.png"]


def test_a_failure_on_another_page_is_linked_there() -> None:
    why = Reason(code="internal", message="oops")
    many = [*candidates(500), ShownCandidate(number=501, seed=1, state="failed", failure=why)]

    assert "index-2.html#c501" in shown(a_job(candidates=many, failures=[(why, [501])])).all("a", "href")


# --- batches ---


def test_the_last_axis_stands_across_the_one_before_it_down_and_others_over_a_grid_each() -> None:
    axes = [axis("steps", 4, 8), axis("prompt", "a mug", "a cup"), axis("guidance", 3.5), axis("seed", 1, 2, 3)]
    page = shown(a_job(candidates=candidates(12), axes=axes))

    assert page.texts("h3") == ["steps 4", "steps 8"]
    assert page.texts("th") == ["prompt ↓\nseed →", "1", "2", "3", "a mug", "a cup"] * 2
    assert page.all("figure", "id") == [f"c{number}" for number in range(1, 13)]
    assert [attributes.get("scope") for name, attributes in page.elements if name == "th"][:5] == [*["col"] * 4, "row"]


def test_a_cell_holds_all_candidates_of_its_item() -> None:
    page = shown(a_job(candidates=candidates(8), axes=[axis("prompt", "a mug", "a cup")], per_item=4))

    assert page.texts("th") == ["prompt a mug", "prompt a cup"]
    first, second = page.texts("td")
    assert [f"{number}seed" in first for number in range(1, 9)] == [*[True] * 4, *[False] * 4]
    assert [f"{number}seed" in second for number in range(1, 9)] == [*[False] * 4, *[True] * 4]


def test_a_long_value_is_cut_short_and_whole_as_a_tooltip() -> None:
    prompt = "a product photo of a mug, " * 20
    page = shown(a_job(candidates=candidates(2), axes=[axis("prompt", prompt, "a cup")]))

    assert prompt in page.all("bdi", "title")
    assert max(map(len, page.texts("th"))) < 120


def test_the_head_of_a_picture_shows_it() -> None:
    def head(index: int) -> Head:
        return Head(facts=[("image", f"mug_{index}.png")], file=f"sources/mug_{index}.png")

    page = shown(a_job(candidates=candidates(2), axes=[ShownAxis(key="image", size=2, head=head)]))

    assert page.all("img", "alt")[:2] == ["source mug_0.png", "source mug_1.png"]
    assert "sources/mug_1.png" in page.all("a", "href")


def test_an_axis_of_a_thousand_values_is_a_list_with_a_label_over_each_picture() -> None:
    axes = [axis("prompt", "a mug", "a cup"), axis("image", *(f"{number}.png" for number in range(1000)))]
    sheet = a_job(candidates=candidates(2000), axes=axes)
    third = shown(sheet, 3)

    assert sheet.layout.pages == 4
    assert "table" not in {name for name, _ in shown(sheet, 3).elements}
    assert third.texts("h3") == ["prompt a cup"]
    assert "image 0.png" in third.text
    assert third.all("figure", "id")[0] == "c1001"


def test_a_list_of_items_shows_the_values_of_its_columns_over_each() -> None:
    rows = [[("prompt", "a mug"), ("steps", "4")], [("prompt", "a cup")]]
    items = ShownAxis(key="item", size=2, head=lambda index: Head(facts=rows[index]), is_list=True)
    page = shown(a_job(candidates=candidates(4), axes=[items], per_item=2))

    assert page.classed("axis-head") == ["prompt a mugsteps 4", "prompt a cup"]
    assert page.texts("td") == []


@pytest.mark.parametrize(
    ("down", "across", "per_item", "per_page"), [(400, 3, 1, 498), (100, 4, 3, 492), (9, 16, 40, 480)]
)
def test_no_row_is_torn_between_two_pages(down: int, across: int, per_item: int, per_page: int) -> None:
    axes = [axis("image", *range(down)), axis("seed", *range(across))]
    found = grid.lay_out(axes, per_item=per_item, candidates=down * across * per_item)

    assert found.per_page == per_page
    assert [number for page in range(1, found.pages + 1) for number in found.on_page(page)] == list(
        range(1, found.candidates + 1)
    )
    assert all(number in found.on_page(found.page_of(number)) for number in range(1, found.candidates + 1))


def test_an_item_with_more_candidates_than_a_page_goes_on_on_the_next() -> None:
    found = grid.lay_out([axis("seed", 1, 2)], per_item=1000, candidates=2000)

    assert found.pages == 4
    assert found.across is None


# --- one candidate ---


def test_a_click_on_the_line_of_a_picture_shows_all_that_is_known_of_it_without_a_script() -> None:
    one = candidates(
        1,
        facts=[("prompt", "a red mug"), ("preset", "noise")],
        stages=[ShownStage(number=1, name="generate", seconds=4.2), ShownStage(number=3, name="export", seconds=0.1)],
        notices=["made at 128x128"],
        seconds=4.3,
    )
    page = shown(a_job(candidates=one))

    assert page.texts("summary") == ["1seed 424.3 s"]
    assert page.texts("dt") == ["prompt", "preset", "stages", "file", "notice"]
    assert page.texts("dd") == [
        "a red mug",
        "noise",
        "generate 4.2 sexport 0.1 s",
        "mug_take01_001.png, sidecar",
        "made at 128x128",
    ]
    assert page.all("li", "value") == ["1", "3"]


def test_each_variant_stands_under_its_name() -> None:
    files = [ShownPicture(file=f"mug_take01_001_{shape}.png", variant=shape) for shape in ("1x1", "16x9")]
    page = shown(a_job(candidates=candidates(1, pictures=files)))

    assert page.all("img", "alt") == ["candidate 1, seed 42, 1x1", "candidate 1, seed 42, 16x9"]
    assert page.classed("variant") == ["1x1", "16x9"]
    assert {"mug_take01_001_1x1.png", "mug_take01_001_16x9.png.toml"} <= set(page.all("a", "href"))


def test_a_candidate_that_was_left_out_is_dim_and_says_at_which_stage() -> None:
    one = candidates(1, state="left out", where="left out at stage 2 (select)")
    page = shown(a_job(candidates=one))

    assert "left out at stage 2 (select)" in page.text
    assert page.all("figure", "class") == ["card left-out"]
    assert page.all("img", "alt") == ["candidate 1, seed 42, left out"]
    assert "mug_take01_001.png.toml" not in page.all("a", "href")


def test_a_job_without_a_model_shows_no_seed_and_no_prompt() -> None:
    page = shown(a_job(preset=None, kind=None, prompt="", candidates=candidates(1, seed=None)))

    assert "seed" not in page.text
    assert "prompt" not in page.text
    assert page.all("img", "alt") == ["candidate 1"]


# --- review ---


def in_review(**fields: Any) -> JobSheet:
    review = Review(waiting=[1, 2, 3, 4], example=[1, 4], keep=2)
    usual: dict[str, Any] = {"state": "review", "review": review, "candidates": candidates(4, state="pick")}
    return a_job(**(usual | fields))


def test_a_job_in_review_says_which_file_to_drop_with_what_in_it() -> None:
    page = shown(in_review())

    assert "This job waits for you" in page.text
    assert page.texts("code") == ["mug_take01.resume", "jobs_inbox", "outputs"]
    assert page.texts("pre") == ["picks = [1, 4]", "hotfolder resume mug_take01 --picks 1,4"]
    assert page.text.index("This job waits for you") < page.text.index("Pictures")
    assert "The job means to go on with 2." in page.text


def test_each_candidate_that_waits_has_its_number_large_over_it() -> None:
    page = shown(in_review(candidates=[*candidates(3, state="pick"), candidates(4)[3]]))

    assert page.classed("big") == ["1", "2", "3"]
    assert page.all("img", "alt")[0] == "candidate 1, seed 42, waits to be picked"


def test_a_page_in_review_holds_still() -> None:
    assert shown(in_review()).refresh is None
    assert "While this time stands still" not in shown(in_review()).text


@pytest.mark.parametrize(
    ("state", "count", "seconds"),
    [
        ("running", 4, "5"),
        ("running", 500, "30"),
        ("queued", 4, "30"),
        ("completed", 4, None),
        ("partial", 4, None),
        ("cancelled", 4, None),
        ("rejected", 0, None),
    ],
)
def test_a_page_looks_again_by_itself_until_the_job_has_ended(state: str, count: int, seconds: str | None) -> None:
    assert shown(a_job(state=state, candidates=candidates(count))).refresh == seconds


def test_progress_is_shown_while_a_job_runs() -> None:
    progress = ShownProgress(text="candidate 3: denoise 14/28", fraction=0.625, seconds_left=83)
    page = shown(a_job(progress=progress, candidates=candidates(2)))

    assert "candidate 3: denoise 14/28" in page.text
    assert "62 % · 1 min 23 s left" in page.text
    assert "width: 62%" in page.all("div", "style")


def test_an_ended_job_says_how_long_it_took() -> None:
    page = shown(
        a_job(state="completed", started_at=NOON, finished_at=NOON + timedelta(seconds=3725), candidates=candidates(1))
    )

    assert "took 1 h 2 min" in page.text
    assert "finished 2026-11-20 13:02:05 UTC" in page.text
    assert "1 of 1 picture" in page.text


def a_daemon(**fields: Any) -> DaemonSheet:
    usual: dict[str, Any] = {
        "state": "running",
        "updated_at": NOON,
        "workspace": "/srv/studio",
        "host": "atelier",
        "pid": 4711,
        "counts": {"queued": 2, "completed": 3, "failed": 0},
        "running": [RunningJob(job="mug_take01", done=1, candidates=4)],
        "line": [
            LineJob(
                job="cup_take02", state="queued", position=1, candidates=4, eta=NOON, why="put in front by cup.first"
            )
        ],
        "line_count": 60,
        "wrong": ["outputs/ is nearly full"],
        "ignored": [("notes.docx", "not a job file")],
        "ignored_count": 7,
        "ended": [
            EndedJob(
                job="cup_take01", state="completed", finished_at=NOON, done=4, candidates=4, picture="cup_take01/a.png"
            )
        ],
    }
    return DaemonSheet(**(usual | fields))


def test_the_daemon_at_a_glance() -> None:
    page = shown(a_daemon())

    for text in (
        "process 4711 on atelier",
        "2 queued, 3 completed",
        "1 of 4",
        "put in front by cup.first",
        "and 59 more",
        "outputs/ is nearly full",
        "notes.docx",
        "and 6 more",
        "Written 2026-11-20 12:00:00 UTC",
    ):
        assert text in page.text
    assert {"mug_take01/index.html", "cup_take02/index.html", "cup_take01/index.html"} == set(page.all("a", "href"))
    assert len(page.all("img", "src")) == 1


def test_the_daemons_page_looks_again_until_it_has_stopped() -> None:
    assert shown(a_daemon()).refresh == "5"
    assert shown(a_daemon(state="paused")).refresh == "5"
    stopped = shown(a_daemon(state="stopped", running=[], line=[]))
    assert stopped.refresh is None
    assert "4711" not in stopped.text


def test_an_idle_daemon_says_what_to_do() -> None:
    assert "drop a job file into jobs_inbox" in shown(a_daemon(running=[], line=[], line_count=0)).text


def test_a_job_that_waits_for_a_person_stands_first_on_the_page_of_the_daemon() -> None:
    reviews = [
        ReviewJob(job="tea_take01", waiting=6, title="Tea", pictures=[(1, "tea_take01/work/001_01_generate.png")])
    ]
    page = shown(a_daemon(reviews=reviews))

    assert page.text.index("Waits for you") < page.text.index("Running")
    assert "6 pictures to pick from" in page.text
    assert page.all("a", "href")[:3] == ["tea_take01/index.html"] * 3
    assert page.all("img", "alt")[0] == "candidate 1"
