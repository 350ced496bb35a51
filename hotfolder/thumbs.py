"""Small pictures for the pages: made while the pixels are at hand, kept in the cache, made again where it is gone."""

import io
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps, WebPImagePlugin

from hotfolder import durable

#: Pixels of the longer side; a smaller picture is never enlarged.
SIDE: Final = 320
#: Of one thumbnail: a page holds up to 500.
MAX_BYTES: Final = 10_000

#: Tried in this order until one fits: pure noise needs the last ones.
_ATTEMPTS: Final = ((SIDE, 80), (SIDE, 60), (SIDE, 35), (SIDE, 10), (SIDE // 2, 35), (SIDE // 2, 5), (SIDE // 4, 1))
#: Folders below a job's that hold pictures.
_BELOW: Final = frozenset({"sources", "work"})
#: What a file system may round a time to.
_SAME_TIME_NS: Final = 2_000_000_000
#: Known to Pillow from here on: asked for a format that it has not loaded, it loads all 45 that it has.
_FORMAT: Final = WebPImagePlugin.WebPImageFile.format
#: What Pillow raises for files that it cannot or will not decode.
_UNREADABLE: Final = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True, kw_only=True)
class Thumbs:
    """The thumbnails of a workspace, as `CACHE/JOB/PICTURE.webp`. Deleting the folder costs time, nothing else.

    Pictures stand in a job's folder, or in one below it: `sources/`, `work/`.
    """

    cache: Path

    def keep(self, picture: Path, image: Image.Image) -> None:
        """Make the thumbnail of a picture that was just written, from the pixels at hand."""
        with suppress(OSError):
            self._store(picture, thumbnail(image))

    def of(self, picture: Path) -> bytes | None:
        """Return the thumbnail of a picture in a job's folder; None where there is no picture that can be decoded."""
        try:
            written = picture.stat().st_mtime_ns
        except OSError:
            return None
        with suppress(OSError):
            kept = self._path(picture)
            # A job of a deleted folder's name begins with other pictures under the same names.
            if abs(kept.stat().st_mtime_ns - written) < _SAME_TIME_NS and kept.stat().st_size <= MAX_BYTES:
                return kept.read_bytes()
        try:
            with Image.open(picture) as image:
                image.draft("RGB", (SIDE, SIDE))
                made = thumbnail(ImageOps.exif_transpose(image))
        except _UNREADABLE:
            return None
        with suppress(OSError):
            self._store(picture, made)
        return made

    def _path(self, picture: Path) -> Path:
        folder = picture.parent
        below = folder.name in _BELOW
        # In work/ the pictures of all jobs have the same names.
        where = self.cache / folder.parent.name / folder.name if below else self.cache / folder.name
        return where / f"{picture.name}.webp"

    def _store(self, picture: Path, data: bytes) -> None:
        path = self._path(picture)
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write(path, data, sync=False)
        # The picture's own time marks which picture this is the thumbnail of.
        time_ns = picture.stat().st_mtime_ns
        os.utime(path, ns=(time_ns, time_ns))


def thumbnail(image: Image.Image) -> bytes:
    """Return a picture as WebP of at most `MAX_BYTES`, its longer side at most `SIDE`; transparency stays."""
    small = _shrunk(_plain(image), SIDE)
    data = b""
    for side, quality in _ATTEMPTS:
        data = _encoded(_shrunk(small, side), quality)
        if len(data) <= MAX_BYTES:
            return data
    # Nothing is known to come here; whatever it may be, half the size fits in the end.
    side = _ATTEMPTS[-1][0]
    while len(data) > MAX_BYTES and side > 1:
        side //= 2
        data = _encoded(_shrunk(small, side), 1)
    return data


def _encoded(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, _FORMAT, quality=quality, alpha_quality=quality, method=2)
    return buffer.getvalue()


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    if max(image.size) <= side:
        return image
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return small


def _plain(image: Image.Image) -> Image.Image:
    """Return a picture of any mode as 8-bit RGB or RGBA."""
    if image.mode.startswith("I"):
        # 16 bits, where `convert` would clip instead of scale.
        image = image.point(lambda value: value / 257).convert("L")
    if image.mode in {"RGB", "RGBA"}:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
