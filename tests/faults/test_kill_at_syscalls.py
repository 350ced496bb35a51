"""SIGKILL, or an error, at single system calls that change files, while a job is dropped and run; then a start.

First the scenario runs undisturbed under strace, which tells every such call; then once for each call that was chosen,
with the process killed as it enters that call. A seeded sample by default; FAULT_POINTS=all takes every one. How many
there are is printed.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ENDS, Served, Workspace
from oracle import check_job, check_promise, pixels
from painted import PaintedEngine
from processes import SERVED

JOB = "mug_take01"
PLAIN = 'prompt = "a mug"\nseed = 42\ncount = 2\nsteps = 2\nwidth = 32\nheight = 16\n'
#: With checkpoints in between, on the GPU thread and beside it, and a choice.
STAGES = """
[[stages]]
stage = "generate"
[[stages]]
stage = "pad"
left = 8
[[stages]]
stage = "select"
keep = 2
[[stages]]
stage = "color"
brightness = 1.1
[[stages]]
stage = "export"
"""
JOBS = {"plain": PLAIN, "stages": PLAIN + STAGES}
#: What strace is to look at: the calls that change files, or make changes durable.
CALLS = (
    "openat,write,pwrite64,ftruncate,fallocate,fsync,close,rename,renameat,renameat2,link,linkat,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir"
)
#: Points that found something once: a folder that is flushed after picture and sidecar got their names.
TELLING = {f"fsync {JOB} 2", f"fsync {JOB} 3"}
#: A cache may be torn in any way, and SQLite looks after its own.
CACHE = (".sqlite", "/thumbs/")
_CALL = re.compile(r"^(?P<thread>\d+) +(?P<call>\w+)\((?P<arguments>.*)$")
_PATH = re.compile(r'"(?P<text>/[^"]*)"|<(?P<opened>/[^>]*)>')


@dataclass(frozen=True, kw_only=True)
class Point:
    """The `nth` time that one thread makes this call on this path."""

    call: str
    path: str
    nth: int

    def __str__(self) -> str:
        return f"{self.call} {Path(self.path).name} {self.nth}"


class Scene:
    """One workspace that is emptied and served again and again."""

    def __init__(self, folder: Path, strace: str, text: str) -> None:
        self.text = text
        self.workspace = Workspace(folder / "work")
        self._strace = strace
        self._trace = folder / "trace"
        self.errors = ""

    def reset(self) -> None:
        """Empty the workspace; the folders stay, and so do the paths of all that is made in them."""
        for folder in (self.workspace.inbox, self.workspace.outputs, self.workspace.root / ".hotfolder"):
            for path in folder.iterdir() if folder.exists() else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.workspace.drop("mug.toml", self.text)

    def run(self, *inject: str) -> int:
        """Serve until nothing is left to do, under strace."""
        command = [self._strace, "-f", "-y", "-qq", "-o", str(self._trace), "-e", f"trace={CALLS}", *inject]
        process = subprocess.run(
            [*command, sys.executable, str(SERVED), str(self.workspace.root), "--drain"],
            env={**os.environ, **self.workspace.variables()},
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        self.errors = process.stderr
        return process.returncode

    def points(self) -> list[Point]:
        """Every call of the last run that changed something in the workspace."""
        counts: Counter[tuple[str, str, str]] = Counter()
        found = []
        for line in self._trace.read_text(errors="replace").splitlines():
            match = _CALL.match(line)
            if match is None or (match["call"] == "openat" and "O_CREAT" not in line and "O_RDWR" not in line):
                continue
            paths = [one["text"] or one["opened"] for one in _PATH.finditer(match["arguments"])]
            ours = [path for path in paths if path.startswith(str(self.workspace.root))]
            if not ours or any(word in ours[0] for word in CACHE):
                continue
            key = (match["thread"], match["call"], ours[0])
            counts[key] += 1
            found.append(Point(call=match["call"], path=ours[0], nth=counts[key]))
        # Closing what was only read changes nothing.
        written = {point.path for point in found if point.call != "close"}
        return [point for point in dict.fromkeys(found) if point.path in written]

    def start_again(self) -> None:
        """Serve until nothing is left to do, undisturbed."""
        assert Served(self.workspace.settings(), PaintedEngine(), drain=True).join() == 0


@pytest.fixture(scope="module", params=JOBS)
def scene(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Scene:
    strace = shutil.which("strace")
    if strace is None:
        if os.environ.get("REQUIRE_TEST_TOOLS"):
            pytest.fail("strace is required here")
        pytest.skip("strace is not installed")
    return Scene(tmp_path_factory.mktemp("scene"), strace, JOBS[request.param])


@pytest.fixture(scope="module")
def points(scene: Scene) -> tuple[list[Point], object]:
    """Every call that can be chosen, and the pixels of the undisturbed run."""
    scene.reset()
    code = scene.run()
    if "ptrace" in scene.errors and code:
        pytest.skip("strace may not trace here")
    assert code == 0, scene.errors
    found = scene.points()
    print(f"{len(found)} calls that change files")
    return found, pixels(check_promise(scene.workspace, {JOB: scene.text}))


def chosen(
    points: list[Point], count: int, seed: int, wanted: Callable[[Point], bool] = lambda _: True
) -> Iterator[Point]:
    """A sample with every kind of call in it, or all of them."""
    possible = [point for point in points if wanted(point)]
    if os.environ.get("FAULT_POINTS") == "all":
        yield from possible
        return
    chance = random.Random(seed)
    chance.shuffle(possible)
    first = [point for point in possible if str(point) in TELLING]
    first += list({point.call: point for point in possible}.values())
    yield from list(dict.fromkeys([*first, *possible]))[:count]


@pytest.mark.timeout(1200)
def test_a_kill_at_any_file_changing_call_keeps_the_promise(
    scene: Scene, points: tuple[list[Point], dict[str, object]]
) -> None:
    possible, undisturbed = points
    killed = 0
    for point in chosen(possible, 13, seed=1):
        scene.reset()
        code = scene.run("-P", point.path, "-e", f"inject={point.call}:signal=SIGKILL:when={point.nth}")
        assert code in {0, 137, -9}, (point, code, scene.errors)
        killed += code != 0
        scene.start_again()
        try:
            ledgers = check_promise(scene.workspace, {JOB: scene.text})
            assert pixels(ledgers) == undisturbed
            assert ledgers[JOB].attempt in {1, 2}
        except AssertionError as error:
            raise AssertionError(f"killed at {point}") from error
    print(f"killed at {killed} of {len(possible)} calls")
    assert killed >= 10


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("error", "count"), [("ENOSPC", 3), ("EIO", 4), ("EACCES", 2)])
def test_an_error_of_any_file_changing_call_keeps_the_promise(
    scene: Scene, points: tuple[list[Point], dict[str, object]], error: str, count: int
) -> None:
    """It may cost the job a picture, which its status then tells; a full disk costs nothing but time."""
    possible, undisturbed = points

    def can_fail(point: Point) -> bool:
        """Before it serves, a daemon may end with an error: systemd starts it again. `close` tells nothing new."""
        return point.call != "close" and "/.hotfolder" not in point.path.removeprefix(str(scene.workspace.inbox))

    for point in chosen(possible, count, seed=2, wanted=can_fail):
        scene.reset()
        code = scene.run("-P", point.path, "-e", f"inject={point.call}:error={error}:when={point.nth}")
        try:
            assert code in {0, 3}, scene.errors
            state = scene.workspace.state(JOB)
            assert state in ENDS, scene.errors
            if error == "ENOSPC":
                assert pixels(check_promise(scene.workspace, {JOB: scene.text})) == undisturbed
            else:
                check_job(scene.workspace.outputs / JOB, scene.text, state)
        except AssertionError as failed:
            raise AssertionError(f"{error} of {point}: {scene.errors[-3000:]}") from failed
