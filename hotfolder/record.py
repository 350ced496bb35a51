"""Record: all we say about one picture. Sidecar, the text inside the picture and every page show this."""

import hashlib
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import metadata
from typing import Annotated, Any, Final, Literal

from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hotfolder import __version__, loras, tomltext
from hotfolder.clock import Moment
from hotfolder.errors import JobError
from hotfolder.plan import Generation, Plan, Source, UsedPreset
from hotfolder.presets import Model
from hotfolder.stagekeys import STAGE_KEYS, Generating

SCHEMA: Final = 1

#: What decides about pixels, next to Python and this program.
_LIBRARIES: Final = ("torch", "diffusers", "transformers", "peft", "pillow")
#: How the notice ends that says that something changed was taken as it is.
FORCED: Final = "(force)"
#: What a branch or tag of the preset turned out to be.
_RESOLVED: Final = {"revision": "commit", "base_revision": "base_commit"}


class CellRecord(BaseModel):
    """What one stage did to this picture."""

    model_config = ConfigDict(frozen=True)

    #: Counted from 1.
    number: int
    #: As the pipeline calls it: `stage`, or its id.
    name: str
    stage: str
    #: Raised when a stage would make other pixels from the same keys.
    version: int = 1
    #: Every key, with its default; for a stage that generates as they were decided.
    keys: Mapping[str, Any] = Field(default_factory=dict)
    #: sha256 of what it took: a source's file, or the pixels that an earlier stage gave.
    took: tuple[str, ...] = ()
    #: sha256 of the pixels that it gave; nothing where it only looked.
    gave: tuple[str, ...] = ()
    #: Width and height of the picture that it gave.
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    #: What the engine tells of the model that it used; empty where it used none.
    model: Mapping[str, str] = Field(default_factory=dict)
    #: Seconds by phase: load, encode, denoise, decode.
    timings: Mapping[str, float] = Field(default_factory=dict)
    #: What it found out or decided.
    facts: Mapping[str, Any] = Field(default_factory=dict)
    notices: tuple[str, ...] = ()
    #: Of the plan that held when it ran.
    plan_sha256: str = ""


def _texts(value: object) -> object:
    """Take `[[notices]]`, tables with a `text`, as the texts that they hold."""
    if not isinstance(value, list | tuple):
        return value
    return tuple(one["text"] if isinstance(one, dict) and "text" in one else one for one in value)


class Record(BaseModel):
    """Everything known about one picture, enough to make it again. The fields are in the order of the sidecar."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    schema_: int = Field(default=SCHEMA, alias="schema")
    type: Literal["picture"] = "picture"
    job: str
    item: int
    candidate: int
    #: Such as "16x9"; None where there is one picture of the candidate.
    variant: str | None = None
    #: Name of the pipeline; None where the stages stood in the job.
    pipeline: str | None = None
    #: Of the first stage that generates; these are absent where none does.
    preset: str | None = None
    kind: str | None = None
    prompt: str = ""
    #: Of this picture: dropping the sidecar makes it again.
    seed: int
    title: str | None = None
    project: str | None = None
    created_at: datetime
    run_id: str
    #: "queued" or "direct"; and how the job came: dropped, lane, schedule, cli, resume, replay ...
    mode: str = "queued"
    source: str = "dropped"
    #: Whether the job named the seed, or it was drawn; and where the prompt stood.
    seed_from: str = "job"
    prompt_from: str | None = None
    plan_sha256: str
    #: mode, size and bytes before encoding.
    pixels_sha256: str
    #: The file as written; only the sidecar can know it.
    file_sha256: str | None = None
    speed: Literal["exact", "fast", "max"] = "exact"
    #: What the axes of the batch set for this picture.
    values: Mapping[str, Any] = Field(default_factory=dict)
    #: Everything that the first stage which generates was told.
    generate: Generation | None = None
    #: The preset's model under the preset's own keys, then what the engine tells of it: commit, hash, device, offload,
    #: attention. Where the engine used something else than the preset says, that stands under `used_KEY`.
    model: Mapping[str, str] = Field(default_factory=dict)
    #: Every preset that was used, as far as it decides about pixels.
    presets: Mapping[str, UsedPreset] = Field(default_factory=dict)
    #: hotfolder, python, torch, diffusers, transformers, CUDA.
    versions: Mapping[str, str]
    #: Seconds, of all stages together: load, encode, denoise, decode, save.
    timings: Mapping[str, float]
    meta: Mapping[str, Any] = Field(default_factory=dict)
    notices: Annotated[tuple[str, ...], BeforeValidator(_texts)] = ()
    stages: tuple[CellRecord, ...] = ()
    sources: tuple[Source, ...] = ()


def describe(
    plan: Plan,
    candidate: int,
    image: Image.Image,
    cells: Sequence[CellRecord],
    *,
    run_id: str,
    plan_sha256: str,
    created_at: datetime,
    versions: Mapping[str, str],
    variant: str = "",
    mode: str = "queued",
    source: str = "dropped",
) -> Record:
    """Say how a picture was made. Hashes the pixels, so it belongs off the GPU thread.

    Args:
        candidate: counted from 1, through the whole job.
        cells: the stages that it went through, in order, its parents' too.
        versions: of what made it, see `versions`.
        variant: which of the candidate's pictures.
    """
    item = plan.item(plan.item_of(candidate))
    first = next((cell for cell in cells if STAGE_KEYS[cell.stage].generates), None)
    shown: dict[str, Any] = {"model": {}}
    if first is not None:
        preset = str(item.preset_of(first.number))
        told = item.generation(first.number).model_copy(update={"takes": ()})
        if (told.width is None or told.height is None) and first.size:
            told = told.model_copy(update=dict(zip(("width", "height"), first.size, strict=True)))
        facts = dict(first.model)
        shown = {
            "preset": preset,
            "kind": plan.presets[preset].kind,
            "prompt": told.prompt,
            "generate": told,
            "speed": facts.pop("speed", "exact"),
            "model": _model(plan.presets[preset].model, facts),
        }
    used = {name: plan.presets[name] for cell in cells if (name := item.preset_of(cell.number)) is not None}
    switched_on = loras.named(item.generation(cell.number).loras for cell in cells if STAGE_KEYS[cell.stage].generates)
    timings: dict[str, float] = {}
    for cell in cells:
        for phase, seconds in cell.timings.items():
            timings[phase] = timings.get(phase, 0.0) + seconds
    notices = [*plan.notices, *(text for cell in cells for text in cell.notices)]
    return Record.model_validate(
        {
            "job": plan.job,
            "item": plan.item_of(candidate),
            "candidate": candidate,
            "variant": variant or None,
            "pipeline": plan.pipeline,
            "seed": plan.seed_of(candidate),
            "title": plan.title,
            "project": plan.project,
            "created_at": created_at,
            "run_id": run_id,
            "mode": mode,
            "source": source,
            "seed_from": plan.seed_from,
            "prompt_from": plan.prompt_from,
            "plan_sha256": plan_sha256,
            "pixels_sha256": pixels_sha256(image),
            "values": dict(item.values),
            "presets": {name: _as_used(preset, switched_on) for name, preset in used.items()},
            "versions": versions,
            "timings": timings,
            "meta": plan.meta,
            "notices": tuple(dict.fromkeys(notices)),
            "stages": tuple(cells),
            "sources": tuple(_sources_of(plan, candidate)),
            **shown,
        }
    )


def _as_used(preset: UsedPreset, switched_on: Collection[str]) -> UsedPreset:
    """Return what a picture took from a preset: its keys stand elsewhere, and of its LoRAs those that were on."""
    found = {name: lora for name, lora in (preset.loras or {}).items() if name in switched_on}
    return preset.model_copy(update={"keys": {}, "loras": found or None})


def keys_as_decided(plan: Plan, candidate: int, stage: int) -> dict[str, Any]:
    """Return every key of a stage, so that a pipeline that says just these makes the same again."""
    item = plan.item(plan.item_of(candidate))
    keys = item.keys(stage)
    told = keys.model_dump(exclude_none=True, exclude={"count", "add", "seed"})
    if isinstance(keys, Generating):
        decided = item.generation(stage).model_dump(exclude_none=True)
        told |= {key: value for key, value in decided.items() if key in type(keys).model_fields}
        told["preset"] = item.preset_of(stage)
        if keys.seed is not None:
            told["seed"] = plan.seed_of(candidate, stage)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()}


def _sources_of(plan: Plan, candidate: int) -> Iterator[Source]:
    """Yield the files that went into a picture."""
    item = plan.item(plan.item_of(candidate))
    yield from item.sources().values()
    for _, stage in plan.path_of(candidate):
        yield from item.assets(stage).values()


def pixels_sha256(image: Image.Image) -> str:
    """Return the sha256 of a picture before it is encoded: a line `MODE WIDTHxHEIGHT`, then its bytes."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of what makes pictures, without importing any of it; what is not installed is left out."""
    found = {"hotfolder": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def dump(record: Record) -> bytes:
    """Return the sidecar."""
    table = record.model_dump(by_alias=True, exclude_none=True)
    table["created_at"] = Moment.of(record.created_at)
    table["timings"] = {phase: round(seconds, 4) for phase, seconds in record.timings.items()}
    # In this order: what is a row of its own stands last.
    for key in ("notices", "stages", "sources"):
        table[key] = [{"text": text} for text in table.pop(key)] if key == "notices" else table.pop(key)
    table["stages"] = [_row(stage) for stage in table["stages"]]
    table["presets"] = {name: _row(preset) for name, preset in table["presets"].items()}
    may_be_left_out = {"prompt", "values", "model", "presets", "meta", "notices", "stages", "sources"}
    return tomltext.dump({key: value for key, value in table.items() if value or key not in may_be_left_out})


def _row(told: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing."""
    return {key: value for key, value in told.items() if value or key in {"number", "seconds"}}


def load(data: bytes) -> Record:
    """Read a sidecar.

    Raises:
        JobError: `newer-schema`: a newer version of this program wrote it.
        ValueError: it is broken.
    """
    table = tomltext.load(data)
    schema = table.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise JobError(
            "newer-schema",
            f"the sidecar of {table.get('job', 'a picture')} has schema {schema}; this hotfolder reads up to {SCHEMA}",
            "a newer hotfolder wrote it: use that one",
        )
    return Record.model_validate(table)


def _model(preset: Model, facts: Mapping[str, str]) -> dict[str, str]:
    """Lay what the engine tells beside the preset's own values, which a dropped sidecar is read from."""
    model: dict[str, str] = preset.model_dump(exclude_none=True)
    for key, value in facts.items():
        if key not in Model.model_fields:
            model[key] = value
        elif model.get(key) != value:
            model[_RESOLVED.get(key, f"used_{key}")] = value
    return model
