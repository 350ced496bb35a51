"""Requests for the tiny models, and what tests ask of the pictures made from them."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from hotfolder.engine import JobStopped, Made, Request, StopReason
from hotfolder.gpu import GpuEngine
from hotfolder.presets import Model
from hotfolder.settings import Settings

#: One is as quick as two for pictures this small, and does not mind what else the machine does.
THREADS = 1


def settings_of(workspace: Path, **changes: Any) -> Settings:
    return Settings(workspace=workspace, device="cpu", threads=THREADS, download=False, **changes)


def engine_in(workspace: Path, **changes: Any) -> GpuEngine:
    return GpuEngine(settings_of(workspace, **changes))


def model_of(repo: str, **changes: Any) -> Model:
    return Model(repo=repo, dtype="float32", **changes)


def source(width: int = 128, height: int = 128) -> Image.Image:
    """A picture with a different colour in each pixel, as far as 8 bits go."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, Image.radial_gradient("L").resize((width, height))))


def mask(width: int = 128, height: int = 128) -> Image.Image:
    """White, so repainted, in the middle."""
    picture = Image.new("L", (width, height), 0)
    picture.paste(255, (width // 4, height // 4, width * 3 // 4, height * 3 // 4))
    return picture


_BASIS = Request(
    kind="text2img",
    preset="noise",
    model=model_of("hotfolder/noise"),
    prompt="a red mug on a table",
    seed=7,
    width=128,
    height=128,
    steps=4,
    guidance=3.5,
    max_sequence_length=64,
)

#: One request of each sort that there is.
REQUESTS = {
    "text2img": _BASIS,
    "img2img": replace(_BASIS, pictures={"image": source()}, strength=0.75),
    "kontext": replace(
        _BASIS,
        kind="kontext",
        preset="noise-kontext",
        model=model_of("hotfolder/noise-kontext"),
        pictures={"image": source()},
    ),
    "fill": replace(
        _BASIS,
        kind="fill",
        preset="noise-fill",
        model=model_of("hotfolder/noise-fill"),
        pictures={"image": source(), "mask": mask()},
    ),
    "control": replace(
        _BASIS,
        kind="control",
        preset="noise-control",
        model=model_of("hotfolder/noise-control"),
        pictures={"control": source()},
    ),
    "redux": replace(
        _BASIS,
        kind="redux",
        preset="noise-redux",
        model=model_of("hotfolder/noise-redux", base="hotfolder/noise"),
        pictures={"image": source()},
    ),
}


def ignore(_phase: str, _step: int, _steps: int) -> None:
    """A tick of a cell that nobody stops or looks at."""


def stop_at(phase: str, step: int = 0) -> Callable[[str, int, int], None]:
    """A tick that cancels at this point."""

    def tick(now: str, done: int, _steps: int) -> None:
        if (now, done) == (phase, step):
            raise JobStopped(StopReason.CANCEL)

    return tick


def pixels(picture: Image.Image) -> str:
    return hashlib.sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes()).hexdigest()


def hash_of(made: Made) -> str:
    return pixels(made.image)


def make_elsewhere(workspace: Path) -> dict[str, Any]:
    """Make one picture of each sort in another process; return their hashes and what else it found."""
    run = subprocess.run(
        [sys.executable, __file__, str(workspace)], capture_output=True, text=True, check=True, timeout=100
    )
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def _main(workspace: Path) -> None:
    engine = engine_in(workspace)
    # Backwards, so that nothing hangs on the order.
    hashes = {name: hash_of(engine.make(request, ignore)) for name, request in reversed(REQUESTS.items())}
    print(json.dumps({"hashes": hashes, "torchvision": "torchvision" in sys.modules}))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
