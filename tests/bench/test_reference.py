"""The reference is no straw man: it leaves the files that Hotfolder leaves, with as many flushes."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from conftest import Workspace
from processes import SERVED

from bench.daemons import drain

TEXT = 'prompt = "mug"\nseed = 1\nsteps = 1\nwidth = 16\nheight = 16\n'
JOBS = ("a", "b", "c")


def test_the_reference_leaves_the_same_files_with_as_many_flushes(
    tmp_path: Path, needs_tool: Callable[[str], str]
) -> None:
    strace = [needs_tool("strace"), "-f", "-y", "-qq", "-e", "trace=fsync,fdatasync"]
    ours, theirs = Workspace(tmp_path / "ours"), Workspace(tmp_path / "theirs")
    for name in JOBS:
        ours.drop(f"{name}.toml", TEXT)
    command = [sys.executable, str(SERVED), str(ours.root), "--drain"]
    subprocess.run(
        [*strace, "-o", str(tmp_path / "ours.trace"), *command],
        env=ours.variables(),
        check=True,
        capture_output=True,
    )
    like = Workspace(tmp_path / "like")
    like.drop("like.toml", TEXT)
    drain(like)
    reference(strace, tmp_path / "theirs.trace", theirs, like.outputs / "like_take01")

    assert flushes(tmp_path / "theirs.trace", theirs) == flushes(tmp_path / "ours.trace", ours)
    for name in JOBS:
        assert sizes(theirs.outputs, name).keys() == sizes(ours.outputs, name).keys()
        for file, size in sizes(theirs.outputs, name).items():
            assert 0.6 < size / sizes(ours.outputs, name)[file] < 1.7, file


def reference(strace: list[str], trace: Path, workspace: Workspace, like: Path) -> None:
    """Run the reference on the same drops."""
    command = [sys.executable, "-m", "bench.reference", str(workspace.root), str(like), "ended", str(len(JOBS))]
    with subprocess.Popen(
        [*strace, "-o", str(trace), *command], cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for name in JOBS:
            workspace.drop(f"{name}.toml", TEXT)
        assert process.wait(60) == 0


def flushes(trace: Path, workspace: Workspace) -> Counter[str]:
    """What was flushed of the jobs' own, without those that drops share by chance of when they came."""
    found: Counter[str] = Counter()
    for line in trace.read_text().splitlines():
        match = re.search(r"sync\(\d+<([^>]+)>", line)
        path = Path(match[1]) if match else Path()
        name = str(path).removeprefix(f"{workspace.outputs}/").lstrip(".").replace("_take01.new", "_take01")
        if name.startswith(tuple(f"{job}{what}" for job in JOBS for what in ("_take01", ".active"))):
            found[name] += 1
    return found


def sizes(outputs: Path, name: str) -> dict[str, int]:
    """Bytes of each file that a job leaves."""
    files = [*(outputs / f"{name}_take01").iterdir(), outputs / f"{name}.active.toml"]
    return {path.name: path.stat().st_size for path in files}
