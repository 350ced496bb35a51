"""The journal: what a job's lines add up to, and what becomes of lines that a crash or a stranger spoiled."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from clocks import NOON
from hypothesis import given
from hypothesis import strategies as st

from hotfolder import journal
from hotfolder.journal import ENDS, Event, Failure, Ledger, Origin, Output, State

ORIGIN = Origin(file="mug.toml", size=15, mtime_ns=1, sha256="a" * 64)


def at(event: Event, **facts: Any) -> dict[str, Any]:
    return journal.line(event, NOON, **facts)


PENDING = at(Event.PENDING, seq=7, mode="queued", origin=asdict(ORIGIN))
ADMITTED = at(Event.ADMITTED)
PLANNED = at(Event.PLANNED, sha256="b" * 64, notices=["rounded"])
STARTED = at(Event.STARTED, run_id="run-1")


def done(candidate: int) -> dict[str, Any]:
    output = Output(candidate=candidate, file=f"{candidate}.png", seed=1, sha256="c", pixels_sha256="d", seconds=1.0)
    return at(Event.DONE, outputs=[asdict(output)])


def cell(candidate: int, stage: int) -> dict[str, Any]:
    """A cell that left one picture and one box."""
    files = [["picture", f"work/{candidate:03d}_{stage:02d}_crop.png", "e" * 64]]
    boxes = [[1, 2, 3, 4, "mug", 0.5]]
    return at(Event.CELL, candidate=candidate, stage=stage, files=files, boxes=boxes, seconds=0.5, record={"number": 1})


def failed(candidate: int | None) -> dict[str, Any]:
    return at(Event.FAILED, error=asdict(Failure(code="internal", message="no", candidate=candidate)))


def ended(state: State) -> dict[str, Any]:
    return at(Event.ENDED, state=state.value, error=None, problems=[])


def folded(*lines: dict[str, Any]) -> Ledger:
    """What lines add up to that stand one below the other, from the beginning of the file."""
    ledger, begins = Ledger(), 0
    for line in lines:
        ledger.apply(line, begins)
        begins += len(journal.encode(line))
    return ledger


def written(folder: Path, *lines: dict[str, Any], torn: bytes = b"") -> Path:
    (folder / journal.FILE_NAME).write_bytes(journal.encode(*lines) + torn)
    return folder


def test_a_job_that_was_only_built_is_not_admitted() -> None:
    ledger = folded(PENDING)
    assert (ledger.admitted, ledger.seq, ledger.origin, ledger.queued_at) == (False, 7, ORIGIN, NOON)
    assert ledger.state is State.QUEUED


def test_a_whole_life_adds_up() -> None:
    ledger = folded(PENDING, ADMITTED, PLANNED, STARTED, done(1), done(2), ended(State.COMPLETED))
    assert ledger.admitted
    assert ledger.ended
    assert ledger.state is State.COMPLETED
    assert sorted(ledger.done) == [1, 2]
    assert ledger.notices == ["rounded"]
    assert (ledger.attempt, ledger.started_at, ledger.finished_at) == (1, NOON, NOON)


def test_a_cell_that_is_done_is_known_with_all_that_stands_after_it() -> None:
    ledger = folded(PENDING, PLANNED, STARTED, cell(1, 1), cell(1, 2), cell(2, 1))
    assert {candidate: sorted(stages) for candidate, stages in ledger.cells.items()} == {1: [1, 2], 2: [1]}
    kept = ledger.cells[1][2]
    assert kept.files == (("picture", "work/001_02_crop.png", "e" * 64),)
    assert kept.boxes == ((1, 2, 3, 4, "mug", 0.5),)


def test_the_record_of_a_cell_is_read_from_where_its_line_stands(tmp_path: Path) -> None:
    ledger = journal.read(written(tmp_path, PENDING, at(Event.NOTICE, text="mück"), cell(1, 1), cell(2, 1)))
    assert journal.line_at(tmp_path, ledger.cells[2][1].at) == cell(2, 1)
    added = journal.append(tmp_path, cell(3, 1))
    assert journal.line_at(tmp_path, added) == cell(3, 1)


def test_what_a_person_picks_goes_before_what_a_stage_chose() -> None:
    chosen = at(Event.CHOSEN, chosen=[[2, 1, [3, 1]]], scores={"1": 0.5})
    ledger = folded(PENDING, PLANNED, STARTED, chosen, at(Event.REVIEW))
    assert (ledger.chosen, ledger.state, ledger.ended) == ({(2, 1): (3, 1)}, State.REVIEW, False)
    ledger.apply(at(Event.PICKED, chosen=[[2, 1, [2]], [2, 2, [5]]], force=False))
    assert (ledger.chosen, ledger.state) == ({(2, 1): (2,), (2, 2): (5,)}, State.QUEUED)


def test_the_plan_that_holds_is_the_one_that_was_said_last() -> None:
    ledger = folded(PENDING, PLANNED, at(Event.PLANNED, sha256="c" * 64, file="plan_02.toml", notices=[]))
    assert (ledger.plan_file, ledger.plan_sha256) == ("plan_02.toml", "c" * 64)


def test_an_attempt_is_a_process_that_started_the_job_however_often() -> None:
    ledger = folded(PENDING, PLANNED, STARTED, STARTED, at(Event.STARTED, run_id="run-2"))
    assert ledger.attempt == 2


def test_a_death_counts_as_an_attempt_even_where_the_start_was_not_noted() -> None:
    ledger = folded(PENDING, PLANNED, at(Event.DIED, candidate=3, run_id="run-9", evidence=None))
    assert (ledger.attempt, ledger.unexplained, ledger.blamed) == (1, {3: 1}, {})


def test_deaths_with_evidence_are_counted_apart_from_those_without() -> None:
    blamed = at(Event.DIED, candidate=3, run_id="run-1", evidence="Segmentation fault")
    killed = at(Event.DIED, candidate=3, run_id="run-2", evidence=None)
    ledger = folded(PENDING, PLANNED, blamed, killed, killed)
    assert (ledger.blamed, ledger.unexplained) == ({3: 1}, {3: 2})


def test_unexplained_deaths_count_in_a_row_only() -> None:
    killed = at(Event.DIED, candidate=3, run_id="run-2", evidence=None)
    assert folded(PENDING, PLANNED, killed, done(3)).unexplained == {}


def test_a_job_that_is_held_while_it_waits_stays_held_once_it_is_planned() -> None:
    waiting = at(Event.WAITING, pictures=["mug.png"])
    ledger = folded(PENDING, waiting, at(Event.HELD, why="its own pause"), PLANNED)
    assert ledger.state is State.HELD
    assert ledger.waiting_for == ()
    ledger.apply(at(Event.RELEASED))
    assert (ledger.state, ledger.held) == (State.QUEUED, None)


def test_resuming_keeps_what_is_finished_and_forgets_what_failed() -> None:
    ledger = folded(PENDING, PLANNED, STARTED, done(1), failed(2), at(Event.CANCEL), ended(State.CANCELLED))
    ledger.apply(at(Event.RESUMED, force=True))
    assert ledger.state is State.QUEUED
    assert (sorted(ledger.done), ledger.failed, ledger.cancelled, ledger.force) == ([1], {}, False, True)
    assert ledger.finished_at is None


def test_the_last_word_on_the_order_counts() -> None:
    assert folded(PENDING, at(Event.FIRST, rank=1), at(Event.FIRST, rank=4)).first == 4


def test_an_event_of_a_newer_version_changes_nothing() -> None:
    before = folded(PENDING, PLANNED)
    after = folded(PENDING, PLANNED, {"at": str(NOON), "event": "transmogrified", "into": "tiger"})
    assert vars(before) == vars(after)


def test_a_torn_last_line_is_not_there(tmp_path: Path) -> None:
    whole = journal.encode(ended(State.COMPLETED))
    for cut in range(len(whole)):
        ledger = journal.read(written(tmp_path, PENDING, ADMITTED, PLANNED, torn=whole[:cut]))
        assert ledger.state is State.QUEUED, whole[:cut]


def test_a_line_that_is_whole_but_for_its_end_does_not_count(tmp_path: Path) -> None:
    """What was not acknowledged may count or not; that it counts now and not after the next line would be wrong."""
    ledger = journal.read(written(tmp_path, PENDING, torn=journal.encode(ADMITTED).rstrip(b"\n")))
    assert not ledger.admitted


def test_a_torn_last_line_is_cut_off_before_the_next_is_written(tmp_path: Path) -> None:
    written(tmp_path, PENDING, torn=b'{"at":"2026-11')
    journal.mend(tmp_path)
    journal.append(tmp_path, ADMITTED)
    assert (tmp_path / journal.FILE_NAME).read_bytes() == journal.encode(PENDING, ADMITTED)


def test_a_torn_line_that_was_not_cut_off_spoils_no_other(tmp_path: Path) -> None:
    """A full disk may leave half a line, and then not even let it be cut off."""
    written(tmp_path, PENDING, torn=b'{"at":"2026-11')
    journal.append(tmp_path, ADMITTED)
    assert journal.read(tmp_path).admitted


#: Lines that somebody edited: each would be met again where the daemon starts, sorts its jobs or shows them.
WRONG_TYPES = [
    b'"event": "pending", "seq": "first", "mode": "queued", "origin": {}',
    b'"event": "pending", "seq": 1, "mode": 7, "origin": {}',
    b'"event": "pending", "seq": 1, "mode": "queued", "origin": {"file": 7, "size": 1, "mtime_ns": 1, "sha256": "a"}',
    b'"event": "resumed", "seq": []',
    b'"event": "resumed", "seq": 1e999',
    b'"event": "first", "rank": "high"',
    b'"event": "notice", "text": {}',
    b'"event": "held", "why": 7',
    b'"event": "waiting", "pictures": "mug.png"',
    b'"event": "planned", "sha256": 7, "notices": []',
    b'"event": "planned", "sha256": "a", "notices": [7]',
    b'"event": "started", "run_id": []',
    b'"event": "died", "run_id": "a", "candidate": "1", "evidence": ""',
    b'"event": "failed", "error": {"code": "internal", "message": 7}',
    b'"event": "failed", "error": {"code": "internal", "message": "", "stage_index": "1"}',
    b'"event": "ended", "state": "failed", "error": {"code": 1, "message": ""}',
    b'"event": "ended", "state": "failed", "problems": [{"code": {}}]',
    b'"event": "cell", "candidate": 1, "stage": 1, "files": [[1, 2, 3]], "boxes": [], "seconds": 1.0',
    b'"event": "cell", "candidate": 1, "stage": 1, "files": [], "boxes": [], "seconds": "1.0"',
    b'"event": "cell", "candidate": 1, "stage": 1, "files": [], "boxes": [["", 1, 1, 1, "", 1.0]], "seconds": 1.0',
    (
        b'"event": "done", "outputs": [{"candidate": 1, "file": "a", "seed": "1", "sha256": "", "pixels_sha256": "",'
        b' "seconds": 1.0}]'
    ),
    (
        b'"event": "done", "outputs": [{"candidate": 1, "file": "a", "seed": 1, "sha256": "", "pixels_sha256": "",'
        b' "seconds": 1e999}]'
    ),
]


@pytest.mark.parametrize(
    "spoiled",
    [
        b"\0" * 300,
        b"not json",
        b"[]",
        b"7",
        b'{"event": "done"}',
        b'{"at": "2026-11-20T12:00:00.000Z"}',
        b'{"at": "noon", "event": "cancel"}',
        b'{"at": 7, "event": "cancel"}',
        b'{"at": "2026-11-20T12:00:00.000Z", "event": "done"}',
        b'{"at": "2026-11-20T12:00:00.000Z", "event": "done", "outputs": [{"candidate": 1, "colour": "red"}]}',
        b'{"at": "2026-11-20T12:00:00.000Z", "event": "done", "outputs": []}',
        b'{"at": "2026-11-20T12:00:00.000Z", "event": "cell", "candidate": 1, "stage": 1, "files": [["picture"]]}',
        b'{"at": "2026-11-20T12:00:00.000Z", "event": "chosen", "chosen": [[1, 1]]}',
        b'{"at": "2026-11-20T12:00:00.000Z", "event": "ended", "state": "sublimated"}',
        b'{"at": "2026-11-20T12:00:00.000Z", "event": "died", "candidate": 1}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"at": ' * 100_000,
        *(b'{"at": "2026-11-20T12:00:00.000Z", ' + wrong + b"}" for wrong in WRONG_TYPES),
    ],
    ids=range(18 + len(WRONG_TYPES)),
)
def test_a_line_that_cannot_be_read_is_passed_over(tmp_path: Path, spoiled: bytes) -> None:
    (tmp_path / journal.FILE_NAME).write_bytes(
        journal.encode(PENDING, ADMITTED) + spoiled + b"\n" + journal.encode(PLANNED, done(2))
    )
    ledger = journal.read(tmp_path)
    assert (ledger.seq, ledger.admitted, ledger.plan_sha256, sorted(ledger.done)) == (7, True, "b" * 64, [2])
    assert (ledger.cancelled, ledger.cells, ledger.chosen) == (False, {}, {})
    assert vars(ledger) == vars(folded(PENDING, ADMITTED, PLANNED, done(2))), "it changed nothing at all"


@pytest.mark.parametrize("file", ["../hotfolder.toml", "/etc/passwd", "a/../../b", "a\0b"])
def test_a_journal_that_names_a_source_outside_the_inbox_names_none(tmp_path: Path, file: str) -> None:
    pending = at(Event.PENDING, seq=1, mode="queued", origin=asdict(ORIGIN) | {"file": file})
    assert journal.read(written(tmp_path, pending)).origin is None


def test_a_journal_that_is_missing_is_an_error_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        journal.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        journal.append(tmp_path, ADMITTED)


def test_a_name_that_is_no_unicode_comes_back_as_it_was(tmp_path: Path) -> None:
    name = os.fsdecode(b"m\xfcg \\u00e9 \\\xff\n\x1b[31m.toml")
    pending = at(Event.PENDING, seq=1, mode="queued", origin=asdict(ORIGIN) | {"file": name})
    origin = journal.read(written(tmp_path, pending)).origin
    assert origin is not None
    assert origin.file == name
    assert (tmp_path / journal.FILE_NAME).read_bytes().count(b"\n") == 1


@given(st.text(st.characters(blacklist_categories=())))
def test_any_text_is_one_line_and_comes_back(text: str) -> None:
    data = journal.encode(at(Event.NOTICE, text=text))
    assert data.count(b"\n") == 1
    assert json.loads(data)["text"] == text


#: Every order in which lines can stand, with the pieces that a crash may lose at the end.
LINES = st.lists(
    st.sampled_from(
        [
            ADMITTED,
            at(Event.WAITING, pictures=["mug.png"]),
            PLANNED,
            STARTED,
            cell(1, 1),
            at(Event.CHOSEN, chosen=[[2, 1, [1]]], scores={}),
            at(Event.REVIEW),
            at(Event.PICKED, chosen=[[2, 1, [2]]], force=True),
            done(1),
            done(2),
            at(Event.RETRY, error=asdict(Failure(code="internal", message="no")), tries=1),
            failed(2),
            at(Event.DIED, candidate=1, run_id="run-1", evidence=None),
            at(Event.HELD, why="its own pause"),
            at(Event.RELEASED),
            at(Event.FIRST, rank=1),
            at(Event.CANCEL),
            at(Event.RESUMED, force=False),
            at(Event.NOTICE, text="x"),
            *(ended(state) for state in sorted(ENDS)),
        ]
    )
)


@given(LINES, st.data())
def test_reading_what_a_crash_left_is_folding_the_lines_that_are_whole(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    text = journal.encode(PENDING, *lines)
    cut = data.draw(st.integers(len(journal.encode(PENDING)), len(text)))
    (folder / journal.FILE_NAME).write_bytes(text[:cut])
    whole = text[:cut].count(b"\n")
    assert vars(journal.read(folder)) == vars(folded(*[PENDING, *lines][:whole]))
    journal.mend(folder)
    assert vars(journal.read(folder)) == vars(folded(*[PENDING, *lines][:whole]))
