"""The contact sheet of a job: pages that open from a shared folder by a double click.

No server, no script, nothing from elsewhere. What stands on them was written by strangers: text becomes HTML in one
place, `markup.tag`, which escapes it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from hotfolder import grid, parts
from hotfolder.cards import PICK, ShownCandidate
from hotfolder.grid import Candidates, Layout
from hotfolder.markup import NOTHING, Html, bdi, join, link, tag
from hotfolder.parts import Reason, ShownProgress, Thumbnail

#: Candidates that are named one by one above the pictures, and reasons why some failed.
_MAX_NAMED: Final = 20
_MAX_REASONS: Final = 20
#: Pictures that the job starts from, shown at the top.
_MAX_SOURCES: Final = 8
#: Seconds after which a browser looks again; a page with many pictures costs more to read over a network.
_REFRESH_IDLE_S: Final = 30
_MANY_CANDIDATES: Final = 100

_OPEN: Final = frozenset({"queued", "running", PICK})
_ENDS: Final = frozenset({"completed", "partial", "failed", "cancelled", "rejected"})


@dataclass(frozen=True, kw_only=True)
class ShownSource:
    """A picture that a job took."""

    role: str
    name: str
    #: Path relative to the job's folder.
    file: str


@dataclass(frozen=True, kw_only=True)
class Review:
    """What a person is asked, while a job waits for it."""

    #: Candidates that wait to be picked.
    waiting: Sequence[int]
    #: Picks that would do, to show how they are written.
    example: Sequence[int]
    #: Of an item, how many the pipeline means to go on with.
    keep: int
    #: Items whose candidates wait.
    items: int = 1


def _no_candidate(number: int) -> ShownCandidate:
    raise LookupError(number)


@dataclass(frozen=True, kw_only=True)
class JobSheet:
    """What the pages of a job show."""

    job: str
    state: str
    updated_at: datetime
    title: str | None = None
    project: str | None = None
    #: Of all stages that generate, with commas; None where they differ from picture to picture.
    preset: str | None = None
    #: None where they are of several.
    kind: str | None = None
    #: Of all candidates; "" where they differ in it.
    prompt: str = ""
    #: Of the pictures, in pixels: gives places that are still empty their shape.
    width: int = 1
    height: int = 1
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: int = 0
    progress: ShownProgress | None = None
    review: Review | None = None
    #: What is wrong with the job as a whole: its error, or every problem of its text.
    errors: Sequence[Reason] = ()
    #: Why candidates failed: each reason once, with those that it struck.
    failures: Sequence[tuple[Reason, Sequence[int]]] = ()
    #: What to do about them.
    todo: str = ""
    notices: Sequence[str] = ()
    #: Key -> value, in the order to show.
    settings: Mapping[str, str] = field(default_factory=dict)
    sources: Sequence[ShownSource] = ()
    #: Such as "2 presets x 3 seeds".
    batch: str = ""
    layout: Layout = field(default_factory=Layout)
    #: Asked for the candidates of one page only.
    candidate: Candidates = _no_candidate
    done: int = 0
    #: More than `done` where a candidate has several; None: one each.
    finished_files: int | None = None
    failed: int = 0
    left_out: int = 0
    #: Names in the job's folder to link to: job.toml, plan.toml, status.toml ...
    files: Sequence[str] = ()


def job_pages(sheet: JobSheet, thumbnail: Thumbnail) -> Iterator[tuple[str, bytes]]:
    """Yield file name and content of each page of a job: `index.html`, `index-2.html` ..."""
    for number in range(1, sheet.layout.pages + 1):
        yield page_name(number), job_page(sheet, thumbnail, number)


def page_name(number: int) -> str:
    """Return the file name of a page, counted from 1."""
    return "index.html" if number == 1 else f"index-{number}.html"


def job_page(sheet: JobSheet, thumbnail: Thumbnail, number: int = 1) -> bytes:
    """Return one page of a job's contact sheet, to stand in the job's folder.

    Only the first one tells how far the job is: the others are written again only when their pictures change.

    Args:
        thumbnail: asked for the pictures of this page only.
        number: of the page, from 1 to `sheet.layout.pages`.
    """
    navigation = _navigation(sheet, number)
    shown = {candidate: sheet.candidate(candidate) for candidate in sheet.layout.on_page(number)}
    states = {one.state for one in shown.values()}
    body = join(
        _first_head(sheet, thumbnail) if number == 1 else _other_head(sheet, number, to_pick=PICK in states),
        navigation,
        _candidates(sheet, shown, thumbnail, number),
        navigation,
        _settings(sheet.settings) if number == 1 else NOTHING,
        _files(sheet) if number == 1 else NOTHING,
        parts.footer(sheet.updated_at, live=number == 1 and sheet.state not in {*_ENDS, "review"}),
    )
    if number > 1:
        # Where all is over it is not written again when the job ends.
        again = _REFRESH_IDLE_S if states & _OPEN and sheet.state not in _ENDS else None
        return parts.page(f"{sheet.job} \N{MIDDLE DOT} page {number}", body, again)
    return parts.page(f"{sheet.job} \N{MIDDLE DOT} {sheet.state}", body, refresh_s(sheet))


def refresh_s(sheet: JobSheet) -> int | None:
    """Return after how many seconds a browser looks at the first page again; None: nothing new comes by itself.

    While a person picks, the page holds still under their eyes.
    """
    if sheet.state in _ENDS or sheet.state == "review":
        return None
    busy = sheet.state == "running" and sheet.layout.candidates <= _MANY_CANDIDATES
    return parts.REFRESH_BUSY_S if busy else _REFRESH_IDLE_S


def _first_head(sheet: JobSheet, thumbnail: Thumbnail) -> Html:
    return join(
        tag("p", link("../index.html", "All jobs"), class_="up"),
        _job_head(sheet),
        parts.progress(sheet.progress) if sheet.progress and sheet.state == "running" else NOTHING,
        _review(sheet, sheet.review) if sheet.review else NOTHING,
        join(*(parts.trouble(error) for error in sheet.errors)),
        _failures(sheet),
        # It begins with "When that is mended".
        parts.notes([sheet.todo] if sheet.todo else ()),
        _brief(sheet, thumbnail),
        parts.notes(sheet.notices, title="Notices"),
    )


def _other_head(sheet: JobSheet, number: int, *, to_pick: bool) -> Html:
    shown = sheet.layout.on_page(number)
    return join(
        tag("p", link("index.html", sheet.title or sheet.job), class_="up"),
        tag("h1", f"Pictures {shown[0]} to {shown[-1]} of {sheet.layout.candidates}"),
        parts.notes(["Pick from these too: how, says the first page."]) if sheet.review and to_pick else NOTHING,
    )


def _job_head(sheet: JobSheet) -> Html:
    many = sheet.layout.candidates
    files = sheet.done if sheet.finished_files is None else sheet.finished_files
    counts = [parts.made(sheet.done, many, files)]
    counts += [f"{sheet.failed} failed"] if sheet.failed else []
    counts += [f"{sheet.left_out} left out"] if sheet.left_out else []
    facts = [
        sheet.project and f"project {sheet.project}",
        sheet.preset and (f"{sheet.preset} ({sheet.kind})" if sheet.kind else sheet.preset),
        sheet.batch,
        many and ", ".join(counts),
        sheet.started_at
        and sheet.finished_at
        and f"took {parts.duration((sheet.finished_at - sheet.started_at).total_seconds())}",
        f"attempt {sheet.attempt}" if sheet.attempt > 1 else "",
    ]
    times = [("finished", sheet.finished_at), ("started", sheet.started_at), ("queued", sheet.queued_at)]
    latest = next((join(f"{word} ", parts.time(moment)) for word, moment in times if moment), None)
    return join(
        tag("div", tag("h1", bdi(sheet.title or sheet.job)), parts.state(sheet.state), class_="head"),
        parts.facts(bdi(sheet.job) if sheet.title else None, *(bdi(fact) for fact in facts if fact), latest),
    )


def _review(sheet: JobSheet, review: Review) -> Html:
    """Say what to do, to somebody who has never seen this program."""
    few = ", ".join(map(str, review.example))
    each = " of each group" if review.items > 1 else ""
    keep = f"The job means to go on with {review.keep}{each}." if review.keep else ""
    waiting = _linked(sheet, review.waiting)
    return tag(
        "section",
        tag("h2", "This job waits for you: pick the pictures to go on with"),
        tag(
            "ol",
            tag("li", "Look at the pictures below. Each that waits has a large number: ", waiting, f". {keep}"),
            tag(
                "li",
                "Make a text file named ",
                tag("code", f"{sheet.job}.resume"),
                " (your system may add .txt to it) with this one line in it, your own numbers in place of ",
                f"{few}:",
                tag("pre", f"picks = [{few}]"),
            ),
            tag(
                "li",
                "Put that file into the folder ",
                tag("code", "jobs_inbox"),
                ", which lies beside the folder ",
                tag("code", "outputs"),
                " that this page is in.",
            ),
        ),
        tag("p", "Or on a command line:"),
        tag("pre", f"hotfolder resume {sheet.job} --picks {few.replace(', ', ',')}"),
        tag(
            "p",
            "The job then goes on by itself. What is not picked is left out; its pictures stay in the folder. ",
            "Load this page again to see what comes of it.",
            class_="soft",
        ),
        class_="card note review",
        id="review",
    )


def _brief(sheet: JobSheet, thumbnail: Thumbnail) -> Html:
    """What was asked for: the pictures it starts from, and the prompt."""
    cards = [
        tag(
            "figure",
            parts.well(source.file, thumbnail, f"{source.role}: {source.name}", instead="no preview"),
            tag("figcaption", source.role, tag("p", bdi(source.name), class_="soft")),
            class_="card",
        )
        for source in sheet.sources[:_MAX_SOURCES]
    ]
    more = len(sheet.sources) - _MAX_SOURCES
    if more > 0:
        cards.append(tag("p", f"and {more} more", class_="soft"))
    prompt = tag("div", bdi(sheet.prompt), class_="card prompt") if sheet.prompt else NOTHING
    return tag("div", *cards, prompt, class_="brief") if cards or prompt else NOTHING


def _failures(sheet: JobSheet) -> Html:
    """Every reason once, with the candidates that it struck."""
    shown = [parts.trouble(reason, _struck(sheet, numbers)) for reason, numbers in sheet.failures[:_MAX_REASONS]]
    more = sum(len(numbers) for _, numbers in sheet.failures[_MAX_REASONS:])
    return join(*shown, parts.notes([f"{more} more failed for other reasons: see below."]) if more else NOTHING)


def _struck(sheet: JobSheet, numbers: Sequence[int]) -> Html:
    return tag("p", "Candidate " if len(numbers) == 1 else "Candidates ", _linked(sheet, numbers), class_="soft")


def _linked(sheet: JobSheet, numbers: Sequence[int]) -> Html:
    """Return the numbers of candidates, each a link from the first page to where it stands."""
    links: list[str | Html] = []
    for number in numbers[:_MAX_NAMED]:
        there = sheet.layout.page_of(number)
        links += [tag("a", str(number), href=f"{'' if there == 1 else page_name(there)}#c{number}"), ", "]
    more = len(numbers) - _MAX_NAMED
    links[-1:] = [f" and {more} more"] if more > 0 else []
    return join(*links)


def _candidates(sheet: JobSheet, found: Mapping[int, ShownCandidate], thumbnail: Thumbnail, number: int) -> Html:
    if not sheet.layout.candidates:
        return NOTHING
    shape = f"--shape: {max(1, sheet.width)} / {max(1, sheet.height)}"
    shown = grid.draw(sheet.layout, number, found.__getitem__, thumbnail)
    return join(tag("h2", "Pictures"), tag("div", shown, class_="pictures", style=shape))


def _settings(settings: Mapping[str, str]) -> Html:
    if not settings:
        return NOTHING
    rows = [
        tag("tr", tag("th", key, scope="row"), tag("td", bdi(value), class_="pre")) for key, value in settings.items()
    ]
    return join(tag("h2", "Settings"), tag("div", tag("table", *rows, class_="settings"), class_="card scroll"))


def _files(sheet: JobSheet) -> Html:
    return tag("nav", *(link(name, name) for name in sheet.files)) if sheet.files else NOTHING


def _navigation(sheet: JobSheet, number: int) -> Html:
    layout = sheet.layout
    if layout.pages == 1:
        return NOTHING
    links = []
    for page in range(1, layout.pages + 1):
        shown = layout.on_page(page)
        text = f"{shown[0]} to {shown[-1]}"
        links.append(tag("strong", text) if page == number else link(page_name(page), text))
    return tag("nav", *links, aria_label="Pages")
