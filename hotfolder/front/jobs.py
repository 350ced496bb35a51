"""Which job somebody means, and where it is: read from the folders under outputs/, nothing else."""

import datetime as dt
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hotfolder import tomltext
from hotfolder.errors import JobError
from hotfolder.names import safe_name, shown, split_take
from hotfolder.workspace import Workspace

#: The ends of a job; the same as `journal.ENDS`, which a test makes sure of: importing that doubles the time to start.
ENDS: Final = frozenset({"completed", "partial", "failed", "cancelled", "rejected"})
_PLAN: Final = re.compile(r"plan(?:_(\d{2,}))?\.toml")
_PICTURE: Final = re.compile(r"(_take\d{2,})_\d{3,}(_\d+x\d+)?$")


@dataclass(frozen=True, kw_only=True)
class View:
    """A job as its status file says."""

    folder: Path
    #: status.toml.
    table: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Such as "mug_take01"."""
        return self.folder.name

    @property
    def state(self) -> str:
        """Where the job is."""
        return str(self.table.get("state", "unknown"))

    @property
    def ended(self) -> bool:
        """Whether it has come to an end."""
        return self.state in ENDS

    @property
    def over(self) -> bool:
        """Whether nothing more happens by itself: it has ended, or a person must pick."""
        return self.ended or self.state == "review"

    @property
    def queued_at(self) -> float:
        """When it came, in seconds since the epoch; 0 where it does not say."""
        moment = self.table.get("queued_at")
        return moment.timestamp() if isinstance(moment, dt.datetime) else 0.0

    @property
    def to_pick(self) -> list[Mapping[str, Any]]:
        """In review: which candidates there are to pick from, as `[[outputs]]` has them."""
        if self.state != "review":
            return []
        # What is finished lies in the job's folder itself.
        return [one for one in self.table.get("outputs", ()) if "/" in str(one.get("file", "/")) or not one["file"]]

    @property
    def pictures(self) -> list[Path]:
        """The finished pictures; filled at an end."""
        return [self.folder / str(output["file"]) for output in self.table.get("outputs", ())]

    @property
    def data(self) -> dict[str, Any]:
        """What `--json` says of it: the status file, its folder, and its pictures with their whole path."""
        return {**self.table, "job": self.name, "folder": self.folder, "pictures": self.pictures}


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a JOB argument names: a take, or all takes of a NAME."""

    name: str
    #: Folder names, oldest first.
    takes: tuple[str, ...]
    #: Whether one certain take was named.
    exact: bool
    #: Job files of this NAME that lie in the inbox, not taken yet.
    drops: tuple[Path, ...] = ()


def view(workspace: Workspace, job: str) -> View | None:
    """Read where a job is; None where it has no status file that can be read."""
    folder = workspace.outputs / job
    try:
        return View(folder=folder, table=tomltext.load((folder / "status.toml").read_bytes()))
    except (OSError, ValueError):
        return None


def plan(folder: Path) -> Mapping[str, Any] | None:
    """Read the plan that holds for what is still to be made of a job: the newest one; None where it has none."""
    numbers = [(int(found.group(1) or 1), name) for name in _entries(folder) if (found := _PLAN.fullmatch(name))]
    for _, name in sorted(numbers, reverse=True):
        try:
            return tomltext.load((folder / name).read_bytes())
        except (OSError, ValueError):
            continue
    return None


def last(workspace: Workspace) -> View:
    """Return the take that was queued last.

    Raises:
        JobError: `not-found`: there is none.
    """
    changed = []
    for entry in _entries(workspace.outputs):
        if split_take(entry):
            with suppress(OSError):
                changed.append(((workspace.outputs / entry).stat().st_mtime, entry))
    best: View | None = None
    for mtime, entry in sorted(changed, reverse=True):
        # A job's folder is changed after it was queued: what stands further down cannot be newer.
        if best is not None and mtime < best.queued_at:
            break
        found = view(workspace, entry)
        if found is not None and (best is None or found.queued_at > best.queued_at):
            best = found
    if best is None:
        raise JobError("not-found", "there is no job yet", "hotfolder submit --prompt TEXT makes one")
    return best


def daemon(workspace: Workspace) -> Mapping[str, Any]:
    """Read outputs/status.toml; empty where there is none. Only the lock tells whether somebody still keeps it."""
    try:
        return tomltext.load((workspace.outputs / "status.toml").read_bytes())
    except (OSError, ValueError):
        return {}


def takes(workspace: Workspace, name: str) -> list[str]:
    """Return the folders of all takes of NAME, oldest first."""
    found = [
        (split, entry)
        for entry in _entries(workspace.outputs)
        if entry.startswith(name) and (split := split_take(entry))
    ]
    return [entry for (stem, _), entry in sorted(found) if stem == name]


def named(workspace: Workspace, text: str) -> Named:
    """Return what a JOB argument means: `mug`, `mug_take02`, `outputs/mug_take02`, `mug.toml` or one of its pictures.

    Raises:
        JobError: `not-found`, with what may have been meant.
    """
    plain = _PICTURE.sub(r"\1", _without_suffix(Path(text).name))
    split = split_take(plain)
    if split is not None and (workspace.outputs / plain).is_dir():
        return Named(name=split[0], takes=(plain,), exact=True)
    name = safe_name(plain)
    if split is None:
        found, lying = tuple(takes(workspace, name)), drops(workspace, name)
        if found or lying:
            return Named(name=name, takes=found, exact=False, drops=lying)
    raise _not_found(workspace, plain, name)


def newest(workspace: Workspace, text: str) -> View:
    """Return the take that is named, or the newest one of a NAME.

    Raises:
        JobError: `not-found`.
    """
    what = named(workspace, text)
    for take in reversed(what.takes):
        if found := view(workspace, take):
            return found
    if what.drops:
        lies = shown(str(what.drops[0].relative_to(workspace.root)))
        raise JobError(
            "not-found",
            f"{shown(what.name)} is no job yet: {lies} was not taken so far",
            "start a daemon with: hotfolder serve",
        )
    raise JobError(
        "not-found",
        f"{shown(what.takes[-1])} has no status.toml that can be read",
        f"look into {shown(str(workspace.outputs))}",
    )


def _without_suffix(name: str) -> str:
    bare = name.removesuffix(".toml")
    for suffix in (".png", ".jpg", ".webp", ".avif"):
        bare = bare.removesuffix(suffix)
    return bare


def drops(workspace: Workspace, name: str | None = None) -> tuple[Path, ...]:
    """Return the job files that lie in the inbox itself, all or those of one NAME; folders and links are none."""
    entries = [entry for entry in _entries(workspace.inbox) if entry.lower().endswith((".toml", ".toml.txt"))]
    if not entries:
        return ()
    # Only now: `status` is asked again and again, mostly where nothing lies there.
    from hotfolder.meaning import JobName, meaning_of

    means = {entry: meaning_of(entry) for entry in entries}
    named = [entry for entry, it in means.items() if isinstance(it, JobName) and name in {None, it.name}]
    return tuple(file for entry in named if _is_regular(file := workspace.inbox / entry))


def _not_found(workspace: Workspace, plain: str, name: str) -> JobError:
    import difflib

    known = {
        take for entry in _entries(workspace.outputs) if (split := split_take(entry)) for take in (entry, split[0])
    }
    same = sorted(entry for entry in known if entry.startswith(f"{name}_take"))
    near = same[-1:] or difflib.get_close_matches(plain, sorted(known), n=1)
    hint = (
        f"did you mean {shown(near[0])}?" if near else "hotfolder status shows what runs, hotfolder history what ended"
    )
    return JobError("not-found", f"there is no job {shown(plain)} in {shown(str(workspace.outputs))}", hint)


def _is_regular(file: Path) -> bool:
    try:
        return stat.S_ISREG(file.lstat().st_mode)
    except OSError:
        return False


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
