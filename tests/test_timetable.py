"""Schedules: they fire when they should, once each, whatever happens in between.

Run as a program this file dies in the middle of a schedule's life, at one file operation after the other.
"""

from __future__ import annotations

import datetime as dt
import itertools
import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hotfolder import journal, schedules
from hotfolder.admission import Drop
from hotfolder.claim import Seen, hidden_name
from hotfolder.clock import Moment, SystemClock
from hotfolder.cron import Cron, moment_of
from hotfolder.schedules import ScheduleRow, State
from hotfolder.settings import Settings
from hotfolder.spool import Spool
from hotfolder.timetable import Timetable

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
UTC = ZoneInfo("UTC")


class TurnedClock:
    """A clock that stands still until it is turned."""

    def __init__(self, text: str) -> None:
        self.time = Moment.parse(text)
        self.seconds = 0.0

    def now(self) -> Moment:
        return self.time

    def monotonic(self) -> float:
        return self.seconds

    def turn(self, text: str) -> None:
        """Show another time of day; ten seconds pass."""
        self.time = Moment.parse(text)
        self.seconds += 10


class Studio:
    """A workspace, and what the daemon does with its schedules at each scan."""

    def __init__(self, folder: Path, now: str) -> None:
        self.clock = TurnedClock(now)
        self.settings = Settings(workspace=folder)
        self.inbox = self.settings.inbox_dir
        self.scheduled = self.inbox / "scheduled"
        self.inbox.mkdir(parents=True, exist_ok=True)
        self.settings.outputs_dir.mkdir(exist_ok=True)
        self.ignored: list[tuple[str, str]] = []
        self.start()

    def start(self) -> None:
        """Begin a new process; what the last one had in memory is gone."""
        self.jobs = Spool(self.settings, self.clock, "run")
        self.jobs.recover()
        self.timetable = Timetable(self.settings, self.clock, self.jobs, lambda: None)

    def restart(self, now: str) -> None:
        self.timetable.stop()
        self.clock.turn(now)
        self.start()
        self.scan()

    def drop(self, text: str, name: str = "nightly.toml", lane: str = "") -> None:
        folder = self.inbox / lane
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    def take_in(self) -> list[bool]:
        """Adopt what lies in the inbox."""
        dropped = sorted(path for path in self.inbox.rglob("[!.]*.toml") if path.parent != self.scheduled)
        return [
            self.timetable.adopt(seen(path), path.parent.relative_to(self.inbox).as_posix().strip("."))
            for path in dropped
        ]

    def look(self, *, settled: bool = True) -> None:
        ready = [seen(path) for path in self.scheduled.glob("[!.]*.toml") if ".status." not in path.name]
        self.ignored = self.timetable.look(ready if settled else [])

    def scan(self) -> None:
        """What the intake thread does once a second."""
        self.take_in()
        self.look()
        self.fire(self.timetable.due())

    def fire(self, drops: list[Drop]) -> None:
        for drop, job in zip(drops, self.jobs.admit(drops), strict=True):
            self.timetable.fired(drop, job.name)

    def at(self, now: str) -> None:
        self.clock.turn(now)
        self.scan()

    @property
    def takes(self) -> dict[str, str | None]:
        """Take -> the time for which it was made."""
        folders = sorted(self.settings.outputs_dir.glob("[!.]*_take*"))
        origins = {folder.name: journal.read(folder).origin for folder in folders}
        return {name: origin.scheduled_for for name, origin in origins.items() if origin}

    @property
    def status(self) -> dict[str, Any]:
        return tomllib.loads((self.scheduled / "nightly.status.toml").read_text())


def seen(path: Path) -> Seen:
    found = path.lstat()
    return Seen(path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)


def text(when: str, prompt: str = "a mug") -> str:
    return f'prompt = "{prompt}"\n\n[schedule]\n{when}\n'


def moment(value: object) -> str:
    assert isinstance(value, dt.datetime)
    return str(Moment.of(value))


NIGHTLY = 'cron = "0 2 * * *"'


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    made = Studio(tmp_path, "2026-11-20T12:00:00Z")
    yield made
    made.timetable.stop()


# --- firing ---


def test_a_schedule_fires_twice_over_a_restart_in_between(studio: Studio) -> None:
    studio.drop(text(NIGHTLY), lane="product")
    studio.scan()

    assert studio.takes == {}
    assert not (studio.inbox / "product" / "nightly.toml").exists()
    assert (studio.scheduled / "nightly.toml").read_text() == text(NIGHTLY)
    assert studio.status["state"] == "waiting"
    assert moment(studio.status["next_run"]) == "2026-11-21T02:00:00.000Z"

    studio.at("2026-11-21T01:59:59.999Z")
    assert studio.takes == {}
    studio.at("2026-11-21T02:00:00Z")
    studio.at("2026-11-21T02:00:01Z")
    studio.restart("2026-11-21T12:00:00Z")
    studio.at("2026-11-22T02:00:00.5Z")
    studio.at("2026-11-22T02:00:02Z")

    assert studio.takes == {
        "nightly_take01": "2026-11-21T02:00:00.000Z",
        "nightly_take02": "2026-11-22T02:00:00.000Z",
    }
    assert studio.status["last_take"] == "nightly_take02"
    assert moment(studio.status["last_run"]) == "2026-11-22T02:00:00.000Z"
    assert moment(studio.status["next_run"]) == "2026-11-23T02:00:00.000Z"


def test_a_firing_is_the_file_byte_for_byte_and_knows_the_folder_it_was_dropped_in(studio: Studio) -> None:
    data = text(NIGHTLY, "Becher, schön").replace("\n", "\r\n")
    studio.drop(data, lane="product/mugs")
    studio.scan()
    studio.restart("2026-11-20T13:00:00Z")
    studio.clock.turn("2026-11-21T02:00:00Z")

    [drop] = studio.timetable.due()

    assert drop.data == (studio.scheduled / "nightly.toml").read_bytes() == data.encode()
    assert drop.name == "nightly"
    assert drop.lane == "product/mugs"
    assert drop.via == "schedule"
    assert drop.file == "scheduled/nightly.toml"
    assert drop.seen is None
    assert drop.scheduled_for == Moment.parse("2026-11-21T02:00:00Z")


def test_a_file_put_into_the_folder_itself_is_a_schedule_too(studio: Studio) -> None:
    studio.scheduled.mkdir()
    (studio.scheduled / "nightly.toml").write_text(text(NIGHTLY))
    studio.scan()

    assert studio.status["folder"] == "scheduled"
    studio.at("2026-11-21T02:00:00Z")
    assert list(studio.takes) == ["nightly_take01"]


def test_a_folder_whose_name_is_no_utf_8_is_remembered(studio: Studio) -> None:
    lane = os.fsdecode(b"caf\xe9")
    studio.drop(text(NIGHTLY), lane=lane)
    studio.scan()
    studio.restart("2026-11-20T13:00:00Z")
    studio.clock.turn("2026-11-21T02:00:00Z")

    assert [drop.lane for drop in studio.timetable.due()] == [lane]


def test_a_forged_status_file_does_not_lead_out_of_the_inbox(studio: Studio) -> None:
    studio.scheduled.mkdir()
    (studio.scheduled / "nightly.toml").write_text(text(NIGHTLY))
    forged = 'schema = 1\nschedule = "nightly.toml"\nstate = "waiting"\nfolder = "../../etc"\n'
    (studio.scheduled / "nightly.status.toml").write_text(forged)
    studio.scan()

    assert studio.status["folder"] == "scheduled"


def test_at_fires_once_and_then_is_over(studio: Studio) -> None:
    studio.drop(text('at = 2026-11-20T18:30:00\ntimezone = "Europe/Berlin"'))
    studio.scan()
    assert moment(studio.status["next_run"]) == "2026-11-20T17:30:00.000Z"

    studio.at("2026-11-20T17:30:00Z")
    studio.at("2026-11-20T17:30:01Z")
    studio.restart("2026-11-21T00:00:00Z")

    assert studio.takes == {"nightly_take01": "2026-11-20T17:30:00.000Z"}
    assert (studio.scheduled / "nightly.toml").exists()
    assert studio.status["state"] == "over"
    assert "next_run" not in studio.status


def test_at_with_an_offset_needs_no_time_zone_and_fractions_do_not_fire_it_twice(studio: Studio) -> None:
    studio.drop(text('at = 2026-11-20T18:30:00.123456-05:00\ntimezone = "Europe/Berlin"'))
    studio.scan()
    for _ in range(3):
        studio.at("2026-11-20T23:30:00.2Z")
        studio.restart("2026-11-20T23:30:00.2Z")

    assert studio.takes == {"nightly_take01": "2026-11-20T23:30:00.123Z"}


def test_at_that_had_passed_when_it_was_dropped_is_over_and_says_so(studio: Studio) -> None:
    studio.drop(text("at = 2026-11-20T11:00:00"))
    studio.scan()

    assert studio.takes == {}
    assert studio.status["state"] == "over"
    assert moment(studio.status["skipped"]) == "2026-11-20T11:00:00.000Z"


def test_at_that_is_over_fires_again_once_its_time_is_edited(studio: Studio) -> None:
    studio.drop(text("at = 2026-11-20T13:00:00"))
    studio.scan()
    studio.at("2026-11-20T13:00:00Z")
    path = studio.scheduled / "nightly.toml"
    path.write_text(text("at = 2026-11-20T13:00:00", "a cup"))
    studio.at("2026-11-20T13:10:00Z")
    assert studio.status["state"] == "over"
    path.write_text(text("at = 2026-11-20T14:00:00", "a cup"))
    studio.at("2026-11-20T13:20:00Z")
    assert studio.status["state"] == "waiting"
    studio.at("2026-11-20T14:00:00Z")

    assert list(studio.takes.values()) == ["2026-11-20T13:00:00.000Z", "2026-11-20T14:00:00.000Z"]


# --- editing, dropping anew, deleting ---


def test_an_edited_file_counts_from_the_next_firing_on(studio: Studio) -> None:
    studio.drop(text(NIGHTLY))
    studio.scan()
    (studio.scheduled / "nightly.toml").write_text(text('cron = "0 3 * * *"', "a cup"))
    studio.at("2026-11-20T13:00:00Z")

    assert moment(studio.status["next_run"]) == "2026-11-21T03:00:00.000Z"
    studio.at("2026-11-21T02:00:00Z")
    assert studio.takes == {}
    studio.at("2026-11-21T03:00:00Z")
    assert "a cup" in (studio.settings.outputs_dir / "nightly_take01" / "job.toml").read_text()


def test_while_a_file_is_being_edited_nothing_fires_and_then_the_new_text_does(studio: Studio) -> None:
    studio.drop(text(NIGHTLY))
    studio.scan()
    path = studio.scheduled / "nightly.toml"
    path.write_text(text(NIGHTLY, "a cup")[:20])
    studio.clock.turn("2026-11-21T02:00:00Z")
    studio.look(settled=False)
    assert studio.timetable.due() == []

    path.write_text(text(NIGHTLY, "a cup"))
    studio.at("2026-11-21T02:00:03Z")

    assert studio.takes == {"nightly_take01": "2026-11-21T02:00:00.000Z"}
    assert "a cup" in (studio.settings.outputs_dir / "nightly_take01" / "job.toml").read_text()


def test_an_editor_that_saves_by_renaming_does_not_end_a_schedule(studio: Studio) -> None:
    studio.drop(text(NIGHTLY), lane="product")
    studio.scan()
    path = studio.scheduled / "nightly.toml"
    path.rename(path.with_name("nightly.toml~"))
    studio.look()
    path.write_text(text(NIGHTLY, "a cup"))
    studio.scan()

    assert studio.status["folder"] == "product"


def test_dropping_the_name_again_changes_the_schedule(studio: Studio) -> None:
    studio.drop(text(NIGHTLY), lane="product")
    studio.scan()
    studio.drop(text('cron = "0 4 * * *"', "a cup"), lane="spring")
    studio.scan()

    assert (studio.scheduled / "nightly.toml").read_text() == text('cron = "0 4 * * *"', "a cup")
    assert not (studio.inbox / "spring" / "nightly.toml").exists()
    assert studio.status["folder"] == "spring"
    assert moment(studio.status["next_run"]) == "2026-11-21T04:00:00.000Z"


def test_a_drop_that_was_replaced_after_it_was_seen_stays_for_the_next_scan(studio: Studio) -> None:
    studio.drop(text(NIGHTLY))
    path = studio.inbox / "nightly.toml"
    before = seen(path)
    path.write_text(text('cron = "0 5 * * *"', "another"))

    assert not studio.timetable.adopt(before, "")
    assert path.exists()
    assert not (studio.scheduled / "nightly.toml").exists()
    assert studio.take_in() == [True]
    assert "0 5" in (studio.scheduled / "nightly.toml").read_text()


def test_a_drop_that_cannot_be_taken_away_is_a_schedule_and_does_not_undo_an_edit(studio: Studio) -> None:
    studio.drop(text(NIGHTLY), lane="product")
    in_the_way = hidden_name(studio.inbox / "product" / "nightly.toml")
    in_the_way.mkdir()
    assert studio.take_in() == [False]
    path = studio.scheduled / "nightly.toml"
    path.write_text(text(NIGHTLY, "a cup"))
    assert studio.take_in() == [False]
    studio.look()
    assert path.read_text() == text(NIGHTLY, "a cup")
    assert studio.status["state"] == "waiting"

    in_the_way.rmdir()
    assert studio.take_in() == [True]
    assert path.read_text() == text(NIGHTLY, "a cup")
    studio.at("2026-11-21T02:00:00Z")
    assert list(studio.takes) == ["nightly_take01"]


def test_a_deleted_schedule_fires_no_more_and_takes_its_status_with_it(studio: Studio) -> None:
    studio.drop(text(NIGHTLY))
    studio.scan()
    studio.at("2026-11-21T02:00:00Z")
    (studio.scheduled / "nightly.toml").unlink()
    studio.at("2026-11-22T02:00:00Z")
    studio.at("2026-11-22T02:00:10Z")

    assert len(studio.takes) == 1
    assert list(studio.scheduled.iterdir()) == []


def test_a_schedule_deleted_while_no_daemon_ran_leaves_no_status_either(studio: Studio) -> None:
    studio.drop(text(NIGHTLY))
    studio.scan()
    (studio.scheduled / "nightly.toml").unlink()
    studio.restart("2026-11-22T00:00:00Z")
    studio.at("2026-11-22T02:00:00Z")

    assert studio.takes == {}
    assert list(studio.scheduled.iterdir()) == []


def test_a_status_file_that_was_deleted_comes_back(studio: Studio) -> None:
    studio.drop(text(NIGHTLY), lane="product")
    studio.scan()
    (studio.scheduled / "nightly.status.toml").unlink()
    studio.scan()

    assert studio.status["folder"] == "product"


def test_an_inbox_that_is_away_for_a_while_is_not_read_as_empty(studio: Studio) -> None:
    studio.drop(text(NIGHTLY), lane="product")
    studio.scan()
    studio.inbox.rename(studio.inbox.with_name("away"))
    studio.clock.turn("2026-11-21T02:00:00Z")
    for _ in range(3):
        studio.clock.turn("2026-11-21T02:00:00Z")
        studio.look()
        assert studio.timetable.due() == []
    studio.inbox.with_name("away").rename(studio.inbox)
    studio.at("2026-11-21T02:10:00Z")

    assert studio.status["folder"] == "product"
    assert studio.takes == {"nightly_take01": "2026-11-21T02:00:00.000Z"}


# --- text that is wrong ---


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ('prompt = "a mug"\n', "no table [schedule]"),
        ('prompt = "a mug"\n[schedule]\ncron = "0 2 * *"\n', "4 fields"),
        ('prompt = "a mug"\n[schedule]\ncron = "0 2 30 2 *"\n', "never comes"),
        ('prompt = "a mug"\n[schedule]\ncron = "0 2 * * *"\ntimezone = "Europe/Berlin2"\n', "no time zone"),
        ('prompt = "a mug"\n[schedule]\nevery = "day"\n', "unknown key schedule.every"),
        ('promt = "a mug"\n[schedule]\ncron = "0 2 * * *"\n', "did you mean prompt"),
        ('prompt = "a mug\n[schedule]\ncron = "0 2 * * *"\n', "not TOML"),
        ("prompt = 'a mug'\n[schedule]\nat = 0001-01-01T00:00:00\n", "1970"),
        ("", "no table [schedule]"),
    ],
)
def test_a_wrong_text_does_not_fire_and_says_why(studio: Studio, wrong: str, says: str) -> None:
    studio.drop(text(NIGHTLY))
    studio.scan()
    path = studio.scheduled / "nightly.toml"
    path.write_text(wrong)
    studio.at("2026-11-20T13:00:00Z")

    [(name, why)] = studio.ignored
    assert name == "nightly.toml"
    assert says in why
    assert studio.status["state"] == "wrong"
    assert "next_run" not in studio.status
    assert studio.status["error"]["code"]
    studio.at("2026-11-21T02:00:00Z")
    assert studio.takes == {}

    path.write_text(text(NIGHTLY))
    studio.at("2026-11-21T03:00:00Z")
    assert studio.ignored == []
    assert "error" not in studio.status
    assert studio.takes == {}
    assert moment(studio.status["next_run"]) == "2026-11-22T02:00:00.000Z"


def test_other_things_in_the_folder_are_left_alone(studio: Studio) -> None:
    studio.scheduled.mkdir()
    (studio.scheduled / "nightly.toml").write_text(text(NIGHTLY))
    (studio.scheduled / "nightly_take02.toml").write_text(text(NIGHTLY))
    (studio.scheduled / "other.status.toml").write_text('mine = "yes"\n')
    (studio.scheduled / "link.toml").symlink_to("nightly.toml")
    (studio.scheduled / "folder.toml").mkdir()
    studio.scan()
    studio.at("2026-11-21T02:00:00Z")

    assert studio.ignored == [("nightly_take02.toml", "nightly.toml is the schedule nightly already")]
    assert list(studio.takes) == ["nightly_take01"]
    assert (studio.scheduled / "other.status.toml").read_text() == 'mine = "yes"\n'


def test_a_status_file_of_a_newer_version_is_refused_by_name_and_kept(studio: Studio) -> None:
    studio.scheduled.mkdir()
    (studio.scheduled / "nightly.toml").write_text(text(NIGHTLY))
    (studio.scheduled / "nightly.status.toml").write_text("schema = 2\n")
    studio.scan()
    studio.at("2026-11-21T02:00:00Z")

    [(_, why)] = studio.ignored
    assert "nightly.status.toml has schema 2" in why
    assert studio.takes == {}
    assert studio.status == {"schema": 2}


# --- while no daemon ran, and clocks that step ---


def test_a_time_that_passed_while_no_daemon_ran_is_skipped(studio: Studio) -> None:
    studio.drop(text(NIGHTLY))
    studio.scan()
    studio.restart("2026-11-23T12:00:00Z")

    assert studio.takes == {}
    assert moment(studio.status["skipped"]) == "2026-11-23T02:00:00.000Z"
    assert moment(studio.status["next_run"]) == "2026-11-24T02:00:00.000Z"


def test_catch_up_makes_up_for_it_once(studio: Studio) -> None:
    studio.drop(text(f"{NIGHTLY}\ncatch_up = true"))
    studio.scan()
    studio.restart("2026-11-23T12:00:00Z")
    studio.at("2026-11-23T12:00:01Z")
    studio.restart("2026-11-23T13:00:00Z")

    assert studio.takes == {"nightly_take01": "2026-11-23T02:00:00.000Z"}
    assert moment(studio.status["next_run"]) == "2026-11-24T02:00:00.000Z"


def test_catch_up_makes_up_for_nothing_from_before_it_was_dropped(studio: Studio) -> None:
    studio.drop(text(f"{NIGHTLY}\ncatch_up = true"))
    studio.scan()
    studio.restart("2026-11-20T13:00:00Z")

    assert studio.takes == {}


def test_catch_up_makes_up_for_an_at_that_was_dropped_while_no_daemon_ran(studio: Studio) -> None:
    studio.drop(text("at = 2026-11-20T11:00:00\ncatch_up = true"))
    studio.scan()
    studio.restart("2026-11-20T13:00:00Z")
    studio.drop(text("at = 2026-11-20T11:00:00\ncatch_up = true"))
    studio.scan()

    assert studio.takes == {"nightly_take01": "2026-11-20T11:00:00.000Z"}
    assert studio.status["state"] == "over"


def test_another_time_written_while_no_daemon_ran_counts_from_the_start_on(studio: Studio) -> None:
    studio.drop(text(f"{NIGHTLY}\ncatch_up = true"))
    studio.scan()
    studio.clock.turn("2026-11-21T02:00:00Z")
    assert len(studio.timetable.due()) == 1
    (studio.scheduled / "nightly.toml").write_text(text('cron = "0 3 * * *"\ncatch_up = true'))
    studio.restart("2026-11-21T12:00:00Z")
    assert studio.takes == {}
    assert moment(studio.status["next_run"]) == "2026-11-22T03:00:00.000Z"


def test_another_prompt_written_while_no_daemon_ran_changes_nothing_about_when(studio: Studio) -> None:
    studio.drop(text(f"{NIGHTLY}\ncatch_up = true"))
    studio.scan()
    (studio.scheduled / "nightly.toml").write_text(text(f"{NIGHTLY}\ncatch_up = true", "a cup"))
    studio.restart("2026-11-21T12:00:00Z")

    assert list(studio.takes.values()) == ["2026-11-21T02:00:00.000Z"]


def test_deleted_takes_are_not_made_up_for(studio: Studio) -> None:
    studio.drop(text(f"{NIGHTLY}\ncatch_up = true"))
    studio.scan()
    studio.at("2026-11-21T02:00:00Z")
    for path in sorted(studio.settings.outputs_dir.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    studio.restart("2026-11-21T12:00:00Z")

    assert studio.takes == {}


def test_a_machine_that_slept_over_several_times_fires_once_for_the_last(studio: Studio) -> None:
    studio.drop(text('cron = "*/5 * * * *"'))
    studio.scan()
    studio.at("2026-11-25T07:33:00Z")
    studio.at("2026-11-25T07:34:00Z")
    studio.at("2026-11-25T07:35:00Z")

    assert list(studio.takes.values()) == ["2026-11-25T07:30:00.000Z", "2026-11-25T07:35:00.000Z"]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_steps_back_fires_nothing_twice(studio: Studio, restarted: bool) -> None:
    studio.drop(text(NIGHTLY))
    studio.scan()
    studio.at("2026-11-21T02:00:30Z")
    (studio.restart if restarted else studio.at)("2026-11-21T01:59:00Z")
    studio.at("2026-11-21T02:00:00Z")
    studio.at("2026-11-22T02:00:00Z")

    assert list(studio.takes.values()) == ["2026-11-21T02:00:00.000Z", "2026-11-22T02:00:00.000Z"]


def test_a_clock_that_steps_back_brings_a_time_that_did_not_fire_yet(studio: Studio) -> None:
    studio.drop(text("at = 2026-11-20T11:00:00"))
    studio.scan()
    assert studio.status["state"] == "over"
    studio.at("2026-11-20T10:00:00Z")
    assert studio.status["state"] == "waiting"
    studio.at("2026-11-20T11:00:00Z")

    assert len(studio.takes) == 1


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_was_years_ahead_does_not_stop_a_schedule_for_years(studio: Studio, restarted: bool) -> None:
    studio.drop(text(NIGHTLY))
    studio.scan()
    studio.at("2036-11-21T03:00:00Z")
    (studio.restart if restarted else studio.at)("2026-11-20T12:10:00Z")
    studio.at("2026-11-21T02:00:00Z")

    assert list(studio.takes.values()) == ["2036-11-21T02:00:00.000Z", "2026-11-21T02:00:00.000Z"]


# --- crashes ---


def test_a_crash_before_the_take_stands_is_made_up_for_even_without_catch_up(studio: Studio) -> None:
    studio.drop(text(NIGHTLY))
    studio.scan()
    studio.clock.turn("2026-11-21T02:00:00Z")
    assert len(studio.timetable.due()) == 1
    studio.restart("2026-11-21T02:05:00Z")

    assert studio.takes == {"nightly_take01": "2026-11-21T02:00:00.000Z"}


@pytest.mark.parametrize("catch_up", ["false", "true"])
@pytest.mark.parametrize("note", ["as it was", "deleted", "old"])
def test_a_crash_once_the_take_stands_fires_nothing_twice(studio: Studio, catch_up: str, note: str) -> None:
    studio.drop(text(f"{NIGHTLY}\ncatch_up = {catch_up}"))
    studio.scan()
    path = studio.scheduled / "nightly.status.toml"
    before = path.read_bytes()
    studio.clock.turn("2026-11-21T02:00:00Z")
    studio.jobs.admit(studio.timetable.due())
    if note == "deleted":
        path.unlink()
    elif note == "old":
        path.write_bytes(before)
    studio.restart("2026-11-21T02:00:00Z")
    studio.at("2026-11-21T02:00:01Z")

    assert studio.takes == {"nightly_take01": "2026-11-21T02:00:00.000Z"}
    assert studio.status["last_take"] == "nightly_take01"
    assert moment(studio.status["last_run"]) == "2026-11-21T02:00:00.000Z"


def test_a_firing_that_could_not_be_admitted_is_tried_again(studio: Studio) -> None:
    studio.drop(text(NIGHTLY))
    studio.scan()
    studio.clock.turn("2026-11-21T02:00:00Z")
    assert len(studio.timetable.due()) == 1
    studio.at("2026-11-21T02:00:01Z")
    studio.at("2026-11-21T02:00:02Z")

    assert studio.takes == {"nightly_take01": "2026-11-21T02:00:00.000Z"}


def test_a_drop_left_under_its_hidden_name_by_a_crash_is_never_lost(studio: Studio) -> None:
    studio.drop(text(NIGHTLY))
    studio.scan()
    studio.drop(text(NIGHTLY, "a newer one"))
    studio.scan()
    hidden = hidden_name(studio.inbox / "nightly.toml")
    hidden.write_text(text(NIGHTLY, "the newest one"))
    studio.restart("2026-11-20T13:00:00Z")

    assert not hidden.exists()
    studio.scan()
    assert "the newest one" in (studio.scheduled / "nightly.toml").read_text()


DROPPED, FIRES = "2026-11-20T12:00:00Z", "2026-11-21T02:00:00Z"
DIED_IN_ADOPTION, DIED_IN_FIRING = 41, 42


@pytest.mark.parametrize("catch_up", ["false", "true"])
def test_a_death_at_any_file_operation_loses_and_doubles_nothing(tmp_path: Path, catch_up: str) -> None:
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), catch_up], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    deaths = [int(line) for line in done.stdout.split()]
    assert deaths.count(DIED_IN_ADOPTION) > 10
    assert deaths.count(DIED_IN_FIRING) > 20
    for number, died in enumerate(deaths, 1):
        studio = Studio(tmp_path / str(number), DROPPED if died == DIED_IN_ADOPTION else FIRES)
        studio.scan()
        studio.scan()
        if died == DIED_IN_ADOPTION:
            assert studio.takes == {}
            studio.at(FIRES)
        studio.scan()
        fired = list(studio.takes.values())
        # Without catch_up a daemon that dies before it has said that it fires has not seen the time.
        allowed = [["2026-11-21T02:00:00.000Z"]] + ([[]] if catch_up == "false" and died == DIED_IN_FIRING else [])
        assert fired in allowed, f"death {number}"
        studio.at("2026-11-22T02:00:00Z")
        studio.scan()
        assert list(studio.takes.values()) == [*fired, "2026-11-22T02:00:00.000Z"], f"death {number}"
        assert studio.status["folder"] == "product"
        left = {path.name for path in studio.scheduled.iterdir()}
        assert left == {"nightly.toml", "nightly.status.toml"}, f"death {number}"
        assert list((studio.inbox / "product").iterdir()) == [], f"death {number}"
        studio.timetable.stop()


def die_at_every_step(folder: Path, catch_up: str) -> None:
    """Live a schedule's life again and again, each time up to one file operation later."""
    number = 0
    while True:
        number += 1
        child = os.fork()
        if child == 0:
            live(folder / str(number), catch_up, number)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return
        if code not in {DIED_IN_ADOPTION, DIED_IN_FIRING}:
            sys.exit(code)
        print(code)


def live(folder: Path, catch_up: str, last: int) -> None:
    studio = Studio(folder, DROPPED)
    studio.drop(text(f"{NIGHTLY}\ncatch_up = {catch_up}"), lane="product")
    operations, phase = 0, DIED_IN_ADOPTION

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal operations
        if event == "open" or event.startswith("os."):
            operations += str(folder) in str(arguments)
        if operations == last:
            os._exit(phase)

    sys.addaudithook(count)
    studio.scan()
    studio.clock.turn(FIRES)
    phase = DIED_IN_FIRING
    studio.scan()
    studio.scan()


# --- the listing ---


def test_the_listing_reads_nothing_but_files(studio: Studio) -> None:
    studio.drop(text(NIGHTLY), "b.toml", lane="product")
    studio.drop(text("at = 2026-11-20T13:00:00"), "a.toml")
    studio.scan()
    studio.at("2026-11-20T13:00:00Z")
    (studio.scheduled / "c.toml").write_text(text(NIGHTLY))

    rows = schedules.listing(studio.settings)

    assert [(row.name, row.file, row.note.state) for row in rows] == [
        ("a", "scheduled/a.toml", State.OVER),
        ("b", "scheduled/b.toml", State.WAITING),
        ("c", "scheduled/c.toml", State.NEW),
    ]
    assert rows[0].note.last_take == "a_take01"
    assert rows[1].note.when == "cron 0 2 * * * (UTC)"
    assert str(rows[1].note.next_run) == "2026-11-21T02:00:00.000Z"


def test_the_listing_of_a_workspace_without_schedules_is_empty(tmp_path: Path) -> None:
    assert schedules.listing(Settings(workspace=tmp_path)) == []


def test_the_listing_loads_no_scheduler() -> None:
    script = (
        "import sys, hotfolder.schedules; sys.exit(any(name.split('.')[0] == 'apscheduler' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def row_of(studio: Studio) -> ScheduleRow:
    return schedules.listing(studio.settings)[0]


def test_a_status_file_reads_back_as_it_was_written(studio: Studio) -> None:
    studio.drop(text(f"{NIGHTLY}\ncatch_up = true"), lane="product")
    studio.scan()
    studio.at("2026-11-21T02:00:00Z")

    note = row_of(studio).note
    assert tomllib.loads(note.dump().decode()) == studio.status


# --- waking up ---


def test_the_scan_is_woken_when_a_schedule_is_due(tmp_path: Path) -> None:
    studio = Studio(tmp_path, "2026-11-20T12:00:00Z")
    woken = threading.Event()
    clock = SystemClock()
    timetable = Timetable(studio.settings, clock, studio.jobs, woken.set)
    soon = Moment.of(clock.now() + dt.timedelta(seconds=0.5))
    studio.drop(text(f"at = {soon}"))

    assert timetable.adopt(seen(studio.inbox / "nightly.toml"), "")
    assert timetable.due() == []
    assert woken.wait(30)
    assert [str(drop.scheduled_for) for drop in timetable.due()] == [str(soon)]
    assert clock.now() - soon < dt.timedelta(seconds=5)
    timetable.stop()
    timetable.stop()


# --- what a cron expression means ---


def times(expression: str, start: str, number: int, zone: ZoneInfo = UTC) -> list[str]:
    """The next firings as a clock in that zone shows them."""
    cron, moment = Cron.parse(expression), Moment.parse(start)
    found = []
    for _ in range(number):
        moment = cron.after(moment, zone)
        found.append(f"{moment.astimezone(zone):%a %d %b %H:%M %z}")
    return found


@pytest.mark.parametrize("sunday", ["0", "7", "sun", "SUN"])
def test_0_and_7_are_sunday(sunday: str) -> None:
    assert times(f"0 2 * * {sunday}", "2026-11-20T12:00Z", 2) == ["Sun 22 Nov 02:00 +0000", "Sun 29 Nov 02:00 +0000"]


@pytest.mark.parametrize("working_days", ["1-5", "mon-fri", "1,2,3,4,5", "mon,tue-fri"])
def test_1_to_5_are_monday_to_friday(working_days: str) -> None:
    days = [found[:3] for found in times(f"0 2 * * {working_days}", "2026-11-20T12:00Z", 5)]
    assert days == ["Mon", "Tue", "Wed", "Thu", "Fri"]


@pytest.mark.parametrize("weekend", ["5-7", "fri-sun", "5-0", "0,5,6"])
def test_a_range_of_weekdays_may_end_on_sunday(weekend: str) -> None:
    assert [found[:3] for found in times(f"0 2 * * {weekend}", "2026-11-19T12:00Z", 3)] == ["Fri", "Sat", "Sun"]


def test_a_step_counts_in_a_range_of_names_too() -> None:
    assert [found[:3] for found in times("0 2 * * mon-fri/2", "2026-11-22T12:00Z", 4)] == ["Mon", "Wed", "Fri", "Mon"]
    assert [found[4:10] for found in times("0 0 1 jan-jun/2 *", "2026-11-20T12:00Z", 3)] == [
        "01 Jan",
        "01 Mar",
        "01 May",
    ]


def test_of_day_and_weekday_one_is_enough_as_in_cron() -> None:
    assert times("0 2 13 * fri", "2026-12-05T00:00Z", 3) == [
        "Fri 11 Dec 02:00 +0000",
        "Sun 13 Dec 02:00 +0000",
        "Fri 18 Dec 02:00 +0000",
    ]
    # With a * in front both must hold, as in cron.
    assert times("0 2 */2 * fri", "2026-12-05T00:00Z", 2) == ["Fri 11 Dec 02:00 +0000", "Fri 25 Dec 02:00 +0000"]


def test_a_leap_day_is_waited_for() -> None:
    assert times("0 0 29 2 *", "2096-03-01T00:00Z", 1) == ["Fri 29 Feb 00:00 +0000"]


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "0 fields"),
        ("0 2 * * * *", "6 fields"),
        ("60 2 * * *", "minute 60"),
        ("0 24 * * *", "hour 24"),
        ("0 2 0 * *", "day 0"),
        ("0 2 * 13 *", "month 13"),
        ("0 2 * * 8", "weekday 8"),
        ("0 2 * foo *", "no name of a month"),
        ("5-1 2 * * *", "backwards"),
        ("*/0 2 * * *", "step"),
        ("*/60 2 * * *", "step"),
        ("0 2 * * mon-", "not understood"),
        ("1,,2 2 * * *", "not understood"),
        ("0 2 31 2,4,6 *", "never comes"),
        ("٣ 2 * * *", "not understood"),
    ],
)
def test_a_wrong_expression_is_refused_with_the_field(expression: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Cron.parse(expression)


ZONES = pytest.mark.parametrize(
    ("zone", "before", "spring", "autumn"),
    [
        (BERLIN, "+0100", "2026-03-29", "2026-10-25"),
        (NEW_YORK, "-0500", "2026-03-08", "2026-11-01"),
    ],
    ids=["Berlin", "New York"],
)


@ZONES
def test_a_time_that_is_left_out_runs_when_the_clocks_are_turned(
    zone: ZoneInfo, before: str, spring: str, autumn: str
) -> None:
    found = times("30 2 * * *", f"{spring}T00:00:00{before}", 2, zone)
    assert [one[-11:-6] for one in found] == ["03:00", "02:30"]
    # Several of them run once, together with what is due at that time anyway.
    found = times("0,20,40 2,3 * * *", f"{spring}T00:00:00{before}", 4, zone)
    assert [one[-11:-6] for one in found] == ["03:00", "03:20", "03:40", "02:00"]


@ZONES
def test_a_time_that_comes_twice_runs_the_first_time(zone: ZoneInfo, before: str, spring: str, autumn: str) -> None:
    hour = 2 if zone is BERLIN else 1
    day = dt.datetime.fromisoformat(f"{autumn}T00:00:00").replace(tzinfo=zone)
    found = times(f"30 {hour} * * *", str(Moment.of(day)), 2, zone)
    assert [one[4:6] for one in found] == [autumn[-2:], f"{int(autumn[-2:]) + 1:02d}"]
    assert found[0][-5:] != before
    assert found[1][-5:] == before


@ZONES
def test_a_job_of_every_hour_runs_by_the_hours_that_pass(zone: ZoneInfo, before: str, spring: str, autumn: str) -> None:
    for day, hours in ((spring, 23), (autumn, 25)):
        start = Moment.of(dt.datetime.fromisoformat(f"{day}T00:00:00").replace(tzinfo=zone))
        cron, moment, moments = Cron.parse("0 * * * *"), start, [start]
        for _ in range(hours):
            moment = cron.after(moment, zone)
            moments.append(moment)
        gaps = {later - earlier for earlier, later in itertools.pairwise(moments)}
        assert gaps == {dt.timedelta(hours=1)}
        assert f"{moment.astimezone(zone):%H}" == "00"


@ZONES
def test_a_schedule_runs_once_on_each_day_on_which_clocks_are_turned(
    tmp_path: Path, zone: ZoneInfo, before: str, spring: str, autumn: str
) -> None:
    for number, day in enumerate((spring, autumn)):
        start = dt.datetime.fromisoformat(f"{day}T00:00:00").replace(tzinfo=zone)
        studio = Studio(tmp_path / str(number), str(Moment.of(start)))
        hour = 1 if zone is NEW_YORK and day == autumn else 2
        studio.drop(text(f'cron = "30 {hour} * * *"\ntimezone = "{zone.key}"'))
        studio.scan()
        moment = Moment.of(start)
        for _ in range(24 * 6):
            moment += dt.timedelta(minutes=10)
            studio.at(str(moment))
        assert len(studio.takes) == 1
        studio.timetable.stop()


def test_at_in_the_hour_that_is_left_out_is_the_moment_when_the_clocks_are_turned(studio: Studio) -> None:
    shown = dt.datetime(2027, 3, 28, 2, 30, 15, 500_000, tzinfo=BERLIN)
    assert str(moment_of(shown)) == "2027-03-28T01:00:00.000Z"
    studio.drop(text('at = 2027-03-28T02:30:00\ntimezone = "Europe/Berlin"'))
    studio.scan()
    assert moment(studio.status["next_run"]) == "2027-03-28T01:00:00.000Z"


@pytest.mark.parametrize(
    ("zone", "shown", "turned"),
    [
        ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30:00.000Z"),  # half an hour
        ("America/Sao_Paulo", "2018-11-04T00:30", "2018-11-04T03:00:00.000Z"),  # at midnight
        ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00:00.000Z"),  # a whole day
    ],
)
def test_odd_turnings_of_the_clocks(zone: str, shown: str, turned: str) -> None:
    assert str(moment_of(dt.datetime.fromisoformat(shown).replace(tzinfo=ZoneInfo(zone)))) == turned


def field(lowest: int, highest: int) -> st.SearchStrategy[str]:
    number = st.integers(lowest, highest)
    spans = st.tuples(number, number).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    part = st.one_of(number.map(str), spans)
    return st.one_of(st.just("*"), st.lists(part, min_size=1, max_size=3).map(",".join))


@hypothesis_settings(deadline=None)  # what is compared is when, not how fast
@given(
    minute=field(0, 59),
    hour=field(0, 23),
    day=st.one_of(st.just("*"), field(1, 28)),
    month=field(1, 12),
    seconds=st.integers(0, 6 * 366 * 86_400),
)
def test_where_no_clocks_are_turned_the_moments_are_those_of_apscheduler(
    minute: str, hour: str, day: str, month: str, seconds: int
) -> None:
    ours, moment = Cron.parse(f"{minute} {hour} {day} {month} *"), Moment(2024, 1, 1, tzinfo=dt.UTC)
    moment += dt.timedelta(seconds=seconds)
    theirs = CronTrigger(minute=minute, hour=hour, day=day, month=month, timezone=dt.UTC)
    for _ in range(5):
        expected = theirs.get_next_fire_time(moment, moment)
        found = ours.after(moment, UTC)
        assert found == expected
        assert ours.last(moment, found, UTC) == found
        assert ours.last(moment, found - dt.timedelta(microseconds=1), UTC) is None
        moment = found


if __name__ == "__main__":
    die_at_every_step(Path(sys.argv[1]), sys.argv[2])
