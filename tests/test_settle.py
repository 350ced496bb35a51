"""Whether a file is whole, by our own clock and the kernel's word; and on what file system the inbox lies."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clocks import SetClock

from hotfolder import lease
from hotfolder.lease import Writer
from hotfolder.settle import FOREIGN_SETTLE_S, Settler, is_network, mount_type
from hotfolder.watch import Hints

#: Of a few binary digits, so that adding and subtracting it is exact.
SETTLE_S = 0.25


class Inbox:
    """Files in a folder, looked at with a clock that the test turns."""

    def __init__(self, folder: Path, *, local: bool = True) -> None:
        self.clock = SetClock()
        self.settler = Settler(self.clock, SETTLE_S, local=local)
        self.path = folder / "mug.toml"
        self.path.write_bytes(b"a = 1\n")

    def ready(self, *, moved_in: bool = False, closed: bool = False) -> bool:
        return self.settler.ready(self.path, self.path.lstat(), moved_in=moved_in, closed=closed)

    def ready_after(self, seconds: float, *, closed: bool = False) -> bool:
        self.clock.turn(seconds)
        return self.ready(closed=closed)


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


@pytest.fixture
def shared(tmp_path: Path) -> Inbox:
    """On a network share, where the kernel knows nothing of writers."""
    return Inbox(tmp_path, local=False)


def test_a_file_is_whole_after_it_has_stood_still_for_a_while(inbox: Inbox) -> None:
    assert not inbox.ready()
    assert not inbox.ready_after(SETTLE_S / 2)
    assert inbox.ready_after(SETTLE_S / 2)


def test_a_change_begins_the_wait_anew(inbox: Inbox) -> None:
    inbox.ready()
    inbox.clock.turn(SETTLE_S / 2)
    inbox.path.write_bytes(b"a = 12\n")
    assert not inbox.ready()
    assert not inbox.ready_after(SETTLE_S * 0.9)
    assert inbox.ready_after(SETTLE_S * 0.2)


def test_another_file_of_the_same_size_and_time_is_another_file(inbox: Inbox) -> None:
    inbox.ready()
    found = inbox.path.stat()
    other = inbox.path.with_name("other")
    other.write_bytes(b"b = 2\n")
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(inbox.path)
    assert not inbox.ready_after(SETTLE_S * 2)
    assert inbox.ready_after(SETTLE_S * 2)


@pytest.mark.parametrize("mtime", [0, 2**33])
def test_the_files_own_time_does_not_count(inbox: Inbox, mtime: int) -> None:
    os.utime(inbox.path, (mtime, mtime))
    assert not inbox.ready()
    assert inbox.ready_after(SETTLE_S)


def test_a_writer_that_keeps_the_file_open_is_waited_for_without_limit(inbox: Inbox) -> None:
    with inbox.path.open("ab"):
        for _ in range(20):
            assert not inbox.ready_after(60)
    assert not inbox.ready_after(SETTLE_S / 2), "closed: it must stand still from now on"
    assert inbox.ready_after(SETTLE_S)
    assert inbox.settler.known_for_s(inbox.path) > 1000


def test_a_reader_holds_nothing_up(inbox: Inbox) -> None:
    inbox.ready()
    with inbox.path.open("rb"):
        assert inbox.ready_after(SETTLE_S)


def test_a_file_that_was_renamed_into_place_is_whole_at_once(inbox: Inbox) -> None:
    assert inbox.ready(moved_in=True)


def test_a_file_that_was_renamed_into_place_by_its_writer_too_early_is_waited_for(inbox: Inbox) -> None:
    with inbox.path.open("ab"):
        assert not inbox.ready(moved_in=True)
    assert inbox.ready(moved_in=True)


def test_a_torn_file_waits_once_more_and_then_no_more(inbox: Inbox) -> None:
    inbox.ready()
    assert inbox.ready_after(SETTLE_S)
    assert inbox.settler.wait_again(inbox.path)
    assert not inbox.ready()
    assert inbox.ready_after(SETTLE_S)
    assert not inbox.settler.wait_again(inbox.path)


def test_on_a_share_only_standing_still_counts(shared: Inbox) -> None:
    with shared.path.open("ab"):
        assert not shared.ready()
        assert shared.ready_after(SETTLE_S)


def test_files_that_are_gone_are_forgotten(inbox: Inbox) -> None:
    inbox.ready()
    inbox.settler.forget_all_but([])
    assert not inbox.ready_after(SETTLE_S)


# --- a file of another user, on whose writers the kernel tells nothing ---


@contextmanager
def as_nobody() -> Iterator[None]:
    """Leave the rights of root for a while; leases are then to be had for own files only."""
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def foreign() -> Iterator[Inbox]:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Inbox(Path(folder))


def test_a_file_of_another_user_must_stand_still_for_longer(foreign: Inbox) -> None:
    with as_nobody():
        assert lease.look(foreign.path) is Writer.UNKNOWN
        assert not foreign.ready()
        assert not foreign.ready_after(FOREIGN_SETTLE_S * 0.9)
        assert foreign.ready_after(FOREIGN_SETTLE_S * 0.2)


def test_an_event_that_its_writer_closed_it_shortens_that(foreign: Inbox) -> None:
    with as_nobody():
        assert not foreign.ready(closed=True)
        assert foreign.ready_after(SETTLE_S, closed=True)


# --- the kernel's word ---


def test_the_kernel_tells_whether_somebody_writes(tmp_path: Path) -> None:
    path = tmp_path / "mug.toml"
    path.touch()
    assert lease.look(path) is Writer.FREE
    with path.open("ab"):
        assert lease.look(path) is Writer.BUSY
    assert lease.look(tmp_path / "nothing") is Writer.UNKNOWN


def test_a_pipe_or_a_link_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    assert lease.look(tmp_path / "pipe") is Writer.UNKNOWN
    assert lease.look(tmp_path / "link") is Writer.UNKNOWN


RACE = """
import os, signal, sys
from pathlib import Path
from hotfolder import lease

path = Path(sys.argv[1])
writer = os.fork()
while writer == 0:
    os.close(os.open(path, os.O_WRONLY))
try:
    for _ in range(10_000):
        lease.look(path)
finally:
    os.kill(writer, signal.SIGKILL)
"""


def test_a_writer_that_comes_while_we_ask_does_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "mug.toml"
    path.touch()
    command = [sys.executable, "-c", RACE, str(path)]
    # A group of its own: should it die, the writer it started goes with it.
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        _, said = process.communicate(timeout=60)
        if process.returncode:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said


# --- hints ---


def test_what_was_heard_of_a_file_is_void_once_something_else_happens_to_it() -> None:
    hints, path = Hints(), Path("mug.toml")
    hints.add(path, moved_in=True)
    hints.add(path, moved_in=False)
    hints.drop(path)
    assert hints.take() == (set(), set())


# --- where the inbox lies ---

MOUNTS = (
    r"""22 1 254:1 / / rw,relatime - ext4 /dev/vda rw
30 22 0:25 / /mnt/share rw shared:1 - nfs4 host:/x rw
31 22 0:26 / /mnt/with\040space\134x rw - fuse.sshfs me@host:/ rw
32 30 0:27 / /mnt/share/local rw - tmpfs tmpfs rw
33 22 0:28 / /mnt/over rw - ext4 /dev/vdb rw
34 33 0:29 / /mnt/over rw - cifs //host/x rw
35 22 0:30 / /mnt/b"""
    "\udcff\u2028 rw - tmpfs tmpfs rw\n"
)


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/home/me", "ext4", False),
        ("/mnt/share/jobs_inbox", "nfs4", True),
        ("/mnt/shared", "ext4", False),
        ("/mnt/share/local/x", "tmpfs", False),
        ("/mnt/with space\\x/y", "fuse.sshfs", True),
        ("/mnt/over/x", "cifs", True),
    ],
)
def test_the_innermost_and_newest_mount_tells_whether_others_may_write_unheard(
    tmp_path: Path, path: str, kind: str, network: bool
) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(MOUNTS.encode("utf-8", "surrogateescape"))
    found = mount_type(Path(path), table)
    assert (found, is_network(found)) == (kind, network)


def test_where_mounts_cannot_be_told_the_inbox_counts_as_local(tmp_path: Path) -> None:
    assert mount_type(tmp_path, tmp_path / "nothing") == ""
    assert not is_network("")


def test_the_mounts_of_this_machine_can_be_read(tmp_path: Path) -> None:
    assert mount_type(tmp_path)
