"""Pages that open from a shared folder by a double click: one for each job, one for the daemon.

No server, no script, nothing from elsewhere. What stands on them was written by strangers: text becomes HTML in one
place, `markup.tag`, which escapes it.
"""

import base64
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from typing import Final

from hotfolder import __version__
from hotfolder.markup import NOTHING, Html, bdi, join, link, tag

#: Candidates on one page of a contact sheet.
PAGE_CANDIDATES: Final = 500
#: Failed candidates that are named one by one above the pictures.
_MAX_FAILURES: Final = 20
#: Characters of what stands in the place of a picture.
_MAX_INSTEAD: Final = 160

#: Seconds after which a browser looks again; a page with many pictures costs more to read over a network.
_REFRESH_BUSY_S: Final = 5
_REFRESH_IDLE_S: Final = 30
_MANY_CANDIDATES: Final = 100

_ENDS: Final = frozenset({"completed", "partial", "failed", "cancelled", "rejected"})
_TONES: Final[Mapping[str, str]] = {
    "running": "busy",
    "completed": "good",
    "done": "good",
    "partial": "warn",
    "paused": "warn",
    "held": "warn",
    "review": "warn",
    "waiting": "warn",
    "failed": "bad",
    "rejected": "bad",
}
#: Thumbnail (WebP) of a picture by its path, with slashes, relative to the page; None: there is none.
Thumbnail = Callable[[str], bytes | None]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why something failed, and what to do about it."""

    code: str
    message: str
    hint: str = ""
    #: Of the job file.
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class ShownProgress:
    """How far a job is."""

    #: What is being done, such as "candidate 3: denoise 14/28".
    text: str
    #: Of the whole job, 0 to 1.
    fraction: float
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True)
class ShownSource:
    """A picture that a job took."""

    role: str
    name: str
    #: Path relative to the job's folder.
    file: str


@dataclass(frozen=True, kw_only=True)
class ShownCandidate:
    """One picture of a job, or its place."""

    number: int
    seed: int
    #: queued, running, done, failed or cancelled.
    state: str
    #: Where it is another than the job's.
    prompt: str = ""
    #: Name in the job's folder; its sidecar is beside it. None: not finished.
    file: str | None = None
    seconds: float | None = None
    failure: Reason | None = None


@dataclass(frozen=True, kw_only=True)
class JobSheet:
    """What the page of a job shows."""

    job: str
    state: str
    updated_at: datetime
    title: str | None = None
    project: str | None = None
    preset: str | None = None
    kind: str | None = None
    prompt: str = ""
    #: Of the pictures, in pixels: gives places that are still empty their shape.
    width: int = 1
    height: int = 1
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: int = 0
    progress: ShownProgress | None = None
    #: What is wrong with the job as a whole: its error, or every problem of its text.
    errors: Sequence[Reason] = ()
    #: What to do about them.
    todo: str = ""
    notices: Sequence[str] = ()
    #: Key -> value, in the order to show.
    settings: Mapping[str, str] = field(default_factory=dict)
    sources: Sequence[ShownSource] = ()
    candidates: Sequence[ShownCandidate] = ()
    #: Names in the job's folder to link to: job.toml, plan.toml, status.toml ...
    files: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """A job that is being made."""

    job: str
    done: int
    candidates: int
    title: str | None = None
    progress: ShownProgress | None = None


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


def job_pages(sheet: JobSheet, thumbnail: Thumbnail) -> Iterator[tuple[str, bytes]]:
    """Yield file name and content of each page of a job: `index.html`, `index-2.html` ..."""
    for number in range(1, page_count(sheet) + 1):
        yield page_name(number), job_page(sheet, thumbnail, number)


def page_count(sheet: JobSheet) -> int:
    """Return how many pages a job has, at least 1."""
    return max(1, -(-len(sheet.candidates) // PAGE_CANDIDATES))


def page_name(number: int) -> str:
    """Return the file name of a page, counted from 1."""
    return "index.html" if number == 1 else f"index-{number}.html"


def job_page(sheet: JobSheet, thumbnail: Thumbnail, number: int = 1) -> bytes:
    """Return one page of a job's contact sheet, to stand in the job's folder.

    Args:
        thumbnail: asked for the pictures of this page only.
        number: of the page, from 1 to `page_count`.
    """
    first = (number - 1) * PAGE_CANDIDATES
    shown = sheet.candidates[first : first + PAGE_CANDIDATES]
    navigation = _navigation(sheet, number)
    body = join(
        tag("p", link("../index.html", "All jobs"), class_="up"),
        _job_head(sheet),
        _progress(sheet.progress) if sheet.progress and sheet.state == "running" else NOTHING,
        join(*(_trouble(error) for error in sheet.errors)),
        _notes([sheet.todo] if sheet.todo else ()),
        _brief(sheet, thumbnail),
        _notes(sheet.notices),
        _failures(sheet, number),
        navigation,
        _candidates(sheet, shown, thumbnail),
        navigation,
        _settings(sheet.settings),
        _files(sheet),
        _footer(sheet.updated_at, live=sheet.state not in _ENDS),
    )
    return _page(f"{sheet.job} · {sheet.state}", body, _job_refresh(sheet))


def daemon_page(sheet: DaemonSheet, thumbnail: Thumbnail) -> bytes:
    """Return the daemon at a glance, to stand in `outputs/`."""
    live = sheet.state != "stopped"
    body = join(
        _daemon_head(sheet),
        _notes(sheet.wrong, "trouble"),
        _notes(sheet.notices),
        _running(sheet),
        _line(sheet),
        _ended(sheet, thumbnail),
        _ignored(sheet),
        _footer(sheet.updated_at, live=live),
    )
    return _page(f"Hotfolder · {sheet.state}", body, _REFRESH_BUSY_S if live else None)


# -- the parts of a job's page


def _job_head(sheet: JobSheet) -> Html:
    done = sum(candidate.state == "done" for candidate in sheet.candidates)
    failed = sum(candidate.state == "failed" for candidate in sheet.candidates)
    many = len(sheet.candidates)
    facts = [
        sheet.project and f"project {sheet.project}",
        sheet.preset and (f"{sheet.preset} ({sheet.kind})" if sheet.kind else sheet.preset),
        many and f"{done} of {_pictures(many)}" + (f", {failed} failed" if failed else ""),
        sheet.started_at
        and sheet.finished_at
        and f"took {_duration((sheet.finished_at - sheet.started_at).total_seconds())}",
        f"attempt {sheet.attempt}" if sheet.attempt > 1 else "",
    ]
    times = [("finished", sheet.finished_at), ("started", sheet.started_at), ("queued", sheet.queued_at)]
    latest = next((join(f"{word} ", _time(moment)) for word, moment in times if moment), None)
    return join(
        tag("div", tag("h1", bdi(sheet.title or sheet.job)), _state(sheet.state), class_="head"),
        _facts(bdi(sheet.job) if sheet.title else None, *(bdi(fact) for fact in facts if fact), latest),
    )


def _brief(sheet: JobSheet, thumbnail: Thumbnail) -> Html:
    """What was asked for: the pictures it starts from, and the prompt."""
    cards = [
        tag(
            "figure",
            _well(source.file, thumbnail, f"{source.role}: {source.name}", instead="no preview"),
            tag("figcaption", source.role, tag("p", bdi(source.name), class_="soft")),
            class_="card",
        )
        for source in sheet.sources
    ]
    prompt = tag("div", bdi(sheet.prompt), class_="card prompt") if sheet.prompt else NOTHING
    return tag("div", *cards, prompt, class_="brief") if cards or prompt else NOTHING


def _failures(sheet: JobSheet, number: int) -> Html:
    """Every failure once, with the candidates that it struck."""
    struck: dict[Reason, list[ShownCandidate]] = {}
    for candidate in sheet.candidates:
        if candidate.failure is not None:
            struck.setdefault(candidate.failure, []).append(candidate)
    return join(*(_trouble(reason, _struck(candidates, number)) for reason, candidates in struck.items()))


def _struck(candidates: Sequence[ShownCandidate], number: int) -> Html:
    links = []
    for candidate in candidates[:_MAX_FAILURES]:
        page = (candidate.number - 1) // PAGE_CANDIDATES + 1
        there = "" if page == number else page_name(page)
        links += [tag("a", str(candidate.number), href=f"{there}#c{candidate.number}"), ", "]
    more = len(candidates) - _MAX_FAILURES
    links[-1:] = [f" and {more} more"] if more > 0 else []
    return tag("p", "Candidate " if len(candidates) == 1 else "Candidates ", *links, class_="soft")


def _candidates(sheet: JobSheet, shown: Sequence[ShownCandidate], thumbnail: Thumbnail) -> Html:
    if not shown:
        return NOTHING
    shape = f"--shape: {max(1, sheet.width)} / {max(1, sheet.height)}"
    cards = [_candidate(candidate, thumbnail) for candidate in shown]
    return join(tag("h2", "Pictures"), tag("div", *cards, class_="grid", style=shape))


def _candidate(candidate: ShownCandidate, thumbnail: Thumbnail) -> Html:
    name = f"candidate {candidate.number}, seed {candidate.seed}"
    caption = [
        tag(
            "div",
            tag("span", str(candidate.number), class_="number"),
            tag("span", f"seed {candidate.seed}", class_="soft"),
            class_="row",
        )
    ]
    if candidate.file is not None:
        sidecar = link(f"{candidate.file}.toml", "sidecar")
        seconds = f"{_duration(candidate.seconds)}" if candidate.seconds is not None else ""
        caption.append(tag("div", sidecar, tag("span", seconds, class_="soft"), class_="row"))
    if candidate.failure is not None:
        reason = candidate.failure
        code = tag("span", reason.code, class_="bad")
        caption.append(tag("p", code, " ", bdi(reason.message), class_="clamp", title=reason.message))
    if candidate.prompt:
        caption.append(tag("p", bdi(candidate.prompt), class_="clamp soft", title=candidate.prompt))
    well = _well(
        candidate.file,
        thumbnail,
        name,
        instead="no preview" if candidate.file else candidate.state,
        tone=_TONES.get(candidate.state, ""),
    )
    return tag("figure", well, tag("figcaption", *caption), class_="card", id=f"c{candidate.number}")


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
    count = page_count(sheet)
    if count == 1:
        return NOTHING
    links = []
    for page in range(1, count + 1):
        first, last = (page - 1) * PAGE_CANDIDATES + 1, min(page * PAGE_CANDIDATES, len(sheet.candidates))
        text = f"{first} to {last}"
        links.append(tag("strong", text) if page == number else link(page_name(page), text))
    return tag("nav", *links, aria_label="Pages")


def _job_refresh(sheet: JobSheet) -> int | None:
    if sheet.state in _ENDS:
        return None
    busy = sheet.state == "running" and len(sheet.candidates) <= _MANY_CANDIDATES
    return _REFRESH_BUSY_S if busy else _REFRESH_IDLE_S


# -- the parts of the daemon's page


def _daemon_head(sheet: DaemonSheet) -> Html:
    counts = [f"{number} {state}" for state, number in sheet.counts.items() if number]
    facts = [
        bdi(sheet.workspace),
        f"process {sheet.pid} on {sheet.host}" if sheet.pid is not None and sheet.state != "stopped" else None,
        f"{sheet.free_gb:.0f} GB free" if sheet.free_gb is not None else None,
        ", ".join(counts) or None,
    ]
    return join(tag("div", tag("h1", "Hotfolder"), _state(sheet.state), class_="head"), _facts(*facts))


def _running(sheet: DaemonSheet) -> Html:
    if not sheet.running:
        return NOTHING
    return join(tag("h2", "Running"), *(_running_job(job) for job in sheet.running))


def _running_job(job: RunningJob) -> Html:
    name = link(f"{job.job}/index.html", job.title or job.job)
    head = tag("p", name, tag("span", f"{job.done} of {job.candidates}", class_="soft"), class_="row")
    folder = tag("p", bdi(job.job), class_="soft") if job.title else NOTHING
    return tag("div", head, folder, _progress(job.progress) if job.progress else NOTHING, class_="card note")


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
            tag("td", job.state, class_=_TONES.get(job.state, "")),
            tag("td", "" if job.candidates is None else str(job.candidates), class_="right"),
            tag("td", _time(job.eta) if job.eta else ""),
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
        pictures = f"{job.done} of {job.candidates}" if job.done != job.candidates else _pictures(job.done)
        caption = tag(
            "figcaption",
            link(page, job.title or job.job),
            tag("div", bdi(job.job), class_="soft") if job.title else NOTHING,
            tag(
                "div",
                tag("span", job.state, class_=_TONES.get(job.state, "soft")),
                tag("span", pictures, class_="soft"),
                class_="row",
            ),
            tag("div", _time(job.finished_at), class_="soft") if job.finished_at else NOTHING,
        )
        cards.append(
            tag(
                "figure",
                _well(job.picture, thumbnail, job.job, instead=job.reason or "no picture", target=page),
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


# -- parts of both


def _progress(progress: ShownProgress) -> Html:
    percent = round(100 * min(1.0, max(0.0, progress.fraction)))
    left = "" if progress.seconds_left is None else f" · {_duration(progress.seconds_left)} left"
    bar = tag(
        "div", tag("div", style=f"width: {percent}%"), class_="bar", role="progressbar", aria_valuenow=str(percent)
    )
    return tag(
        "div", tag("p", bdi(progress.text), tag("span", f"{percent} %{left}", class_="soft")), bar, class_="progress"
    )


def _trouble(reason: Reason, whom: Html | None = None) -> Html:
    at = f"line {reason.line}: " if reason.line else ""
    return tag(
        "div",
        tag("p", tag("strong", reason.code, class_="bad"), " ", at, bdi(reason.message)),
        tag("p", bdi(reason.hint), class_="soft") if reason.hint else NOTHING,
        whom or NOTHING,
        class_="card note trouble",
    )


def _notes(texts: Sequence[str], tone: str = "") -> Html:
    paragraphs = [tag("p", bdi(text)) for text in texts]
    return tag("div", *paragraphs, class_=f"card note {tone}".strip()) if paragraphs else NOTHING


def _well(
    file: str | None, thumbnail: Thumbnail, name: str, *, instead: str, tone: str = "", target: str | None = None
) -> Html:
    """The place of a picture: its thumbnail, or words instead; links to the picture, or to `target`."""
    small = thumbnail(file) if file is not None else None
    if small is None:
        inside = tag("span", bdi(_cut(instead)), class_=tone)
    else:
        data = f"data:image/webp;base64,{base64.b64encode(small).decode()}"
        inside = tag("img", src=data, alt=name, loading="lazy", decoding="async")
    there = target or file
    return tag("div", inside, class_="well") if there is None else link(there, inside, class_="well")


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_INSTEAD else f"{text[: _MAX_INSTEAD - 3]}..."


def _pictures(number: int) -> str:
    return "1 picture" if number == 1 else f"{number} pictures"


def _facts(*facts: str | Html | None) -> Html:
    return tag("ul", *(tag("li", fact) for fact in facts if fact), class_="facts")


def _state(state: str) -> Html:
    return tag("span", state, class_=f"state {_TONES.get(state, '')}".strip())


def _time(moment: datetime) -> Html:
    utc = moment.astimezone(UTC)
    return tag("time", f"{utc:%Y-%m-%d %H:%M:%S} UTC", datetime=f"{utc:%Y-%m-%dT%H:%M:%SZ}")


def _duration(seconds: float) -> str:
    if seconds < 10:  # noqa: PLR2004 - below this the tenths are of interest
        return f"{max(0.0, seconds):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _footer(updated_at: datetime, *, live: bool) -> Html:
    still = " While this time stands still, so does the daemon." if live else ""
    return tag("footer", tag("p", "Written ", _time(updated_at), f" by hotfolder {__version__}.", still))


def _page(title: str, body: Html, refresh_s: int | None) -> bytes:
    head = join(
        tag("meta", charset="utf-8"),
        # Were a name ever to get through unescaped, nothing would run and nothing would be fetched.
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
        ),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="refresh", content=str(refresh_s)) if refresh_s else NOTHING,
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Html(_style())),
    )
    return Html(
        "<!doctype html>\n" + tag("html", tag("head", head), tag("body", tag("main", body)), lang="en")
    ).encode()


@functools.cache
def _style() -> str:
    return resources.files("hotfolder").joinpath("sheet.css").read_text("utf-8")
