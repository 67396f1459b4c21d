"""What a path costs beside training the dense network for as many epochs, judging and cutting included; in turns.

    python benchmarks/speed/bench_path_time.py [--epochs 8] [--points 8] [--target 0.4] [--rounds 3]
    python benchmarks/speed/bench_path_time.py --data FOLDER --weights FILE --epochs 3 --points 3 --rounds 1 --fast

Each round trains the dense network and walks both kinds of path from it. Result: benchmarks/results/path_time.json.
"""

import argparse
import copy
import json
import statistics
import time
from pathlib import Path

import torch

from amsc.data import open_data
from amsc.measurement import machine_stamp
from amsc.models import open_model
from amsc.structure import Structure, trace
from amsc.structure.costing import predicted_macs
from amsc.structure.cutting import after_removal
from amsc.surgery import apply_plan, cut_tensors, plan_cut, stand_in, verify
from amsc.tasks import Classification
from amsc.training import OptimizerChoice, Removal, Shrunk, Speed, TrainSettings, WalkSettings, finetune, walk

RESULTS = Path(__file__).parents[1] / "results" / "path_time.json"
TASK = Classification()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--target", type=float, default=0.4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fast", action="store_true", help="bfloat16 and channels last, for all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    is_digits = options.data == "digits"
    source, model = ("digits", "digits_resnet") if is_digits else (f"parquet:{options.data}", "resnet20")
    data = open_data(source, seed=0, batch_size=32 if is_digits else 128, device="cpu", limit=options.limit)
    dense = open_model(model, weights=options.weights)
    if is_digits:
        finetune(dense, data, TASK, TrainSettings("dense", 4, OptimizerChoice(0.1)))
    structure = trace(dense, data.example_inputs())
    target = int(options.target * predicted_macs(structure))
    speed = Speed("bfloat16", channels_last=True) if options.fast else Speed()
    seconds: dict[str, list[float]] = {"dense": [], "proximal": [], "gates": []}
    for _ in range(options.rounds):
        for name, taken in seconds.items():
            start = time.perf_counter()
            if name == "dense":
                finetune(
                    copy.deepcopy(dense),
                    data,
                    TASK,
                    TrainSettings("dense", options.epochs, OptimizerChoice(0.01), speed=speed),
                )
            else:
                settings = WalkSettings(
                    method=name, epochs=options.epochs, points=options.points, weights="fisher", speed=speed
                )
                cut = Cutter(data.example_inputs())
                path = walk(
                    dense, structure, data, TASK, shrink=cut, target_cost=target, settings=settings, stand_in=stand_in
                )
                *_, (last, _, _) = path
                assert last.macs <= target
            taken.append(time.perf_counter() - start)
    ratios = {name: [a / b for a, b in zip(seconds[name], seconds["dense"], strict=True)] for name in seconds}
    for name in ("proximal", "gates"):
        print(f"{name}: {statistics.median(ratios[name]):.2f} of dense training ({min(ratios[name]):.2f} to "
              f"{max(ratios[name]):.2f})")  # fmt: skip
    said = {key: str(value) for key, value in vars(options).items() if key not in ("data", "weights")}
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found[f"{model}, {data.num_batches('train')} steps an epoch"] = {
        "ratios": ratios,
        "seconds": seconds,
        "options": said,
        "machine": dict(machine_stamp()),
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    return 0


class Cutter:
    """Cuts and verifies copies, as a run does."""

    def __init__(self, inputs: torch.Tensor) -> None:
        self.inputs = inputs

    def __call__(self, model: torch.nn.Module, structure: Structure, removal: Removal) -> Shrunk:
        if not removal:
            return Shrunk(copy.deepcopy(model), structure, dict, 0.0)
        plan = plan_cut(structure, channels=removal.channels, blocks=removal.blocks)
        small = apply_plan(model, plan, self.inputs)
        error = verify(model, small, plan, self.inputs)
        after = after_removal(structure, removal.channels, removal.blocks)
        return Shrunk(small, after, lambda tensors: cut_tensors(tensors, plan), error)


if __name__ == "__main__":
    raise SystemExit(main())
