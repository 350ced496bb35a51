"""Going on with a job: what `.resume` may say, and what follows from it.

A job that ended goes on where it stopped; of one in review those candidates that somebody picked. Keys of stages that
are not done yet may be changed. Where something is to be done again that is done already, the next take begins with the
verified checkpoint of this one: nothing that was finished is ever changed.
"""

import difflib
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from hotfolder import (
    checkpoint,
    dropped,
    durable,
    foreign,
    jobfile,
    journal,
    names,
    planning,
    record,
    run,
    salvage,
    tomltext,
)
from hotfolder.errors import HotfolderError, JobError, Rejected, SettingsError
from hotfolder.job import SOURCES, Job
from hotfolder.journal import Event, State
from hotfolder.plan import Plan, PlannedStage, UsedPreset
from hotfolder.presets import Presets
from hotfolder.shop import Shop
from hotfolder.spool import RESUMABLE
from hotfolder.stagekeys import STAGE_KEYS
from hotfolder.table import Progressed, Table

#: Characters of what was found that an answer quotes.
_MAX_SHOWN: Final = 60
_KEYS: Final = ("picks", "from", "force", "stage")
#: Keys that make the table of a job what it is.
_FIXED: Final = frozenset({"count", "add", "enabled"})


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What `.resume` says."""

    picks: tuple[int, ...] | None = None
    #: Number or name of a stage.
    from_: int | str | None = None
    force: bool = False
    #: Stage -> the keys to change.
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether it only says: go on."""
        return self.picks is None and self.from_ is None and not self.stages


def read(path: Path) -> Wish:
    """Read `.resume`: empty, or TOML.

    Raises:
        HotfolderError: not TOML, or a key that cannot be done.
    """
    try:
        table = tomltext.parse(foreign.read(path, tomltext.MAX_JOB_BYTES)).table
    except PermissionError as error:
        raise HotfolderError("cannot-write", f"the file cannot be read: {error.strerror}") from error
    unknown = [names.shown(key)[:_MAX_SHOWN] for key in table if key not in _KEYS]
    if unknown:
        near = difflib.get_close_matches(unknown[0], _KEYS, n=1)
        hint = f"did you mean {near[0]}?" if near else ""
        raise HotfolderError("unknown-key", f"unknown key {unknown[0]}; accepted are {', '.join(_KEYS)}", hint)
    picks, from_, force, stages = (table.get(key) for key in _KEYS)
    if force is not None and not isinstance(force, bool):
        raise HotfolderError("bad-value", f"force = {_short(force)}: true or false is accepted")
    if picks is not None and not (
        isinstance(picks, list) and picks and all(isinstance(one, int) and not isinstance(one, bool) for one in picks)
    ):
        raise HotfolderError("bad-value", f"picks = {_short(picks)}: numbers of candidates are accepted, as in [1, 4]")
    if from_ is not None and (isinstance(from_, bool) or not isinstance(from_, int | str)):
        raise HotfolderError("bad-value", f"from = {_short(from_)}: the number or the name of a stage is accepted")
    if stages is not None and not (isinstance(stages, dict) and all(isinstance(one, dict) for one in stages.values())):
        raise HotfolderError("bad-value", "stage: tables are accepted, such as [stage.detect] and its keys below")
    return Wish(
        picks=tuple(dict.fromkeys(picks)) if picks is not None else None,
        from_=from_,
        force=bool(force),
        stages=stages or {},
    )


def may_go_on(ledger: journal.Ledger, wish: Wish, *, live: bool) -> bool:
    """Whether there is something to go on with."""
    if not live:
        # It has stopped, whatever the last line of its journal says.
        return ledger.state is not State.REJECTED and (ledger.state is not State.COMPLETED or wish.from_ is not None)
    again = wish.from_ is not None and ledger.state is State.COMPLETED
    return bool(ledger.held) or ledger.state in {*RESUMABLE, State.REVIEW} or again


def go_on(shop: Shop, presets: Presets, name: str, wish: Wish) -> Job:
    """Do what a `.resume` asks of a job; return the job that goes on, which may be a new take.

    The job is not in the line yet.

    Raises:
        HotfolderError: it cannot be done; nothing was changed.
        OSError: the disk does not take it.
    """
    job = shop.spool.live.get(name)
    if job is not None and not job.ledger.ended:
        return _go_on_live(shop, presets, job, wish)
    if wish.picks is not None:
        raise JobError("not-possible", "picks are for a job in review", "leave picks out")
    if wish.from_ is not None:
        found = _branch(shop, presets, name, wish)
        if found is not None:
            return found
    change = (lambda plan: _checked_change(shop, presets, name, plan, wish)) if wish.stages else None
    opened = shop.spool.reopen(name, force=wish.force, change=change)
    if opened is None:
        raise JobError("not-possible", "its folder cannot be read, or it has not ended")
    return opened


def _go_on_live(shop: Shop, presets: Presets, job: Job, wish: Wish) -> Job:
    """Go on with a job that is held, or in review."""
    spool, ledger = shop.spool, job.ledger
    waits = job.table is not None and job.table.is_idle and job.table.waits_for_a_person
    in_review = ledger.state is State.REVIEW or (bool(ledger.held) and waits)
    if wish.from_ is not None:
        raise JobError("not-possible", "from is for a job that has ended", f"cancel it first: {job.name}.cancel")
    if wish.picks is not None and not in_review:
        raise JobError("not-possible", "picks are for a job in review", "leave picks out")
    plan = spool.plan(job) if ledger.plan_sha256 else None
    chosen: list[tuple[int, int, Sequence[int]]] = []
    if in_review and (wish.picks is not None or not ledger.held):
        chosen = _chosen(job, wish.picks)
    if wish.stages:
        if plan is None or job.busy:
            raise JobError("not-possible", "its keys cannot be changed now", "wait until its cell has stopped")
        plan = _checked_change(shop, presets, job.name, plan, wish)
        spool.replanned(job, plan)
    if ledger.held:
        spool.released(job)
    if chosen:
        spool.picked(job, chosen, force=wish.force)
    if wish.stages and plan is not None:
        spool.lay_out_again(job, plan)
    else:
        for stage, item, kept in chosen:
            shop.line.chose(job, stage, item, kept)
    return job


def _chosen(job: Job, picks: tuple[int, ...] | None) -> list[tuple[int, int, Sequence[int]]]:
    """Say what picks mean: for each item that waits, which of its candidates go on.

    Raises:
        JobError: there are none, or one of them is not there to be picked.
    """
    waiting = list(job.table.waiting()) if job.table is not None else []
    there = sorted(number for _, _, numbers in waiting for number in numbers)
    listed = ", ".join(map(str, there[:_MAX_SHOWN]))
    if picks is None:
        raise JobError("missing-key", f"it waits for you to pick: write picks = [...], of {listed}", "see index.html")
    wrong = [number for number in picks if number not in there]
    if wrong:
        raise JobError("bad-value", f"picks: candidate {wrong[0]} is not there to be picked; there are {listed}")
    return [(stage, item, [number for number in picks if number in numbers]) for stage, item, numbers in waiting]


# --- other keys for what is still to be made ---


def _checked_change(shop: Shop, presets: Presets, name: str, plan: Plan, wish: Wish) -> Plan:
    """Lay the keys of a `.resume` over a plan, for stages that some candidate has still to go through.

    Raises:
        JobError: a stage is done already, or the keys do not fit.
    """
    job = shop.spool.live.get(name) or shop.spool.load_ended(name)
    if job is not None:
        ledger = job.ledger
        known = Progressed(cells=ledger.cells, done=ledger.done, chosen=ledger.chosen)
        table = Table(plan, known)
        at = [stage for one in range(1, plan.candidates + 1) if (stage := table.stage_of(one)) is not None]
        first = min(at, default=len(plan.stages) + 1)
        for name_of_stage in wish.stages:
            number = plan.number_of(name_of_stage)
            if number is not None and number < first:
                hint = f'add from = "{name_of_stage}" to make a new take from there'
                raise JobError("not-possible", f"stage {name_of_stage} is done already in every candidate", hint)
    return change_keys(plan, wish.stages, presets)


def change_keys(plan: Plan, stages: Mapping[str, Mapping[str, Any]], presets: Presets) -> Plan:
    """Return a plan with other keys for some stages, checked as a whole.

    Raises:
        JobError: there is no such stage, or its keys are wrong.
    """
    changed = list(plan.stages)
    for stage, keys in stages.items():
        number = plan.number_of(stage)
        if number is None:
            known = ", ".join(one.id for one in plan.stages)
            raise JobError("unknown-key", f"there is no stage {names.shown(stage)[:_MAX_SHOWN]}", f"there are {known}")
        planned = plan.stages[number - 1]
        cls = STAGE_KEYS[planned.stage]
        for key, value in keys.items():
            where = f"stage.{names.shown(stage)[:_MAX_SHOWN]}.{names.shown(key)[:_MAX_SHOWN]}"
            if key not in cls.model_fields:
                raise JobError("unknown-key", f"{where}: unknown key", f"it takes {', '.join(cls.model_fields)}")
            if key in _FIXED:
                raise JobError("not-possible", f"{where} cannot be changed on the way", "drop the job again")
            if key in cls.assets and plan.source(f"{planned.id}.{key}", str(value)) is None:
                raise JobError("not-possible", f"{where}: the job has no such file", "drop the job again")
        changed[number - 1] = PlannedStage(stage=planned.stage, id=planned.id, keys={**planned.keys, **keys})
    result = plan.changed(stages=tuple(changed))
    try:
        result = _with_presets(result, presets)
        problems = dropped.problems_of(result)
    except ValidationError as error:
        item = error.errors()[0]
        text = item["msg"].removeprefix("Value error, ")
        raise JobError("bad-value", f"{'.'.join(map(str, item['loc']))}: {text[:1].lower()}{text[1:]}") from error
    if problems:
        raise JobError(problems[0].code, problems[0].message, problems[0].hint)
    return result


def _with_presets(plan: Plan, presets: Presets) -> Plan:
    """Take up the presets that the changed keys name."""
    used, here = dict(plan.presets), {}
    item = plan.item(1)
    for number in range(1, len(plan.stages) + 1):
        name = item.preset_of(number)
        if name is not None and name not in used:
            here[name] = presets.get(name)
            jobfile.check_preset(here[name])
            used[name] = UsedPreset.of(here[name])
        elif name is not None:
            with suppress(SettingsError):  # it may have gone meanwhile: the plan has what it needs of it
                here[name] = presets.get(name)
    try:
        return planning.with_loras(plan.changed(presets=used), here)
    except Rejected as error:
        raise JobError(error.problems[0].code, error.problems[0].message, error.problems[0].hint) from error


# --- from a stage that is done ---


def _branch(shop: Shop, presets: Presets, name: str, wish: Wish) -> Job | None:
    """Make the next take from the checkpoint before a stage; None where no candidate has come to that stage yet.

    Raises:
        JobError: there is no such stage, or what would be taken over was changed.
    """
    job = shop.spool.load_ended(name)
    if job is None or not job.ledger.plan_sha256:
        raise JobError("not-possible", "it has no plan yet", "resume it without from")
    plan = shop.spool.plan(job)
    assert wish.from_ is not None  # noqa: S101 - the caller's condition
    number = plan.number_of(wish.from_)
    if number is None:
        known = ", ".join(f"{at} ({one.id})" for at, one in enumerate(plan.stages, 1))
        raise JobError("bad-value", f"from = {_short(wish.from_)}: there is no such stage", f"there are {known}")
    ledger = job.ledger
    reached = bool(ledger.done) or any(stage >= number for stages in ledger.cells.values() for stage in stages)
    reached = reached or any(stage >= number for stage, _ in ledger.chosen)
    if not reached:
        return None
    early = [stage for stage in wish.stages if (plan.number_of(stage) or number) < number]
    if early:
        raise JobError("not-possible", f"stage {early[0]} comes before {wish.from_}", f'write from = "{early[0]}"')
    changed = change_keys(plan, wish.stages, presets) if wish.stages else plan

    def fill(folder: Path) -> list[dict[str, Any]]:
        _copy_all(job.folder / SOURCES, folder / SOURCES)
        return list(_take_over(shop, job, plan, number, folder, force=wish.force or ledger.force))

    try:
        return shop.spool.branch(job.folder, changed, fill, force=wish.force)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError) as error:
        what = names.shown(str(getattr(error, "filename", None) or error))[:_MAX_SHOWN]
        hint = "resume from an earlier stage"
        raise JobError("changed-file", f"{what} is gone, or not as it was written", hint) from error


def _take_over(shop: Shop, job: Job, plan: Plan, number: int, folder: Path, *, force: bool) -> Sequence[dict[str, Any]]:
    """Take over what a job has made before a stage, each picture verified; return the lines that say so."""
    lines: list[dict[str, Any]] = []
    ledger = job.ledger
    for candidate, stages in sorted(ledger.cells.items()):
        for stage, kept in sorted(stages.items()):
            if stage < number:
                for _, file, sha256 in kept.files:
                    if file and not (folder / file).exists():
                        checkpoint.load(job.folder, file, sha256, force=force)
                        _copy(job.folder / file, folder / file)
                lines.append(journal.line_at(job.folder, kept.at))
        if candidate in ledger.done:
            lines += _from_finished(shop, job, plan, candidate=candidate, number=number, folder=folder)
    for candidate in sorted(ledger.done.keys() - ledger.cells.keys()):
        lines += _from_finished(shop, job, plan, candidate=candidate, number=number, folder=folder)
    chosen = [[stage, item, list(kept)] for (stage, item), kept in sorted(ledger.chosen.items()) if stage < number]
    if chosen:
        lines.append(journal.line(Event.CHOSEN, shop.clock.now(), chosen=chosen, scores={}))
    if (folder / checkpoint.WORK).is_dir():
        durable.sync_folder(folder / checkpoint.WORK)
    return lines


def _from_finished(
    shop: Shop, job: Job, plan: Plan, *, candidate: int, number: int, folder: Path
) -> Sequence[dict[str, Any]]:
    """Where the finished picture was the checkpoint of the stage before it too, take that."""
    last = len(plan.stages) - 1
    fused = last < number and last not in job.ledger.cells.get(candidate, {}) and plan.plain_end
    if not fused or last < plan.row_of(candidate).begins or plan.stages[last - 1].stage == "select":
        return []
    files = []
    for output in job.ledger.done[candidate]:
        checkpoint.load(job.folder, output.file, output.pixels_sha256, force=job.ledger.force)
        thing = f"picture:{output.variant}" if output.variant else "picture"
        file = checkpoint.name_of(candidate, last, plan.stages[last - 1].id, thing)
        _copy(job.folder / output.file, folder / file)
        files.append([thing, file, output.pixels_sha256])
    sidecar = record.load((job.folder / f"{job.ledger.done[candidate][0].file}.toml").read_bytes())
    cell = next((one for one in sidecar.stages if one.number == last), None)
    if cell is None:
        return []
    told = cell.model_dump(mode="json", exclude_defaults=True)
    return [
        journal.line(
            Event.CELL, shop.clock.now(), candidate=candidate, stage=last, files=files, boxes=[], seconds=cell.seconds,
            record=told,
        )
    ]  # fmt: skip


def _copy_all(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            _copy(path, target / path.name)
    if target.is_dir():
        durable.sync_folder(target)


def _copy(source: Path, target: Path) -> None:
    """Copy a file durably: a second name of the same would let an edit of one take change the other."""
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target, follow_symlinks=False)
    with target.open("rb") as copy:
        os.fsync(copy.fileno())


def _short(value: object) -> str:
    return names.shown(repr(value))[:_MAX_SHOWN]


def start(shop: Shop, job: Job, *, was_live: bool) -> None:
    """Put a job that goes on into the line, once what it will skip is verified by its hashes.

    Args:
        was_live: whether it was only held, or in review: cells of it may still be on their way to the disk.
    """
    if job.ledger.plan_sha256:
        if not was_live:
            salvage.adopt_finished(shop, job)
        if not job.busy and not salvage.check_checkpoint(shop, job):
            return
        shop.line.add(job)
        run.conclude(shop, job)
