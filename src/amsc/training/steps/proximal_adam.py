"""Adam for a proximal map: one second moment for each leaf, so that the metric is constant on it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from amsc.errors import TrainingError
from amsc.penalty import Penalty

__all__ = ["SharedSecondMoment"]


class SharedSecondMoment:
    """Repeats Adam's step of the penalised parameters with the mean second moment of each leaf in the place of each
    coordinate's own.

    Leaf map and root map compose to the proximal map only if the metric is constant on every leaf (see
    `amsc.penalty.prox`); a proximal map after Adam's own step, whose metric is another in every coordinate, solves no
    problem at all. The mean is kept as the state, so that it is the running mean of the leaf's squared gradients.

    Args:
        optimizer: torch.optim.Adam or AdamW over the penalised parameters.
        penalty: the leaves.

    Raises:
        TrainingError: it is neither, or uses amsgrad or maximize.
    """

    def __init__(self, optimizer: Optimizer, penalty: Penalty) -> None:
        self._optimizer, self._penalty = optimizer, penalty
        self._before: list[Tensor] = []
        for group in optimizer.param_groups:
            if group.get("amsgrad") or group.get("maximize"):
                raise TrainingError("ProximalStep takes Adam and AdamW without amsgrad and maximize")

    def remember(self) -> None:
        """To be called before the optimiser's step."""
        self._before = [parameter.detach().clone() for parameter in self._penalty.parameters()]

    @torch.no_grad()
    def repeat(self) -> None:
        """To be called after it: the parameters and their second moments as a shared second moment makes them."""
        parameters = self._penalty.parameters()
        states = [self._optimizer.state.get(parameter, {}) for parameter in parameters]
        if not all(states):
            missing = next(p for p, state in zip(parameters, states, strict=True) if not state)
            raise TrainingError(
                f"a penalised parameter of shape {tuple(missing.shape)} has no gradient: the loss does not depend on "
                "it, and Adam has no step size for it. Keep it out of the penalty, or train with SGD"
            )
        moments = [state["exp_avg_sq"] for state in states]
        rows = self._penalty.groups.rows
        rows.fill_(moments, rows.means(moments))
        options = self._options()
        for parameter, before, state in zip(parameters, self._before, states, strict=True):
            if parameter.grad is not None:
                parameter.copy_(self._step(before, state, options[id(parameter)]))

    def unit_steps(self) -> Tensor:
        """Step size of each leaf for a learning rate of 1, as of the last step; 0 before the first. Shape: leaf."""
        groups = self._penalty.groups
        states = [self._optimizer.state.get(parameter, {}) for parameter in groups.parameters]
        if not all(states):
            return torch.zeros_like(groups.scales)
        options = self._options()
        pairs = zip(states, groups.parameters, strict=True)
        return 1 / groups.rows.means([_root_of_second_moment(state, options[id(p)]) for state, p in pairs])

    def _step(self, before: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
        """Where Adam goes from `before` with the moments in `state`."""
        decay = group["weight_decay"] if _is_decoupled(self._optimizer, group) else 0.0
        rate, beta = group["lr"], group["betas"][0]
        mean: Tensor = state["exp_avg"] / (1 - beta ** _count(state["step"]))
        stepped: Tensor = before * (1 - rate * decay) - rate * mean / _root_of_second_moment(state, group)
        return stepped

    def _options(self) -> dict[int, Mapping[str, Any]]:
        """The options of each parameter, by its id. Made anew for each step: loading a state replaces the groups."""
        return {id(parameter): group for group in self._optimizer.param_groups for parameter in group["params"]}


def _root_of_second_moment(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    corrected: Tensor = state["exp_avg_sq"] / (1 - group["betas"][1] ** _count(state["step"]))
    return corrected.sqrt() + float(group["eps"])


def _count(step: Tensor | float) -> Any:
    """The number of steps: as a tensor where it lies on an accelerator (a fused or capturable optimiser's), since to
    look at it would make the processor wait."""
    return step if isinstance(step, Tensor) and step.device.type != "cpu" else float(step)


def _is_decoupled(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    return isinstance(optimizer, AdamW) or (isinstance(optimizer, Adam) and bool(group.get("decoupled_weight_decay")))
