"""What must have come of each drop, told as a stranger would tell it: from the folders, with tomllib, json and Pillow.

Nothing of the program is imported here: what it believes of itself is no evidence.
"""

import hashlib
import itertools
import json
import os
import random
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

ENDS = frozenset({"completed", "partial", "failed", "cancelled", "rejected"})
STATES = ENDS | {"waiting", "held", "queued", "running", "review"}
#: What tells the drops apart: it stands in the text of each.
TOKEN = re.compile(rb"soak-\d{7}")
_TAKE = re.compile(r"(?P<stem>.+)_take(?P<take>\d{2,})\Z", re.ASCII | re.DOTALL)
_JOB_FILES = frozenset({"job.toml", "plan.toml", "status.toml", "journal.jsonl", "log.jsonl", "index.html"})
_JOB_FOLDERS = frozenset({"work", "sources"})
_DAEMON_FILES = frozenset({"status.toml", "index.html"})

Colour = tuple[int, ...]


@dataclass(kw_only=True)
class Drop:
    """A text that was dropped whole, and all that may have come of it."""

    token: str
    data: bytes
    ends: set[str]
    #: Takes of exactly this text.
    fewest: int = 1
    most: int = 1
    #: Pictures of a completed take.
    pictures: int = 1
    #: Colour of each picture, where it is known beforehand.
    colours: tuple[Colour, ...] = ()
    #: Whether NAME.rejected.toml must lie in the inbox where it was refused.
    answered: bool = False
    #: One that lay under the same name before: its take is the lower one.
    after: "Drop | None" = None
    #: What was done to it, for who has to find out what went wrong.
    history: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Take:
    """A job's folder."""

    folder: Path
    stem: str
    number: int
    token: str

    @classmethod
    def of(cls, folder: Path) -> "Take | None":
        """Return what a folder is, None where it is no take."""
        match = _TAKE.match(folder.name)
        if match is None or not folder.is_dir():
            return None
        found = None
        with suppress(FileNotFoundError):
            found = TOKEN.search((folder / "job.toml").read_bytes())
        token = found.group().decode() if found else ""
        return cls(folder=folder, stem=match["stem"], number=int(match["take"]), token=token)


@dataclass(kw_only=True)
class Oracle:
    """Knows what was dropped in one round, and judges what came of it."""

    root: Path
    drops: dict[str, Drop] = field(default_factory=dict)
    #: Path below the inbox -> its bytes, None for what is no regular file: must lie there unchanged.
    stays: dict[str, bytes | None] = field(default_factory=dict)
    #: Names of which takes of earlier rounds stand -> the highest: the next one must be one above.
    standing: dict[str, int] = field(default_factory=dict)
    looks: int = 0
    checks: int = 0
    _over: set[Path] = field(default_factory=set)

    @property
    def inbox(self) -> Path:
        return self.root / "jobs_inbox"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    def expect(self, drop: Drop) -> Drop:
        """Remember a drop."""
        self.drops[drop.token] = drop
        return drop

    def lies(self, path: Path, data: bytes | None = None) -> None:
        """Remember something that must be left alone."""
        self.stays[str(path.relative_to(self.inbox))] = data

    def begin(self) -> None:
        """Forget the round, but for the takes that still stand."""
        self.drops.clear()
        self.stays.clear()
        self._over.clear()
        self.standing = {}
        for take in self.takes():
            self.standing[take.stem] = max(take.number, self.standing.get(take.stem, 0))

    def takes(self) -> list[Take]:
        """Return every take that stands."""
        return [take for path in self.outputs.iterdir() if (take := Take.of(path)) is not None]

    # --- at any moment ---

    def look(self, chance: random.Random) -> Iterator[str]:
        """Look at what a reader might look at now, whatever the daemon is just doing."""
        self.looks += 1
        yield from _complain_of_status(self.outputs / "status.toml")
        names = os.listdir(self.outputs)
        if not names:
            return
        folder = self.outputs / chance.choice(names)
        if _TAKE.match(folder.name) is None:
            return
        yield from _complain_of_status(folder / "status.toml")
        with suppress(FileNotFoundError, NotADirectoryError):
            pictures = [name for name in os.listdir(folder) if name.endswith(".png")]
            for name in pictures[:1]:
                _load(folder / name)

    # --- once nothing is left to do ---

    def unfinished(self) -> list[str]:
        """Return what is still to come."""
        found: list[str] = []
        count: dict[str, int] = defaultdict(int)
        for path in list(self.outputs.iterdir()):
            take = Take.of(path)
            if take is None:
                if path.name.startswith("."):
                    found.append(f"{path.name} in outputs")
                continue
            count[take.token] += 1
            if path not in self._over:
                state = _read_state(path)
                if state in ENDS:
                    self._over.add(path)
                else:
                    found.append(f"{path.name} is {state}")
        found += [
            f"{drop.token} has {count[drop.token]} takes"
            for drop in self.drops.values()
            if count[drop.token] < drop.fewest
        ]
        found += [f"{name!r} in the inbox" for name in self._strangers()]
        found += [f"{path.name} is marked as live" for path in (self.root / ".hotfolder" / "live").rglob("*_take*")]
        return found

    def _strangers(self) -> list[str]:
        """Return the files in the inbox that neither stay there nor came back as refused."""
        found = []
        for folder, folders, files in os.walk(self.inbox):
            for name in [*files, *(name for name in folders if Path(folder, name).is_symlink())]:
                below = str(Path(folder, name).relative_to(self.inbox))
                if below not in self.stays and not name.endswith(".rejected.toml"):
                    found.append(below)
        return found

    def verdict(self) -> list[str]:
        """Judge the whole round."""
        found = list(self._judge_takes())
        found += [f"{name!r} lies in the inbox" for name in self._strangers()]
        for below, data in self.stays.items():
            self.checks += 1
            path = self.inbox / below
            if not os.path.lexists(path):
                found.append(f"{below!r} was to stay in the inbox and is gone")
            elif data is not None and path.read_bytes() != data:
                found.append(f"{below!r} was to stay and was changed")
        for path in self.outputs.iterdir():
            known = path.name in _DAEMON_FILES or path.name.endswith(".active.toml") or _TAKE.match(path.name)
            if not known:
                found.append(f"{path.name!r} lies in outputs")
        return found

    def _judge_takes(self) -> Iterator[str]:
        by_token: dict[str, list[Take]] = defaultdict(list)
        by_stem: dict[str, list[int]] = defaultdict(list)
        for take in self.takes():
            by_stem[take.stem].append(take.number)
            if take.number <= self.standing.get(take.stem, 0):
                continue
            by_token[take.token].append(take)
            drop = self.drops.get(take.token)
            told = f" <- {drop.history}" if drop else ""
            yield from (f"{take.folder.name!r}: {text}{told}" for text in self._judge(take, drop))
        answered = self._answered()
        for drop in self.drops.values():
            self.checks += 1
            takes = by_token[drop.token]
            if not drop.fewest <= len(takes) <= drop.most:
                yield f"{drop.token} has {len(takes)} takes, not {drop.fewest} to {drop.most} <- {drop.history}"
            before = by_token[drop.after.token] if drop.after else []
            if before and takes and before[0].stem == takes[0].stem and before[0].number > takes[0].number:
                yield f"{drop.token} came after {before[0].token} and has the lower take <- {drop.history}"
            if drop.answered and drop.ends == {"rejected"} and takes and drop.token not in answered:
                yield f"{drop.token} was refused and did not come back <- {drop.history}"
        for stem, numbers in by_stem.items():
            lowest = self.standing.get(stem, min(numbers))
            yield from self._judge_active(stem, numbers)
            if stem in self.standing and sorted(numbers) != list(range(lowest, lowest + len(numbers))):
                yield f"takes of {stem!r} are {sorted(numbers)}"

    def _judge_active(self, stem: str, numbers: list[int]) -> Iterator[str]:
        """Judge which take of a name is said to be the active one: the newest that is completed."""
        folders = [self.outputs / f"{stem}_take{number:02d}" for number in sorted(numbers)]
        completed = [folder for folder in folders if _read_state(folder) == "completed"]
        path = self.outputs / f"{stem}.active.toml"
        if not completed:
            return
        try:
            told = tomllib.loads(path.read_text(encoding="utf-8"))
            if told["take"] != completed[-1].name:
                yield f"{path.name!r} says {told['take']!r}, the newest completed is {completed[-1].name!r}"
            for one in told["files"]:
                if hashlib.sha256((self.root / one["file"]).read_bytes()).hexdigest() != one["sha256"]:
                    yield f"{path.name!r} tells of another {one['file']!r}"
        except (OSError, ValueError, KeyError) as error:
            yield f"{path.name!r}: {type(error).__name__}: {error}"

    def _answered(self) -> set[str]:
        """Return what came back as refused."""
        found = (TOKEN.search(path.read_bytes()) for path in self.inbox.rglob("*.rejected.toml"))
        return {match.group().decode() for match in found if match is not None}

    def _judge(self, take: Take, drop: Drop | None) -> Iterator[str]:
        """Judge one take."""
        self.checks += 1
        folder = take.folder
        if drop is None:
            yield f"nobody dropped what stands in its job.toml: {(folder / 'job.toml').read_bytes()[:200]!r}"
            return
        if (folder / "job.toml").read_bytes() != drop.data:
            yield "job.toml is not what was dropped"
        try:
            told = tomllib.loads((folder / "status.toml").read_text(encoding="utf-8"))
            lines = [json.loads(line) for line in (folder / "journal.jsonl").read_bytes().splitlines()]
            yield from _judge_told(folder, told, lines, drop)
            yield from _judge_pictures(folder, told, drop)
        except (OSError, ValueError, KeyError, SyntaxError) as error:
            yield f"{type(error).__name__}: {error}"


def _judge_told(folder: Path, told: dict[str, Any], lines: list[dict[str, Any]], drop: Drop) -> Iterator[str]:
    """Judge what status and journal say."""
    state = told["state"]
    if state not in drop.ends:
        yield f"is {state}, not {sorted(drop.ends)}: {told.get('error')}"
    if (told["schema"], told["job"]) != (1, folder.name):
        yield f"its status is of {told['job']}"
    life = [line for line in lines if line["event"] in {"ended", "resumed"}]
    if any(one["event"] == other["event"] for one, other in itertools.pairwise(life)):
        yield f"has ended twice: {life}"
    if not life or life[-1].get("state") != state:
        yield f"its journal ends with {life[-1:]}, its status says {state}"
    done = [line["outputs"][0]["candidate"] for line in lines if line["event"] == "done"]
    if len(done) != len(set(done)):
        yield f"candidates were finished twice: {done}"
    if state == "completed" and told["done"] != drop.pictures:
        yield f"{told['done']} pictures, not {drop.pictures}"


def _judge_pictures(folder: Path, told: dict[str, Any], drop: Drop) -> Iterator[str]:
    """Judge what lies in the folder: whole pictures, each with its sidecar, and nothing else."""
    names = {path.name: path for path in folder.iterdir()}
    pictures = {name for name in names if name.endswith(".png")}
    if pictures != {output["file"] for output in told.get("outputs", [])}:
        yield f"pictures {sorted(pictures)}, told {told.get('outputs')}"
    if {name.removesuffix(".toml") for name in names if name.endswith(".png.toml")} != pictures:
        yield f"pictures and sidecars do not match: {sorted(names)}"
    strange = names.keys() - _JOB_FILES - _JOB_FOLDERS - pictures - {f"{name}.toml" for name in pictures}
    if strange:
        yield f"holds {sorted(strange)}"
    hidden = [path for part in _JOB_FOLDERS for path in (folder / part).rglob("*") if path.name.startswith(".")]
    if hidden:
        yield f"leftovers {hidden}"
    for output in told.get("outputs", []):
        path = folder / output["file"]
        said = tomllib.loads((folder / f"{output['file']}.toml").read_text(encoding="utf-8"))
        if hashlib.sha256(path.read_bytes()).hexdigest() != said["file_sha256"]:
            yield f"{path.name} is not the file that its sidecar tells of"
        if (said["job"], said["candidate"], said["seed"]) != (folder.name, output["candidate"], output["seed"]):
            yield f"the sidecar of {path.name} tells of another picture"
        colour = _load(path)
        if drop.colours and colour != drop.colours[output["candidate"] - 1]:
            yield f"{path.name} shows {colour}, not {drop.colours[output['candidate'] - 1]}"


def colour_of(prompt: str, seed: int, steps: int) -> Colour:
    """Return the colour in which the painted engine answers, from its description."""
    return tuple(hashlib.sha256(f"{prompt} {seed} {steps} text2img".encode()).digest()[:3])


def _load(path: Path) -> Colour:
    """Decode a whole picture; return the colour in its middle.

    Raises:
        OSError, SyntaxError: it is not whole.
    """
    with Image.open(path) as image:
        image.load()
        found = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
    assert isinstance(found, tuple)
    return tuple(int(value) for value in found)


def _read_state(folder: Path) -> str:
    with suppress(FileNotFoundError, NotADirectoryError):
        return str(tomllib.loads((folder / "status.toml").read_text(encoding="utf-8")).get("state"))
    return "gone"


def _complain_of_status(path: Path) -> Iterator[str]:
    """A status is whole, and says a state that is known, at every moment at which it is there."""
    try:
        state = tomllib.loads(path.read_text(encoding="utf-8"))["state"]
    except (FileNotFoundError, NotADirectoryError):
        return  # not yet, or not any more
    except (ValueError, KeyError) as error:
        yield f"{path.parent.name}/status.toml cannot be read: {error}"
        return
    if state not in STATES | {"paused", "stopped"}:
        yield f"{path.parent.name}/status.toml says {state!r}"
