"""Record: all we say about one picture. Sidecar, the text inside the picture and every page show this."""

import hashlib
import platform
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import metadata
from typing import Annotated, Any, Final, Literal

from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hotfolder import __version__, tomltext
from hotfolder.clock import Moment
from hotfolder.engine import Made
from hotfolder.errors import JobError
from hotfolder.plan import Generation, Plan, Source
from hotfolder.presets import Model

SCHEMA: Final = 1

#: What decides about pixels, next to Python and this program.
_LIBRARIES: Final = ("torch", "diffusers", "transformers", "pillow")
#: What a branch or tag of the preset turned out to be.
_RESOLVED: Final = {"revision": "commit", "base_revision": "base_commit"}


class StageRecord(BaseModel):
    """What one stage did to this picture."""

    model_config = ConfigDict(frozen=True)

    #: Counted from 1.
    number: int
    name: str
    #: Raised when a stage would make other pixels from the same keys.
    version: int = 1
    #: sha256 of what it took: a source's file, or the pixels that an earlier stage gave.
    took: tuple[str, ...] = ()
    #: sha256 of the pixels that it gave.
    gave: tuple[str, ...] = ()


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
    preset: str
    kind: str
    prompt: str
    #: Of this picture: dropping the sidecar makes it again.
    seed: int
    title: str | None = None
    project: str | None = None
    created_at: datetime
    run_id: str
    plan_sha256: str
    #: mode, size and bytes before encoding.
    pixels_sha256: str
    #: The file as written; only the sidecar can know it.
    file_sha256: str | None = None
    speed: Literal["exact", "fast", "max"] = "exact"
    #: Everything that the stage `generate` was told.
    generate: Generation
    #: The preset's model under the preset's own keys, then what the engine tells of it: commit, hash, device, offload,
    #: attention. Where the engine used something else than the preset says, that stands under `used_KEY`.
    model: Mapping[str, str]
    #: hotfolder, python, torch, diffusers, transformers, CUDA.
    versions: Mapping[str, str]
    #: Seconds: load, encode, denoise, decode, save.
    timings: Mapping[str, float]
    meta: Mapping[str, Any] = Field(default_factory=dict)
    notices: Annotated[tuple[str, ...], BeforeValidator(_texts)] = ()
    stages: tuple[StageRecord, ...] = ()
    sources: tuple[Source, ...] = ()


def describe(
    plan: Plan,
    candidate: int,
    made: Made,
    *,
    run_id: str,
    plan_sha256: str,
    created_at: datetime,
    versions: Mapping[str, str],
) -> Record:
    """Say how a picture was made. Hashes the pixels, so it belongs off the GPU thread.

    Args:
        candidate: counted from 1, through the whole job.
        versions: of what made it, see `versions`.
    """
    pixels = pixels_sha256(made.image)
    facts = dict(made.model)
    speed = facts.pop("speed", "exact")
    return Record.model_validate(
        {
            "job": plan.job,
            "item": plan.item_of(candidate),
            "candidate": candidate,
            "preset": plan.preset,
            "kind": plan.kind,
            "prompt": plan.generate.prompt,
            "seed": plan.seed_of(candidate),
            "title": plan.title,
            "project": plan.project,
            "created_at": created_at,
            "run_id": run_id,
            "plan_sha256": plan_sha256,
            "pixels_sha256": pixels,
            "speed": speed,
            "generate": plan.generate,
            "model": _model(plan.model, facts),
            "versions": versions,
            "timings": made.timings,
            "meta": plan.meta,
            "notices": tuple(dict.fromkeys((*plan.notices, *made.notices))),
            "stages": tuple(_stages(plan, pixels)),
            "sources": plan.sources,
        }
    )


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
    return tomltext.dump(
        {key: value for key, value in table.items() if value or key not in {"meta", "notices", "stages", "sources"}}
    )


def load(data: bytes) -> Record:
    """Read a sidecar.

    Raises:
        JobError: `newer-schema`: a newer version of this program wrote it.
        ValueError: it is broken.
    """
    try:
        table = tomllib.loads(data.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply for a sidecar") from error
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


def _stages(plan: Plan, pixels: str) -> Iterator[StageRecord]:
    """A picture is generated from the sources; what follows takes what the stage before gave."""
    took = tuple(source.sha256 for source in plan.sources)
    for number, name in enumerate(plan.stages, 1):
        yield StageRecord(number=number, name=name, took=took, gave=(pixels,))
        took = (pixels,)
