"""One candidate on a contact sheet: its pictures, its number, what became of it, and all that is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hotfolder import parts
from hotfolder.markup import NOTHING, Html, bdi, join, link, tag
from hotfolder.parts import Reason, Thumbnail

#: States in which a candidate has its finished pictures; it needs no word then.
DONE: Final = "done"
#: Waits for a person to pick it.
PICK: Final = "pick"
LEFT_OUT: Final = "left out"

#: Characters of a value in the details; the sidecar has the whole.
_MAX_VALUE: Final = 600


@dataclass(frozen=True, kw_only=True)
class ShownPicture:
    """A picture of a candidate."""

    #: Path relative to the job's folder.
    file: str
    #: Such as "16x9"; "" where there is only one.
    variant: str = ""


@dataclass(frozen=True, kw_only=True)
class ShownStage:
    """A stage that a candidate went through."""

    number: int
    name: str
    #: None: it only chose, or how long it took is not known.
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class ShownCandidate:
    """One candidate of a job, or its place."""

    number: int
    #: queued, running, done, failed, cancelled, "left out" or "pick".
    state: str
    #: None: nothing was drawn.
    seed: int | None = None
    #: Finished, or as they stand where it is now; sidecars stand beside finished ones.
    pictures: Sequence[ShownPicture] = ()
    #: At which stage it is, or was left out.
    where: str = ""
    seconds: float | None = None
    failure: Reason | None = None
    #: Key -> value: preset, prompt, what the axes set.
    facts: Sequence[tuple[str, str]] = ()
    stages: Sequence[ShownStage] = ()
    notices: Sequence[str] = ()


def card(candidate: ShownCandidate, thumbnail: Thumbnail) -> Html:
    """Return a candidate as a figure that is reached as #c and its number."""
    failure = candidate.failure
    return tag(
        "figure",
        _pictures(candidate, thumbnail),
        tag(
            "figcaption",
            _details(candidate),
            tag("p", candidate.where, class_="soft") if candidate.where and failure is None else NOTHING,
            tag("p", parts.sentence(failure), class_="why") if failure is not None else NOTHING,
        ),
        class_=f"card {candidate.state.replace(' ', '-') if candidate.state in {PICK, LEFT_OUT} else ''}".strip(),
        id=f"c{candidate.number}",
    )


def _pictures(candidate: ShownCandidate, thumbnail: Thumbnail) -> Html:
    """Return the pictures of a candidate, or words in their place; over one that waits stands its number."""
    done, waits = candidate.state == DONE, candidate.state == PICK
    name = f"candidate {candidate.number}" + ("" if candidate.seed is None else f", seed {candidate.seed}")
    name += "" if done else ", waits to be picked" if waits else f", {candidate.state}"
    wells = []
    shown: Sequence[ShownPicture | None] = candidate.pictures or [None]
    for picture in shown:
        variant = picture.variant if picture is not None else ""
        well = parts.well(
            picture.file if picture is not None else None,
            thumbnail,
            f"{name}, {variant}" if variant else name,
            instead="no preview" if done or waits else candidate.state,
            tone=parts.TONES.get(candidate.state, ""),
            stays=done,
        )
        wells.append(join(well, tag("span", variant, class_="variant") if variant else NOTHING))
    number = tag("span", str(candidate.number), class_="big") if candidate.state == PICK else NOTHING
    if len(wells) > 1:
        return tag("div", *(tag("div", one, class_="one") for one in wells), number, class_="wells several")
    return tag("div", wells[0], number, class_="wells")


def _details(candidate: ShownCandidate) -> Html:
    """Return the line below a picture; a click on it shows all that is known."""
    small = [
        "" if candidate.seed is None else f"seed {candidate.seed}",
        "" if candidate.seconds is None else parts.duration(candidate.seconds),
    ]
    tone = parts.TONES.get(candidate.state, "soft")
    line = join(
        tag("span", str(candidate.number), class_="number"),
        tag("span", candidate.state, class_=tone) if candidate.state not in {DONE, PICK, LEFT_OUT} else NOTHING,
        *(tag("span", text, class_="soft") for text in small if text),
    )
    rows = [tag("dt", key) + tag("dd", bdi(_cut(value))) for key, value in candidate.facts if value]
    if candidate.stages:
        times = [
            tag(
                "li",
                stage.name,
                "" if stage.seconds is None else f" {parts.duration(stage.seconds)}",
                value=str(stage.number),
            )
            for stage in candidate.stages
        ]
        rows.append(tag("dt", "stages") + tag("dd", tag("ol", *times)))
    for picture in candidate.pictures if candidate.state == DONE else ():
        files = join(link(picture.file, picture.file), ", ", link(f"{picture.file}.toml", "sidecar"))
        rows.append(tag("dt", picture.variant or "file") + tag("dd", files))
    rows += [tag("dt", "notice") + tag("dd", bdi(text)) for text in candidate.notices]
    if not rows:
        return tag("p", line, class_="row")
    return tag("details", tag("summary", line), tag("dl", *(Html(row) for row in rows)))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}... (the sidecar has all of it)"
