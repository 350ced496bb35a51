"""What status files say: a job's own, and the daemon at a glance. Views, made again from journals at any time."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hotfolder import durable, names, tomltext
from hotfolder.clock import Moment
from hotfolder.journal import Failure, Ledger, State
from hotfolder.plan import Plan

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


def job_status(name: str, ledger: Ledger, plan: Plan | None, progress: Progress | None = None) -> bytes:
    """Return a job's status.toml."""
    table: dict[str, Any] = {"schema": SCHEMA, "job": name, "state": ledger.state.value}
    table |= _origin(ledger)
    for key, moment in (
        ("queued_at", ledger.queued_at),
        ("started_at", ledger.started_at),
        ("finished_at", ledger.finished_at),
    ):
        if moment is not None:
            table[key] = moment
    table["attempt"] = ledger.attempt
    if plan is not None:
        table |= {"preset": plan.preset, "items": plan.items, "candidates": plan.candidates}
        table |= {key: value for key, value in (("title", plan.title), ("project", plan.project)) if value is not None}
    table |= {"done": len(ledger.done), "failed": len([key for key in ledger.failed if key])}
    if ledger.plan_sha256:
        table["plan_sha256"] = ledger.plan_sha256
    if ledger.waiting_for:
        table["waiting_for"] = list(ledger.waiting_for)
    if ledger.held:
        table["held_by"] = ledger.held
    if progress is not None and ledger.state is State.RUNNING:
        table["progress"] = {key: value for key, value in vars(progress).items() if value is not None}
    if ledger.error is not None:
        table["error"] = _error(ledger.error)
    if plan is not None and plan.meta:
        table["meta"] = plan.meta
    if plan is not None:
        table["stages"] = _stages(plan, ledger)
    if ledger.problems:
        table["problems"] = [{key: _plain(value) for key, value in problem.items()} for problem in ledger.problems]
    if ledger.notices:
        table["notices"] = [{"text": _plain(text)} for text in dict.fromkeys(ledger.notices)]
    if ledger.ended:
        table |= _results(ledger)
    return tomltext.dump(table)


def write(folder: Path, data: bytes, *, sync: bool) -> None:
    """Replace a status file whole; with `sync` a power cut does not bring the old one back."""
    durable.write(folder / FILE_NAME, data, sync=sync)
    if sync:
        durable.sync_folder(folder)


def read_state(folder: Path) -> State | None:
    """Return the state that the status file of a job's folder tells; None where it cannot be read."""
    try:
        return State(tomllib.loads((folder / FILE_NAME).read_text(encoding="utf-8"))["state"])
    except (OSError, ValueError, KeyError):
        return None


def _origin(ledger: Ledger) -> dict[str, Any]:
    table: dict[str, Any] = {"mode": ledger.mode}
    if ledger.origin is not None:
        # A picture is a job only in a lane that says so.
        table["source"] = "lane" if ledger.origin.via == "picture" else ledger.origin.via
        if ledger.origin.lane:
            table["lane"] = names.shown(ledger.origin.lane)
        if ledger.origin.scheduled_for:
            table["scheduled_for"] = Moment.parse(ledger.origin.scheduled_for)
    if ledger.run_id:
        table["run_id"] = ledger.run_id
    return table


def _error(failure: Failure) -> dict[str, Any]:
    return {key: _plain(value) for key, value in vars(failure).items() if value not in (None, "")}


def _plain(value: object) -> object:
    """Escape the bytes of a name that are no UTF-8: TOML has no way to write them, and a status must be readable."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _stages(plan: Plan, ledger: Ledger) -> list[dict[str, Any]]:
    """One row a stage. A finished picture has been through all of them: the last two are one write."""
    rows = []
    for number, name in enumerate(plan.stages, 1):
        failed = len([failure for failure in ledger.failed.values() if failure.stage_index == number])
        done = len(ledger.done)
        rows.append(
            {
                "number": number,
                "name": name,
                "state": _stage_state(plan, ledger, done, failed),
                "done": done,
                "failed": failed,
            }
        )
    rows[0]["seconds"] = round(sum(output.seconds for output in ledger.done.values()), 3)
    rows[-1]["seconds"] = round(sum(output.save_seconds for output in ledger.done.values()), 3)
    return rows


def _stage_state(plan: Plan, ledger: Ledger, done: int, failed: int) -> str:
    if done == plan.candidates:
        return "completed"
    if ledger.ended:
        return "failed" if failed and not done else "partial" if done else ledger.state.value
    return "running" if ledger.state is State.RUNNING else "queued"


def _results(ledger: Ledger) -> dict[str, Any]:
    table: dict[str, Any] = {}
    done = [ledger.done[candidate] for candidate in sorted(ledger.done)][:_MAX_OUTPUTS]
    if done:
        table["outputs"] = [{"file": one.file, "candidate": one.candidate, "seed": one.seed} for one in done]
    failures = [_error(ledger.failed[candidate]) for candidate in sorted(ledger.failed) if candidate][:_MAX_OUTPUTS]
    if failures:
        table["failures"] = failures
    return table


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
