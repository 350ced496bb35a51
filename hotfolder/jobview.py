"""What the pages of a job show, told from its plan, its ledger and its table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from hotfolder import cards, cells, grid, journal, logs, parts, status, tomltext
from hotfolder.batch import STAGE_AXIS
from hotfolder.cards import ShownCandidate, ShownPicture, ShownStage
from hotfolder.clock import Moment
from hotfolder.grid import Head, Layout, ShownAxis
from hotfolder.job import JOB_FILE, PLAN_FILE, Job
from hotfolder.journal import Failure, Ledger, State
from hotfolder.kindkeys import PICTURE_KEYS
from hotfolder.parts import Reason, ShownProgress
from hotfolder.plan import Axis, Generation, Plan
from hotfolder.sheet import JobSheet, Review, ShownSource
from hotfolder.stagekeys import STAGE_KEYS, Generating
from hotfolder.status import Progress

_FILES: Final = (JOB_FILE, PLAN_FILE, status.FILE_NAME, journal.FILE_NAME, logs.FILE_NAME)
#: A pipeline of just generate and export needs no stages named.
_PLAIN: Final = 2
#: Keys whose values can be counted by adding an s; of others they are called values.
_COUNTED: Final = frozenset({"prompt", "negative_prompt", "preset", "seed", "aspect", *PICTURE_KEYS})


def sheet_of(job: Job, plan: Plan | None, now: Moment) -> JobSheet:
    """Return what the pages of a job show; its candidates are looked at page by page only."""
    ledger = job.ledger
    common = JobSheet(
        job=job.name,
        state=ledger.state.value,
        updated_at=now,
        queued_at=ledger.queued_at,
        started_at=ledger.started_at,
        finished_at=ledger.finished_at,
        attempt=ledger.attempt,
        progress=progress_of(job.progress),
        errors=_errors(ledger),
        notices=list(dict.fromkeys(ledger.notices)),
        todo=_todo(job),
        files=[name for name in _FILES if (job.folder / name).exists()],
    )
    if plan is None:
        return common
    first = _first_generation(plan)
    varying = {key for axis in plan.axes if len(axis.values) > 1 for key in axis.keys}
    presets = _presets(plan, varying)
    kinds = {plan.presets[name].kind for name in presets}
    like = plan.item(1).source("image")
    width, height = (like.width or 1, like.height or 1) if like is not None else (1, 1)
    if first is not None and first.width and first.height:
        width, height = first.width, first.height
    view = JobView(job=job, plan=plan)
    return JobSheet(
        **vars(common)
        | {
            "title": plan.title,
            "project": plan.project,
            "preset": ", ".join(presets) or None,
            "kind": kinds.pop() if len(kinds) == 1 else None,
            "prompt": "" if "prompt" in varying else plan.item(1).prompt,
            "width": width,
            "height": height,
            "batch": " x ".join(_counted(axis) for axis in plan.axes if len(axis.values) > 1),
            "settings": _settings(plan, presets, first, varying),
            "sources": [
                ShownSource(role=one.role, name=one.name, file=_in_job(one.file))
                for one in plan.sources
                if one.width and one.role not in varying
            ],
            "layout": layout_of(plan),
            "candidate": view.candidate,
            "review": view.review(),
            "failures": view.failures(),
            "done": len(ledger.done),
            "finished_files": sum(map(len, ledger.done.values())),
            "failed": sum(number > 0 for number in ledger.failed),
            "left_out": view.left_out,
        }
    )


def layout_of(plan: Plan) -> Layout:
    """Return where the candidates of a plan stand."""
    return grid.lay_out(
        [_axis(plan, axis) for axis in plan.axes],
        per_item=len(plan.rows),
        candidates=plan.candidates,
        pictures_each=len(cells.variants_of(plan, 1)) if plan.candidates else 1,
    )


def progress_of(progress: Progress | None) -> ShownProgress | None:
    """Return how far a job is, in words."""
    if progress is None:
        return None
    steps = f" {progress.step}/{progress.steps}" if progress.steps else ""
    where = f", stage {progress.stage_index} of {progress.stages} ({progress.stage})"
    text = f"candidate {progress.candidate}{where if progress.stages > _PLAIN else ''}: {progress.phase}{steps}"
    return ShownProgress(text=text, fraction=progress.fraction, seconds_left=progress.seconds_left)


@dataclass(frozen=True, kw_only=True)
class JobView:
    """The candidates of one job, as they are now. Whoever makes it holds the job's lock while it is used."""

    job: Job
    plan: Plan

    @cached_property
    def _under_way(self) -> set[int]:
        return {place.candidate for place in self.job.table.in_flight} if self.job.table is not None else set()

    @cached_property
    def waiting(self) -> dict[int, int]:
        """Candidate -> the stage at which it waits to be picked."""
        if self.job.table is None or self.job.ledger.ended:
            return {}
        return {
            number: stage
            for stage, item, numbers in self.job.table.waiting()
            if self.plan.item(item).lane(stage) == "person"
            for number in numbers
        }

    @cached_property
    def _selects(self) -> list[int]:
        return [number for number, stage in enumerate(self.plan.stages, 1) if stage.stage == "select"]

    @cached_property
    def _generating(self) -> list[int]:
        """The stages that make pictures with a model."""
        return _generating(self.plan)

    @property
    def left_out(self) -> int:
        """How many candidates were not chosen."""
        if not self.job.ledger.chosen:
            return 0
        return sum(self._left_out_at(number) is not None for number in range(1, self.plan.candidates + 1))

    def mark(self, number: int) -> tuple[object, ...]:
        """Return what tells whether a candidate must be shown anew; cheap."""
        ledger, table = self.job.ledger, self.job.table
        left_out = self._left_out_at(number) if ledger.chosen else None
        if number in ledger.done:
            return ("done", ledger.done[number][0].sha256)
        if number in ledger.failed:
            return ("failed", hash(ledger.failed[number]))
        if left_out is not None:
            return ("left out", left_out)
        stage = table.stage_of(number) if table is not None else None
        return (ledger.ended, stage, number in self._under_way, number in self.waiting and ledger.state)

    def is_under_way(self, number: int) -> bool:
        """Whether a cell of the candidate is being made."""
        return number in self._under_way

    def candidate(self, number: int) -> ShownCandidate:
        """Return a candidate as it is shown."""
        plan, ledger = self.plan, self.job.ledger
        found, failure = ledger.done.get(number), ledger.failed.get(number)
        common: dict[str, Any] = {"number": number, "facts": self._facts(number), "stages": self._stages(number)}
        if self._generating:
            common["seed"] = plan.seed_of(number)
        if found is not None:
            return ShownCandidate(
                **common,
                state=cards.DONE,
                pictures=[ShownPicture(file=one.file, variant=one.variant) for one in found],
                seconds=sum(stage.seconds or 0.0 for stage in common["stages"]),
                notices=self._notices_of(found[0].file),
            )
        if failure is not None:
            before = self._pictures_before(number, failure.stage_index)
            return ShownCandidate(**common, state="failed", pictures=before, failure=reason_of(failure))
        left_out = self._left_out_at(number)
        if left_out is not None:
            where = f"left out at {self._stage(left_out)}"
            before = self._pictures_before(number, left_out)
            return ShownCandidate(**common, state=cards.LEFT_OUT, pictures=before, where=where)
        if number in self.waiting:
            before = self._pictures_before(number, self.waiting[number])
            return ShownCandidate(**common, state=cards.PICK, pictures=before)
        state = "running" if number in self._under_way else "cancelled" if ledger.ended else "queued"
        at = self.job.table.stage_of(number) if self.job.table is not None else None
        where = f"at {self._stage(at)}" if at is not None and len(plan.stages) > _PLAIN and not ledger.ended else ""
        return ShownCandidate(**common, state=state, where=where)

    def review(self) -> Review | None:
        """Return what a person is asked; None where nothing waits for one."""
        if self.job.ledger.state is not State.REVIEW or self.job.table is None or not self.waiting:
            return None
        groups = [
            (numbers, int(getattr(self.plan.item(item).keys(stage), "keep", 1)))
            for stage, item, numbers in self.job.table.waiting()
        ]
        keeps = {keep for _, keep in groups}
        return Review(
            waiting=sorted(self.waiting),
            example=parts.picks(groups),
            keep=keeps.pop() if len(keeps) == 1 else 0,
            items=len(groups),
        )

    def failures(self) -> list[tuple[Reason, list[int]]]:
        """Return why candidates failed: each reason once, with those that it struck."""
        struck: dict[Reason, list[int]] = {}
        for number in sorted(self.job.ledger.failed):
            if number:
                struck.setdefault(reason_of(self.job.ledger.failed[number]), []).append(number)
        return list(struck.items())

    # --- inside ---

    def _stage(self, number: int) -> str:
        return f"stage {number} ({self.plan.stages[number - 1].id})"

    def _left_out_at(self, number: int) -> int | None:
        """Return the stage at which a candidate was not chosen, or the one that it was to begin with."""
        plan, ledger = self.plan, self.job.ledger
        if not ledger.chosen or number in ledger.done or number in ledger.failed:
            return None
        row, item = plan.row_of(number), plan.item_of(number)
        for stage in self._selects:
            kept = ledger.chosen.get((stage, item))
            if kept is not None and row.begins < stage and number not in kept:
                return stage
        parent = plan.parent_of(number)
        return self._left_out_at(parent) if parent is not None and number not in ledger.cells else None

    def _pictures_before(self, number: int, stage: int | None) -> list[ShownPicture]:
        """Return the picture as a candidate brought it to a stage: one of work/, or the job's own."""
        if stage is None:
            return []
        file = status.picture_before(self.job.ledger, self.plan, number, stage)
        if not file:
            own = self.plan.item(self.plan.item_of(number)).source("image")
            file = _in_job(own.file) if own is not None else ""
        return [ShownPicture(file=file)] if file else []

    def _facts(self, number: int) -> list[tuple[str, str]]:
        item = self.plan.item(self.plan.item_of(number))
        facts: dict[str, str] = {}
        path = [cell for cell in self.plan.path_of(number) if cell[1] in self._generating]
        if path:
            # The stage at which it became a picture of its own; what came before was its parent's.
            stage = next((stage for candidate, stage in path if candidate == number), path[0][1])
            facts["prompt"] = str(item.own(stage).get("prompt") or item.prompt)
            facts["preset"] = ", ".join(dict.fromkeys(item.preset_of(of) or "" for _, of in path))
        for key, value in item.values.items():
            if key != "seed":
                facts.setdefault(_shown_key(key), _said(value))
        return [(key, value) for key, value in facts.items() if value]

    def _stages(self, number: int) -> list[ShownStage]:
        """Return the stages that a candidate went through, its parents' too, with how long each took."""
        ledger, plan = self.job.ledger, self.plan
        outputs, last = ledger.done.get(number, ()), len(plan.stages)
        found = []
        for candidate, stage in plan.path_of(number):
            kept = ledger.cells.get(candidate, {}).get(stage)
            seconds = None if kept is None else kept.seconds
            if outputs and kept is None and stage == last:
                seconds = sum(output.save_seconds for output in outputs)
            elif outputs and kept is None and stage == last - 1 and stage not in self._selects:
                seconds = outputs[0].seconds  # the last two stages were one write
            elif kept is None and not (outputs and stage in self._selects):
                continue
            found.append(ShownStage(number=stage, name=plan.stages[stage - 1].id, seconds=seconds))
        return found

    def _notices_of(self, file: str) -> tuple[str, ...]:
        """Return what a finished picture says was done otherwise than asked; most jobs have nothing to look for."""
        if set(self.job.ledger.notices) <= set(self.plan.notices):
            return self.plan.notices
        try:
            data = (self.job.folder / f"{file}.toml").read_bytes()
            return tuple(one["text"] for one in tomltext.load(data).get("notices", ()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return ()


def _axis(plan: Plan, axis: Axis) -> ShownAxis:
    return ShownAxis(
        key="item" if axis.columns else _shown_key(axis.key),
        size=len(axis.values),
        head=_heads(plan, axis),
        is_list=bool(axis.columns),
    )


def _heads(plan: Plan, axis: Axis) -> Callable[[int], Head]:
    def head(index: int) -> Head:
        values: Mapping[str, Any] = axis.at(index)
        files = [
            _in_job(source.file)
            for key, value in values.items()
            if key in PICTURE_KEYS and (source := plan.source(key, str(value))) is not None
        ]
        facts = [(_shown_key(key), _said(value)) for key, value in values.items()]
        return Head(facts=facts or [("item", str(index + 1))], file=files[0] if files else None)

    return head


def _counted(axis: Axis) -> str:
    """Return such as "2 presets" or "3 values of steps"."""
    many = len(axis.values)
    if axis.columns:
        return f"{many} items"
    return f"{many} {axis.key}s" if axis.key in _COUNTED else f"{many} values of {_shown_key(axis.key)}"


def _shown_key(key: str) -> str:
    return key.removeprefix(STAGE_AXIS)


def _said(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(_said, value)) if isinstance(value, (list, tuple)) else str(value)


def _in_job(file: str) -> str:
    """Return the path of a source relative to the job's folder; a plan has it below the workspace."""
    return "/".join(Path(file).parts[2:])


def _todo(job: Job) -> str:
    """Say what somebody can do about a job that ended without all its pictures."""
    lane = f"{job.ledger.origin.lane}/" if job.ledger.origin and job.ledger.origin.lane else ""
    match job.ledger.state:
        case State.REJECTED:
            return f"Mend jobs_inbox/{lane}{job.stem}.rejected.toml, then rename it to {job.stem}.toml."
        case State.FAILED | State.PARTIAL:
            return f"When that is mended, drop {job.name}.resume into jobs_inbox/ to make what is missing."
        case _:
            return ""


def _generating(plan: Plan) -> list[int]:
    return [number for number, stage in enumerate(plan.stages, 1) if issubclass(STAGE_KEYS[stage.stage], Generating)]


def _first_generation(plan: Plan) -> Generation | None:
    """Return what the first stage that generates is told for the first item; None where none does."""
    return next((plan.item(1).generation(stage) for stage in _generating(plan)), None)


def _presets(plan: Plan, varying: set[str]) -> list[str]:
    """Return the presets that make the pictures, in the order of the stages; not those that an axis names."""
    found: dict[str, None] = {}
    for stage in _generating(plan):
        own = plan.stages[stage - 1].keys.get("preset")
        name = plan.item(1).preset_of(stage)
        axis = f"{STAGE_AXIS}{plan.stages[stage - 1].id}.preset"
        if name is not None and axis not in varying and (own or "preset" not in varying):
            found[name] = None
    return list(found)


def _settings(plan: Plan, presets: Sequence[str], first: Generation | None, varying: set[str]) -> dict[str, str]:
    """Return the settings that hold for all candidates; where stages differ in one, it is said of each."""
    repos = dict.fromkeys(plan.presets[name].model.repo for name in presets)
    shown: dict[str, object] = {
        "pipeline": plan.pipeline,
        "preset": ", ".join(presets) or None,
        "model": ", ".join(repos) or None,
    }
    if first is not None:
        sized = first.width and first.height and not varying & {"width", "height", "aspect", "image", "control"}
        shown["size"] = f"{first.width} x {first.height}" if sized else None
        stages = _generating(plan)
        told = {stage: plan.item(1).generation(stage) for stage in stages}
        for key in [key for key in Generation.model_fields if key not in {"prompt", "width", "height", "takes"}]:
            values = {
                stage: value
                for stage, one in told.items()
                if (value := getattr(one, key)) is not None
                and f"{STAGE_AXIS}{plan.stages[stage - 1].id}.{key}" not in varying
            }
            if len(values) == len(stages) and len(set(values.values())) == 1:
                shown[key] = values[stages[0]]
            elif values:
                shown[key] = ", ".join(f"{value} ({plan.stages[stage - 1].id})" for stage, value in values.items())
    return {key: str(value) for key, value in shown.items() if value is not None and key not in varying}


def _errors(ledger: Ledger) -> list[Reason]:
    """What is wrong with the job as a whole; failures of single candidates stand with them."""
    if ledger.problems:
        return [
            Reason(code=one["code"], message=one["message"], hint=one.get("hint", ""), line=one.get("line"))
            for one in ledger.problems
        ]
    return [reason_of(ledger.error)] if ledger.error is not None and ledger.error.candidate is None else []


def reason_of(failure: Failure) -> Reason:
    """Return why something failed, as it is shown."""
    stage = f"stage {failure.stage_index} ({failure.stage})" if failure.stage and failure.stage_index else ""
    return Reason(code=failure.code, message=failure.message, hint=failure.hint, stage=stage)
