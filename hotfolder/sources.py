"""The pictures a job names: found in the inbox, copied into the job, checked to the last pixel, and loaded."""

import hashlib
import os
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hotfolder import durable, foreign, names
from hotfolder.errors import JobError
from hotfolder.foreign import file_sha256
from hotfolder.job import SOURCES
from hotfolder.plan import Plan, Source, Wish
from hotfolder.settings import Settings

#: What is read; vector and document formats are not pictures.
FORMATS: Final = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
_BLOCK: Final = 1 << 20
_MAX_SHOWN: Final = 200


@dataclass(frozen=True, kw_only=True)
class Found:
    """A picture that lies where the job may take it from."""

    wish: Wish
    path: Path
    #: The folder above it from which on nothing on the way is a link.
    base: Path


def find(settings: Settings, wish: Wish, lane: str) -> Found | None:
    """Look for a picture: beside the job file, then in the inbox root; None where it is not there yet.

    A plan's or sidecar's is looked for at its path in the workspace, then by its name in the inbox.

    Raises:
        JobError: `forbidden-path`: outside the inbox, `..`, or a symbolic link on the way.
    """
    name = check_name(settings, wish)
    if name.is_absolute():
        # `check_name` has seen that there is one.
        base = next(root for root in settings.inbox.allowed_roots if name.is_relative_to(root))
        return _at(base, name.relative_to(base), wish)
    if wish.sha256 is not None:
        base = settings.outputs_dir if name.parts[0] == "outputs" else settings.inbox_dir
        places = [(base, PurePosixPath(*name.parts[1:])), (settings.inbox_dir, PurePosixPath(name.name))]
    else:
        places = [(settings.inbox_dir, PurePosixPath(lane) / name), (settings.inbox_dir, name)]
    for base, below in places:
        found = _at(base, below, wish)
        if found is not None:
            return found
    return None


def check_name(settings: Settings, wish: Wish) -> PurePosixPath:
    """Check how a picture is named, without looking for it.

    Raises:
        JobError: `forbidden-path`.
    """
    name = PurePosixPath(wish.name)
    if "\0" in wish.name or ".." in name.parts or not name.name:
        raise _forbidden(wish, "a name beside the job file is accepted, without ..")
    if wish.name.startswith("@"):
        raise _forbidden(wish, "pictures of other jobs cannot be named; copy the picture into the inbox")
    if name.is_absolute() and not any(
        name.is_relative_to(root) and name != root for root in map(PurePosixPath, settings.inbox.allowed_roots)
    ):
        raise _forbidden(
            wish,
            "a name beside the job file is accepted, or a path below an allowed_roots folder of hotfolder.toml",
        )
    if wish.sha256 is not None and (len(name.parts) == 1 or name.parts[0] not in {"outputs", "jobs_inbox"}):
        raise _forbidden(wish, "a plan takes pictures from outputs/ and jobs_inbox/")
    return name


def take(settings: Settings, found: Found, folder: Path, beside_them: Collection[str] = ()) -> Source:
    """Copy a picture into `folder`/sources/ and check it; the copy is durable when this returns.

    Args:
        beside_them: names in sources/ that other pictures of the job have.

    Raises:
        JobError: `bad-picture` or `changed-file`.
        OSError: it cannot be read or written.
    """
    wish = found.wish
    name = names.make_safe(PurePosixPath(wish.name).name)
    target = folder / SOURCES / (f"{wish.role}_{name}" if name in beside_them else name)
    target.parent.mkdir(exist_ok=True)
    beside = target.with_name(f".{target.name}.tmp")
    try:
        sha256 = _copy(found, beside, settings.inbox.max_picture_mb)
        if wish.sha256 is not None and sha256 != wish.sha256:
            raise JobError(
                "changed-file",
                f"{names.shown(wish.name)} is not the picture that the plan was made with",
                "drop the job file instead",
            )
        width, height = check(beside, wish.name, settings.inbox.max_megapixels)
        beside.replace(target)
    except BaseException:
        durable.remove(beside)
        raise
    durable.sync_folder(target.parent)
    file = f"{folder.parent.name}/{folder.name}/{SOURCES}/{target.name}"
    return Source(role=wish.role, name=wish.name, file=file, sha256=sha256, width=width, height=height)


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
        return _decode(image, name).size


def load(folder: Path, plan: Plan, *, force: bool = False) -> dict[str, Image.Image]:
    """Load the sources of a job by role: upright, 8 bit, RGB; the mask L.

    Raises:
        JobError: `changed-file` where a copy is not what the plan was made with, unless `force`.
    """
    pictures = {}
    for source in plan.sources:
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
        with _open(path, source.name) as image:
            pictures[source.role] = _decode(image, source.name, mask=source.role == "mask")
    return pictures


def upright(image: Image.Image, *, mask: bool = False) -> Image.Image:
    """Return a picture as it is shown: EXIF-rotated, 8 bit, transparency over white (of a mask: over black)."""
    image.load()
    # Where the EXIF part alone is broken, the picture is shown as it stands.
    with suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode in {"I", "I;16", "I;16B", "F"}:
        image = _in_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "black" if mask else "white")
        image = Image.alpha_composite(ground, image)
    return image.convert("L" if mask else "RGB")


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Scale what has more; in place, since a large picture fills the memory quickly."""
    top = 65535.0 if image.mode.startswith("I") else 1.0
    values = np.array(image, dtype=np.float32)
    np.nan_to_num(values, copy=False)
    np.clip(values, 0.0, top, out=values)
    values *= 255.0 / top
    values += 0.5
    return Image.fromarray(values.astype(np.uint8))


def check_sizes(pictures: Sequence[Source]) -> None:
    """Check what pictures must share.

    Raises:
        JobError: `bad-picture`: a mask has the size of its image.
    """
    by_role = {source.role: source for source in pictures}
    image, mask = by_role.get("image"), by_role.get("mask")
    if image and mask and (image.width, image.height) != (mask.width, mask.height):
        found = f"{mask.width}x{mask.height} pixels, and {names.shown(image.name)} has {image.width}x{image.height}"
        raise _bad(mask.name, found, "a mask has the size of its image")


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
    return _bad(name, f"it cannot be decoded to the end: {what}", "save it again, or copy it again")


def _forbidden(wish: Wish, hint: str) -> JobError:
    return JobError("forbidden-path", f"{wish.role} = {names.shown(wish.name)!r} is not accepted", hint)


def _bad(name: str, found: str, hint: str) -> JobError:
    return JobError("bad-picture", f"{names.shown(name)}: {found}", hint)
