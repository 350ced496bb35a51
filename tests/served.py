"""A daemon with a painted engine, as a program of its own: for tests that kill it.

    python tests/served.py WORKSPACE [--step-ms N] [--at STEP ACTION] [--drain]

ACTION is what happens at that step of a job whose prompt is "deadly": segv, abort, hang, break or fail; with "-second"
behind it, of the picture with an even seed only. Settings come from HOTFOLDER_* as always. The exit code is that of
`serve`.
"""

import argparse
import ctypes
import os
import sys
import threading
from pathlib import Path

from painted import PaintedEngine

from hotfolder import daemon
from hotfolder.engine import BrokenDevice, Request
from hotfolder.settings import Settings

_PIECE_MS = 20.0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--step-ms", type=float, default=0.0)
    parser.add_argument("--at", nargs=2, metavar=("STEP", "ACTION"))
    parser.add_argument("--drain", action="store_true")
    options = parser.parse_args()
    never = threading.Event()

    def before_step(request: Request, step: int) -> None:
        # Nobody asks this one what it made, and it may run for long.
        engine.made.clear()
        # In pieces: a process that is stopped in the middle of a step has the rest of it still before it.
        whole, rest = divmod(options.step_ms, _PIECE_MS)
        for piece_ms in (*[_PIECE_MS] * int(whole), rest):
            never.wait(piece_ms / 1000)
        if options.at and request.prompt == "deadly" and step == int(options.at[0]):
            action, _, second = options.at[1].partition("-")
            if not second or request.seed % 2 == 0:
                act(action)

    engine = PaintedEngine(before_step=before_step)
    return daemon.serve(Settings.read(options.workspace), engine, drain=options.drain)


def act(action: str) -> None:
    """Do what a bad driver, a bad model or a bad day does."""
    match action:
        case "segv":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "hang":
            threading.Event().wait()
        case "break":
            raise BrokenDevice("CUDA error: an illegal memory access was encountered")
        case "fail":
            raise RuntimeError("no")
        case _:
            raise ValueError(action)


if __name__ == "__main__":
    sys.exit(main())
