"""Files of strangers, spoilt at random, given to everything that reads files: nothing but AmscError may come of it.

    python benchmarks/fuzz/fuzz.py [LOADER ...] [--minutes 20] [--cases 1000000] [--seed 0]

Each loader (see tests/fuzz_targets.py; all without a name) gets good files with something changed in them, for so many
minutes or cases. Counted are those that were read and refused, what else came of them, and the memory. Result:
benchmarks/results/fuzz.json. `atheris_loaders.py` does the same, led by what code is reached.
"""

import argparse
import json
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from amsc.measurement import machine_stamp
from fuzz_targets import TARGETS, FuzzTarget, spoilt, survives

RESULT = Path(__file__).parents[1] / "results" / "fuzz.json"
SLOW = 10.0
"""Seconds that no file may take, on a busy machine."""


def fuzzed(target: FuzzTarget, chance: random.Random, seconds: float, cases: int) -> dict[str, Any]:
    """What came of spoilt files."""
    counts, faults, slowest = Counter[str](), Counter[str](), 0.0
    assert survives(target, target.good()), "the good file is not read"
    end = time.monotonic() + seconds
    while time.monotonic() < end and counts.total() < cases:
        content, start = spoilt(target, chance), time.monotonic()
        try:
            counts["read" if survives(target, content) else "refused"] += 1
        except Exception as error:
            counts["failed"] += 1
            faults[f"{type(error).__name__}: {str(error)[:100]}"] += 1
        slowest = max(slowest, time.monotonic() - start)
    return {
        "cases": counts.total(),
        **counts,
        "faults": dict(faults),
        "slowest_seconds": round(slowest, 2),
        "most_memory_mb_so_far": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loaders", nargs="*", metavar="LOADER", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--minutes", type=float, default=20.0, help="for each")
    parser.add_argument("--cases", type=int, default=1_000_000, help="for each, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    known: dict[str, Any] = json.loads(RESULT.read_text())["loaders"] if RESULT.exists() else {}
    bad = []
    for name in options.loaders or TARGETS:
        found = fuzzed(TARGETS[name], random.Random(options.seed), 60 * options.minutes, options.cases)
        known[name] = {"seed": options.seed, "minutes": options.minutes, **found}
        print(name, known[name], flush=True)
        bad += [name] if found["faults"] or found["slowest_seconds"] > SLOW else []
    RESULT.write_text(json.dumps({"machine": dict(machine_stamp()), "loaders": known}, indent=1) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
