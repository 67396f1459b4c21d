"""Networks that are good for nothing, before a run or after it, and the words to say so."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import OwnState, borrowed, in_double, look_into, with_tensors
from amsc.data import Data, batch_size, moved, spread_batches
from amsc.errors import AmscWarning, ModelError
from amsc.jobs.stages.job import Job
from amsc.records import PathPoint
from amsc.tasks import Imitation, Task
from amsc.training import device_of, forward, scores_of
from amsc.words.amounts import score_format

__all__ = ["Advantage", "advantage", "warn_of", "words_after", "words_before", "words_of_rejected"]

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

    Of the task imitation a perfect network has the score 0, and the mean answer of the dense one is as far from it as
    its answers vary.

    None where that cannot be said: outputs have no axis of examples, are of several shapes or cannot be copied, or
    examples are too few.
    """
    own = OwnState.of(model)
    try:
        with borrowed(model):
            mean = _mean_output(model, own, data)
            gains = [_gain(task, output, own, mean, target) for output, target in _outputs(model, data)] if mean else []
    except ModelError:  # it cannot be told what the outputs are made of
        return None
    if not gains:
        return None
    gain = in_double(torch.cat(gains)) * (1 if task.higher_is_better else -1)
    if len(gain) < FEWEST or not bool(torch.isfinite(gain).all()):
        return None
    return Advantage(float(gain.mean()), float(gain.std()) / len(gain) ** 0.5)


def words_before(job: Job, score: float, found: Advantage | None) -> tuple[str, ...]:
    """What is wrong with the dense network, of this score."""
    if found is None or not found.is_none:
        return ()
    if isinstance(job.task, Imitation):
        return (
            "the dense network gives every example the same answer: there is nothing to imitate; give it trained "
            "weights (--weights)",
        )
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
    if lost > HALF * at_first.value and isinstance(job.task, Imitation):
        return (
            f"the small network answers little like the dense one: {fell}, and is {show(at_first.value)} where every "
            f"example is given the dense one's mean answer; {cure}",
        )
    if lost > HALF * at_first.value:
        return (f"the small network has lost more than half of what the dense one had learnt: {fell}; {cure}",)
    return ()


def words_of_rejected(job: Job, point: PathPoint) -> tuple[str, ...]:
    """That fine-tuning made the network of its last point worse, if it did."""
    if point.rejected_score is None:
        return ()
    show, epochs = score_format(job.task.name), job.settings.finetune_epochs
    return (
        f"{epochs:g} epochs of fine-tuning took the {job.task.name} on the validation split from {show(point.score)} "
        f"to {show(point.rejected_score)}: the network is given back as it was before; train longer, or "
        f"at a lower finetune_learning_rate than {job.settings.finetune_learning_rate:g}",
    )


def warn_of(words: tuple[str, ...]) -> None:
    """An `AmscWarning` for each."""
    for text in words:
        warnings.warn(text, AmscWarning, stacklevel=3)


def _outputs(model: nn.Module, data: Data) -> Iterator[tuple[Any, Any]]:
    device = device_of(model)
    for inputs, target in spread_batches(data, "validation", BATCHES):
        yield forward(model, inputs, device), moved(target, device)


def _mean_output(model: nn.Module, own: OwnState, data: Data) -> dict[str, Tensor]:
    """The mean over examples of each tensor in the output that is numbers of examples; none where no tensor is, or
    shapes differ between batches."""
    sums: dict[str, Tensor] = {}
    examples = 0
    for output, target in _outputs(model, data):
        count = batch_size(target)
        tensors = look_into(output, own).tensors
        found = {name: in_double(one).sum(0) for name, one in tensors.items() if _is_of_examples(one, count)}
        if not examples:
            sums = found
        elif [(name, one.shape) for name, one in sums.items()] == [(name, one.shape) for name, one in found.items()]:
            sums = {name: one + found[name] for name, one in sums.items()}
        else:
            return {}
        examples += count
    return {name: one / examples for name, one in sums.items()}


def _gain(task: Task, output: Any, own: OwnState, mean: Mapping[str, Tensor], target: Any) -> Tensor:
    """By how much the score of each example is above that of the mean output."""
    tensors = look_into(output, own).tensors
    constant = {name: value.to(tensors[name]).expand_as(tensors[name]).clone() for name, value in mean.items()}
    return scores_of(task, output, target) - scores_of(task, with_tensors(output, constant, own), target)


def _is_of_examples(tensor: Tensor, count: int) -> bool:
    return tensor.is_floating_point() and tensor.ndim > 0 and len(tensor) == count
