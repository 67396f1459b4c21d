"""Whether a batch can be taken apart into examples: of its inputs, and of what the network returns."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import OwnState, look_into
from amsc.data import batch_size, may_be_split, moved, some_examples, some_rows
from amsc.errors import ModelError
from amsc.tasks import Task
from amsc.training.steps.evaluation import scores_of
from amsc.training.steps.step import device_of, forward

__all__ = ["can_split_inputs", "can_split_outputs", "output_rows"]

TRIED = 3
"""Examples that are looked at alone, beside all the others together."""
TOLERANCE = 1e-3
"""Largest relative difference that counts as rounding: kernels sum in other orders for other sizes of a batch."""


@torch.no_grad()
def can_split_inputs(model: nn.Module, task: Task, inputs: Any, target: Any) -> bool:
    """Whether the first axis of every input counts examples, and each example's output is its own.

    Shapes can say no (see `may_be_split`), not yes: of a square of time and batch both axes fit. So a few examples are
    run without the others, and the others without them; outputs and scores must be those of the whole batch.
    """
    count = batch_size(target)
    if not may_be_split(inputs, target):
        return False
    if count == 1:
        return True
    device, first, state = device_of(model), min(TRIED, count // 2), OwnState.of(model)
    target = moved(target, device)
    whole = forward(model, inputs, device)
    scores = scores_of(task, whole, target)
    for rows in (slice(0, first), slice(first, count)):
        try:
            part = forward(model, some_rows(inputs, rows), device)
            own = scores_of(task, part, some_examples(target, rows))
        except Exception:  # with part of another axis a forward fails in many ways
            return False
        if not _is_part(part, whole, rows, count, state) or not _agree(own, scores[rows]):
            return False
    return True


@torch.no_grad()
def can_split_outputs(task: Task, output: Any, target: Any) -> bool:
    """Whether the first axis of the outputs counts examples: the task gives a few of them alone the scores that they
    have among all. `target` lies where the output does."""
    count = batch_size(target)
    if not any(_is_by_example(leaf, count) for leaf in pytree.tree_leaves(output)):
        return False
    scores, rows = scores_of(task, output, target), range(min(TRIED, count))
    try:
        alone = [
            scores_of(task, output_rows(output, slice(i, i + 1), count), some_examples(target, slice(i, i + 1)))
            for i in rows
        ]
    except Exception:  # what is no example's output fails in many ways as well
        return False
    return _agree(torch.cat(alone), scores[: len(rows)])


def output_rows(output: Any, rows: slice, count: int) -> Any:
    """What the network said of some examples of `count`."""
    return pytree.tree_map_only(Tensor, lambda leaf: leaf[rows] if _is_by_example(leaf, count) else leaf, output)


def _is_part(part: Any, whole: Any, rows: slice, count: int, state: OwnState) -> bool:
    """Whether `part` is what `whole` has for these examples, and there is something that they have."""
    try:
        pairs = list(
            zip(look_into(part, state).tensors.values(), look_into(whole, state).tensors.values(), strict=True)
        )
    except ModelError:  # nobody can tell what it is made of
        return False
    own = [(one, every[rows]) for one, every in pairs if _is_by_example(every, count)]
    return bool(own) and all(_agree(one, expected) for one, expected in own)


def _agree(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return bool((one == other).all())
    one, other = one.float(), other.float()
    return bool(((one - other).abs() <= TOLERANCE * other.abs().amax().clamp(min=1e-12)).all()) if one.numel() else True


def _is_by_example(leaf: Any, count: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == count
