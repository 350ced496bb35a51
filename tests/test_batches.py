"""Large batches, kills at the boundaries of stages, and what a batch costs: real processes."""

import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from conftest import Spawn, Workspace
from PIL import Image
from processes import Process
from waiting import wait_until

from hotfolder import journal

FOUR_STAGES = """
prompt = "a mug"
count = 3
seed = 1
steps = 2
width = 96
height = 96
[[stages]]
stage = "generate"
[[stages]]
stage = "resize"
width = 80
[[stages]]
stage = "color"
brightness = 1.2
[[stages]]
stage = "export"
"""
#: Cells of that job: three before the export and the export, of three candidates; the last two share a line.
BOUNDARIES = 9


def cells_noted(folder: Path) -> int:
    """How many cells the journal of a job says are done."""
    try:
        lines = journal.lines((folder / journal.FILE_NAME).read_bytes())
        return sum(line["event"] in {"cell", "done"} for line in lines)
    except FileNotFoundError:
        return 0


def pixels(folder: Path) -> dict[str, str]:
    return {
        path.name: tomllib.loads(path.read_text())["pixels_sha256"]
        for path in folder.glob("*.toml")
        if ".png." in path.name
    }


def kill_after(process: Process, folder: Path, cells: int) -> int:
    """Kill a daemon as soon as so many cells are noted; return how many were in the end."""
    deadline = time.monotonic() + 30
    while cells_noted(folder) < cells and time.monotonic() < deadline:
        pass
    process.kill()
    return cells_noted(folder)


@pytest.mark.timeout(300)
def test_a_kill_at_any_boundary_of_any_stage_changes_no_pixel(tmp_path: Path, spawn: Spawn) -> None:
    quiet = Workspace(tmp_path / "quiet")
    quiet.drop("mug.toml", FOUR_STAGES)
    spawn("--drain", on=quiet)
    quiet.wait_for("mug_take01", "completed")
    wanted = pixels(quiet.outputs / "mug_take01")
    assert len(wanted) == 3
    died_at = set()
    for cells in range(BOUNDARIES + 1):
        workspace = Workspace(tmp_path / f"killed-{cells}")
        workspace.drop("mug.toml", FOUR_STAGES)
        process = spawn("--step-ms", "20", on=workspace)
        folder = workspace.outputs / "mug_take01"
        wait_until(folder.is_dir, 30)
        died_at.add(kill_after(process, folder, cells))
        spawn("--drain", on=workspace)
        status = workspace.wait_for("mug_take01", "completed")
        assert status["done"] == 3
        assert pixels(folder) == wanted, f"killed after {cells} cells"
    assert len(died_at) >= BOUNDARIES - 2, f"the kills came at {sorted(died_at)}"


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def done(workspace: Workspace) -> int:
    return int(workspace.status("all_take01").get("done", 0))


@pytest.mark.timeout(400)
def test_a_thousand_pictures_are_edited_in_flat_memory_and_without_torch(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "work")
    photos = workspace.inbox / "photos"
    photos.mkdir()
    for number in range(1000):
        gradient = Image.linear_gradient("L").resize((160, 120)).rotate(number % 360)
        gradient.convert("RGB").save(photos / f"p{number:04d}.png", compress_level=1)
    workspace.drop(
        "all.toml",
        'pipeline = "folder-grayscale"\n[stage.resize]\nwidth = 80\nheight = 60\n[matrix]\nimage = "photos/*.png"\n',
    )
    command = [sys.executable, "-m", "hotfolder", "serve", "--workspace", str(workspace.root)]
    environ = {**os.environ, **workspace.variables()}
    with (tmp_path / "serve.log").open("w") as log, subprocess.Popen(command, env=environ, stderr=log) as process:
        sizes: list[float] = []
        mapped = ""
        for wanted in (100, 500, 990):
            wait_until(lambda wanted=wanted: done(workspace) >= wanted, 200, f"{wanted} are made")  # type: ignore[misc]
            sizes.append(resident_mb(process.pid))
            mapped += Path(f"/proc/{process.pid}/maps").read_text()
        status = workspace.wait_for("all_take01", timeout_s=100)
        process.terminate()
    assert (status["state"], status["done"], status["items"]) == ("completed", 1000, 1000)
    assert "libtorch" not in mapped
    assert "PIL/_imaging" in mapped, "the maps are those of the daemon"
    assert sizes[2] - sizes[1] < 12, f"resident MB after 100, 500 and 990 pictures: {sizes}"
