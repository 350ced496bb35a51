"""What a name in the inbox means: job, control file, picture, or litter that is left alone."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hotfolder.names import PICTURE_SUFFIXES, TAKING, safe_name, take_named

#: Keeps an empty folder in git.
_OURS: Final = (".gitkeep",)
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


def meaning_of(file_name: str) -> Meaning:
    """Return what a file of this name in the inbox means. What lies behind the name is not looked at."""
    lower = file_name.lower()
    if file_name in _OURS or (file_name.startswith(TAKING[0]) and file_name.endswith(TAKING[1])):
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


def _control(control: Control, stem: str) -> ControlName:
    return ControlName(control=control, name=safe_name(stem), take=take_named(stem))
