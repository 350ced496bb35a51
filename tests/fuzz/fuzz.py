"""Fuzz the readers of foreign text and pictures: `python tests/fuzz/fuzz.py [READER ...] --seconds 60`.

With atheris (the extra `fuzz`) libFuzzer steers by what code a text reaches; without it the same mutations are drawn at
random. Each reader has a process of its own and so many seconds; what it does not take is kept in --findings. Ends with
one line and, with --json, a file of counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

try:
    import atheris
except ImportError:
    atheris = None
#: This process does the fuzzing; its parent only looks after it.
_ALONE: Final = "--alone" in sys.argv
_WATCHED: Final = ("hotfolder", "tomllib", "PIL")
with atheris.instrument_imports(include=list(_WATCHED)) if atheris and _ALONE else nullcontext():
    import structlog
    from limits import check_problem, cost
    from mutations import nearly_right, sealed
    from readers import READERS, Desk, refusal
    from seeds import SEEDS

MAX_CPU_S: Final = 1.0
MAX_MB: Final = 250.0
_MAX_BYTES: Final = 64 * 1024
_PNG: Final = b"\x89PNG"
_SAY_EVERY_S: Final = 10.0


class Found(Exception):
    """A reader did what it must not."""


def check(name: str, desk: Desk, data: bytes) -> None:
    """Let a reader read.

    Raises:
        Found: it took too long or too much memory.
        AssertionError: it says what nobody can read.
        Exception: whatever it raised that is none of the project's errors.
    """
    with cost() as spent:
        problems = refusal(name, desk, data)
    if spent.cpu_s > MAX_CPU_S or spent.peak_mb > MAX_MB:
        raise Found(f"{spent.cpu_s:.1f} s and {spent.peak_mb:.0f} MB")
    for problem in problems:
        check_problem(problem)


def fuzz_one(name: str, seconds: float, findings: Path, seed: int) -> None:
    """Fuzz one reader in this process; say every few seconds, and at the end, how many texts it was given."""
    warnings.simplefilter("ignore")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    # Its parent removes it: this process ends in the middle of a text.
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    look = _counted(name, Desk(scratch / "work"), findings, seconds)
    if atheris:
        _steered(name, look, seed, scratch / "corpus")
    random = Random(seed)
    while True:
        look(nearly_right(random, SEEDS[name]))


def _counted(name: str, desk: Desk, findings: Path, seconds: float) -> Callable[[bytes], None]:
    """Return what looks at one text, keeps what it finds, and ends the process when the time is up."""
    began = said = time.monotonic()
    tried, kinds = 0, set[str]()

    def look(data: bytes) -> None:
        nonlocal tried, said
        tried += 1
        try:
            check(name, desk, data)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            kind = f"{type(error).__name__}: {str(error)[:80]}"
            if _where(error) not in kinds:
                kinds.add(_where(error))
                findings.mkdir(parents=True, exist_ok=True)
                (findings / f"{name}-{len(kinds)}").write_bytes(data)
                print(f"{name}: found {kind} at {_where(error)}", file=sys.stderr, flush=True)
        now = time.monotonic()
        if now - said > _SAY_EVERY_S or now - began > seconds:
            said = now
            print(json.dumps({"reader": name, "tried": tried, "found": len(kinds)}), flush=True)
        if now - began > seconds:
            # libFuzzer has no other way to be ended from within; nothing is left to be done.
            sys.stdout.flush()
            os._exit(0)

    return look


def _where(error: BaseException) -> str:
    """Return the place in the product where an error came from, so that each is kept once."""
    found, trace = type(error).__name__, error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "/hotfolder/" in file and "/tests/" not in file:
            found = f"{type(error).__name__} {Path(file).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _steered(name: str, look: Callable[[bytes], None], seed: int, corpus: Path) -> None:
    def mutate(data: bytes, size: int, number: int) -> bytes:
        random = Random(number)
        if random.random() < 0.5:
            return nearly_right(random, [data, *SEEDS[name]])[:size]
        made: bytes = atheris.Mutate(data, len(data))
        return sealed(made) if made.startswith(_PNG) else made

    corpus.mkdir()
    for number, text in enumerate(SEEDS[name]):
        (corpus / str(number)).write_bytes(text)
    options = [f"-seed={seed}", f"-max_len={_MAX_BYTES}", "-timeout=60", "-verbosity=0", "-print_final_stats=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], look, custom_mutator=mutate)
    atheris.Fuzz()


def fuzz_all(names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Fuzz each reader in a process of its own, one after the other."""
    counts: dict[str, Any] = {}
    for name in names:
        command = [sys.executable, __file__, name, "--alone", "--seconds", str(options.seconds)]
        command += ["--findings", str(options.findings), "--seed", str(options.seed)]
        with tempfile.TemporaryDirectory(prefix="hotfolder-fuzz-") as scratch:
            environment = {**os.environ, "TMPDIR": scratch}
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        row = rows[-1] if rows else {"reader": name, "tried": 0, "found": 0}
        # A process that did not come to its end was brought down by what it read.
        counts[name] = row | {"died": done.returncode != 0}
        print(f"{name}: {row['tried']} tried, {row['found']} found" + (", DIED" if done.returncode else ""), flush=True)
    return counts


def main() -> int:
    """Return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)}; default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()) / "hotfolder-findings")
    parser.add_argument("--json", type=Path, help="where to write the counts")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.readers) - READERS.keys():
        parser.error(f"no reader {', '.join(sorted(unknown))}")
    if options.alone:
        fuzz_one(options.readers[0], options.seconds, options.findings, options.seed)
    counts = fuzz_all(options.readers or list(READERS), options)
    if options.json:
        options.json.write_text(json.dumps(counts, indent=1) + "\n")
    tried = sum(row["tried"] for row in counts.values())
    found = sum(row["found"] + row["died"] for row in counts.values())
    how = "atheris" if atheris else "drawn mutations"
    print(f"fuzz: {tried} texts for {len(counts)} readers by {how}; {found} findings in {options.findings}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
