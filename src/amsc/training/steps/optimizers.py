"""The optimisers of all training, and what they remember of each parameter: kept by name, cut with the network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from amsc.errors import TrainingError

__all__ = ["DEFAULT", "Moments", "OptimizerChoice", "cut_moments", "make_optimizer", "moments_of", "restore_moments"]

Moments = Mapping[str, Mapping[str, Tensor]]
"""What an optimiser remembers (momentum, second moments, numbers of steps), by kind and then by parameter name."""


@dataclass(frozen=True)
class OptimizerChoice:
    """Which optimiser: `kind` is "sgd" (with heavy-ball momentum) or "adamw" (with that momentum as its first beta)."""

    learning_rate: float = 0.01
    kind: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4


DEFAULT = OptimizerChoice()


def make_optimizer(model: nn.Module, choice: OptimizerChoice, *, capture: bool = False) -> Optimizer:
    """The optimiser of `choice` over all trained parameters; one for a captured step has its learning rate and whatever
    it counts on the device.

    Raises:
        TrainingError: there are none.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise TrainingError(
            f"all parameters of {type(model).__name__} are frozen (requires_grad=False), so that nothing can be "
            "trained; set requires_grad_(True) on those that may be"
        )
    options: dict[str, Any] = {"lr": choice.learning_rate, "weight_decay": choice.weight_decay}
    if capture:
        options |= {"lr": torch.tensor(choice.learning_rate, device=parameters[0].device), "fused": True}
    if choice.kind == "adamw":
        return torch.optim.AdamW(parameters, betas=(choice.momentum, 0.999), capturable=capture, **options)
    optimizer = torch.optim.SGD(parameters, momentum=choice.momentum, **options)
    if capture and choice.momentum:  # with zeros the first step is like all others
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def moments_of(model: nn.Module, optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
    """A copy of what the optimiser remembers of the model's parameters."""
    found: dict[str, dict[str, Tensor]] = {}
    states: Mapping[Any, Any] = optimizer.state
    for name, parameter in model.named_parameters():
        for kind, value in states.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found.setdefault(kind, {})[name] = value.clone()
    return found


def restore_moments(model: nn.Module, optimizer: Optimizer, moments: Moments) -> None:
    """Give a new optimiser what `moments_of` took; names that the model no longer has are passed over."""
    names = dict(model.named_parameters())
    for kind, values in moments.items():
        for name, value in values.items():
            if name in names:
                counts = not value.ndim and not any(group.get("fused") for group in optimizer.param_groups)
                device = value.device if counts else names[name].device
                optimizer.state[names[name]][kind] = value.to(device, copy=True)
    for parameter in [p for p, state in optimizer.state.items() if "exp_avg" in state and "step" not in state]:
        del optimizer.state[parameter]  # of a bias that a cut has made


def cut_moments(
    moments: Moments, slice_tensors: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
) -> dict[str, dict[str, Tensor]]:
    """The moments of the cut network; numbers of steps and moments of single numbers have no axis to cut."""
    cut = {}
    for kind, values in moments.items():
        sliced = slice_tensors({name: value for name, value in values.items() if value.ndim})
        cut[kind] = sliced | {name: value for name, value in values.items() if not value.ndim}
    return cut
