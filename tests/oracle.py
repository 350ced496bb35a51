"""The promise of DESIGN section 1, checked on a workspace that no daemon serves any more.

> A job that was dropped whole is never lost, never run from a half-read file, and ends in exactly one end state with a
> readable status file. A finished picture is never half visible.
"""

import hashlib
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from conftest import Workspace
from PIL import Image

from hotfolder import journal, outputs, record
from hotfolder.journal import ENDS, Ledger, Output, State

#: What may stand in a job's folder, next to its pictures and their sidecars.
JOB_FILES = {
    "job.toml",
    "plan.toml",
    "status.toml",
    "journal.jsonl",
    "log.jsonl",
    "index.html",
    "work",
    "sources",
}
#: The folder of outputs/ that is no job.
PROCESSED = "processed"


def check_promise(
    workspace: Workspace,
    dropped: Mapping[str, str],
    *,
    inbox: tuple[str, ...] = (),
    state: str = "completed",
    states: Mapping[str, str] | None = None,
    processed: tuple[str, ...] = (),
    unlisted: bool = False,
) -> dict[str, Ledger]:
    """Check everything that was promised; return the ledgers by job.

    Args:
        dropped: job -> its text, of every job file that was dropped whole: there is a take of each and no other.
        inbox: what may still lie in the inbox.
        state: how each of them ends, but for those in `states`.
        processed: the pictures that lie in outputs/processed/.
        unlisted: whether a cancelled job may have whole pictures that it did not come to note, since the disk failed.
    """
    states = {**dict.fromkeys(dropped, state), **(states or {})}
    assert [name for name in workspace.jobs() if name != PROCESSED] == sorted(dropped), "one take of each drop"
    ledgers = {
        name: check_job(workspace.outputs / name, text, states[name], unlisted=unlisted and states[name] == "cancelled")
        for name, text in dropped.items()
    }
    check_processed(workspace, processed)
    left = sorted(str(path.relative_to(workspace.inbox)) for path in workspace.inbox.rglob("*") if path.is_file())
    assert left == sorted(inbox), "the inbox holds what nobody took, and no leftovers"
    hidden = [path.name for path in workspace.outputs.iterdir() if path.name.startswith(".")]
    assert not hidden, "no leftovers beside the jobs"
    markers = workspace.root / ".hotfolder" / "live"
    assert [path.name for path in markers.rglob("*") if path.is_file()] == [], "what has ended is not live"
    found = workspace.daemon_status()
    assert found["state"] == "stopped"
    assert found["counts"] == Counter(states.values())
    return ledgers


def check_job(folder: Path, text: str, state: str, *, unlisted: bool = False) -> Ledger:
    """Check one job that has ended."""
    assert (folder / "job.toml").read_text(encoding="utf-8") == text, "as dropped, byte for byte"
    lines = (folder / journal.FILE_NAME).read_bytes()
    assert lines.endswith(b"\n")
    ledger = journal.read(folder)
    assert ledger.admitted
    assert ledger.state == state
    assert ends_of(lines) == [state], "exactly one end, since it was last resumed"
    told = tomllib.loads((folder / "status.toml").read_text(encoding="utf-8"))
    assert (told["state"], told["job"]) == (state, folder.name)
    assert (told["done"], told["attempt"]) == (len(ledger.done), ledger.attempt)
    assert told.get("outputs", []) == [
        {"file": output.file, "candidate": output.candidate, "seed": output.seed} for output in outputs_of(ledger)
    ]
    listed = pictures_of(ledger)
    if unlisted:
        listed |= whole_pictures(folder)
    check_pictures(folder, ledger, listed)
    strange = {path.name for path in folder.iterdir()} - JOB_FILES - listed
    strange |= {path.name for path in folder.rglob(".*")}
    assert not strange, "nothing else in the folder"
    if State(state) is State.COMPLETED:
        assert len(ledger.done) + told.get("left_out", 0) == told["candidates"]
        assert not ledger.failed
    return ledger


def check_pictures(folder: Path, ledger: Ledger, listed: Collection[str] | None = None) -> None:
    """Each finished picture stands there whole, with a sidecar that tells its hashes; each sidecar has its picture.

    Args:
        listed: pictures and sidecars that there may be; None: those of the ledger.
    """
    for output in outputs_of(ledger):
        data = (folder / output.file).read_bytes()
        said = record.load((folder / f"{output.file}.toml").read_bytes())
        assert hashlib.sha256(data).hexdigest() == output.sha256 == said.file_sha256
        with Image.open(folder / output.file) as image:
            image.load()
            assert record.pixels_sha256(image) == output.pixels_sha256 == said.pixels_sha256
            assert outputs.CHUNK in image.text  # type: ignore[attr-defined]  # a PNG's own
        assert (said.candidate, said.seed, said.job) == (output.candidate, output.seed, folder.name)
    there = {path.name for path in folder.glob("*.png*")}
    assert there == set(pictures_of(ledger) if listed is None else listed), (
        "no picture that is not finished, a sidecar for each"
    )


def check_processed(workspace: Workspace, pictures: tuple[str, ...]) -> None:
    """The second copies of finished pictures are there once, each with its sidecar, and the same to the byte."""
    folder = workspace.outputs / PROCESSED
    expected = {name for picture in pictures for name in (picture, f"{picture}.toml")}
    assert {path.name for path in folder.glob("*")} == expected, "each picture once, with its sidecar, no leftovers"
    for name in expected:
        (original,) = (path for path in workspace.outputs.glob(f"*/{name}") if path.parent != folder)
        assert (folder / name).read_bytes() == original.read_bytes()


def outputs_of(ledger: Ledger) -> list[Output]:
    """Every finished picture, candidate by candidate."""
    return [output for number in sorted(ledger.done) for output in ledger.done[number]]


def whole_pictures(folder: Path) -> set[str]:
    """The pictures whose sidecar tells their hash, and their sidecars."""
    return {
        name
        for sidecar in folder.glob("*.png.toml")
        for name in (sidecar.name, sidecar.name.removesuffix(".toml"))
        if record.load(sidecar.read_bytes()).file_sha256
        == hashlib.sha256(sidecar.with_suffix("").read_bytes()).hexdigest()
    }


def pictures_of(ledger: Ledger) -> set[str]:
    """The names of all finished pictures and their sidecars."""
    return {name for output in outputs_of(ledger) for name in (output.file, f"{output.file}.toml")}


def ends_of(lines: bytes) -> list[str]:
    """The ends that a journal tells, in order; one that `.resume` left is none any more."""
    ends: list[str] = []
    for line in journal.lines(lines):
        if line["event"] == journal.Event.RESUMED:
            ends.clear()
        elif line["event"] == journal.Event.ENDED:
            ends.append(line["state"])
    return ends


def pixels(ledgers: Mapping[str, Ledger]) -> dict[str, Any]:
    """What is to be the same in a run that nothing disturbed."""
    return {
        name: {output.file: (output.seed, output.pixels_sha256) for output in outputs_of(ledger)}
        for name, ledger in ledgers.items()
    }


def is_over(workspace: Workspace, jobs: Mapping[str, str]) -> bool:
    """Whether every job has ended."""
    return all(workspace.state(name) in {state.value for state in ENDS} for name in jobs)
