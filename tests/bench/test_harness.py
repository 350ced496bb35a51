"""The harness: what is judged, when no verdict is given, and what is drawn."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from bench import curves, intake, order
from bench.harness import Curve, Finding, Pairs, at_least, at_most, exponents, in_turns, percentile, ratios
from bench.machine import MAX_DRIFT, MAX_OTHERS, MAX_STEAL, Load, Moment

QUIET = Load(minute=0.1, others=0.0, steal=0.0, cpu_pressure=None, io_pressure=0.0, drift=0.0, cores=2)


def finding(*values: float, target: float = 1.3, timed: bool = True) -> Finding:
    pairs = Pairs(ours=values, theirs=[1.0] * len(values), values=values)
    return Finding(
        metric="latency", against="the reference", unit="s", target=at_most(target), pairs=pairs, timed=timed
    )


def test_the_median_of_the_pairs_is_judged() -> None:
    assert finding(1.0, 1.25, 1.31).verdict(QUIET)[0] == "met"
    assert finding(1.2, 1.35, 1.36).verdict(QUIET)[0] == "missed"


def test_what_has_no_target_is_reported() -> None:
    assert replace(finding(9.0), target=None).verdict(QUIET) == ("reported", "")


@pytest.mark.parametrize(
    "noise",
    [{"others": MAX_OTHERS * 1.1}, {"steal": MAX_STEAL * 1.1}, {"drift": MAX_DRIFT * 1.1}, {"drift": -MAX_DRIFT * 1.1}],
)
def test_no_verdict_is_given_on_a_busy_machine(noise: dict[str, float]) -> None:
    verdict, why = finding(1.0).verdict(replace(QUIET, **noise))  # type: ignore[arg-type]  # all of them are floats
    assert verdict == "too noisy"
    assert "%" in why


def test_pairs_that_all_agree_are_judged_on_a_machine_whose_speed_changed() -> None:
    drifted = replace(QUIET, drift=2 * MAX_DRIFT)
    assert finding(1.0, 1.1, 1.2, 1.2, 1.29).verdict(drifted) == ("met", "")
    assert finding(1.4, 1.5, 1.6, 1.7, 1.8).verdict(drifted) == ("missed", "")
    assert finding(1.0, 1.1, 1.2, 1.2, 1.31).verdict(drifted)[0] == "too noisy"
    assert finding(1.0, 1.1, 1.2, 1.2).verdict(drifted)[0] == "too noisy"
    # What others do may slow one of the two more than the other, in all pairs alike.
    assert finding(1.0, 1.1, 1.2, 1.2, 1.29).verdict(replace(drifted, others=0.5))[0] == "too noisy"


def test_what_does_not_depend_on_time_is_judged_on_a_busy_machine() -> None:
    assert finding(1.0, timed=False).verdict(replace(QUIET, others=0.9)) == ("met", "")


def test_no_verdict_is_given_where_the_reference_falls_behind() -> None:
    assert intake.fell_behind([[4.0, 5.0, 90.0], [6.0, 7.0, 8.0]]) == ""
    why = intake.fell_behind([[4.0, 5.0, 6.0], [200.0, 275.0, 300.0]])
    assert "275 ms" in why
    assert replace(finding(1.0), overloaded=why).verdict(QUIET) == ("too noisy", why)


def test_no_verdict_is_given_where_the_pairs_disagree_by_far() -> None:
    assert finding(0.5, 1.0, 2.0, 3.0).verdict(QUIET)[0] == "too noisy"
    # However far apart they are, all of them meet it.
    assert finding(0.1, 0.5, 1.2).verdict(QUIET)[0] == "met"


def test_growth_is_told_by_an_exponent() -> None:
    assert exponents([(1000.0, 10.0), (10.0, 1.0)], times=10).values == pytest.approx([2.0, 1.0])


def test_both_are_measured_in_turns() -> None:
    said: list[str] = []

    def measure(name: str) -> float:
        said.append(name)
        return float(len(said))

    pairs = in_turns(lambda: measure("ours"), lambda: measure("theirs"), 3)
    assert said == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert ratios(pairs).values == [1 / 2, 4 / 3, 5 / 6]


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile(range(1, 101), 99) == 99
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0


def test_work_of_our_own_is_not_counted_as_others() -> None:
    before = Moment.now()
    later = replace(before, at_s=before.at_s + 10, all_s=before.all_s + 20, busy_s=before.busy_s + 8)
    assert before.until(replace(later, own_s=before.own_s + 8)).others == pytest.approx(0.0, abs=1e-6)
    assert before.until(replace(later, own_s=before.own_s + 3)).others == pytest.approx(0.25)


def test_what_this_process_uses_is_its_own() -> None:
    before = Moment.now()
    # Timing the loop is work too.
    assert Moment.now().own_s > before.own_s


def test_a_line_says_all_there_is_to_know() -> None:
    line = finding(1.4, 1.6, 1.5).line(QUIET)
    told = {"ratio": 1.5, "min": 1.4, "max": 1.6, "n": 3, "target": "<= 1.3", "verdict": "missed", "unit": "s"}
    assert told.items() <= line.items()
    assert line["load"]["cpu_pressure"] is None
    assert str(at_least(0.98)) == ">= 0.98"


def test_the_fewest_loads_keep_to_the_bound() -> None:
    assert order.fewest_loads(("a", "b") * 3, most=8) == 2
    # After one overtake the oldest has its turn.
    assert order.fewest_loads(("a", "b") * 3, most=1) == 3
    assert order.fewest_loads(("a", "b") * 3, most=0) == 6


@pytest.mark.parametrize("log", [True, False])
def test_a_curve_is_drawn_with_all_its_points(log: bool) -> None:
    series = {"hotfolder": [(100, 5.0), (1000, 6.0), (10_000, 6.5)], "<reference>": [(100, 4.0), (10_000, 5.0)]}
    drawn = curves.draw(Curve(title="a & b", x="jobs", y="s", series=series, log_x=log, log_y=log).as_dict())
    root = ET.fromstring(drawn)
    lines = [line.attrib["points"].split() for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(line) for line in lines] == [3, 2]
    for line in lines:
        for place in line:
            x, y = map(float, place.split(","))
            assert 0 <= x <= 720
            assert 0 <= y <= 360


def test_marks_of_an_axis_are_round() -> None:
    assert curves.Axis.over([0.0, 9.3], log=False, length=300).marks(50) == [0, 2, 4, 6, 8]
    assert curves.Axis.over([10.0, 5000.0], log=True, length=300).marks(50) == [10, 100, 1000]
    assert [curves.short(mark) for mark in (0.05, 10.0, 100_000.0)] == ["0.05", "10", "100k"]
