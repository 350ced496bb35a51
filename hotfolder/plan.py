"""A plan: every choice of one job made. Seeds drawn, files hashed, presets laid under; nothing is left open.

A plan is data: the same plan makes the same pixels in any process and any workspace. What differs from item to item is
kept as lists, so that the plan of ten thousand items stays small; `Plan.item` says what one of them is.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from hotfolder import __version__, loras, sizes, tomltext
from hotfolder.batch import STAGE_AXIS
from hotfolder.errors import Problem, Rejected
from hotfolder.kindkeys import KIND_KEYS, MAX_SEED, PICTURE_KEYS
from hotfolder.loras import Loras
from hotfolder.presets import HelperKind, Kind, Lora, LoraName, Model, Preset, SizeName
from hotfolder.stagekeys import OF_THE_PRESET, STAGE_KEYS, Generate, Generating, Lane, StageKeys

SCHEMA: Final = 1
DEFAULT_STRENGTH: Final = 0.6
_DEFAULT_SIDE: Final = 1024
_SIZE_KEYS: Final = frozenset({"width", "height", "aspect"})
#: Candidates of one item, more than any settings accept.
_MAX_ROWS: Final = 1_000_000
#: Items whose keys are kept settled.
_ITEMS_KEPT: Final = 32


class _Table(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)


class Source(_Table):
    """A file that a job took, as it lies in the job's folder."""

    #: "image", "mask" or "control"; "items"; or of a stage's asset "overlay.image".
    role: str
    #: As the job named it.
    name: str
    #: Path below the workspace, with slashes.
    file: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    #: Pixels, as shown: after EXIF rotation; 0 for what is no picture.
    width: int = 0
    height: int = 0
    #: Of "@mug": the picture of the other job that it was, as a path below the workspace.
    via: str | None = None


class MissingSource(_Table):
    """A file that some items needed and could not have: they fail, the others are made."""

    role: str
    name: str
    code: str
    message: str
    hint: str = ""


class Generation(_Table):
    """What a stage that generates is to do, for every candidate of an item alike."""

    prompt: str = ""
    #: None: of the size of the picture that comes in.
    width: int | None = None
    height: int | None = None
    steps: int
    guidance: float | None = None
    true_cfg: float | None = None
    negative_prompt: str | None = None
    strength: float | None = None
    image_strength: float | None = None
    max_sequence_length: Annotated[int, Field(ge=16, le=2048)] = 512
    #: None: none.
    loras: Loras | None = None
    #: Roles that the model is given, of what comes in: "image", "mask", "control". It follows from the rest.
    takes: tuple[str, ...] = Field(default=(), exclude=True)


class UsedPreset(_Table):
    """What a job took from a preset: an edited preset serves the next job."""

    kind: Kind | HelperKind
    max_sequence_length: Annotated[int, Field(ge=16, le=2048)] = 512
    model: Model
    #: The only sizes that it makes; None: any.
    sizes: Annotated[tuple[SizeName, ...], Field(min_length=1, max_length=100)] | None = None
    #: Those that the job names.
    loras: dict[LoraName, Lora] | None = None
    keys: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, preset: Preset) -> Self:
        """Return what a job takes from a preset; of its LoRAs none so far."""
        return cls(
            kind=preset.kind,
            max_sequence_length=preset.max_sequence_length,
            model=preset.model,
            sizes=preset.limits.sizes or None,
            keys=dict(preset.keys),
        )


class Axis(_Table):
    """One axis of a batch: a key and the values that it takes in turn."""

    #: A key of the job such as "prompt", of a stage such as "stage.crop.padding", or "items" for the rows of a list.
    key: str
    #: Of "items": which keys a row sets.
    columns: tuple[str, ...] = ()
    #: Of "items": a list of values each, an empty list standing for a key that the row leaves open.
    values: Annotated[tuple[Any, ...], Field(min_length=1)]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that it sets: one, or those of its columns."""
        return self.columns or (self.key,)

    def at(self, index: int) -> dict[str, Any]:
        """Return what the value at `index`, from 0, sets."""
        if self.columns:
            return {
                key: value for key, value in zip(self.columns, self.values[index], strict=True) if value not in ([], ())
            }
        return {self.key: self.values[index]}


class PlannedStage(_Table):
    """One stage and what the pipeline and the job said for it; in the file its keys stand flat beside it."""

    stage: str
    #: What it is called: the stage's name, or another one where that stands twice.
    id: str
    keys: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, data: Any) -> Any:  # noqa: ANN401 - what a file may hold
        if not isinstance(data, dict) or "keys" in data:
            return data
        own = {key: data[key] for key in ("stage", "id") if key in data}
        return {**own, "keys": {key: value for key, value in data.items() if key not in own}}

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"stage": self.stage, "id": self.id, **self.keys}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One candidate of every item: at which stage it begins, and from what."""

    #: Stage, counted from 1.
    begins: int
    #: The candidate of the item, counted from 1, whose picture it begins with; None: the job's own sources.
    parent: int | None = None


class Plan(_Table):
    """All choices of one job. Written to plan.toml, read again at a restart, and a job file itself when dropped."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, populate_by_name=True)

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    type: Literal["plan"] = "plan"
    hotfolder: Annotated[str, Field(max_length=100)] = __version__
    job: str
    #: Name of the pipeline; None: the stages stood in the job.
    pipeline: str | None = None
    #: The preset of stages that name none; None where no stage generates.
    preset: str | None = None
    #: Seed of candidate 1 of each item that has none of its own.
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    seed_from: Literal["job", "drawn"] = "job"
    #: Where the prompts stood; None where there are none.
    prompt_from: Literal["job", "lane", "matrix", "list", "pipeline"] | None = None
    #: Pictures that the first stage `generate` makes of an item.
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    priority: int = 0
    title: str | None = None
    project: str | None = None
    notices: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    #: What the job itself says for all stages that generate, and the names of its pictures.
    keys: dict[str, Any] = Field(default_factory=dict)
    presets: dict[str, UsedPreset] = Field(default_factory=dict)
    meta: dict[str, Any] = Field(default_factory=dict)
    axes: tuple[Axis, ...] = ()
    #: In order, counted from 1.
    stages: Annotated[tuple[PlannedStage, ...], Field(min_length=1, max_length=64)]
    sources: tuple[Source, ...] = ()
    missing: tuple[MissingSource, ...] = ()

    # --- the table of the job ---

    @property
    def items(self) -> int:
        """Items of the batch."""
        return math.prod(len(axis.values) for axis in self.axes)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The candidates of each item.

        Raises:
            Rejected: there are more than any settings accept.
        """
        rows: list[Row] = []
        first = next((number for number, stage in enumerate(self.stages, 1) if stage.stage == "generate"), None)
        standing: list[int] = []
        for number, stage in enumerate(self.stages, 1):
            if number == 1 and first != 1:
                rows.append(Row(begins=1))
                standing = [1]
            if stage.stage != "generate":
                continue
            count = stage.keys.get("count") or (self.count if number == first else 1)
            if stage.keys.get("add") and standing:
                # They begin from what came in where the model takes a picture, and only once where it takes none.
                parents: list[int | None] = [*standing] if self._takes_what_came_in(number) else [None]
            elif standing:
                parents, count = [*standing], count - 1
            else:
                parents = [None]
            if len(rows) + len(parents) * count > _MAX_ROWS:
                found = f"the stages make more than {_MAX_ROWS} candidates of each item"
                raise Rejected([Problem(code="bad-value", message=found, hint="lower count in the stages generate")])
            made = [Row(begins=number, parent=parent) for parent in parents for _ in range(count)]
            standing += range(len(rows) + 1, len(rows) + len(made) + 1)
            rows += made
        return tuple(rows)

    def _takes_what_came_in(self, number: int) -> bool:
        """Whether a stage that adds pictures makes them from those that came in, or from the prompt alone."""
        own = self.stages[number - 1].keys
        names = [own["preset"]] if own.get("preset") else self.presets_of("preset")
        return bool(own.get("strength")) or any(
            KIND_KEYS[self.presets[name].kind].needs & set(PICTURE_KEYS) for name in names
        )

    def presets_of(self, key: str) -> list[str]:
        """Return the presets that the job itself may use: its own, or those of the axis `key`."""
        for axis in self.axes:
            if axis.key == key:
                return list(dict.fromkeys(axis.values))
            if key in axis.columns:
                named = [axis.at(index).get(key) or self.preset for index in range(len(axis.values))]
                return list(dict.fromkeys(str(name) for name in named if name))
        return [self.preset] if self.preset else []

    @property
    def candidates(self) -> int:
        """Rows of the job's table."""
        return self.items * len(self.rows)

    def item_of(self, candidate: int) -> int:
        """Return the item of a candidate, both counted from 1."""
        return (candidate - 1) // len(self.rows) + 1

    def row_of(self, candidate: int) -> Row:
        """Return where a candidate begins."""
        return self.rows[(candidate - 1) % len(self.rows)]

    def parent_of(self, candidate: int) -> int | None:
        """Return the candidate that another one begins with."""
        parent = self.row_of(candidate).parent
        return None if parent is None else (candidate - 1) // len(self.rows) * len(self.rows) + parent

    def candidates_of(self, item: int) -> range:
        """Return the candidates of an item."""
        return range((item - 1) * len(self.rows) + 1, item * len(self.rows) + 1)

    def passes(self, candidate: int, stage: int) -> bool:
        """Whether a candidate goes by a stage: it was there before, and the stage only adds others."""
        planned = self.stages[stage - 1]
        return planned.stage == "generate" and bool(planned.keys.get("add")) and self.row_of(candidate).begins < stage

    def path_of(self, candidate: int) -> list[tuple[int, int]]:
        """Return (candidate, stage) of every cell that a finished picture went through, its parents' too."""
        begins = self.row_of(candidate).begins
        own = [
            (candidate, number) for number in range(begins, len(self.stages) + 1) if not self.passes(candidate, number)
        ]
        parent = self.parent_of(candidate)
        return own if parent is None else [cell for cell in self.path_of(parent) if cell[1] < begins] + own

    # --- what one item is ---

    def values_of(self, item: int) -> dict[str, Any]:
        """Return what the axes set for an item, counted from 1; the last axis runs quickest."""
        index, chosen = item - 1, []
        for axis in reversed(self.axes):
            index, at = divmod(index, len(axis.values))
            chosen.append(axis.at(at))
        return {key: value for one in reversed(chosen) for key, value in one.items()}

    def item(self, number: int) -> "Item":
        """Return one item of the batch, counted from 1."""
        known = self._known_items
        if number not in known:
            while len(known) >= _ITEMS_KEPT:
                known.pop(next(iter(known)), None)
            known[number] = Item(plan=self, number=number, values=self.values_of(number))
        return known[number]

    @cached_property
    def _known_items(self) -> dict[int, "Item"]:
        return {}

    @cached_property
    def _sources(self) -> dict[tuple[str, str], Source]:
        return {(source.role, source.name): source for source in self.sources}

    @cached_property
    def _missing(self) -> dict[tuple[str, str], MissingSource]:
        return {(source.role, source.name): source for source in self.missing}

    def source(self, role: str, name: str) -> Source | None:
        """Return a source by its role and the name that the job gave it."""
        return self._sources.get((role, name))

    def seed_of(self, candidate: int, stage: int | None = None) -> int:
        """Return the seed of a candidate: the k-th of an item has seed + k - 1, around the end of the range.

        Args:
            stage: one that may have a seed of its own, which then counts instead of the job's.
        """
        number = self.item_of(candidate)
        own = self.item(number).own(stage).get("seed") if stage is not None else None
        seed = self.values_of(number).get("seed", self.seed) if own is None else own
        return int(seed + (candidate - 1) % len(self.rows)) % (MAX_SEED + 1)

    @property
    def plain_end(self) -> bool:
        """Whether the last stage writes just a PNG: the same file then is the checkpoint of the stage before."""
        prefix = f"{STAGE_AXIS}{self.stages[-1].id}."
        varied = any(key.startswith(prefix) for axis in self.axes for key in axis.keys)
        return self.stages[-1].keys.get("format", "png") == "png" and not varied

    def number_of(self, stage: int | str) -> int | None:
        """Return the number of a stage that is named by it, by its id, or by its name; None: there is none."""
        if isinstance(stage, int):
            return stage if 1 <= stage <= len(self.stages) else None
        ids, stages = [one.id for one in self.stages], [one.stage for one in self.stages]
        found = next((known for known in (ids, stages) if stage in known), None)
        return None if found is None else found.index(stage) + 1

    def changed(self, **changes: Any) -> Self:  # noqa: ANN401 - fields of a plan
        """Return the same plan with other values for some fields."""
        copy = self.model_copy(update=changes)
        for name in ("rows", "_known_items", "_sources", "_missing"):
            copy.__dict__.pop(name, None)  # they were found out from what is no more
        return copy

    def dump(self) -> bytes:
        """Return plan.toml."""
        table = self.model_dump(by_alias=True, exclude_none=True)
        for key in ("notices", "keys", "presets", "meta", "axes", "sources", "missing"):
            if not table[key]:
                del table[key]
        return tomltext.dump(table)

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Read a plan.toml that this program wrote.

        Raises:
            ValueError: it is broken.
        """
        return cls(**tomltext.load(data))


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One combination of a batch: what each stage is to do for it."""

    plan: Plan
    #: Counted from 1.
    number: int
    #: What the axes set.
    values: Mapping[str, Any]
    #: Stage -> its keys, as far as they were asked for.
    _keys: dict[int, StageKeys] = field(default_factory=dict)

    @property
    def said(self) -> dict[str, Any]:
        """What the job says for this item, for all stages alike."""
        return self.plan.keys | {key: value for key, value in self.values.items() if not key.startswith(STAGE_AXIS)}

    @property
    def prompt(self) -> str:
        """The job's own prompt for this item."""
        return str(self.said.get("prompt", ""))

    def own(self, stage: int) -> dict[str, Any]:
        """Return what pipeline, job and axes say for a stage, counted from 1."""
        planned = self.plan.stages[stage - 1]
        prefix = f"{STAGE_AXIS}{planned.id}."
        axes = {key.removeprefix(prefix): value for key, value in self.values.items() if key.startswith(prefix)}
        return planned.keys | axes

    def keys(self, stage: int) -> StageKeys:
        """Return the keys of a stage, with its defaults.

        Raises:
            pydantic.ValidationError: they are wrong; of a plan that was checked they are not.
        """
        if stage not in self._keys:
            self._keys[stage] = STAGE_KEYS[self.plan.stages[stage - 1].stage](**self.own(stage))
        return self._keys[stage]

    def lane(self, stage: int) -> Lane:
        """Return where a stage runs."""
        return self.keys(stage).lane

    def preset_of(self, stage: int) -> str | None:
        """Return the preset that a stage uses: of what generates or helps; None where it needs no model."""
        keys = self.keys(stage)
        if isinstance(keys, Generating):
            return keys.preset or self.said.get("preset") or self.plan.preset
        return keys.helper

    def model_key(self, stage: int) -> str:
        """Return the key of the model that a stage needs, "" where it needs none."""
        name = self.preset_of(stage)
        return "" if name is None else self.plan.presets[name].model.key

    def source(self, role: str) -> Source | None:
        """Return the job's own picture for a role."""
        name = self.said.get(role)
        return None if name is None else self.plan.source(role, name)

    def sources(self) -> dict[str, Source]:
        """Return the job's own pictures for this item, by role."""
        return {role: source for role in PICTURE_KEYS if (source := self.source(role)) is not None}

    def missing(self) -> MissingSource | None:
        """Return the first picture that this item needs and cannot have."""
        for role in PICTURE_KEYS:
            found = self.plan._missing.get((role, str(self.said.get(role))))  # noqa: SLF001 - one type in two parts
            if found is not None:
                return found
        return None

    def assets(self, stage: int) -> dict[str, Source]:
        """Return the assets of a stage, by key."""
        planned, keys = self.plan.stages[stage - 1], self.keys(stage)
        found = {}
        for key in type(keys).assets:
            name = getattr(keys, key)
            source = None if name is None else self.plan.source(f"{planned.id}.{key}", name)
            if source is not None:
                found[key] = source
        return found

    def generation(self, stage: int, notices: list[str] | None = None) -> Generation:
        """Decide what a stage that generates is to do.

        Args:
            notices: takes what is made otherwise than asked.
        """
        own, keys = self.own(stage), self.keys(stage)
        name = self.preset_of(stage)
        assert name is not None  # noqa: S101 - a plan has a preset for every stage that generates
        used = self.plan.presets[name]
        job_keys = KIND_KEYS[used.kind].model_fields
        said = self.said
        if name != (said.get("preset") or self.plan.preset):
            said = {key: value for key, value in said.items() if key not in OF_THE_PRESET}
        told = {**used.keys, **said, **own}
        told = {key: value for key, value in told.items() if key in job_keys or key in Generation.model_fields}
        takes = self._takes(stage, used.kind, keys)
        cfg = told.get("true_cfg")
        strength = getattr(keys, "strength", None) or told.get("strength")
        strength = (strength or DEFAULT_STRENGTH) if used.kind == "text2img" and "image" in takes else None
        width, height = self._size(
            stage, used, own=own, said=said, takes=takes, notices=notices if notices is not None else []
        )
        return Generation(
            prompt=str(told.get("prompt") or ""),
            width=width,
            height=height,
            steps=told.get("steps", JOB_STEPS),
            guidance=told.get("guidance"),
            true_cfg=cfg if cfg and cfg > 1 else None,
            negative_prompt=told.get("negative_prompt") if cfg and cfg > 1 else None,
            strength=strength,
            image_strength=told.get("image_strength") if used.kind == "redux" else None,
            max_sequence_length=used.max_sequence_length,
            loras=told.get("loras") or None,
            takes=takes,
        )

    def unknown_loras(self, stage: int) -> list[str]:
        """Return the LoRAs that a stage which generates is to switch on and its preset does not have, sorted."""
        known = self.plan.presets[self.preset_of(stage) or ""].loras or {}
        return sorted(loras.named([self.generation(stage).loras]) - known.keys())

    def _takes(self, stage: int, kind: str, keys: StageKeys) -> tuple[str, ...]:
        """Return the roles of what comes in that the model is given."""
        fields = KIND_KEYS[kind].model_fields
        if kind != "text2img":
            return tuple(role for role in PICTURE_KEYS if role in fields)
        if not isinstance(keys, Generate):
            return ("image",)  # hires, refine and detail go over what came in
        if keys.strength is not None:
            return ("image",)
        # The job's own picture is where a first stage starts; later ones start from the prompt, unless they say so.
        return ("image",) if self._is_first(stage) and self.said.get("image") else ()

    def _is_first(self, stage: int) -> bool:
        """Whether no stage before this one makes a picture."""
        return all(self.plan.stages[number - 1].stage == "prepare" for number in range(1, stage))

    def _size(
        self,
        stage: int,
        used: UsedPreset,
        *,
        own: Mapping[str, Any],
        said: Mapping[str, Any],
        takes: Sequence[str],
        notices: list[str],
    ) -> tuple[int | None, int | None]:
        """Decide width and height in pixels, multiples of 16; None where what comes in decides.

        What the stage says goes before what the job says, that before its picture's own size, and that before the
        preset's. A preset of few sizes makes the nearest of these.
        """
        default = int(used.keys.get("width", _DEFAULT_SIDE)), int(used.keys.get("height", _DEFAULT_SIDE))
        works_over = not isinstance(self.keys(stage), Generate)
        asked = {key: own[key] for key in _SIZE_KEYS if own.get(key)} or (
            {} if works_over else {key: said[key] for key in _SIZE_KEYS if said.get(key)}
        )
        if works_over:
            return None, None
        if "aspect" in asked:
            size = sizes.of_aspect(asked["aspect"], default)
            return sizes.decide(*size, None, size, only=used.sizes, notices=notices)
        width, height = asked.get("width"), asked.get("height")
        if takes and not self._is_first(stage) and not (width and height):
            if used.sizes:
                return sizes.decide(width, height, None, default, only=used.sizes, notices=notices)
            return (None, None) if not (width or height) else (width or None, height or None)
        # Redux looks at its source, and makes a picture of its own.
        like = None
        if takes and used.kind != "redux":
            like = (self.source("control") if "control" in takes else None) or self.source("image")
        own_size = None if like is None else (like.width, like.height)
        return sizes.decide(width, height, own_size, default, only=used.sizes, notices=notices)


#: Denoising steps where neither job nor preset says.
JOB_STEPS: Final = 28


def digest(data: bytes) -> str:
    """Return the sha256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()
