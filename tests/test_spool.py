"""Admission and recovery, step by step: a drop is never lost and never doubled, wherever a process stopped."""

import gc
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import samples
from clocks import SetClock
from conftest import Serve, SmallDisk, Workspace
from PIL import Image
from waiting import wait_until

from hotfolder import claim, durable, journal, status
from hotfolder.admission import Drop
from hotfolder.claim import Seen
from hotfolder.errors import JobError
from hotfolder.job import Job
from hotfolder.journal import Failure, Output, State
from hotfolder.plan import Plan
from hotfolder.presets import Model
from hotfolder.spool import Spool

TEXT = 'prompt = "a mug"\n'


class Desk:
    """A workspace and the spool of one process after the other."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.inbox, self.outputs = workspace.inbox, workspace.outputs
        self._runs = 0
        (workspace.root / ".hotfolder").mkdir()
        self.restart()

    def restart(self) -> list[Job]:
        """Let another process take over, as after a crash; return what it finds live."""
        self._runs += 1
        self.spool = Spool(self.workspace.settings(), SetClock(), f"run-{self._runs}")
        return self.spool.recover()

    def lay(self, name: str = "mug.toml", text: str = TEXT, *, mtime_ns: int | None = None) -> Path:
        """Lay a file into the inbox; with its time as `cp -p` keeps it."""
        path = self.workspace.drop(name, text) if "/" not in name else self._lay_in_lane(name, text)
        if mtime_ns is not None:
            os.utime(path, ns=(mtime_ns, mtime_ns))
        return path

    def _lay_in_lane(self, name: str, text: str) -> Path:
        path = self.inbox / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def drop(self, path: Path, name: str | None = None) -> Drop:
        """What the scan makes of a file."""
        below = str(path.relative_to(self.inbox))
        return Drop(name=name or path.stem, data=path.read_bytes(), seen=seen_at(path), file=below)

    def admit(self, *paths: Path) -> list[Job]:
        return self.spool.admit([self.drop(path) for path in paths])

    def in_inbox(self) -> list[str]:
        return sorted(str(path.relative_to(self.inbox)) for path in self.inbox.rglob("*") if path.is_file())

    def in_outputs(self) -> list[str]:
        return sorted(os.listdir(self.outputs))

    def markers(self) -> list[str]:
        return sorted(path.name for path in (self.workspace.root / ".hotfolder" / "live").rglob("*") if path.is_file())

    def folder(self, job: str = "mug_take01") -> Path:
        return self.outputs / job


@pytest.fixture
def desk(workspace: Workspace) -> Desk:
    return Desk(workspace)


def seen_at(path: Path) -> Seen:
    found = path.lstat()
    return Seen(path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)


def plan_of(job: Job, count: int = 2) -> Plan:
    return samples.plan(job=job.name, model=Model(repo="hotfolder/noise"), count=count, width=16, height=16, steps=1)


def output(candidate: int) -> list[Output]:
    """What a candidate is in the end: one picture."""
    return [Output(candidate=candidate, file=f"{candidate}.png", seed=1, sha256="c", pixels_sha256="d", seconds=1.0)]


def to_do(job: Job) -> list[int]:
    """The candidates that are still to be made."""
    assert job.table is not None
    return [number for number in range(1, 3) if job.table.state_of(number) == "to do"]


def events(folder: Path) -> list[str]:
    lines = (folder / journal.FILE_NAME).read_text().splitlines()
    return [line.split('"event":"')[1].split('"')[0] for line in lines]


# --- admission ---


def test_a_drop_becomes_a_take_and_is_gone_from_the_inbox(desk: Desk) -> None:
    [job] = desk.admit(desk.lay())
    assert (job.name, desk.in_inbox(), desk.in_outputs()) == ("mug_take01", [], ["mug_take01"])
    assert (desk.folder() / "job.toml").read_text() == TEXT
    assert events(desk.folder()) == ["pending", "admitted"]
    assert status.read_state(desk.folder()) is State.QUEUED
    assert desk.markers() == ["mug_take01"]


def test_the_same_name_again_is_the_next_take(desk: Desk) -> None:
    names = [desk.admit(desk.lay())[0].name for _ in range(3)]
    assert names == ["mug_take01", "mug_take02", "mug_take03"]


def test_the_next_take_is_one_above_the_highest_that_stands(desk: Desk) -> None:
    for _ in range(3):
        desk.admit(desk.lay())
    shutil.rmtree(desk.folder("mug_take02"))
    assert desk.admit(desk.lay())[0].name == "mug_take04"
    shutil.rmtree(desk.folder("mug_take04"))
    shutil.rmtree(desk.folder("mug_take03"))
    assert desk.admit(desk.lay())[0].name == "mug_take02"


def test_a_take_beyond_the_ninety_ninth_counts_on(desk: Desk) -> None:
    desk.folder("mug_take99").mkdir()
    desk.restart()
    assert [desk.admit(desk.lay())[0].name for _ in range(2)] == ["mug_take100", "mug_take101"]


def test_drops_of_one_name_that_arrive_together_are_a_take_each(desk: Desk) -> None:
    """From two lanes, or a take's own name: NAME is global."""
    paths = [desk.lay("a/mug.toml", 'prompt = "a"\n'), desk.lay("b/mug.toml", 'prompt = "b"\n'), desk.lay()]
    jobs = desk.admit(*paths)
    assert [job.name for job in jobs] == ["mug_take01", "mug_take02", "mug_take03"]
    assert [(job.folder / "job.toml").read_text() for job in jobs] == ['prompt = "a"\n', 'prompt = "b"\n', TEXT]
    assert desk.in_inbox() == []


def test_something_else_of_the_takes_name_is_never_touched(desk: Desk) -> None:
    desk.folder("mug_take01").write_text("mine")
    desk.folder("mug_take02").symlink_to("nowhere")
    assert desk.admit(desk.lay())[0].name == "mug_take03"
    assert desk.folder("mug_take01").read_text() == "mine"


def test_a_folder_that_appears_while_a_job_is_built_costs_nothing(desk: Desk) -> None:
    """Admitted at the next look, as another take."""
    path = desk.lay()
    [job] = list(desk.spool._admission._build_each([desk.drop(path)]))  # noqa: SLF001 - the step in between is what is tested
    desk.folder("mug_take01").mkdir()
    (desk.folder("mug_take01") / "mine.txt").write_text("mine")
    assert desk.spool._admission._name([job]) == []  # noqa: SLF001 - as above
    assert (desk.in_inbox(), desk.in_outputs()) == (["mug.toml"], ["mug_take01"])
    assert desk.admit(path)[0].name == "mug_take02"


def test_a_drop_that_changed_since_it_was_read_is_the_next_drop(desk: Desk) -> None:
    path = desk.lay()
    before = desk.drop(path)
    desk.lay(text='prompt = "another"\n')
    [job] = desk.spool.admit([before])
    assert (job.folder / "job.toml").read_text() == TEXT
    assert job.ledger.admitted
    assert desk.in_inbox() == ["mug.toml"]
    assert path.read_text() == 'prompt = "another"\n'


def test_a_drop_that_somebody_writes_to_gets_its_name_back(desk: Desk) -> None:
    path = desk.lay()
    drop = desk.drop(path)
    with path.open("a") as writer:
        desk.spool.admit([drop])
        writer.write("seed = 1\n")
    assert path.read_text() == f"{TEXT}seed = 1\n"
    assert desk.in_inbox() == ["mug.toml"]


def test_a_drop_that_was_removed_meanwhile_is_a_job_all_the_same(desk: Desk) -> None:
    path = desk.lay()
    drop = desk.drop(path)
    path.unlink()
    [job] = desk.spool.admit([drop])
    assert job.ledger.admitted


def test_a_picture_that_is_written_to_while_it_is_copied_is_no_job_yet(desk: Desk) -> None:
    path = desk.inbox / "mug.png"
    Image.new("RGB", (16, 16)).save(path)
    data = b'image = "mug.png"\n'
    drop = Drop(name="mug", data=data, seen=seen_at(path), file="mug.png", via="picture", picture=path)
    with path.open("ab") as writer:
        writer.write(b"more")
    assert desk.spool.admit([drop]) == []
    assert (desk.in_inbox(), desk.in_outputs()) == (["mug.png"], [])
    [job] = desk.spool.admit([replace(drop, seen=seen_at(path))])
    assert (job.folder / "sources" / "mug.png").read_bytes().endswith(b"more")
    assert desk.in_inbox() == []


def test_one_drop_that_cannot_be_built_keeps_no_other_out(desk: Desk) -> None:
    good = desk.drop(desk.lay("good.toml"))
    bad = replace(good, name="bad", file="bad.png", picture=desk.inbox / "bad.png")
    assert [job.name for job in desk.spool.admit([bad, good])] == ["good_take01"]
    assert desk.in_outputs() == ["good_take01"]


def test_a_schedules_firing_takes_nothing_from_the_inbox(desk: Desk) -> None:
    path = desk.lay("scheduled/nightly.toml", mtime_ns=0)
    moment = SetClock().now()
    drop = replace(desk.drop(path), seen=None, via="schedule", scheduled_for=moment)
    [job] = desk.spool.admit([drop])
    assert job.ledger.admitted
    desk.folder("nightly_take01").joinpath(journal.FILE_NAME).write_bytes(
        journal.encode(*_pending_only(desk.folder("nightly_take01")))
    )
    [job] = desk.restart()
    assert job.ledger.admitted
    assert path.exists()


def _pending_only(folder: Path) -> list[dict[str, object]]:
    return list(journal.lines((folder / journal.FILE_NAME).read_bytes()))[:1]


# --- what a crash may leave ---


def half_admitted(desk: Desk, *, until: str, path: Path | None = None) -> Path:
    """Stop an admission at a step, as a crash does; return where the drop lay."""
    path = path or desk.lay()
    drop = desk.drop(path)
    steps = desk.spool._admission  # noqa: SLF001 - the steps of `admit`, one at a time
    jobs = list(steps._build_each([drop]))  # noqa: SLF001
    if until == "built":
        return path
    steps.markers.set(job.name for job in jobs)
    if until == "marked":
        return path
    steps._name(jobs)  # noqa: SLF001
    if until == "named":
        return path
    assert drop.seen is not None
    claimed = path.with_name(".hotfolder-mug_take01.taking")
    assert claim.claim(drop.seen, claimed)
    if until == "claimed":
        return path
    journal.append(desk.folder(), journal.line(journal.Event.ADMITTED, SetClock().now()))
    if until == "admitted":
        return path
    claimed.unlink()
    return path


STEPS = ["built", "marked", "named", "claimed", "admitted", "done"]


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_loses_and_doubles_nothing(desk: Desk, step: str) -> None:
    path = half_admitted(desk, until=step)
    jobs = desk.restart()
    if path.exists():
        assert jobs == []
        jobs = desk.admit(path)
    assert [job.name for job in jobs] == ["mug_take01"]
    assert jobs[0].ledger.admitted
    assert (desk.in_inbox(), desk.in_outputs(), desk.markers()) == ([], ["mug_take01"], ["mug_take01"])
    assert (desk.folder() / "job.toml").read_text() == TEXT
    assert desk.restart()[0].ledger.admitted


@pytest.mark.parametrize("step", [step for step in STEPS if step not in {"built", "marked", "named"}])
def test_the_same_file_dropped_again_after_the_crash_is_a_new_take(desk: Desk, step: str) -> None:
    """To the byte, with the same time, as `cp -p` makes it: what lost its name once is not taken for the same again."""
    path = desk.lay(mtime_ns=1_700_000_000_000_000_000)
    copy = shutil.copy2(path, desk.workspace.root / "kept.toml")
    half_admitted(desk, until=step, path=path)
    shutil.copy2(copy, path)
    assert len(desk.restart()) == 1
    assert desk.in_inbox() == ["mug.toml"]
    assert [job.name for job in desk.admit(path)] == ["mug_take02"]
    assert desk.in_inbox() == []


@pytest.mark.parametrize("step", STEPS[2:4])
def test_another_file_of_the_name_after_the_crash_is_a_new_take(desk: Desk, step: str) -> None:
    path = half_admitted(desk, until=step)
    desk.lay(text='prompt = "another"\n')
    [job] = desk.restart()
    assert job.ledger.admitted
    assert desk.in_inbox() == ["mug.toml"]
    assert path.read_text() == 'prompt = "another"\n'


def test_what_was_written_while_it_was_taken_away_comes_back_after_the_crash(desk: Desk) -> None:
    path = half_admitted(desk, until="named")
    claimed = path.with_name(".hotfolder-mug_take01.taking")
    path.rename(claimed)
    claimed.write_text('prompt = "another"\n')
    [job] = desk.restart()
    assert job.ledger.admitted
    assert desk.in_inbox() == ["mug.toml"]
    assert path.read_text() == 'prompt = "another"\n'


def test_what_comes_back_overwrites_nothing(desk: Desk) -> None:
    path = half_admitted(desk, until="named")
    claimed = path.with_name(".hotfolder-mug_take01.taking")
    path.rename(claimed)
    claimed.write_text('prompt = "late"\n')
    desk.lay(text='prompt = "newer"\n')
    desk.restart()
    assert desk.in_inbox() == ["mug-2.toml", "mug.toml"]
    assert path.read_text() == 'prompt = "newer"\n'
    assert (desk.inbox / "mug-2.toml").read_text() == 'prompt = "late"\n'


def test_a_crash_while_it_comes_back_leaves_it_once(desk: Desk) -> None:
    path = half_admitted(desk, until="named")
    claimed = path.with_name(".hotfolder-mug_take01.taking")
    claimed.write_text('prompt = "late"\n')
    path.unlink()
    os.link(claimed, path)
    desk.restart()
    assert desk.in_inbox() == ["mug.toml"]


@pytest.mark.parametrize("step", ["claimed", "admitted"])
def test_a_job_that_is_deleted_after_the_crash_leaves_nothing_in_the_inbox(desk: Desk, step: str) -> None:
    half_admitted(desk, until=step)
    shutil.rmtree(desk.folder())
    assert desk.restart() == []
    assert (desk.in_inbox(), desk.in_outputs(), desk.markers()) == ([], [], [])


def test_a_lane_that_is_gone_after_the_crash_is_no_reason_to_fail(desk: Desk) -> None:
    half_admitted(desk, until="named", path=desk.lay("lane/mug.toml"))
    shutil.rmtree(desk.inbox / "lane")
    [job] = desk.restart()
    assert job.ledger.admitted


def test_folders_that_are_not_ours_stay_where_they_are(desk: Desk) -> None:
    for name in (".mine.new", "mine", ".mug_take01.new"):
        (desk.outputs / name).mkdir()
        (desk.outputs / name / "x").touch()
    desk.restart()
    assert desk.in_outputs() == [".mine.new", "mine"]


# --- a source that we may not remove ---


@pytest.fixture
def unwritable(desk: Desk) -> Iterator[Path]:
    """A lane whose files cannot be removed: the folder is immutable, which stops root too."""
    lane = desk.inbox / "lane"
    lane.mkdir()
    (lane / "mug.toml").write_text(TEXT)
    lock(lane)
    yield lane
    unlock(lane)


def lock(folder: Path) -> None:
    folder.chmod(0o555)
    if os.geteuid() == 0 and shutil.which("chattr"):
        subprocess.run(["chattr", "+i", str(folder)], check=False, capture_output=True)
    try:
        (folder / "probe").touch()
    except OSError:
        return
    (folder / "probe").unlink()
    pytest.skip("as root on this file system nothing is unwritable")


def unlock(folder: Path) -> None:
    if os.geteuid() == 0 and shutil.which("chattr"):
        subprocess.run(["chattr", "-i", str(folder)], check=False, capture_output=True)
    folder.chmod(0o755)


def test_a_source_that_cannot_be_removed_is_one_job_which_stays_pending(desk: Desk, unwritable: Path) -> None:
    [job] = desk.admit(unwritable / "mug.toml")
    assert not job.ledger.admitted
    assert list(desk.spool.pending_sources()) == ["lane/mug.toml"]
    [job] = desk.restart()
    assert not job.ledger.admitted
    assert list(desk.spool.pending_sources()) == ["lane/mug.toml"]
    unlock(unwritable)
    desk.spool.retry_pending()
    assert (desk.in_inbox(), desk.spool.pending_sources()) == ([], {})
    assert journal.read(desk.folder()).admitted


def test_it_is_not_taken_again_when_its_job_has_ended_nor_after_a_restart(desk: Desk, unwritable: Path) -> None:
    [job] = desk.admit(unwritable / "mug.toml")
    desk.spool.ended(job, State.CANCELLED)
    desk.spool.forget(job)
    assert list(desk.spool.pending_sources()) == ["lane/mug.toml"]
    [job] = desk.restart()
    desk.spool.forget(job)
    assert list(desk.spool.pending_sources()) == ["lane/mug.toml"]
    assert desk.markers() == ["mug_take01"]
    unlock(unwritable)
    desk.spool.retry_pending()
    assert (desk.in_inbox(), desk.markers()) == ([], [])
    assert desk.restart() == []
    assert journal.read(desk.folder()).state is State.CANCELLED


def test_one_that_was_changed_meanwhile_is_the_next_drop(desk: Desk, unwritable: Path) -> None:
    desk.admit(unwritable / "mug.toml")
    (unwritable / "mug.toml").write_text('prompt = "another"\n')
    desk.spool.retry_pending()
    assert desk.spool.pending_sources() == {}
    assert desk.in_inbox() == ["lane/mug.toml"]


def test_a_daemon_shows_it_runs_it_once_and_removes_it_when_it_can(desk: Desk, serve: Serve, unwritable: Path) -> None:
    workspace = desk.workspace
    serve()
    assert workspace.wait_for("mug_take01")["state"] == "completed"
    wait_until(lambda: "could not be removed" in str(workspace.daemon_status().get("wrong")))
    workspace.drop("later.toml")
    workspace.wait_for("later_take01")
    assert workspace.jobs() == ["later_take01", "mug_take01"]
    unlock(unwritable)
    wait_until(lambda: desk.in_inbox() == [])
    (unwritable / "mug.toml").write_text(TEXT)
    assert workspace.wait_for("mug_take02")["state"] == "completed"


# --- markers, journal, plan ---


def test_a_restart_finds_what_is_live_and_only_that(desk: Desk) -> None:
    desk.admit(*[desk.lay(f"j{number}.toml") for number in range(5)])
    for name in ("j1_take01", "j3_take01"):
        job = desk.spool.live[name]
        desk.spool.ended(job, State.CANCELLED)
        desk.spool.forget(job)
    assert [job.name for job in desk.restart()] == ["j0_take01", "j2_take01", "j4_take01"]


def test_jobs_come_back_in_the_order_in_which_they_came(desk: Desk) -> None:
    names = ["c", "a", "d", "b"]
    for name in names:
        desk.admit(desk.lay(f"{name}.toml"))
    assert [job.stem for job in desk.restart()] == names
    desk.admit(desk.lay("e.toml"))
    assert [job.stem for job in desk.restart()] == [*names, "e"]


def test_markers_that_are_gone_are_made_again_from_every_journal(desk: Desk) -> None:
    desk.admit(*[desk.lay(f"j{number}.toml") for number in range(3)])
    job = desk.spool.live["j1_take01"]
    desk.spool.ended(job, State.CANCELLED)
    desk.spool.forget(job)
    shutil.rmtree(desk.workspace.root / ".hotfolder")
    (desk.workspace.root / ".hotfolder").mkdir()
    assert [job.name for job in desk.restart()] == ["j0_take01", "j2_take01"]
    assert desk.markers() == ["j0_take01", "j2_take01"]


def test_markers_that_go_while_the_daemon_runs_cost_no_job(desk: Desk) -> None:
    desk.admit(desk.lay("a.toml"))
    shutil.rmtree(desk.workspace.root / ".hotfolder")
    desk.admit(desk.lay("b.toml"))
    assert sorted(job.name for job in desk.restart()) == ["a_take01", "b_take01"]


def test_a_marker_of_a_job_that_is_gone_goes_too(desk: Desk) -> None:
    desk.admit(desk.lay())
    shutil.rmtree(desk.folder())
    assert desk.restart() == []
    assert desk.markers() == []


def test_while_another_folder_stands_in_for_outputs_nothing_is_forgotten(desk: Desk) -> None:
    """As when a disk is not mounted: the empty folder below is not our outputs/."""
    [job] = desk.admit(desk.lay())
    away = desk.outputs.rename(desk.workspace.root / "away")
    desk.outputs.mkdir()
    assert desk.spool.check_folder(job)
    assert not desk.spool.outputs_stand
    assert desk.restart() == []
    desk.outputs.rmdir()
    away.rename(desk.outputs)
    assert [job.name for job in desk.restart()] == ["mug_take01"]


def test_a_journal_that_cannot_be_read_now_does_not_make_the_job_forgotten(desk: Desk) -> None:
    desk.admit(desk.lay())
    file = desk.folder() / journal.FILE_NAME
    kept = file.rename(desk.folder() / "kept")
    file.mkdir()
    assert desk.restart() == []
    file.rmdir()
    kept.rename(file)
    assert [job.name for job in desk.restart()] == ["mug_take01"]


def test_a_job_whose_folder_is_deleted_is_cancelled_and_another_of_its_name_is_not_it(desk: Desk) -> None:
    [job] = desk.admit(desk.lay())
    away = desk.folder().rename(desk.workspace.root / "away")
    assert not desk.spool.check_folder(job)
    assert job.gone
    desk.spool.done(job, output(1))
    assert desk.in_outputs() == []
    [job] = desk.admit(desk.lay())
    desk.folder().rename(desk.workspace.root / "away2")
    away.rename(desk.folder())
    assert not desk.spool.check_folder(job)


def planned(desk: Desk, *, done: int = 0) -> Job:
    [job] = desk.admit(desk.lay())
    desk.spool.planned(job, plan_of(job))
    if done:
        desk.spool.started(job)
    for number in range(1, done + 1):
        desk.spool.done(job, output(number))
    return job


def test_a_job_that_ran_is_queued_again_with_what_is_left(desk: Desk) -> None:
    planned(desk, done=1)
    [job] = desk.restart()
    assert (job.ledger.state, to_do(job), job.model_key) == (State.QUEUED, [2], "hotfolder/noise@main bfloat16")
    assert status.read_state(job.folder) is State.QUEUED


def test_a_status_that_is_older_than_the_journal_is_written_again(desk: Desk) -> None:
    job = planned(desk)
    journal.append(
        job.folder, journal.line(journal.Event.ENDED, SetClock().now(), state="failed", error=None, problems=[])
    )
    assert status.read_state(job.folder) is State.QUEUED
    [job] = desk.restart()
    assert job.ledger.ended
    assert status.read_state(job.folder) is State.FAILED


@pytest.mark.parametrize("left", [None, b"", b"\0" * 4096, b'{"at":"2026', b"not json\n"])
def test_a_journal_that_was_lost_is_made_again(desk: Desk, left: bytes | None) -> None:
    job = planned(desk)
    file = job.folder / journal.FILE_NAME
    file.unlink()
    if left is not None:
        file.write_bytes(left)
    [job] = desk.restart()
    assert (job.ledger.state, job.ledger.admitted, to_do(job)) == (State.QUEUED, True, [1, 2])
    assert "made again" in job.ledger.notices[0]
    assert [job.name for job in desk.restart()] == ["mug_take01"]


def test_what_is_left_of_a_journal_without_its_first_line_counts(desk: Desk) -> None:
    job = planned(desk, done=1)
    file = job.folder / journal.FILE_NAME
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"\0" * len(lines[0]) + b"\n" + b"".join(lines[1:]))
    [job] = desk.restart()
    assert (sorted(job.ledger.done), to_do(job)) == ([1], [2])


def test_a_cancelled_job_whose_journal_was_lost_stays_cancelled(desk: Desk) -> None:
    job = planned(desk)
    desk.spool.cancelled(job)
    desk.spool.ended(job, State.CANCELLED)
    (job.folder / journal.FILE_NAME).unlink()
    [job] = desk.restart()
    assert job.ledger.cancelled


def test_a_job_without_journal_and_markers_is_not_lost(desk: Desk) -> None:
    planned(desk)
    (desk.folder() / journal.FILE_NAME).unlink()
    shutil.rmtree(desk.workspace.root / ".hotfolder")
    (desk.workspace.root / ".hotfolder").mkdir()
    assert [job.name for job in desk.restart()] == ["mug_take01"]


def test_a_journal_that_goes_while_the_job_is_live_is_made_again(desk: Desk) -> None:
    job = planned(desk)
    (job.folder / journal.FILE_NAME).unlink()
    desk.spool.done(job, output(1))
    assert sorted(journal.read(job.folder).done) == [1]
    assert not job.gone


def test_a_torn_journal_goes_on_with_a_line_of_its_own(desk: Desk) -> None:
    job = planned(desk)
    with (job.folder / journal.FILE_NAME).open("ab") as file:
        file.write(b'{"at":"2026-11-20T12:00:00.000Z","event":"canc')
    [job] = desk.restart()
    desk.spool.done(job, output(1))
    ledger = journal.read(job.folder)
    assert (sorted(ledger.done), ledger.cancelled) == ([1], False)


@pytest.mark.parametrize("text", [None, b"", b"seed = 3\n"])
def test_a_plan_that_is_not_as_it_was_written_fails_its_job_by_name_and_no_other(
    desk: Desk, text: bytes | None
) -> None:
    job = planned(desk)
    desk.admit(desk.lay("good.toml"))
    (job.folder / "plan.toml").unlink()
    if text is not None:
        (job.folder / "plan.toml").write_bytes(text)
    jobs = {job.stem: job for job in desk.restart()}
    assert jobs["good"].ledger.state is State.QUEUED
    ledger = jobs["mug"].ledger
    assert ledger.state is State.FAILED
    assert ledger.error is not None
    assert ledger.error.code == "changed-file"
    assert "plan.toml" in ledger.error.message


def test_the_plan_of_a_job_that_was_let_go_of_is_not_kept(desk: Desk) -> None:
    """Whoever shows jobs may ask for one just then: it is read, and dropped again."""
    job = planned(desk)
    desk.spool.ended(job, State.CANCELLED)
    desk.spool.forget(job)
    plan = desk.spool.plan(job)
    known = weakref.ref(plan)
    del plan
    gc.collect()
    assert known() is None


def test_leftovers_of_writing_go_at_the_start(desk: Desk) -> None:
    job = planned(desk)
    (job.folder / "sources").mkdir()
    for left in (".status.toml.tmp", ".mug_take01_001.png.tmp", "sources/.mug.png.tmp"):
        (job.folder / left).touch()
    (job.folder / "sources" / "mug.png").touch()
    desk.restart()
    assert sorted(path.name for path in job.folder.rglob("*.tmp")) == []
    assert (job.folder / "sources" / "mug.png").exists()


# --- the end of a job ---


def test_a_job_that_ended_stays_ended_whatever_comes_late(desk: Desk) -> None:
    """A cancel while its pictures are copied: the plan that is ready a moment later must not wake it."""
    [job] = desk.admit(desk.lay())
    desk.spool.cancelled(job)
    desk.spool.ended(job, State.CANCELLED)
    desk.spool.planned(job, plan_of(job))
    desk.spool.waiting(job, ["mug.png"])
    desk.spool.started(job)
    desk.spool.held(job, "its own pause")
    desk.spool.ended(job, State.COMPLETED)
    assert journal.read(job.folder).state is State.CANCELLED
    assert events(job.folder) == ["pending", "admitted", "cancel", "ended"]
    assert job.table is None


def test_an_ended_job_is_taken_up_again_with_what_is_left(desk: Desk) -> None:
    job = planned(desk, done=1)
    desk.spool.failed(job, Failure(code="internal", message="no", candidate=2))
    desk.spool.ended(job, State.PARTIAL)
    desk.spool.forget(job)
    assert desk.markers() == []
    again = desk.spool.reopen("mug_take01", force=False)
    assert again is not None
    assert (to_do(again), again.ledger.failed, again.ledger.state) == ([2], {}, State.QUEUED)
    assert desk.markers() == ["mug_take01"]
    assert [job.name for job in desk.restart()] == ["mug_take01"]


def test_taking_up_a_job_that_is_just_let_go_of_keeps_it(desk: Desk) -> None:
    """The saver lets go of what ended while the intake takes it up again: it must not lose its marker."""
    job = planned(desk)
    desk.spool.ended(job, State.CANCELLED)
    again = desk.spool.reopen("mug_take01", force=False)
    assert again is not None
    desk.spool.forget(job)
    assert desk.spool.live["mug_take01"] is again
    assert desk.markers() == ["mug_take01"]


@pytest.mark.parametrize("state", [State.COMPLETED, State.REJECTED])
def test_what_cannot_be_resumed_is_not(desk: Desk, state: State) -> None:
    job = planned(desk)
    desk.spool.ended(job, state)
    desk.spool.forget(job)
    assert desk.spool.reopen("mug_take01", force=False) is None
    assert desk.spool.reopen("mug_take09", force=False) is None
    assert desk.markers() == []


def test_a_job_with_a_changed_plan_is_not_taken_up(desk: Desk) -> None:
    job = planned(desk)
    desk.spool.ended(job, State.FAILED)
    desk.spool.forget(job)
    (job.folder / "plan.toml").write_bytes((job.folder / "plan.toml").read_bytes() + b"priority = 7\n")
    desk.restart()
    with pytest.raises(JobError, match=r"plan\.toml is not the one that was written"):
        desk.spool.reopen("mug_take01", force=False)
    assert journal.read(job.folder).state is State.FAILED


def test_a_notice_reaches_a_job_that_has_ended(desk: Desk) -> None:
    job = planned(desk)
    desk.spool.ended(job, State.CANCELLED)
    desk.spool.forget(job)
    desk.spool.answer("mug_take01", "cancel came after the job had ended")
    assert journal.read(job.folder).notices == ["cancel came after the job had ended"]
    assert b"came after" in (job.folder / "status.toml").read_bytes()


# --- parts ---


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "status.toml"
    durable.write(target, b"before")
    with pytest.raises(TypeError):
        durable.write(target, "after")  # type: ignore[arg-type]  # what fails in the middle
    assert target.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["status.toml"]


#: On a file system of 64 kB: appends until it is full, and shows what stands there then.
FULL = """
import sys
from pathlib import Path
from hotfolder import durable
path = Path(sys.argv[1]) / "journal.jsonl"
path.touch()
line = b"x" * 999 + b"\\n"
written = 0
try:
    while True:
        durable.append(path, line)
        written += 1
except OSError as error:
    assert error.errno in durable.NO_ROOM, error
assert path.read_bytes() == line * written, (path.stat().st_size, written)
print(written)
"""


def test_a_line_that_does_not_fit_leaves_nothing_behind(small_disk: SmallDisk) -> None:
    folder = str(small_disk(64))
    found = subprocess.run([sys.executable, "-c", FULL, folder], check=True, capture_output=True, text=True)
    assert int(found.stdout) > 10
