"""The pictures a job names: found in the inbox, copied into the job, checked to the last pixel, and loaded."""

import hashlib
import os
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from PIL import Image, ImageOps, UnidentifiedImageError

from hotfolder import durable, foreign, names, png, presets, takes
from hotfolder.errors import JobError
from hotfolder.foreign import file_sha256
from hotfolder.job import SOURCES
from hotfolder.plan import Source
from hotfolder.planning import Wish
from hotfolder.settings import Settings

#: What is read; vector and document formats are not pictures.
FORMATS: Final = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
_BLOCK: Final = 1 << 20
#: The highest value of 8 bits.
_TOP: Final = 255
_MAX_SHOWN: Final = 200
_JPEG: Final = b"\xff\xd8"
#: Begins a scan, and stands nowhere in what is compressed.
_SCAN: Final = b"\xff\xda"
#: Each goes over all pixels, and takes eleven bytes. libtiff has the same limit; ten are usual.
_MAX_SCANS: Final = 100
_SAVE_AGAIN: Final = "save it again, or copy it again"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A picture that lies where the job may take it from."""

    wish: Wish
    path: Path
    #: The folder above it from which on nothing on the way is a link.
    base: Path


def find(settings: Settings, wish: Wish, lane: str) -> Found | None:
    """Look for a picture: beside the job file, then in the inbox root; None where it is not there yet.

    A plan's or sidecar's is looked for at its path in the workspace, then by its name in the inbox; one of another job
    in outputs/ only, once it is known which one that is.

    Raises:
        JobError: `forbidden-path`: outside the inbox, `..`, or a symbolic link on the way; `missing-picture`: another
            job had finished it, and it is gone.
    """
    name = check_name(settings, wish)
    if wish.is_reference:
        return None
    if name.is_absolute():
        # `check_name` has seen that there is one.
        base = next(root for root in settings.inbox.allowed_roots if name.is_relative_to(root))
        return _at(base, name.relative_to(base), wish)
    if wish.place is not None:
        base = settings.outputs_dir if name.parts[0] == "outputs" else settings.inbox_dir
        places = [(base, PurePosixPath(*name.parts[1:]))]
        if not wish.is_of_job:
            places.append((settings.inbox_dir, PurePosixPath(name.name)))
    else:
        places = [(settings.inbox_dir, PurePosixPath(lane) / name), (settings.inbox_dir, name)]
    if wish.is_asset and not wish.is_of_job:
        # Logos and fonts are the house's; whoever drops a job may bring others.
        places += [(settings.assets_dir, name), (presets.shipped_dir() / "assets", name)]
    for base, below in places:
        found = _at(base, below, wish)
        if found is not None:
            return found
    if wish.is_of_job:
        text = f"{names.shown(wish.name)}: {names.shown(str(name))} is not there any more"
        raise JobError("missing-picture", text, "put it back, or name another picture, then resume this job")
    return None


def check_name(settings: Settings, wish: Wish) -> PurePosixPath:
    """Check how a picture is named, without looking for it.

    Raises:
        JobError: `forbidden-path`, or `bad-value` for what begins with @.
    """
    name = PurePosixPath(wish.name if wish.place is None else wish.place)
    if "\0" in str(name) or ".." in name.parts or not name.name:
        raise _forbidden(wish, "a name beside the job file is accepted, without ..")
    if wish.is_reference:
        _check_reference(wish)
    if name.is_absolute() and not any(
        name.is_relative_to(root) and name != root for root in map(PurePosixPath, settings.inbox.allowed_roots)
    ):
        raise _forbidden(
            wish,
            "a name beside the job file is accepted, or a path below an allowed_roots folder of hotfolder.toml",
        )
    if wish.place is not None and (len(name.parts) == 1 or name.parts[0] not in {"outputs", "jobs_inbox"}):
        raise _forbidden(wish, "a plan takes pictures from outputs/ and jobs_inbox/")
    return name


def _check_reference(wish: Wish) -> None:
    if not wish.is_picture:
        raise _forbidden(wish, "another job has pictures only; name a file beside the job file")
    if takes.parse(wish.name) is None:
        found = f"{wish.role} = {names.shown(wish.name)!r} is not accepted"
        raise JobError(
            "bad-value", found, '"@mug" is, the active picture of job mug; or "@mug_take01/2", a certain one'
        )


def take(settings: Settings, found: Found, folder: Path, beside_them: Collection[str] = ()) -> Source:
    """Copy a picture into `folder`/sources/ and check it; the copy is durable when this returns.

    Args:
        beside_them: names in sources/ that other pictures of the job have.

    Raises:
        JobError: `bad-picture` or `changed-file`.
        OSError: it cannot be read or written.
    """
    wish = found.wish
    name = names.make_safe(PurePosixPath(wish.name if wish.place is None else wish.place).name)
    target = folder / SOURCES / _free_name(name, wish.role, beside_them)
    target.parent.mkdir(exist_ok=True)
    beside = target.with_name(f".{target.name}.tmp")
    try:
        sha256 = _copy(found, beside, settings.inbox.max_picture_mb)
        if wish.sha256 is not None and sha256 != wish.sha256:
            raise _changed(wish)
        width, height = check(beside, wish.name, settings.inbox.max_megapixels) if wish.is_picture else (0, 0)
        beside.replace(target)
    except BaseException:
        durable.remove(beside)
        raise
    durable.sync_folder(target.parent)
    file = f"{folder.parent.name}/{folder.name}/{SOURCES}/{target.name}"
    return Source(role=wish.role, name=wish.name, file=file, sha256=sha256, width=width, height=height, via=wish.via)


def take_trigger(settings: Settings, folder: Path, wish: Wish) -> Source:
    """Return the picture that made the job, which was copied with its admission.

    Raises:
        JobError: `bad-picture`.
    """
    path = folder / SOURCES / names.make_safe(PurePosixPath(wish.name).name)
    width, height = check(path, wish.name, settings.inbox.max_megapixels)
    file = f"{folder.parent.name}/{folder.name}/{SOURCES}/{path.name}"
    return Source(role=wish.role, name=wish.name, file=file, sha256=file_sha256(path), width=width, height=height)


def check(path: Path, name: str, max_megapixels: int) -> tuple[int, int]:
    """Decode a picture to the last pixel; return width and height as shown.

    Raises:
        JobError: `bad-picture`: too many pixels, truncated, or no picture.
    """
    with _open(path, name) as image:
        if image.width * image.height > max_megapixels * 1_000_000:
            found = f"{image.width}x{image.height} pixels; at most {max_megapixels} million are accepted"
            raise _bad(name, found, "make it smaller, or raise max_megapixels of hotfolder.toml")
        _check_scans(path, name)
        size = _decode(image, name).size
    fault = png.find_fault(path)
    if fault is not None:
        raise _bad(name, f"it cannot be decoded to the end: {fault}", _SAVE_AGAIN)
    return size


def _check_scans(path: Path, name: str) -> None:
    """Refuse a JPEG that would be decoded without end."""
    with path.open("rb") as file:
        scans, last = 0, file.read(len(_JPEG))
        if last != _JPEG:
            return
        while block := file.read(_BLOCK):
            scans, last = scans + (last[-1:] + block).count(_SCAN), block
    if scans > _MAX_SCANS:
        raise _bad(name, f"{scans} scans of its pixels; at most {_MAX_SCANS} are accepted", _SAVE_AGAIN)


def load(folder: Path, wanted: Mapping[str, Source], *, force: bool = False) -> dict[str, Image.Image]:
    """Load sources of a job by role: upright, 8 bit, RGB; the mask L.

    Raises:
        JobError: `changed-file` where a copy is not what the plan was made with, unless `force`.
    """
    pictures = {}
    for role, source in wanted.items():
        path = check_unchanged(folder, source, force=force)
        with _open(path, source.name) as image:
            pictures[role] = _decode(image, source.name, mask=role == "mask")
    return pictures


def check_unchanged(folder: Path, source: Source, *, force: bool = False) -> Path:
    """Return where the copy of a source lies, once it is sure that it is what the plan was made with.

    Raises:
        JobError: `changed-file`, unless `force` and there still is one.
    """
    path = folder / SOURCES / PurePosixPath(source.file).name
    try:
        changed = file_sha256(path) != source.sha256
    except FileNotFoundError:
        changed = True
    if changed and not (force and path.exists()):
        raise JobError(
            "changed-file",
            f"{SOURCES}/{path.name} is not the picture that was taken",
            "put it back, or resume with force = true",
        )
    return path


def upright(image: Image.Image, *, mask: bool = False) -> Image.Image:
    """Return a picture as it is shown: EXIF-rotated, 8 bit, transparency over white (of a mask: over black)."""
    image.load()
    # Where the EXIF part alone is broken, the picture is shown as it stands.
    with suppress(Exception):
        image = ImageOps.exif_transpose(image)
    key = image.info.get("transparency")
    if image.mode in {"I", "I;16", "I;16B", "F"}:
        image = _in_8_bits(image, key if isinstance(key, int) else None)
    elif image.mode == "RGB" and isinstance(key, tuple) and max(key) > _TOP:
        # Of 16 bits, as the colours were before they were cut to the upper eight.
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "black" if mask else "white")
        image = Image.alpha_composite(ground, image)
    return image.convert("L" if mask else "RGB")


def _in_8_bits(image: Image.Image, key: int | None) -> Image.Image:
    """Scale what has more; in place, since a large picture fills the memory quickly.

    Args:
        key: the value that is transparent, if one is.
    """
    import numpy as np  # large, and seldom needed

    top = 65535.0 if image.mode.startswith("I") else 1.0
    values = np.array(image, dtype=np.float32)
    alpha = None if key is None else Image.fromarray(np.where(values == key, 0, _TOP).astype(np.uint8))
    np.nan_to_num(values, copy=False)
    np.clip(values, 0.0, top, out=values)
    values *= _TOP / top
    values += 0.5
    scaled = Image.fromarray(values.astype(np.uint8))
    if alpha is not None:
        scaled.putalpha(alpha)
    return scaled


def check_sizes(by_role: Mapping[str, Source]) -> None:
    """Check what the pictures of an item must share.

    Raises:
        JobError: `bad-picture`: a mask has the size of its image.
    """
    image, mask = by_role.get("image"), by_role.get("mask")
    if image and mask and (image.width, image.height) != (mask.width, mask.height):
        found = f"{mask.width}x{mask.height} pixels, and {names.shown(image.name)} has {image.width}x{image.height}"
        raise _bad(mask.name, found, "a mask has the size of its image")


def _free_name(name: str, role: str, taken: Collection[str]) -> str:
    """Return a name in sources/ that no other file of the job has."""
    if name not in taken:
        return name
    named = f"{role.replace('.', '-')}_{name}"
    number = 1
    while named in taken:
        number += 1
        named = f"{role.replace('.', '-')}-{number}_{name}"
    return named


def _at(base: Path, below: PurePosixPath, wish: Wish) -> Found | None:
    """Walk down from `base`; every folder on the way is a real one, the picture a regular file."""
    path = base
    for index, part in enumerate(below.parts):
        path = path / part
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:
            return None  # as good as not there, until somebody mends its rights
        except OSError as error:
            raise _forbidden(wish, f"{error.strerror}") from error
        if stat.S_ISLNK(found.st_mode):
            raise _forbidden(wish, "a symbolic link is never followed; copy the picture instead")
        last = index == len(below.parts) - 1
        if last and not stat.S_ISREG(found.st_mode):
            raise _forbidden(wish, "a regular file is accepted")
    return Found(wish=wish, path=path, base=base)


def _copy(found: Found, target: Path, max_mb: int) -> str:
    """Copy and hash; a file that changes meanwhile is refused. The copy is flushed."""
    name = found.wish.name
    with foreign.open_file(found.path, found.base) as given, target.open("wb") as copy:
        before = os.fstat(given.fileno())
        if before.st_size > max_mb * 1_000_000:
            raise _bad(
                name,
                f"{before.st_size / 1e6:.0f} MB; at most {max_mb} are accepted",
                "max_picture_mb of hotfolder.toml sets this",
            )
        sha256 = _pump(given, copy, before.st_size)
        after = os.fstat(given.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise BlockingIOError(f"{name} is being written")
        copy.flush()
        os.fsync(copy.fileno())
    return sha256


def _pump(given: BinaryIO, copy: BinaryIO, size: int) -> str:
    """Copy no more than `size` bytes: who keeps writing would keep us copying."""
    hasher = hashlib.sha256()
    while block := given.read(min(_BLOCK, size)):
        size -= len(block)
        hasher.update(block)
        copy.write(block)
    return hasher.hexdigest()


def _open(path: Path, name: str) -> Image.Image:
    # The limit that counts is ours, checked before decoding; Pillow's own would only warn.
    Image.MAX_IMAGE_PIXELS = None
    try:
        return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _bad(name, "it is no picture that can be read", f"accepted are {', '.join(FORMATS)}") from error
    except Exception as error:
        raise _broken(name, error) from error


def _decode(image: Image.Image, name: str, *, mask: bool = False) -> Image.Image:
    try:
        return upright(image, mask=mask)
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> Exception:
    """Say what a decoder raised: anything, where the picture is broken; but a disk that fails has a number."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    what = names.shown(str(error))[:_MAX_SHOWN] or type(error).__name__
    return _bad(name, f"it cannot be decoded to the end: {what}", _SAVE_AGAIN)


def _changed(wish: Wish) -> JobError:
    if wish.is_of_job:
        found = f"{names.shown(wish.name)}: {names.shown(str(wish.place))} was changed after it was finished"
        return JobError("changed-file", found, "put it back, or copy the picture into the inbox and name it there")
    found = f"{names.shown(wish.name)} is not the picture that the plan was made with"
    return JobError("changed-file", found, "drop the job file instead")


def _forbidden(wish: Wish, hint: str) -> JobError:
    return JobError("forbidden-path", f"{wish.role} = {names.shown(wish.name)!r} is not accepted", hint)


def _bad(name: str, found: str, hint: str) -> JobError:
    return JobError("bad-picture", f"{names.shown(name)}: {found}", hint)
