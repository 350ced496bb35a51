import base64
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from samples import picture

from hotfolder.sheet import (
    PAGE_CANDIDATES,
    DaemonSheet,
    EndedJob,
    JobSheet,
    LineJob,
    Reason,
    RunningJob,
    ShownCandidate,
    ShownProgress,
    ShownSource,
    daemon_page,
    job_page,
    job_pages,
    page_count,
)
from hotfolder.thumbs import MAX_BYTES, thumbnail

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SMALL = thumbnail(picture())
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\x1b[2J\u202egnp\udcff\x00</style></title>"


class Page(HTMLParser):
    """A page as a browser sees it: its elements, its text, and whether every element is closed."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(data.decode())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in {"img", "link", "meta"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, name: str, attribute: str) -> list[str]:
        return [attributes[attribute] for tag, attributes in self.elements if tag == name and attribute in attributes]

    @property
    def refresh(self) -> str | None:
        found = [one["content"] for tag, one in self.elements if tag == "meta" and one.get("http-equiv") == "refresh"]
        return found[0] if found else None


def a_job(**fields: Any) -> JobSheet:
    usual: dict[str, Any] = {
        "job": "mug_take01",
        "state": "running",
        "updated_at": NOON,
        "prompt": "a mug",
        "preset": "tiny",
        "kind": "text2img",
    }
    return JobSheet(**(usual | fields))


def candidates(count: int, **fields: Any) -> list[ShownCandidate]:
    usual: dict[str, Any] = {"state": "done"}
    return [
        ShownCandidate(number=number, seed=41 + number, file=f"mug_take01_{number:03d}.png", **(usual | fields))
        for number in range(1, count + 1)
    ]


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
    reason = Reason(code="bad-picture", message=HOSTILE, hint=HOSTILE, line=3)
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
            ShownCandidate(number=1, seed=1, state=HOSTILE, prompt=HOSTILE, file="a<b>.png", failure=reason),
            ShownCandidate(number=2, seed=2, state=HOSTILE),
        ],
        files=["job.toml"],
    )
    daemon = DaemonSheet(
        state=HOSTILE,
        updated_at=NOON,
        workspace=HOSTILE,
        host=HOSTILE,
        pid=1,
        counts={HOSTILE: 1},
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


def test_a_failure_says_why_once_and_names_every_candidate_it_struck() -> None:
    why = Reason(code="out-of-memory", message="1024x1024 does not fit", hint="try 768x768")
    struck = [ShownCandidate(number=n, seed=n, state="failed", failure=why) for n in (1, 2)]
    page = shown(a_job(state="failed", candidates=struck))

    assert page.text.count("try 768x768") == 1
    assert "Candidates 1, 2" in page.text
    assert [link for link in page.all("a", "href") if link.startswith("#")] == ["#c1", "#c2"]
    assert "0 of 2 pictures, 2 failed" in page.text


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
    sheet = a_job(candidates=candidates(1000, prompt="p" * 200))

    pages = dict(job_pages(sheet, lambda file: largest))

    assert list(pages) == ["index.html", "index-2.html"]
    assert page_count(sheet) == 2
    assert max(map(len, pages.values())) < PAGE_CANDIDATES * (MAX_BYTES * 4 // 3 + 1_200) + 20_000
    second = Page(pages["index-2.html"])
    assert len(second.all("img", "src")) == 500
    assert "candidate 501, seed 542" in second.all("img", "alt")
    assert "index.html" in second.all("a", "href")


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

    assert "index-2.html#c501" in shown(a_job(candidates=many)).all("a", "href")
    assert "#c501" in shown(a_job(candidates=many), 2).all("a", "href")


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
