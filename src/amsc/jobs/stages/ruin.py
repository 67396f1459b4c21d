"""Networks that are good for nothing, before a run or after it, and the words to say so."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import borrowed, in_double
from amsc.data import Data, batch_size, moved, spread_batches
from amsc.errors import AmscWarning
from amsc.jobs.stages.job import Job
from amsc.tasks import Task
from amsc.training import device_of, forward, scores_of
from amsc.words.amounts import score_format

__all__ = ["Advantage", "advantage", "warn_of", "words_after", "words_before"]

BATCHES = 20
"""Validation batches on which networks are compared with a constant answer."""
FEWEST = 8
"""With fewer examples nothing is said."""
SIGNIFICANT = 2
"""Standard errors by which a network must be better than a constant answer."""
HALF = 0.5
"""A network that loses more than this share of what it was better by is said to have lost it."""


@dataclass(frozen=True)
class Advantage:
    """How much better the mean score is than that of a constant answer, and the standard error of that."""

    value: float
    error: float

    @property
    def is_none(self) -> bool:
        """Whether it may be chance."""
        return self.value <= SIGNIFICANT * self.error


def advantage(model: nn.Module, data: Data, task: Task) -> Advantage | None:
    """By how much `model` is better than giving every validation example its mean output: of a network that learnt
    nothing, and of one that gives the mean, by nothing.

    None where that cannot be said: outputs have no axis of examples or are of several shapes, or there are too few.
    """
    with borrowed(model):
        mean = _mean_output(model, data)
        if mean is None:
            return None
        gains = [_gain(task, output, mean, target) for output, target in _outputs(model, data)]
    gain = in_double(torch.cat(gains)) * (1 if task.higher_is_better else -1)
    if len(gain) < FEWEST or not bool(torch.isfinite(gain).all()):
        return None
    return Advantage(float(gain.mean()), float(gain.std()) / len(gain) ** 0.5)


def words_before(job: Job, score: float, found: Advantage | None) -> tuple[str, ...]:
    """What is wrong with the dense network, of this score."""
    if found is None or not found.is_none:
        return ()
    return (
        f"the dense network is no better than one that gives every example the same answer ({job.task.name} "
        f"{score_format(job.task.name)(score)}): what is removed from it means nothing; give it trained weights "
        "(--weights), or train it first (dense_epochs)",
    )


def words_after(job: Job, before: float, after: float, model: nn.Module) -> tuple[str, ...]:
    """What is wrong with the small network, or already was with the dense one, by their scores."""
    at_first = advantage(job.dense, job.data, job.task)
    wrong = words_before(job, before, at_first)
    if wrong or at_first is None:
        return wrong
    at_last, show = advantage(model, job.data, job.task), score_format(job.task.name)
    fell = f"the {job.task.name} went from {show(before)} to {show(after)}"
    lost = (before - after) * (1 if job.task.higher_is_better else -1)
    cure = "lower the learning rates, train longer, or allow more"
    if at_last is not None and at_last.is_none:
        return (f"the small network is no better than one that gives every example the same answer: {fell}; {cure}",)
    if lost > HALF * at_first.value:
        return (f"the small network has lost more than half of what the dense one had learnt: {fell}; {cure}",)
    return ()


def warn_of(words: tuple[str, ...]) -> None:
    """An `AmscWarning` for each."""
    for text in words:
        warnings.warn(text, AmscWarning, stacklevel=3)


def _outputs(model: nn.Module, data: Data) -> Iterator[tuple[Any, Any]]:
    device = device_of(model)
    for inputs, target in spread_batches(data, "validation", BATCHES):
        yield forward(model, inputs, device), moved(target, device)


def _mean_output(model: nn.Module, data: Data) -> list[Tensor | None] | None:
    """The mean over examples of each leaf of the output; None for leaves that are no numbers of examples, and
    altogether where no leaf is, or shapes differ between batches."""
    sums: list[Tensor | None] = []
    examples = 0
    for output, target in _outputs(model, data):
        count = batch_size(target)
        found = [
            in_double(leaf).sum(0) if _is_of_examples(leaf, count) else None for leaf in pytree.tree_leaves(output)
        ]
        if not sums:
            sums = found
        elif [_shape(leaf) for leaf in sums] == [_shape(leaf) for leaf in found]:
            sums = [a if a is None or b is None else a + b for a, b in zip(sums, found, strict=True)]
        else:
            return None
        examples += count
    if all(leaf is None for leaf in sums):
        return None
    return [None if leaf is None else leaf / examples for leaf in sums]


def _gain(task: Task, output: Any, mean: list[Tensor | None], target: Any) -> Tensor:
    """By how much the score of each example is above that of the mean output."""
    leaves, layout = pytree.tree_flatten(output)
    constant = [
        leaf if value is None else value.to(leaf).expand_as(leaf).clone()
        for leaf, value in zip(leaves, mean, strict=True)
    ]
    return scores_of(task, output, target) - scores_of(task, pytree.tree_unflatten(constant, layout), target)


def _is_of_examples(leaf: Any, count: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim > 0 and len(leaf) == count


def _shape(leaf: Tensor | None) -> tuple[int, ...] | None:
    return None if leaf is None else tuple(leaf.shape)
