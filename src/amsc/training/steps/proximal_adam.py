"""Adam for a proximal map: one second moment for each leaf, so that the metric is constant on it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
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
        self._penalty.fill_(moments, self._penalty.leaf_means(moments))
        for parameter, before, state in zip(parameters, self._before, states, strict=True):
            if parameter.grad is not None:
                parameter.copy_(self._step(before, state, self._group_of(parameter)))

    def unit_steps(self) -> Tensor:
        """Step size of each leaf for a learning rate of 1, as of the last step; 0 before the first. Shape: leaf."""
        states = [self._optimizer.state.get(parameter, {}) for parameter in self._penalty.parameters()]
        if not all(states):
            return torch.zeros(self._penalty.num_leaves, device=self._penalty.parameters()[0].device)
        roots = [
            _root_of_second_moment(s, self._group_of(p))
            for s, p in zip(states, self._penalty.parameters(), strict=True)
        ]
        return 1 / self._penalty.leaf_means(roots)

    def _step(self, before: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
        """Where Adam goes from `before` with the moments in `state`."""
        decay = group["weight_decay"] if _is_decoupled(self._optimizer, group) else 0.0
        rate, beta = float(group["lr"]), group["betas"][0]
        mean: Tensor = state["exp_avg"] / (1 - beta ** float(state["step"]))
        return before * (1 - rate * decay) - rate * mean / _root_of_second_moment(state, group)

    def _group_of(self, parameter: nn.Parameter) -> Mapping[str, Any]:
        groups = self._optimizer.param_groups
        found: Mapping[str, Any] = next(g for g in groups if any(parameter is one for one in g["params"]))
        return found


def _root_of_second_moment(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    corrected: Tensor = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
    return corrected.sqrt() + float(group["eps"])


def _is_decoupled(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    return isinstance(optimizer, AdamW) or (isinstance(optimizer, Adam) and bool(group.get("decoupled_weight_decay")))
