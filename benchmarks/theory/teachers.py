"""Networks whose depth and width are known, and data that they make.

A teacher has two blocks of two hidden units. It is certified: no network of one block, and none of two blocks of which
one has a single unit, comes near to it on data without noise, however wide the rest is within the student.
"""

from functools import cache

import torch
from benchmarks.theory.fitting import Plan, Sample, mean_errors, train
from benchmarks.theory.networks import Shape, Stack, drawn_stack
from torch import Tensor

__all__ = ["NOISE", "STUDENT", "TEACHER", "certified_teachers", "sample_of"]

TEACHER = Shape(4, (2, 2))
STUDENT = Shape(4, (5, 3, 5, 3))
SMALLER = (Shape(4, (5,)), Shape(4, (1, 5)), Shape(4, (5, 1)))
NOISE = 0.1
GAP = 0.25
"""A smaller network's mean squared error, in variances of the noise, is at least this."""


def drawn_teachers(count: int, generator: torch.Generator) -> Stack:
    """Two blocks; W has rows at right angles of length 2, V columns at right angles of length 1, b is of size 1/2."""
    states = []
    for _ in range(count):
        state = {}
        for block, units in enumerate(TEACHER.units):
            up, down = (_orthonormal(TEACHER.inputs, units, generator) for _ in range(2))
            state[f"blocks.{block}.up.weight"] = 2.0 * up.T
            state[f"blocks.{block}.up.bias"] = 0.5 * torch.randn(units, generator=generator)
            state[f"blocks.{block}.down.weight"] = down
        states.append(state)
    return Stack.of(TEACHER, states)


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    found: Tensor = torch.linalg.qr(torch.randn(rows, columns, generator=generator))[0]
    return found


@torch.no_grad()
def sample_of(teachers: Stack, count: int, generator: torch.Generator, noise: float = NOISE) -> Sample:
    """So many examples for each teacher; inputs are standard normal."""
    shape = (teachers.replicates, teachers.shape.inputs, count)
    x = torch.randn(shape, generator=generator)
    return Sample(x, teachers(x) + noise * torch.randn(shape, generator=generator))


def smaller_errors(teachers: Stack, generator: torch.Generator, plan: Plan, restarts: int) -> Tensor:
    """The least squared error, without noise, of the best of some trained networks that are smaller than the teacher.

    Shape: teacher."""
    sample = sample_of(teachers, 2048, generator, noise=0.0)
    best = torch.full((teachers.replicates,), float("inf"))
    for shape in SMALLER * restarts:
        stack = drawn_stack(shape, teachers.replicates, generator)
        train(stack, sample, plan)
        best = torch.minimum(best, mean_errors(stack, sample))
    return best


@cache
def certified_teachers(count: int, seed: int, plan: Plan, restarts: int = 2) -> Stack:
    """The first so many teachers of a seed that no smaller network comes near to.

    Networks that are trained to be near may be trained badly, so that this is evidence and no proof."""
    generator = torch.Generator().manual_seed(seed)
    drawn = drawn_teachers(3 * count, generator)
    is_far = smaller_errors(drawn, generator, plan, restarts) >= GAP * NOISE**2
    states = [drawn.state_of(i) for i, far in enumerate(is_far.tolist()) if far]
    assert len(states) >= count, f"{len(states)} of {3 * count} teachers are certified; draw more"
    return Stack.of(TEACHER, states[:count])
