"""Pipelines: straight lists of stages, and whether the stages of one fit together.

The shipped ones travel with the package; a workspace's own are laid over them by name.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from hotfolder import tomltext
from hotfolder.errors import JobError, SettingsError
from hotfolder.names import cut, shown
from hotfolder.presets import Presets, file_of, files_in
from hotfolder.stagekeys import STAGE_KEYS, Generate, Generating, StageKeys, Thing

#: What a job runs that names no pipeline.
DEFAULT: Final = "generate"
FOLDER: Final = "pipelines"
MAX_STAGES: Final = 64


@dataclass(frozen=True, kw_only=True)
class SaidStage:
    """One stage as a pipeline or a job lists it."""

    stage: str
    id: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A list of stages by a name."""

    name: str
    title: str
    stages: tuple[SaidStage, ...]
    #: The file that it was read from.
    file: Path


@dataclass(frozen=True, kw_only=True)
class Pipelines:
    """All pipelines that a workspace has. Files are read when asked for."""

    shipped: Path
    own: Path

    @classmethod
    def of(cls, presets: Presets) -> Self:
        """Those that lie beside the presets."""
        return cls(shipped=presets.shipped / FOLDER, own=presets.own / FOLDER)

    def names(self) -> list[str]:
        """Return the names of all pipelines, sorted."""
        return sorted(files_in(self.shipped) | files_in(self.own))

    def get(self, name: str) -> Pipeline:
        """Return the pipeline `name`.

        Raises:
            JobError: `unknown-pipeline`.
            SettingsError: `bad-pipeline`, naming the file.
        """
        file = file_of(name, self.own, self.shipped)
        if file is None:
            near = difflib.get_close_matches(name, self.names(), n=1)
            did = f"did you mean {near[0]!r}? " if near else ""
            raise JobError(
                "unknown-pipeline",
                f"there is no pipeline {cut(shown(name))!r}",
                f"{did}There are: {', '.join(self.names())}",
            )
        try:
            table = tomltext.load(file.read_bytes())
        except ValueError as error:
            raise SettingsError(
                "bad-pipeline", f"{file} is no TOML: {cut(shown(str(error)))}", "mend the file"
            ) from error
        except OSError as error:
            raise SettingsError("bad-pipeline", f"{file} cannot be read: {error.strerror}") from error
        unknown = sorted(table.keys() - {"title", "stages"})
        if unknown or not isinstance(table.get("title", ""), str):
            found = f"unknown key {cut(shown(unknown[0]))}" if unknown else "title is text"
            raise SettingsError("bad-pipeline", f"{file}: {found}", "a pipeline has title and [[stages]]")
        stages, problems = read_stages(table.get("stages"))
        if problems:
            path, message, hint = problems[0]
            where = ", ".join(
                f"stage {part + 1}" if isinstance(part, int) else part for part in path if part != "stages"
            )
            raise SettingsError("bad-pipeline", f"{file}: {where or 'stages'}: {message}", hint)
        return Pipeline(name=name, title=table.get("title", ""), stages=stages, file=file)


#: Where in the text, what is wrong, and what to do.
StageProblem = tuple[tuple[str | int, ...], str, str]


def read_stages(found: Any) -> tuple[tuple[SaidStage, ...], list[StageProblem]]:  # noqa: ANN401 - whatever TOML holds
    """Read a list `[[stages]]`; what its keys hold is not looked at yet."""
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        return (), [
            (("stages",), "a list of tables is accepted, one for each stage", '[[stages]], then stage = "crop"')
        ]
    if len(found) > MAX_STAGES:
        return (), [(("stages",), f"{len(found)} stages; at most {MAX_STAGES} are accepted", "")]
    stages: list[SaidStage] = []
    problems: list[StageProblem] = []
    for index, table in enumerate(found):
        said, problem = _read_stage(index, table, {stage.id for stage in stages})
        if problem:
            problems.append(problem)
        elif said is not None:
            stages.append(said)
    return tuple(stages), problems


def is_id(value: object) -> bool:
    """Whether a stage may be called so: it stands in names of files."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", value) is not None


def _read_stage(index: int, table: Mapping[str, Any], ids: set[str]) -> tuple[SaidStage | None, StageProblem | None]:
    at: tuple[str | int, ...] = ("stages", index)
    name = table.get("stage")
    if not isinstance(name, str) or name not in STAGE_KEYS:
        near = difflib.get_close_matches(str(name), STAGE_KEYS, n=1)
        did = f"did you mean {near[0]!r}? " if near else ""
        text = "stage is missing" if name is None else f"there is no stage {shown(str(name))[:60]!r}"
        return None, ((*at, "stage"), text, f"{did}There are: {', '.join(STAGE_KEYS)}")
    id_ = table.get("id", name)
    if not is_id(id_):
        return None, ((*at, "id"), f"id = {shown(repr(id_))[:60]}: letters, digits, - and _ are accepted", "")
    if id_ in ids:
        hint = f'give this one a name of its own: id = "{name}-2"'
        return None, ((*at, "id" if "id" in table else "stage"), f"two stages are called {id_!r}", hint)
    enabled = table.get("enabled", True)
    if not isinstance(enabled, bool):
        return None, ((*at, "enabled"), "enabled is true or false", "")
    keys = {key: value for key, value in table.items() if key not in {"stage", "id", "enabled"}}
    return SaidStage(stage=name, id=id_, keys=keys, enabled=enabled), None


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """Something that does not fit in a list of stages."""

    #: Index of the stage, from 0.
    index: int
    message: str
    hint: str = ""
    code: str = "bad-pipeline"
    #: What is missing, if that is it.
    thing: Thing | None = None


def check_fit(
    stages: Sequence[tuple[str, StageKeys]],
    has: frozenset[Thing],
    prompt: Callable[[Generating], bool],
    needs_of: Callable[[Generating], Sequence[tuple[str, str, frozenset[str]]]],
) -> Iterator[Misfit]:
    """Check that each stage finds what it needs.

    Args:
        stages: id and keys of each.
        has: what the job itself gives.
        prompt: whether a stage has a prompt.
        needs_of: for each preset that a stage may use: its name, its kind, and the keys that the kind needs.
    """
    have, made = set(has), False
    #: Thing -> the stage after which it was not true any more.
    lost: dict[Thing, str] = {}
    for index, (id_, keys) in enumerate(stages):
        if "variants" in have and not keys.takes_variants:
            hint = (
                "after variants come only resize, color, grayscale, overlay, cleanup, rotate, pad, upscale and export"
            )
            yield Misfit(index=index, message=f"{id_} cannot follow variants: it takes one picture", hint=hint)
        for thing in sorted(keys.needs - have)[:1]:
            message, hint = _lost(thing, lost[thing], id_) if thing in lost else _MISSING[thing]
            yield Misfit(index=index, message=f"{id_}: {message}", hint=hint)
        if isinstance(keys, Generating):
            for misfit in _check_generating(index, id_, keys, have, made=made, prompt=prompt, needs_of=needs_of):
                yield _said_better(misfit, lost, id_)
        if type(keys) is STAGE_KEYS["export"] and index < len(stages) - 1:
            yield Misfit(index=index, message=f"{id_} is the last stage, and others follow", hint="put it last")
        lost |= dict.fromkeys(have & keys.voids - keys.gives, id_)
        have -= keys.voids
        have |= keys.gives
        lost = {thing: stage for thing, stage in lost.items() if thing not in have}
        made = made or "picture" in keys.gives


def _check_generating(
    index: int,
    id_: str,
    keys: Generating,
    have: set[Thing],
    *,
    made: bool,
    prompt: Callable[[Generating], bool],
    needs_of: Callable[[Generating], Sequence[tuple[str, str, frozenset[str]]]],
) -> Iterator[Misfit]:
    for preset, kind, needs in needs_of(keys):
        works_over = not isinstance(keys, Generate)
        if works_over and kind != "text2img":
            hint = "choose a preset of the kind text2img"
            yield Misfit(index=index, message=f"{id_}: preset {preset!r} is of the kind {kind}", hint=hint)
            continue
        things: dict[str, Thing] = {"image": "picture", "mask": "mask", "control": "control"}
        for key in ("image", "mask", "control"):
            if key in needs and things[key] not in have:
                message = f"preset {preset!r} ({kind}) needs {key}"
                hint = f'add a line {key} = "..."' + _OR_A_STAGE.get(key, "")
                yield Misfit(index=index, message=message, hint=hint, code="missing-key", thing=things[key])
        if "prompt" in needs and not prompt(keys):
            message = f"preset {preset!r} ({kind}) needs prompt"
            yield Misfit(index=index, message=message, hint='add a line prompt = "..."', code="missing-key")
        if not needs and not prompt(keys) and "picture" not in have:
            message = "a prompt or an image is needed"
            yield Misfit(index=index, message=message, hint='add a line prompt = "..."', code="missing-key")
        if isinstance(keys, Generate) and kind == "text2img" and made and not (keys.add or keys.strength):
            hint = "set strength to start from it, add = true to keep it beside, or choose a preset that edits"
            yield Misfit(index=index, message=f"{id_} would throw away the picture that comes in", hint=hint)
        if isinstance(keys, Generate) and kind == "text2img" and keys.strength and "picture" not in have:
            yield Misfit(index=index, message=f"{id_}: strength needs a picture to start from", code="missing-key")


def _said_better(misfit: Misfit, lost: Mapping[Thing, str], id_: str) -> Misfit:
    """Where something is missing that was there, say what became of it."""
    if misfit.thing is None or misfit.thing not in lost:
        return misfit
    message, hint = _lost(misfit.thing, lost[misfit.thing], id_)
    return Misfit(index=misfit.index, message=f"{id_}: {message}", hint=hint)


def _lost(thing: Thing, stage: str, id_: str) -> tuple[str, str]:
    """Say that a thing was there, and which stage made it untrue."""
    what = _WORDS.get(thing, thing)
    return (
        f"{what} does not fit any more after {stage}, which changes the picture",
        f"put {stage} before it, or after {id_}",
    )


_WORDS: Final[Mapping[Thing, str]] = {
    "boxes": "what was found",
    "mask": "the mask",
    "control": "the control map",
}
_MISSING: Final[Mapping[Thing, tuple[str, str]]] = {
    "picture": ("there is no picture yet", 'put a stage generate before it, or name a picture: image = "..."'),
    "boxes": (
        "it works on what was found, and no stage before it finds anything",
        "put a stage detect before it, after whatever cuts, turns or resizes",
    ),
    "mask": ("there is no mask", 'name one: mask = "...", or put a stage pad before it'),
    "control": ("there is no control map", 'name one: control = "...", or put a stage prepare before it'),
    "variants": ("there are no variants", "put a stage variants before it"),
}
_OR_A_STAGE: Final = {
    "mask": ", or put a stage pad before it",
    "control": ", or a stage prepare with control before it",
}
