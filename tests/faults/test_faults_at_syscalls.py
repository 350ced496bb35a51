"""SIGKILL, or an error, at single system calls of whole scenarios; then a start. A seeded sample of `campaign.py`."""

import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from cases import Campaign, Case, sample
from scenarios import SCENARIOS
from trials import Crew, Trial

KILLS, DOUBLE_KILLS, ERRORS = 40, 4, 12
#: Kills and errors that found something once.
TELLING = {
    ("drop", "SIGKILL at cpu-0: fsync outputs/mug_take01 #2"),
    ("publish", "SIGKILL at save: linkat outputs/mug_take01/mug_take01_001.png #1"),
    ("cancel", "ESTALE at save: pwrite64 .hotfolder/gallery.sqlite-wal #2"),
    ("review", "ESTALE at MainThread: pwrite64 .hotfolder/gallery.sqlite-wal #10"),
    ("drop", "ESTALE at intake: unlink jobs_inbox/.hotfolder-mug_take01.taking #1"),
    ("publish", "ESTALE at save: fsync outputs/processed #2"),
    ("picks", "EIO at MainThread: openat outputs/mug_take01/plan.toml #1"),
    ("resume", "EIO at intake: openat jobs_inbox #2"),
    ("schedule", "EINTR at save: close outputs/nightly_take01/journal.jsonl #1"),
    ("wrong", "ENOSPC at MainThread: pwrite64 .hotfolder.lock #1"),
}


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


def chosen(cases: Sequence[Case], count: int, seed: int) -> list[Case]:
    """What was telling once, and a sample to fill it up."""
    telling = [case for case in cases if case.key in TELLING]
    return list(dict.fromkeys([*telling, *sample(cases, count, random.Random(seed))]))[:count]


def problems(trials: Sequence[Trial]) -> str:
    return "\n\n".join(f"{trial.scenario}, {trial.fault}: {trial.problem}" for trial in trials if trial.problem)


@pytest.mark.timeout(300)
def test_a_kill_at_any_file_changing_call_keeps_the_promise(campaign: Campaign) -> None:
    trials = list(campaign.crew.each(case.task() for case in chosen(campaign.kills(), KILLS, seed=1)))
    assert not problems(trials)
    hit = Counter(trial.scenario for trial in trials if trial.hit)
    print(f"killed at {hit.total()} of {len(campaign.kills())} calls: {dict(hit)}")
    assert hit.total() >= KILLS * 0.9
    assert len(hit) == len(SCENARIOS)


@pytest.mark.timeout(300)
def test_a_second_kill_during_the_recovery_keeps_the_promise(campaign: Campaign) -> None:
    trials = list(campaign.crew.each(campaign.double_kills(DOUBLE_KILLS, random.Random(2), again=1)))
    assert not problems(trials)
    assert len([trial for trial in trials if trial.hit]) >= DOUBLE_KILLS // 2


@pytest.mark.timeout(300)
def test_an_error_of_any_call_leaves_a_clear_state_and_all_goes_on_once_it_is_gone(campaign: Campaign) -> None:
    trials = list(campaign.crew.each(case.task() for case in chosen(campaign.errors(), ERRORS, seed=3)))
    assert not problems(trials)
    assert len([trial for trial in trials if trial.hit]) >= ERRORS * 0.8
