"""What the network is for: the loss it is trained with, and the score it is judged by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from amsc.borrowing import look_into
from amsc.errors import DataError, ModelError, SettingsError
from amsc.imitation import Imitation
from amsc.models.function import call_function
from amsc.words.nearest import nearest

__all__ = [
    "TASKS",
    "Classification",
    "DrawingTask",
    "Imitation",
    "Regression",
    "Segmentation",
    "Task",
    "logits_of",
    "open_task",
]


@runtime_checkable
class Task(Protocol):
    """A loss, and a score that is the mean of one value per example (so that scores of two networks on the
    same examples can be compared pairwise). `output` is what the model returns, `target` what the data give beside the
    inputs: a tensor, or more (see `amsc.data.batch`)."""

    @property
    def name(self) -> str:
        """What the score is called, such as "accuracy"."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger score is the better one."""

    def loss(self, output: Any, target: Any) -> Tensor:
        """The training loss of a batch, a scalar."""

    def per_example(self, output: Any, target: Any) -> Tensor:
        """The score of each example, float, shape (batch,); the score of a data set is their mean."""


@runtime_checkable
class DrawingTask(Task, Protocol):
    """A task whose loss is least at the dense network, so that derivatives there are zero and say nothing."""

    def drawn(self, target: Any, generator: torch.Generator) -> Any:
        """Targets whose losses have derivatives of which the mean squares are the curvature of the loss. `generator`
        lives on the CPU."""


def logits_of(output: Any) -> Any:
    """The logits in what a network returned: their own tensor, or that of this name in an object with several, such as
    the models of transformers return."""
    return output if isinstance(output, Tensor) else getattr(output, "logits", output)


@dataclass(frozen=True)
class Classification:
    """One class per example: cross-entropy, judged by accuracy (a fraction, 0 to 1).

    Outputs are unnormalised log-probabilities (batch, classes), alone or as `logits` of an object; targets integer
    labels (batch,).
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise SettingsError(f"label_smoothing must be at least 0 and below 1, not {self.label_smoothing}")

    @property
    def name(self) -> str:
        """The score is the accuracy."""
        return "accuracy"

    @property
    def higher_is_better(self) -> bool:
        """Yes."""
        return True

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Mean cross-entropy of the batch, a scalar.

        Raises:
            ModelError: `output` is not a tensor of shape (batch, classes).
            DataError: the labels are not integers of shape (batch,) between 0 and classes - 1 (the range is not
                checked on an accelerator, where looking would make every step wait; `per_example` checks it there).
        """
        logits = _checked(output, target, check_range=_is_on_cpu(target))
        return functional.cross_entropy(logits, target.long(), label_smoothing=self.label_smoothing)

    def per_example(self, output: Any, target: Tensor) -> Tensor:
        """1.0 where the largest output is the label, else 0.0; shape (batch,), float32.

        Raises: as `loss`, and the range of the labels is always checked.
        """
        logits = _checked(output, target, check_range=True)
        return (logits.argmax(1) == target).float()


def _checked(output: Any, target: Tensor, *, check_range: bool) -> Tensor:
    """The logits, once they and `target` are known to be logits and their labels."""
    output = logits_of(output)
    if not isinstance(output, Tensor) or output.dim() != 2 or not output.is_floating_point():
        raise ModelError(
            f"classification expects the model to return one float tensor of shape (batch, classes), got"
            f" {_came(output)}; wrap the model so that it returns the logits alone"
        )
    is_whole = isinstance(target, Tensor) and not target.is_floating_point() and not target.is_complex()
    if not is_whole or target.shape != output.shape[:1]:
        raise DataError(f"classification expects integer labels of shape ({output.shape[0]},), got {_came(target)}")
    if check_range and target.numel() and not 0 <= int(target.min()) <= int(target.max()) < output.shape[1]:
        raise DataError(
            f"labels must lie between 0 and {output.shape[1] - 1} for a model with {output.shape[1]} outputs, but the"
            f" data have labels from {int(target.min())} to {int(target.max())}; build the model with that many classes"
        )
    return output


@dataclass(frozen=True)
class Regression:
    """Real numbers to each example: mean squared error, judged by the same.

    Outputs and targets are float tensors of one shape, (batch, ...).
    """

    @property
    def name(self) -> str:
        """The score is the mean squared error."""
        return "mean squared error"

    @property
    def higher_is_better(self) -> bool:
        """No."""
        return False

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Mean squared error of the batch, a scalar.

        Raises:
            ModelError: `output` is not a float tensor.
            DataError: the targets are not floats of the same shape.
        """
        return self.per_example(output, target).mean()

    def per_example(self, output: Any, target: Tensor) -> Tensor:
        """Mean squared error of each example, shape (batch,).

        Raises: as `loss`.
        """
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise ModelError(f"regression expects the model to return one float tensor, got {_came(output)}")
        if not isinstance(target, Tensor) or target.shape != output.shape or not target.is_floating_point():
            raise DataError(
                f"regression expects float targets of the output's shape {tuple(output.shape)}, got {_came(target)}"
            )
        return (output - target).square().reshape(len(output), -1).mean(1)


@dataclass(frozen=True)
class Segmentation:
    """A class to each pixel: cross-entropy, judged by the mean over images of the mean intersection over union of the
    classes that are in the image or were found there (0 to 1).

    Outputs are unnormalised log-probabilities (batch, classes, ...), alone or as `logits` of an object; targets integer
    labels (batch, ...), of which `ignored` ones count for nothing.
    """

    ignored: int = 255

    @property
    def name(self) -> str:
        """The score is the mean intersection over union."""
        return "mean IoU"

    @property
    def higher_is_better(self) -> bool:
        """Yes."""
        return True

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Mean cross-entropy of the pixels that count, a scalar; 0 where none does.

        Raises:
            ModelError: `output` is not a float tensor with an axis of classes.
            DataError: the targets are not integers of the remaining shape, or a label is no class (the range is not
                looked at on an accelerator; `per_example` does).
        """
        output = self._checked(output, target, check_range=_is_on_cpu(target))
        counted = (target != self.ignored).sum().clamp(min=1)
        return functional.cross_entropy(output, target.long(), ignore_index=self.ignored, reduction="sum") / counted

    def per_example(self, output: Any, target: Tensor) -> Tensor:
        """Mean intersection over union of each image, shape (batch,); 1 for an image of which nothing counts.

        Raises: as `loss`.
        """
        output = self._checked(output, target, check_range=True)
        classes = output.shape[1]
        counted = (target != self.ignored).flatten(1)
        found = functional.one_hot(output.argmax(1).flatten(1), classes) * counted[:, :, None]
        wanted = functional.one_hot(target.long().flatten(1).where(counted, 0), classes) * counted[:, :, None]
        both, either = (found * wanted).sum(1), (found + wanted).clamp(max=1).sum(1)
        present = either > 0
        shares = (both / either.clamp(min=1)).where(present, 0.0)
        scores = shares.sum(1) / present.sum(1).clamp(min=1)
        return scores.where(present.any(1), 1.0).float()

    def _checked(self, output: Any, target: Tensor, *, check_range: bool) -> Tensor:
        output = logits_of(output)
        if not isinstance(output, Tensor) or output.dim() < 3 or not output.is_floating_point():
            raise ModelError(
                "segmentation expects the model to return one float tensor of shape (batch, classes, ...), got "
                f"{_came(output)}; wrap the model so that it returns the logits alone, in the size of the labels"
            )
        wanted = (len(output), *output.shape[2:])
        if not isinstance(target, Tensor) or target.shape != wanted or target.is_floating_point():
            raise DataError(f"segmentation expects integer labels of shape {wanted}, got {_came(target)}")
        labels = target[target != self.ignored] if check_range else target[:0]
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < output.shape[1]:
            raise DataError(
                f"labels must lie between 0 and {output.shape[1] - 1} or be {self.ignored} (ignored), but the data "
                f"have labels from {int(labels.min())} to {int(labels.max())}"
            )
        return output


def _is_on_cpu(target: Any) -> bool:
    return isinstance(target, Tensor) and target.device.type == "cpu"


def _came(value: Any) -> str:
    """What a value is, and the tensors in it."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    tensors = look_into(value).tensors
    named = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in [*tensors.items()][:4])
    return f"{type(value).__name__}{f' with {named}' if named else ''}"


TASKS: Mapping[str, Callable[[], Task]] = {
    "classification": Classification,
    "regression": Regression,
    "segmentation": Segmentation,
    "imitation": Imitation,
}


def open_task(name: str) -> Task:
    """A built-in task by its name, or what a function of the user's, `package.module:function`, returns.

    Raises:
        SettingsError: there is no such task or function, or it returns something else.
    """
    if name in TASKS:
        return TASKS[name]()
    if ":" not in name:
        expected = f"{', '.join(TASKS)} or package.module:function"
        raise SettingsError(f"task: expected {expected}, got {name!r}{nearest(name, TASKS)}")
    task = call_function(name, SettingsError)
    if not isinstance(task, Task):
        raise SettingsError(
            f"task: {name} returned a {type(task).__name__}, which has no name, higher_is_better, loss and per_example"
        )
    return task
