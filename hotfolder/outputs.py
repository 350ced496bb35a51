"""Encode and write a picture, then its sidecar; off the GPU thread."""

import hashlib
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hotfolder import durable
from hotfolder.errors import JobError
from hotfolder.metadata import parameters_text, xmp_packet
from hotfolder.record import Record, dump, load

#: The PNG text chunk that holds our own record, as JSON.
CHUNK: Final = "hotfolder"

#: zlib's fastest level with run lengths only: an eighth of the default's time, and on photo-like pictures smaller.
_COMPRESS_LEVEL: Final = 1
_COMPRESS_TYPE: Final = 3


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


def write(folder: Path, stem: str, image: Image.Image, record: Record) -> Written:
    """Write `STEM.png` and `STEM.png.toml` into `folder`; on return both survive a power cut.

    A picture without a sidecar was left by a crash and is replaced. A finished one is never written again: where it is
    the same candidate of the same plan, a crash came before it could be noted, and it stays as it is.

    Raises:
        RuntimeError: another finished picture of this name stands already, which is a bug of the caller.
        JobError: `changed-file`: the same picture stands, but is not as it was written.
        OSError: the disk is full, or the folder cannot be written to.
    """
    picture, sidecar = _paths(folder, stem)
    standing = find(folder, stem)
    if standing is not None:
        before = load(sidecar.read_bytes())
        if (before.plan_sha256, before.candidate) != (record.plan_sha256, record.candidate):
            raise RuntimeError(f"{picture} is finished; a finished picture is never overwritten")
        return standing
    # Without its picture a sidecar would for a moment speak of the one that is being written.
    durable.remove(sidecar)
    started = time.monotonic()
    data = encode_png(image, record)
    durable.write(picture, data)
    durable.sync_folder(folder)
    seconds = time.monotonic() - started
    digest = hashlib.sha256(data).hexdigest()
    timings = {**record.timings, "save": seconds}
    # Sidecar last, and only after the picture's name is on disk too: its presence means the picture is whole.
    durable.write(sidecar, dump(record.model_copy(update={"file_sha256": digest, "timings": timings})))
    durable.sync_folder(folder)
    return Written(file=picture.name, sha256=digest, pixels_sha256=record.pixels_sha256, seconds=seconds)


def find(folder: Path, stem: str) -> Written | None:
    """Return the picture that an earlier process finished, perhaps without noting it; None where there is none.

    Raises:
        JobError: `changed-file`: picture or sidecar are not as they were written.
        OSError: they cannot be read.
    """
    picture, sidecar = _paths(folder, stem)
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


def discard(folder: Path, stem: str) -> None:
    """Remove a picture that a power cut left unfinished; its sidecar first, so that nobody takes it for whole."""
    picture, sidecar = _paths(folder, stem)
    durable.remove(sidecar)
    durable.remove(picture)
    durable.sync_folder(folder)


def encode_png(image: Image.Image, record: Record) -> bytes:
    """Return a PNG that carries A1111's text, our own record and the mark that a model made it."""
    info = PngInfo()
    _add_text(info, "parameters", parameters_text(record))
    _add_text(info, CHUNK, record.model_dump_json(by_alias=True, exclude_none=True))
    info.add_itxt("XML:com.adobe.xmp", xmp_packet(record))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, compress_level=_COMPRESS_LEVEL, compress_type=_COMPRESS_TYPE)
    return buffer.getvalue()


def _add_text(info: PngInfo, key: str, text: str) -> None:
    """Latin-1 in a tEXt chunk is read as UTF-8 by some programs, so that chunk is kept for plain ASCII."""
    if text.isascii():
        info.add_text(key, text)
    else:
        info.add_itxt(key, text)


def _paths(folder: Path, stem: str) -> tuple[Path, Path]:
    return folder / f"{stem}.png", folder / f"{stem}.png.toml"


def _changed(path: Path) -> JobError:
    return JobError(
        "changed-file",
        f"{path.name} was changed after it was finished",
        "put it back as it was, or move picture and sidecar away to have it made again",
    )
