"""The daemon at a glance: the page in `outputs/` from which those of the jobs are reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from hotfolder import parts
from hotfolder.markup import NOTHING, Html, bdi, join, link, tag
from hotfolder.parts import ShownProgress, Thumbnail


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """A job that is being made."""

    job: str
    done: int
    candidates: int
    title: str | None = None
    progress: ShownProgress | None = None


@dataclass(frozen=True, kw_only=True)
class ReviewJob:
    """A job that waits for a person to pick."""

    job: str
    #: Candidates that wait.
    waiting: int
    title: str | None = None
    #: Number and path relative to `outputs/` of the first of them.
    pictures: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True, kw_only=True)
class LineJob:
    """A job in the line, or one that waits or is held."""

    job: str
    state: str
    #: None where it has no place yet.
    position: int | None = None
    candidates: int | None = None
    eta: datetime | None = None
    #: Why it stands where it stands, waits, or is held.
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class EndedJob:
    """A job that ended."""

    job: str
    state: str
    finished_at: datetime | None = None
    done: int = 0
    candidates: int = 0
    title: str | None = None
    #: Path of one of its pictures relative to `outputs/`.
    picture: str | None = None
    #: Why it has none: the first thing wrong with it.
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class DaemonSheet:
    """What the page of the daemon shows."""

    #: running, paused or stopped.
    state: str
    updated_at: datetime
    workspace: str
    host: str = ""
    pid: int | None = None
    #: State -> number of jobs.
    counts: Mapping[str, int] = field(default_factory=dict)
    free_gb: float | None = None
    reviews: Sequence[ReviewJob] = ()
    running: Sequence[RunningJob] = ()
    line: Sequence[LineJob] = ()
    #: How many there are, where `line` holds only the first.
    line_count: int = 0
    #: What whoever runs the daemon must see to.
    wrong: Sequence[str] = ()
    notices: Sequence[str] = ()
    #: Name and why.
    ignored: Sequence[tuple[str, str]] = ()
    ignored_count: int = 0
    #: Newest first.
    ended: Sequence[EndedJob] = ()


def daemon_page(sheet: DaemonSheet, thumbnail: Thumbnail) -> bytes:
    """Return the daemon at a glance, to stand in `outputs/`."""
    live = sheet.state != "stopped"
    body = join(
        _daemon_head(sheet),
        parts.notes(sheet.wrong, "trouble"),
        parts.notes(sheet.notices, title="Notices"),
        _reviews(sheet, thumbnail),
        _running(sheet),
        _line(sheet),
        _ended(sheet, thumbnail),
        _ignored(sheet),
        parts.footer(sheet.updated_at, live=live),
    )
    return parts.page(f"Hotfolder · {sheet.state}", body, parts.REFRESH_BUSY_S if live else None)


def _daemon_head(sheet: DaemonSheet) -> Html:
    counts = [f"{number} {state}" for state, number in sheet.counts.items() if number]
    facts = [
        bdi(sheet.workspace),
        f"process {sheet.pid} on {sheet.host}" if sheet.pid is not None and sheet.state != "stopped" else None,
        f"{sheet.free_gb:.0f} GB free" if sheet.free_gb is not None else None,
        ", ".join(counts) or None,
    ]
    return join(tag("div", tag("h1", "Hotfolder"), parts.state(sheet.state), class_="head"), parts.facts(*facts))


def _reviews(sheet: DaemonSheet, thumbnail: Thumbnail) -> Html:
    """Jobs that go no further before somebody has looked at them."""
    if not sheet.reviews:
        return NOTHING
    return join(tag("h2", "Waits for you"), *(_review(job, thumbnail) for job in sheet.reviews))


def _review(job: ReviewJob, thumbnail: Thumbnail) -> Html:
    page = f"{job.job}/index.html"
    small = [
        parts.well(file, thumbnail, f"candidate {number}", instead="no preview", target=page)
        for number, file in job.pictures
    ]
    return tag(
        "div",
        tag(
            "p",
            link(page, job.title or job.job),
            tag("span", f"{parts.pictures(job.waiting)} to pick from", class_="warn"),
            class_="row",
        ),
        tag("p", bdi(job.job), class_="soft") if job.title else NOTHING,
        tag("div", *small, class_="strip") if small else NOTHING,
        tag("p", link(page, "Look at them and pick"), ": the page says how.", class_="soft"),
        class_="card note review",
    )


def _running(sheet: DaemonSheet) -> Html:
    if not sheet.running:
        return NOTHING
    return join(tag("h2", "Running"), *(_running_job(job) for job in sheet.running))


def _running_job(job: RunningJob) -> Html:
    name = link(f"{job.job}/index.html", job.title or job.job)
    head = tag("p", name, tag("span", f"{job.done} of {job.candidates}", class_="soft"), class_="row")
    folder = tag("p", bdi(job.job), class_="soft") if job.title else NOTHING
    return tag("div", head, folder, parts.progress(job.progress) if job.progress else NOTHING, class_="card note")


def _line(sheet: DaemonSheet) -> Html:
    if not sheet.line:
        nothing = "Nothing is waiting." if sheet.running else "Nothing to do: drop a job file into jobs_inbox."
        return join(tag("h2", "The line"), tag("p", nothing, class_="soft")) if sheet.state != "stopped" else NOTHING
    columns = {"": "", "job": "", "state": "", "pictures": "right", "ready by": "", "why": "wide"}
    head = tag("tr", *(tag("th", text, scope="col", class_=tone) for text, tone in columns.items()))
    rows = [
        tag(
            "tr",
            tag("td", "" if job.position is None else str(job.position), class_="right soft"),
            tag("td", link(f"{job.job}/index.html", job.job)),
            tag("td", job.state, class_=parts.TONES.get(job.state, "")),
            tag("td", "" if job.candidates is None else str(job.candidates), class_="right"),
            tag("td", parts.time(job.eta) if job.eta else ""),
            tag("td", bdi(job.why), class_="soft"),
        )
        for job in sheet.line
    ]
    more = sheet.line_count - len(sheet.line)
    return join(
        tag("h2", "The line"),
        tag("div", tag("table", head, *rows), class_="card scroll"),
        tag("p", f"and {more} more", class_="soft") if more > 0 else NOTHING,
    )


def _ended(sheet: DaemonSheet, thumbnail: Thumbnail) -> Html:
    if not sheet.ended:
        return NOTHING
    cards = []
    for job in sheet.ended:
        page = f"{job.job}/index.html"
        pictures = f"{job.done} of {job.candidates}" if job.done != job.candidates else parts.pictures(job.done)
        caption = tag(
            "figcaption",
            link(page, job.title or job.job),
            tag("div", bdi(job.job), class_="soft") if job.title else NOTHING,
            tag(
                "div",
                tag("span", job.state, class_=parts.TONES.get(job.state, "soft")),
                tag("span", pictures, class_="soft"),
                class_="row",
            ),
            tag("div", parts.time(job.finished_at), class_="soft") if job.finished_at else NOTHING,
        )
        cards.append(
            tag(
                "figure",
                parts.well(job.picture, thumbnail, job.job, instead=job.reason or "no picture", target=page),
                caption,
                class_="card",
            )
        )
    return join(tag("h2", "Newest jobs"), tag("div", *cards, class_="grid"))


def _ignored(sheet: DaemonSheet) -> Html:
    if not sheet.ignored:
        return NOTHING
    rows = [tag("tr", tag("td", bdi(name)), tag("td", bdi(why), class_="soft")) for name, why in sheet.ignored]
    more = sheet.ignored_count - len(sheet.ignored)
    return join(
        tag("h2", "Left alone in jobs_inbox"),
        tag("div", tag("table", *rows), class_="card scroll"),
        tag("p", f"and {more} more", class_="soft") if more > 0 else NOTHING,
    )
