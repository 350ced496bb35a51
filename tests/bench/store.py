"""Workspaces with many jobs in them: one is run for real, the others are copies of it under other names."""

import os
import shutil
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
    """Fill outputs/ with so many completed jobs, each with its picture, pages, journal and row of the history.

    May be called again, to make them more.
    """
    model = workspace.outputs / _JOB
    if not model.exists():
        workspace.drop(f"{_MODEL}.toml", _TEXT)
        drain(workspace)
    settings = workspace.settings()
    history = Gallery(settings.cache_dir, settings.outputs_dir)
    ledger, plan = journal.read(model), Plan.load((model / "plan.toml").read_bytes())
    there = len(list(workspace.outputs.glob(f"{_MODEL}*_take01")))
    for number in range(there, count):
        name = f"{_MODEL}-{number:06d}"
        _copy(model, workspace.outputs / f"{name}_take01", name)
        active = (workspace.outputs / f"{_MODEL}.active.toml").read_bytes()
        (workspace.outputs / f"{name}.active.toml").write_bytes(_renamed(active, name))
        history.add(gallery.ended(f"{name}_take01", ledger, plan))
    history.close()


def _copy(model: Path, folder: Path, name: str) -> None:
    """Copy a job's folder; a picture, which nobody ever changes, by a link."""
    folder.mkdir()
    for entry in os.scandir(model):
        target = folder / entry.name.replace(_MODEL, name, 1)
        if entry.is_dir():
            shutil.copytree(entry.path, target)
        elif Path(entry.path).suffix in _TEXT_SUFFIXES:
            target.write_bytes(_renamed(Path(entry.path).read_bytes(), name))
        else:
            target.hardlink_to(entry.path)


def _renamed(data: bytes, name: str) -> bytes:
    return data.replace(_JOB.encode(), f"{name}_take01".encode()).replace(f'"{_MODEL}"'.encode(), f'"{name}"'.encode())
