"""Networks that are not convolutions: a ViT on the digits and a small language model, at 50 and 25 % of their MACs.

    python benchmarks/evidence/transformers.py [--networks vit language-model] [--seeds 0 1 2] [--shares 0.5 0.25]

The dense network is trained for each seed (the ViT for 40 epochs with AdamW on 1,078 digits, the language model of
examples/language_model.py for 8 on 4,000 texts). Of each small network: the score, its time in turns with the dense one
(eager, batch 64, one thread), the relative error of its outputs, and what is left of its layers; untrained as a scan
cuts it, the same reconstructed, and as the search at equal cost leaves it (`--effort instant`), and that after
fine-tuning for 24 epochs (the language model: 4) with and without distillation, beside the proximal path of as many
epochs, unrepaired, as it was the default before; "inexact" lets the stream and head dimensions go too. No width is
rounded. Finished cells are written at once and skipped when the script is started again. Score: accuracy, or nats per
sign (lower is better). Results: benchmarks/results/transformers.json.
"""

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import amsc
from amsc.data import Data, LoaderData, open_data
from amsc.measurement import count_macs, machine_stamp, time_in_turns
from amsc.surgery import plan_of
from amsc.tasks import Classification, Task
from amsc.training import OptimizerChoice, TrainSettings, evaluate, finetune

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import language_model
from torch.utils.data import DataLoader

RESULTS = Path(__file__).parents[1] / "results" / "transformers.json"
EXAMPLES = 800
"""Training examples, without labels, of each reconstruction."""


class Layer(nn.Module):
    """Attention and a feed-forward part, each behind a LayerNorm. Shapes: (batch, tokens, width), kept."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_hidden = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before_attention(x))
        return x + self.down(nn.functional.gelu(self.up(self.before_hidden(x))))


class ViT(nn.Module):
    """16 patches of 2 x 2 pixels. Shapes: (batch, 1, 8, 8) -> (batch, 10)."""

    def __init__(self, width: int = 64, depth: int = 4, heads: int = 4, hidden: int = 128) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, heads, hidden) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.layers(tokens)).mean(1))


def vit(seed: int) -> tuple[nn.Module, Any, Task, float, float]:
    """Network, data, task, epochs of the dense network and of fine-tuning."""
    return ViT(), open_data("digits", seed=seed, batch_size=32, device="cpu"), Classification(), 40, 24


def sums(seed: int) -> tuple[nn.Module, Any, Task, float, float]:
    train, validation, test = (language_model.texts(count, 3 * seed + k) for k, count in enumerate((4000, 500, 500)))
    chooser = torch.Generator().manual_seed(seed)
    loaders = (
        DataLoader(train, 64, shuffle=True, generator=chooser),
        DataLoader(validation, 250),
        DataLoader(test, 250),
    )
    return language_model.LanguageModel(), LoaderData(*loaders, name="sums"), language_model.NextSign(), 8, 4


NETWORKS: dict[str, Callable[[int], tuple[nn.Module, Any, Task, float, float]]] = {"vit": vit, "language-model": sums}


def main() -> None:
    options = options_of()
    torch.set_num_threads(1)
    found = json.loads(options.results.read_text()) if options.results.exists() else {"runs": []}
    found |= {"examples": EXAMPLES, "machine": dict(machine_stamp())}
    for name in options.networks:
        for seed in options.seeds:
            torch.manual_seed(seed)
            model, data, task, epochs, more = NETWORKS[name](seed)
            finetune(model, data, task, training("dense", epochs, seed))
            for share in options.shares:
                done = {
                    run["way"]
                    for run in found["runs"]
                    if (run["network"], run["seed"], run["share"]) == (name, seed, share)
                }
                skipped = done | set(options.without)
                for way, small in ways(model, data, task, share, seed, more, skipped):
                    key = {"network": name, "seed": seed, "share": share, "way": way}
                    dense = round(evaluate(model, data, "test", task).score, 4)
                    found["runs"].append({**key, "dense": dense, **judged(small, model, data, task)})
                    print(found["runs"][-1], flush=True)
                    options.results.write_text(json.dumps(found, indent=1) + "\n")


def training(phase: str, epochs: float, seed: int, rate: float = 0.003) -> TrainSettings:
    return TrainSettings(phase, epochs, OptimizerChoice(rate, kind="adamw", weight_decay=0.01), seed=seed)


def ways(
    dense: nn.Module, data: Data, task: Task, share: float, seed: int, epochs: float, done: set[str]
) -> Iterator[tuple[str, nn.Module]]:
    """Small networks, each when it is not there yet."""
    example = data.example_inputs()
    same: dict[str, Any] = {
        "seed": seed,
        "optimizer": "adamw",
        "round_to": 1,
        "prices": "fisher",
        "precision": "float32",
        "reconstruction": EXAMPLES,
    }
    same |= {"path_learning_rate": 0.001, "finetune_learning_rate": 0.002, "weight_decay": 0.01}

    def run(**choices: Any) -> nn.Module:
        settings = amsc.Settings(**{**same, **choices})
        target = amsc.Target(macs=share)
        return amsc.compress(copy.deepcopy(dense), example, data, task=task, target=target, settings=settings).model

    if not {"scan, as cut", "scan, reconstructed"} <= done:
        settings = amsc.Settings(round_to=1, prices="fisher")
        found = amsc.scan(copy.deepcopy(dense), example, data, task=task, settings=settings, dimensions="width")
        cut = amsc.cut(dense, amsc.plan_cut(found.structure, **found.removal(macs=share)), example)
        yield "scan, as cut", cut
        yield "scan, reconstructed", amsc.reconstruct(cut, dense, data, examples=EXAMPLES, seed=seed).model
    at_once: dict[str, Any] = {
        "path_points": 1,
        "depth_rule": "equal-cost",
        "path_epochs": 0.0,
        "finetune_epochs": 0.0,
        "distillation": 0.0,
    }
    walk: dict[str, Any] = {
        "path_points": 8,
        "path_epochs": epochs / 2,
        "finetune_epochs": epochs / 2,
        "distillation": 0.0,
    }
    runs: dict[str, dict[str, Any]] = {
        "equal cost": at_once,
        "equal cost, width only": {**at_once, "depth_share": 0.0},
        "equal cost, inexact": {**at_once, "inexact": True},
        "equal cost, width only, inexact": {**at_once, "depth_share": 0.0, "inexact": True},
        "equal cost, fine-tuned": {**at_once, "finetune_epochs": epochs},
        "equal cost, fine-tuned, inexact": {**at_once, "finetune_epochs": epochs, "inexact": True},
        "proximal, fine-tuned": {**walk, "reconstruction": 0, "depth_rule": "one-standard-error"},
        "equal cost, then proximal": {**walk, "depth_rule": "equal-cost"},
    }
    if isinstance(task, Classification):
        runs["equal cost, fine-tuned, distilled"] = {**runs["equal cost, fine-tuned"], "distillation": 0.9}
        runs["proximal, fine-tuned, distilled"] = {**runs["proximal, fine-tuned"], "distillation": 0.9}
    for way, choices in runs.items():
        if way not in done:
            yield way, run(**choices)


def judged(small: nn.Module, dense: nn.Module, data: Data, task: Task) -> dict[str, Any]:
    example = data.example_inputs()
    (inputs,) = example if isinstance(example, tuple) else (example,)
    batch = (inputs[:1].repeat(64, *(1 for _ in inputs.shape[1:])),)
    (whole, _), (part, _) = time_in_turns([dense, small], batch, rounds=30)
    plan = plan_of(small)
    return {
        "score": round(evaluate(small, data, "test", task).score, 4),
        "output_error": round(output_error(small, dense, data), 4),
        "macs_share": round(count_macs(small, example) / count_macs(dense, example), 4),
        "time_share_64": round(part / whole, 3),
        "removed_blocks": list(plan.blocks) if plan else [],
        "linear_layers": {name: list(m.weight.shape) for name, m in small.named_modules() if isinstance(m, nn.Linear)},
    }


@torch.no_grad()
def output_error(small: nn.Module, dense: nn.Module, data: Data) -> float:
    """Squared error of the outputs on the test split, as a share of their variance about the mean over examples."""
    mine, wanted = [], []
    for batch in data.batches("test"):
        mine.append(small.eval()(batch[0]))
        wanted.append(dense.eval()(batch[0]))
    right = torch.cat(wanted)
    return float(((torch.cat(mine) - right) ** 2).mean() / right.var(0, correction=0).mean())


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.5, 0.25])
    parser.add_argument("--without", nargs="+", default=[], metavar="WAY", help="ways that are not run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
