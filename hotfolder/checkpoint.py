"""What a cell hands on, as it lies in work/: PNG files, each of which says which cell made it and what it should hold.

A lost journal can be made again from them, and a file that was changed is found out.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hotfolder import durable, journal, outputs, png
from hotfolder.clock import Moment
from hotfolder.engine import Box
from hotfolder.errors import JobError
from hotfolder.journal import Event, Kept, Output
from hotfolder.names import shown
from hotfolder.outputs import Written
from hotfolder.record import Record, pixels_sha256
from hotfolder.record import load as load_record
from hotfolder.stages import Work

WORK: Final = "work"
#: The PNG text chunk that holds the line of the journal.
_CHUNK: Final = "hotfolder-cell"
_COMPRESS_LEVEL: Final = 1
_COMPRESS_TYPE: Final = 3
#: The text of a picture that somebody else put there may be anything.
_MAX_TEXT: Final = 1 << 20

#: (thing, file, sha256), as in `Kept`.
Files = tuple[tuple[str, str, str], ...]


def things_of(work: Work) -> dict[str, Image.Image]:
    """Return what stands after a cell: thing, such as "picture" or "picture:16x9", and its pixels."""
    things = {f"picture:{variant}" if variant else "picture": picture for variant, picture in work.pictures.items()}
    if work.mask is not None:
        things["mask"] = work.mask
    if work.control is not None:
        things["control"] = work.control
    return things


def name_of(candidate: int, stage: int, id_: str, thing: str) -> str:
    """Return the file of a cell, below the job's folder."""
    what = "" if thing == "picture" else f"_{thing.removeprefix('picture:')}"
    return f"{WORK}/{candidate:03d}_{stage:02d}_{id_}{what}.png"


def write(folder: Path, new: Mapping[str, tuple[str, Image.Image]], line: Mapping[str, Any]) -> None:
    """Write the new pictures of a cell; on return they survive a power cut.

    Args:
        new: file -> sha256 of its pixels, and the picture.
        line: what the journal will say of the cell.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    if not new:
        return
    (folder / WORK).mkdir(exist_ok=True)
    text = json.dumps(line, ensure_ascii=True, separators=(",", ":"))
    for file, (_, image) in new.items():
        info = PngInfo()
        info.add_text(_CHUNK, text)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", pnginfo=info, compress_level=_COMPRESS_LEVEL, compress_type=_COMPRESS_TYPE)
        durable.write(folder / file, buffer.getvalue())
    durable.sync_folder(folder / WORK)
    durable.sync_folder(folder)


def read(folder: Path, kept: Kept, sources: Mapping[str, Image.Image], *, force: bool = False) -> Work:
    """Read what a cell left.

    Args:
        sources: the job's own pictures by role, for what is still as it was.
        force: take a picture that was changed as it is.

    Raises:
        JobError: `changed-file`, naming it.
    """
    found = {
        thing: sources[_ROLES[thing]] if not file else load(folder, file, sha256, force=force)
        for thing, file, sha256 in kept.files
        if file or _ROLES.get(thing) in sources
    }
    return Work(
        pictures={
            thing.removeprefix("picture").removeprefix(":"): image
            for thing, image in found.items()
            if thing.startswith("picture")
        },
        mask=found.get("mask"),
        control=found.get("control"),
        boxes=tuple(
            Box(left=left, top=top, right=right, bottom=bottom, label=label, score=score)
            for left, top, right, bottom, label, score in kept.boxes
        ),
    )


#: Thing -> the role of the source that it is at first.
_ROLES: Final = {"picture": "image", "mask": "mask", "control": "control"}


def load(folder: Path, file: str, sha256: str, *, force: bool = False) -> Image.Image:
    """Load one picture of work/ and make sure that it is what was written.

    Raises:
        JobError: `changed-file`, unless `force` and it still is a picture.
    """
    hint = "put it back, or resume with force = true to go on with it as it is"
    try:
        with Image.open(folder / file, formats=("PNG",)) as image:
            if not png.can_hold(folder / file):
                raise ValueError("its header tells of more pixels than there can be")
            image.load()
            picture = image.copy()
            picture.info = {}
    except FileNotFoundError as error:
        raise JobError("changed-file", f"{file} is gone", "put it back, or resume from an earlier stage") from error
    except Exception as error:
        # Whatever a decoder raises, where the picture is broken; but a disk that fails has a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise JobError("changed-file", f"{file} is no picture any more", hint) from error
    if not force and pixels_sha256(picture) != sha256:
        raise JobError("changed-file", f"{shown(file)} is not the picture that was made", hint)
    return picture


def lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what the pictures of a job say of their cells, each cell once: lines of a journal that was lost."""
    yield from _cells(folder)
    yield from _finished(folder)


def _finished(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a line for each candidate whose finished pictures stand there, all of them and as they were written."""
    found: dict[int, list[tuple[Record, Written]]] = {}
    for sidecar in sorted(folder.glob("*.*.toml")):
        picture = sidecar.with_suffix("")
        try:
            said = load_record(sidecar.read_bytes())
            written = outputs.find(folder, picture.stem, picture.suffix)
        except (OSError, ValueError, JobError):
            continue
        if written is not None:
            found.setdefault(said.candidate, []).append((said, written))
    for candidate, pictures in sorted(found.items()):
        shapes = [stage.keys.get("aspects", ()) for stage in pictures[0][0].stages if stage.stage == "variants"]
        if len(pictures) < (len(shapes[0]) if shapes else 1):
            continue
        made = [
            Output(
                candidate=candidate,
                file=written.file,
                seed=said.seed,
                sha256=written.sha256,
                pixels_sha256=written.pixels_sha256,
                # How long it took is not known any more.
                seconds=0.0,
                save_seconds=round(written.seconds, 3),
                variant=said.variant or "",
            )
            for said, written in pictures
        ]
        at = Moment.of(pictures[0][0].created_at)
        yield journal.line(Event.DONE, at, outputs=[asdict(one) for one in made])


def _cells(folder: Path) -> Iterator[dict[str, Any]]:
    seen = set()
    for path in sorted((folder / WORK).glob("*.png")):
        try:
            with Image.open(path, formats=("PNG",)) as image:
                text = str(image.info.get(_CHUNK, ""))[:_MAX_TEXT]
            line = json.loads(text)
            cell = (int(line["candidate"]), int(line["stage"]))
            whole = all((folder / file).is_file() for _, file, _ in line["files"] if file)
        except Exception:  # noqa: BLE001, S112 - decoders raise anything: it is none of ours
            continue
        if line.get("event") == Event.CELL and cell not in seen and whole:
            seen.add(cell)
            yield line
