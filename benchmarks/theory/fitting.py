"""Training all networks of a stack at once, with amsc's `ProximalStep`."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from benchmarks.theory.networks import Stack
from torch import Tensor
from torch.optim import SGD

from amsc import Penalty, ProximalStep

__all__ = ["Plan", "Sample", "mean_errors", "per_example", "train"]


@dataclass(frozen=True)
class Sample:
    """Examples of every replicate. Shapes: (replicate, input, example), both."""

    x: Tensor
    y: Tensor

    def part(self, start: int, stop: int) -> "Sample":
        """Some of the examples."""
        return Sample(self.x[..., start:stop].contiguous(), self.y[..., start:stop].contiguous())

    def __len__(self) -> int:
        return self.x.shape[-1]


@dataclass(frozen=True)
class Plan:
    """How to train: so many steps of SGD, of which the last `settling` share follow a cosine to zero."""

    steps: int
    rate: float = 0.3
    batch: int = 128
    momentum: float = 0.9
    weight_decay: float = 1e-4  # as amsc trains by default
    settling: float = 0.5

    def rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        left = (self.steps - step) / max(1.0, self.settling * self.steps)
        return self.rate * (0.5 - 0.5 * math.cos(math.pi * min(1.0, left)))


def train(
    stack: Stack,
    sample: Sample,
    plan: Plan,
    penalty: Penalty | None = None,
    strengths: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Train every network on its own examples, at strengths (depth, width) that do not change."""
    sgd = SGD(stack.parameters(), lr=plan.rate, momentum=plan.momentum, weight_decay=plan.weight_decay)
    depth, width = strengths
    stepper = sgd if penalty is None else ProximalStep(sgd, penalty, depth_strength=depth, width_strength=width)
    batches = _batches(sample, plan.batch)
    for step in range(plan.steps):
        sgd.param_groups[0]["lr"] = plan.rate_at(step)
        batch = next(batches)
        sgd.zero_grad()
        (stack(batch.x) - batch.y).square().mean((1, 2)).sum().backward()
        stepper.step()


def _batches(sample: Sample, size: int) -> Iterator[Sample]:
    """One after the other, again and again; examples are independent, so that they need no shuffling."""
    count = max(1, len(sample) // size)
    parts = [sample.part(i * size, (i + 1) * size if i + 1 < count else len(sample)) for i in range(count)]
    return itertools.cycle(parts)


@torch.no_grad()
def per_example(stack: Stack, sample: Sample) -> Tensor:
    """Squared error of each example, mean over outputs. Shape: (replicate, example)."""
    errors: Tensor = stack(sample.x) - sample.y
    return errors.square().mean(1)


def mean_errors(stack: Stack, sample: Sample) -> Tensor:
    """Mean squared error of each replicate. Shape: replicate."""
    return per_example(stack, sample).mean(1)
