"""Measure metrics, print one JSON line each, and add them to a file.

A verdict is refused where the machine was too busy, see `bench.machine`; a metric for which something is not installed
is skipped. The exit code tells only whether one of them broke.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.harness import Bench, Metric, Skipped
from bench.machine import Moment
from bench.metrics import METRICS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("metrics", nargs="*", metavar="METRIC", help="by default all of them")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: whether it works, no more")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="add the lines to this file too")
    parser.add_argument("--disk", type=Path, default=Path("build/bench"), help="a folder on the disk to be measured")
    options = parser.parse_args()
    if options.list:
        print(*METRICS, sep="\n")
        return 0
    if unknown := [name for name in options.metrics if name not in METRICS]:
        parser.error(f"there is no metric {unknown[0]}; --list names them")
    bench = Bench(root=options.disk.resolve(), quick=options.quick)
    # One for all daemons of this process: else each would leave a folder behind for the next.
    os.environ.setdefault("HF_HOME", str(bench.root / "models"))
    broken = False
    for name in options.metrics or METRICS:
        for line in measured(name, METRICS[name], bench):
            broken = broken or line["verdict"] == "broken"
            print(json.dumps(line), flush=True)
            if options.out is not None:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
    return int(broken)


def measured(name: str, metric: Metric, bench: Bench) -> Iterator[dict[str, Any]]:
    """Yield the lines of a metric, each with the load since the one before."""
    before = Moment.now()
    try:
        for finding in metric(bench):
            now = Moment.now()
            yield finding.line(before.until(now)) | ({"quick": True} if bench.quick else {})
            before = now
    except Skipped as why:
        yield {"metric": name, "verdict": "skipped", "why": str(why)}
    except Exception as error:  # noqa: BLE001 - one that breaks must not take the others along
        traceback.print_exc()
        yield {"metric": name, "verdict": "broken", "why": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    sys.exit(main())
