"""What a cell is given, and how what it made is put on disk: sources, checkpoints, finished pictures."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from hotfolder import checkpoint, durable, journal, outputs, record, sources
from hotfolder.clock import Moment
from hotfolder.encoding import Encoding
from hotfolder.engine import Engine, Tick
from hotfolder.job import SOURCES, Job
from hotfolder.journal import Event, Kept, Output
from hotfolder.outputs import Written
from hotfolder.plan import Plan, UsedPreset
from hotfolder.planning import published_dir
from hotfolder.record import CellRecord, pixels_sha256
from hotfolder.settings import Settings
from hotfolder.stagekeys import Export, Generating
from hotfolder.stages import STAGES, Call, Outcome, UsedModel, Work
from hotfolder.table import Place

#: Candidates whose last pictures are kept in memory for the next cell; the others are read from work/.
_KEPT: Final = 4
_ROLE_OF_THING: Final = {"picture": "image", "mask": "mask", "control": "control"}


class Handoff:
    """The pictures that cells have just made, so that the next cell need not read them. Used by several threads."""

    def __init__(self) -> None:
        self._works: OrderedDict[tuple[Path, int, int], Work] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, folder: Path, candidate: int, stage: int, work: Work) -> None:
        """Keep what a cell gave, which is on disk just so."""
        with self._lock:
            self._works[folder, candidate, stage] = work
            while len(self._works) > _KEPT:
                self._works.popitem(last=False)

    def get(self, folder: Path, candidate: int, stage: int) -> Work | None:
        """Return what a cell gave, if it is still kept."""
        with self._lock:
            return self._works.get((folder, candidate, stage))

    def forget(self, folder: Path) -> None:
        """Let go of a job's pictures."""
        with self._lock:
            for key in [key for key in self._works if key[0] == folder]:
                del self._works[key]


def before(plan: Plan, place: Place, cells: Mapping[int, Mapping[int, Kept]]) -> tuple[int, int] | None:
    """Return (candidate, stage) of the cell whose pictures a cell goes on with; None: the job's own sources.

    Stages that only choose hand on nothing of their own.
    """
    found = None
    for candidate, stage in plan.path_of(place.candidate):
        if stage >= place.stage:
            break
        if plan.stages[stage - 1].stage != "select" and stage in cells.get(candidate, {}):
            found = (candidate, stage)
    return found


def load(job: Job, plan: Plan, place: Place, handoff: Handoff) -> Work:
    """Load what a cell goes on with.

    Raises:
        JobError: `changed-file` or `bad-picture`.
    """
    ledger = job.ledger
    item = plan.item(plan.item_of(place.candidate))
    last = before(plan, place, ledger.cells)
    if last is not None:
        kept = handoff.get(job.folder, *last)
        if kept is not None:
            return kept
        found = ledger.cells[last[0]][last[1]]
        wanted = {_ROLE_OF_THING[thing] for thing, file, _ in found.files if not file}
        own = {role: source for role, source in item.sources().items() if role in wanted}
        return checkpoint.read(job.folder, found, sources.load(job.folder, own, force=ledger.force), force=ledger.force)
    pictures = sources.load(job.folder, item.sources(), force=ledger.force)
    return Work(
        pictures={"": pictures["image"]} if "image" in pictures else {},
        mask=pictures.get("mask"),
        control=pictures.get("control"),
    )


def call_for(job: Job, plan: Plan, place: Place, engine: Engine, tick: Tick) -> Call:
    """Return all that a stage is told.

    Raises:
        JobError: `changed-file`: an asset.
    """
    item = plan.item(plan.item_of(place.candidate))
    keys = item.keys(place.stage)
    name = item.preset_of(place.stage)
    used = plan.presets[name] if name is not None else None
    assets = item.assets(place.stage)
    for source in assets.values():
        sources.check_unchanged(job.folder, source, force=job.ledger.force)
    return Call(
        keys=keys,
        seed=plan.seed_of(place.candidate, place.stage),
        prompt=item.prompt,
        engine=engine,
        tick=tick,
        use=_use(name, used) if name is not None and used is not None else None,
        generation=item.generation(place.stage) if isinstance(keys, Generating) else None,
        assets={key: job.folder / SOURCES / PurePosixPath(source.file).name for key, source in assets.items()},
    )


def _use(preset: str, used: UsedPreset) -> UsedModel:
    sizes, loras = used.sizes or (), used.loras or {}
    return UsedModel(preset=preset, kind=used.kind, model=used.model, sizes=sizes, loras=loras)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A cell whose stage has run, and that is to be put on disk."""

    job: Job
    plan: Plan
    place: Place
    given: Work
    outcome: Outcome
    seconds: float


def describe_cell(ran: Ran) -> tuple[CellRecord, dict[str, str]]:
    """Say what a cell did, and the sha256 of each thing that stands after it.

    Hashes pixels, so it belongs off the GPU thread.
    """
    plan, place, outcome = ran.plan, ran.place, ran.outcome
    stage = plan.stages[place.stage - 1]
    old, took = checkpoint.things_of(ran.given), _hashes_before(ran)
    notices = list(outcome.notices)
    if ran.job.ledger.force:
        notices += _as_it_is(ran, took)
    hashes = {
        thing: took[thing] if old.get(thing) is image and thing in took else pixels_sha256(image)
        for thing, image in checkpoint.things_of(outcome.work).items()
    }
    gave = [sha256 for thing, sha256 in hashes.items() if took.get(thing) != sha256]
    size = outcome.work.pictures[""].size if "" in outcome.work.pictures else None
    cell = CellRecord(
        number=place.stage,
        name=stage.id,
        stage=stage.stage,
        version=STAGES[stage.stage].version,
        keys=record.keys_as_decided(plan, place.candidate, place.stage),
        took=tuple(took.values()),
        gave=tuple(gave),
        size=size if gave else None,
        seconds=round(ran.seconds, 4),
        model=outcome.model,
        timings={phase: round(spent, 4) for phase, spent in outcome.timings.items()},
        facts=outcome.facts,
        notices=tuple(notices),
        plan_sha256=ran.job.ledger.plan_sha256 or "",
    )
    return cell, hashes


def _hashes_before(ran: Ran) -> dict[str, str]:
    """Return the sha256 of each thing that a cell took: of a source the file's, else of the pixels."""
    plan, kept = ran.plan, _kept_before(ran)
    item = plan.item(plan.item_of(ran.place.candidate))
    own = {thing: source.sha256 for thing, role in _ROLE_OF_THING.items() if (source := item.source(role)) is not None}
    if kept is None:
        return {thing: own[thing] for thing in checkpoint.things_of(ran.given) if thing in own}
    return {thing: sha256 or own.get(thing, "") for thing, _, sha256 in kept.files}


def _as_it_is(ran: Ran, took: dict[str, str]) -> list[str]:
    """Where somebody forced a job to go on with what was changed, put down what was really taken, and say so."""
    kept, notices = _kept_before(ran), []
    files = {thing: file for thing, file, _ in kept.files} if kept is not None else {}
    for thing, image in checkpoint.things_of(ran.given).items():
        if files.get(thing) and (found := pixels_sha256(image)) != took.get(thing):
            took[thing] = found
            notices.append(f"{files[thing]} was changed, and taken as it is {record.FORCED}")
    return notices


def _kept_before(ran: Ran) -> Kept | None:
    cells = ran.job.ledger.cells
    last = before(ran.plan, ran.place, cells)
    return None if last is None else cells[last[0]][last[1]]


def to_disk(ran: Ran, cell: CellRecord, hashes: Mapping[str, str], now: Moment) -> dict[str, Any]:
    """Write the pictures of a cell into work/; return its line for the journal, which is still to be written.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    place, kept, old = ran.place, _kept_before(ran), checkpoint.things_of(ran.given)
    stood = (
        dict.fromkeys(_ROLE_OF_THING, ("", ""))
        if kept is None
        else {thing: (file, sha256) for thing, file, sha256 in kept.files}
    )
    files: list[list[str]] = []
    new = {}
    for thing, image in checkpoint.things_of(ran.outcome.work).items():
        if old.get(thing) is image and thing in stood:
            files.append([thing, *stood[thing]])
            continue
        file = checkpoint.name_of(place.candidate, place.stage, ran.plan.stages[place.stage - 1].id, thing)
        files.append([thing, file, hashes[thing]])
        new[file] = (hashes[thing], image)
    boxes = ran.outcome.work.boxes
    line = journal.line(
        Event.CELL,
        now,
        candidate=place.candidate,
        stage=place.stage,
        files=files,
        boxes=[[box.left, box.top, box.right, box.bottom, box.label, round(box.score, 4)] for box in boxes],
        seconds=cell.seconds,
        record=cell.model_dump(mode="json", exclude_defaults=True),
    )
    checkpoint.write(ran.job.folder, new, line)
    return line


def history(job: Job, plan: Plan, candidate: int, until: int) -> list[CellRecord]:
    """Return what is known of the cells that a candidate went through before stage `until`, its parents' too.

    Raises:
        OSError: the journal cannot be read.
    """
    found = []
    for number, stage in plan.path_of(candidate):
        if stage >= until:
            break
        kept = job.ledger.cells.get(number, {}).get(stage)
        if kept is not None:
            told = journal.line_at(job.folder, kept.at)["record"]
            if number != candidate and isinstance(plan.item(plan.item_of(number)).keys(stage), Generating):
                # It was made with its parent's seed; alone it is made with one of its own.
                told["keys"] = {**told["keys"], "seed": plan.seed_of(number, stage)}
            found.append(CellRecord.model_validate(told))
        elif plan.stages[stage - 1].stage == "select":
            planned = plan.stages[stage - 1]
            keys = record.keys_as_decided(plan, candidate, stage)
            found.append(CellRecord(number=stage, name=planned.id, stage="select", keys=keys))
    return found


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What there is to know of a finished picture besides its stages."""

    candidate: int
    run_id: str
    mode: str
    versions: Mapping[str, str]
    now: Moment
    #: That it took to make what is written.
    seconds: float


def stem(plan: Plan, candidate: int, variant: str = "") -> str:
    """Return the file name of a finished picture, without suffix: numbered through the whole job, from 1.

    A name that does not say where the number stands gets it at its end, unless there is only one candidate.
    """
    keys = export_keys(plan, candidate)
    number = f"{candidate:03d}"
    name = keys.name.replace("{job}", plan.job).replace("{candidate}", number)
    if "{candidate}" not in keys.name and plan.candidates > 1:
        name = f"{name}_{number}"
    return f"{name}_{variant}" if variant else name


def export_keys(plan: Plan, candidate: int) -> Export:
    """Return what the last stage is told for a candidate."""
    keys = plan.item(plan.item_of(candidate)).keys(len(plan.stages))
    assert isinstance(keys, Export)  # noqa: S101 - the last stage of every plan
    return keys


def encoding(plan: Plan, candidate: int) -> Encoding:
    """Return how a candidate's pictures are encoded."""
    keys = export_keys(plan, candidate)
    return Encoding(format=keys.format, quality=keys.quality, max_bytes=keys.max_bytes)


def variants_of(plan: Plan, candidate: int) -> list[str]:
    """Return the variants of a candidate that there will be: [""] where it is just one picture."""
    item = plan.item(plan.item_of(candidate))
    for number, stage in enumerate(plan.stages, 1):
        if stage.stage == "variants":
            return [aspect.replace(":", "x") for aspect in item.keys(number).aspects]  # type: ignore[attr-defined]
    return [""]


def export(job: Job, plan: Plan, work: Work, cells: list[CellRecord], facts: Facts) -> list[Output]:
    """Write the finished pictures of a candidate and their sidecars.

    Args:
        cells: the stages that it went through before this one.

    Raises:
        JobError, OSError: see `outputs.write`.
    """
    candidate = facts.candidate
    stage = plan.stages[-1]
    keys = record.keys_as_decided(plan, candidate, len(plan.stages))
    made = []
    for variant, picture in work.pictures.items():
        sha256 = pixels_sha256(picture)
        own = CellRecord(
            number=len(plan.stages), name=stage.id, stage="export", version=STAGES["export"].version, keys=keys,
            took=(sha256,), gave=(sha256,), size=picture.size, plan_sha256=job.ledger.plan_sha256 or "",
        )  # fmt: skip
        described = record.describe(
            plan,
            candidate,
            picture,
            [*cells, own],
            run_id=facts.run_id,
            mode=facts.mode,
            source=job.ledger.source,
            plan_sha256=job.ledger.plan_sha256 or "",
            created_at=facts.now,
            versions=facts.versions,
            variant=variant,
        )
        written = outputs.write(
            job.folder, stem(plan, candidate, variant), picture, described, encoding(plan, candidate)
        )
        made.append(output_of(plan, candidate, written, facts.seconds, variant))
    return made


def publish(settings: Settings, job: Job, plan: Plan, made: Sequence[Output]) -> None:
    """Put the finished pictures of a candidate where its last stage says; what was put there before is found again.

    Raises:
        OSError: see `outputs.publish`. The pictures are finished nevertheless, and are not made again.
    """
    for output in made:
        where = published_dir(settings, export_keys(plan, output.candidate).to)
        if where is not None:
            outputs.publish(output.file, job.folder, where)


def output_of(plan: Plan, candidate: int, written: Written, seconds: float, variant: str) -> Output:
    """Return what the journal says of a finished picture.

    Args:
        seconds: that it took to make what was written.
    """
    return Output(
        candidate=candidate,
        file=written.file,
        seed=plan.seed_of(candidate),
        sha256=written.sha256,
        pixels_sha256=written.pixels_sha256,
        seconds=round(seconds, 3),
        save_seconds=round(written.seconds, 3),
        variant=variant,
    )


def discard_unkept(job: Job, plan: Plan, candidate: int, error: Exception) -> None:
    """Remove what was written of a picture that could not be kept; one that somebody changed since is left to them."""
    how = encoding(plan, candidate)
    for variant in variants_of(plan, candidate):
        name = stem(plan, candidate, variant)
        if isinstance(error, OSError):
            with suppress(OSError):
                outputs.discard(job.folder, name, how.suffix)
        else:
            discard_half(job, name, how)


def discard_half(job: Job, stem: str, how: Encoding) -> None:
    """Remove a picture that has no sidecar: a crash or a full disk came between the two."""
    picture = job.folder / f"{stem}{how.suffix}"
    with suppress(OSError):
        if not picture.with_name(f"{picture.name}.toml").exists():
            durable.remove(picture)
