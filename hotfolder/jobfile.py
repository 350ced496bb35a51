"""What a user may write in a job file, and how it is read: every problem at once, each at its line.

To add a kind: one class here, one file in `kinds/`, one line in `KINDS`.
"""

import datetime as dt
import difflib
import functools
import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hotfolder.cron import Cron
from hotfolder.errors import Problem, Rejected, SettingsError
from hotfolder.names import shown
from hotfolder.presets import Preset, Presets
from hotfolder.tomltext import Document

MAX_SEED: Final = 2**32 - 1
#: Years in which a schedule may fire: those that every library on the way can count.
YEARS: Final = range(1970, 9000)
_MAX_META_BYTES: Final = 4096
#: Characters of a wrong key or value that a message quotes; no preset has a longer name.
_MAX_SHOWN: Final = 60
_MAX_PROBLEMS: Final = 100
#: The keys that name a picture, in the order in which they are looked for.
PICTURE_KEYS: Final = ("image", "mask", "control")

PictureName = Annotated[str, Field(min_length=1, max_length=1024)]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


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
            Cron.parse(value)
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> "Schedule":
        if (self.at is None) == (self.cron is None):
            raise ValueError("exactly one of at and cron is needed")
        if self.at is not None and self.at.year not in YEARS:
            raise ValueError(f"at = {self.at}: a year from {YEARS.start} to {YEARS.stop - 1} is accepted")
        return self


class JobKeys(_Keys):
    """The keys that every kind takes."""

    #: Roles without which a job of this kind cannot run.
    needs: ClassVar[frozenset[str]] = frozenset()
    #: Where a cell of this kind runs.
    lane: ClassVar[Literal["gpu", "cpu"]] = "gpu"

    preset: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Which model and settings; the default is `default_preset` of hotfolder.toml."""
    prompt: Annotated[str, Field(max_length=20_000)] = ""
    """What the picture shows, or for an edit what is to change."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """Seed of the first candidate, the next has one more; drawn and recorded if left out."""
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    """Candidates to make."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Higher goes first."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 28
    """Denoising steps."""
    width: Annotated[int, Field(ge=16, le=8192)] | None = None
    """Pixels; rounded to a multiple of 16."""
    height: Annotated[int, Field(ge=16, le=8192)] | None = None
    """Pixels; rounded to a multiple of 16."""
    aspect: Annotated[str, Field(pattern=r"^[1-9]\d{0,2}:[1-9]\d{0,2}$")] | None = None
    """Shape such as "16:9" instead of width and height, at as many pixels as the preset's size has."""
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

_ALL_KEYS: Final = {key: field for keys in KIND_KEYS.values() for key, field in keys.model_fields.items()}
#: Keys that people try because they know them from elsewhere, and what they should do.
_ELSEWHERE: Final = {
    "model": "a model comes only from a preset: set preset",
    "cfg": "set guidance, or true_cfg for classifier-free guidance",
    "cfg_scale": "set guidance, or true_cfg for classifier-free guidance",
    "guidance_scale": "set guidance",
    "true_cfg_scale": "set true_cfg",
    "num_inference_steps": "set steps",
    "n": "set count",
    "batch": "set count",
    "num_images": "set count",
    "size": "set width and height",
    "denoise": "set strength",
    "denoising_strength": "set strength",
    "text": "set prompt",
}


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """A job file that was read: its keys with the preset's laid under, and the preset."""

    keys: JobKeys
    preset: Preset
    #: Role -> the name as written in the job.
    pictures: Mapping[str, str]
    notices: tuple[str, ...] = ()

    def get(self, key: str) -> Any:  # noqa: ANN401 - a key of whichever kind; None where the kind has no such key
        """Return the value of a key that only some kinds have."""
        return getattr(self.keys, key, None)


@dataclass(frozen=True, kw_only=True)
class LaneDefaults:
    """What folder.toml of a lane says."""

    keys: Mapping[str, Any]
    file: str = "folder.toml"
    picture_jobs: bool = False
    hold: bool = False


NO_DEFAULTS: Final = LaneDefaults(keys={})


def read(document: Document, presets: Presets, default_preset: str, lane: LaneDefaults = NO_DEFAULTS) -> JobFile:
    """Read a job file.

    Raises:
        Rejected: every problem of the text, each with its line.
    """
    problems: list[Problem] = []
    preset, kind = _choose(document, presets, default_preset, lane, problems)
    own = dict(document.table)
    keys = KIND_KEYS[kind]
    # The preset's size is for jobs that neither say one nor have a picture: the plan decides that.
    under = {key: value for key, value in (preset.keys if preset else {}).items() if key not in {"width", "height"}}
    values = {key: value for key, value in {**under, **lane.keys}.items() if key in keys.model_fields}
    # A size that the job says goes before a lane's, however either says it.
    if own.keys() & {"aspect", "width", "height"}:
        values = {key: value for key, value in values.items() if key not in {"aspect", "width", "height"}}
    values |= own
    values.pop("preset", None)
    parsed: JobKeys | None = None
    try:
        parsed = keys(**values)
    except ValidationError as error:
        problems += [
            _problem_of(item, document, preset, lane, kind)
            for item in error.errors()
            if preset is not None or not _is_of_some_kind(item)
        ]
    problems += _check_whole(values, document, kind, preset)
    if problems or parsed is None or preset is None:
        raise Rejected(_first(problems))
    pictures = {role: name for role in PICTURE_KEYS if (name := getattr(parsed, role, None)) is not None}
    return JobFile(keys=parsed, preset=preset, pictures=pictures, notices=tuple(_notices(parsed)))


def read_lane(document: Document, file: str) -> LaneDefaults:
    """Read folder.toml: `picture_jobs`, `hold`, and any job keys as defaults for the jobs of this lane.

    Raises:
        Rejected: an unknown key or a wrong value.
    """
    table = dict(document.table)
    problems = []
    flags = {}
    for flag in ("picture_jobs", "hold"):
        flags[flag] = table.pop(flag, False)
        if not isinstance(flags[flag], bool):
            problems.append(
                Problem(code="bad-value", message=f"{flag} is true or false", line=document.line_of([flag]))
            )
    problems += [_unknown(key, document.line_of([key])) for key in table if key not in _ALL_KEYS or key == "schedule"]
    if problems:
        raise Rejected(_first(problems))
    return LaneDefaults(keys=table, file=file, **flags)


def check_preset(preset: Preset) -> None:
    """Check the keys that a preset lays under a job.

    Raises:
        SettingsError: `bad-preset`, naming file and key.
    """
    try:
        KIND_KEYS[preset.kind](**preset.keys)
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(str(part) for part in item["loc"])
        file = preset.origins.get(f"keys.{key}", preset.name)
        text, hint = item["msg"], "docs/presets.md lists every key"
        if item["type"] == "extra_forbidden" and key in _ALL_KEYS:
            text = f"the kind {preset.kind} does not take it"
        elif item["type"] == "extra_forbidden":
            text, hint = "unknown key", _did_you_mean(key)
        raise SettingsError("bad-preset", f"{file}: keys.{key}: {text}", hint) from error


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a job file, for editors: the keys of all kinds."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for keys in KIND_KEYS.values():
        part = keys.model_json_schema()
        properties |= part["properties"]
        definitions |= part.get("$defs", {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Hotfolder job file",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _choose(
    document: Document, presets: Presets, default_preset: str, lane: LaneDefaults, problems: list[Problem]
) -> tuple[Preset | None, str]:
    """Find the preset; where it cannot be had, the other keys are still checked, as those of text2img."""
    line, where = None, ""
    if "preset" in document.table:
        name, line = document.table["preset"], document.line_of(["preset"])
    elif "preset" in lane.keys:
        name, where = lane.keys["preset"], f"{lane.file}: "
    else:
        name, where = default_preset, "default_preset of hotfolder.toml: "
    if not isinstance(name, str) or len(name) > _MAX_SHOWN:
        found = f"{where}preset = {_short(name)}: the name of a preset in quotes is accepted"
        problems.append(Problem(code="bad-value", message=found, line=line))
        return None, "text2img"
    try:
        preset = presets.get(name)
        check_preset(preset)
    except SettingsError as error:
        problems.append(Problem(code=error.code, message=f"{where}{error.message}", hint=error.hint, line=line))
        return None, "text2img"
    return preset, preset.kind


def _problem_of(item: Any, document: Document, preset: Preset | None, lane: LaneDefaults, kind: str) -> Problem:  # noqa: ANN401 - pydantic's ErrorDetails
    path = item["loc"]
    key = ".".join(str(part) for part in path)
    line = document.line_of(path)
    if item["type"] == "extra_forbidden":
        if len(path) == 1 and key in _ALL_KEYS:
            takers = ", ".join(name for name, keys in KIND_KEYS.items() if key in keys.model_fields)
            of = f"of preset {preset.name!r} " if preset else ""
            return Problem(
                code="wrong-kind", message=f"the kind {kind} {of}does not take {key}", hint=f"{takers} would", line=line
            )
        return _unknown(key, line)
    found = "" if isinstance(item["input"], (dict, BaseModel)) else f" = {_short(item['input'])}"
    where = f"{lane.file}: " if path and path[0] not in document.table and path[0] in lane.keys else ""
    text = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    if item["type"] in {"model_type", "dict_type"}:
        text = f"a table is accepted: a line [{key}], and its keys below"
    return Problem(
        code="bad-value", message=f"{where}{key}{found}: {text[:1].lower()}{text[1:]}", hint=_accepted(path), line=line
    )


def _is_of_some_kind(item: Any) -> bool:  # noqa: ANN401 - pydantic's ErrorDetails
    """Whether only the kind, which is not known, would tell that this is wrong."""
    return item["type"] == "extra_forbidden" and len(item["loc"]) == 1 and item["loc"][0] in _ALL_KEYS


def _unknown(key: str, line: int | None) -> Problem:
    return Problem(code="unknown-key", message=f"unknown key {_cut(shown(key))}", hint=_did_you_mean(key), line=line)


def _first(problems: list[Problem]) -> list[Problem]:
    """Sort by line, and cut what nobody would read: the problems are written in several places."""
    ordered = sorted(problems, key=lambda problem: problem.line or 0)
    more = len(ordered) - _MAX_PROBLEMS
    if more > 0:
        ordered[_MAX_PROBLEMS:] = [Problem(code=ordered[-1].code, message=f"and {more} problems more")]
    return ordered


@functools.cache
def _properties() -> Mapping[str, Any]:
    return schema()["properties"]  # type: ignore[no-any-return]  # a part of JSON


def _accepted(path: tuple[int | str, ...]) -> str:
    """Say in words which values a key takes."""
    if len(path) != 1 or path[0] not in _ALL_KEYS:
        return ""
    limits: dict[str, Any] = {}
    field = _properties()[str(path[0])]
    for part in (field, *field.get("anyOf", ())):
        limits |= {
            name: part[name]
            for name in ("minimum", "exclusiveMinimum", "maximum", "pattern", "maxLength")
            if name in part
        }
    low, high = limits.get("minimum", limits.get("exclusiveMinimum")), limits.get("maximum")
    if low is not None and high is not None:
        return f"accepted: {'above ' if 'exclusiveMinimum' in limits else ''}{low} to {high}"
    if "pattern" in limits and path[0] == "aspect":
        return 'accepted: a shape such as "16:9"'
    return f"accepted: text of at most {limits['maxLength']} characters" if "maxLength" in limits else ""


def _check_whole(values: Mapping[str, Any], document: Document, kind: str, preset: Preset | None) -> Iterator[Problem]:
    """Check what no single key can tell."""
    if preset is None:
        return
    needs = KIND_KEYS[kind].needs
    for key in sorted(needs, key=lambda key: list(_ALL_KEYS).index(key)):
        if not values.get(key):
            yield Problem(
                code="missing-key",
                message=f"preset {preset.name!r} ({kind}) needs {key}",
                hint=f'add a line {key} = "..."',
            )
    if not needs and not values.get("prompt") and not values.get("image"):
        line = document.line_of(["prompt"])
        yield Problem(
            code="missing-key", message="a prompt or an image is needed", hint='add a line prompt = "..."', line=line
        )
    cfg = values.get("true_cfg")
    if values.get("negative_prompt") and not (isinstance(cfg, (int, float)) and cfg > 1):
        line = document.line_of(["negative_prompt"])
        yield Problem(
            code="missing-key",
            message="negative_prompt needs true_cfg above 1",
            hint="add true_cfg = 4.0, say; each step then takes a second pass",
            line=line,
        )
    if "strength" in document.table and not values.get("image"):
        line = document.line_of(["strength"])
        yield Problem(
            code="missing-key",
            message="strength needs an image to start from",
            hint='add a line image = "..."',
            line=line,
        )
    if "aspect" in document.table and (document.table.keys() & {"width", "height"}):
        line = document.line_of(["aspect"])
        yield Problem(
            code="bad-value", message="aspect and width or height exclude each other", hint="leave one out", line=line
        )


def _notices(keys: JobKeys) -> Iterator[str]:
    if (getattr(keys, "true_cfg", None) or 0) > 1:
        yield "true_cfg above 1 costs a second pass in each step"


def _did_you_mean(key: str) -> str:
    if key in _ELSEWHERE:
        return _ELSEWHERE[key]
    inner = key.removeprefix("schedule.")
    if inner != key:
        if inner in _ALL_KEYS:
            return "move it above [schedule]"
        near = difflib.get_close_matches(inner, Schedule.model_fields, n=1, cutoff=0.6)
        return f"did you mean {near[0]}?" if near else "docs/schedules.md lists every key"
    near = difflib.get_close_matches(key, _ALL_KEYS, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "docs/job-file.md lists every key"


def _short(value: object) -> str:
    return _cut(shown(repr(value)))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
