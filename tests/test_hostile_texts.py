"""Whatever text somebody writes, its reader takes it or says what is wrong: in no time, and in words that can be shown.

`HYPOTHESIS_PROFILE=hostile` tries many more; how many of each kind were tried is printed at the end with `-s`.
"""

import os
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import cost
from mutations import nearly_right
from readers import READERS, Desk, refusal
from seeds import SEEDS

from hotfolder.errors import CODES, Problem

#: Seconds of CPU that any text of a few kB may take, and MB of memory.
MAX_CPU_S = 1.0
MAX_MB = 100.0
#: Characters of a message: more is nobody's to read.
MAX_MESSAGE = 1000
TEXTS = [name for name in READERS if name != "picture"]

settings.register_profile("hostile", max_examples=20_000, deadline=None)
if os.environ.get("HYPOTHESIS_PROFILE"):
    settings.load_profile(os.environ["HYPOTHESIS_PROFILE"])
EXAMPLES = settings().max_examples if os.environ.get("HYPOTHESIS_PROFILE") else 60


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    # What would be logged, thousands of times, is not what is looked at here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    return Desk(tmp_path_factory.mktemp("hostile") / "work")


@pytest.fixture(scope="module")
def tried() -> Iterator[Counter[str]]:
    """How many texts each reader was given."""
    count: Counter[str] = Counter()
    yield count
    print(f"\nhostile texts tried: {dict(count)}, {count.total()} in all")


def check(name: str, desk: Desk, data: bytes) -> tuple[Problem, ...]:
    """Let a reader read; return what it found wrong."""
    with cost() as spent:
        problems = refusal(name, desk, data)
    assert spent.cpu_s < MAX_CPU_S
    assert spent.peak_mb < MAX_MB
    for problem in problems:
        check_problem(problem)
    return problems


def check_problem(problem: Problem) -> None:
    """Something that a person can read and act upon."""
    assert problem.code in CODES
    assert problem.message
    assert problem.message.isprintable(), "it can be shown in a terminal"
    assert problem.hint.isprintable()
    assert len(problem.message) <= MAX_MESSAGE


@pytest.mark.parametrize("name", TEXTS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
)
@given(random=st.randoms(use_true_random=False))
def test_what_is_nearly_right_is_read_or_refused(name: str, desk: Desk, tried: Counter[str], random: Random) -> None:
    tried[name] += 1
    for problem in check(name, desk, nearly_right(random, SEEDS[name])):
        assert name not in {"job", "plan"} or problem.line or problem.code not in {"unknown-key", "bad-syntax"}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_ends_too_soon_is_read_or_refused(name: str, desk: Desk, tried: Counter[str]) -> None:
    data = max(SEEDS[name], key=len)
    for end in range(0, len(data), 1 + len(data) // 200):
        tried[name] += 1
        check(name, desk, data[:end])


DEEP_TOML = b"a = " + b"[" * 5000
DEEP_JSON = b"[" * 100_000 + b"\n"
LONG_NUMBER = b"a = " + b"9" * 5000 + b"\n"


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    "data",
    [DEEP_TOML, DEEP_JSON, LONG_NUMBER, b"a = " + b"{a=" * 5000, b"\xef\xbb\xbf", b"\xff\xfea\0", b"\0", b"\r" * 500],
    ids=lambda data: repr(data[:12]),
)
def test_what_no_reader_takes_harms_none(name: str, data: bytes, desk: Desk) -> None:
    check(name, desk, data)
    seed = SEEDS[name][0]
    check(name, desk, seed + b"\n" + data)
    check(name, desk, data + b"\n" + seed)
