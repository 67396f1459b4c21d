"""Fine-tuning that learns from the dense network as well as from the labels."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from amsc.tasks import logits_of
from amsc.training.steps.step import device_of, forward

__all__ = ["Distillation"]


@dataclass(frozen=True, eq=False)
class Distillation:
    """Soft targets of a teacher (Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2).

    `teacher` is a classifier of the same classes, which is put into eval mode; `weight` is the share of its loss, from
    0 to 1; both networks' logits are divided by `temperature`.
    """

    teacher: nn.Module
    weight: float
    temperature: float

    def __post_init__(self) -> None:
        self.teacher.eval()

    def __call__(self, inputs: Any, output: Any, loss: Tensor) -> Tensor:
        """The labels' `loss` mixed with T^2 times the divergence of the network's softened output from the teacher's.

        The factor keeps the gradient's size whatever the temperature. Shapes: `output` (batch, classes), the rest
        scalars.
        """
        with torch.no_grad():
            taught = forward(self.teacher, inputs, device_of(self.teacher))
            wanted = log_softmax(logits_of(taught) / self.temperature, 1)
        mine = log_softmax(logits_of(output) / self.temperature, 1)
        divergence = kl_div(mine, wanted, reduction="batchmean", log_target=True)
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * divergence
