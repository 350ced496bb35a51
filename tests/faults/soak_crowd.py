"""What people and programs do to a workspace, drawn by chance: every act says to the oracle what may come of it."""

import heapq
import itertools
import os
import random
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import soak_texts
from soak_oracle import ENDS, Drop, Oracle

#: Does something later; returns after how many seconds it is to be called again, None when it is done.
Later = Callable[[], float | None]

LANES: Final = ("", "", "", "night", "night/deep", "a/b/c", "Über lane")
#: Names that come again and again: each drop is the next take.
EVERGREENS: Final = ("mug", "tasse ä", "x.y z")
#: Behind the token: what file names look like.
_TAILS: Final = ("", "", "", " ä", "-Ω", "\udcff", "\n", "'\"", ".v2", ".png", "_take03", "%s$(x)", "." * 3)
_SUFFIXES: Final = (".toml", ".toml", ".toml", ".toml", ".TOML", ".toml.txt")
_SOON_S: Final = 0.05
_TIDY_S: Final = 1.0


class Crowd:
    """Everybody who drops something."""

    def __init__(self, root: Path, oracle: Oracle, chance: random.Random) -> None:
        self.oracle, self.chance = oracle, chance
        self.inbox, self.outputs = root / "jobs_inbox", root / "outputs"
        #: On the same file system, for what is moved in and out.
        self.outside = root / "outside"
        self.outside.mkdir(exist_ok=True)
        self.drops = 0
        self._numbers = itertools.count(1)
        self._later: list[tuple[float, int, Later]] = []
        #: Control files that are dropped before the round ends: jobs that would wait for ever else.
        self.last_words: list[Path] = []

    # --- time ---

    def later(self, seconds: float, act: Later) -> None:
        """Do something in a while, also again and again."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), act))

    def go_on(self) -> bool:
        """Do what is due; return whether something is still to come."""
        while self._later and self._later[0][0] <= time.monotonic():
            _, _, act = heapq.heappop(self._later)
            again = act()
            if again is not None:
                self.later(again, act)
        return bool(self._later)

    def soon(self, at_most_s: float) -> float:
        """Draw a moment, more often a near one."""
        return at_most_s * self.chance.random() ** 2

    # --- what is dropped ---

    def token(self) -> str:
        """Return what stands in one text only, in all rounds."""
        return f"soak-{next(self._numbers):07d}"

    def text(self) -> Drop:
        """Draw a text, and expect what it says."""
        (make,) = self.chance.choices(list(soak_texts.MAKERS), list(soak_texts.MAKERS.values()))
        return self.oracle.expect(make(self.token(), self.chance))

    def place(self) -> Path:
        """Draw a lane."""
        folder = self.inbox / self.chance.choice(LANES)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def drop(self, path: Path, drop: Drop) -> None:
        """Put a text under a name, in one of the ways in which that is done."""
        way = self.chance.choice(WAYS)
        self.drops += 1
        drop.history.append(f"{way.__name__} {str(path.relative_to(self.inbox))!r}")
        drop.answered = True
        way(self, path, drop.data)

    def control(self, stem: str, word: str) -> Path:
        """Drop a control file."""
        self.drops += 1
        path = self.inbox / f"{stem}.{word}{self.chance.choice(('', '', '.txt'))}"
        path.touch()
        return path

    def beside(self) -> Path:
        """Return a new name outside the inbox."""
        return self.outside / self.number()

    def number(self) -> str:
        """Return what makes a name another one."""
        return str(next(self._numbers))


# --- ways in which a file gets its name ---


def rename(crowd: Crowd, path: Path, data: bytes) -> None:
    """As careful programs do."""
    beside = path.with_name(f".{crowd.number()}.tmp")
    beside.write_bytes(data)
    beside.rename(path)


def write(crowd: Crowd, path: Path, data: bytes) -> None:
    """As `printf > file` does."""
    path.write_bytes(data)


def write_in_pieces(crowd: Crowd, path: Path, data: bytes) -> None:
    """As a slow program does; nobody else knows when it is done, but for the file that it has open."""
    file = path.open("wb", buffering=0)
    cuts = sorted(crowd.chance.randrange(len(data) + 1) for _ in range(crowd.chance.randint(1, 3)))
    pieces = [data[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(data)])]
    file.write(pieces.pop(0))

    def go_on() -> float | None:
        file.write(pieces.pop(0))
        if pieces:
            return crowd.soon(0.4)
        file.close()
        return None

    crowd.later(crowd.soon(0.4), go_on)


def copy(crowd: Crowd, path: Path, data: bytes) -> None:
    """As `cp -p` does: with an old time."""
    source = crowd.beside()
    source.write_bytes(data)
    old = crowd.chance.randrange(10**18, 2 * 10**18)
    os.utime(source, ns=(old, old))
    shutil.copy2(source, path)
    source.unlink()


def move(crowd: Crowd, path: Path, data: bytes) -> None:
    """As `mv` does."""
    source = crowd.beside()
    source.write_bytes(data)
    source.rename(path)


def link(crowd: Crowd, path: Path, data: bytes) -> None:
    """As `ln` does; the other name goes."""
    source = crowd.beside()
    source.write_bytes(data)
    path.unlink(missing_ok=True)
    os.link(source, path)
    source.unlink()


WAYS: Final = (rename, rename, write, write, write_in_pieces, copy, move, link)


# --- what a job is dropped with ---


def drop_one(crowd: Crowd) -> None:
    drop = crowd.text()
    name = f"{drop.token}{crowd.chance.choice(_TAILS)}{crowd.chance.choice(_SUFFIXES)}"
    crowd.drop(crowd.place() / name, drop)


def drop_burst(crowd: Crowd) -> None:
    for _ in range(crowd.chance.randint(2, 12)):
        drop_one(crowd)


def overwrite(crowd: Crowd) -> None:
    """The last text runs; those before it do if they were taken by then."""
    path = crowd.place() / f"{crowd.token()}.toml"
    before: list[Drop] = []

    def next_one() -> float | None:
        drop = crowd.text()
        if before:
            # What it came back as, if it was refused, may be written over as well.
            before[-1].fewest, before[-1].answered = 0, False
            drop.after = before[-1]
        before.append(drop)
        crowd.drop(path, drop)
        return crowd.soon(0.3) if crowd.chance.random() < 0.5 or len(before) < 2 else None

    again = next_one()
    if again is not None:
        # A slow writer is let finish: two who write into one file at once make what nobody dropped.
        crowd.later(again, lambda: _SOON_S if _is_written_to(path) else next_one())


def _is_written_to(path: Path) -> bool:
    """Whether this process has the file of this name open."""
    return any(_is_same(path, opened) for opened in Path("/proc/self/fd").iterdir())


def _is_same(path: Path, other: Path) -> bool:
    with suppress(OSError):
        return path.samefile(other)
    return False


def drop_again(crowd: Crowd) -> None:
    """The same text once more, as soon as the name is free: it is the next take."""
    drop = crowd.text()
    path = crowd.place() / f"{drop.token}.toml"
    crowd.drop(path, drop)
    drop.fewest = drop.most = 2

    def again() -> float | None:
        if path.exists():
            return _SOON_S
        crowd.drop(path, drop)
        return None

    crowd.later(crowd.soon(0.2), again)


def rename_untaken(crowd: Crowd) -> None:
    """Somebody thinks better of a name. What was just being taken runs under both."""
    drop = crowd.text()
    folder = crowd.place()
    path, better = folder / f"{drop.token}.toml", folder / f"{drop.token}-better.toml"
    crowd.drop(path, drop)

    def again() -> None:
        with suppress(FileNotFoundError):
            path.rename(better)
            drop.most = 2
            drop.history.append("renamed")

    crowd.later(crowd.soon(0.2), again)


def mend(crowd: Crowd) -> None:
    """What comes back as refused is mended in place, and renamed as it says."""
    drop = crowd.oracle.expect(soak_texts.wrong(crowd.token(), crowd.chance))
    folder = crowd.place()
    crowd.drop(folder / f"{drop.token}.toml", drop)
    back = folder / f"{drop.token}.rejected.toml"
    drop.answered = False

    def try_again() -> float | None:
        if not back.exists():
            return _SOON_S
        mended = crowd.oracle.expect(soak_texts.mended(back.read_bytes(), drop.token, crowd.token()))
        mended.history.append(f"{drop.token}, mended")
        mended.after = drop
        crowd.drops += 1
        back.write_bytes(mended.data)
        back.rename(folder / f"{drop.token}.toml")
        return None

    crowd.later(_SOON_S, try_again)


def drop_evergreen(crowd: Crowd) -> None:
    """A name that comes again and again; one that still lies there is overwritten."""
    name = crowd.chance.choice(EVERGREENS)
    path = crowd.inbox / f"{name}.toml"
    drop = crowd.text()
    if path.exists():
        for other in crowd.oracle.drops.values():
            if other.history and repr(path.name) in other.history[-1]:
                other.fewest = 0
    crowd.drops += 1
    drop.history.append(f"rename {path.name!r}")
    rename(crowd, path, drop.data)


def bring_tree(crowd: Crowd) -> None:
    """A folder with jobs becomes a lane, at one stroke or file by file."""
    tree, lane = _tree(crowd), crowd.inbox / f"tree-{crowd.number()}"
    if crowd.chance.random() < 0.5:
        tree.rename(lane)
    else:
        shutil.copytree(tree, lane)
        shutil.rmtree(tree)
    crowd.later(_TIDY_S, lambda: _tidy(lane))


def _tidy(lane: Path) -> float | None:
    """Somebody removes a lane once nothing lies in it; what came back as refused is looked at another day."""
    for folder in (lane / "below", lane):
        with suppress(OSError):
            folder.rmdir()
    left = [path for path in lane.rglob("*.toml") if not path.name.endswith(".rejected.toml")]
    return _TIDY_S if left else None


def _tree(crowd: Crowd) -> Path:
    """Make a folder with jobs outside the inbox."""
    tree = crowd.beside()
    (tree / "below").mkdir(parents=True)
    for _ in range(crowd.chance.randint(2, 6)):
        drop = crowd.text()
        path = tree / crowd.chance.choice((".", "below")) / f"{drop.token}.toml"
        path.write_bytes(drop.data)
        drop.history.append("in a tree")
        crowd.drops += 1
    return tree


def take_lane_away(crowd: Crowd) -> None:
    """A lane goes with what was not taken yet; perhaps it comes back."""
    before = set(crowd.oracle.drops)
    tree, lane = _tree(crowd), crowd.inbox / f"gone-{crowd.number()}"
    drops = [drop for token, drop in crowd.oracle.drops.items() if token not in before]
    tree.rename(lane)
    comes_back = crowd.chance.random() < 0.5
    for drop in drops:
        # What was just being taken, and comes back under its name, is dropped again.
        drop.fewest, drop.most = (1, 2) if comes_back else (0, 1)
        drop.history.append(f"its lane {lane.name} goes" + " and comes back" * comes_back)

    def come_back() -> None:
        tree.rename(lane)

    def go() -> None:
        lane.rename(tree)
        if comes_back:
            crowd.later(crowd.soon(0.5), come_back)
        else:
            shutil.rmtree(tree)

    crowd.later(crowd.soon(0.5), go)


# --- what is done to a job ---


def cancel(crowd: Crowd) -> None:
    """Before its job or after; what was seen to be cancelled may be taken up again."""
    drop = crowd.text()
    drop.ends.add("cancelled")
    path = crowd.place() / f"{drop.token}.toml"
    crowd.drop(path, drop)
    files: list[Path] = []
    takes_up = crowd.chance.random() < 0.4

    def say() -> float | None:
        files.append(crowd.control(drop.token, "cancel"))
        drop.history.append("cancelled")
        return None

    def take_up() -> float | None:
        if not files or files[0].exists() or not (state := _end_of(crowd, drop)):
            return _SOON_S
        drop.ends = {"completed"} if state == "cancelled" else {state}
        drop.history.append(f"taken up when it was {state}")
        crowd.control(drop.token, "resume")
        return None

    crowd.later(crowd.soon(0.5), say)
    if takes_up and drop.ends >= {"completed"}:
        crowd.later(_SOON_S, take_up)


def _end_of(crowd: Crowd, drop: Drop) -> str:
    """Return the end that the first take of a drop has come to, "" where it has not."""
    with suppress(OSError, StopIteration):
        text = (crowd.outputs / f"{drop.token}_take01" / "status.toml").read_text()
        line = next(line for line in text.splitlines() if line.startswith("state = "))
        state = line.split('"')[1]
        return state if state in ENDS else ""
    return ""


def pause(crowd: Crowd) -> None:
    """Held for a while; then it goes on."""
    drop = crowd.text()
    crowd.drop(crowd.place() / f"{drop.token}.toml", drop)
    file = crowd.control(drop.token, "pause")
    drop.history.append("paused")

    def let_go() -> float | None:
        if file.exists():
            return _SOON_S
        crowd.control(drop.token, "resume")
        drop.history.append("let go")
        return None

    crowd.later(crowd.soon(1.0), let_go)


def put_first(crowd: Crowd) -> None:
    drop = crowd.text()
    crowd.drop(crowd.place() / f"{drop.token}.toml", drop)
    crowd.control(drop.token, "first")


def pause_all(crowd: Crowd) -> None:
    """Nothing begins for a moment."""
    file = crowd.inbox / "pause"
    file.touch()

    def go_on() -> float | None:
        file.unlink(missing_ok=True)
        return None

    crowd.later(crowd.soon(0.5), go_on)


def delete_folder(crowd: Crowd) -> None:
    """The folder of a job is deleted, or moved away, as soon as it is there: that cancels it."""
    drop = crowd.text()
    drop.fewest = 0
    drop.ends |= {"cancelled"}
    crowd.drop(crowd.place() / f"{drop.token}.toml", drop)
    folder = crowd.outputs / f"{drop.token}_take01"
    moves = crowd.chance.random() < 0.5

    def delete() -> float | None:
        if not folder.exists():
            return _SOON_S
        drop.history.append("its folder was " + ("moved away" if moves else "deleted"))
        if moves:
            shutil.rmtree(folder.rename(crowd.beside()))
            return None
        shutil.rmtree(folder, ignore_errors=True)
        # Somebody may just have written to it.
        return None if not folder.exists() else 0.0

    crowd.later(crowd.soon(0.3), delete)
