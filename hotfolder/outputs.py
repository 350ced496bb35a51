"""Write a picture, then its sidecar; off the GPU thread. And put both where somebody wants a second copy of them."""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hotfolder import durable, foreign
from hotfolder.encoding import CHUNK, PNG_ENCODING, Encoding, encode, read_record
from hotfolder.errors import JobError
from hotfolder.record import Record, dump, load

__all__ = [
    "CHUNK",
    "PNG_ENCODING",
    "Encoding",
    "Written",
    "discard",
    "find",
    "publish",
    "read_record",
    "sidecar_of",
    "write",
]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A picture that stands on disk, whole, with its sidecar."""

    #: Name in the job's folder.
    file: str
    #: Of the file.
    sha256: str
    #: Of mode, size and bytes before encoding.
    pixels_sha256: str
    #: From the pixels in memory to the picture on disk.
    seconds: float
    #: The one that was used, perhaps lower than asked; None for PNG, and where an earlier process wrote the picture.
    quality: int | None = None


def write(folder: Path, stem: str, image: Image.Image, record: Record, how: Encoding = PNG_ENCODING) -> Written:
    """Write a picture such as `STEM.png`, then `STEM.png.toml`, into `folder`; on return both survive a power cut.

    Where the quality had to be lowered, a notice in the sidecar says so. A picture without a sidecar was left by a
    crash and is replaced. A finished one is never written again: where it is the same candidate of the same plan, a
    crash came before it could be noted, and it stays as it is.

    Raises:
        RuntimeError: another finished picture of this name stands already, which is a bug of the caller.
        JobError: `changed-file`: the same picture stands, but is not as it was written; `output-too-large`: see
            `encoding.encode`.
        OSError: the disk is full, or the folder cannot be written to.
    """
    picture, sidecar = _paths(folder, stem, how.suffix)
    standing = find(folder, stem, how.suffix)
    if standing is not None:
        before = load(sidecar.read_bytes())
        if (before.plan_sha256, before.candidate) != (record.plan_sha256, record.candidate):
            raise RuntimeError(f"{picture} is finished; a finished picture is never overwritten")
        return standing
    # Without its picture a sidecar would for a moment speak of the one that is being written.
    durable.remove(sidecar)
    started = time.monotonic()
    encoded = encode(image, record, how)
    durable.write(picture, encoded.data)
    durable.sync_folder(folder)
    seconds = time.monotonic() - started
    digest = hashlib.sha256(encoded.data).hexdigest()
    known = {
        "file_sha256": digest,
        "timings": {**record.timings, "save": seconds},
        "notices": (*record.notices, *_notices(how, encoded.quality)),
    }
    # Sidecar last, and only after the picture's name is on disk too: its presence means the picture is whole.
    durable.write(sidecar, dump(record.model_copy(update=known)))
    durable.sync_folder(folder)
    return Written(
        file=picture.name,
        sha256=digest,
        pixels_sha256=record.pixels_sha256,
        seconds=seconds,
        quality=encoded.quality,
    )


def find(folder: Path, stem: str, suffix: str = PNG_ENCODING.suffix) -> Written | None:
    """Return the picture that an earlier process finished, perhaps without noting it; None where there is none.

    Raises:
        JobError: `changed-file`: picture or sidecar are not as they were written.
        OSError: they cannot be read.
    """
    picture, sidecar = _paths(folder, stem, suffix)
    try:
        text, data = sidecar.read_bytes(), picture.read_bytes()
    except FileNotFoundError:
        return None
    try:
        record = load(text)
    except ValueError as error:
        raise _changed(sidecar) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != record.file_sha256:
        raise _changed(picture)
    seconds = record.timings.get("save", 0.0)
    return Written(file=picture.name, sha256=digest, pixels_sha256=record.pixels_sha256, seconds=seconds)


def discard(folder: Path, stem: str, suffix: str = PNG_ENCODING.suffix) -> None:
    """Remove a picture that a power cut left unfinished; its sidecar first, so that nobody takes it for whole."""
    picture, sidecar = _paths(folder, stem, suffix)
    durable.remove(sidecar)
    durable.remove(picture)
    durable.sync_folder(folder)


def publish(file: str, folder: Path, where: Path) -> Path:
    """Put a finished picture of `folder` into `where` too, then its sidecar; on return both survive a power cut.

    Under its own name or the next free one: `STEM-2.png`, `STEM-3.png` ... What stands there is never overwritten;
    where it is this very picture, a crash came before that could be noted, and it stays as it is. Both are hard links
    where the file system allows, else copies. `where` itself is made if need be; the folders above it must stand, so
    that a disk which is not mounted is not written beside.

    Returns: the picture in `where`.
    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    if not where.is_dir():
        where.mkdir(exist_ok=True)
        durable.sync_folder(where.parent)
    picture = folder / file
    sidecar = sidecar_of(picture)
    # Raises before anything is put there: a picture without its sidecar would never be seen as whole.
    sidecar.stat()
    number = 1
    while True:
        tail = "" if number == 1 else f"-{number}"
        target = where / f"{picture.stem}{tail}{picture.suffix}"
        beside = sidecar_of(target)
        strange = os.path.lexists(beside) and not _same(sidecar, beside)
        if not strange and _put(picture, target) and _put(sidecar, beside):
            return target
        number += 1


def sidecar_of(picture: Path) -> Path:
    """Return where the sidecar of a picture lies."""
    return picture.with_name(f"{picture.name}.toml")


def _put(source: Path, target: Path) -> bool:
    """Put a file in place, durably; False where another stands there."""
    if not durable.place(source, target) and not _same(source, target):
        return False
    durable.sync_folder(target.parent)
    return True


def _same(ours: Path, other: Path) -> bool:
    """Whether another file has the same bytes; what cannot be read, or is no file, has not."""
    try:
        with foreign.open_file(other) as file:
            return os.fstat(file.fileno()).st_size == ours.stat().st_size and file.read() == ours.read_bytes()
    except OSError:
        return False


def _notices(how: Encoding, quality: int | None) -> tuple[str, ...]:
    if quality is None or quality == how.quality:
        return ()
    return (f"the quality was lowered from {how.quality} to {quality}: max_bytes is {how.max_bytes}",)


def _paths(folder: Path, stem: str, suffix: str) -> tuple[Path, Path]:
    picture = folder / f"{stem}{suffix}"
    return picture, sidecar_of(picture)


def _changed(path: Path) -> JobError:
    return JobError(
        "changed-file",
        f"{path.name} was changed after it was finished",
        "put it back as it was, or move picture and sidecar away to have it made again",
    )
