"""Time and peak memory of tracing, each network in a fresh process.

    python benchmarks/speed/bench_trace.py [NAME ...]

Seconds are for the first call in the process (median of the processes), so they hold the lazy imports of torch as well.
Memory is the peak resident set of the process less what it held before the call. Result: benchmarks/results/trace.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from amsc import trace
from amsc.measurement import machine_stamp
from amsc.models import open_model

SIZES = {"resnet50": 224}


def measure_here(name: str) -> dict[str, float]:
    model = open_model(name)
    inputs = torch.randn(1, 3, SIZES.get(name, 32), SIZES.get(name, 32))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    structure = trace(model, inputs)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    with torch.no_grad():
        model.eval()(inputs)
    forward = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "forward_seconds": forward,
        "added_peak_mib": (peak - before) / 1024,
        "peak_mib": peak / 1024,
        "groups": len(structure.channels),
        "blocks": len(structure.blocks),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["resnet20", "resnet110", "vgg16", "densenet40", "resnet50"])
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(options.here)))
        return
    results = {}
    for name in options.names:
        command = [sys.executable, __file__, "--here", name]
        runs = [json.loads(subprocess.check_output(command)) for _ in range(options.processes)]
        results[name] = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
        results[name]["seconds_range"] = [round(f(run["seconds"] for run in runs), 3) for f in (min, max)]
        print(name, results[name], flush=True)
    record = {"threads": torch.get_num_threads(), "results": results, "machine": dict(machine_stamp())}
    (Path(__file__).parents[1] / "results" / "trace.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
