"""Rounds of a soak: drop, wait until nothing is left to do, judge every take, clear away what was judged.

In the last rounds nobody kills, so that one process lives long enough to tell whether it grows.
"""

import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import soak_crowd
import soak_litter
from conftest import Workspace
from processes import Process
from soak_crowd import EVERGREENS, Crowd
from soak_oracle import ENDS, Oracle
from waiting import wait_until

#: How often each act is drawn.
ACTS: Final[Mapping[Callable[[Crowd], None], int]] = {
    soak_crowd.drop_one: 40,
    soak_crowd.drop_burst: 5,
    soak_crowd.overwrite: 8,
    soak_crowd.drop_again: 5,
    soak_crowd.rename_untaken: 3,
    soak_crowd.mend: 2,
    soak_crowd.drop_evergreen: 3,
    soak_crowd.bring_tree: 4,
    soak_crowd.take_lane_away: 2,
    soak_crowd.cancel: 8,
    soak_crowd.pause: 4,
    soak_crowd.put_first: 3,
    soak_crowd.pause_all: 1,
    soak_crowd.delete_folder: 3,
    soak_litter.leave_litter: 6,
    soak_litter.leave_unreadable: 4,
    soak_litter.drop_with_picture: 8,
    soak_litter.drop_without_picture: 1,
    soak_litter.drop_pictures: 2,
}
#: The crowd waits while more than this is on its way: a soak is no burst.
_MOST_AHEAD: Final = 150
#: One in so many acts somebody looks at what is there.
_LOOK_EVERY: Final = 6
#: After this long without an end something is stuck.
_STUCK_S: Final = 60.0
#: Of the rounds, those at the end in which nobody kills.
_CALM_PART: Final = 0.25
#: What a process may have more after a drop than before: names that it remembers, not jobs.
_KB_A_DROP: Final = 2.0
_KB_ANYHOW: Final = 8192
#: In outputs/status.toml: jobs on their way, by state.
_UNDER_WAY: Final = re.compile(r"^(?:queued|running) = (\d+)$", re.MULTILINE)
_JOB_FILE: Final = re.compile(r"soak-\d+\.toml")
#: Complaints after which there is no point in going on.
_ENOUGH: Final = 100


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a process is while it has nothing to do."""

    drops: int
    rss_kb: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int, drops: int) -> "Size":
        """Measure a process."""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        told = {key: value.split()[0] for key, _, value in (line.partition(":") for line in lines) if value.strip()}
        files = len(os.listdir(f"/proc/{pid}/fd"))
        return cls(drops=drops, rss_kb=int(told["VmRSS"]), files=files, threads=int(told["Threads"]))


@dataclass(kw_only=True)
class Result:
    """What a soak has counted."""

    seed: int
    drops: int = 0
    takes: int = 0
    kills: int = 0
    stops: int = 0
    looks: int = 0
    checks: int = 0
    seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)
    #: Of the process of the calm rounds, one for each.
    sizes: list[Size] = field(default_factory=list)

    def __str__(self) -> str:
        rate = self.drops / max(self.seconds, 1e-9)
        return (
            f"{self.drops} drops ({rate:.0f}/s), {self.takes} takes, {self.kills} kills, "
            f"{self.stops} stops, {self.looks} looks, {self.checks} checks, {len(self.complaints)} complaints, "
            f"seed {self.seed}"
        )


class Soak:
    """One soak in one workspace."""

    def __init__(self, folder: Path, *, seed: int, kill_every: float) -> None:
        """Args: kill_every: drops between two kills, on average."""
        self.result = Result(seed=seed)
        self._chance = random.Random(seed)
        self._kill_every = kill_every
        self._workspace = Workspace(folder / "work")
        self._log = folder / "serve.log"
        self._oracle = Oracle(root=self._workspace.root)
        self._crowd = Crowd(self._workspace.root, self._oracle, self._chance)
        self._began = time.monotonic()
        self._daemon = self._start()

    def run(self, drops: int, a_round: int) -> Result:
        """Run so many drops, round by round."""
        try:
            calm_from = drops * (1 - _CALM_PART)
            while self._crowd.drops < drops and len(self.result.complaints) < _ENOUGH:
                until = min(drops, self._crowd.drops + a_round)
                self._round(until, calm=until > calm_from)
            self._complain(_growth(self.result.sizes))
            self._stop()
        finally:
            self._daemon.kill()
        return self.result

    # --- a round ---

    def _round(self, until: int, *, calm: bool) -> None:
        self._oracle.begin()
        self._drop(until, calm=calm)
        self._finish()
        if not calm and self._chance.random() < 0.3:
            self._stop()
            self._daemon = self._start()
        self._judge()
        self._clear()
        if calm:
            self._wait_until_it_has_looked()
            self.result.sizes.append(Size.of(self._daemon.pid, self._crowd.drops))
        self._read_log()
        self._count()
        _say(f"{time.monotonic() - self._began:6.0f} s: {self.result}")

    def _drop(self, until: int, *, calm: bool) -> None:
        """Everybody drops, and now and then the daemon is killed."""
        chance, crowd = self._chance, self._crowd
        next_kill = crowd.drops + self._until_kill()
        next_start_kill = float("inf")
        acts, weights = list(ACTS), list(ACTS.values())
        while crowd.drops < until:
            crowd.go_on()
            (act,) = chance.choices(acts, weights)
            act(crowd)
            if chance.randrange(_LOOK_EVERY) == 0:
                self._complain(self._oracle.look(chance))
            if not calm and (crowd.drops >= next_kill or time.monotonic() >= next_start_kill):
                self._kill_or_stop()
                next_kill = crowd.drops + self._until_kill()
                # Sometimes again, while it starts.
                next_start_kill = time.monotonic() + 2 * chance.random() if chance.random() < 0.2 else float("inf")
            self._wait_for_room()

    def _until_kill(self) -> float:
        return self._kill_every * self._chance.uniform(0.3, 1.7)

    def _kill_or_stop(self) -> None:
        if self._chance.random() < 0.15:
            self._stop()
        else:
            self._daemon.kill()
            self.result.kills += 1
        self._daemon = self._start()

    def _wait_for_room(self) -> None:
        """Let the daemon come after; what is due goes on meanwhile."""

        def has_room() -> bool:
            self._crowd.go_on()
            return self._on_its_way() < _MOST_AHEAD

        # Where it is never so, the end of the round says what is stuck.
        with suppress(AssertionError):
            wait_until(has_room, 30)

    def _on_its_way(self) -> int:
        """Return about how many jobs lie in the inbox or in the line; told without parsing, since it is asked often."""
        text = ""
        with suppress(FileNotFoundError):
            text = (self._workspace.outputs / "status.toml").read_text(encoding="utf-8")
        dropped = {name for name in os.listdir(self._workspace.inbox) if _JOB_FILE.fullmatch(name)}
        return sum(map(int, _UNDER_WAY.findall(text))) + len(dropped - self._oracle.stays.keys())

    def _finish(self) -> None:
        """Wait until nothing is left to do."""
        for file in self._crowd.last_words:
            file.touch()
        self._crowd.last_words.clear()
        # As long as something ends, nothing is stuck: the machine may be slow.
        left: list[str] | None = None
        while not self._is_over() and (found := self._oracle.unfinished()) != left:
            left = found
            with suppress(AssertionError):
                wait_until(self._is_over, _STUCK_S)
        self._complain(f"stuck: {what}" for what in self._oracle.unfinished()[:10])
        if self._crowd.go_on():
            self._complain(["stuck: somebody waits for what does not happen"])
        if not self._daemon.runs:
            self._complain([f"the daemon has ended by itself: {self._daemon.log}"])
            self._daemon = self._start()

    def _is_over(self) -> bool:
        if not self._daemon.runs:
            return True  # for ever
        if self._crowd.go_on() or self._on_its_way():
            return False
        counts = self._workspace.daemon_status().get("counts", {})
        return not counts.keys() - ENDS and not self._oracle.unfinished()

    def _judge(self) -> None:
        self.result.takes += sum(take.number > self._oracle.standing.get(take.stem, 0) for take in self._oracle.takes())
        self._complain(self._oracle.verdict())

    def _clear(self) -> None:
        """Remove what was judged, but for the newest take of a name that comes again."""
        newest = {take.stem: take for take in sorted(self._oracle.takes(), key=lambda take: take.number)}
        kept = {newest[name].folder for name in EVERGREENS if name in newest}
        for take in self._oracle.takes():
            if take.folder not in kept:
                shutil.rmtree(take.folder)
        for path in self._workspace.outputs.glob("soak-*.active.toml"):
            path.unlink()
        for folder in (self._workspace.inbox, self._crowd.outside):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _wait_until_it_has_looked(self) -> None:
        """Wait until the daemon knows which lanes are gone: each that it watches has threads of its own."""
        for _ in range(2):
            before = self._workspace.daemon_status().get("updated_at")
            wait_until(lambda before=before: self._workspace.daemon_status().get("updated_at") != before, _STUCK_S)  # type: ignore[misc]  # bound at once

    # --- the daemon ---

    def _start(self) -> Process:
        return Process(self._workspace, log_file=self._log)

    def _stop(self) -> None:
        """SIGTERM: in order, and with the last word said; before it handles signals it simply ends."""
        serves = self._workspace.daemon_status().get("pid") == self._daemon.pid
        code = self._daemon.stop()
        self.result.stops += 1
        if code != 0 and serves:
            self._complain([f"ended with {code}: {self._daemon.log}"])
        left = list((self._workspace.outputs).glob(".*"))
        if serves and left:
            self._complain([f"left after a stop: {left}"])

    def _read_log(self) -> None:
        """Nothing in it says that something of ours is wrong."""
        for line in self._log.read_text(errors="replace").splitlines():
            if "Traceback" in line or '"exception"' in line:
                self._complain([f"the log says {line[:3000]}"])
        os.truncate(self._log, 0)

    # --- what is told ---

    def _complain(self, found: Iterable[str]) -> None:
        for text in found:
            if len(self.result.complaints) < _ENOUGH:
                _say(f"WRONG: {text[:2000]}")
            self.result.complaints.append(text)

    def _count(self) -> None:
        self.result.drops = self._crowd.drops
        self.result.looks, self.result.checks = self._oracle.looks, self._oracle.checks
        self.result.seconds = time.monotonic() - self._began


def _say(text: str) -> None:
    print(text, flush=True)


def _growth(sizes: Sequence[Size]) -> list[str]:
    """Say in what a process has grown that did the same again and again."""
    if len(sizes) < 2:
        return []
    first, last = sizes[0], sizes[-1]
    found = [
        f"{what} grew from {before} to {after}"
        for what, before, after in (
            ("open files", first.files, last.files),
            ("threads", first.threads, last.threads),
        )
        if after > before + 2
    ]
    may_grow = _KB_ANYHOW + _KB_A_DROP * (last.drops - first.drops)
    if last.rss_kb - first.rss_kb > may_grow:
        found.append(f"memory grew from {first.rss_kb} to {last.rss_kb} kB in {last.drops - first.drops} drops")
    return found
