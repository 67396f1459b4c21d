"""Time of the trial cuts (`cuttable`) against that of tracing, each network in a fresh process.

    pip install timm "segmentation-models-pytorch" ultralytics scipy opencv-python-headless
    python benchmarks/speed/bench_trial.py [--networks NAME ...] [--before PATH/TO/ANOTHER/CHECKOUT/src]

Seconds are of the processor (time.process_time), which a busy machine changes less than those of the clock. The trace
is the first call in the process; it holds lazy imports, of ours (`import amsc` imports nothing) more than of an older
checkout, so judge by `trial_per_warm_trace`, which is against a second trace. Where another checkout is given its trial
is timed as well, in processes in turn with ours. What the trial leaves is recorded beside the times: groups that cannot
go after all, and blocks that stay. Result: benchmarks/results/trial.json, in which networks that are not run keep what
is there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

RESULT = Path(__file__).parents[1] / "results" / "trial.json"
SOURCE = Path(__file__).parents[2] / "src"
# Without a torchvision that fits this torch the packages can be imported all the same.
LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def detector(name: str, kind: str = "DetectionModel") -> tuple[nn.Module, int]:
    from ultralytics.nn import tasks

    return getattr(tasks, kind)(f"{name}.yaml", verbose=False), 64


def segmentation(kind: str, encoder: str) -> tuple[nn.Module, int]:
    import segmentation_models_pytorch

    return getattr(segmentation_models_pytorch, kind)(encoder, encoder_weights=None), 64


def classifier(name: str) -> tuple[nn.Module, int]:
    import timm

    return timm.create_model(name), 224


NETWORKS: dict[str, Callable[[], tuple[nn.Module, int]]] = {
    "yolov10n": lambda: detector("yolov10n"),
    "yolo12n": lambda: detector("yolo12n"),
    "rtdetr-l": lambda: detector("rtdetr-l", "RTDETRDetectionModel"),
    "unet-densenet121": lambda: segmentation("Unet", "densenet121"),
    "unetplusplus-resnet18": lambda: segmentation("UnetPlusPlus", "resnet18"),
    "swin-tiny": lambda: classifier("swin_tiny_patch4_window7_224"),
    "resnet50": lambda: classifier("resnet50"),
}


def declare_missing_operators() -> None:
    for schema in SCHEMAS:
        name = schema.partition("(")[0]
        if not hasattr(torch.ops.torchvision, name):
            LIBRARY.define(schema)


def timed(step: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = step()
    return result, time.process_time() - start


def measure_here(name: str) -> dict[str, Any]:
    import amsc

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    declare_missing_operators()
    model, size = NETWORKS[name]()
    model, inputs = model.eval(), torch.randn(1, 3, size, size)
    structure, trace_seconds = timed(lambda: amsc.trace(model, inputs))
    _, warm_trace_seconds = timed(lambda: amsc.trace(model, inputs))
    found, trial_seconds = timed(lambda: amsc.cuttable(model, structure, inputs))
    left = {block.name for block in found.blocks}
    exact = {group.name for group in structure.channels if group.exact}
    return {
        "trace_seconds": trace_seconds,
        "warm_trace_seconds": warm_trace_seconds,
        "trial_seconds": trial_seconds,
        "groups": len(structure.channels),
        "blocks": len(structure.blocks),
        "pairs": len(structure.channels) - len(found.channels),
        "cannot_go": [group.name for group in found.channels if group.name in exact and not group.exact],
        "blocks_that_stay": [block.name for block in structure.blocks if block.name not in left],
    }


def run(name: str, source: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--here", name]
    output = subprocess.check_output(command, env={**os.environ, "PYTHONPATH": str(source)}, text=True)
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    medians = {key: round(statistics.median(r[key] for r in runs), 3) for key in runs[0] if key.endswith("seconds")}
    ratios = [one["trial_seconds"] / one["trace_seconds"] for one in runs]
    counts = {key: value for key, value in runs[0].items() if not key.endswith("seconds")}
    return {
        **medians,
        "trial_per_trace": round(statistics.median(ratios), 2),
        "trial_per_trace_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "trial_per_warm_trace": round(statistics.median(r["trial_seconds"] / r["warm_trace_seconds"] for r in runs), 2),
        **counts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--before", type=Path, help="the src folder of another checkout")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(options.here)))
        return
    from amsc.measurement import machine_stamp

    results = json.loads(RESULT.read_text())["results"] if RESULT.exists() else {}
    for name in options.networks:
        sides = {"after": SOURCE} | ({"before": options.before} if options.before else {})
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(options.processes):
            for side, source in sides.items():
                runs[side].append(run(name, source))
        results[name] = {side: {"processes": len(own), **summary(own)} for side, own in runs.items()}
        for side, own in results[name].items():
            print(
                name, side, {key: value for key, value in own.items() if "trace" in key or "trial" in key}, flush=True
            )
        record = {"results": results, "machine": dict(machine_stamp())}
        RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
