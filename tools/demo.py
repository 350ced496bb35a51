"""The demo: drops a batch of prompts and a job of each other kind here, has them made, and names the pages.

Uses nothing but the folder and the command `hotfolder serve`, as any other program would.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw

WORKSPACE: Final = Path(__file__).resolve().parent.parent
INBOX: Final = WORKSPACE / "jobs_inbox"
OUTPUTS: Final = WORKSPACE / "outputs"

PROMPTS: Final = (
    "a red circle on a blue background",
    "a large yellow star at night",
    "a green tree on white",
    "a small white house under the stars at night",
    "an orange fish on a blue background",
    "a pink heart on black",
    "a purple ring on a yellow background",
    "a black mug in the middle on orange",
    "a red house and a yellow sun by day",
    "a white moon at the top right at night",
    "a white square above a black triangle on a pink background",
    "a red heart, a yellow star and a blue circle on white",
)
JOBS: Final = {
    "demo-prompts": f"seed = 7\n[matrix]\nprompt = {json.dumps(PROMPTS)}\n",
    "demo-edit": 'preset = "tiny-kontext"\nprompt = "make the circle blue"\nimage = "demo-circle.png"\nseed = 7\n',
    "demo-fill": (
        'preset = "tiny-fill"\nprompt = "a blue heart"\nimage = "demo-circle.png"\nmask = "demo-mask.png"\nseed = 7\n'
    ),
    "demo-control": (
        'preset = "tiny-control"\nprompt = "an orange house on a blue background"\nimage = "demo-house.png"\nseed = 7\n'
        '[[stages]]\nstage = "prepare"\ncontrol = "canny"\n'
        '[[stages]]\nstage = "generate"\n[[stages]]\nstage = "export"\n'
    ),
    "demo-variations": 'preset = "tiny-redux"\nimage = "demo-circle.png"\nseed = 7\ncount = 2\n',
}
ENDS: Final = {"completed", "partial", "failed", "cancelled", "rejected"}
PATIENCE_S: Final = 600.0
#: Pixels: the tiny models make squares of this size.
SIDE: Final = 128
#: Of the sheet: between two pictures, and of the prompt below each.
GAP: Final = 12
TEXT_HEIGHT: Final = 52


def main() -> int:
    """Return 0 if every job completed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="write all prompts, with their pictures, as one picture")
    options = parser.parse_args()
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
        code = report(states, log.read().splitlines())
    if options.sheet is not None and code == 0:
        draw_sheet(states, options.sheet)
    return code


def draw_pictures() -> None:
    """Draw a circle, a mask of the free place beside it, and the outline of a house."""
    circle = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(circle).ellipse((16, 40, 64, 88), fill=(214, 40, 40))
    mask = Image.new("L", circle.size, 0)
    ImageDraw.Draw(mask).rectangle((68, 31, 126, 97), fill=255)
    house = Image.new("RGB", circle.size, "white")
    pen = ImageDraw.Draw(house)
    pen.polygon([(64, 37), (91, 61), (84, 61), (84, 89), (44, 89), (44, 61), (37, 61)], fill="black")
    pen.rectangle((58, 72, 70, 89), fill="white")
    for name, image in (("circle", circle), ("mask", mask), ("house", house)):
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


def draw_sheet(states: dict[str, dict[str, Any]], file: Path) -> None:
    """Draw all pictures in rows, below each what was asked for."""
    jobs = {job.rpartition("_")[0]: job for job in states}
    tiles = [tile for name, text in JOBS.items() for tile in tiles_of(jobs[name], tomllib.loads(text), states)]
    across, high = 4, SIDE + TEXT_HEIGHT
    rows = -(-len(tiles) // across)
    sheet = Image.new("RGB", (across * (SIDE + GAP) - GAP, rows * high), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (path, text) in enumerate(tiles):
        left, top = number % across * (SIDE + GAP), number // across * high
        with Image.open(path) as picture:
            sheet.paste(picture, (left, top))
        pen.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), outline="#cccccc")
        pen.multiline_text((left, top + SIDE + 3), "\n".join(textwrap.wrap(text, 24)), fill="black", font_size=11)
    sheet.save(file)


def tiles_of(job: str, told: dict[str, Any], states: dict[str, dict[str, Any]]) -> Iterator[tuple[Path, str]]:
    """Yield what a job was shown, if it has a prompt, and what it made, each with what is to be read below it."""
    outputs = states[job]["outputs"]
    if "matrix" in told:
        prompts = told["matrix"]["prompt"]
    elif "prompt" in told:
        yield OUTPUTS / job / "sources" / (source := told.get("mask", told["image"])), source
        prompts = [told["prompt"]]
    else:
        # Its source is shown with the edit.
        prompts = [f"a variation of {told['image']}"] * len(outputs)
    for prompt, output in zip(prompts, outputs, strict=True):
        yield OUTPUTS / job / output["file"], prompt


if __name__ == "__main__":
    sys.exit(main())
