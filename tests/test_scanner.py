"""One look at the inbox after another, with a clock that the test turns and events that it makes up."""

import os
import threading
from pathlib import Path

import pytest
from clocks import SetClock
from waiting import wait_until

from hotfolder.claim import Seen
from hotfolder.scanner import Scan, Scanner, read
from hotfolder.settings import InboxSettings
from hotfolder.tomltext import MAX_OWN_BYTES
from hotfolder.watch import Hints, Watch

SETTLE_S = 0.5
TEXT = b'prompt = "a mug"\n'


class Inbox:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock, self.hints = SetClock(), Hints()
        self.scanner = Scanner(folder, InboxSettings(settle_s=SETTLE_S), self.clock, self.hints)

    def lay(self, name: str, data: bytes = TEXT) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def scan(self, after_s: float = 0.0) -> Scan:
        self.clock.turn(after_s)
        return self.scanner.scan()

    def ready(self, after_s: float = 0.0) -> list[str]:
        """Names of what is to be taken now, in this order."""
        return [one.seen.path.name for one in self.scan(after_s).ready]


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


def test_what_settles_is_counted_and_then_read(inbox: Inbox) -> None:
    path = inbox.lay("mug.toml")
    scan = inbox.scan()
    assert (scan.ready, scan.unsettled, scan.unadmitted) == ([], 1, {"mug"})
    scan = inbox.scan(SETTLE_S)
    (one,) = scan.ready
    found = path.stat()
    assert (one.name, one.lane, one.data, scan.unadmitted) == ("mug", "", TEXT, {"mug"})
    assert (one.seen.size, one.seen.mtime_ns, one.seen.inode) == (len(TEXT), found.st_mtime_ns, found.st_ino)


def test_what_comes_together_is_taken_by_time_and_then_by_name(inbox: Inbox) -> None:
    for name, seconds in (("b", 2), ("c", 1), ("a", 2)):
        os.utime(inbox.lay(f"{name}.toml"), (seconds, seconds))
    inbox.scan()
    assert inbox.ready(SETTLE_S) == ["c.toml", "a.toml", "b.toml"]


def test_a_text_without_its_last_newline_waits_once_more(inbox: Inbox) -> None:
    inbox.lay("mug.toml", TEXT.rstrip())
    inbox.scan()
    assert inbox.ready(SETTLE_S) == []
    assert inbox.ready(SETTLE_S / 2) == []
    assert inbox.ready(SETTLE_S / 2) == ["mug.toml"]


def test_a_text_that_was_renamed_into_place_needs_no_newline_and_no_wait(inbox: Inbox) -> None:
    path = inbox.lay("mug.toml", TEXT.rstrip())
    inbox.hints.add(path, moved_in=True)
    assert inbox.ready() == ["mug.toml"]


def test_what_was_heard_of_a_file_does_not_count_for_the_next_of_its_name(inbox: Inbox) -> None:
    inbox.hints.add(inbox.lay("mug.toml"), moved_in=True)
    assert inbox.ready() == ["mug.toml"]
    inbox.lay("mug.toml", TEXT + b"seed = 7\n")
    assert inbox.ready() == []
    assert inbox.ready(SETTLE_S) == ["mug.toml"]


def test_what_was_heard_of_a_file_that_is_not_ready_is_remembered(inbox: Inbox) -> None:
    path = inbox.lay("mug.toml")
    inbox.hints.add(path, moved_in=True)
    with path.open("ab"):
        assert inbox.ready() == []
    assert inbox.ready() == ["mug.toml"]


def test_a_file_that_is_not_the_one_that_was_seen_is_not_read(inbox: Inbox) -> None:
    path = inbox.lay("mug.toml")
    found = path.stat()
    seen = Seen(path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)
    assert read(seen) == TEXT
    path.write_bytes(TEXT[:5])
    assert read(seen) is None


def test_a_file_larger_than_any_plan_is_not_read(inbox: Inbox) -> None:
    os.truncate(inbox.lay("mug.toml"), MAX_OWN_BYTES + 1)
    inbox.scan()
    scan = inbox.scan(SETTLE_S)
    assert (scan.ready, scan.unadmitted) == ([], set())
    assert "8388609 bytes" in scan.ignored["mug.toml"]


def test_a_file_that_is_a_job_already_is_not_taken_again(inbox: Inbox) -> None:
    path = inbox.lay("mug.toml")
    inbox.scan()
    inbox.clock.turn(SETTLE_S)
    scan = inbox.scanner.scan(frozenset({path}))
    assert scan.ready == []
    assert "a job already" in scan.ignored["mug.toml"]


def test_a_picture_is_a_job_only_in_a_lane_that_says_so(inbox: Inbox) -> None:
    for lane in ("", "blue/", "blue/deep/"):
        inbox.lay(f"{lane}mug.png")
    inbox.scanner.picture_lanes = frozenset({"blue"})
    inbox.scan()
    scan = inbox.scan(SETTLE_S)
    assert [(one.lane, one.name, one.data) for one in scan.ready] == [("blue", "mug", None)]
    assert set(scan.ignored) == {"mug.png", "blue/deep/mug.png"}


def test_a_resume_is_read_only_when_it_is_whole_and_other_controls_count_at_sight(inbox: Inbox) -> None:
    inbox.lay("mug.resume", b"")
    inbox.lay("mug.cancel", b"")
    scan = inbox.scan()
    assert ([file.control.control for file in scan.controls], scan.unsettled) == (["cancel"], 1)
    assert [file.control.control for file in inbox.scan(SETTLE_S).controls] == ["cancel", "resume"]


def test_the_jobs_of_a_lane_wait_until_its_defaults_are_whole(inbox: Inbox) -> None:
    inbox.lay("night/deep/mug.toml")
    inbox.lay("day/cup.toml")
    inbox.scan()
    inbox.clock.turn(SETTLE_S)
    inbox.lay("night/folder.toml", b"hold = true\n")
    assert inbox.ready() == ["cup.toml"]
    assert sorted(inbox.ready(SETTLE_S)) == ["cup.toml", "mug.toml"]


def test_an_inbox_that_is_gone_is_not_an_empty_one(inbox: Inbox) -> None:
    inbox.lay("mug.toml")
    inbox.scan()
    away = inbox.folder.rename(inbox.folder.with_name("away"))
    assert inbox.scan(SETTLE_S).gone
    away.rename(inbox.folder)
    scan = inbox.scan()
    assert not scan.gone
    assert [one.name for one in scan.ready] == ["mug"], "what was known of it is known still"


def test_what_has_been_written_to_for_long_is_told_and_looked_at_less_often(inbox: Inbox) -> None:
    with inbox.lay("mug.toml").open("ab"):
        inbox.scan()
        scan = inbox.scan(3600)
    assert (scan.unsettled, scan.slow) == (1, 1)
    assert scan.ignored == {"mug.toml": "still being written; taken once it is whole"}


# --- real events ---


def test_events_tell_what_was_renamed_in_and_what_was_closed_and_take_it_back(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "inbox", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    hints, wake = Hints(), threading.Event()
    heard: tuple[set[str], set[str]] = (set(), set())

    def hear() -> tuple[set[str], set[str]]:
        nonlocal heard
        moved_in, closed = hints.take()
        hints.keep(moved_in, closed)
        heard = {path.name for path in moved_in}, {path.name for path in closed}
        return heard

    watch = Watch(hints, wake)
    try:
        watch.follow([folder])
        for name in ("a", "b"):
            (elsewhere / name).write_bytes(TEXT)
            (elsewhere / name).rename(folder / name)
        (folder / "c").write_bytes(TEXT)
        (folder / "c").rename(folder / "d")
        wait_until(lambda: hear() == ({"a", "b", "d"}, set()), what=f"{heard}")
        with (folder / "a").open("ab") as file:
            file.write(TEXT)
            file.flush()
            wait_until(lambda: hear() == ({"b", "d"}, set()), what=f"{heard}")
        (folder / "b").chmod(0o600)
        wait_until(lambda: hear() == ({"b", "d"}, {"a"}), what=f"{heard}")
    finally:
        watch.stop()
    assert wake.is_set()


def test_what_has_a_hidden_name_wakes_nobody(tmp_path: Path) -> None:
    """A careful writer's first file, and what is being taken away: neither is ever a job."""
    hints, wake = Hints(), threading.Event()
    watch = Watch(hints, wake)
    try:
        watch.follow([tmp_path])
        (tmp_path / ".mug.toml.tmp").write_bytes(TEXT)
        (tmp_path / ".mug.toml.tmp").rename(tmp_path / ".hotfolder-mug_take01.taking")
        wait_until(lambda: {path.name for path in hints.take()[0]} == {".hotfolder-mug_take01.taking"})
        assert not wake.is_set()
        (tmp_path / ".hotfolder-mug_take01.taking").rename(tmp_path / "mug.toml")
        assert wake.wait(20)
    finally:
        watch.stop()
