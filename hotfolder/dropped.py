"""A dropped plan.toml or sidecar: the same job, or the same picture, again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from hotfolder import batch, loras, pipelines
from hotfolder.batch import STAGE_AXIS
from hotfolder.errors import Problem, Rejected, SettingsError
from hotfolder.kindkeys import KIND_KEYS, PICTURE_KEYS, CommonKeys, PictureWork
from hotfolder.names import shown
from hotfolder.plan import SCHEMA, Item, Plan, PlannedStage
from hotfolder.planning import Wish
from hotfolder.presets import Presets
from hotfolder.stagekeys import STAGE_KEYS, Generating, StageKeys, Thing
from hotfolder.tomltext import Document

#: Of what is wrong with a dropped plan, as much is told.
_MAX_PROBLEMS: Final = 100
_MAX_KEY: Final = 60
_MAX_MODEL: Final = 200
#: What a plan and a job file say in the same words.
_COMMON: Final = ("seed", "count", "priority", "title", "project", "meta")
#: What a job says for all stages alike: it stands in `keys`.
_SAID: Final = {key for keys in KIND_KEYS.values() for key in keys.model_fields} - batch.NO_AXES - {"preset", "seed"}
#: Items of a plan that are looked at one by one: a plan that we wrote is right in all of them.
_LOOKED_AT: Final = 1000


def read_plan(document: Document, presets: Presets) -> Plan:
    """Read a dropped plan.toml or sidecar: the same job again.

    A model must be the one that the preset of this name has here: who can drop a file must not choose what is loaded.

    Raises:
        Rejected: broken, of a newer schema, or a model is another one by now.
    """
    table = dict(document.table)
    if isinstance(table.get("schema"), int) and table["schema"] > SCHEMA:
        found = f"schema {table['schema']} of a newer hotfolder; this one reads up to {SCHEMA}"
        raise Rejected([Problem(code="newer-schema", message=found, line=document.line_of(["schema"]))])
    if table.get("type") == "picture":
        table = plan_of_sidecar(table)
    try:
        plan = Plan(**table)
    except (ValidationError, TypeError) as error:
        raise Rejected(list(_problems(error, document))) from error
    if problems := list(_check(plan, document)):
        raise Rejected(problems[:_MAX_PROBLEMS])
    _check_presets(plan, document, presets)
    return plan


def wishes_of_plan(plan: Plan) -> tuple[Wish, ...]:
    """Return the files that a dropped plan names."""
    return tuple(
        Wish(role=source.role, name=source.name, place=source.file, sha256=source.sha256, via=source.via)
        for source in plan.sources
    )


def plan_of_sidecar(table: Mapping[str, Any]) -> dict[str, Any]:
    """Take from a sidecar what a plan of this one picture says: just the stages that it went through."""
    kept = ("job", "pipeline", "preset", "presets", "seed", "title", "project", "meta", "sources")
    plan: dict[str, Any] = {key: table[key] for key in kept if key in table}
    stages: list[dict[str, Any]] = []
    listed = table.get("stages")
    for row in listed if isinstance(listed, list) else ():
        if isinstance(row, dict) and row.get("stage") != "select":
            keys = row.get("keys")
            told = keys if isinstance(keys, dict) else {}
            own = {key: value for key, value in told.items() if key not in {"count", "add"}}
            stages.append({"stage": row.get("stage"), "id": row.get("name"), "keys": own})
    plan["stages"] = stages
    plan["keys"] = {
        source["role"]: source["name"]
        for source in (table["sources"] if isinstance(table.get("sources"), list) else ())
        if isinstance(source, dict) and source.get("role") in PICTURE_KEYS and "name" in source
    }
    variant = table.get("variant")
    for stage in stages:
        if isinstance(variant, str) and stage["stage"] == "variants":
            stage["keys"] = {**stage["keys"], "aspects": [variant.replace("x", ":")]}
    return plan


def _check_presets(plan: Plan, document: Document, presets: Presets) -> None:
    for name, used in plan.presets.items():
        line = document.line_of(["presets", name]) or document.line_of(["preset"])
        try:
            preset = presets.get(name)
        except SettingsError as error:
            raise Rejected([Problem(code=error.code, message=error.message, hint=error.hint, line=line)]) from error
        other = [one for one, lora in (used.loras or {}).items() if preset.loras.get(one) != lora]
        if other:
            found = f"preset {name!r} has another LoRA {other[0]!r} here than the plan was made with, or none"
            raise Rejected([Problem(code="wrong-model", message=found, hint="drop the job file instead", line=line)])
        if preset.model != used.model or preset.kind != used.kind:
            here, there = (f"{shown(one.model.key)[:_MAX_MODEL]} ({one.kind})" for one in (preset, used))
            found = f"the plan was made with {there}; preset {name!r} is {here} here"
            raise Rejected([Problem(code="wrong-model", message=found, hint="drop the job file instead", line=line)])


def _check(plan: Plan, document: Document) -> Iterator[Problem]:
    """Check what was dropped as a plan as strictly as a job file: it need not be one that we wrote."""
    line = document.line_of(["stages"])
    for stage in plan.stages:
        if stage.stage not in STAGE_KEYS:
            text = f"there is no stage {shown(stage.stage)[:_MAX_KEY]!r}"
            yield Problem(code="bad-pipeline", message=text, line=line)
            return
    bad_ids = [stage.id for stage in plan.stages if not pipelines.is_id(stage.id)]
    if bad_ids:
        found = f"id = {shown(repr(bad_ids[0]))[:_MAX_KEY]}: letters, digits, - and _ are accepted"
        yield Problem(code="bad-pipeline", message=found, line=line)
        return
    if len({stage.id for stage in plan.stages}) < len(plan.stages):
        yield Problem(code="bad-pipeline", message="two stages have the same id", line=line)
        return
    if plan.stages[-1].stage != "export":
        yield Problem(code="bad-pipeline", message="the last stage is not export", line=line)
        return
    try:
        PictureWork(**{key: getattr(plan, key) for key in _COMMON})
    except ValidationError as error:
        yield from _problems(error, document)
    yield from _check_sources(plan, document)
    yield from _check_presets_keys(plan, document)
    yield from _check_values(plan, plan.keys, document, ["keys"])
    wrong_axes = list(_check_axes(plan, document))
    yield from wrong_axes
    if wrong_axes:
        return  # there are no items to look at
    try:
        for number in range(1, min(plan.items, _LOOKED_AT) + 1):
            misfits = list(_check_item(plan, number, document))
            yield from misfits
            if misfits:
                return
    except ValidationError as error:
        yield from _problems(error, document, within=["stages"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        text = shown(f"{type(error).__name__}: {error}")[:_MAX_KEY]
        yield Problem(code="bad-value", message=f"this is no plan that was written here: {text}")


def problems_of(plan: Plan) -> list[Problem]:
    """Return what is wrong with a plan that was changed; nothing of it stands in a text that has lines.

    Raises:
        pydantic.ValidationError: the keys of a stage are wrong.
    """
    document = Document(table={}, lines={})
    return [
        problem
        for number in range(1, min(plan.items, _LOOKED_AT) + 1)
        for problem in _check_item(plan, number, document)
    ]


def _check_sources(plan: Plan, document: Document) -> Iterator[Problem]:
    line = document.line_of(["sources"])
    if len({(source.role, source.name) for source in plan.sources}) < len(plan.sources):
        yield Problem(code="bad-value", message="sources: one file of each role and name is accepted", line=line)
    roles = {f"{stage.id}.{key}" for stage in plan.stages for key in STAGE_KEYS[stage.stage].assets}
    for role in dict.fromkeys([*(one.role for one in plan.sources), *(one.role for one in plan.missing)]):
        if role not in {*PICTURE_KEYS, "items", *roles}:
            found = f"sources: there is no role {shown(role)[:_MAX_KEY]!r}"
            yield Problem(code="bad-value", message=found, line=line)


def _check_presets_keys(plan: Plan, document: Document) -> Iterator[Problem]:
    for name, used in plan.presets.items():
        if used.kind in KIND_KEYS:
            try:
                KIND_KEYS[used.kind](**used.keys)
            except ValidationError as error:
                yield from _problems(error, document, within=["presets", name, "keys"])


def _check_axes(plan: Plan, document: Document) -> Iterator[Problem]:
    """Check every value of every axis by the class of its key."""
    by_id = {stage.id: stage for stage in plan.stages}
    for number, axis in enumerate(plan.axes):
        path: list[str | int] = ["axes", number]
        if wrong := [key for key in axis.keys if not _is_axis(key, by_id)]:
            found = f"axes: no stage takes {shown(wrong[0])[:_MAX_KEY]}"
            yield Problem(code="unknown-key", message=found, line=document.line_of(path))
            continue
        for index in range(len(axis.values)):
            try:
                values = axis.at(index)
            except (TypeError, ValueError):
                found = f"axes: value {index + 1} has not one part for each column"
                yield Problem(code="bad-value", message=found, line=document.line_of(path))
                return
            problems = list(_check_values(plan, values, document, path))
            problems += _check_stage_values(plan, values, document, path)
            yield from problems
            if problems:
                return


def _is_axis(key: str, by_id: Mapping[str, PlannedStage]) -> bool:
    if not key.startswith(STAGE_AXIS):
        return key in _SAID or key in {"preset", "seed"}
    id_, _, stage_key = key.removeprefix(STAGE_AXIS).partition(".")
    return id_ in by_id and stage_key in STAGE_KEYS[by_id[id_].stage].model_fields.keys() - {"count", "add"}


def _check_stage_values(
    plan: Plan, values: Mapping[str, Any], document: Document, path: list[str | int]
) -> Iterator[Problem]:
    for stage in plan.stages:
        prefix = f"{STAGE_AXIS}{stage.id}."
        told = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        try:
            if told:
                STAGE_KEYS[stage.stage](**{**stage.keys, **told})
        except ValidationError as error:
            yield from _problems(error, document, within=path)


def _check_values(
    plan: Plan, values: Mapping[str, Any], document: Document, path: list[str | int]
) -> Iterator[Problem]:
    """Check what is said for all stages, by every kind that the plan uses."""
    said = {key: value for key, value in values.items() if not key.startswith(STAGE_AXIS)}
    classes: list[type[CommonKeys]] = [
        KIND_KEYS[kind] for kind in dict.fromkeys(used.kind for used in plan.presets.values()) if kind in KIND_KEYS
    ]
    for key in said.keys() - _SAID - {"preset", "seed"}:
        text = f"{path[0]}: unknown key {shown(key)[:_MAX_KEY]}"
        yield Problem(code="unknown-key", message=text, line=document.line_of([*path, key]) or document.line_of(path))
    for cls in classes or [PictureWork]:
        try:
            cls(**{key: value for key, value in said.items() if key in cls.model_fields})
        except ValidationError as error:
            yield from _problems(error, document, within=path)
    # A picture that some items do not need does no harm.
    taken = {key for cls in classes or [PictureWork] for key in cls.model_fields} | set(PICTURE_KEYS)
    for key in (said.keys() & _SAID) - taken:
        kinds = ", ".join(dict.fromkeys(used.kind for used in plan.presets.values()))
        text = f"{path[0]}: " + (f"the kind {kinds} does not take {key}" if kinds else f"no stage generates by {key}")
        yield Problem(code="wrong-kind", message=text, line=document.line_of([*path, key]) or document.line_of(path))


def _check_item(plan: Plan, number: int, document: Document) -> Iterator[Problem]:
    item = plan.item(number)
    keyed: list[tuple[str, StageKeys]] = []
    for stage, planned in enumerate(plan.stages, 1):
        keys = item.keys(stage)
        keyed.append((planned.id, keys))
        name = item.preset_of(stage)
        line = document.line_of(["stages", stage - 1])
        if isinstance(keys, Generating) and name is None:
            yield Problem(code="missing-key", message=f"stage {planned.id}: there is no preset for it", line=line)
            return
        if name is None:
            continue
        if name not in plan.presets:
            found = f"presets: {shown(str(name))[:_MAX_KEY]!r} is missing"
            yield Problem(code="missing-key", message=found, line=document.line_of(["presets"]))
            return
        kind = plan.presets[name].kind
        if isinstance(keys, Generating) != (kind in KIND_KEYS):
            found = f"stage {planned.id}: a preset of the kind {kind} does not do what it does"
            yield Problem(code="wrong-kind", message=found, line=line)
            return
        for lora in item.unknown_loras(stage) if isinstance(keys, Generating) else ():
            message, hint = loras.none_of(lora, name, plan.presets[name].loras or {})
            yield Problem(code="bad-value", message=message, hint=hint, line=line)
            return
    yield from _check_files(plan, item, document)
    things: dict[str, Thing] = {"image": "picture", "mask": "mask", "control": "control"}
    has = frozenset(things[role] for role in PICTURE_KEYS if item.said.get(role))

    def needs_of(keys: Generating) -> list[tuple[str, str, frozenset[str]]]:
        name = str(keys.preset or item.said.get("preset") or plan.preset)
        kind = plan.presets[name].kind
        return [(name, kind, KIND_KEYS[kind].needs)]

    for misfit in pipelines.check_fit(keyed, has, lambda keys: bool(keys.prompt or item.prompt), needs_of):
        yield Problem(
            code=misfit.code, message=misfit.message, hint=misfit.hint, line=document.line_of(["stages", misfit.index])
        )


def _check_files(plan: Plan, item: Item, document: Document) -> Iterator[Problem]:
    """Check that every file that an item names is among the sources, or is known to be missing."""
    gone = {(one.role, one.name) for one in plan.missing}
    named = {role: item.said.get(role) for role in PICTURE_KEYS}
    for stage, planned in enumerate(plan.stages, 1):
        keys = item.keys(stage)
        named |= {f"{planned.id}.{key}": getattr(keys, key) for key in type(keys).assets}
    for role, name in named.items():
        if name and (role, name) not in gone and plan.source(role, name) is None:
            found = f"sources: {role} {shown(str(name))[:_MAX_KEY]!r} is missing"
            yield Problem(code="missing-key", message=found, line=document.line_of(["sources"]))


def _problems(
    error: ValidationError | TypeError, document: Document, *, within: Sequence[str | int] = ()
) -> Iterator[Problem]:
    """Say what pydantic found; keys stand below the path `within`, or at the top."""
    if isinstance(error, TypeError):
        yield Problem(code="bad-value", message="this is no plan and no sidecar")
        return
    for item in error.errors()[:_MAX_PROBLEMS]:
        key = shown(".".join(str(part) for part in item["loc"]))[:_MAX_KEY]
        code = {"extra_forbidden": "unknown-key", "missing": "missing-key"}.get(item["type"], "bad-value")
        line = document.line_of([*within, *item["loc"]]) or document.line_of(within or item["loc"])
        yield Problem(code=code, message=f"{key}: {item['msg'][:1].lower()}{item['msg'][1:]}", line=line)
