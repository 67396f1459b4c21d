"""How much faster two processes of one thread are than one: scan, reconstruction and walk of a ResNet-20, in turns.

    python benchmarks/speed/bench_processes.py [--processes 2] [--rounds 3]

Images are random, since times do not depend on what they show. Each round starts one process and then several, which
do the same; what starting them takes is not counted. Result: benchmarks/results/processes.json.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

import amsc
from amsc.data import LoaderData
from amsc.measurement import machine_stamp
from amsc.models import open_model
from amsc.parallel import all_together, joined

RESULTS = Path(__file__).parents[1] / "results" / "processes.json"
EXAMPLES, BATCH = 512, 64


def measure(out: Path) -> None:
    """What a process does: each work once, timed from where all processes have come together."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(EXAMPLES, 3, 32, 32, generator=generator)
    kinds = torch.randint(10, (EXAMPLES,), generator=generator)
    loader = DataLoader(TensorDataset(images, kinds), batch_size=BATCH)
    data = LoaderData(loader, loader, loader, name="noise")
    torch.manual_seed(0)
    model, example = open_model("resnet20").eval(), data.example_inputs()
    walk = amsc.Settings(
        path_epochs=6, path_points=2, finetune_epochs=0, reconstruction=0, depth_rule="share", precision="float32"
    )
    structure = amsc.trace(model, example)
    channels = {group.name: range(group.size // 2) for group in structure.channels if group.exact}
    plan = amsc.plan_cut(structure, channels=channels)
    small = amsc.cut(model, plan)
    works: dict[str, Callable[[], object]] = {
        "scan": lambda: amsc.scan(model, example, data, shares=(0.6, 0.4), progress=False),
        "reconstruction": lambda: amsc.reconstruct(small, model, data),
        "walk": lambda: amsc.compress(model, example, data, target="macs=60%", settings=walk, progress=False),
    }
    with joined(), all_together() as here:
        found = {}
        for name, work in works.items():
            start = time.perf_counter()
            work()
            found[name] = time.perf_counter() - start
        if here.is_first:
            out.write_text(json.dumps(found))


def started(processes: int) -> dict[str, float]:
    """The seconds of each work in so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds.json"
        ranks = [
            {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)} for rank in range(processes)
        ]
        call = [sys.executable, __file__, "--measure", str(out)]
        running = [
            subprocess.Popen(call, env={**os.environ, **place, **rank}, stderr=subprocess.DEVNULL) for rank in ranks
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            raise RuntimeError("a process failed; call the script with --measure FILE to see why")
        seconds: dict[str, float] = json.loads(out.read_text())
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", type=Path, help="what each process is called with")
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    rounds = [(started(1), started(options.processes)) for _ in range(options.rounds)]
    found = {
        name: {
            "alone": [round(alone[name], 2) for alone, _ in rounds],
            "together": [round(together[name], 2) for _, together in rounds],
            "times_as_fast": round(statistics.median(alone[name] / together[name] for alone, together in rounds), 2),
        }
        for name in rounds[0][0]
    }
    RESULTS.write_text(
        json.dumps({"processes": options.processes, **found, "machine": machine_stamp()}, indent=1) + "\n"
    )
    for name, row in found.items():
        print(f"{name:15} {row}")


if __name__ == "__main__":
    main()
