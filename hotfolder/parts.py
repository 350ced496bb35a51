"""Parts of every page: states, times, progress, what is wrong, pictures, and the page around them."""

import base64
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Final

from hotfolder import __version__
from hotfolder.markup import NOTHING, Html, bdi, join, link, tag

#: Characters of what stands in the place of a picture.
_MAX_INSTEAD: Final = 160
#: Numbers in the example of what to pick.
_MAX_EXAMPLE: Final = 6
#: Seconds after which a browser looks again.
REFRESH_BUSY_S: Final = 5

TONES: Final[Mapping[str, str]] = {
    "running": "busy",
    "completed": "good",
    "done": "good",
    "partial": "warn",
    "paused": "warn",
    "held": "warn",
    "review": "warn",
    "waiting": "warn",
    "pick": "warn",
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
    #: Such as "stage 3 (detect)"; "": it concerns no certain one.
    stage: str = ""


@dataclass(frozen=True, kw_only=True)
class ShownProgress:
    """How far a job is."""

    #: What is being done, such as "candidate 3: denoise 14/28".
    text: str
    #: Of the whole job, 0 to 1.
    fraction: float
    seconds_left: float | None = None


def progress(progress: ShownProgress) -> Html:
    """Return how far something is, as text and as a bar."""
    percent = round(100 * min(1.0, max(0.0, progress.fraction)))
    left = "" if progress.seconds_left is None else f" · {duration(progress.seconds_left)} left"
    bar = tag(
        "div", tag("div", style=f"width: {percent}%"), class_="bar", role="progressbar", aria_valuenow=str(percent)
    )
    return tag(
        "div", tag("p", bdi(progress.text), tag("span", f"{percent} %{left}", class_="soft")), bar, class_="progress"
    )


def trouble(reason: Reason, whom: Html | None = None) -> Html:
    """Return what is wrong and what to do; `whom`: what it struck."""
    at = f"line {reason.line}: " if reason.line else f"{reason.stage}: " if reason.stage else ""
    return tag(
        "div",
        tag("p", tag("strong", reason.code, class_="bad"), " ", at, bdi(reason.message)),
        tag("p", "Fix: ", bdi(reason.hint), class_="soft") if reason.hint else NOTHING,
        whom or NOTHING,
        class_="card note trouble",
    )


def sentence(reason: Reason) -> str:
    """Return why something stopped and what to do, in one line."""
    where = f"stopped at {reason.stage}: " if reason.stage else f"{reason.code}: "
    fix = f" Fix: {reason.hint}" if reason.hint else ""
    dot = "." if fix and not reason.message.endswith((".", "!", "?")) else ""
    return f"{where}{reason.message}{dot}{fix}"


def notes(texts: Sequence[str], tone: str = "", title: str = "") -> Html:
    """Return texts as one note, under a title if it has one; nothing where there are none."""
    paragraphs = [tag("p", bdi(text)) for text in texts]
    head = tag("p", tag("strong", title)) if title else NOTHING
    return tag("div", head, *paragraphs, class_=f"card note {tone}".strip()) if paragraphs else NOTHING


def well(
    file: str | None,
    thumbnail: Thumbnail,
    name: str,
    *,
    instead: str,
    tone: str = "",
    target: str | None = None,
    stays: bool = True,
) -> Html:
    """The place of a picture: its thumbnail, or words instead; links to the picture, or to `target`.

    Args:
        stays: whether the picture is there even if it has no thumbnail; else it is no link then.
    """
    small = thumbnail(file) if file is not None else None
    if small is None:
        inside = tag("span", bdi(_cut(instead)), class_=tone)
    else:
        # Of letters and digits only: to look through all of it for what must be escaped takes longer than the rest.
        data = Html(f"data:image/webp;base64,{base64.b64encode(small).decode()}")
        inside = tag("img", src=data, alt=name, loading="lazy", decoding="async")
    there = target or (file if stays or small is not None else None)
    return tag("div", inside, class_="well") if there is None else link(there, inside, class_="well")


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_INSTEAD else f"{text[: _MAX_INSTEAD - 3]}..."


def pictures(number: int) -> str:
    """Return how many pictures, in words."""
    return "1 picture" if number == 1 else f"{number} pictures"


def made(done: int, candidates: int, files: int) -> str:
    """Return how many of the candidates are finished; their files too, where one has several."""
    if files == done:
        return f"{done} of {pictures(candidates)}"
    return f"{done} of {candidates} candidate{'s' * (candidates != 1)}, {files} files"


def picks(waiting: Iterable[tuple[Sequence[int], int]]) -> list[int]:
    """Return picks that would do, to show how they are written.

    Args:
        waiting: of each item that waits, its candidates and how many of them are kept.
    """
    return [number for numbers, keep in waiting for number in numbers[:keep]][:_MAX_EXAMPLE]


def facts(*facts: str | Html | None) -> Html:
    """Return short facts in a line; empty ones are left out."""
    return tag("ul", *(tag("li", fact) for fact in facts if fact), class_="facts")


def state(state: str) -> Html:
    """Return a state as a badge."""
    return tag("span", state, class_=f"state {TONES.get(state, '')}".strip())


def time(moment: datetime) -> Html:
    """Return a moment, in UTC."""
    utc = moment.astimezone(UTC)
    return tag("time", f"{utc:%Y-%m-%d %H:%M:%S} UTC", datetime=f"{utc:%Y-%m-%dT%H:%M:%SZ}")


def duration(seconds: float) -> str:
    """Return how long, in words."""
    if seconds < 10:  # noqa: PLR2004 - below this the tenths are of interest
        return f"{max(0.0, seconds):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def footer(updated_at: datetime, *, live: bool) -> Html:
    """Return when the page was written."""
    still = " While this time stands still, so does the daemon." if live else ""
    return tag("footer", tag("p", "Written ", time(updated_at), f" by hotfolder {__version__}.", still))


def page(title: str, body: Html, refresh_s: int | None) -> bytes:
    """Return a whole page; `refresh_s`: when a browser looks again."""
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
