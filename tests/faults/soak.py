"""A soak: random drops by the ten thousand, the daemon killed at random, and an independent oracle for all of it.

    python tests/faults/soak.py [--drops 100000] [--seed N] [--round 2000] [--kill-every 300] [--json FILE]

A line for each round, and a summary as the last one; the exit code is 1 where the oracle complains.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

_MEMORY = Path("/dev/shm")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drops", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--round", type=int, default=2000)
    parser.add_argument("--kill-every", type=float, default=300.0, help="drops between two kills, on average")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--folder", type=Path, default=_MEMORY, help="where the workspace is made; in memory by default"
    )
    options = parser.parse_args()
    # pytest finds what stands in tests/ by itself.
    sys.path.append(str(Path(__file__).parents[1]))
    from soak_campaign import Soak

    folder = Path(tempfile.mkdtemp(prefix="hotfolder-soak-", dir=options.folder))
    print(f"seed {options.seed}, in {folder}", flush=True)
    try:
        soak = Soak(folder, seed=options.seed, kill_every=options.kill_every)
        result = soak.run(options.drops, options.round)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for size in result.sizes:
        print(f"at {size.drops} drops: {size.rss_kb / 1024:.0f} MB, {size.files} open files, {size.threads} threads")
    print(f"soak: {result}")
    if options.json:
        options.json.write_text(json.dumps(asdict(result), indent=1) + "\n")
    return 1 if result.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
