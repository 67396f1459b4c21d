"""What the network is for: the loss it is trained with, and the score it is judged by."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import functional

from amsc.errors import DataError, ModelError, SettingsError

__all__ = ["Classification", "Task"]


@runtime_checkable
class Task(Protocol):
    """A loss, and a score that is the mean of one value per example (so that scores of two networks on the
    same examples can be compared pairwise)."""

    @property
    def name(self) -> str:
        """What the score is called, such as "accuracy"."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger score is the better one."""

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """The training loss of a batch, a scalar."""

    def per_example(self, output: Any, target: Tensor) -> Tensor:
        """The score of each example, float, shape (batch,); the score of a data set is their mean."""


@dataclass(frozen=True)
class Classification:
    """One class per example: cross-entropy, judged by accuracy (a fraction, 0 to 1).

    Outputs are unnormalised log-probabilities (batch, classes), targets integer labels (batch,).
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
        logits = _checked(output, target, check_range=target.device.type == "cpu")
        return functional.cross_entropy(logits, target, label_smoothing=self.label_smoothing)

    def per_example(self, output: Any, target: Tensor) -> Tensor:
        """1.0 where the largest output is the label, else 0.0; shape (batch,), float32.

        Raises: as `loss`, and the range of the labels is always checked.
        """
        logits = _checked(output, target, check_range=True)
        return (logits.argmax(1) == target).float()


def _checked(output: Any, target: Tensor, *, check_range: bool) -> Tensor:
    """`output`, once it and `target` are known to be logits and their labels."""
    if not isinstance(output, Tensor) or output.dim() != 2 or not output.is_floating_point():
        came = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"classification expects the model to return one float tensor of shape (batch, classes), got {came};"
            " wrap the model so that it returns the logits alone"
        )
    if target.shape != output.shape[:1] or target.is_floating_point() or target.is_complex():
        raise DataError(
            f"classification expects integer labels of shape ({output.shape[0]},), got {target.dtype}"
            f" {tuple(target.shape)}"
        )
    if check_range and target.numel() and not 0 <= int(target.min()) <= int(target.max()) < output.shape[1]:
        raise DataError(
            f"labels must lie between 0 and {output.shape[1] - 1} for a model with {output.shape[1]} outputs, but the"
            f" data have labels from {int(target.min())} to {int(target.max())}; build the model with that many classes"
        )
    return output
