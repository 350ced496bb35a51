"""A job made at the command line: from a job file, from options, or from both; checked before it is dropped."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import tomli_w

from hotfolder import names, tomltext
from hotfolder.errors import JobError
from hotfolder.front import drop, jobs, verdict
from hotfolder.front.drop import Dropped
from hotfolder.kindkeys import PICTURE_KEYS
from hotfolder.meaning import JobName, meaning_of
from hotfolder.plan import digest
from hotfolder.settings import Settings
from hotfolder.tomltext import Document
from hotfolder.workspace import Workspace

#: What an earlier drop says of its door.
_OF_A_DOOR: Final = re.compile(rb"\A#! via [a-z]+\n")
#: Files of a take's folder that can be run again: they are named after the job, not after the file.
_OF_A_TAKE: Final = ("job.toml", "plan.toml")
_SLUG_WORDS: Final = 6
_SLUG_CHARS: Final = 40


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the command line says of a job."""

    file: Path | None = None
    #: The text, where it does not come from `file`.
    text: bytes = b""
    #: Dotted key -> value, laid over the text.
    keys: Mapping[str, object] = field(default_factory=dict)
    name: str | None = None
    #: The door through which it comes: its `source`, in its status file.
    via: str = "cli"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A job that is ready to be dropped."""

    name: str
    data: bytes
    #: Role -> picture, or list of items, that must be copied into the inbox first.
    pictures: Mapping[str, Path]
    #: Pictures that are named but lie nowhere yet.
    missing: tuple[str, ...]
    scheduled: bool
    #: Where it lies in the inbox already and is dropped as it is.
    lies_at: Path | None = None
    via: str = "cli"


def parse_setting(text: str) -> tuple[str, object]:
    """Read `--set key=value`: the value as TOML where it is TOML, else as text.

    Raises:
        JobError: `bad-usage`: there is no key or no =.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise JobError(
            "bad-usage", f"--set {text}: key=value is accepted", "such as --set steps=20 or --set meta.customer=Smith"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key, value
    return key, parsed["value"] if parsed.keys() == {"value"} else value


def make(settings: Settings, workspace: Workspace, wanted: Wanted, *, now: bool) -> Draft:
    """Make a job of what the command line says. Nothing is written.

    Args:
        now: a schedule in it is left out.

    Raises:
        Rejected: every problem of the text.
        JobError: it cannot have this name, or a picture named at the command line is not there.
    """
    text = wanted.file.read_bytes() if wanted.file else wanted.text
    document = tomltext.parse(text)
    table = _copy(document.table)
    _lay(table, wanted.keys)
    if now:
        table.pop("schedule", None)
    scheduled = "schedule" in table
    lies_at = _in_inbox(workspace, wanted.file)
    if lies_at and table == document.table:
        verdict.check(settings, document, verdict.lane_of(settings, lies_at))
        return Draft(
            name=names.safe_name(lies_at.name), data=text, pictures={}, missing=(), scheduled=scheduled, lies_at=lies_at
        )
    base = wanted.file.parent if wanted.file else Path.cwd()
    pictures, missing = _find_pictures(settings, workspace, table, base, wanted.keys)
    if table != document.table or not text.endswith(b"\n"):
        text = tomli_w.dumps(table, multiline_strings=True).encode()
        tomltext.parse(text)
    # Lines are those of the file that was named: nobody has seen the text that is made here.
    verdict.check(settings, Document(table=table, lines=document.lines if wanted.file else {}))
    return Draft(
        name=_name(wanted, table), data=text, pictures=pictures, missing=missing, scheduled=scheduled, via=wanted.via
    )


def put(workspace: Workspace, draft: Draft) -> Dropped:
    """Drop a job: its pictures and its list of items first, then its text."""
    before = frozenset(jobs.takes(workspace, draft.name))
    if draft.lies_at is not None:
        return Dropped(path=draft.lies_at, name=draft.name, sha256=digest(draft.data), before=before, ours=False)
    data = draft.data
    given = {role: drop.picture(workspace, path) for role, path in draft.pictures.items()}
    table = tomllib.loads(tomltext.decode(data))
    if given and any(table.get(role) != name for role, name in given.items()):
        data = tomli_w.dumps(table | given, multiline_strings=True).encode()
    # Tells the daemon which door it came through; dropped on reading, as every line of ours.
    data = f"#! via {draft.via}\n".encode() + _OF_A_DOOR.sub(b"", data.removeprefix(b"\xef\xbb\xbf"))
    path = drop.job_file(workspace, draft.name, data)
    return Dropped(path=path, name=draft.name, sha256=digest(data), before=before)


def _copy(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(inner) if isinstance(inner, dict) else inner for key, inner in value.items()}


def _lay(table: dict[str, Any], keys: Mapping[str, object]) -> None:
    for dotted, value in keys.items():
        *path, last = dotted.split(".")
        target = table
        for part in path:
            inner = target.setdefault(part, {})
            if not isinstance(inner, dict):
                raise JobError("bad-usage", f"--set {dotted}: {part} is no table", f"it is {inner!r} in the job file")
            target = inner
        target[last] = value


def _in_inbox(workspace: Workspace, file: Path | None) -> Path | None:
    """Return where a job file lies in the inbox already; one in scheduled/ lies there for good, and does not count."""
    if file is None or not (path := file.resolve()).is_relative_to(inbox := workspace.inbox.resolve()):
        return None
    below = path.relative_to(inbox)
    means = meaning_of(path.name)
    is_drop = isinstance(means, JobName) and below.parts[0] != "scheduled"
    return workspace.inbox / below if is_drop else None


def _find_pictures(
    settings: Settings, workspace: Workspace, table: dict[str, Any], base: Path, keys: Mapping[str, object]
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Find the pictures a job names, and its list of items; name those in the inbox as the daemon will look for them.

    A name at the command line is meant from the current folder, one in the job file from the file's own.
    """
    inbox = workspace.inbox.resolve()
    copies, missing = {}, []
    for role in (*PICTURE_KEYS, "items"):
        name = table.get(role)
        if not isinstance(name, str) or not name or name.startswith("@"):
            continue
        places = [Path.cwd()] if role in keys else [base, base / "sources"]
        path = next((path for place in places if (path := place / Path(name).expanduser()).is_file()), None)
        if path is not None:
            real = path.resolve()
            if real.is_relative_to(inbox):
                table[role] = real.relative_to(inbox).as_posix()
            elif not (
                Path(name).is_absolute() and any(path.is_relative_to(root) for root in settings.inbox.allowed_roots)
            ):
                copies[role] = path
        elif not (workspace.inbox / name).is_file():
            if role in keys:
                raise JobError(
                    "missing-picture",
                    f"{role}: there is no file {names.shown(name)}",
                    "name it as seen from the current folder",
                )
            missing.append(name)
    return copies, tuple(missing)


def _name(wanted: Wanted, table: Mapping[str, Any]) -> str:
    if wanted.name is not None:
        name = names.safe_name(wanted.name)
    elif wanted.file is not None:
        again = wanted.file.name in _OF_A_TAKE and names.split_take(wanted.file.absolute().parent.name)
        name = again[0] if again else names.safe_name(wanted.file.name)
    else:
        picture = next((Path(table[role]).stem for role in PICTURE_KEYS if isinstance(table.get(role), str)), "")
        name = names.make_safe(slug(str(table.get("prompt", ""))) or names.safe_name(picture))
    if meaning_of(f"{name}.toml") != JobName(name=name):
        raise JobError(
            "bad-usage",
            f"a job cannot be called {names.shown(name)}: {name}.toml means something else",
            "give another one with --name",
        )
    return name


def slug(prompt: str) -> str:
    """Make a short name of the first words of a prompt."""
    words = re.findall(r"\w+", prompt.lower())[:_SLUG_WORDS]
    while len(words) > 1 and len("-".join(words)) > _SLUG_CHARS:
        words.pop()
    return "-".join(words)[:_SLUG_CHARS]
