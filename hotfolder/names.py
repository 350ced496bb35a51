"""Names: made safe for every file system, told from their takes, and shown."""

import re
import unicodedata
from typing import Final

#: Bytes of UTF-8; leaves room for `_takeNN_NNN_16x9.png.toml` within the 255 that file systems allow.
MAX_NAME_BYTES: Final = 80
#: Characters of a wrong key or value that a message quotes; no preset has a longer name.
MAX_SHOWN: Final = 60
#: How the name of a job file or control file on its way out of the inbox begins and ends.
TAKING: Final = (".hotfolder-", ".taking")
PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif")

#: Of a million takes nobody has heard; a folder that says it is the billionth is not one of ours.
_TAKE: Final = re.compile(r"_take(\d{2,6})\Z", re.ASCII)
#: `mug_take01`, `mug_take01_001`, `mug_take01_001_16x9`: all are take 1 of mug.
_TAKE_TAIL: Final = re.compile(r"_take(\d{2,})(_\d{3,}(_\d+x\d+)?)?\Z", re.ASCII)
#: Not allowed in names on Windows, or of no use anywhere.
_UNSAFE: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]')
_RESERVED: Final = re.compile(r"^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


def safe_name(file_name: str) -> str:
    """Return NAME of a file: without suffix and take, NFC, safe on every file system, at most 80 bytes."""
    return make_safe(_TAKE_TAIL.sub("", _without_suffix(file_name)))


def make_safe(name: str) -> str:
    """Make any text a NAME: NFC, no character that a file system refuses, at most 80 bytes, never empty."""
    name = _cut(unicodedata.normalize("NFC", _UNSAFE.sub("_", name)))
    if _RESERVED.match(name) or name.startswith(("-", "~", "#", "@")):
        name = _cut(f"_{name}")
    return name or "job"


def take_folder(name: str, take: int) -> str:
    """Return the folder name of a take: at least two digits."""
    return f"{name}_take{take:02d}"


def split_take(folder: str) -> tuple[str, int] | None:
    """Return NAME and take of a job's folder name, None where it is none."""
    match = _TAKE.search(folder)
    if match is None or match.start() == 0:
        return None
    return folder[: match.start()], int(match.group(1))


def take_named(file_name: str) -> int | None:
    """Return the take that a file's name ends with, None where it names none."""
    match = _TAKE_TAIL.search(_without_suffix(file_name))
    return int(match.group(1)) if match else None


def shown(name: str) -> str:
    """Return a name as it may be shown in a terminal, a log or a TOML file: undecodable bytes and codes escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in name)


def cut(text: str) -> str:
    """Return the beginning of a text that may be as long as somebody likes."""
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def short(value: object) -> str:
    """Return a wrong value as a message quotes it."""
    begins = value[: MAX_SHOWN + 1] if isinstance(value, str) else value
    return cut(shown(repr(begins)[: MAX_SHOWN + 1]))


def _without_suffix(name: str) -> str:
    """Return a name without `.toml` and without the suffix of a picture, in this order."""
    if name.lower().endswith(".toml"):
        name = name[: -len(".toml")]
    suffix = next((suffix for suffix in PICTURE_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def _cut(name: str) -> str:
    return name.encode("utf-8")[:MAX_NAME_BYTES].decode("utf-8", "ignore").strip(" .")
