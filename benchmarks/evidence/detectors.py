"""The examples of other libraries' networks, several seeds: the small network beside the dense one trained for as long.

    pip install ultralytics transformers
    PYTHONPATH=src:examples python benchmarks/evidence/detectors.py yolo detr unet --seeds 0 1

Loss and score are of test data, mean of their examples or batches. Results go to benchmarks/results/detectors.json, one
entry for each example and seed; what is there already is not run again.
"""

import argparse
import importlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from amsc.measurement import machine_stamp
from amsc.storage import write_atomically

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "detectors.json"
PACKAGES = {"yolo": "ultralytics", "detr": "transformers", "unet": "torch"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", nargs="+", choices=tuple(PACKAGES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path[:] = [
        place for place in sys.path if Path(place or ".").resolve() != HERE
    ]  # a file beside this one has the name of a library
    for example in options.examples:
        for seed in options.seeds:
            if not any((known["example"], known["seed"]) == (example, seed) for known in read()):
                found = row(example, seed)
                rows = sorted([*read(), found], key=lambda one: (one["example"], one["seed"]))
                write_atomically(RESULTS, (json.dumps(rows, indent=1) + "\n").encode())
                print(found, flush=True)


def read() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


def row(example: str, seed: int) -> dict[str, Any]:
    start = time.process_time()
    outcome = importlib.import_module(example).main(seed=seed)
    record = outcome.result.record
    return {
        "example": example,
        "seed": seed,
        "macs_share": round(record.after.macs / record.before.macs, 4),
        "parameters": [record.before.parameters, record.after.parameters],
        "blocks_gone": list(record.removed_blocks),
        "loss_and_score": {name: [round(value, 4) for value in pair] for name, pair in outcome.figures.items()},
        "processor_seconds": round(time.process_time() - start),
        "package": f"{PACKAGES[example]} {importlib.metadata.version(PACKAGES[example])}",
        **machine_stamp(),
    }


if __name__ == "__main__":
    main()
