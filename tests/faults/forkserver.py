"""Forks daemons: a program that has imported all they need, so that a start takes milliseconds.

    python tests/faults/forkserver.py painted|tiny

Each line of its standard input is an `Order` as JSON, each line of its output what becomes of it: "pid N", "thread N
NAME" for every thread that begins, "ready N" once strace may attach to that thread, which waits for it, "exit N".
"""

import ctypes
import gc
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from painted import PaintedEngine
from waiting import wait_until

from hotfolder import daemon
from hotfolder.engine import Engine, Request
from hotfolder.front.call import Group, run
from hotfolder.settings import Settings

MAIN = "MainThread"
#: From linux/prctl.h.
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Order:
    """One daemon: it serves until nothing is left to do."""

    workspace: str
    #: Where all that it says goes.
    log: str
    #: HOTFOLDER_* for its settings.
    environ: dict[str, str] = field(default_factory=dict)
    #: How long a step takes, from the second picture of the process on.
    step_ms: float = 0.0
    #: The thread that waits for strace; None: nobody waits.
    traced: str | None = None


def main() -> None:
    _die_with_parent()
    kind = sys.argv[1]
    say = _speaker()
    if kind == "tiny":
        _import_models()
    _warm_up()
    for line in sys.stdin:
        order = Order(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            _be_daemon(order, kind, say)
        say(f"pid {pid}")
        _, status = os.waitpid(pid, 0)
        say(f"exit {os.waitstatus_to_exitcode(status)}")


def _die_with_parent() -> None:
    """A campaign that is killed leaves no daemons behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _speaker() -> Callable[[str], None]:
    """Return what writes a line to our standard output, which daemons do not inherit under that number."""
    pipe = os.dup(sys.stdout.fileno())

    def say(line: str) -> None:
        os.write(pipe, f"{line}\n".encode())

    return say


def _warm_up() -> None:
    """Serve one job, so that also what is imported at need is there; then what stands is not collected any more."""
    with tempfile.TemporaryDirectory() as folder:
        inbox = Path(folder, "jobs_inbox")
        (inbox / "scheduled").mkdir(parents=True)
        (inbox / "a.toml").write_text('prompt = "a mug"\nsteps = 1\nwidth = 16\nheight = 16\n')
        (inbox / "scheduled" / "b.toml").write_text('prompt = "a mug"\n[schedule]\ncron = "0 0 1 1 *"\n')
        settings = Settings.read(Path(folder), _quick(folder))
        with Path("/dev/null").open("w") as nowhere:
            assert daemon.serve(settings, PaintedEngine(), drain=True, log_to=nowhere) == 0
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()


def _quick(folder: str) -> dict[str, str]:
    names = {"INBOX_SETTLE_S": "0.01", "INBOX_SCAN_S": "0.05", "OUTPUTS_MIN_FREE_GB": "0", "MODELS_DIR": folder}
    return {f"HOTFOLDER_{name}": value for name, value in names.items()}


def _import_models() -> None:
    """Import what takes seconds; nothing is computed, since threads of a pool would not survive the fork."""
    import diffusers
    import torch
    import transformers

    torch.set_num_threads(1)
    for name in ("FluxPipeline", "FluxTransformer2DModel", "AutoencoderKL", "FlowMatchEulerDiscreteScheduler"):
        getattr(diffusers, name)
    for name in ("CLIPTextModel", "CLIPTokenizer", "T5EncoderModel", "T5TokenizerFast"):
        getattr(transformers, name)


def _be_daemon(order: Order, kind: str, say: Callable[[str], None]) -> None:
    """Serve as `hotfolder serve --drain` does, with another engine; never returns."""
    code = 70
    try:
        _die_with_parent()
        _redirect(Path(order.log))
        threading.setprofile(_announce(order.traced, say))
        _introduce(MAIN, order.traced, say)
        code = run(_door(lambda: _serve(order, kind)), ["serve"])
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def _redirect(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def _serve(order: Order, kind: str) -> int:
    settings = Settings.read(Path(order.workspace), order.environ)
    return daemon.serve(settings, _engine(order, settings, kind), drain=True)


def _engine(order: Order, settings: Settings, kind: str) -> Engine:
    if kind == "tiny":
        from hotfolder.gpu import GpuEngine

        return GpuEngine(settings)
    never = threading.Event()

    def before_step(_: Request, __: int) -> None:
        if engine.made:
            never.wait(order.step_ms / 1000)

    engine = PaintedEngine(before_step=before_step)
    return engine


def _door(serve: Callable[[], int]) -> Group:
    """The command line with this one command: errors end in it as a user would see them."""
    group = Group(sections={})
    group.command("serve")(serve)
    return group


# --- threads ---


def _announce(traced: str | None, say: Callable[[str], None]) -> Callable[[FrameType, str, object], None]:
    """Return what `threading.setprofile` calls first thing in every thread."""

    def begin(_: FrameType, __: str, ___: object) -> None:
        sys.setprofile(None)
        _introduce(threading.current_thread().name, traced, say)

    return begin


def _introduce(name: str, traced: str | None, say: Callable[[str], None]) -> None:
    number = threading.get_native_id()
    say(f"thread {number} {name}")
    if name != traced:
        return
    say(f"ready {number}")
    wait_until(lambda: _is_traced(number), what="strace attaches")
    # The tracer has seized it, but stops it a moment later: here, not in the middle of what it is to count.
    threading.Event().wait(0.002)


def _is_traced(number: int) -> bool:
    with Path(f"/proc/self/task/{number}/status").open() as status:
        return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in status)


def as_line(order: Order) -> str:
    """Return an order as the program reads it."""
    return json.dumps(asdict(order)) + "\n"


if __name__ == "__main__":
    main()
