"""What rounding does to time: networks at half of their MACs, with any widths and with `round_to="auto"`.

    python benchmarks/evidence/widths.py --data FOLDER [--dense FOLDER] [--networks mobilenet resnet20 resnet56 vit]
        [--cuts width both] [--accuracy]

Each network is cut to half of its MACs: in width alone by a scan ("width"), and as `--effort instant` does, in depth
and width ("both"). Time does not depend on weights, so that networks may be untrained; which widths are left does, so
FOLDER may hold state dicts such as resnet20.pt and vit.pt of trained ones. Timed in turns with the dense network, on
one thread, CPU seconds of the fastest of 30 calls, at batch 1 and 64: eager torch, and onnxruntime on the exported
file. "16" is what auto would be with 16 in place of 8. `--accuracy` judges ResNet-20, cut to some shares of its MACs
with and without rounding and reconstructed untrained, on 5,120 test images. Finished rows are written at once and
skipped when the script is started again. Result: benchmarks/results/widths.json.
"""

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from bench_scan import FirstOf
from torch import Tensor, nn
from transformers import ViT

import amsc
from amsc.data import Data, open_data
from amsc.export import export_onnx
from amsc.measurement import count_macs, machine_stamp
from amsc.models import open_model
from amsc.structure import Rounding
from amsc.structure.costing import predicted_macs
from amsc.surgery import CutPlan
from amsc.tasks import Classification
from amsc.training import evaluate

RESULTS = Path(__file__).parents[1] / "results" / "widths.json"
SHARE = 0.5
BATCHES = (1, 64)
WARM_UP, ROUNDS = 3, 30
ROUNDINGS = {"1": Rounding(), "auto": Rounding(8, gives_way=True)}


class Inverted(nn.Module):
    """An inverted residual (MobileNetV2). Shapes: (batch, width, h, w) -> (batch, out, h / stride, w / stride)."""

    def __init__(self, width: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * width
        self.is_residual = stride == 1 and width == out
        self.layers = nn.Sequential(
            *(nn.Conv2d(width, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()),
            *(nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()),
            *(nn.Conv2d(hidden, out, 1, bias=False), nn.BatchNorm2d(out)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


class MobileNet(nn.Sequential):
    """Inverted residuals for small images, 59 million MACs. Shapes: (batch, 3, 32, 32) -> (batch, 10)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
        width = 16
        for out, count, stride in ((24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1)):
            for number in range(count):
                layers.append(Inverted(width, out, stride if number == 0 else 1, 6))
                width = out
        head = (nn.Conv2d(width, 320, 1), nn.BatchNorm2d(320), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(*layers, *head, nn.Linear(320, 10))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "mobilenet": MobileNet,
    "resnet20": lambda: open_model("resnet20"),
    "resnet56": lambda: open_model("resnet56"),
    "vit": ViT,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--dense", type=Path, help="folder with state dicts")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--cuts", nargs="+", default=["width", "both"], choices=["width", "both"])
    parser.add_argument("--accuracy", action="store_true", help="only judge ResNet-20 with any and rounded widths")
    parser.add_argument("--work", type=Path, default=Path("runs/widths"), help="where the small networks are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept: dict[str, Any] = {"runs": [], "accuracy": []}
    kept |= json.loads(options.results.read_text()) if options.results.exists() else {}
    kept |= {"machine": machine_stamp(), "onnxruntime": onnxruntime.__version__}
    if options.accuracy:
        for row in accuracies(options):
            kept["accuracy"].append(row)
            options.results.write_text(json.dumps(kept, indent=1) + "\n")
        return 0
    runs = kept["runs"]
    for network in options.networks:
        for cut in options.cuts:
            if (network, cut) not in {(run["network"], run["cut"]) for run in runs}:
                runs += rows(network, cut, options)
                options.results.write_text(json.dumps(kept, indent=1) + "\n")
    print(table(runs))
    return 0


def opened(network: str, options: argparse.Namespace) -> nn.Module:
    """The dense network, trained if there are weights."""
    torch.manual_seed(0)
    model = NETWORKS[network]().eval()
    weights = options.dense / f"{network}.pt" if options.dense else None
    if weights is not None and weights.exists():
        model.load_state_dict(torch.load(weights, weights_only=True))
    return model


def accuracies(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Test accuracy (%) of ResNet-20, cut in width and reconstructed without training."""
    model = opened("resnet20", options)
    data = open_data(f"parquet:{options.data}", seed=0, limit=10_000, device="cpu")
    judged = FirstOf(data, {"test": 5_000})
    yield {"network": "resnet20", "accuracy": 100 * evaluate(model, judged, "test", Classification()).score}
    shares = (0.6, 0.45, 0.3)
    found = amsc.scan(model, data.example_inputs(), data, dimensions="width", shares=shares)
    for share in shares:
        for way, rounding in ROUNDINGS.items():
            plan = rounded(found, share, rounding)
            small = amsc.cut(model, plan, data.example_inputs())
            small = amsc.reconstruct(small, model, data, examples=1024).model
            score = 100 * evaluate(small, judged, "test", Classification()).score
            row = {"network": "resnet20", "round_to": way, "share": share, "accuracy": round(score, 2)}
            yield row | {"macs": round(plan.macs / predicted_macs(found.structure), 4)}


def rows(network: str, cut: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The small networks of a cut, timed beside the dense one."""
    model = opened(network, options)
    data = open_data("digits" if network == "vit" else f"parquet:{options.data}", seed=0, limit=5_000, device="cpu")
    kept = options.work / f"{network}-{cut}.pt"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(dict(cut_in_width(model, data) if cut == "width" else compressed(model, data)), kept)
    small = torch.load(kept, weights_only=False)
    models = [model, *small.values()]
    inputs = torch.cat([batch for batch, _ in data.batches("train", seed=0)])[: max(BATCHES)]
    times = {
        f"{runtime}, batch {batch}": timed(models, inputs[:batch])
        for batch in BATCHES
        for runtime, timed in {"eager": eager, "onnxruntime": exported}.items()
    }
    dense = count_macs(model, inputs[:1])
    found = []
    for number, (way, one) in enumerate(small.items(), start=1):
        shares = {name: round(seconds[number] / seconds[0], 3) for name, seconds in times.items()}
        macs = round(count_macs(one, inputs[:1]) / dense, 4)
        found.append({"network": network, "cut": cut, "round_to": way, "macs": macs, "time": shares})
        print(found[-1], flush=True)
    return found


def cut_in_width(model: nn.Module, data: Data) -> Iterator[tuple[str, nn.Module]]:
    """The network without what a scan says, in numbers of channels of each way."""
    found = amsc.scan(model, data.example_inputs(), data, dimensions="width", shares=[SHARE], examples=256)
    for way, rounding in {**ROUNDINGS, "16": Rounding(16, gives_way=True)}.items():
        yield way, amsc.cut(model, rounded(found, SHARE, rounding), data.example_inputs())


def rounded(found: amsc.Scan, share: float, rounding: Rounding) -> CutPlan:
    """What goes for a share of the MACs, in other numbers of channels."""
    removal = found.choice.with_rounding(rounding).removal(int(share * predicted_macs(found.structure)))
    return amsc.plan_cut(found.structure, channels=removal.channels)


def compressed(model: nn.Module, data: Data) -> Iterator[tuple[str, nn.Module]]:
    """The network as it is left without any training, at this cost."""
    for way in (1, "auto"):
        settings = amsc.Settings.of("instant", path_points=1, round_to=way)
        start, example, target = time.process_time(), data.example_inputs(), amsc.Target(macs=SHARE)
        result = amsc.compress(copy.deepcopy(model), example, data, target=target, settings=settings)
        print(f"{way}: {time.process_time() - start:.0f} CPU seconds", result.record.removed_blocks, flush=True)
        yield str(way), result.model


def eager(models: Sequence[nn.Module], inputs: Tensor) -> list[float]:
    """Seconds of each model in torch."""
    with torch.inference_mode():
        return in_turns([partial(model.eval(), inputs) for model in models])


def exported(models: Sequence[nn.Module], inputs: Tensor) -> list[float]:
    """Seconds of each model in onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = []
    with tempfile.TemporaryDirectory() as folder:
        for number, model in enumerate(models):
            path = Path(folder) / f"{number}.onnx"
            export_onnx(model, inputs, path)
            sessions.append(onnxruntime.InferenceSession(str(path), options))
    feed = {sessions[0].get_inputs()[0].name: inputs.numpy()}
    return in_turns([partial(session.run, None, feed) for session in sessions])


def in_turns(calls: Sequence[Callable[[], Any]]) -> list[float]:
    """CPU seconds of the fastest of many calls of each: whatever else the machine does can only slow one down."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(WARM_UP + ROUNDS):
        for call, taken in zip(calls, seconds, strict=True):
            start = time.thread_time()
            call()
            taken.append(time.thread_time() - start)
    return [min(taken[WARM_UP:]) for taken in seconds]


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Times relative to the dense network's."""
    names = list(runs[0]["time"])
    lines = [f"| network | cut | round_to | MACs | {' | '.join(names)} |", "|---" * (4 + len(names)) + "|"]
    for run in runs:
        cells = " | ".join(f"{run['time'][name]:.2f}" for name in names)
        lines.append(f"| {run['network']} | {run['cut']} | {run['round_to']} | {run['macs']:.3f} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
