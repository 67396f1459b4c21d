"""Depth first, then width, along strengths that grow: many estimators side by side in one stack.

Each strength starts from the network of the one before and minimises loss and penalty; what is zero is cut, as amsc
cuts it. A copy then trains on without penalty ("settled"), as amsc's path settles its pieces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from benchmarks.theory.fitting import Plan, Sample, per_example, train
from benchmarks.theory.networks import Stack, downers, uppers
from benchmarks.theory.stacked_penalty import StackedPenalty
from benchmarks.theory.teachers import STUDENT
from torch import Tensor

from amsc.structure import Structure

__all__ = ["Point", "Scene", "State", "cut", "live_units", "penalised", "picked", "points_along"]

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Scene:
    """What a stack of estimators starts from.

    Attributes:
        sample: the examples that are trained on.
        validation: those that rules look at.
        dense: the trained dense networks, theta_hat.
        weights: the family of weights in each replicate.
        plan: how each strength is trained.
        settle: how the copy is trained without penalty.
    """

    structure: Structure
    sample: Sample
    validation: Sample
    dense: State
    weights: tuple[str, ...]
    plan: Plan
    settle: Plan

    def part(self, replicates: Sequence[int], weights: Sequence[str] | None = None) -> "Scene":
        """Some of the replicates, each as often as it is named; with other families of weights if they are given."""
        chosen = torch.tensor(replicates)
        sample, validation = (Sample(s.x[chosen], s.y[chosen]) for s in (self.sample, self.validation))
        return replace(
            self,
            sample=sample,
            validation=validation,
            dense=picked(self.dense, len(self.weights), replicates),
            weights=tuple(self.weights[i] for i in replicates) if weights is None else tuple(weights),
        )


@dataclass(frozen=True)
class Point:
    """The networks at one strength. Shapes: replicate first in all.

    Attributes:
        strength: of all replicates.
        state: their weights, shrunk.
        units: live hidden units of each block, 0 in one that is gone. Shape: (replicate, block).
        shrunk: validation loss of each example. Shape: (replicate, example).
        settled: the same of the copy that has trained without penalty.
        fit: mean squared error of that on the training examples.
    """

    strength: float
    state: State
    units: Tensor
    shrunk: Tensor
    settled: Tensor
    fit: Tensor

    @property
    def depth(self) -> Tensor:
        """Live blocks. Shape: replicate."""
        return (self.units > 0).sum(1)


def points_along(
    scene: Scene, strengths: Sequence[float], *, start: State | None = None, held: Tensor | None = None
) -> list[Point]:
    """A point without (more) penalty, and one for each strength of depth; or of width, with the depth strengths `held`.

    Shape of `held`: replicate."""
    stack = Stack(STUDENT, scene.dense if start is None else start, len(scene.weights))
    points = [_point(scene, stack, 0.0)]
    for strength in strengths:
        penalised(scene, stack, strength, held)
        points.append(_point(scene, stack, strength))
    return points


def penalised(scene: Scene, stack: Stack, strength: float | Tensor, held: Tensor | None = None) -> None:
    """Train the stack at a strength (of depth, or of width if depth is `held`), and cut what is zero."""
    factor = strength if isinstance(strength, Tensor) else torch.full((stack.replicates,), strength)
    depth, width = (factor, None) if held is None else (held, factor)
    penalty = StackedPenalty(
        stack, scene.structure, weights=scene.weights, reference=scene.dense, depth=depth, width=width
    )
    train(stack, scene.sample, scene.plan, penalty, (1.0, 0.0 if held is None else 1.0))
    cut(stack)


def live_units(stack: Stack) -> Tensor:
    """Hidden units of each block of which the filter is other than zero. Shape: (replicate, block)."""
    filters = (up.weight.view(stack.replicates, -1, stack.shape.inputs) for up in uppers(stack))
    return torch.stack([(each != 0).any(2).sum(1) for each in filters], 1)


@torch.no_grad()
def cut(stack: Stack) -> None:
    """Make zero what reads a zero unit, and zero units' biases: from then on training leaves them zero."""
    for up, down in zip(uppers(stack), downers(stack), strict=True):
        live = (up.weight != 0).any(1)
        up.bias.mul_(live)
        down.weight.view(stack.replicates, stack.shape.inputs, -1).mul_(live.view(stack.replicates, 1, -1))


def _point(scene: Scene, stack: Stack, strength: float) -> Point:
    settled = Stack(stack.shape, stack.state(), stack.replicates)
    train(settled, scene.sample, scene.settle)
    return Point(
        strength,
        stack.state(),
        live_units(stack),
        per_example(stack, scene.validation),
        per_example(settled, scene.validation),
        per_example(settled, scene.sample).mean(1),
    )


def picked(state: State, count: int, replicates: Sequence[int]) -> dict[str, Tensor]:
    """The weights of some of `count` replicates."""
    chosen = torch.tensor(replicates)
    return {name: t.view(count, -1, *t.shape[1:])[chosen].flatten(0, 1) for name, t in state.items()}
