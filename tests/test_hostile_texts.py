"""Whatever text somebody writes, its reader takes it or says what is wrong: in no time, and in words that can be shown.

`HYPOTHESIS_PROFILE=hostile` tries many more; how many of each kind were tried is printed at the end with `-s`.
"""

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import EXAMPLES, check_problem, cost
from mutations import nearly_right
from readers import READERS, Desk, refusal
from seeds import SEEDS

from hotfolder.errors import Problem

#: Seconds of CPU that any text of a few kB may take, and MB of memory.
MAX_CPU_S = 1.0
MAX_MB = 100.0
TEXTS = [name for name in READERS if name != "picture"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    # What would be logged, thousands of times, is not what is looked at here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    desk = Desk(tmp_path_factory.mktemp("hostile") / "work")
    for name in TEXTS:
        # What is imported and built at the first texts of all is no cost of theirs.
        for data in SEEDS[name]:
            refusal(name, desk, data)
    yield desk
    structlog.reset_defaults()


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


def filled(head: str, unit: str, tail: str = "\n", size: int = 60_000) -> bytes:
    """A text of so many bytes, most of it one thing over and over; `{}` counts."""
    count = (size - len(head) - len(tail)) // (len(unit) + 2)
    return (head + "".join(unit.replace("{}", str(number)) for number in range(count)) + tail).encode()


JOB = 'prompt = "a mug"\n'
#: What would take long, or much memory, where somebody counts on it.
COSTLY = {
    "presets that are unknown": ("job", filled(f"{JOB}[matrix]\npreset = [", '"p{}",', "]\n")),
    "presets of a stage": ("job", filled(f"{JOB}[matrix]\nstage.generate.preset = [", '"p{}",', "]\n")),
    "keys that are nearly known": ("job", filled(JOB, "promp{} = 1\n")),
    "keys with escapes": ("job", filled(JOB, '"\\u00e9{}" = 1\n')),
    "keys of a stage": ("job", filled(f"{JOB}[stage.generate]\n", "step{} = 1\n")),
    "stages that are unknown": ("job", filled(JOB, "[stage.generat{}]\n")),
    "stages": ("job", filled(JOB, '[[stages]]\nstage = "crop"\n')),
    "axes": ("job", filled(f"{JOB}[matrix]\n", "seed{} = [1]\n")),
    "axes of a stage": ("job", filled(f"{JOB}[matrix]\n", "stage.generate.a{} = [1]\n")),
    "values": ("job", filled(f"{JOB}[matrix]\nseed = [", "{},", "]\n")),
    "values that are wrong": ("job", filled(f"{JOB}[matrix]\nsteps = [", '"{}",', "]\n")),
    "pictures": ("job", filled(f"{JOB}[matrix]\nimage = [", '"{}",', "]\n")),
    "a table of its own": ("job", filled(f"{JOB}[meta]\n", "k{} = 1\n")),
    "lists in lists": ("job", filled(f"{JOB}meta.a = {'[' * 15}", "1,", f"{']' * 15}\n")),
    "keys of a schedule": ("schedule", filled(f"{JOB}[schedule]\n", "cro{} = 1\n")),
    "a day that seldom comes": ("schedule", f'{JOB}schedule.cron = "0 0 29 feb *"\n'.encode()),
    "keys of a lane": ("lane", filled("", "promp{} = 1\n")),
    "picks": ("resume", filled("picks = [", "{},", "]\n")),
    "keys of a resume": ("resume", filled("", "pick{} = 1\n")),
    "keys of a use": ("use", filled("", "take{} = 1\n")),
    "prompts": ("lines", b"a\n" * 4_000_000),
    "a prompt of 8 MB": ("lines", b"a" * 8_000_000),
    "cells of dotted keys": ("table", b"seed,steps\n" + (b"{" + b"a." * 9000 + b"a=1},1\n") * 40),
    "cells of lists": ("table", b"seed,steps\n" + (b'"' + b"[" * 9000 + b'",1\n') * 400),
    "cells of digits": ("table", b"seed,steps\n" + (b"9" * 19_000 + b",1\n") * 400),
    "items": ("table", b"seed,prompt\n" + b"1,a\n" * 1_000_000),
    "columns": ("table", b"a," * 1_000_000 + b"\n1\n"),
    "quotes": ("table", b'"' * 4_000_000),
    "keys of the settings": ("settings", filled("", "thread{} = 1\n")),
    "keys of a preset": ("preset", filled('kind = "text2img"\n', "titl{} = 1\n")),
    "stages of a pipeline": ("pipeline", filled("", '[[stages]]\nstage = "crop"\n')),
    "lines of a journal": ("journal", b'{"at":"2026-11-20T12:00:00.000Z","event":"notice","text":"x"}\n' * 1000),
}


@pytest.mark.parametrize("what", COSTLY)
def test_what_is_made_to_be_costly_is_not(what: str, desk: Desk) -> None:
    name, data = COSTLY[what]
    check(name, desk, data)
