"""A batch of pictures that needs no model: resize, grey, export; against the same loop in plain Pillow."""

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from conftest import Workspace
from PIL import Image, ImageOps

from bench.daemons import drain
from bench.harness import Bench, Finding, at_least, in_turns, ratios
from bench.photos import photo
from hotfolder import durable

_SOURCE_SIDE: Final = 1536
_SIDE: Final = 768
_THREADS: Final = 2
_PHOTOS: Final = 4
_PNG: Final = {"compress_level": 1, "compress_type": 3}
_JOB: Final = f"""
[matrix]
image = "*.jpg"
[[stages]]
stage = "resize"
width = {_SIDE}
height = {_SIDE}
[[stages]]
stage = "grayscale"
[[stages]]
stage = "export"
"""


def metric(bench: Bench) -> Iterator[Finding]:
    """Both from files to files, each finished picture flushed to the disk."""
    pictures, rounds = bench.size(1000, 30), bench.size(3, 2)
    photos = []
    for seed in range(_PHOTOS):
        buffer = io.BytesIO()
        photo(seed, _SOURCE_SIDE).save(buffer, "JPEG", quality=92)
        photos.append(buffer.getvalue())
    cells: list[float] = []

    def ours() -> float:
        with bench.folder() as folder:
            whole_s, cells_s = served(folder, photos, pictures)
        cells.append(pictures / cells_s)
        return pictures / whole_s

    def theirs() -> float:
        with bench.folder() as folder:
            return pictures / plain_s(folder, photos, pictures)

    pairs = in_turns(ours, theirs, rounds)
    about = f"batch of {pictures:,} pictures (resize, grey, export)"
    against = f"the same loop in plain Pillow on {_THREADS} threads"
    yield Finding(
        metric=f"{about}, its cells",
        against=against,
        unit="pictures/s",
        target=at_least(0.8),
        disk=bench.disk,
        size=pictures,
        note="from the first cell to the end of the job",
        pairs=ratios([(mine, other) for mine, (_, other) in zip(cells, pairs, strict=True)]),
    )
    yield Finding(
        metric=f"{about}, from the start of the daemon",
        against=against,
        unit="pictures/s",
        disk=bench.disk,
        size=pictures,
        note="with admission, and a copy, a hash and a check of each source",
        pairs=ratios(pairs),
    )


def served(folder: Path, photos: list[bytes], pictures: int) -> tuple[float, float]:
    """Return seconds from the start of a daemon to the end of the batch, and from its first cell."""
    workspace = Workspace(folder / "work")
    _lay_out(workspace.inbox, photos, pictures)
    workspace.drop("batch.toml", _JOB)
    started = time.time()
    drain(workspace, WORKER_CPU_THREADS=str(_THREADS))
    status = workspace.status("batch_take01")
    if (status["state"], status["done"]) != ("completed", pictures):
        raise RuntimeError(f"{status['state']}, {status['done']} of {pictures}")
    ended = status["finished_at"].timestamp()
    return ended - started, ended - status["started_at"].timestamp()


def plain_s(folder: Path, photos: list[bytes], pictures: int) -> float:
    """Seconds of the loop that anybody would write, on as many threads."""
    _lay_out(folder, photos, pictures)
    started = time.time()
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(_plain, sorted(folder.glob("*.jpg"))))
    return time.time() - started


def _plain(source: Path) -> None:
    with Image.open(source) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    picture = ImageOps.fit(picture, (_SIDE, _SIDE), Image.Resampling.LANCZOS).convert("L").convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **_PNG)
    durable.write(source.with_suffix(".png"), buffer.getvalue())
    durable.sync_folder(source.parent)


def _lay_out(folder: Path, photos: list[bytes], pictures: int) -> None:
    for number in range(pictures):
        (folder / f"photo-{number:05d}.jpg").write_bytes(photos[number % len(photos)])
