"""JobFile -> Plan: which files a job wants, and every choice made once they are there."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hotfolder import loras
from hotfolder.batch import STAGE_AXIS
from hotfolder.errors import JobError, Problem, Rejected
from hotfolder.jobfile import JobFile
from hotfolder.names import cut, shown
from hotfolder.plan import Axis, Item, MissingSource, Plan, PlannedStage, Source, UsedPreset
from hotfolder.presets import Preset
from hotfolder.settings import Settings
from hotfolder.stagekeys import Generating
from hotfolder.tomltext import Document

#: Of a batch, as many items are looked at for what is made otherwise than asked.
_LOOKED_AT: Final = 200
_MAX_NOTICES: Final = 20
#: Of the words that a preset does not know, as many are named.
_MAX_WORDS: Final = 8
_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A file that a job names, before it is taken."""

    #: "image", "mask" or "control"; "items"; or of a stage's asset "overlay.image".
    role: str
    #: As the job named it.
    name: str
    #: Of a plan or sidecar: where it lies, as a path below the workspace.
    place: str | None = None
    #: What it must hash to; None: anything.
    sha256: str | None = None
    #: Of "@mug", once it is known: the picture of the other job, as a path below the workspace.
    via: str | None = None

    @property
    def is_reference(self) -> bool:
        """Whether it names a finished picture of another job, and which one is not known yet; see `takes`."""
        return self.place is None and self.name.startswith("@")

    @property
    def is_of_job(self) -> bool:
        """Whether it is to be taken from another job, and from nowhere else."""
        return self.via is not None and self.via == self.place

    @property
    def is_asset(self) -> bool:
        """Whether it is a logo or font of a stage, which may lie in presets/assets/."""
        return "." in self.role

    @property
    def is_picture(self) -> bool:
        """Whether it must be a picture."""
        return self.role != "items" and not self.role.endswith(".font")


def wishes_of(job: JobFile) -> tuple[Wish, ...]:
    """Return the files that a job file names."""
    pictures = [Wish(role=role, name=name) for role, names in job.pictures.items() for name in names]
    assets = [Wish(role=role, name=name) for role, names in job.assets.items() for name in names]
    return (*pictures, *assets)


def make_plan(
    name: str, job: JobFile, sources: Sequence[Source], drawn_seed: int, missing: Sequence[MissingSource] = ()
) -> Plan:
    """Decide all that a job leaves open.

    Args:
        name: the job, such as "mug_take01".
        sources: one for each file the job names, but for those that are `missing`.
        drawn_seed: the seed if the job has none, 0 .. 2^32-1.
    """
    keys = job.keys
    plan = Plan(
        job=name,
        pipeline=job.pipeline,
        preset=job.preset.name if job.preset else None,
        seed=drawn_seed if keys.seed is None else keys.seed,
        seed_from="drawn" if keys.seed is None else "job",
        prompt_from=job.prompt_from,
        count=keys.count,
        priority=keys.priority,
        title=keys.title,
        project=keys.project,
        meta=dict(keys.meta),
        keys=dict(job.said),
        axes=tuple(Axis(key=axis.key, columns=axis.columns, values=axis.values) for axis in job.axes),
        stages=tuple(PlannedStage(stage=one.stage, id=one.id, keys=dict(one.keys)) for one in job.stages),
        presets={preset.name: UsedPreset.of(preset) for preset in job.presets.values()},
        sources=tuple(sources),
        missing=tuple(missing),
    )
    plan = with_loras(plan, job.presets)
    notices = [*job.notices, *_size_notices(plan), *_word_notices(plan, job.presets)]
    return plan.changed(notices=tuple(dict.fromkeys(notices))[:_MAX_NOTICES])


def with_loras(plan: Plan, presets: Mapping[str, Preset]) -> Plan:
    """Return a plan with the LoRAs that it names, each as its preset has it.

    Args:
        presets: those that the plan uses, as they are here.

    Raises:
        Rejected: `bad-value`: a preset has none of such a name.
    """
    named = _named_loras(plan)
    if not named:
        return plan
    used = {}
    for name, one in plan.presets.items():
        here = presets[name].loras if name in presets else {}
        found = {lora: here[lora] for lora in sorted(named) if lora in here} | (one.loras or {})
        used[name] = one.model_copy(update={"loras": found or None})
    plan = plan.changed(presets=used)
    for item, stage in _generating(plan):
        for lora in item.unknown_loras(stage):
            preset = item.preset_of(stage) or ""
            known = presets[preset].loras if preset in presets else plan.presets[preset].loras or {}
            message, hint = loras.none_of(lora, preset, known)
            raise Rejected([Problem(code="bad-value", message=message, hint=hint)])
    return plan


def _named_loras(plan: Plan) -> set[str]:
    """Return all LoRAs that a plan may switch on, whatever says so: the job, its presets, its stages or its axes."""
    texts = [plan.keys.get("loras"), *(used.keys.get("loras") for used in plan.presets.values())]
    texts += [stage.keys.get("loras") for stage in plan.stages]
    for axis in plan.axes:
        if any(key.rpartition(".")[2] == "loras" for key in axis.keys):
            rows = (axis.at(index) for index in range(len(axis.values)))
            texts += [value for row in rows for key, value in row.items() if key.rpartition(".")[2] == "loras"]
    return loras.named(texts)


def check_size(plan: Plan, limit: int, line: int | None = None) -> None:
    """Refuse the absurd.

    Raises:
        Rejected: the plan has more candidates than `limit`.
    """
    if plan.candidates > limit:
        each = f"of {len(plan.rows)} candidates " if len(plan.rows) > 1 else ""
        found = f"{plan.items} items {each}make {plan.candidates} candidates; at most {limit} are accepted"
        hint = "split it, or raise max_candidates in [batch] of hotfolder.toml"
        raise Rejected([Problem(code="bad-value", message=found, hint=hint, line=line)])


def published_dir(settings: Settings, to: str | None) -> Path | None:
    """Return the folder that `to` of a stage export means; None: none.

    Raises:
        JobError: `forbidden-path`: neither "processed" nor below an allowed root.
    """
    if to is None:
        return None
    if to == "processed":
        return settings.processed_dir
    path = Path(to)
    allowed = any(path.is_relative_to(root) for root in settings.inbox.allowed_roots)
    if path.is_absolute() and ".." not in path.parts and allowed:
        return path
    hint = '"processed" is, or a folder below an allowed_roots folder of hotfolder.toml'
    raise JobError("forbidden-path", f"to = {shown(to)!r} is not accepted", hint)


def check_places(plan: Plan, settings: Settings, document: Document) -> None:
    """Check where the finished pictures are to be put.

    Raises:
        Rejected: a folder that `to` may not name.
    """
    id_ = plan.stages[-1].id
    said = [plan.stages[-1].keys.get("to")]
    said += [axis.at(index).get(f"{STAGE_AXIS}{id_}.to") for axis in plan.axes for index in range(len(axis.values))]
    for to in dict.fromkeys(said):
        try:
            published_dir(settings, to)
        except JobError as error:
            line = document.line_of(["stage", id_, "to"]) or document.line_of(["stages", len(plan.stages) - 1, "to"])
            raise Rejected([Problem(code=error.code, message=error.message, hint=error.hint, line=line)]) from error


def _size_notices(plan: Plan) -> list[str]:
    """Say which sizes are made otherwise than asked."""
    notices: list[str] = []
    for item, stage in _generating(plan):
        item.generation(stage, notices)
        if len(notices) >= _MAX_NOTICES:
            break
    return notices


def _word_notices(plan: Plan, presets: Mapping[str, Preset]) -> list[str]:
    """Say which words a preset of few words was never taught."""
    if not any(preset.limits.words for preset in presets.values()):
        return []
    unknown: dict[str, dict[str, None]] = {}
    for item, stage in _generating(plan):
        preset = presets[item.preset_of(stage) or ""]
        if known := preset.limits.words:
            told = item.generation(stage)
            said = _WORD.findall(f"{told.prompt} {told.negative_prompt or ''}".lower())
            unknown.setdefault(preset.name, {}).update(dict.fromkeys(word for word in said if word not in known))
    return [_unknown_words(presets[name], list(words)) for name, words in unknown.items() if words]


def _unknown_words(preset: Preset, words: Sequence[str]) -> str:
    named = ", ".join(repr(cut(shown(word))) for word in words[:_MAX_WORDS])
    more = f" and {len(words) - _MAX_WORDS} more" if len(words) > _MAX_WORDS else ""
    instead = f"; preset {preset.limits.beyond} would draw what they say" if preset.limits.beyond else ""
    return f"{preset.name} was never taught {named}{more}: it draws what the other words say{instead}"


def _generating(plan: Plan) -> Iterator[tuple[Item, int]]:
    """Yield the stages that generate, of the first items that can be made."""
    for number in range(1, min(plan.items, _LOOKED_AT) + 1):
        item = plan.item(number)
        if item.missing() is None:
            for stage in range(1, len(plan.stages) + 1):
                if isinstance(item.keys(stage), Generating):
                    yield item, stage
