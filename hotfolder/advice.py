"""How what is wrong with a job file is said: what was found, what is accepted, what was probably meant."""

import ast
import difflib
import functools
import inspect
import textwrap
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from pydantic import BaseModel

from hotfolder.errors import Problem
from hotfolder.kindkeys import KIND_KEYS, CommonKeys, PictureWork, Schedule
from hotfolder.names import cut, short, shown
from hotfolder.presets import Preset
from hotfolder.stagekeys import STAGE_KEYS
from hotfolder.tomltext import Document

_MAX_PROBLEMS: Final = 100
#: Wrong keys of one text for which it is said what was probably meant.
MAX_LOOKED_AT: Final = 200
ALL_KEYS: Final = {key: field for keys in KIND_KEYS.values() for key, field in keys.model_fields.items()}
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


def problem_of(
    item: Any,  # noqa: ANN401 - pydantic's ErrorDetails
    document: Document,
    preset: Preset | None,
    lane_keys: Mapping[str, Any],
    lane_file: str,
    *,
    cls: type[CommonKeys],
) -> Problem:
    """Say in our own words what pydantic found wrong with a key of the job."""
    path = item["loc"]
    key = ".".join(str(part) for part in path)
    line = document.line_of(path)
    if item["type"] == "extra_forbidden":
        if len(path) == 1 and key in ALL_KEYS:
            takers = ", ".join(name for name, keys in KIND_KEYS.items() if key in keys.model_fields)
            what = f"the kind {preset.kind} of preset {preset.name!r} does not take {key}" if preset else ""
            if cls is PictureWork:
                what = f"no stage of this job generates: {key} does nothing"
                takers = "a pipeline with a stage generate"
            return Problem(
                code="wrong-kind", message=what or f"text2img does not take {key}", hint=f"{takers} would", line=line
            )
        return unknown_key(key, line)
    found, text = in_words(item)
    where = f"{lane_file}: " if path and path[0] not in document.table and path[0] in lane_keys else ""
    if item["type"] in {"model_type", "dict_type"}:
        text = f"a table is accepted: a line [{key}], and its keys below"
    return Problem(code="bad-value", message=f"{where}{key}{found}: {text}", hint=_accepted(path), line=line)


def in_words(item: Any) -> tuple[str, str]:  # noqa: ANN401 - pydantic's ErrorDetails
    """Return what pydantic found, such as " = 3", or "" where that is no value, and what is wrong with it."""
    found = "" if isinstance(item["input"], (dict, BaseModel)) else f" = {short(item['input'])}"
    text = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    return found, f"{text[:1].lower()}{text[1:]}"


def is_of_some_kind(item: Any) -> bool:  # noqa: ANN401 - pydantic's ErrorDetails
    """Whether only the kind, which is not known, would tell that this is wrong."""
    return item["type"] == "extra_forbidden" and len(item["loc"]) == 1 and item["loc"][0] in ALL_KEYS


def unknown_key(key: str, line: int | None) -> Problem:
    """Say that there is no such key, and which was probably meant."""
    return Problem(code="unknown-key", message=f"unknown key {cut(shown(key))}", hint=did_you_mean(key), line=line)


def first(problems: list[Problem], more: int = 0) -> list[Problem]:
    """Sort by line, and cut what nobody would read: the problems are written in several places.

    Args:
        more: how many were not even looked at.
    """
    ordered = sorted(problems, key=lambda problem: problem.line or 0)
    more += len(ordered) - _MAX_PROBLEMS
    if more > 0:
        ordered[_MAX_PROBLEMS:] = [Problem(code=ordered[-1].code, message=f"and {more} problems more")]
    return ordered


@functools.cache
def _properties() -> Mapping[str, Any]:
    return schema()["properties"]  # type: ignore[no-any-return]  # a part of JSON


def _accepted(path: tuple[int | str, ...]) -> str:
    """Say in words which values a key takes."""
    if len(path) != 1 or path[0] not in ALL_KEYS:
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


def did_you_mean(key: str) -> str:
    """Return what somebody who wrote this key probably wants; where nothing comes near, where to look."""
    if key in _ELSEWHERE:
        return _ELSEWHERE[key]
    inner = key.removeprefix("schedule.")
    if inner != key:
        if inner in ALL_KEYS:
            return "move it above [schedule]"
        near = difflib.get_close_matches(inner, Schedule.model_fields, n=1, cutoff=0.6)
        return f"did you mean {near[0]}?" if near else "docs/schedules.md lists every key"
    near = difflib.get_close_matches(key, ALL_KEYS, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "docs/job-file.md lists every key"


@functools.cache
def texts(cls: type[BaseModel]) -> Mapping[str, str]:
    """Return what the source says below each key of a class.

    Read when somebody asks: told to do so, pydantic reads the source of every class whenever a program starts.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base is BaseModel or not issubclass(base, BaseModel):
            continue
        (defined,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(defined, ast.ClassDef)  # noqa: S101 - the source of a class
        for key, below in pairwise(defined.body):
            match key, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = inspect.cleandoc(text)
                case _:
                    pass
    return found


def _described(cls: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a class, with what the source says of its keys."""
    part = cls.model_json_schema()
    schedule = part.get("$defs", {}).get(Schedule.__name__)
    for table, told in ((part, texts(cls)), (schedule, texts(Schedule))):
        for key, property_ in (table or {}).get("properties", {}).items():
            if key in told:
                property_["description"] = told[key]
    return part


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a job file, for editors: the keys of all kinds and of all stages."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    classes: list[type[CommonKeys]] = [*KIND_KEYS.values(), PictureWork]
    for keys in classes:
        part = _described(keys)
        properties |= part["properties"]
        definitions |= part.get("$defs", {})
    stages = []
    for name, stage in STAGE_KEYS.items():
        part = _described(stage)
        definitions |= part.pop("$defs", {})
        own = {"stage": {"const": name}, "id": {"type": "string"}, "enabled": {"type": "boolean"}}
        stages.append({**part, "properties": own | part.get("properties", {}), "required": ["stage"], "title": name})
    properties |= {
        "stages": {"type": "array", "items": {"oneOf": stages}, "description": "The stages, in order."},
        "stage": {
            "type": "object",
            "additionalProperties": {"type": "object"},
            "description": "Keys for stages of the pipeline, by id; enabled = false switches one off.",
        },
        "matrix": {"type": "object", "description": "A batch: every combination of the values of its keys."},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Hotfolder job file",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }
