"""`pipelines`: which there are; of one what each stage does, where its keys come from, and what it needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import click
from pydantic import ValidationError

from hotfolder import advice, models, pipelines
from hotfolder.errors import HotfolderError
from hotfolder.front.answer import Answer
from hotfolder.front.show import columns, facts, value, where
from hotfolder.kindkeys import KIND_KEYS
from hotfolder.names import shown
from hotfolder.pipelines import Pipeline, Pipelines, SaidStage
from hotfolder.presets import Presets
from hotfolder.settings import Settings
from hotfolder.stagekeys import OF_THE_PRESET, STAGE_KEYS, Generating, StageKeys, Thing

#: What a stage needs, and the key by which a job gives it where no stage before does.
_KEY_OF: Final[Mapping[str, str]] = {"picture": "image", "mask": "mask", "control": "control"}
_THING_OF: Final[Mapping[str, Thing]] = {"image": "picture", "mask": "mask", "control": "control"}


@dataclass(frozen=True, kw_only=True)
class _Used:
    """A preset that a stage works with."""

    name: str
    #: None: there is none of this name, or it is wrong.
    kind: str | None
    #: Whether its model is on this machine; or what is wrong with it.
    state: str
    #: Whether a job may say another one.
    from_job: bool = False


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """One stage, and what there is to say about it."""

    number: int
    said: SaidStage
    #: Where something is open or wrong, they are not checked.
    keys: StageKeys
    #: Keys that the job must say; or in words which of several.
    open: tuple[str, ...]
    wrong: tuple[str, ...]
    used: _Used | None = None
    #: What it needs and no stage before it gives, by the key of a job.
    needs: tuple[str, ...] = field(default=())


def listing(settings: Settings) -> Answer:
    """Return all pipelines."""
    found = Pipelines.of(Presets.of(settings.presets_dir))
    rows, data = [], []
    for name in found.names():
        try:
            pipeline = found.get(name)
        except HotfolderError as error:
            rows.append([name, click.style("wrong", fg="red"), "", shown(error.message)])
            data.append({"name": name, "error": {"code": error.code, "message": error.message, "hint": error.hint}})
            continue
        default = " (default)" if name == pipelines.DEFAULT else ""
        rows.append([name, _whose(found, pipeline), " > ".join(_ids(pipeline)), shown(pipeline.title) + default])
        data.append(_summary(found, pipeline))
    text = columns(("pipeline", "", "stages", ""), rows)
    return Answer(data={"pipelines": data}, text=f"{text}\n\nhotfolder pipelines show NAME tells of each stage.")


def one(settings: Settings, name: str) -> Answer:
    """Return one pipeline: each stage with its keys, what it needs, and which models it works with.

    Raises:
        JobError: `unknown-pipeline`.
        SettingsError: `bad-pipeline`.
    """
    presets = Presets.of(settings.presets_dir)
    found = Pipelines.of(presets)
    pipeline = found.get(name)
    stages = list(_stages(settings, presets, pipeline))
    gives = list(dict.fromkeys(key for stage in stages for key in (*stage.needs, *_open_keys(stage))))
    used = {stage.used.name: stage.used for stage in stages if stage.used is not None}
    head = facts(
        [
            ("pipeline", click.style(name, bold=True) + (" (default)" if name == pipelines.DEFAULT else "")),
            ("title", shown(pipeline.title)),
            ("file", where(pipeline.file) + (" (shipped)" if _whose(found, pipeline) == "shipped" else "")),
            ("stages", " > ".join(_ids(pipeline))),
            ("the job says", gives),
            ("models", [_model_line(one) for one in used.values()]),
        ]
    )
    blocks = [_block(stage) for stage in stages]
    data = {**_summary(found, pipeline), "job_says": gives, "stages": [_stage_table(stage) for stage in stages]}
    return Answer(data=data, text="\n\n".join([head, *blocks]))


def _stages(settings: Settings, presets: Presets, pipeline: Pipeline) -> Iterator[_Stage]:
    """Look at the stages in order; what one gives, those behind it need not ask a job for."""
    have: set[Thing] = set()
    for number, said in enumerate(pipeline.stages, 1):
        keys, open_, wrong = _read(said)
        used = _used(settings, presets, keys)
        needs: list[str] = []
        if said.enabled:
            needs = list(_needs(keys, used, have))
            have |= {_THING_OF[key] for key in needs if key in _THING_OF}
            wrong += [f"needs {thing}, and no stage before it gives that" for thing in sorted(keys.needs - have)]
            have = (have - keys.voids) | keys.gives
        yield _Stage(
            number=number, said=said, keys=keys, open=tuple(open_), wrong=tuple(wrong), used=used, needs=tuple(needs)
        )


def _read(said: SaidStage) -> tuple[StageKeys, list[str], list[str]]:
    """Return the keys of a stage, which of them are left open, and what is wrong with the others."""
    cls = STAGE_KEYS[said.stage]
    try:
        return cls(**said.keys), [], []
    except ValidationError as error:
        open_, wrong = [], []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            text = item["msg"].removeprefix("Value error, ")
            if item["type"] == "missing":
                open_.append(key)
            elif not key:
                open_.append(text)
            else:
                wrong.append(f"{shown(key)}: {text[:1].lower()}{text[1:]}")
        known = {key: one for key, one in said.keys.items() if key in cls.model_fields}
        return cls.model_construct(**known), open_, wrong


def _needs(keys: StageKeys, used: _Used | None, have: set[Thing]) -> Iterator[str]:
    """Yield the keys of a job that a stage needs: no stage before it gives that."""
    yield from (_KEY_OF[thing] for thing in sorted(keys.needs - have) if thing in _KEY_OF)
    if not isinstance(keys, Generating) or used is None or used.kind is None or used.kind not in KIND_KEYS:
        return
    of_kind = KIND_KEYS[used.kind].needs
    yield from (key for key in sorted(of_kind - {"prompt"}) if _THING_OF[key] not in have | keys.needs)
    # A picture from nothing needs words; an edit or a repair of one that is there does not, unless its kind says so.
    from_nothing = not of_kind and "picture" not in have | keys.needs
    if keys.prompt is None and ("prompt" in of_kind or from_nothing):
        yield "prompt"


def _used(settings: Settings, presets: Presets, keys: StageKeys) -> _Used | None:
    from_job = isinstance(keys, Generating) and keys.preset is None
    name = (keys.preset or settings.default_preset) if isinstance(keys, Generating) else keys.helper
    if name is None:
        return None
    try:
        preset = presets.get(name)
    except HotfolderError as error:
        return _Used(name=name, kind=None, state=shown(error.message), from_job=from_job)
    return _Used(name=name, kind=preset.kind, state=models.state(preset.model, settings), from_job=from_job)


def _open_keys(stage: _Stage) -> list[str]:
    """Return the keys that the job must say, as it writes them; in words where it may choose which."""
    of = stage.said.id
    return [f"stage.{of}: {one}" if " " in one else f"stage.{of}.{one}" for one in stage.open]


def _keys(stage: _Stage) -> Iterator[tuple[str, object, str]]:
    """Yield each key of a stage, its value, and where that comes from: pipeline, default, job, preset or open."""
    for key, about in type(stage.keys).model_fields.items():
        if key in stage.said.keys:
            yield key, stage.said.keys[key], "pipeline"
        elif about.is_required():
            yield key, None, "open"
        elif about.default is None and isinstance(stage.keys, Generating) and key in _OF_A_JOB:
            # A stage with a preset of its own takes no settings that are meant for another model.
            yield key, None, "preset" if stage.said.keys.get("preset") and key in OF_THE_PRESET else "job"
        else:
            yield key, about.default, "default"


#: Keys that a stage which generates takes from the job, where it does not say them itself.
_OF_A_JOB: Final = frozenset({key for keys in KIND_KEYS.values() for key in keys.model_fields})


def _block(stage: _Stage) -> str:
    """Show one stage."""
    said = stage.said
    name = said.id if said.id == said.stage else f"{said.id} ({said.stage})"
    off = "" if said.enabled else ", switched off"
    head = click.style(f"{stage.number} {name}", bold=True) + off
    used = stage.used
    lines = facts(
        [
            ("needs", ", ".join(sorted(stage.keys.needs))),
            ("gives", ", ".join(sorted(stage.keys.gives))),
            ("preset", "" if used is None else _model_line(used)),
            ("open", [f"{one}: the job says it" if " " not in one else one for one in stage.open]),
            ("wrong", [click.style(one, fg="red") for one in stage.wrong]),
        ]
    )
    rows = [
        [
            f"  {key}",
            "" if found is None else value(found),
            click.style(origin, dim=origin == "default"),
            _about(stage, key),
        ]
        for key, found, origin in _keys(stage)
    ]
    table = columns(("  key", "value", "from", ""), rows) if rows else ""
    return "\n".join(part for part in (head, "\n".join(f"  {line}" for line in lines.splitlines()), table) if part)


def _about(stage: _Stage, key: str) -> str:
    return click.style(advice.texts(type(stage.keys)).get(key, ""), dim=True)


def _model_line(used: _Used) -> str:
    state = click.style(used.state, fg="green" if used.state == "ready" else None if used.kind else "red")
    whose = ", unless the job says another" if used.from_job else ""
    return f"{used.name}{f' ({used.kind})' if used.kind else ''}: {state}{whose}"


def _stage_table(stage: _Stage) -> dict[str, Any]:
    used = stage.used
    return {
        "number": stage.number,
        "id": stage.said.id,
        "stage": stage.said.stage,
        "enabled": stage.said.enabled,
        "lane": stage.keys.lane,
        "needs": stage.keys.needs,
        "gives": stage.keys.gives,
        "preset": None
        if used is None
        else {"name": used.name, "kind": used.kind, "model_state": used.state, "from_job": used.from_job},
        "open": stage.open,
        "wrong": stage.wrong,
        "keys": {key: {"value": found, "from": origin} for key, found, origin in _keys(stage)},
    }


def _summary(found: Pipelines, pipeline: Pipeline) -> dict[str, Any]:
    return {
        "name": pipeline.name,
        "title": pipeline.title,
        "stages": _ids(pipeline),
        "own": _whose(found, pipeline) == "own",
        "file": pipeline.file,
        "default": pipeline.name == pipelines.DEFAULT,
    }


def _ids(pipeline: Pipeline) -> Sequence[str]:
    return [stage.id for stage in pipeline.stages if stage.enabled]


def _whose(found: Pipelines, pipeline: Pipeline) -> str:
    same = found.own.resolve() == found.shipped.resolve()
    return "own" if pipeline.file.is_relative_to(found.own) and not same else "shipped"
