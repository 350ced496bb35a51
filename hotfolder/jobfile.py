"""How a job file is read: every problem at once, each at its line.

What may be written for each kind stands in `kindkeys`, for each stage in `stagekeys`; `jobtext` tells where it stands.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import ValidationError

from hotfolder import advice, batch, jobaxes, jobstages, loras, pipelines
from hotfolder.advice import MAX_LOOKED_AT
from hotfolder.batch import STAGE_AXIS, AxisSaid, Found
from hotfolder.errors import Problem, Rejected, SettingsError
from hotfolder.jobtext import MAX_WRONG_VALUES, JobText, Keyed
from hotfolder.kindkeys import KIND_KEYS, PICTURE_KEYS, CommonKeys, PictureWork
from hotfolder.lanes import NO_DEFAULTS, LaneDefaults
from hotfolder.names import MAX_SHOWN, cut, short, shown
from hotfolder.pipelines import SaidStage
from hotfolder.presets import Preset, Presets
from hotfolder.stagekeys import OF_THE_PRESET, STAGE_KEYS, Generating, StageKeys, Thing
from hotfolder.tomltext import Document

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
    text = JobText(document, lane, found)
    job = _Reader(text, presets, default_preset).read()
    if text.problems or job is None:
        raise Rejected(advice.first(text.problems, text.unlooked))
    return job


class _Reader:
    """Reads one job file: first its stages and axes, then by which presets, then the keys."""

    def __init__(self, text: JobText, presets: Presets, default_preset: str) -> None:
        self._text, self._presets, self._default_preset = text, presets, default_preset
        self._known: dict[str, Preset | None] = {}
        self._keyed: Keyed = ()
        #: By which the job's own keys are read; none where nothing generates.
        self._mains: list[Preset] = []

    def read(self) -> JobFile | None:
        text = self._text
        pipeline, stages = jobstages.read(text, self._presets)
        text.axes = jobaxes.read(text)
        self._keyed = jobstages.with_keys(text, stages)
        self._mains = self._find_mains()
        parsed = self._read_keys()
        helpers = [keys.helper for _, keys in self._keyed if keys is not None and keys.helper]
        for stage, keys in self._keyed:
            if keys is not None and keys.helper:
                self._check_helper(stage, keys, keys.helper)
            if isinstance(keys, Generating) and keys.preset:
                self._named(keys.preset, text.line_of(text.at(stage, "preset")), f"stage {stage.id}: ")
        jobaxes.check(text, [preset.kind for preset in self._mains], _classes(self._mains), self._keyed)
        self._check_loras()
        if stages and not text.problems:
            self._check_fit()
        if text.problems or parsed is None:
            return None
        said = {key: value for key, value in self._given().items() if key in _GENERATION_KEYS}
        if said.keys() & _SIZES and text.own.keys() & _SIZES:
            # A size that the job says goes before a lane's, however either says it.
            said = {key: value for key, value in said.items() if key not in _SIZES or key in text.own}
        used = [*(preset.name for preset in self._mains), *self._of_stages(), *helpers]
        used += text.values_of("preset", self._keyed)
        return JobFile(
            keys=parsed,
            preset=self._mains[0] if self._mains and self._uses_main() else None,
            pipeline=pipeline,
            stages=tuple(stage for stage, _ in self._keyed),
            axes=tuple(text.axes),
            presets={name: preset for name in dict.fromkeys(used) if (preset := self._preset(name)) is not None},
            said=said,
            globs=tuple(glob for glob in batch.globs_of(text.table.get("matrix")) if glob not in text.found.matches),
            items=text.table.get("items") if text.found.items is None else None,
            prompt_from=self._prompt_from(),
            notices=(*_notices(said), *self._unused()),
        )

    @property
    def _generating(self) -> list[tuple[SaidStage, Generating]]:
        return [(stage, keys) for stage, keys in self._keyed if isinstance(keys, Generating)]

    def _of_stages(self) -> list[str]:
        """Return the presets that stages name themselves."""
        return [keys.preset for _, keys in self._generating if keys.preset]

    def _uses_main(self) -> bool:
        """Whether some stage generates with the job's own preset."""
        return any(not keys.preset for _, keys in self._generating)

    def _prompt_from(self) -> Literal["job", "lane", "matrix", "list", "pipeline"] | None:
        for axis in self._text.axes:
            if "prompt" in axis.keys:
                return "list" if axis.columns else "matrix"
        if self._text.own.get("prompt"):
            return "job"
        if self._text.lane.keys.get("prompt"):
            return "lane"
        return "pipeline" if any(keys.prompt for _, keys in self._generating) else None

    def _unused(self) -> Iterator[str]:
        """Say which keys of the job do nothing: every stage that could take them says its own."""
        taking = [keys for _, keys in self._generating if not keys.preset]
        for key in sorted(self._text.own.keys() & OF_THE_PRESET):
            if taking and all(getattr(keys, key, None) is not None for keys in taking):
                yield f"{key} does nothing: each stage that would take it says its own"

    # --- presets ---

    def _find_mains(self) -> list[Preset]:
        """Find the presets by which the job's own keys are read.

        Where they cannot be had, or the list of stages, the keys are still checked: as those of text2img.
        """
        text, keyed = self._text, self._keyed
        generating = [keys for stage, keys in keyed if STAGE_KEYS[stage.stage].generates]
        if keyed and not generating:
            return []
        if keyed and not self._uses_main() and all(keys is not None for keys in generating):
            named_by = [(stage, keys.preset) for stage, keys in self._generating if keys.preset]
            lined = ((name, text.line_of(text.at(stage, "preset"))) for stage, name in named_by[:1])
            known = (self._preset(name, line) for name, line in lined)
            return [preset for preset in known if preset is not None and preset.kind in KIND_KEYS]
        line, where = None, ""
        named: Sequence[object] = text.values_of("preset")
        if named:
            line = text.line_of(["matrix", "preset"]) or text.line_of(["items"])
        elif "preset" in text.own:
            named, line = [text.own["preset"]], text.line_of(["preset"])
        elif "preset" in text.lane.keys:
            named, where = [text.lane.keys["preset"]], f"{text.lane.file}: "
        else:
            named, where = [self._default_preset], "default_preset of hotfolder.toml: "
        found = []
        for name in named:
            preset = self._named(name, line, where)
            if preset is not None:
                found.append(preset)
            if sum(one is None for one in self._known.values()) >= MAX_WRONG_VALUES:
                break
        return found

    def _named(self, name: object, line: int | None, where: str) -> Preset | None:
        if not isinstance(name, str) or len(name) > MAX_SHOWN:
            message = f"{where}preset = {short(name)}: the name of a preset in quotes is accepted"
            self._text.problems.append(Problem(code="bad-value", message=message, line=line))
            return None
        preset = self._preset(name, line, where)
        if preset is not None and preset.kind not in KIND_KEYS:
            message = f"{where}preset {name!r} is of the kind {preset.kind}: it helps a stage, and makes no picture"
            self._text.problems.append(Problem(code="wrong-kind", message=message, line=line))
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
                message = f"{where}{error.message}"
                self._text.problems.append(Problem(code=error.code, message=message, hint=error.hint, line=line))
        return self._known[name]

    def _check_helper(self, stage: SaidStage, keys: StageKeys, name: str) -> None:
        """Check the preset of a helper model."""
        key = "by" if "by" in stage.keys and stage.stage != "select" else "preset"
        line = self._text.line_of(self._text.at(stage, key))
        preset = self._preset(name, line)
        wanted = _HELPER_KINDS.get(type(keys).__name__, "") or getattr(keys, "control", "")
        if preset is not None and preset.kind != wanted:
            kinds = f"is of the kind {preset.kind}; one of the kind {wanted} is needed"
            message = f"stage {stage.id}: preset {name!r} {kinds}"
            self._text.problems.append(Problem(code="wrong-kind", message=message, line=line))

    # --- the job's own keys ---

    def _read_keys(self) -> CommonKeys | None:
        """Check the job's own keys by the class of each preset that it may use; return what the first makes of them."""
        text = self._text
        generates = not self._keyed or any(STAGE_KEYS[stage.stage].generates for stage, _ in self._keyed)
        unknown_preset = generates and not self._mains
        first: CommonKeys | None = None
        unread: list[Preset | None] = [*self._mains] or [None]
        for preset in unread:
            cls = KIND_KEYS[preset.kind] if preset is not None else PictureWork
            if preset is None and generates:
                cls = KIND_KEYS["text2img"]
            values = self._values_under(preset, cls)
            if "image" not in cls.model_fields and self._works_on_a_picture():
                values.pop("image", None)  # not for the model, but for a stage before it
            try:
                parsed = cls(**values)
                first = first or parsed
            except ValidationError as error:
                found = error.errors()
                text.unlooked = max(text.unlooked, len(found) - MAX_LOOKED_AT)
                for item in found[:MAX_LOOKED_AT]:
                    if unknown_preset and advice.is_of_some_kind(item):
                        continue
                    problem = advice.problem_of(item, text.document, preset, text.lane.keys, text.lane.file, cls=cls)
                    if problem not in text.problems:
                        text.problems.append(problem)
            if preset is not None:
                self._check_together(values)
        return first

    def _values_under(self, preset: Preset | None, cls: type[CommonKeys]) -> dict[str, Any]:
        # The preset's size is for jobs that neither say one nor have a picture: the plan decides that.
        under = {key: value for key, value in (preset.keys if preset else {}).items() if key not in {"width", "height"}}
        values = {key: value for key, value in {**under, **self._text.lane.keys}.items() if key in cls.model_fields}
        if self._text.own.keys() & _SIZES:
            values = {key: value for key, value in values.items() if key not in _SIZES}
        values |= self._text.own
        values.pop("preset", None)
        return values

    def _given(self) -> dict[str, Any]:
        """Return the job's keys, above those of the lane that some preset of the job takes, or a stage before it."""
        others = [self._preset(name) for name in (*self._of_stages(), *self._text.values_of("preset", self._keyed))]
        used = [*self._mains, *(preset for preset in others if preset is not None and preset.kind in KIND_KEYS)]
        taken = {key for cls in _classes(used) for key in cls.model_fields}
        if self._works_on_a_picture():
            taken.add("image")
        return {**{key: value for key, value in self._text.lane.keys.items() if key in taken}, **self._text.own}

    def _works_on_a_picture(self) -> bool:
        """Whether a stage works on the job's own picture before any makes one."""
        for _, keys in self._keyed:
            if keys is None or isinstance(keys, Generating):
                return False
            if "picture" in keys.needs:
                return True
        return False

    def _check_together(self, values: Mapping[str, Any]) -> None:
        """Check what no single key can tell."""
        text = self._text
        cfg = values.get("true_cfg")
        steered = (isinstance(cfg, (int, float)) and cfg > 1) or "true_cfg" in text.varied
        if values.get("negative_prompt") and not steered:
            hint = "add true_cfg = 4.0, say; each step then takes a second pass"
            text.once(["negative_prompt"], "missing-key", "negative_prompt needs true_cfg above 1", hint)
        waits = bool(text.table.get("items") and text.found.items is None) or bool(
            batch.globs_of(text.table.get("matrix"))
        )
        if "strength" in text.own and not (values.get("image") or "image" in text.varied or waits):
            hint = 'add a line image = "..."'
            text.once(["strength"], "missing-key", "strength needs an image to start from", hint)
        if "aspect" in text.own and (text.own.keys() & {"width", "height"}):
            text.once(["aspect"], "bad-value", "aspect and width or height exclude each other", "leave one out")

    def _check_loras(self) -> None:
        """Check that each preset has the LoRAs that it may be asked to switch on, at the line that names them.

        Where presets differ from item to item, what belongs together is known of the whole plan only.
        """
        text = self._text
        if any(key.rpartition(".")[2] == "preset" for key in text.varied):
            return
        of_stage = {
            stage.id: self._mains if not keys.preset else [preset] if (preset := self._preset(keys.preset)) else []
            for stage, keys in self._generating
        }
        own, where = text.own.get("loras"), ""
        if own is None:
            own, where = text.lane.keys.get("loras"), f"{text.lane.file}: "
        asked: list[tuple[Sequence[str | int], object, Sequence[Preset], str]] = []
        if "loras" not in text.varied:
            asked.append((["loras"], own, self._mains, where))
        asked += [(text.at(stage, "loras"), keys.loras, of_stage[stage.id], "") for stage, keys in self._generating]
        for axis in text.axes:
            for key in axis.keys:
                of, _, name = key.removeprefix(STAGE_AXIS).rpartition(".")
                if name == "loras":
                    presets: Sequence[Preset] = of_stage.get(of, []) if of else self._mains
                    at = text.axis_path(axis, key)
                    asked += [(at, value, presets, "") for value in text.values_of(key, axes=[axis])]
        for path, said, presets, where in asked:
            for preset in presets:
                for name in sorted(loras.named([said]) - preset.loras.keys()):
                    message, hint = loras.none_of(name, preset.name, preset.loras)
                    text.once(path, "bad-value", f"{where}{message}", hint)

    def _check_fit(self) -> None:
        """Check that each stage finds what it needs."""
        text, values = self._text, self._given()
        for key in PICTURE_KEYS:
            if (named := values.get(key)) is not None and not isinstance(named, str):
                self._no_name(key, named)
        varied = set(text.varied)
        if text.table.get("items") and text.found.items is None:
            varied |= {"prompt", "image", "mask", "control"}  # whatever the list will say
        varied |= {key for key, value in (text.table.get("matrix") or {}).items() if batch.is_glob(value)}
        things: dict[str, Thing] = {"image": "picture", "mask": "mask", "control": "control"}
        has = frozenset(things[key] for key in PICTURE_KEYS if values.get(key) or key in varied)
        by_id = {stage.id: stage for stage, _ in self._keyed}

        def prompt(keys: Generating) -> bool:
            return bool(keys.prompt or (keys.prompt is None and (values.get("prompt") or "prompt" in varied)))

        def needs_of(keys: Generating) -> Sequence[tuple[str, str, frozenset[str]]]:
            presets = [self._preset(keys.preset)] if keys.preset else self._mains
            return [
                (preset.name, preset.kind, KIND_KEYS[preset.kind].needs if preset.kind in KIND_KEYS else frozenset())
                for preset in presets
                if preset is not None
            ]

        fitted = [(stage.id, keys) for stage, keys in self._keyed if keys is not None]
        for misfit in pipelines.check_fit(fitted, has, prompt, needs_of):
            stage = by_id[fitted[misfit.index][0]]
            path = text.at(stage)
            if misfit.code == "missing-key" and text.line_of(path) is None:
                path = ["prompt"] if "prompt" in misfit.message else ["preset"]
            text.once(path, misfit.code, misfit.message, misfit.hint)

    def _no_name(self, key: str, named: object) -> None:
        """Of a picture that only a stage takes, such as `prepare`, the kind has not looked at the name."""
        if all(problem.line != self._text.line_of([key]) for problem in self._text.problems):
            message = f"{key} = {short(named)}: the name of a file is accepted"
            self._text.problem([key], "bad-value", message, f'write {key} = "mug.png"')


def _classes(presets: Sequence[Preset]) -> list[type[CommonKeys]]:
    return list(dict.fromkeys(KIND_KEYS[preset.kind] for preset in presets)) or [PictureWork]


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


def _notices(said: Mapping[str, Any]) -> Iterator[str]:
    """Tell what keys do that nobody may have meant. Args: said: by a job or its lane: what a preset says is known."""
    if said.get("true_cfg", 0) > 1:
        yield "true_cfg above 1 costs a second pass in each step"
