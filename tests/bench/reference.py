"""The least that an honest hot folder must do: what intake and the running of jobs are measured against.

    python -m bench.reference WORKSPACE LIKE planned|ended COUNT

inotify tells of a drop, and a listing where the kernel could not keep all that it had to tell; it is parsed and
becomes a folder of its own with the files that Hotfolder makes, as many bytes in each, put in place by as many renames
and flushes in the same order; drops that come together share the same flushes.
LIKE is the folder of a job that Hotfolder has made. Nothing is settled, checked, decided, painted, drawn, resumed or
recovered. `planned` stops where a job stands in the line. Prints `ready`, and ends after COUNT drops.
"""

import os
import sys
import tomllib
from collections import deque
from pathlib import Path

from bench.inotify import MOVED_TO, OVERFLOW, Inotify

BATCH = 64


def serve(workspace: Path, like: Path, until: str, count: int) -> None:
    inbox, outputs, live = workspace / "jobs_inbox", workspace / "outputs", workspace / "live"
    live.mkdir()
    files = {path.name.replace(like.name, "NAME"): path.read_bytes() for path in like.iterdir()}
    files["active.toml"] = next(like.parent.glob("*.active.toml")).read_bytes()
    events, dropped, seen = Inotify(inbox, MOVED_TO), deque[str](), set[str]()
    print("ready", flush=True)
    while count:
        # What came is taken before the kernel is asked again.
        came = list(events.read(0.0 if dropped else 60.0))
        lost = any(event.mask & OVERFLOW for event in came)
        told = os.listdir(inbox) if lost else [event.name for event in came]
        found = [name for name in told if name not in seen]
        seen.update(found)
        dropped.extend(name.removesuffix(".toml") for name in found if name.endswith(".toml"))
        names = [dropped.popleft() for _ in range(min(BATCH, len(dropped)))]
        count -= len(names)
        admit(inbox, outputs, live, names, files)
        for name in names:
            plan(outputs / f"{name}_take01", files)
        for name in names if until == "ended" else []:
            run(outputs, live, name, files)


def admit(inbox: Path, outputs: Path, live: Path, names: list[str], files: dict[str, bytes]) -> None:
    """Make a folder of each drop, then take the drops away."""
    for name in names:
        folder = outputs / f".{name}_take01.new"
        folder.mkdir()
        data = (inbox / f"{name}.toml").read_bytes()
        tomllib.loads(data.decode())
        write(folder / "job.toml", data)
        write(folder / "journal.jsonl", files["journal.jsonl"][:400])
        write(folder / "status.toml", files["status.toml"], sync=False)
        flush(folder)
        write(live / name, b"", sync=False)
    if names:
        flush(live)
    for name in names:
        (outputs / f".{name}_take01.new").rename(outputs / f"{name}_take01")
    if names:
        flush(outputs)
    for name in names:
        (inbox / f"{name}.toml").rename(inbox / f".{name}.taking")
    if names:
        flush(inbox)
    for name in names:
        write(outputs / f"{name}_take01" / "journal.jsonl", b"x" * 70, sync=False, append=True)
        (inbox / f".{name}.taking").unlink()


def plan(folder: Path, files: dict[str, bytes]) -> None:
    """Put in place what a job in the line has."""
    place(folder / "plan.toml", files["plan.toml"])
    write(folder / "log.jsonl", files["log.jsonl"][:220], sync=False, append=True)
    note(folder, "planned", files)


def run(outputs: Path, live: Path, name: str, files: dict[str, bytes]) -> None:
    """Put in place what a job of one picture leaves when it has ended."""
    folder = outputs / f"{name}_take01"
    journal, status = folder / "journal.jsonl", folder / "status.toml"
    note(folder, "started", files)
    for _ in range(5):
        write(folder / "log.jsonl", files["log.jsonl"][:220], sync=False, append=True)
    place(folder / f"{name}_take01_001.png", files["NAME_001.png"])
    place(folder / f"{name}_take01_001.png.toml", files["NAME_001.png.toml"])
    write(journal, b"done" * 80, sync=False, append=True)
    write(journal, b"ended" * 16, append=True)
    place(status, files["status.toml"])
    place(outputs / f"{name}.active.toml", files["active.toml"])
    place(folder / "index.html", files["index.html"], sync=False)
    (live / name).unlink()


def note(folder: Path, event: str, files: dict[str, bytes]) -> None:
    write(folder / "journal.jsonl", event.encode() * 16, append=True)
    place(folder / "status.toml", files["status.toml"], sync=False)


def place(path: Path, data: bytes, *, sync: bool = True) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    write(beside, data, sync=sync)
    beside.rename(path)
    if sync:
        flush(path.parent)


def write(path: Path, data: bytes, *, sync: bool = True, append: bool = False) -> None:
    with path.open("ab" if append else "wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
