"""Workspaces with many jobs in them: one is run for real, the others are copies of it under other names."""

from pathlib import Path
from typing import Final

from conftest import Workspace

from bench.daemons import drain
from hotfolder import gallery, journal
from hotfolder.gallery import Gallery
from hotfolder.plan import Plan

_MODEL: Final = "done"
_JOB: Final = f"{_MODEL}_take01"
_TEXT: Final = 'prompt = "a mug"\nseed = 42\nsteps = 1\nwidth = 64\nheight = 64\n'
#: What names its job inside.
_TEXT_SUFFIXES: Final = {".toml", ".jsonl", ".html"}


def finished_jobs(workspace: Workspace, count: int) -> None:
    """Fill outputs/ with so many completed jobs, each with its picture, pages, journal and row of the history."""
    workspace.drop(f"{_MODEL}.toml", _TEXT)
    drain(workspace)
    model = workspace.outputs / _JOB
    files = _files(model)
    active = (workspace.outputs / f"{_MODEL}.active.toml").read_bytes()
    settings = workspace.settings()
    history = Gallery(settings.cache_dir, settings.outputs_dir)
    ledger, plan = journal.read(model), Plan.load((model / "plan.toml").read_bytes())
    for number in range(1, count):
        name = f"{_MODEL}-{number:06d}"
        _copy(files, workspace.outputs, name)
        (workspace.outputs / f"{name}.active.toml").write_bytes(_renamed(active, name))
        history.add(gallery.ended(f"{name}_take01", ledger, plan))
    history.close()


def _files(folder: Path) -> dict[str, bytes | None]:
    """Return all that a folder holds: path below it -> content, None for a folder."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def _copy(files: dict[str, bytes | None], outputs: Path, name: str) -> None:
    """Write the folder of the model again under another name."""
    folder = outputs / f"{name}_take01"
    folder.mkdir()
    for path, data in files.items():
        target = folder / path.replace(_MODEL, name, 1)
        if data is None:
            target.mkdir()
        else:
            target.write_bytes(_renamed(data, name) if target.suffix in _TEXT_SUFFIXES else data)


def _renamed(data: bytes, name: str) -> bytes:
    return data.replace(_JOB.encode(), f"{name}_take01".encode()).replace(f'"{_MODEL}"'.encode(), f'"{name}"'.encode())
