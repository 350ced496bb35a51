"""A batch of pictures that needs no model: resize, grey, export; against the same loop in plain Pillow."""

import hashlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from conftest import Workspace
from PIL import Image, ImageOps

from bench.daemons import drain
from bench.harness import Bench, Finding, at_least, in_turns, ratios
from bench.photos import photo
from hotfolder import durable
from hotfolder.thumbs import thumbnail

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
    thorough: list[float] = []

    def ours() -> float:
        with bench.folder() as folder:
            whole_s, cells_s = served(folder, photos, pictures)
        cells.append(pictures / cells_s)
        return pictures / whole_s

    def theirs() -> float:
        with bench.folder() as folder:
            thorough.append(pictures / loop_s(folder, photos, pictures, _Thorough().make))
        with bench.folder() as folder:
            return pictures / loop_s(folder, photos, pictures, _plain)

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
        metric=f"{about}, its cells, against what they leave",
        against="the same loop, that leaves as much: checkpoint, sidecar, thumbnail, hashes, a journal",
        unit="pictures/s",
        disk=bench.disk,
        size=pictures,
        note="what a batch could reach that can go on after a crash",
        pairs=ratios(list(zip(cells, thorough, strict=True))),
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


def loop_s(folder: Path, photos: list[bytes], pictures: int, make: Callable[[Path], None]) -> float:
    """Seconds of a loop over all photos, on as many threads."""
    _lay_out(folder, photos, pictures)
    started = time.time()
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(make, sorted(folder.glob("*.jpg"))))
    return time.time() - started


def _plain(source: Path) -> None:
    """What anybody would write."""
    _put(source.with_suffix(".png"), _png(_grey(_resized(source))))


class _Thorough:
    """The same, and all that a batch leaves which can go on after a crash; each file is flushed."""

    def __init__(self) -> None:
        self._journal = threading.Lock()

    def make(self, source: Path) -> None:
        first = _resized(source)
        _hash(first)
        _put(source.with_suffix(".work.png"), _png(first))
        self._note(source)
        second = _grey(first)
        _hash(second)
        _put(source.with_suffix(".png"), _png(second))
        _put(source.with_suffix(".png.toml"), b"x" * 2500)
        self._note(source)
        durable.write(source.with_suffix(".webp"), thumbnail(second), sync=False)

    def _note(self, source: Path) -> None:
        with self._journal, (source.parent / "journal").open("ab") as journal:
            journal.write(b"x" * 1200)
            journal.flush()
            os.fsync(journal.fileno())


def _resized(source: Path) -> Image.Image:
    with Image.open(source) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    return ImageOps.fit(picture, (_SIDE, _SIDE), Image.Resampling.LANCZOS)


def _grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


def _hash(picture: Image.Image) -> None:
    hashlib.sha256(picture.tobytes()).hexdigest()


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **_PNG)
    return buffer.getvalue()


def _put(path: Path, data: bytes) -> None:
    durable.write(path, data)
    durable.sync_folder(path.parent)


def _lay_out(folder: Path, photos: list[bytes], pictures: int) -> None:
    for number in range(pictures):
        (folder / f"photo-{number:05d}.jpg").write_bytes(photos[number % len(photos)])
