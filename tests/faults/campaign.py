"""Every kill at a system call of every scenario, kills during recoveries, and errors; with a table of what was hit.

    export PYTHONPATH=tests
    python tests/faults/campaign.py kills [--double 2000] [--scenarios drop,cancel] [--jobs 4] [--out build/faults]
    python tests/faults/campaign.py errors [--share 0.1] ...
    python tests/faults/campaign.py kills --engine tiny --scenarios drop,review,take --share 0.05 --double 0 --jobs 1

What it finds is written to OUT/kills.jsonl, errors.jsonl or kills-tiny.jsonl as it goes: stopped, it goes on from
there. OUT/kills.json and so on hold the counts. The exit code is 1 where a promise was broken.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cases import Campaign, sample
from scenarios import SCENARIOS
from syscalls import table
from triallog import TrialLog
from trials import Crew, Task

#: Enumerations at most: the last of them finds no new pair of call and role; threads take turns otherwise each time.
_MAX_PASSES = 6
_TELL_EVERY_S = 10.0


def main() -> int:
    options = _parse()
    scenarios = [one for one in SCENARIOS if not options.scenarios or one.name in options.scenarios.split(",")]
    options.name = options.what if options.engine == "painted" else f"{options.what}-{options.engine}"
    log = TrialLog(options.out / f"{options.name}.jsonl")
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="hotfolder-faults-", dir=options.scratch) as folder,
        Crew(Path(folder), options.jobs, options.engine) as crew,
    ):
        campaign = Campaign(crew, scenarios)
        _run_passes(campaign, log, options)
        if options.what == "kills":
            left = options.double - sum(bool(row.again and row.hit) for row in log.rows)
            chance = random.Random(f"{options.seed} {left}")
            _run(crew, campaign.double_kills(max(0, left), chance), log, "double kills")
    return _report(log, options, time.monotonic() - started)


def _report(log: TrialLog, options: argparse.Namespace, seconds: float) -> int:
    summary = {**log.summary(), "seconds": round(seconds)}
    tables = {"pairs": log.pairs(), "again_pairs": log.again_pairs()}
    rows = {name: [[*pair, count] for pair, count in sorted(pairs.items())] for name, pairs in tables.items()}
    (options.out / f"{options.name}.json").write_text(json.dumps({**summary, **rows}, indent=1) + "\n")
    print(table(log.pairs()))
    for row in log.last:
        if row.problem:
            print(f"\nBROKEN: {row.scenario}, {row.fault}, {row.again or ''}\n{row.problem}")
    print(f"{options.name}: {json.dumps(summary)}")
    return 1 if summary["broken"] else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "errors"])
    parser.add_argument("--double", type=int, default=2000, help="kills during recoveries")
    parser.add_argument("--share", type=float, default=1.0, help="of all points, drawn with the seed")
    parser.add_argument("--engine", choices=["painted", "tiny"], default="painted", help="tiny: real models")
    parser.add_argument("--scenarios", default="", help="names, by comma; default: all")
    parser.add_argument("--jobs", type=int, default=4, help="daemons at once; two for each core")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/faults"))
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"), help="where the workspaces are")
    return parser.parse_args()


def _run_passes(campaign: Campaign, log: TrialLog, options: argparse.Namespace) -> None:
    """Try everything that is found, until another look at the scenarios finds no new pair of call and role."""
    known: set[tuple[str, str, str]] = set()
    for number in range(1, _MAX_PASSES + 1):
        campaign.enumerate()
        new = campaign.pairs - known
        known |= new
        cases = campaign.kills() if options.what == "kills" else campaign.errors()
        if options.share < 1:
            cases = sample(cases, round(options.share * len(cases)), random.Random(options.seed))
        done = log.done
        tasks = [case.task() for case in cases if case.key not in done]
        print(f"pass {number}: {len(cases)} cases, {len(tasks)} to do; {len(new)} new pairs", flush=True)
        _run(campaign.crew, tasks, log, f"pass {number}")
        if not new:
            return


def _run(crew: Crew, tasks: Sequence[Task], log: TrialLog, what: str) -> None:
    began = told = time.monotonic()
    for number, trial in enumerate(crew.each(tasks), 1):
        log.add(trial)
        if trial.problem:
            print(f"BROKEN: {trial.scenario}, {trial.fault}, {trial.again or ''}", flush=True)
        now = time.monotonic()
        if now - told > _TELL_EVERY_S:
            told = now
            rate = number / (now - began) * 60
            print(f"{what}: {number} trials of {len(tasks)} tasks, {rate:.0f} a minute", flush=True)


if __name__ == "__main__":
    sys.exit(main())
