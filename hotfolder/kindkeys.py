"""What a user may write in a job file for each kind of preset.

To add a kind: one class here, one file in `kinds/`, one line in each dict.
"""

import datetime as dt
import zoneinfo
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hotfolder.loras import Loras

MAX_SEED: Final = 2**32 - 1
#: Years in which a schedule may fire: those that every library on the way can count.
YEARS: Final = range(1970, 9000)
_MAX_META_BYTES: Final = 4096
#: The keys that name a picture, in the order in which they are looked for.
PICTURE_KEYS: Final = ("image", "mask", "control")

PictureName = Annotated[str, Field(min_length=1, max_length=1024)]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Schedule(_Keys):
    """When a job of `jobs_inbox/scheduled/` fires: once `at`, or again and again by `cron`."""

    at: dt.datetime | None = None
    """Once, at this date and time; without an offset it is in `timezone`."""
    cron: Annotated[str, Field(max_length=200)] | None = None
    """Again and again: minute hour day month weekday, as in "0 2 * * *"."""
    timezone: str = "UTC"
    """An IANA name such as "Europe/Berlin"."""
    catch_up: bool = False
    """Whether a time that passed while no daemon ran is made up for, once, at the start."""

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("no time zone of this name; accepted are names such as Europe/Berlin") from error
        return value

    @field_validator("cron")
    @classmethod
    def _well_formed_cron(cls, value: str | None) -> str | None:
        if value is not None:
            # Imported only where there is one: every job is read by these classes.
            from hotfolder.cron import Cron

            Cron.parse(value)
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> "Schedule":
        if (self.at is None) == (self.cron is None):
            raise ValueError("exactly one of at and cron is needed")
        if self.at is not None and self.at.year not in YEARS:
            raise ValueError(f"at = {self.at}: a year from {YEARS.start} to {YEARS.stop - 1} is accepted")
        return self


class CommonKeys(_Keys):
    """The keys that every job takes."""

    #: Roles without which a job of this kind cannot run.
    needs: ClassVar[frozenset[str]] = frozenset()

    preset: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Which model and settings; the default is `default_preset` of hotfolder.toml."""
    pipeline: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Which stages; default: generate, export."""
    prompt: Annotated[str, Field(max_length=20_000)] = ""
    """What the picture shows, or for an edit what is to change."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """Seed of the first candidate, the next has one more; drawn and recorded if left out."""
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    """Candidates to make, of each item of a batch."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Higher goes first."""
    items: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """A batch from a file: list.csv, whose columns are keys, or list.txt with a prompt on each line."""
    title: Annotated[str, Field(max_length=200)] | None = None
    """Your own; never interpreted, carried everywhere."""
    project: Annotated[str, Field(max_length=200)] | None = None
    """Your own; never interpreted, carried everywhere."""
    meta: dict[str, Any] = Field(default_factory=dict)
    """A free table of your own (4 kB); never interpreted, carried everywhere."""
    schedule: Schedule | None = None
    """When to run, if not now."""

    @field_validator("meta")
    @classmethod
    def _small_meta(cls, value: dict[str, Any]) -> dict[str, Any]:
        size = len(tomli_w.dumps(value).encode())
        if size > _MAX_META_BYTES:
            raise ValueError(f"the table has {size} bytes; at most {_MAX_META_BYTES} are accepted")
        return value


class PictureWork(CommonKeys):
    """A job whose pipeline makes nothing with a model: it works on `image`."""

    needs: ClassVar[frozenset[str]] = frozenset({"image"})

    image: PictureName | None = None
    """The picture to work on."""
    mask: PictureName | None = None
    """Of the same size as `image`."""


class JobKeys(CommonKeys):
    """The keys that every kind takes."""

    steps: Annotated[int, Field(ge=1, le=1000)] = 28
    """Denoising steps."""
    width: Annotated[int, Field(ge=16, le=8192)] | None = None
    """Pixels; rounded to a multiple of 16."""
    height: Annotated[int, Field(ge=16, le=8192)] | None = None
    """Pixels; rounded to a multiple of 16."""
    aspect: Annotated[str, Field(pattern=r"^[1-9]\d{0,2}:[1-9]\d{0,2}$")] | None = None
    """Shape such as "16:9" instead of width and height, at as many pixels as the preset's size has."""
    loras: Loras | None = None
    """LoRAs of the preset to switch on, each with its weight if that is not 1: "night, sketch:0.5"."""


class _Guided(_Keys):
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    """The embedded (distilled) guidance: how closely the prompt is followed, at no extra cost."""


class _Negatable(_Guided):
    true_cfg: Annotated[float, Field(ge=1, le=100)] | None = None
    """Classifier-free guidance; above 1 each step takes a second pass."""
    negative_prompt: Annotated[str, Field(max_length=20_000)] | None = None
    """What the picture should not show; needs true_cfg above 1."""


class Text2Img(JobKeys, _Negatable):
    """A picture from a prompt; with `image` and `strength` from that picture (img2img)."""

    image: PictureName | None = None
    """A picture to start from."""
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    """How far to move from `image`: near 0 keeps it, 1 forgets it. Default 0.6."""


class Kontext(JobKeys, _Negatable):
    """An edit of `image` by instruction."""

    needs: ClassVar[frozenset[str]] = frozenset({"image", "prompt"})

    image: PictureName | None = None
    """The picture to edit."""


class Fill(JobKeys, _Guided):
    """Repaints the white part of `mask` in `image`."""

    needs: ClassVar[frozenset[str]] = frozenset({"image", "mask"})

    image: PictureName | None = None
    """The picture to repaint."""
    mask: PictureName | None = None
    """White is repainted, black is kept; of the same size as `image`."""


class Control(JobKeys, _Guided):
    """A picture that follows the structure of `control`."""

    needs: ClassVar[frozenset[str]] = frozenset({"control", "prompt"})

    control: PictureName | None = None
    """The map to follow: depth or canny edges, as the preset says."""


class Redux(JobKeys, _Guided):
    """A variation of `image`."""

    needs: ClassVar[frozenset[str]] = frozenset({"image"})

    image: PictureName | None = None
    """The picture to vary."""
    image_strength: Annotated[float, Field(gt=0, le=2)] | None = None
    """How strongly the source is followed; 1 is the model's own weight."""


#: The class of each kind: what it takes, needs and where it runs.
KIND_KEYS: Final[Mapping[str, type[JobKeys]]] = {
    "text2img": Text2Img,
    "kontext": Kontext,
    "fill": Fill,
    "control": Control,
    "redux": Redux,
}
