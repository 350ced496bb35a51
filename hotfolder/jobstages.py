"""The stages of a job file: those of its pipeline or its own, with `[stage.X]` laid over, and the keys of each."""

import difflib
from typing import Any, Final

from pydantic import ValidationError

from hotfolder import pipelines
from hotfolder.advice import MAX_LOOKED_AT, in_words
from hotfolder.batch import STAGE_AXIS
from hotfolder.errors import HotfolderError, Problem
from hotfolder.jobtext import JobText, Keyed
from hotfolder.names import cut, short, shown
from hotfolder.pipelines import Pipelines, SaidStage
from hotfolder.presets import Presets
from hotfolder.stagekeys import STAGE_KEYS, StageKeys

#: Keys whose form is said more plainly than pydantic does.
_FORMS: Final = {
    "box": "a list of four numbers, [left, top, right, bottom]",
    "position": "a list of two numbers, [x, y]",
    "aspects": 'a list of shapes, such as ["1:1", "16:9"],',
    "aspect": 'a shape such as "16:9"',
}


def read(text: JobText, presets: Presets) -> tuple[str | None, list[SaidStage]]:
    """Return the name of the pipeline, None where the stages stand in the job, and the stages."""
    name = text.own.get("pipeline", text.lane.keys.get("pipeline"))
    if "stages" in text.table:
        if "pipeline" in text.own:
            text.problem(["pipeline"], "bad-value", "pipeline and [[stages]] exclude each other", "leave one out")
        stages, problems = pipelines.read_stages(text.table["stages"])
        for path, message, hint in problems:
            text.problem(path, "bad-pipeline", message, hint)
        name = None
    else:
        name = pipelines.DEFAULT if name is None else name
        if not isinstance(name, str):
            return None, []  # said with the other keys
        try:
            stages = Pipelines.of(presets).get(name).stages
        except HotfolderError as error:
            text.problem(["pipeline"], error.code, error.message, error.hint)
            return name, []
    laid = _lay_over(text, list(stages), name)
    if laid and laid[-1].stage != "export":
        laid.append(SaidStage(stage="export", id="export" if all(one.id != "export" for one in laid) else "export-2"))
    if len(laid) > pipelines.MAX_STAGES:
        told = f"{len(laid)} stages, with the export at the end; at most {pipelines.MAX_STAGES} are accepted"
        text.problem(["stages"], "bad-pipeline", told)
    return name, laid


def _lay_over(text: JobText, stages: list[SaidStage], pipeline: str | None) -> list[SaidStage]:
    tables = text.table.get("stage", {})
    if not isinstance(tables, dict) or not all(isinstance(one, dict) for one in tables.values()):
        hint = "such as [stage.crop], and its keys below"
        text.problem(["stage"], "bad-value", "stage: a table for each stage is accepted", hint)
        return stages
    for id_ in sorted(tables.keys() - {stage.id for stage in stages})[:MAX_LOOKED_AT] if stages else ():
        of = f"pipeline {pipeline!r}" if pipeline else "this job"
        near = difflib.get_close_matches(id_, [stage.id for stage in stages], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        hint += f"its stages are {', '.join(stage.id for stage in stages)}"
        text.problem(["stage", id_], "unknown-key", f"{of} has no stage {cut(shown(id_))}", hint)
    result = []
    for stage in stages:
        own = dict(tables.get(stage.id, {}))
        enabled = own.pop("enabled", stage.enabled)
        if not isinstance(enabled, bool):
            text.problem(["stage", stage.id, "enabled"], "bad-value", "enabled is true or false")
        if enabled is True:
            result.append(SaidStage(stage=stage.stage, id=stage.id, keys={**stage.keys, **own}))
    if stages and not result:
        text.problem(["stage"], "bad-pipeline", "every stage is switched off", "leave one on")
    return result


def with_keys(text: JobText, stages: list[SaidStage]) -> Keyed:
    """Check the keys of each stage; an axis fills a key that is left open."""
    keyed = []
    for stage in stages:
        prefix = f"{STAGE_AXIS}{stage.id}."
        filled = {
            key.removeprefix(prefix): value
            for axis in text.axes
            for key, value in axis.at(0).items()
            if key.startswith(prefix)
        }
        cls = STAGE_KEYS[stage.stage]
        try:
            keys: StageKeys | None = cls(**{**stage.keys, **filled})
        except ValidationError as error:
            keys = None
            found = error.errors()
            text.unlooked = max(text.unlooked, len(found) - MAX_LOOKED_AT)
            text.problems += [_problem_of(text, stage, cls, item) for item in found[:MAX_LOOKED_AT]]
        keyed.append((stage, keys))
    return keyed


def _problem_of(text: JobText, stage: SaidStage, cls: type[StageKeys], item: Any) -> Problem:  # noqa: ANN401 - pydantic's ErrorDetails
    key = str(item["loc"][0]) if item["loc"] else ""
    line = text.line_of(text.at(stage, key or None))
    where = f"stage {stage.id}" + (f": {cut(shown(key))}" if key else "")
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, cls.model_fields, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        hint += f"it takes {', '.join(cls.model_fields)}" if cls.model_fields else "it takes no keys"
        message = f"stage {stage.id}: unknown key {cut(shown(key))}"
        return Problem(code="unknown-key", message=message, hint=hint, line=line)
    if key in _FORMS and (len(item["loc"]) > 1 or item["type"] not in {"missing", "value_error"}):
        found = f" = {short(stage.keys.get(key))}"
        return Problem(code="bad-value", message=f"{where}{found}: {_FORMS[key]} is accepted", line=line)
    listed = bool(text.table.get("stages"))
    if item["type"] == "missing":
        hint = f"add a line {key} = ..." if listed else f"add [stage.{stage.id}], and {key} = ... below"
        return Problem(code="missing-key", message=f"{where} is left open, and nothing fills it", hint=hint, line=line)
    value, told = in_words(item)
    code = "missing-key" if not item["loc"] and " needed" in told else "bad-value"
    hint = ""
    if code == "missing-key":
        hint = "add a line for it" if listed else f"add [stage.{stage.id}], and the key below"
    return Problem(code=code, message=f"{where}{value}: {told}", hint=hint, line=line)
