"""The demo: drops a job of each kind into this workspace, has them made, and names the pictures.

Uses nothing but the folder and the command `hotfolder serve`, as any other program would.
"""

import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFilter

WORKSPACE: Final = Path(__file__).resolve().parent.parent
INBOX: Final = WORKSPACE / "jobs_inbox"
OUTPUTS: Final = WORKSPACE / "outputs"

JOBS: Final = {
    "demo-text2img": 'prompt = "a coffee mug on a wooden table"\nseed = 7\ncount = 2\n',
    "demo-kontext": 'preset = "tiny-kontext"\nprompt = "make the mug blue"\nimage = "demo-mug.png"\nseed = 7\n',
    "demo-fill": (
        'preset = "tiny-fill"\nprompt = "a star on the mug"\nimage = "demo-mug.png"\nmask = "demo-mask.png"\nseed = 7\n'
    ),
    "demo-control": 'preset = "tiny-control"\nprompt = "a mug of glass"\ncontrol = "demo-edges.png"\nseed = 7\n',
    "demo-redux": 'preset = "tiny-redux"\nimage = "demo-mug.png"\nseed = 7\n',
}
ENDS: Final = {"completed", "partial", "failed", "cancelled", "rejected"}
PATIENCE_S: Final = 600.0
#: Grey levels of a step between two pixels that counts as an edge.
EDGE: Final = 40


def main() -> int:
    """Return 0 if every job completed."""
    draw_pictures()
    before = {path.name for path in OUTPUTS.glob("demo-*_take*")}
    for name, text in JOBS.items():
        put(INBOX / f"{name}.toml", text.encode())
    print(f"dropped {len(JOBS)} jobs into {INBOX}", flush=True)
    # Into a file: a pipe that nobody reads would fill up, and hold the daemon.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        command = [sys.executable, "-m", "hotfolder", "--workspace", str(WORKSPACE), "serve", "--drain"]
        with subprocess.Popen(command, stderr=log) as daemon:
            states = follow(before, daemon)
            if daemon.poll() is None and len(states) < len(JOBS):
                daemon.terminate()
        log.seek(0)
        return report(states, log.read().splitlines())


def draw_pictures() -> None:
    """Draw a mug, a mask of the place where its handle is not, and its edges."""
    mug = Image.new("RGB", (256, 256), (214, 178, 130))
    pen = ImageDraw.Draw(mug)
    pen.rectangle((0, 180, 256, 256), fill=(139, 94, 60))
    pen.ellipse((150, 95, 215, 170), outline=(190, 40, 40), width=14)
    pen.rounded_rectangle((70, 70, 170, 200), radius=14, fill=(205, 50, 50))
    pen.ellipse((70, 58, 170, 86), fill=(70, 35, 25))
    mask = Image.new("L", mug.size, 0)
    ImageDraw.Draw(mask).ellipse((88, 105, 152, 169), fill=255)
    edges = (
        mug.convert("L").filter(ImageFilter.FIND_EDGES).point(lambda value: 255 if value > EDGE else 0).convert("RGB")
    )
    for name, image in (("mug", mug), ("mask", mask), ("edges", edges)):
        beside = INBOX / f".demo-{name}.png.tmp"
        image.save(beside, format="PNG")
        beside.replace(INBOX / f"demo-{name}.png")


def put(path: Path, data: bytes) -> None:
    """Drop a file as a careful program does: written beside, then renamed."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_bytes(data)
    beside.replace(path)


def follow(before: set[str], daemon: subprocess.Popen[bytes]) -> dict[str, dict[str, Any]]:
    """Show each change of the new jobs' states until all have ended; return the status of each."""
    shown: dict[str, str] = {}
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        over = daemon.poll() is not None
        states = {
            path.name: status
            for path in OUTPUTS.glob("demo-*_take*")
            if path.name not in before and (status := read(path))
        }
        for job, status in sorted(states.items()):
            line = describe(status)
            if shown.get(job) != line:
                print(f"  {job:<24} {line}", flush=True)
                shown[job] = line
        if over or (len(states) == len(JOBS) and all(status["state"] in ENDS for status in states.values())):
            return states
        time.sleep(0.1)
    return {}


def read(folder: Path) -> dict[str, Any]:
    """Return a job's status.toml, empty while there is none."""
    with suppress(FileNotFoundError):
        return tomllib.loads((folder / "status.toml").read_text(encoding="utf-8"))
    return {}


def describe(status: dict[str, Any]) -> str:
    """Say in a line where a job is."""
    progress = status.get("progress", {})
    if status["state"] == "running" and progress.get("steps"):
        return (
            f"running    candidate {progress['candidate']}, {progress['phase']} {progress['step']}/{progress['steps']}"
        )
    return str(status["state"])


def report(states: dict[str, dict[str, Any]], log: list[str]) -> int:
    """Name the pictures; return the exit code."""
    made = [
        OUTPUTS / job / output["file"] for job, status in sorted(states.items()) for output in status.get("outputs", ())
    ]
    failed = {job: status.get("error", {}) for job, status in states.items() if status["state"] != "completed"}
    print("pictures made:" if made else "no pictures were made")
    for picture in made:
        print(f"  {picture}")
    for job, error in sorted(failed.items()):
        print(f"  {job}: {error.get('message', 'did not complete')}. {error.get('hint', '')}", file=sys.stderr)
    if failed or len(states) < len(JOBS):
        print("\n".join(log[-20:]), file=sys.stderr)
        return 1
    print(f"all of them at a glance: {OUTPUTS / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
