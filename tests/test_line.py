"""The line: which cell is next. In the order of arrival; a loaded model may go first, but not for ever."""

import functools
import random
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import pytest
import samples
from bench.order import fewest_loads, most_overtakes
from clocks import SetClock
from conftest import Serve, Workspace
from painted import PaintedEngine
from waiting import wait_until

from hotfolder.engine import Request
from hotfolder.job import Job
from hotfolder.journal import Ledger
from hotfolder.line import MAX_OVERTAKE_S, MAX_OVERTAKES, Cell, Line
from hotfolder.plan import Plan
from hotfolder.presets import Model
from hotfolder.table import Progressed, Table

numbers = iter(range(1, 1_000_000))


def job(name: str, *, model: str = "A", cells: int = 1, priority: int = 0, first: int = 0) -> Job:
    """A job that came after every one before it."""
    return Job(
        folder=Path(f"{name}_take01"),
        stem=name,
        take=1,
        ledger=Ledger(seq=next(numbers), first=first),
        table=Table(plan_of(model, cells), Progressed()),
        model_key=key_of(model),
        priority=priority,
    )


@functools.cache
def plan_of(model: str, cells: int) -> Plan:
    return samples.plan(model=Model(repo=model), count=cells)


def key_of(model: str) -> str:
    return Model(repo=model).key


def keys_of(*models: str) -> frozenset[str]:
    return frozenset(key_of(model) for model in models)


def line_of(*jobs: Job, clock: SetClock | None = None) -> Line:
    line = Line(clock or SetClock())
    for one in jobs:
        line.add(one)
    return line


def taken(line: Line, *, loaded: str = "") -> Iterator[Cell]:
    """Take until nothing is ready; the model of each cell is the loaded one from then on."""
    keys = keys_of(loaded) if loaded else frozenset[str]()
    while line.peek("gpu", keys) is not None:
        cell = line.take("gpu", keys)
        assert cell is not None
        keys = frozenset({cell.model})
        yield cell


def order(line: Line, *, loaded: str = "") -> list[str]:
    return [f"{cell.job.stem}{cell.candidate}" for cell in taken(line, loaded=loaded)]


def test_jobs_go_in_the_order_in_which_they_came() -> None:
    a, b, c = job("a"), job("b"), job("c")
    assert order(line_of(c, a, b)) == ["a1", "b1", "c1"]


def test_the_candidates_of_a_job_go_one_after_the_other() -> None:
    assert order(line_of(job("a", cells=3), job("b"))) == ["a1", "a2", "a3", "b1"]


def test_a_higher_priority_goes_first_and_a_lower_one_last() -> None:
    a, b, c = job("a", priority=-5), job("b"), job("c", priority=5)
    assert order(line_of(a, b, c)) == ["c1", "b1", "a1"]


def test_what_was_put_in_front_goes_before_any_priority_and_the_last_one_put_there_first() -> None:
    a, b, c = job("a", priority=100), job("b", first=1), job("c", first=2)
    assert order(line_of(a, b, c)) == ["c1", "b1", "a1"]


def test_an_urgent_job_gets_in_between_two_cells_of_another() -> None:
    batch, urgent = job("batch", cells=3), job("urgent", priority=10, cells=2)
    line = line_of(batch)
    cells = taken(line)
    assert next(cells).job is batch
    line.add(urgent)
    assert [cell.job.stem for cell in cells] == ["urgent", "urgent", "batch", "batch"]


def test_a_job_of_the_loaded_model_goes_before_an_older_one_of_another() -> None:
    assert order(line_of(job("a", model="A"), job("b", model="B")), loaded="B") == ["b1", "a1"]


def test_a_loaded_model_does_not_go_before_a_higher_priority() -> None:
    assert order(line_of(job("a", model="A", priority=1), job("b", model="B")), loaded="B") == ["a1", "b1"]


def test_an_older_job_is_overtaken_by_at_most_eight_others() -> None:
    old = job("old", model="A")
    others = [job(f"b{number:02d}_", model="B") for number in range(MAX_OVERTAKES + 4)]
    assert order(line_of(old, *others), loaded="B").index("old1") == MAX_OVERTAKES == 8


def test_an_older_job_is_overtaken_for_at_most_ten_minutes() -> None:
    clock = SetClock()
    old, long, late = job("old", model="A"), job("long", model="B", cells=10), job("late", model="B")
    line = line_of(old, long, late, clock=clock)
    for _ in range(3):
        cell = line.take("gpu", keys_of("B"))
        assert cell is not None
        assert cell.job is long
        clock.turn(MAX_OVERTAKE_S / 3)
    assert MAX_OVERTAKE_S == 600
    assert order(line, loaded="B")[0] == "old1"


def test_the_time_runs_from_the_first_job_that_overtook_not_from_the_arrival() -> None:
    clock = SetClock()
    line = line_of(job("old", model="A"), clock=clock)
    clock.turn(10 * MAX_OVERTAKE_S)
    line.add(job("new", model="B"))
    assert order(line, loaded="B") == ["new1", "old1"]


def test_looking_ahead_counts_as_no_overtaking() -> None:
    clock = SetClock()
    line = line_of(job("old", model="A"), job("new", model="B"), clock=clock)
    for _ in range(100):
        assert line.peek("gpu", keys_of("B")) is not None
    clock.turn(2 * MAX_OVERTAKE_S)
    assert order(line, loaded="B") == ["new1", "old1"]


def test_the_line_says_where_its_order_was_changed() -> None:
    line = line_of(job("old", model="A"), job("new", model="B", cells=2), job("up", model="C", priority=-3))
    line.take("gpu", keys_of("B"))
    reasons = {waiting.stem: why for waiting, why in line.first(10)}
    assert reasons == {"old": "1 later job(s) went first: their model was loaded", "new": "", "up": "priority -3"}


def test_each_model_is_loaded_once_while_equals_can_be_sorted_by_it() -> None:
    """Twelve jobs of three models, mixed: each model is loaded once, not twelve times."""
    jobs = [job(f"{number:02d}_", model="ABC"[number % 3], cells=2) for number in range(12)]
    models = [cell.model for cell in taken(line_of(*jobs))]
    changes = [model for model, before in zip(models, [None, *models[:-1]], strict=True) if model != before]
    assert changes == [key_of("A"), key_of("B"), key_of("C")]


def test_within_one_job_a_model_is_loaded_once_however_many_older_jobs_there_are() -> None:
    """A job whose cells have begun is finished before another model is loaded, unless something urgent comes."""
    jobs = [job(f"{number:02d}_", model="AB"[number % 2], cells=5) for number in range(40)]
    models: dict[str, list[str]] = {}
    for cell in taken(line_of(*jobs)):
        models.setdefault(cell.job.name, []).append(f"{cell.candidate}")
    names = [cell for cells in models.values() for cell in cells]
    assert names == ["1", "2", "3", "4", "5"] * 40


def test_a_cell_that_was_given_back_is_the_first_of_its_job() -> None:
    one = job("a", cells=3)
    line = line_of(one)
    cell = line.take("gpu")
    assert cell is not None
    line.put_back(cell)
    line.add(one)
    assert order(line) == ["a1", "a2", "a3"]


def test_a_job_has_cells_until_the_last_one_came_to_its_end() -> None:
    one = job("a", cells=2)
    line = line_of(one)
    for cell in taken(line):
        assert line.has_cells(one)
        line.finished(one, cell.candidate)
    assert not line.has_cells(one)


def test_a_cell_that_moves_is_seen_at_every_moment() -> None:
    """Whoever asks whether a job is through, while its last cell is taken and given back, never hears yes."""
    one = job("a")
    line = line_of(one)
    stop = threading.Event()
    missed = []

    def look() -> None:
        while not stop.is_set():
            if not line.has_cells(one):
                missed.append(1)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(2000):
        cell = line.take("gpu")
        assert cell is not None
        line.put_back(cell)
        line.add(one)
    stop.set()
    thread.join()
    assert not missed


def test_a_closed_line_gives_nothing_until_every_reason_is_lifted() -> None:
    line = line_of(job("a"))
    line.close("pause")
    line.close("disk full")
    line.open("pause")
    assert line.peek("gpu") is None
    line.open("disk full")
    assert line.peek("gpu") is not None


def test_whoever_waits_is_woken_by_a_job_and_by_the_end() -> None:
    line = Line(SetClock())
    found: list[Cell | None] = []

    def work() -> None:
        while (cell := line.take("gpu")) is not None:
            found.append(cell)
        found.append(None)

    thread = threading.Thread(target=work)
    thread.start()
    line.add(job("a"))
    wait_until(lambda: found, what="the cell of a")
    line.stop()
    thread.join(10)
    assert [cell and cell.job.stem for cell in found] == ["a", None]


def test_a_job_is_found_in_the_line_though_its_plan_now_says_another_model() -> None:
    """A job that was taken up again is another object of the same name."""
    before = job("a", model="A")
    line = line_of(before)
    again = job("a", model="B", priority=3)
    line.add(again)
    assert len(line) == 1
    assert order(line) == ["a1"]
    line.remove(again)
    assert len(line) == 0


@pytest.mark.parametrize("count", [20_000])
def test_a_long_line_costs_no_more_a_job_than_a_short_one(count: int) -> None:
    """Ratios, no milliseconds: adding and taking 20,000 jobs looks at few of them each time."""
    looks = 0

    class Counted(Job):
        @property
        def rank(self) -> tuple[int, int, int]:
            nonlocal looks
            looks += 1
            return super().rank

    line = Line(SetClock())
    for number in range(count):
        base = job(f"{number:05d}_", model="AB"[number % 2])
        line.add(Counted(**{key: value for key, value in vars(base).items() if key not in {"lock", "name"}}))
    assert len(list(taken(line))) == count
    assert looks <= 2 * count


def test_of_several_models_too_no_job_is_overtaken_by_more_than_the_bound() -> None:
    """Not even the second oldest, behind an older one of a third model."""
    jobs = [job(f"{number:02d}_", model="ABC"[number % 3]) for number in range(60)]
    ran = [int(cell.job.stem.rstrip("_")) for cell in taken(line_of(*jobs), loaded="C")]
    assert sorted(ran) == list(range(60))
    overtakes = [sum(earlier > one for earlier in ran[:place]) for place, one in enumerate(ran)]
    assert max(overtakes) == MAX_OVERTAKES
    loads = sum(one % 3 != before % 3 for before, one in pairwise(ran))
    assert loads < 20, "still far fewer than one for each job"


def ran_of(models: Sequence[str], comes: Sequence[int] = (), *, cells: int = 1) -> list[int]:
    """Run jobs, numbered from 0, and return them in the order in which they began; one model is loaded at a time.

    Args:
        comes: of each job: how many cells were taken before it came; one that nothing else is left for comes at once.
    """
    waiting = list(enumerate(comes or [0] * len(models)))
    line = line_of()
    keys = frozenset[str]()
    ran: dict[int, None] = {}
    count = 0
    while waiting or len(line):
        while waiting and (waiting[0][1] <= count or not len(line)):
            number, _ = waiting.pop(0)
            line.add(job(f"{number:05d}", model=models[number], cells=cells))
        foreseen = line.peek("gpu", keys)
        cell = line.take("gpu", keys)
        assert cell is not None
        assert cell == foreseen
        keys = frozenset({cell.model})
        ran[int(cell.job.stem)] = None
        count += 1
    return list(ran)


def loads_of(models: Sequence[str], ran: Sequence[int]) -> int:
    return 1 + sum(models[before] != models[one] for before, one in pairwise(ran))


def ran_greedily(models: Sequence[str], comes: Sequence[int] = ()) -> list[int]:
    """What runs if as many jobs of the loaded model go first as may."""
    waiting = list(enumerate(comes or [0] * len(models)))
    overtaken = [0] * len(models)
    line: list[int] = []
    ran: list[int] = []
    while waiting or line:
        while waiting and (waiting[0][1] <= len(ran) or not line):
            line.append(waiting.pop(0)[0])
        same = next((one for one in line if ran and models[one] == models[ran[-1]]), line[0])
        older = [one for one in line if one < same]
        ran.append(line[0] if any(overtaken[one] == MAX_OVERTAKES for one in older) else same)
        line.remove(ran[-1])
        for one in line:
            overtaken[one] += one < ran[-1]
    return ran


def mixed(seed: int) -> list[str]:
    """A line of 2 to 5 models: in turn, drawn, one of them often, or a few of each together."""
    drawn = random.Random(seed)
    names, count = "ABCDE"[: drawn.randint(2, 5)], drawn.randint(5, 120)
    match seed % 4:
        case 0:
            return [names[number % len(names)] for number in range(count)]
        case 1:
            return drawn.choices(names, k=count)
        case 2:
            return drawn.choices(names, weights=[2**number for number in range(len(names))], k=count)
        case _:
            return [name for name in drawn.choices(names, k=count) for _ in range(drawn.randint(1, 5))][:count]


@pytest.mark.parametrize("count", [20, 50, 61, 80, 100])
def test_models_are_loaded_as_seldom_as_the_bound_allows(count: int) -> None:
    """As if it had been planned by somebody who knows all that comes; greedily a hundred jobs need 17 loads, not 13."""
    models = ["ABC"[number % 3] for number in range(count)]
    ran = ran_of(models)
    assert loads_of(models, ran) == fewest_loads(tuple(models), MAX_OVERTAKES)
    assert most_overtakes(ran) <= MAX_OVERTAKES


def test_models_are_never_loaded_more_often_than_greedily_where_all_jobs_are_there() -> None:
    ours, greedy = 0, 0
    for seed in range(24):
        models = mixed(seed)
        ran = ran_of(models, cells=1 + seed % 3)
        assert sorted(ran) == list(range(len(models)))
        assert most_overtakes(ran) <= MAX_OVERTAKES
        loads, at_most = loads_of(models, ran), loads_of(models, ran_greedily(models))
        assert loads <= at_most, seed
        ours, greedy = ours + loads, greedy + at_most
    assert ours < 0.9 * greedy


def test_models_are_loaded_less_often_than_greedily_too_where_jobs_come_meanwhile() -> None:
    """Who cannot know what comes may be unlucky with one line, not with many."""
    ours, greedy = 0, 0
    for seed in range(24):
        models = mixed(seed)
        drawn = random.Random(-seed)
        ahead = drawn.randint(5, 40)
        comes = [max(0, number - ahead) for number in range(len(models))]
        ran = ran_of(models, comes)
        assert most_overtakes(ran) <= MAX_OVERTAKES
        ours, greedy = ours + loads_of(models, ran), greedy + loads_of(models, ran_greedily(models, comes))
    assert ours < greedy


def test_few_jobs_of_a_loaded_model_go_before_however_many_of_another() -> None:
    """They need not be in sight of the oldest: else their model is loaded again, for them alone."""
    models = ["A", *["B"] * 100, "A", "A"]
    assert ran_of(models)[:4] == [0, 101, 102, 1]


def test_a_job_that_comes_meanwhile_is_seen() -> None:
    line = line_of(job("old", model="A"), job("b1_", model="B"))
    line.take("gpu", keys_of("B"))
    line.add(job("b2_", model="B"))
    assert order(line, loaded="B") == ["b2_1", "old1"]


def test_where_several_models_are_loaded_as_many_go_first_as_may() -> None:
    """Nobody knows which of them the next load will put out."""
    jobs = [job(f"{number:02d}_", model="ABC"[number % 3]) for number in range(60)]
    line = line_of(*jobs)
    ran = []
    for _ in range(20):
        cell = line.take("gpu", keys_of("A", "B"))
        assert cell is not None
        ran.append(int(cell.job.stem.rstrip("_")))
    assert ran[:11] == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 2]


def test_a_choice_costs_the_same_however_long_the_line_is() -> None:
    """Counted in calls, not by the clock."""

    def calls_of(count: int) -> int:
        line = line_of(*(job(f"{number:05d}_", model="ABC"[number % 3]) for number in range(count)))
        calls = 0

        def note(_frame: object, event: str, _arg: object) -> None:
            nonlocal calls
            calls += event == "call"

        before = sys.getprofile()
        sys.setprofile(note)
        try:
            for _ in islice(taken(line), choices):
                pass
        finally:
            sys.setprofile(before)
        return calls

    choices = 90
    few, many = calls_of(200), calls_of(10_000)
    assert many <= 1.1 * few
    assert many <= 2000 * choices


def test_a_daemon_loads_each_model_once_for_jobs_that_came_mixed(workspace: Workspace, serve: Serve) -> None:
    go = threading.Event()

    def hold(request: Request, step: int) -> None:
        assert go.wait(20)

    engine = PaintedEngine(before_step=hold)
    (workspace.root / "presets").mkdir()
    for letter in "bc":
        text = f'extends = "noise"\n[model]\nrepo = "hotfolder/noise-{letter}"\n'
        (workspace.root / "presets" / f"{letter}.toml").write_text(text)
    serve(engine)
    workspace.drop("first.toml", 'prompt = "x"\nsteps = 1\nwidth = 16\nheight = 16\n')
    workspace.wait_for("first_take01", "running")
    names = [f"{preset}{number}" for number in range(3) for preset in ("noise", "b", "c")]
    for name in names:
        preset = name.rstrip("0123456789")
        text = f'prompt = "x"\npreset = "{preset}"\nsteps = 1\ncount = 2\nwidth = 16\nheight = 16\n'
        workspace.drop(f"{name}.toml", text)
        workspace.wait_for(f"{name}_take01", "queued")
    go.set()
    for name in names:
        assert workspace.wait_for(f"{name}_take01")["state"] == "completed"
    assert [key.split("@")[0] for key in engine.loads] == ["hotfolder/noise", "hotfolder/noise-b", "hotfolder/noise-c"]
