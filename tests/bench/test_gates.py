"""Ratios and growth that must hold on any machine: small sizes, and bounds that a busy one does not reach."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import cancel, looking, order, pictures
from bench.harness import Bench, Finding, Target
from bench.machine import Moment
from hotfolder.line import MAX_OVERTAKES

#: By how much a small run on a slow machine may miss its target.
SLACK = 1.5


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(root=tmp_path / "bench", quick=True)


def check(measure: Callable[[], Finding]) -> Finding:
    """Fail where a target is missed by far; where the machine was too busy to tell, skip."""
    before = Moment.now()
    finding = measure()
    line = finding.line(before.until(Moment.now()))
    assert finding.target is not None
    at_most = finding.target.at_most
    bound = finding.target.bound * (SLACK if at_most else 1 / SLACK)
    if not Target(bound=bound, at_most=at_most).met_by(line["ratio"]):
        if line["verdict"] == "too noisy":
            pytest.skip(line["why"])
        pytest.fail(f"{line}")
    return finding


def test_looking_costs_no_more_after_many_jobs(bench: Bench, tmp_path: Path) -> None:
    workspaces = looking.with_finished(tmp_path, (20, 400))
    check(lambda: looking.command_growth(bench, ("history",), workspaces))
    check(lambda: looking.status_file_growth(bench, workspaces, tmp_path))


def test_a_cancel_acts_within_a_step(bench: Bench) -> None:
    check(lambda: next(cancel.metric(bench)))


def test_each_model_is_loaded_as_seldom_as_fairness_allows(bench: Bench) -> None:
    (finding,) = order.loads(bench)
    assert max(finding.pairs.values) == 1
    assert finding.counts["most_overtakes"] <= MAX_OVERTAKES


def test_an_urgent_job_goes_before_the_rest_of_a_batch(bench: Bench) -> None:
    (finding,) = order.urgent(bench)
    assert finding.counts["cells_begun_meanwhile"] <= finding.counts["at_most"]


def test_a_picture_is_saved_while_the_next_one_is_made(bench: Bench) -> None:
    finding = check(lambda: next(pictures.metric(bench)))
    assert finding.counts["times_the_bare_loop"] > 1
