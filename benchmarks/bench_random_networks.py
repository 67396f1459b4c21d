"""Cut equals masked on many random networks: `python benchmarks/bench_random_networks.py [--networks 5000]`.

Each network (tests/random_networks.py) loses random channels and blocks; the run fails if one cut network differs from
the masked one by more than 1e-5 relative, or costs other than predicted. Result:
benchmarks/results/random_networks.json.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests")]

from amsc.errors import AmscError  # noqa: E402
from amsc.measure import count_macs, machine_stamp  # noqa: E402
from amsc.structure import trace  # noqa: E402
from amsc.surgery import cut, plan_cut  # noqa: E402
from random_networks import SIZE, genes_of, random_network  # noqa: E402
from removals import random_removal  # noqa: E402


def check(seed: int, counts: Counter[str]) -> None:
    """One network; counts what was removed and pinned, raises AmscError where cut and masked differ."""
    torch.manual_seed(seed)
    network, inputs = random_network(genes_of(seed)), torch.randn(2, 3, SIZE, SIZE)
    structure = trace(network, inputs)
    channels, blocks = random_removal(structure, seed)
    counts["networks"] += 1
    counts["groups that are not exact"] += sum(not group.exact for group in structure.channels)
    counts["channels removed"] += sum(map(len, channels.values()))
    counts["blocks removed"] += len(blocks)
    if not channels and not blocks:
        counts["networks with nothing to remove (all pinned, with the reason)"] += 1
        return
    plan = plan_cut(structure, channels=channels, blocks=blocks)
    if count_macs(cut(network, plan, inputs), inputs) != plan.macs:
        raise AmscError(f"predicted {plan.macs} MACs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=5000)
    number = parser.parse_args().networks
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    wrong: dict[int, str] = {}
    start = time.perf_counter()
    for seed in range(number):
        try:
            check(seed, counts)
        except AmscError as error:
            wrong[seed] = str(error)[:300]
            print(f"seed {seed}: {error}", flush=True)
        if seed % 500 == 499:
            print(f"{seed + 1} networks, {len(wrong)} wrong, {time.perf_counter() - start:.0f} s", flush=True)
    seconds = round(time.perf_counter() - start, 1)
    result = {"counts": counts, "wrong": wrong, "seconds": seconds, "machine": dict(machine_stamp())}
    (HERE / "results" / "random_networks.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
