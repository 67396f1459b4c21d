"""Assumption 4.1 measured: does Q_d grow with depth, and Q_w with width, over networks that are as good as the teacher?

    python -m benchmarks.theory.assumption [--seeds 0 1 2 3 4]

Networks of several depths and widths are trained on data without noise, each seed with a teacher of its own. Q_d is the
sum of the norms of blocks, Q_w that of hidden units' filters (with weights 1: the blocks are alike). "trained" is what
training ends at, "least" what a weak penalty makes of it afterwards. Result: benchmarks/results/theory_assumption.json.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.theory.fitting import Plan, Sample, mean_errors, train
from benchmarks.theory.networks import Shape, Stack, drawn_stack, structure_of
from benchmarks.theory.stacked_penalty import StackedPenalty
from benchmarks.theory.teachers import NOISE, TEACHER, certified_teachers, sample_of
from torch import Tensor

from amsc.measurement import machine_stamp
from amsc.storage import write_atomically

RESULTS = Path(__file__).parents[1] / "results" / "theory_assumption.json"
DEPTHS, WIDTHS = (2, 3, 4, 5), (2, 3, 4)
WEAK = 1e-3


@dataclass(frozen=True)
class Steps:
    """Of training, and of training with the weak penalty."""

    trained: int = 3000
    least: int = 1000
    certify: int = 1500


def penalties(stack: Stack, seeds: int) -> tuple[Tensor, Tensor]:
    """Q_d and Q_w of each network. Shapes: seed."""
    penalty = _penalty(stack, seeds)
    return penalty.block_norms().view(seeds, -1).sum(1), penalty.leaf_norms().view(seeds, -1).sum(1)


def _penalty(stack: Stack, seeds: int) -> StackedPenalty:
    structure = structure_of(stack.shape)
    return StackedPenalty(stack, structure, weights=("ssl",) * seeds, reference=stack.state())


def rows(sample: Sample, seeds: Sequence[int], steps: Steps) -> Iterator[dict[str, Any]]:
    """One for each depth and width: Q_d, Q_w and the error, in variances of the noise, for each seed."""
    for width in WIDTHS:
        for depth in DEPTHS:
            generator = torch.Generator().manual_seed(seeds[0])
            stack = drawn_stack(Shape(TEACHER.inputs, (width,) * depth), len(seeds), generator)
            train(stack, sample, Plan(steps.trained, weight_decay=0.0))
            yield {"depth": depth, "width": width, "kind": "trained", **_measured(stack, sample)}
            for kind, strengths in (("least Q_d", (WEAK, 0.0)), ("least Q_w", (0.0, WEAK))):
                least = Stack(stack.shape, stack.state(), len(seeds))
                train(least, sample, Plan(steps.least, weight_decay=0.0), _penalty(least, len(seeds)), strengths)
                yield {"depth": depth, "width": width, "kind": kind, **_measured(least, sample)}


def _measured(stack: Stack, sample: Sample) -> dict[str, Any]:
    seeds = stack.replicates
    q_d, q_w = penalties(stack, seeds)
    error, penalty = mean_errors(stack, sample) / NOISE**2, _penalty(stack, seeds)
    blocks = (~penalty.zero_blocks()).view(seeds, -1).sum(1)
    units = (~penalty.zero_channels()).view(seeds, -1).sum(1)
    values = {"q_d": q_d, "q_w": q_w, "error": error.detach()}
    return {name: [round(v, 4) for v in value.tolist()] for name, value in values.items()} | {
        "live_blocks": blocks.tolist(),
        "live_units": units.tolist(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", nargs=3, type=int, default=[Steps.trained, Steps.least, Steps.certify])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    steps = Steps(*options.steps)
    plan = Plan(steps.certify, weight_decay=0.0)
    teachers = certified_teachers(len(options.seeds), options.seeds[0] + 1000, plan)
    sample = sample_of(teachers, 4096, torch.Generator().manual_seed(options.seeds[0]), noise=0.0)
    found: dict[str, Any] = {"machine": dict(machine_stamp()), "seeds": options.seeds, "weak": WEAK, "rows": []}
    for row in rows(sample, options.seeds, steps):
        found["rows"].append(row)
        write_atomically(options.out, (json.dumps(found, indent=1) + "\n").encode())
        print(
            row["width"],
            row["depth"],
            row["kind"],
            row["q_d"],
            row["q_w"],
            row["error"],
            row["live_blocks"],
            flush=True,
        )


if __name__ == "__main__":
    main()
