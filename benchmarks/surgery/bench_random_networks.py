"""Cut equals masked on many random networks.

    python benchmarks/surgery/bench_random_networks.py [--count 10000] [--seed 0]

Each network (tests/random_networks.py: convolutions, attention, computed weights) loses random channels and blocks of
what `cuttable` leaves; the run fails if one cut network differs from the masked one by more than 1e-5 relative, or
costs other than predicted. Result: benchmarks/results/random_networks.json.
"""

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1] / "tests")]

from amsc.errors import AmscError  # noqa: E402
from amsc.measurement import count_macs, machine_stamp  # noqa: E402
from amsc.structure import trace  # noqa: E402
from amsc.surgery import cut, cuttable, plan_cut  # noqa: E402
from random_networks import SIZE, costs_are_exact, genes_of, random_network  # noqa: E402
from removals import random_removal  # noqa: E402


def check(seed: int, counts: Counter[str]) -> None:
    """One network; counts what was removed and pinned, raises AmscError where cut and masked differ."""
    torch.manual_seed(seed)
    network, inputs = random_network(genes_of(seed)), torch.randn(2, 3, SIZE, SIZE)
    structure = cuttable(network, trace(network, inputs), inputs)
    channels, blocks = random_removal(structure, seed)
    counts["networks"] += 1
    counts["groups"] += len(structure.channels)
    counts["groups that are not exact"] += sum(not group.exact for group in structure.channels)
    counts["channels removed"] += sum(map(len, channels.values()))
    counts["blocks removed"] += len(blocks)
    if not channels and not blocks:
        counts["networks with nothing to remove (all pinned, with the reason)"] += 1
        return
    plan = plan_cut(structure, channels=channels, blocks=blocks)
    left = count_macs(cut(network, plan, inputs), inputs)
    counts["networks that cost less than predicted (linear attention, einsum over one feature)"] += left < plan.macs
    if left > plan.macs or (left < plan.macs and costs_are_exact(network, structure, channels)):
        raise AmscError(f"predicted {plan.macs} MACs, left {left}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="how many networks (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first (default: 0)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    wrong: dict[int, str] = {}
    start = time.perf_counter()
    for number in range(options.count):
        seed = options.seed + number
        try:
            check(seed, counts)
        except Exception as error:  # an error of any kind is one too many
            wrong[seed] = f"{type(error).__name__}: {error}"[:300]
            print(f"seed {seed}: {wrong[seed]}", flush=True)
        if number % 500 == 499:
            print(f"{number + 1} networks, {len(wrong)} wrong, {time.perf_counter() - start:.0f} s", flush=True)
    seconds = round(time.perf_counter() - start, 1)
    result = {"counts": counts, "wrong": wrong, "seconds": seconds, "machine": dict(machine_stamp())}
    if options.count >= 5000:  # a shorter run is for looking
        (HERE.parent / "results" / "random_networks.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    print(f"{options.count} networks, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
