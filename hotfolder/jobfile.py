"""How a job file is read: every problem at once, each at its line.

What may be written for each kind stands in `kindkeys`, for each stage in `stagekeys`.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel, ValidationError

from hotfolder import advice, batch, loras, pipelines
from hotfolder.advice import MAX_LOOKED_AT
from hotfolder.batch import AxisSaid, Found
from hotfolder.errors import HotfolderError, Problem, Rejected, SettingsError
from hotfolder.kindkeys import KIND_KEYS, PICTURE_KEYS, CommonKeys, PictureWork
from hotfolder.lanes import NO_DEFAULTS, LaneDefaults
from hotfolder.names import MAX_SHOWN, cut, short, shown
from hotfolder.pipelines import Pipelines, SaidStage
from hotfolder.presets import Preset, Presets
from hotfolder.stagekeys import OF_THE_PRESET, STAGE_KEYS, Generating, StageKeys, Thing
from hotfolder.tomltext import Document

#: Values of one key that are looked at in vain before the rest is believed to be as wrong.
_MAX_WRONG_VALUES: Final = 5
STAGE_AXIS: Final = "stage."
_SIZES: Final = frozenset({"aspect", "width", "height"})
#: The class of a stage's keys -> the kind of preset that it is helped by; `prepare` says it itself.
_HELPER_KINDS: Final = {"Select": "clip", "Upscale": "upscale", "Detect": "detect"}
#: Those that say what is made, and from what.
_GENERATION_KEYS: Final = advice.ALL_KEYS.keys() - batch.NO_AXES - {"preset", "seed"}


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """A job file that was read."""

    #: What the job says, with its lane and the preset laid under.
    keys: CommonKeys
    #: Of stages that name none; None where no stage generates by it.
    preset: Preset | None
    #: None: the stages stand in the job.
    pipeline: str | None
    #: In order; those that were switched off are gone.
    stages: tuple[SaidStage, ...]
    axes: tuple[AxisSaid, ...] = ()
    #: Every preset that is used, those of helper models too.
    presets: Mapping[str, Preset] = field(default_factory=dict)
    #: What job and lane themselves say for all stages that generate, and the names of the pictures.
    said: Mapping[str, Any] = field(default_factory=dict)
    #: Patterns that name pictures and were not looked up yet.
    globs: tuple[str, ...] = ()
    #: The list of items that was not read yet.
    items: str | None = None
    #: Where the prompts stand; None where there are none.
    prompt_from: Literal["job", "lane", "matrix", "list", "pipeline"] | None = None
    notices: tuple[str, ...] = ()

    def get(self, key: str) -> Any:  # noqa: ANN401 - a key of whichever kind; None where the kind has no such key
        """Return the value of a key that only some kinds have."""
        return getattr(self.keys, key, None)

    @property
    def pictures(self) -> dict[str, tuple[str, ...]]:
        """Role -> the names by which the items call their pictures."""
        named: dict[str, dict[str, None]] = {}
        for axis in self.axes:
            for index in range(len(axis.values)):
                for role, name in axis.at(index).items():
                    if role in PICTURE_KEYS:
                        named.setdefault(role, {})[name] = None
        for role in PICTURE_KEYS:
            # A name above the matrix is of use only where some item leaves it open.
            if self.said.get(role) and (role not in named or any(role in axis.columns for axis in self.axes)):
                named.setdefault(role, {})[self.said[role]] = None
        return {role: tuple(named[role]) for role in PICTURE_KEYS if role in named}

    @property
    def assets(self) -> dict[str, tuple[str, ...]]:
        """Stage and key, as in "overlay.image" -> the files that it names."""
        found: dict[str, dict[str, None]] = {}
        for stage in self.stages:
            for key in STAGE_KEYS[stage.stage].assets:
                names = [stage.keys.get(key)]
                for axis in self.axes:
                    named = f"{STAGE_AXIS}{stage.id}.{key}"
                    names += [axis.at(index).get(named) for index in range(len(axis.values))]
                for name in filter(None, names):
                    found.setdefault(f"{stage.id}.{key}", {})[name] = None
        return {role: tuple(names) for role, names in found.items()}


#: Keys whose form is said more plainly than pydantic does.
_FORMS: Final = {
    "box": "a list of four numbers, [left, top, right, bottom]",
    "position": "a list of two numbers, [x, y]",
    "aspects": 'a list of shapes, such as ["1:1", "16:9"],',
    "aspect": 'a shape such as "16:9"',
}
NOTHING_FOUND: Final = Found()


def read(
    document: Document,
    presets: Presets,
    default_preset: str,
    lane: LaneDefaults = NO_DEFAULTS,
    found: Found = NOTHING_FOUND,
) -> JobFile:
    """Read a job file.

    Args:
        found: what its batch names in the inbox; where that is not there yet, `globs` and `items` of the result say so.

    Raises:
        Rejected: every problem of the text, each with its line.
    """
    reader = _Reader(document, presets, default_preset, lane, found)
    job = reader.read()
    if reader.problems or job is None:
        raise Rejected(advice.first(reader.problems, reader.unlooked))
    return job


class _Reader:
    """Reads one job file; what is wrong gathers in `problems`."""

    def __init__(
        self, document: Document, presets: Presets, default_preset: str, lane: LaneDefaults, found: Found
    ) -> None:
        self._document, self._presets, self._lane, self._found = document, presets, lane, found
        self._default_preset = default_preset
        self._table = dict(document.table)
        self._own = {key: value for key, value in self._table.items() if key not in {"stages", "stage", "matrix"}}
        self.problems: list[Problem] = []
        #: How many more there are: to say what was meant takes time.
        self.unlooked = 0
        self._known: dict[str, Preset | None] = {}

    def read(self) -> JobFile | None:
        pipeline, stages = self._stages()
        axes = self._said_axes = self._axes()
        keyed = self._stage_keys(stages, axes)
        mains = self._mains(keyed, axes)
        parsed = self._keys_of(mains, keyed, axes)
        helpers = [keys.helper for _, keys in keyed if keys is not None and keys.helper]
        for stage, keys in keyed:
            if keys is not None and keys.helper:
                self._helper(stage, keys, keys.helper)
            if isinstance(keys, Generating) and keys.preset:
                self._named(keys.preset, self._document.line_of(self._at(stage, "preset")), f"stage {stage.id}: ")
        self._check_axis_keys(axes, mains, keyed)
        self._check_loras(axes, mains, keyed)
        if stages and not self.problems:
            self._check_fit(keyed, mains, axes)
        if self.problems or parsed is None:
            return None
        given = {**self._from_lane(mains, keyed, axes), **self._own}
        said = {key: value for key, value in given.items() if key in _GENERATION_KEYS}
        if said.keys() & _SIZES and self._own.keys() & _SIZES:
            # A size that the job says goes before a lane's, however either says it.
            said = {key: value for key, value in said.items() if key not in _SIZES or key in self._own}
        own = [keys.preset for _, keys in keyed if isinstance(keys, Generating) and keys.preset]
        used = [*(preset.name for preset in mains), *own, *helpers, *self._axis_values(axes, "preset", keyed)]
        pending = self._table.get("items") if self._found.items is None else None
        return JobFile(
            keys=parsed,
            preset=mains[0] if mains and self._uses_main(keyed) else None,
            pipeline=pipeline,
            stages=tuple(stage for stage, _ in keyed),
            axes=tuple(axes),
            presets={name: preset for name in dict.fromkeys(used) if (preset := self._preset(name)) is not None},
            said=said,
            globs=tuple(glob for glob in batch.globs_of(self._table.get("matrix")) if glob not in self._found.matches),
            items=pending,
            prompt_from=self._prompt_from(axes, keyed),
            notices=(*_notices(parsed), *self._unused(keyed)),
        )

    def _prompt_from(
        self, axes: Sequence[AxisSaid], keyed: Sequence[tuple[SaidStage, StageKeys | None]]
    ) -> Literal["job", "lane", "matrix", "list", "pipeline"] | None:
        for axis in axes:
            if "prompt" in (axis.columns or (axis.key,)):
                return "list" if axis.columns else "matrix"
        if self._own.get("prompt"):
            return "job"
        if self._lane.keys.get("prompt"):
            return "lane"
        return "pipeline" if any(isinstance(keys, Generating) and keys.prompt for _, keys in keyed) else None

    def _unused(self, keyed: Sequence[tuple[SaidStage, StageKeys | None]]) -> Iterator[str]:
        """Say which keys of the job do nothing: every stage that could take them says its own."""
        taking = [keys for _, keys in keyed if isinstance(keys, Generating) and not keys.preset]
        for key in sorted(self._own.keys() & OF_THE_PRESET):
            if taking and all(getattr(keys, key, None) is not None for keys in taking):
                yield f"{key} does nothing: each stage that would take it says its own"

    # --- the stages ---

    def _stages(self) -> tuple[str | None, list[SaidStage]]:
        """Find the list of stages, and lay `[stage.X]` over it."""
        name = self._own.get("pipeline", self._lane.keys.get("pipeline"))
        if "stages" in self._table:
            if "pipeline" in self._own:
                self._problem(["pipeline"], "bad-value", "pipeline and [[stages]] exclude each other", "leave one out")
            stages, problems = pipelines.read_stages(self._table["stages"])
            for path, message, hint in problems:
                self._problem(path, "bad-pipeline", message, hint)
            name = None
        else:
            name = pipelines.DEFAULT if name is None else name
            if not isinstance(name, str):
                return None, []  # said with the other keys
            try:
                stages = Pipelines.of(self._presets).get(name).stages
            except HotfolderError as error:
                self._problem(["pipeline"], error.code, error.message, error.hint)
                return name, []
        laid = self._lay_over(list(stages), name)
        if laid and laid[-1].stage != "export":
            laid.append(
                SaidStage(stage="export", id="export" if all(one.id != "export" for one in laid) else "export-2")
            )
        if len(laid) > pipelines.MAX_STAGES:
            text = f"{len(laid)} stages, with the export at the end; at most {pipelines.MAX_STAGES} are accepted"
            self._problem(["stages"], "bad-pipeline", text, "")
        return name, laid

    def _lay_over(self, stages: list[SaidStage], pipeline: str | None) -> list[SaidStage]:
        tables = self._table.get("stage", {})
        if not isinstance(tables, dict) or not all(isinstance(one, dict) for one in tables.values()):
            hint = "such as [stage.crop], and its keys below"
            self._problem(["stage"], "bad-value", "stage: a table for each stage is accepted", hint)
            return stages
        for id_ in sorted(tables.keys() - {stage.id for stage in stages})[:MAX_LOOKED_AT] if stages else ():
            of = f"pipeline {pipeline!r}" if pipeline else "this job"
            near = difflib.get_close_matches(id_, [stage.id for stage in stages], n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            hint += f"its stages are {', '.join(stage.id for stage in stages)}"
            self._problem(["stage", id_], "unknown-key", f"{of} has no stage {cut(shown(id_))}", hint)
        result = []
        for stage in stages:
            own = dict(tables.get(stage.id, {}))
            enabled = own.pop("enabled", stage.enabled)
            if not isinstance(enabled, bool):
                self._problem(["stage", stage.id, "enabled"], "bad-value", "enabled is true or false", "")
            if enabled is True:
                result.append(SaidStage(stage=stage.stage, id=stage.id, keys={**stage.keys, **own}))
        if stages and not result:
            self._problem(["stage"], "bad-pipeline", "every stage is switched off", "leave one on")
        return result

    def _at(self, stage: SaidStage, key: str | None = None) -> Sequence[str | int]:
        """Return the path in the text at which a stage, or one of its keys, was said."""
        tables = self._table.get("stage")
        if isinstance(tables, dict) and isinstance(own := tables.get(stage.id), dict) and (key is None or key in own):
            return ["stage", stage.id, *([key] if key else [])]
        listed = self._table.get("stages")
        if isinstance(listed, list):
            for index, one in enumerate(listed):
                if isinstance(one, dict) and one.get("id", one.get("stage")) == stage.id:
                    return ["stages", index, *([key] if key else [])]
        whole = f"{STAGE_AXIS}{stage.id}.{key}"
        axis = next((one for one in self._said_axes if whole in (one.columns or (one.key,))), None)
        return ["pipeline"] if axis is None else self._axis_path(axis, whole)

    def _stage_keys(
        self, stages: list[SaidStage], axes: Sequence[AxisSaid]
    ) -> list[tuple[SaidStage, StageKeys | None]]:
        """Check the keys of each stage; an axis fills a key that is left open."""
        keyed = []
        for stage in stages:
            prefix = f"{STAGE_AXIS}{stage.id}."
            filled = {
                key.removeprefix(prefix): value
                for axis in axes
                for key, value in axis.at(0).items()
                if key.startswith(prefix)
            }
            cls = STAGE_KEYS[stage.stage]
            try:
                keys: StageKeys | None = cls(**{**stage.keys, **filled})
            except ValidationError as error:
                keys = None
                found = error.errors()
                self.unlooked = max(self.unlooked, len(found) - MAX_LOOKED_AT)
                self.problems += [self._stage_problem(stage, cls, item) for item in found[:MAX_LOOKED_AT]]
            keyed.append((stage, keys))
        return keyed

    def _stage_problem(self, stage: SaidStage, cls: type[StageKeys], item: Any) -> Problem:  # noqa: ANN401 - pydantic's ErrorDetails
        key = str(item["loc"][0]) if item["loc"] else ""
        line = self._document.line_of(self._at(stage, key or None))
        where = f"stage {stage.id}" + (f": {cut(shown(key))}" if key else "")
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, cls.model_fields, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            hint += f"it takes {', '.join(cls.model_fields)}" if cls.model_fields else "it takes no keys"
            return Problem(
                code="unknown-key",
                message=f"stage {stage.id}: unknown key {cut(shown(key))}",
                hint=hint,
                line=line,
            )
        if key in _FORMS and (len(item["loc"]) > 1 or item["type"] not in {"missing", "value_error"}):
            found = f" = {short(stage.keys.get(key))}"
            return Problem(code="bad-value", message=f"{where}{found}: {_FORMS[key]} is accepted", line=line)
        if item["type"] == "missing":
            listed = bool(self._table.get("stages"))
            hint = f"add a line {key} = ..." if listed else f"add [stage.{stage.id}], and {key} = ... below"
            return Problem(
                code="missing-key", message=f"{where} is left open, and nothing fills it", hint=hint, line=line
            )
        text = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
        value = "" if isinstance(item["input"], (dict, BaseModel)) else f" = {short(item['input'])}"
        code = "missing-key" if not item["loc"] and " needed" in text else "bad-value"
        hint = ""
        if code == "missing-key":
            hint = "add a line for it" if self._table.get("stages") else f"add [stage.{stage.id}], and the key below"
        return Problem(code=code, message=f"{where}{value}: {text[:1].lower()}{text[1:]}", hint=hint, line=line)

    # --- the axes ---

    def _axes(self) -> list[AxisSaid]:
        axes: list[AxisSaid] = []
        if "matrix" in self._table:
            axes, problems = batch.read_matrix(self._table["matrix"], self._found)
            for key, message, hint in problems:
                self._problem(["matrix", *key.split(".")], "bad-value", message, hint)
        if self._found.items is not None:
            axis, wrong = batch.read_items(self._found, str(self._table.get("items")))
            line = self._document.line_of(["items"])
            self.problems += [Problem(code=one.code, message=one.message, hint=one.hint, line=line) for one in wrong]
            axes += [axis] if axis is not None else []
        twice = [key for axis in axes for key in (axis.columns or (axis.key,))]
        for key in sorted({key for key in twice if twice.count(key) > 1}):
            self._problem(
                ["items"], "bad-value", f"{cut(shown(key))} stands in [matrix] and in the list", "leave one out"
            )
        return axes

    def _axis_values(
        self, axes: Sequence[AxisSaid], key: str, keyed: Sequence[tuple[SaidStage, StageKeys | None]] = ()
    ) -> list[Any]:
        """Return all values that axes give a key, of the job or, for the presets of stages, of any stage."""
        keys = (
            {key}
            | {f"{STAGE_AXIS}{stage.id}.{key}" for stage, _ in keyed}
            | {f"{STAGE_AXIS}{stage.id}.by" for stage, _ in keyed if stage.stage in {"detect", "upscale"}}
        )
        found = [
            value
            for axis in axes
            if keys & set(axis.columns or (axis.key,))
            for index in range(len(axis.values))
            for name, value in axis.at(index).items()
            if name in keys and value not in ("subject", "lanczos")  # which may be a list
        ]
        return list(dict.fromkeys(value for value in found if isinstance(value, str)))

    def _check_axis_keys(
        self,
        axes: Sequence[AxisSaid],
        mains: Sequence[Preset],
        keyed: Sequence[tuple[SaidStage, StageKeys | None]],
    ) -> None:
        """Check every value of every axis by the class of its key."""
        by_id = {stage.id: stage for stage, _ in keyed}
        fields = {key for cls in self._classes(mains) for key in cls.model_fields}
        for axis in axes:
            for key in axis.columns or (axis.key,):
                id_, _, stage_key = key.removeprefix(STAGE_AXIS).partition(".")
                if key.startswith(STAGE_AXIS):
                    known = id_ in by_id and stage_key in STAGE_KEYS[by_id[id_].stage].model_fields
                    if keyed and (not known or stage_key in {"count", "add"}):
                        self._problem(
                            self._axis_path(axis, key),
                            "unknown-key",
                            f"{self._of_list(axis)}no stage takes {cut(shown(key))}",
                            "",
                        )
                elif key not in advice.ALL_KEYS:
                    self._problem(
                        self._axis_path(axis, key),
                        "unknown-key",
                        f"unknown key {cut(shown(key))}",
                        advice.did_you_mean(key),
                    )
                elif key not in fields and keyed and not any(STAGE_KEYS[stage.stage].generates for stage, _ in keyed):
                    self._problem(self._axis_path(axis, key), "unknown-key", f"no stage of this job takes {key}", "")
                elif key not in fields and mains:
                    kinds = ", ".join(dict.fromkeys(preset.kind for preset in mains))
                    self._problem(self._axis_path(axis, key), "wrong-kind", f"the kind {kinds} does not take {key}", "")
            self._check_values(axis, mains, by_id, keyed)

    def _check_values(
        self,
        axis: AxisSaid,
        mains: Sequence[Preset],
        by_id: Mapping[str, SaidStage],
        keyed: Sequence[tuple[SaidStage, StageKeys | None]],
    ) -> None:
        wrong = 0
        for index in range(len(axis.values)):
            values = axis.at(index)
            wrong += self._check_prompt(axis, index, keyed)
            own = {
                key: value for key, value in values.items() if not key.startswith(STAGE_AXIS) and key in advice.ALL_KEYS
            }
            for cls in self._classes(mains):
                tried = {key: value for key, value in own.items() if key in cls.model_fields}
                wrong += self._try(cls, tried, "", axis, index)
            for id_, stage in by_id.items():
                prefix = f"{STAGE_AXIS}{id_}."
                told = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
                cls_ = STAGE_KEYS[stage.stage]
                if told and told.keys() <= cls_.model_fields.keys():
                    wrong += self._try(cls_, {**stage.keys, **told}, prefix, axis, index)
            if wrong >= _MAX_WRONG_VALUES:
                return

    def _try(self, cls: type[BaseModel], values: Mapping[str, Any], prefix: str, axis: AxisSaid, index: int) -> int:
        """Check the values of one place of an axis; return how many are wrong."""
        try:
            cls(**values)
        except ValidationError as error:
            said = axis.at(index)
            wrong = [item for item in error.errors() if not item["loc"] or f"{prefix}{item['loc'][0]}" in said]
            for item in wrong:
                key = f"{prefix}{item['loc'][0]}" if item["loc"] else next(iter(said))
                text = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
                of = self._of_list(axis, index) or "matrix: "
                found = "" if isinstance(item["input"], (dict, BaseModel)) else f" = {short(item['input'])}"
                message = f"{of}{key}{found}: {text[:1].lower()}{text[1:]}"
                self._problem(self._axis_path(axis, key), "bad-value", message, "")
            return len(wrong)
        return 0

    def _check_prompt(self, axis: AxisSaid, index: int, keyed: Sequence[tuple[SaidStage, StageKeys | None]]) -> bool:
        """Check that an item whose prompt an axis sets, or leaves open, has one; return whether it has none."""
        if "prompt" not in (axis.columns or (axis.key,)):
            return False
        values = {**self._lane.keys, **self._own, **axis.at(index)}
        first = next((keys for _, keys in keyed if isinstance(keys, Generating)), None)
        varied = any("image" in (other.columns or (other.key,)) for other in self._said_axes)
        if first is None or first.prompt or values.get("prompt") or values.get("image") or varied:
            return False
        text = f"{self._of_list(axis, index) or 'matrix: '}a prompt or an image is needed"
        self._problem(self._axis_path(axis, "prompt"), "missing-key", text, "")
        return True

    def _axis_path(self, axis: AxisSaid, key: str) -> list[str]:
        """Return where in the text an axis stands; "stage.crop.padding" may be one word or three."""
        if axis.columns:
            return ["items"]
        whole = ["matrix", key]
        return whole if tuple(whole) in self._document.lines else ["matrix", *key.split(".")]

    def _of_list(self, axis: AxisSaid, index: int | None = None) -> str:
        """Return where in a list of items something stands; "" for an axis of the matrix."""
        if not axis.columns:
            return ""
        line = f", line {axis.lines[index]}" if index is not None and axis.lines else ""
        return f"{shown(str(self._table.get('items')))}{line}: "

    # --- the job's own keys ---

    def _uses_main(self, keyed: Sequence[tuple[SaidStage, StageKeys | None]]) -> bool:
        """Whether some stage generates with the job's own preset."""
        return any(isinstance(keys, Generating) and not keys.preset for _, keys in keyed)

    def _mains(self, keyed: Sequence[tuple[SaidStage, StageKeys | None]], axes: Sequence[AxisSaid]) -> list[Preset]:
        """Return the presets by which the job's own keys are read; none where nothing generates.

        Where they cannot be had, or the list of stages, the keys are still checked: as those of text2img.
        """
        generating = [keys for stage, keys in keyed if STAGE_KEYS[stage.stage].generates]
        if keyed and not generating:
            return []
        if keyed and not self._uses_main(keyed) and all(keys is not None for keys in generating):
            named_by = [(stage, keys.preset) for stage, keys in keyed if isinstance(keys, Generating) and keys.preset]
            lined = ((name, self._document.line_of(self._at(stage, "preset"))) for stage, name in named_by[:1])
            known = (self._preset(name, line) for name, line in lined)
            return [preset for preset in known if preset is not None and preset.kind in KIND_KEYS]
        line, where = None, ""
        named: list[object] = self._axis_values(axes, "preset")
        if named:
            line = self._document.line_of(["matrix", "preset"]) or self._document.line_of(["items"])
        elif "preset" in self._own:
            named, line = [self._own["preset"]], self._document.line_of(["preset"])
        elif "preset" in self._lane.keys:
            named, where = [self._lane.keys["preset"]], f"{self._lane.file}: "
        else:
            named, where = [self._default_preset], "default_preset of hotfolder.toml: "
        found = []
        for name in named:
            preset = self._named(name, line, where)
            if preset is not None:
                found.append(preset)
            if sum(one is None for one in self._known.values()) >= _MAX_WRONG_VALUES:
                break
        return found

    def _named(self, name: object, line: int | None, where: str) -> Preset | None:
        if not isinstance(name, str) or len(name) > MAX_SHOWN:
            text = f"{where}preset = {short(name)}: the name of a preset in quotes is accepted"
            self.problems.append(Problem(code="bad-value", message=text, line=line))
            return None
        preset = self._preset(name, line, where)
        if preset is not None and preset.kind not in KIND_KEYS:
            text = f"{where}preset {name!r} is of the kind {preset.kind}: it helps a stage, and makes no picture"
            self.problems.append(Problem(code="wrong-kind", message=text, line=line))
            return None
        return preset

    def _preset(self, name: str, line: int | None = None, where: str = "") -> Preset | None:
        """Return a preset; what is wrong with one is said once."""
        if name not in self._known:
            self._known[name] = None
            try:
                preset = self._presets.get(name)
                check_preset(preset)
                self._known[name] = preset
            except SettingsError as error:
                text = f"{where}{error.message}"
                self.problems.append(Problem(code=error.code, message=text, hint=error.hint, line=line))
        return self._known[name]

    def _helper(self, stage: SaidStage, keys: StageKeys, name: str) -> None:
        """Check the preset of a helper model."""
        key = "by" if "by" in stage.keys and stage.stage != "select" else "preset"
        line = self._document.line_of(self._at(stage, key))
        preset = self._preset(name, line)
        wanted = _HELPER_KINDS.get(type(keys).__name__, "") or getattr(keys, "control", "")
        if preset is not None and preset.kind != wanted:
            text = f"stage {stage.id}: preset {name!r} is of the kind {preset.kind}; one of the kind {wanted} is needed"
            self.problems.append(Problem(code="wrong-kind", message=text, line=line))

    def _classes(self, mains: Sequence[Preset]) -> list[type[CommonKeys]]:
        return list(dict.fromkeys(KIND_KEYS[preset.kind] for preset in mains)) or [PictureWork]

    def _keys_of(
        self,
        mains: Sequence[Preset],
        keyed: Sequence[tuple[SaidStage, StageKeys | None]],
        axes: Sequence[AxisSaid],
    ) -> CommonKeys | None:
        """Check the job's own keys by the class of each preset that it may use; return what the first makes of them."""
        generates = not keyed or any(STAGE_KEYS[stage.stage].generates for stage, _ in keyed)
        unknown_preset = generates and not mains
        first: CommonKeys | None = None
        unread: list[Preset | None] = [*mains] or [None]
        for preset in unread:
            cls = KIND_KEYS[preset.kind] if preset is not None else PictureWork
            if preset is None and generates:
                cls = KIND_KEYS["text2img"]
            values = self._values_under(preset, cls)
            if "image" not in cls.model_fields and _works_on_a_picture(keyed):
                values.pop("image", None)  # not for the model, but for a stage before it
            try:
                parsed = cls(**values)
                first = first or parsed
            except ValidationError as error:
                found = error.errors()
                self.unlooked = max(self.unlooked, len(found) - MAX_LOOKED_AT)
                for item in found[:MAX_LOOKED_AT]:
                    if unknown_preset and advice.is_of_some_kind(item):
                        continue
                    problem = advice.problem_of(item, self._document, preset, self._lane.keys, self._lane.file, cls=cls)
                    if problem not in self.problems:
                        self.problems.append(problem)
            if preset is not None:
                self._check_whole(values, axes)
        return first

    def _values_under(self, preset: Preset | None, cls: type[CommonKeys]) -> dict[str, Any]:
        # The preset's size is for jobs that neither say one nor have a picture: the plan decides that.
        under = {key: value for key, value in (preset.keys if preset else {}).items() if key not in {"width", "height"}}
        values = {key: value for key, value in {**under, **self._lane.keys}.items() if key in cls.model_fields}
        if self._own.keys() & _SIZES:
            values = {key: value for key, value in values.items() if key not in _SIZES}
        values |= self._own
        values.pop("preset", None)
        return values

    def _from_lane(
        self,
        mains: Sequence[Preset],
        keyed: Sequence[tuple[SaidStage, StageKeys | None]],
        axes: Sequence[AxisSaid],
    ) -> dict[str, Any]:
        """Return what the lane gives: only what some preset of the job takes, or a stage before it."""
        names = [keys.preset for _, keys in keyed if isinstance(keys, Generating) and keys.preset]
        others = [self._preset(name) for name in (*names, *self._axis_values(axes, "preset", keyed))]
        used = [*mains, *(preset for preset in others if preset is not None and preset.kind in KIND_KEYS)]
        taken = {key for cls in self._classes(used) for key in cls.model_fields}
        if _works_on_a_picture(keyed):
            taken.add("image")
        return {key: value for key, value in self._lane.keys.items() if key in taken}

    def _check_whole(self, values: Mapping[str, Any], axes: Sequence[AxisSaid]) -> None:
        """Check what no single key can tell."""
        varied = {key for axis in axes for key in (axis.columns or (axis.key,))}
        waits = bool(self._table.get("items") and self._found.items is None) or bool(
            batch.globs_of(self._table.get("matrix"))
        )
        cfg = values.get("true_cfg")
        if (
            values.get("negative_prompt")
            and not (isinstance(cfg, (int, float)) and cfg > 1)
            and "true_cfg" not in varied
        ):
            hint = "add true_cfg = 4.0, say; each step then takes a second pass"
            self._once(["negative_prompt"], "missing-key", "negative_prompt needs true_cfg above 1", hint)
        if "strength" in self._own and not (values.get("image") or "image" in varied or waits):
            self._once(["strength"], "missing-key", "strength needs an image to start from", 'add a line image = "..."')
        if "aspect" in self._own and (self._own.keys() & {"width", "height"}):
            self._once(["aspect"], "bad-value", "aspect and width or height exclude each other", "leave one out")

    def _check_loras(
        self,
        axes: Sequence[AxisSaid],
        mains: Sequence[Preset],
        keyed: Sequence[tuple[SaidStage, StageKeys | None]],
    ) -> None:
        """Check that each preset has the LoRAs that it may be asked to switch on, at the line that names them.

        Where presets differ from item to item, what belongs together is known of the whole plan only.
        """
        columns = {key for axis in axes for key in axis.columns or (axis.key,)}
        if any(key.rpartition(".")[2] == "preset" for key in columns):
            return
        of_stage = {
            stage.id: mains if not keys.preset else [preset] if (preset := self._preset(keys.preset)) else []
            for stage, keys in keyed
            if isinstance(keys, Generating)
        }
        own, where = self._own.get("loras"), ""
        if own is None:
            own, where = self._lane.keys.get("loras"), f"{self._lane.file}: "
        asked: list[tuple[Sequence[str | int], object, Sequence[Preset], str]] = []
        if "loras" not in columns:
            asked.append((["loras"], own, mains, where))
        asked += [
            (self._at(stage, "loras"), keys.loras, of_stage[stage.id], "")
            for stage, keys in keyed
            if isinstance(keys, Generating)
        ]
        for axis in axes:
            for key in axis.columns or (axis.key,):
                presets = mains if key == "loras" else of_stage.get(key.removeprefix(STAGE_AXIS).rpartition(".")[0], [])
                if key.rpartition(".")[2] == "loras":
                    at = self._axis_path(axis, key)
                    asked += [(at, value, presets, "") for value in self._axis_values([axis], key)]
        for path, said, presets, where in asked:
            for preset in presets:
                for name in sorted(loras.named([said]) - preset.loras.keys()):
                    message, hint = loras.none_of(name, preset.name, preset.loras)
                    self._once(path, "bad-value", f"{where}{message}", hint)

    def _check_fit(
        self,
        keyed: Sequence[tuple[SaidStage, StageKeys | None]],
        mains: Sequence[Preset],
        axes: Sequence[AxisSaid],
    ) -> None:
        """Check that each stage finds what it needs."""
        values = {**self._from_lane(mains, keyed, axes), **self._own}
        for key in PICTURE_KEYS:
            if (named := values.get(key)) is not None and not isinstance(named, str):
                self._no_name(key, named)
        varied = {key for axis in axes for key in (axis.columns or (axis.key,))}
        if self._table.get("items") and self._found.items is None:
            varied |= {"prompt", "image", "mask", "control"}  # whatever the list will say
        varied |= {key for key, value in (self._table.get("matrix") or {}).items() if batch.is_glob(value)}
        things: dict[str, Thing] = {"image": "picture", "mask": "mask", "control": "control"}
        has = frozenset(things[key] for key in PICTURE_KEYS if values.get(key) or key in varied)
        by_id = {stage.id: stage for stage, _ in keyed}

        def prompt(keys: Generating) -> bool:
            return bool(keys.prompt or (keys.prompt is None and (values.get("prompt") or "prompt" in varied)))

        def needs_of(keys: Generating) -> Sequence[tuple[str, str, frozenset[str]]]:
            presets = [self._preset(keys.preset)] if keys.preset else mains
            return [
                (preset.name, preset.kind, KIND_KEYS[preset.kind].needs if preset.kind in KIND_KEYS else frozenset())
                for preset in presets
                if preset is not None
            ]

        fitted = [(stage.id, keys) for stage, keys in keyed if keys is not None]
        for misfit in pipelines.check_fit(fitted, has, prompt, needs_of):
            stage = by_id[fitted[misfit.index][0]]
            path = self._at(stage)
            if misfit.code == "missing-key" and self._document.line_of(path) is None:
                path = ["prompt"] if "prompt" in misfit.message else ["preset"]
            self._once(path, misfit.code, misfit.message, misfit.hint)

    def _no_name(self, key: str, named: object) -> None:
        """Of a picture that only a stage takes, such as `prepare`, the kind has not looked at the name."""
        if all(problem.line != self._document.line_of([key]) for problem in self.problems):
            text = f"{key} = {short(named)}: the name of a file is accepted"
            self._problem([key], "bad-value", text, f'write {key} = "mug.png"')

    def _once(self, path: Sequence[str | int], code: str, message: str, hint: str) -> None:
        problem = Problem(code=code, message=message, hint=hint, line=self._document.line_of(path))
        if problem not in self.problems:
            self.problems.append(problem)

    def _problem(self, path: Sequence[str | int], code: str, message: str, hint: str) -> None:
        self.problems.append(Problem(code=code, message=message, hint=hint, line=self._document.line_of(path)))


def check_preset(preset: Preset) -> None:
    """Check the keys that a preset lays under a job.

    Raises:
        SettingsError: `bad-preset`, naming file and key.
    """
    if preset.kind not in KIND_KEYS:
        if preset.keys:
            file = preset.origins.get(f"keys.{next(iter(preset.keys))}", preset.name)
            raise SettingsError(
                "bad-preset", f"{file}: a preset of the kind {preset.kind} has no keys", "leave [keys] out"
            )
        return
    try:
        KIND_KEYS[preset.kind](**preset.keys)
    except ValidationError as error:
        item = error.errors()[0]
        key = cut(shown(".".join(str(part) for part in item["loc"])))
        file = preset.origins.get(f"keys.{key}", preset.name)
        text, hint = item["msg"], "docs/presets.md lists every key"
        if item["type"] == "extra_forbidden" and key in advice.ALL_KEYS:
            text = f"the kind {preset.kind} does not take it"
        elif item["type"] == "extra_forbidden":
            text, hint = "unknown key", advice.did_you_mean(key)
        raise SettingsError("bad-preset", f"{file}: keys.{key}: {text}", hint) from error
    for name in sorted(loras.named([preset.keys.get("loras")]) - preset.loras.keys()):
        message, hint = loras.none_of(name, preset.name, preset.loras)
        raise SettingsError("bad-preset", f"{preset.origins.get('keys.loras', preset.name)}: keys.{message}", hint)


def _works_on_a_picture(keyed: Sequence[tuple[SaidStage, StageKeys | None]]) -> bool:
    """Whether a stage works on the job's own picture before any makes one."""
    for _, keys in keyed:
        if keys is None or isinstance(keys, Generating):
            return False
        if "picture" in keys.needs:
            return True
    return False


def _notices(keys: CommonKeys) -> Iterator[str]:
    if (getattr(keys, "true_cfg", None) or 0) > 1:
        yield "true_cfg above 1 costs a second pass in each step"
