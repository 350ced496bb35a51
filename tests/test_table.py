"""The table of a job: what is ready, and what follows from a cell that ends."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from hotfolder.plan import Axis, Plan, PlannedStage, UsedPreset
from hotfolder.presets import Model
from hotfolder.table import Place, Progressed, Table

TINY = UsedPreset(kind="text2img", model=Model(repo="hotfolder/noise", dtype="float32"))
EDIT = UsedPreset(kind="kontext", model=Model(repo="hotfolder/edit", dtype="float32"))
A, B = "hotfolder/noise@main float32", "hotfolder/edit@main float32"


def plan(*stages: Mapping[str, Any], count: int = 1, axes: tuple[Axis, ...] = ()) -> Plan:
    listed = [dict(stage) for stage in stages]
    return Plan(
        job="mug_take01",
        preset="noise",
        presets={"noise": TINY, "edit": EDIT},
        seed=1,
        count=count,
        keys={"prompt": "a mug", "width": 64, "height": 64},
        axes=axes,
        stages=tuple(
            PlannedStage(stage=one.pop("stage"), id=one.pop("id", f"s{at}"), keys=one) for at, one in enumerate(listed)
        ),
    )


def run(table: Table, *, choose: int = 1, of: Plan) -> list[Place]:
    """Run every cell as it becomes ready; return them in order."""
    ran = []
    while not table.is_idle:
        best = table.best("gpu", {A}) or table.best("gpu", {B}) or table.best("cpu", ())
        assert best is not None, "something is under way, and nothing is"
        place, model = best
        table.take(place, model)
        ran.append(place)
        finish(table, of, place, choose)
    return ran


def finish(table: Table, of: Plan, place: Place, choose: int) -> None:
    if of.stages[place.stage - 1].stage == "select":
        table.chose(place.stage, of.item_of(place.candidate), table.candidates_at(place)[:choose])
    elif place.stage == len(of.stages):
        table.finished(place.candidate)
    else:
        table.passed(place)


GENERATE, EXPORT = {"stage": "generate"}, {"stage": "export"}


def test_a_row_goes_through_its_stages_in_order() -> None:
    of = plan(GENERATE, {"stage": "grayscale"}, EXPORT, count=2)
    table = Table(of, Progressed())
    ran = run(table, of=of)
    assert sorted(ran) == [Place(c, s) for c in (1, 2) for s in (1, 2, 3)]
    for candidate in (1, 2):
        assert [place.stage for place in ran if place.candidate == candidate] == [1, 2, 3]
    assert table.cells == table.cells_over == 2, "cells of the GPU are what progress is told from"


def test_what_is_under_way_can_be_looked_at_while_it_changes() -> None:
    """By whoever draws a page: a set that changes while somebody goes through it raises."""
    of = plan(GENERATE, EXPORT, count=3)
    table = Table(of, Progressed())
    for _ in range(2):
        table.take(*table.best("gpu", {A}))  # type: ignore[misc]  # there is one
    seen = []
    for place in table.in_flight:
        seen.append(place)
        table.passed(place)
        table.take(*table.best("cpu", ()))  # type: ignore[misc]
    assert sorted(seen) == [Place(1, 1), Place(2, 1)]
    assert sorted(table.in_flight) == [Place(1, 2), Place(2, 2)]


def test_a_stage_that_looks_at_the_whole_item_waits_for_all_that_will_come() -> None:
    of = plan(GENERATE, {"stage": "select"}, EXPORT, count=3)
    table = Table(of, Progressed())
    for candidate in (1, 2):
        table.take(Place(candidate, 1), A)
        table.passed(Place(candidate, 1))
    assert table.best("cpu", ()) is None
    table.take(Place(3, 1), A)
    table.failed([3])
    assert table.best("cpu", ()) == (Place(1, 2), "")
    assert table.candidates_at(Place(1, 2)) == [1, 2]
    table.take(Place(1, 2), "")
    table.chose(2, 1, [2])
    assert [table.state_of(candidate) for candidate in (1, 2, 3)] == ["left out", "to do", "failed"]
    assert table.left_out() == 1


def test_each_item_of_a_batch_has_its_own_choice() -> None:
    of = plan(GENERATE, {"stage": "select"}, EXPORT, count=2, axes=(Axis(key="seed", values=(1, 9)),))
    table = Table(of, Progressed())
    ran = run(table, of=of)
    assert [place for place in ran if place.stage == 2] == [Place(1, 2), Place(3, 2)]
    assert [table.state_of(number) for number in range(1, 5)] == ["done", "left out", "done", "left out"]


def test_pictures_that_are_added_begin_at_their_own_stage() -> None:
    of = plan(GENERATE, {"stage": "generate", "count": 2, "add": True}, {"stage": "grayscale"}, EXPORT)
    assert of.candidates == 3
    ran = run(Table(of, Progressed()), of=of)
    assert [place.stage for place in ran if place.candidate == 1] == [1, 3, 4], "it goes by what only adds"
    assert [place.stage for place in ran if place.candidate == 2] == [2, 3, 4]
    assert of.path_of(2) == [(2, 2), (2, 3), (2, 4)]


def test_several_edits_of_one_picture_begin_with_it() -> None:
    of = plan(GENERATE, {"stage": "generate", "preset": "edit", "count": 3}, EXPORT)
    table = Table(of, Progressed())
    assert table.best("gpu", {B}) == (Place(1, 1), A), "nothing can be edited yet"
    ran = run(table, of=of)
    assert ran.index(Place(2, 2)) > ran.index(Place(1, 1))
    assert of.path_of(3) == [(1, 1), (3, 2), (3, 3)]


@pytest.mark.parametrize("over", [1, 2, 3])
def test_a_candidate_that_is_over_before_its_turn_is_not_made(over: int) -> None:
    """As after a start, where one has killed the process too often, or was finished and not noted any more."""
    of = plan(GENERATE, {"stage": "grayscale"}, EXPORT, count=3)
    for fails in (True, False):
        table = Table(of, Progressed())
        if fails:
            table.failed([over])
        else:
            table.finished(over)
        assert {place.candidate for place in run(table, of=of)} == {1, 2, 3} - {over}


def test_a_table_of_which_all_is_over_has_nothing_ready() -> None:
    table = Table(plan(GENERATE, EXPORT, count=2), Progressed())
    table.failed([1])
    assert table.has_ready
    table.failed([2])
    assert (table.is_idle, table.has_ready, list(table.models())) == (True, False, [])


def test_a_candidate_that_is_over_while_it_is_due_later_is_not_made() -> None:
    of = plan(GENERATE, EXPORT, count=1)
    table = Table(of, Progressed())
    table.take(Place(1, 1), A)
    table.delay(Place(1, 1), 5.0)
    table.failed([1])
    table.wake(5.0)
    assert table.is_idle


def test_what_would_begin_with_a_failed_picture_fails_with_it() -> None:
    of = plan(GENERATE, {"stage": "generate", "preset": "edit", "count": 2}, EXPORT, count=2)
    table = Table(of, Progressed())
    table.take(Place(1, 1), A)
    assert table.failed([1]) == [3]
    assert table.state_of(3) == "failed"
    assert table.open == 2


def test_what_would_begin_with_a_picture_that_is_left_out_is_left_out() -> None:
    of = plan(GENERATE, {"stage": "select"}, {"stage": "generate", "preset": "edit", "count": 2}, EXPORT, count=2)
    table = Table(of, Progressed())
    run(table, of=of)
    assert [table.state_of(number) for number in range(1, 5)] == ["done", "left out", "done", "left out"]
    assert table.is_idle


def test_a_review_waits_for_a_person() -> None:
    of = plan(GENERATE, {"stage": "select", "by": "review"}, EXPORT, count=2)
    table = Table(of, Progressed())
    run(table, of=of)
    assert (table.waits_for_a_person, list(table.waiting())) == (True, [(2, 1, [1, 2])])
    table.chose(2, 1, [2])
    assert not table.waits_for_a_person
    run(table, of=of)
    assert [table.state_of(number) for number in (1, 2)] == ["left out", "done"]


def test_a_cell_that_is_due_later_is_ready_then() -> None:
    of = plan(GENERATE, EXPORT)
    table = Table(of, Progressed())
    table.take(Place(1, 1), A)
    table.delay(Place(1, 1), 10.0)
    assert table.best("gpu", ()) is None
    assert not table.is_idle
    assert not table.wake(9.0)
    assert table.wake(10.0)
    assert table.best("gpu", ()) == (Place(1, 1), A)


SHAPES = [
    plan(GENERATE, EXPORT, count=3),
    plan(GENERATE, {"stage": "grayscale"}, EXPORT, count=2, axes=(Axis(key="seed", values=(1, 9)),)),
    plan({"stage": "prepare"}, GENERATE, {"stage": "select"}, {"stage": "grayscale"}, EXPORT, count=4),
    plan(GENERATE, {"stage": "generate", "count": 3, "add": True}, {"stage": "color"}, EXPORT),
    plan(GENERATE, {"stage": "select"}, {"stage": "generate", "preset": "edit", "count": 2}, EXPORT, count=3),
    plan(
        GENERATE, {"stage": "generate", "preset": "edit", "count": 2}, {"stage": "select", "keep": 2}, EXPORT, count=2
    ),
]


@pytest.mark.parametrize("of", SHAPES)
@settings(max_examples=60, deadline=None)
@given(data=some.data())
def test_a_table_that_is_made_again_from_what_was_noted_goes_on_where_it_was(of: Plan, data: some.DataObject) -> None:
    """At any point, with any failures: the same cells run as would have run, none twice."""
    cells: dict[int, set[int]] = {}
    chosen: dict[tuple[int, int], tuple[int, ...]] = {}
    done: set[int] = set()
    failed: set[int] = set()
    ran: list[Place] = []
    table = Table(of, Progressed())
    while True:
        if data.draw(some.booleans(), label="restart"):
            table = Table(of, Progressed(cells=cells, done=done, failed=failed, chosen=chosen))
        best = table.best("gpu", ()) or table.best("cpu", ())
        if best is None:
            break
        place, model = best
        table.take(place, model)
        assert place not in ran, "a cell ran twice"
        ran.append(place)
        if data.draw(some.integers(0, 9), label="fails") == 0:
            numbers = [place.candidate]
            if of.stages[place.stage - 1].stage == "select":
                numbers = table.candidates_at(place)
            failed |= {*numbers, *table.failed(numbers)}
        elif of.stages[place.stage - 1].stage == "select":
            kept = tuple(table.candidates_at(place)[:2])
            chosen[place.stage, of.item_of(place.candidate)] = kept
            table.chose(place.stage, of.item_of(place.candidate), kept)
        elif place.stage == len(of.stages):
            done.add(place.candidate)
            table.finished(place.candidate)
        else:
            cells.setdefault(place.candidate, set()).add(place.stage)
            table.passed(place)
    assert table.is_idle
    assert table.open == 0
    states = {number: table.state_of(number) for number in range(1, of.candidates + 1)}
    assert {number for number, state in states.items() if state == "done"} == done
    assert {number for number, state in states.items() if state == "failed"} == failed
