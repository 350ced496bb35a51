"""What every test may ask for: a workspace, and a daemon that serves it."""

import os
import shutil
import subprocess
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from listener import Listener
from painted import PaintedEngine
from PIL import Image
from processes import Process
from waiting import wait_until

from hotfolder import daemon
from hotfolder.clock import Clock
from hotfolder.engine import Engine
from hotfolder.settings import Settings

ENDS = {"completed", "partial", "failed", "cancelled", "rejected"}


class Workspace:
    """A workspace as its user sees it: folders to drop into and to read from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inbox = root / "jobs_inbox"
        self.outputs = root / "outputs"
        self.inbox.mkdir(parents=True)
        self.outputs.mkdir()

    def settings(self, **env: str) -> Settings:
        """Quick to settle and to scan; `env` as in HOTFOLDER_INBOX_EVENTS, without the prefix."""
        return Settings.read(self.root, self.variables(**env))

    def variables(self, **env: str) -> dict[str, str]:
        """The same for a process of its own."""
        quick = {
            "INBOX_SETTLE_S": "0.05",
            "INBOX_SCAN_S": "0.1",
            "OUTPUTS_MIN_FREE_GB": "0",
            # Makes any size, and knows any word as well as another.
            "DEFAULT_PRESET": "noise",
            "MODELS_DIR": str(self.root.parent / "models"),
        }
        return {f"HOTFOLDER_{key}": value for key, value in {**quick, **env}.items()}

    def drop(self, name: str, text: str = 'prompt = "a mug"\nsteps = 2\n', *, lane: str = "") -> Path:
        """Drop a file as a careful program does: written beside, then renamed."""
        folder = self.inbox / lane
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{name[:100]}.tmp"
        beside.write_text(text, encoding="utf-8")
        return beside.rename(folder / name)

    def picture(self, name: str, colour: str = "red", size: tuple[int, int] = (64, 64)) -> Path:
        """Drop a picture."""
        beside = self.inbox / f".{Path(name).name}.tmp"
        (self.inbox / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(beside, format="PNG")
        return beside.rename(self.inbox / name)

    def status(self, job: str) -> dict[str, Any]:
        """What status.toml of a job says; empty while there is none."""
        with suppress(FileNotFoundError):
            return tomllib.loads((self.outputs / job / "status.toml").read_text(encoding="utf-8"))
        return {}

    def daemon_status(self) -> dict[str, Any]:
        """What outputs/status.toml says."""
        with suppress(FileNotFoundError):
            return tomllib.loads((self.outputs / "status.toml").read_text(encoding="utf-8"))
        return {}

    def state(self, job: str) -> str:
        """The state of a job, "" while it is not there."""
        return str(self.status(job).get("state", ""))

    def wait_for(self, job: str, *states: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """Wait until a job is in one of these states (by default any end), and return its status."""
        wanted = set(states) or ENDS
        wait_until(lambda: self.state(job) in wanted, timeout_s, f"{job} in {wanted}, is {self.status(job)}")
        return self.status(job)

    def jobs(self) -> list[str]:
        """All takes that stand."""
        return sorted(path.name for path in self.outputs.iterdir() if path.is_dir() and not path.name.startswith("."))


class Served:
    """A daemon in a thread."""

    def __init__(self, settings: Settings, engine: Engine, **options: Any) -> None:
        self.engine = engine
        self.stop_event = threading.Event()
        self.result: int | None = None
        self.error: BaseException | None = None
        self._options = options
        self._thread = threading.Thread(target=self._run, args=(settings,), name="served")
        self._thread.start()

    def _run(self, settings: Settings) -> None:
        try:
            self.result = daemon.serve(settings, self.engine, stop=self.stop_event, **self._options)
        except BaseException as error:  # noqa: BLE001 - shown by `stop`
            self.error = error

    def stop(self) -> int | None:
        """End it in order."""
        self.stop_event.set()
        return self.join()

    def join(self, timeout_s: float = 60.0) -> int | None:
        """Wait until it has ended by itself."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the daemon does not end"
        if self.error is not None:
            raise self.error
        return self.result


Serve = Callable[..., Served]
Spawn = Callable[..., Process]
SmallDisk = Callable[..., Path]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace for tens of thousands of files, in memory where there is room, gone after the test."""
    memory = Path("/dev/shm")
    in_memory = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2e9
    folder = Path(tempfile.mkdtemp(prefix="hotfolder-", dir=memory if in_memory else tmp_path))
    yield Workspace(folder / "work")
    shutil.rmtree(folder)


@pytest.fixture
def serve(workspace: Workspace) -> Iterator[Serve]:
    """Starts a daemon on the workspace; with a painted engine unless another is given."""
    running: list[Served] = []

    def start(
        engine: Engine | None = None, *, clock: Clock | None = None, env: dict[str, str] | None = None, **options: Any
    ) -> Served:
        options |= {"clock": clock} if clock else {}
        served = Served(workspace.settings(**(env or {})), engine or PaintedEngine(), **options)
        running.append(served)
        return served

    yield start
    for served in running:
        with suppress(Exception):
            served.stop()


@pytest.fixture
def spawn(workspace: Workspace, tmp_path: Path) -> Iterator[Spawn]:
    """Starts a daemon with a painted engine on the workspace, as a process of its own: see tests/served.py."""
    running: list[Process] = []

    def start(*options: str, on: Workspace | None = None, **more: Any) -> Process:
        process = Process(on or workspace, *options, log_file=tmp_path / "serve.log", **more)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    """Systemd's end of the notification socket."""
    found = Listener(str(tmp_path / "notify"))
    yield found
    found.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mounts a file system of so many kB below the test's folder; skips where we may not."""
    mounted: list[Path] = []

    def mount(size_kb: int, name: str = "disk") -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "hotfolder-test", str(folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("mounting a small disk needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def needs_tool() -> Callable[[str], str]:
    """Return the path of a program; a test that needs it is skipped without it, or fails where tools are required."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None and os.environ.get("REQUIRE_TEST_TOOLS"):
            pytest.fail(f"{name} is required here")
        if path is None:
            pytest.skip(f"{name} is not installed")
        return str(path)

    return find
