"""What a name in the inbox means: job, control file, picture, or litter that is left alone."""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: Bytes of UTF-8; leaves room for `_takeNN_NNN_16x9.png.toml` within the 255 that file systems allow.
MAX_NAME_BYTES: Final = 80
#: Characters of a wrong key or value that a message quotes; no preset has a longer name.
MAX_SHOWN: Final = 60
PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif")

#: Of a million takes nobody has heard; a folder that says it is the billionth is not one of ours.
_TAKE: Final = re.compile(r"_take(\d{2,6})\Z", re.ASCII)
#: `mug_take01`, `mug_take01_001`, `mug_take01_001_16x9`: all are take 1 of mug.
_TAKE_TAIL: Final = re.compile(r"_take(\d{2,})(_\d{3,}(_\d+x\d+)?)?\Z", re.ASCII)
#: Not allowed in names on Windows, or of no use anywhere.
_UNSAFE: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]')
_RESERVED: Final = re.compile(r"^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
#: Keeps an empty folder in git.
_OURS: Final = (".gitkeep",)
#: How the name of a job file or control file on its way out of the inbox begins and ends.
_TAKING: Final = (".hotfolder-", ".taking")
#: What editors, browsers, desktops and sync programs leave behind.
_LITTER_ENDS: Final = (
    "~",
    ".swp",
    ".swo",
    ".swx",
    ".tmp",
    ".temp",
    ".part",
    ".partial",
    ".filepart",
    ".crdownload",
    ".download",
    ".opdownload",
    ".bak",
    ".orig",
    ".lock",
    ".!sync",
    ".lnk",
)
_LITTER_NAMES: Final = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"})
_LITTER_HOLDS: Final = (".sync-conflict-", ".goutputstream-", "conflicted copy")


class Control(StrEnum):
    """What a control file asks for."""

    CANCEL = "cancel"
    RESUME = "resume"
    FIRST = "first"
    PAUSE = "pause"
    USE = "use"


#: Those whose content counts: they are acted on once they are whole, the others at sight.
READ_CONTROLS: Final = frozenset({Control.RESUME, Control.USE})


@dataclass(frozen=True, kw_only=True)
class JobName:
    """A job file, or where a lane says so a picture, that makes a take of `name`."""

    name: str


@dataclass(frozen=True, kw_only=True)
class ControlName:
    """A control file for every live take of `name`, or for one."""

    control: Control
    name: str
    take: int | None


@dataclass(frozen=True, kw_only=True)
class PictureName:
    """A picture: a source, or in a lane with `picture_jobs` a job."""

    name: str


@dataclass(frozen=True, kw_only=True)
class PauseAll:
    """The file `pause`: while it exists no new cell starts."""


@dataclass(frozen=True, kw_only=True)
class LaneFile:
    """`folder.toml`: defaults of a lane."""


@dataclass(frozen=True, kw_only=True)
class Ignored:
    """Something that is left alone; `why` is None where not even a word is due (our own files, hidden ones)."""

    why: str | None


Meaning = JobName | ControlName | PictureName | PauseAll | LaneFile | Ignored


def meaning(file_name: str) -> Meaning:
    """Return what a file of this name in the inbox means. What lies behind the name is not looked at."""
    lower = file_name.lower()
    if file_name in _OURS or (file_name.startswith(_TAKING[0]) and file_name.endswith(_TAKING[1])):
        return Ignored(why=None)
    if file_name.startswith((".", "~", "#", "._")):
        return Ignored(why="a hidden or temporary file")
    if _is_litter(lower):
        return Ignored(why="left behind by an editor, a download or a sync program")
    # Windows adds .txt where suffixes are hidden.
    bare = file_name[: -len(".txt")] if lower.endswith(".txt") else file_name
    lower = bare.lower()
    if lower == "pause":
        return PauseAll()
    if file_name == "folder.toml":
        return LaneFile()
    if lower == "folder.toml":
        return Ignored(why="defaults of a lane are read from folder.toml, spelled so")
    if lower.endswith(".rejected.toml"):
        return Ignored(why="a job that was refused: mend it, then rename it to NAME.toml")
    if lower.endswith(".status.toml"):
        return Ignored(why="a status file")
    for control in Control:
        if lower.endswith(f".{control.value}"):
            return _control(control, bare[: -len(control.value) - 1])
    if lower.endswith(".toml"):
        return JobName(name=safe_name(bare))
    if file_name.lower().endswith(PICTURE_SUFFIXES):
        return PictureName(name=safe_name(file_name))
    if lower.endswith((".csv", ".txt")):
        return Ignored(why="a list: taken when a job names it")
    return Ignored(why="not a job file (.toml), a picture or a control file")


def _is_litter(lower: str) -> bool:
    return lower.endswith(_LITTER_ENDS) or lower in _LITTER_NAMES or any(part in lower for part in _LITTER_HOLDS)


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


def _control(control: Control, stem: str) -> ControlName:
    match = _TAKE_TAIL.search(_without_suffix(stem))
    return ControlName(control=control, name=safe_name(stem), take=int(match.group(1)) if match else None)


def _without_suffix(name: str) -> str:
    """Return a name without `.toml` and without the suffix of a picture, in this order."""
    if name.lower().endswith(".toml"):
        name = name[: -len(".toml")]
    suffix = next((suffix for suffix in PICTURE_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def _cut(name: str) -> str:
    return name.encode("utf-8")[:MAX_NAME_BYTES].decode("utf-8", "ignore").strip(" .")
