"""JobFile -> Plan: every choice made. Seeds drawn, sizes decided, files hashed; nothing is left open.

A plan is data: the same plan makes the same pixels in any process and any workspace.
"""

import hashlib
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hotfolder import __version__, tomltext
from hotfolder.errors import Problem, Rejected, SettingsError
from hotfolder.jobfile import KIND_KEYS, MAX_SEED, JobFile
from hotfolder.names import shown
from hotfolder.presets import Kind, Model, Presets
from hotfolder.tomltext import Document

SCHEMA: Final = 1
#: FLUX packs 2 x 2 latents of 8 x 8 pixels into a token.
SIZE_STEP: Final = 16
_DEFAULT_SIDE: Final = 1024
_DEFAULT_STRENGTH: Final = 0.6
_SMALLEST_SIDE: Final = 16
_LARGEST_SIDE: Final = 8192
#: Of what is wrong with a dropped plan, as much is told.
_MAX_PROBLEMS: Final = 100
_MAX_KEY: Final = 60


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Table):
    """A picture that a job took, as it lies in the job's folder."""

    #: "image", "mask" or "control".
    role: str
    #: As the job named it.
    name: str
    #: Path below the workspace, with slashes.
    file: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    #: Pixels, as shown: after EXIF rotation.
    width: int
    height: int


class Generation(_Table):
    """What the stage `generate` is to do, for every candidate alike."""

    prompt: str
    width: int
    height: int
    steps: int
    guidance: float | None = None
    true_cfg: float | None = None
    negative_prompt: str | None = None
    strength: float | None = None
    image_strength: float | None = None
    max_sequence_length: Annotated[int, Field(ge=16, le=2048)] = 512


class Plan(_Table):
    """All choices of one job. Written to plan.toml, read again at a restart, and a job file itself when dropped."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    type: Literal["plan"] = "plan"
    hotfolder: Annotated[str, Field(max_length=100)] = __version__
    job: str
    preset: str
    kind: Kind
    #: Seed of candidate 1.
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    seed_from: Literal["job", "drawn"] = "job"
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    priority: int = 0
    #: In order, counted from 1.
    stages: tuple[str, ...] = ("generate", "export")
    title: str | None = None
    project: str | None = None
    notices: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    model: Model
    generate: Generation
    sources: tuple[Source, ...] = ()
    meta: dict[str, Any] = Field(default_factory=dict)

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def items(self) -> int:
        """Items of the batch."""
        return 1

    @property
    def candidates(self) -> int:
        """Rows of the job's table."""
        return self.items * self.count

    def item_of(self, candidate: int) -> int:
        """Return the item of a candidate, both counted from 1."""
        return (candidate - 1) // self.count + 1

    def seed_of(self, candidate: int) -> int:
        """Return the seed of a candidate: the k-th of an item has seed + k - 1, around the end of the range."""
        return (self.seed + (candidate - 1) % self.count) % (MAX_SEED + 1)

    def dump(self) -> bytes:
        """Return plan.toml."""
        table = self.model_dump(by_alias=True, exclude_none=True, exclude_defaults=False)
        for key in ("meta", "sources"):
            if not table[key]:
                del table[key]
        return tomltext.dump(table)

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Read a plan.toml that this program wrote.

        Raises:
            ValueError: it is broken.
        """
        return cls(**tomllib.loads(data.decode()))


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A picture that a job names, before it is taken."""

    role: str
    #: As written in the job: for a job file a name, for a plan or sidecar a path below the workspace.
    name: str
    #: What it must hash to; None: anything.
    sha256: str | None = None


def wishes_of(job: JobFile) -> tuple[Wish, ...]:
    """Return the pictures that a job file names."""
    return tuple(Wish(role=role, name=name) for role, name in job.pictures.items())


def make_plan(name: str, job: JobFile, sources: Sequence[Source], drawn_seed: int) -> Plan:
    """Decide all that a job leaves open.

    Args:
        name: the job, such as "mug_take01".
        sources: one for each picture the job names.
        drawn_seed: the seed if the job has none, 0 .. 2^32-1.
    """
    keys, preset = job.keys, job.preset
    notices = list(job.notices)
    width, height = _size(job, {source.role: source for source in sources}, notices)
    strength = None
    if preset.kind == "text2img" and job.get("image"):
        strength = job.get("strength") or _DEFAULT_STRENGTH
    cfg = job.get("true_cfg")
    return Plan(
        job=name,
        preset=preset.name,
        kind=preset.kind,
        model=preset.model,
        seed=drawn_seed if keys.seed is None else keys.seed,
        seed_from="drawn" if keys.seed is None else "job",
        count=keys.count,
        priority=keys.priority,
        title=keys.title,
        project=keys.project,
        meta=dict(keys.meta),
        sources=tuple(sources),
        notices=tuple(notices),
        generate=Generation(
            prompt=keys.prompt,
            width=width,
            height=height,
            steps=keys.steps,
            guidance=job.get("guidance"),
            true_cfg=cfg if cfg and cfg > 1 else None,
            negative_prompt=job.get("negative_prompt"),
            strength=strength,
            image_strength=job.get("image_strength"),
            max_sequence_length=preset.max_sequence_length,
        ),
    )


def read_plan(document: Document, presets: Presets) -> Plan:
    """Read a dropped plan.toml or sidecar: the same job again.

    The model must be the one that the preset of this name has here: who can drop a file must not choose what is loaded.

    Raises:
        Rejected: broken, of a newer schema, or its model is another one by now.
    """
    table = dict(document.table)
    if isinstance(table.get("schema"), int) and table["schema"] > SCHEMA:
        found = f"schema {table['schema']} of a newer hotfolder; this one reads up to {SCHEMA}"
        raise Rejected([Problem(code="newer-schema", message=found, line=document.line_of(["schema"]))])
    if table.get("type") == "picture":
        table = _plan_of_sidecar(table)
    try:
        plan = Plan(**table)
    except (ValidationError, TypeError) as error:
        raise Rejected(list(_problems(error, document))) from error
    if problems := list(_check(plan, document)):
        raise Rejected(problems)
    try:
        preset = presets.get(plan.preset)
    except SettingsError as error:
        line = document.line_of(["preset"])
        raise Rejected([Problem(code=error.code, message=error.message, hint=error.hint, line=line)]) from error
    if preset.model != plan.model or preset.kind != plan.kind:
        here = f"{preset.model.key} ({preset.kind})"
        found = f"the plan was made with {plan.model.key} ({plan.kind}); preset {plan.preset!r} is {here} here"
        raise Rejected(
            [
                Problem(
                    code="wrong-model",
                    message=found,
                    hint="drop the job file instead",
                    line=document.line_of(["model"]),
                )
            ]
        )
    return plan


def wishes_of_plan(plan: Plan) -> tuple[Wish, ...]:
    """Return the pictures that a dropped plan names."""
    return tuple(Wish(role=source.role, name=source.file, sha256=source.sha256) for source in plan.sources)


def digest(data: bytes) -> str:
    """Return the sha256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def _plan_of_sidecar(table: Mapping[str, Any]) -> dict[str, Any]:
    """Take from a sidecar what a plan of this one picture says."""
    kept = ("job", "preset", "kind", "seed", "title", "project", "meta", "generate", "sources")
    plan: dict[str, Any] = {key: table[key] for key in kept if key in table}
    plan["count"] = 1
    if isinstance(table.get("model"), dict):
        plan["model"] = {key: value for key, value in table["model"].items() if key in Model.model_fields}
    return plan


def _problems(
    error: ValidationError | TypeError, document: Document, *, within: str = "", extra: str = "unknown-key"
) -> Iterator[Problem]:
    """Say what pydantic found; keys stand in the table `within`, or at the top."""
    if isinstance(error, TypeError):
        yield Problem(code="bad-value", message="this is no plan and no sidecar")
        return
    for item in error.errors()[:_MAX_PROBLEMS]:
        key = shown(".".join(str(part) for part in item["loc"]))[:_MAX_KEY]
        code = {"extra_forbidden": extra, "missing": "missing-key"}.get(item["type"], "bad-value")
        line = document.line_of([within, *item["loc"]]) or document.line_of(item["loc"])
        yield Problem(code=code, message=f"{key}: {item['msg'][:1].lower()}{item['msg'][1:]}", line=line)


def _check(plan: Plan, document: Document) -> Iterator[Problem]:
    """Check what was dropped as a plan as strictly as a job file: it need not be one that we wrote."""
    keys = plan.generate.model_dump(exclude_none=True, exclude={"max_sequence_length"})
    keys |= {key: getattr(plan, key) for key in ("preset", "seed", "count", "priority", "title", "project", "meta")}
    keys |= {source.role: source.name for source in plan.sources}
    kind = KIND_KEYS[plan.kind]
    try:
        kind(**keys)
    except ValidationError as error:
        yield from _problems(error, document, within="generate", extra="wrong-kind")
    for key in sorted(kind.needs):
        if not keys.get(key):
            yield Problem(code="missing-key", message=f"{plan.kind} needs {key}", line=document.line_of(["generate"]))
    if len({source.role for source in plan.sources}) < len(plan.sources):
        line = document.line_of(["sources"])
        yield Problem(code="bad-value", message="sources: one picture of each role is accepted", line=line)
    if plan.generate.width % SIZE_STEP or plan.generate.height % SIZE_STEP:
        found = f"generate: {plan.generate.width}x{plan.generate.height}: sides are multiples of {SIZE_STEP}"
        yield Problem(code="bad-value", message=found, line=document.line_of(["generate", "width"]))
    if plan.stages != Plan.model_fields["stages"].default:
        found = "stages: generate and export are accepted, in this order"
        yield Problem(code="bad-value", message=found, line=document.line_of(["stages"]))


def _size(job: JobFile, sources: Mapping[str, Source], notices: list[str]) -> tuple[int, int]:
    """Decide width and height in pixels, multiples of 16.

    What the job says goes before its picture's own size, and that before the preset's.
    """
    keys, preset = job.keys, job.preset
    default = int(preset.keys.get("width", _DEFAULT_SIDE)), int(preset.keys.get("height", _DEFAULT_SIDE))
    if keys.aspect is not None:
        across, down = map(int, keys.aspect.split(":"))
        side = math.sqrt(default[0] * default[1] / (across * down))
        return _nearest(across * side), _nearest(down * side)
    # Redux looks at its source, and makes a picture of its own.
    like = None if preset.kind == "redux" else sources.get("control") or sources.get("image")
    if like is None or (keys.width and keys.height):
        width, height = keys.width or default[0], keys.height or default[1]
        size = _nearest(width), _nearest(height)
    elif keys.width or keys.height:
        scale = keys.width / like.width if keys.width else (keys.height or 0) / like.height
        width, height = keys.width or round(like.width * scale), keys.height or round(like.height * scale)
        size = _nearest(width), _nearest(height)
    else:
        width, height = like.width, like.height
        size = _like(width, height, default[0] * default[1])
    if size != (width, height):
        why = f"sides are multiples of {SIZE_STEP}, up to {_LARGEST_SIDE}"
        if size[0] <= width - SIZE_STEP:
            why = "its picture is larger than the preset makes; set width or height to have it otherwise"
        notices.append(f"made at {size[0]}x{size[1]} instead of {width}x{height}: {why}")
    return size


def _like(width: int, height: int, area: int) -> tuple[int, int]:
    """Return the size for a source: its own, or its shape at `area` pixels if it has more; sides rounded down.

    Rounded down, so that a source has only to be cropped by a few pixels, not scaled.
    """
    scale = min(1.0, math.sqrt(area / (width * height)))
    across, down = (_within(int(side * scale) // SIZE_STEP * SIZE_STEP) for side in (width, height))
    return across, down


def _nearest(side: float) -> int:
    return _within(round(side / SIZE_STEP) * SIZE_STEP)


def _within(side: int) -> int:
    return min(_LARGEST_SIDE, max(_SMALLEST_SIDE, side))
