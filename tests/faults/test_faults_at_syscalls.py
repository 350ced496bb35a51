"""SIGKILL, or an error, at single system calls of whole scenarios; then a start. A seeded sample of `campaign.py`."""

import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
from cases import Campaign, sample
from scenarios import SCENARIOS
from trials import Crew, Trial

KILLS, DOUBLE_KILLS, ERRORS = 40, 4, 12


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    if shutil.which("strace") is None:
        if os.environ.get("REQUIRE_TEST_TOOLS"):
            pytest.fail("strace is required here")
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    with Crew(tmp_path_factory.mktemp("scenes"), 3) as crew:
        found = Campaign(crew, SCENARIOS)
        found.enumerate()
        yield found


def problems(trials: list[Trial]) -> str:
    return "\n\n".join(f"{trial}: {trial.problem}" for trial in trials if trial.problem)


@pytest.mark.timeout(300)
def test_a_kill_at_any_file_changing_call_keeps_the_promise(campaign: Campaign) -> None:
    cases = sample(campaign.kills(), KILLS, random.Random(1))
    trials = list(campaign.crew.each(case.task() for case in cases))
    assert not problems(trials)
    hit = Counter(trial.scenario for trial in trials if trial.hit)
    print(f"killed at {hit.total()} calls: {dict(hit)}")
    assert hit.total() >= KILLS * 0.9
    assert len(hit) == len(SCENARIOS)


@pytest.mark.timeout(300)
def test_a_second_kill_during_the_recovery_keeps_the_promise(campaign: Campaign) -> None:
    trials = list(campaign.crew.each(campaign.double_kills(DOUBLE_KILLS, random.Random(2), again=1)))
    assert not problems(trials)
    assert len([trial for trial in trials if trial.hit]) >= DOUBLE_KILLS // 2


@pytest.mark.timeout(300)
def test_an_error_of_any_call_leaves_a_clear_state_and_all_goes_on_once_it_is_gone(campaign: Campaign) -> None:
    cases = sample(campaign.errors(), ERRORS, random.Random(3))
    trials = list(campaign.crew.each(case.task() for case in cases))
    assert not problems(trials)
    assert len([trial for trial in trials if trial.hit]) >= ERRORS * 0.8
