"""The families of coverage.py, each cut twice with its own number of channels in every group, and verified.

    PYTHONPATH=src python benchmarks/coverage/at_random.py [--every 3] [--only "hf/*bert*"] [--seconds 300]

coverage.py cuts all groups alike; here none is, so that groups which must go together and are offered apart show. Needs
transformers and timm. Prints a line for each family; exit code 1 if one fails.
"""

import argparse
import fnmatch
import random
import time

import torch
from families import NAMES, build, declare_torchvision

from amsc.errors import AmscError
from amsc.structure import trace
from amsc.surgery import cut, cuttable, plan_cut


def cut_at_random(name: str, seeds: int) -> int:
    """How many groups could be cut."""
    model, inputs = build(name)
    structure = cuttable(model, trace(model, inputs), inputs)
    groups = [group for group in structure.channels if group.exact and group.size > 1]
    for seed in range(seeds):
        chooser = random.Random(seed)
        counts = {group.name: chooser.randint(0, group.size - 1) for group in groups if chooser.random() < 0.7}
        channels = {
            group.name: sorted(chooser.sample(range(group.size), counts[group.name]))
            for group in groups
            if counts.get(group.name)
        }
        if channels:
            cut(model, plan_cut(structure, channels=channels), inputs)
    return len(groups)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", default="*")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    library = declare_torchvision()
    end, failed = time.monotonic() + options.seconds, 0
    for name in [name for name in NAMES if fnmatch.fnmatch(name, options.only)][:: options.every]:
        if time.monotonic() > end:
            break
        try:
            print(f"{name}: ok, {cut_at_random(name, options.seeds)} groups", flush=True)
        except AmscError as error:
            failed += 1
            print(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", flush=True)
    del library
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
