"""What status files say: a job's own, and the daemon at a glance. Views, made again from journals at any time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hotfolder import durable, names, tomltext
from hotfolder.clock import Moment
from hotfolder.journal import Failure, Ledger, State
from hotfolder.plan import Plan
from hotfolder.table import Table

SCHEMA: Final = 1
FILE_NAME: Final = "status.toml"
#: More is in the journal; a status file stays cheap to write and read.
_MAX_OUTPUTS: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the cell under way is."""

    stage: str
    stage_index: int
    stages: int
    candidate: int
    #: load, encode, denoise or decode.
    phase: str
    step: int
    steps: int
    #: Of the whole job, 0 to 1.
    fraction: float
    #: Until the job ends; None: nothing to tell it from.
    seconds_left: float | None = None


def job_status(
    name: str, ledger: Ledger, plan: Plan | None, table: Table | None = None, progress: Progress | None = None
) -> bytes:
    """Return a job's status.toml."""
    shown: dict[str, Any] = {"schema": SCHEMA, "job": name, "state": ledger.state.value}
    shown |= _origin(ledger)
    for key, moment in (
        ("queued_at", ledger.queued_at),
        ("started_at", ledger.started_at),
        ("finished_at", ledger.finished_at),
    ):
        if moment is not None:
            shown[key] = moment
    shown["attempt"] = ledger.attempt
    if plan is not None:
        shown |= {
            key: value for key, value in (("pipeline", plan.pipeline), ("preset", plan.preset)) if value is not None
        }
        shown |= {"items": plan.items, "candidates": plan.candidates}
        shown |= {"seed": plan.seed, "seed_from": plan.seed_from}
        if plan.prompt_from is not None:
            shown["prompt_from"] = plan.prompt_from
        shown |= {key: value for key, value in (("title", plan.title), ("project", plan.project)) if value is not None}
    shown |= {"done": len(ledger.done), "failed": len([key for key in ledger.failed if key])}
    left_out = _left_out(ledger, plan)
    if left_out:
        shown["left_out"] = left_out
    if ledger.retries:
        shown["retries"] = ledger.retries
    if ledger.plan_sha256:
        shown["plan_sha256"] = ledger.plan_sha256
    if ledger.waiting_for:
        shown["waiting_for"] = list(ledger.waiting_for)
    if ledger.held:
        shown["held_by"] = ledger.held
    if progress is not None and ledger.state is State.RUNNING:
        shown["progress"] = {key: value for key, value in vars(progress).items() if value is not None}
    if ledger.error is not None:
        shown["error"] = _error(ledger.error)
    if plan is not None and plan.meta:
        shown["meta"] = plan.meta
    if plan is not None:
        shown["stages"] = _stages(plan, ledger)
    if ledger.problems:
        shown["problems"] = [dict(problem) for problem in ledger.problems]
    if ledger.notices:
        shown["notices"] = [{"text": text} for text in dict.fromkeys(ledger.notices)]
    if ledger.ended:
        shown |= _results(ledger)
    elif ledger.state is State.REVIEW and plan is not None and table is not None:
        shown |= _to_pick(ledger, plan, table)
    return tomltext.dump({key: _plain(value) for key, value in shown.items()})


def write(folder: Path, data: bytes, *, sync: bool) -> None:
    """Replace a status file whole; with `sync` a power cut does not bring the old one back."""
    durable.write(folder / FILE_NAME, data, sync=sync)
    if sync:
        durable.sync_folder(folder)


def read_state(folder: Path) -> State | None:
    """Return the state that the status file of a job's folder tells; None where it cannot be read."""
    try:
        return State(tomltext.load((folder / FILE_NAME).read_bytes())["state"])
    except (OSError, ValueError, KeyError):
        return None


def _origin(ledger: Ledger) -> dict[str, Any]:
    table: dict[str, Any] = {"mode": ledger.mode}
    if ledger.origin is not None:
        table["source"] = ledger.source
        if ledger.origin.lane:
            table["lane"] = names.shown(ledger.origin.lane)
        if ledger.origin.scheduled_for:
            table["scheduled_for"] = Moment.parse(ledger.origin.scheduled_for)
    if ledger.run_id:
        table["run_id"] = ledger.run_id
    return table


def _error(failure: Failure) -> dict[str, Any]:
    return {key: value for key, value in vars(failure).items() if value not in (None, "")}


def _plain(value: object) -> object:
    """Escape the bytes of a name that are no UTF-8: TOML has no way to write them, and a status must be readable."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value


def _left_out(ledger: Ledger, plan: Plan | None) -> int:
    """Return how many candidates were not chosen."""
    if plan is None or not ledger.chosen:
        return 0
    out: set[int] = set()
    for (stage, item), kept in ledger.chosen.items():
        if not 1 <= item <= plan.items:
            continue
        out |= {number for number in plan.candidates_of(item) if plan.row_of(number).begins < stage} - set(kept)
    if any(row.parent is not None for row in plan.rows):
        out |= {
            child
            for child in range(1, plan.candidates + 1)
            if plan.parent_of(child) in out and child not in ledger.done and child not in ledger.cells
        }
    return len(out - ledger.failed.keys())


def _stages(plan: Plan, ledger: Ledger) -> list[dict[str, Any]]:
    """One row a stage. A finished picture has been through all of its stages: the last two may be one write."""
    last = len(plan.stages)
    done, failed, seconds = [0] * (last + 1), [0] * (last + 1), [0.0] * (last + 1)
    # A journal that somebody edited may speak of what there is not.
    there, numbers = range(1, plan.candidates + 1), range(1, last + 1)
    cells = {
        one: {stage for stage in stages if stage in numbers} for one, stages in ledger.cells.items() if one in there
    }
    for candidate, outputs in ledger.done.items():
        if candidate not in there:
            continue
        begins = plan.row_of(candidate).begins
        own = {number for number in range(begins, last + 1) if not plan.passes(candidate, number)}
        fused = last - 1 in own and last - 1 not in cells.get(candidate, ()) and plan.stages[last - 2].stage != "select"
        cells[candidate] = own
        if fused and last > 1:
            seconds[last - 1] += outputs[0].seconds
        seconds[last] += sum(output.save_seconds for output in outputs)
    for candidate, stages in cells.items():
        for number in stages:
            done[number] += 1
            kept = ledger.cells.get(candidate, {}).get(number)
            seconds[number] += kept.seconds if kept is not None else 0.0
    for (stage, _), kept_ones in ledger.chosen.items():
        if stage not in numbers:
            continue
        counted = sum(stage in cells.get(candidate, ()) for candidate in kept_ones)
        done[stage] += len(kept_ones) - counted
    for failure in ledger.failed.values():
        if failure.stage_index and failure.stage_index <= last:
            failed[failure.stage_index] += 1
    return [
        {
            "number": number,
            "name": stage.id,
            "state": _stage_state(plan, ledger, number, done[number], failed[number]),
            "done": done[number],
            "failed": failed[number],
            "seconds": round(seconds[number], 3),
        }
        for number, stage in enumerate(plan.stages, 1)
    ]


def _stage_state(plan: Plan, ledger: Ledger, number: int, done: int, failed: int) -> str:
    is_choice = plan.stages[number - 1].stage == "select"
    waits = is_choice and sum(stage == number for stage, _ in ledger.chosen) < plan.items
    if ledger.state is State.REVIEW and waits and plan.item(1).lane(number) == "person":
        return "review"
    if done and not failed and (ledger.state is State.COMPLETED or done == plan.candidates):
        return "completed"
    if ledger.ended and not done and not failed and ledger.state is not State.CANCELLED:
        return "not reached"
    if ledger.ended:
        return "failed" if failed and not done else "partial" if failed else "completed" if done else ledger.state.value
    return "running" if ledger.state is State.RUNNING else "queued"


def _results(ledger: Ledger) -> dict[str, Any]:
    table: dict[str, Any] = {}
    done = [output for candidate in sorted(ledger.done) for output in ledger.done[candidate]][:_MAX_OUTPUTS]
    if done:
        table["outputs"] = [{"file": one.file, "candidate": one.candidate, "seed": one.seed} for one in done]
    failures = [_error(ledger.failed[candidate]) for candidate in sorted(ledger.failed) if candidate][:_MAX_OUTPUTS]
    if failures:
        table["failures"] = failures
    return table


def _to_pick(ledger: Ledger, plan: Plan, table: Table) -> dict[str, Any]:
    """In review: what there is to pick from, and what is finished already."""
    results = _results(ledger)
    rows = results.get("outputs", [])
    for stage, _, candidates in table.waiting():
        for candidate in candidates:
            file = picture_before(ledger, plan, candidate, stage)
            rows.append({"file": file, "candidate": candidate, "seed": plan.seed_of(candidate)})
    return results | {"outputs": rows[:_MAX_OUTPUTS]}


def picture_before(ledger: Ledger, plan: Plan, candidate: int, stage: int) -> str:
    """Return the picture that a candidate brings to a stage, below the job's folder; "" where it is the job's own."""
    found = ""
    for number, before in plan.path_of(candidate):
        kept = ledger.cells.get(number, {}).get(before)
        if before < stage and kept is not None:
            found = next((file for thing, file, _ in kept.files if thing.startswith("picture")), found)
    return found


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job in the line."""

    job: str
    position: int
    eta: Moment | None = None
    #: Where the order was changed.
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class DaemonStatus:
    """The daemon at a glance."""

    #: running, paused or stopped.
    state: str
    pid: int
    host: str
    updated_at: Moment
    started_at: Moment
    run_id: str
    mode: str
    counts: Mapping[str, int]
    running: Sequence[str]
    #: The first 50.
    line: Sequence[Waiting]
    free_gb: float
    total_gb: float
    wrong: Sequence[str]
    #: Name and why; the first 100.
    ignored: Sequence[tuple[str, str]]
    ignored_count: int
    #: What was said about control files that could not be done.
    notices: Sequence[str] = ()
    #: Of which job, and how far it is.
    progress: tuple[str, Progress] | None = None

    def dump(self) -> bytes:
        """Return outputs/status.toml."""
        table: dict[str, Any] = {
            "schema": SCHEMA,
            "state": self.state,
            "mode": self.mode,
            "pid": self.pid,
            "host": self.host,
        }
        table |= {
            "run_id": self.run_id,
            "started_at": self.started_at,
            "updated_at": self.updated_at,
            "running": list(self.running),
        }
        table |= {"ignored_count": self.ignored_count, "wrong": list(self.wrong), "counts": dict(self.counts)}
        table["disk"] = {"free_gb": round(self.free_gb, 2), "total_gb": round(self.total_gb, 2)}
        if self.progress is not None:
            job, progress = self.progress
            table["progress"] = {"job": job} | {
                key: value for key, value in vars(progress).items() if value is not None
            }
        if self.notices:
            table["notices"] = [{"text": text} for text in self.notices]
        if self.line:
            table["line"] = [
                {key: value for key, value in vars(one).items() if value not in (None, "")} for one in self.line
            ]
        if self.ignored:
            table["ignored"] = [{"name": name, "why": why} for name, why in self.ignored]
        return tomltext.dump(table)
