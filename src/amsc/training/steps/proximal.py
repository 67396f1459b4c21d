"""`ProximalStep`: the user's optimiser, followed by the proximal map with the step size that it really took."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from amsc.errors import TrainingError
from amsc.penalty import Groups, Penalty, check_strength, zero_leaves
from amsc.training.steps.proximal_adam import SharedSecondMoment

__all__ = ["ProximalStep", "accumulated_step_size"]


def accumulated_step_size(group: Mapping[str, Any]) -> float:
    """lr * (1 - dampening) / (1 - momentum): how far one gradient moves the parameters of an SGD `group` in the end.

    Heavy ball, b <- momentum * b + (1 - dampening) * gradient, adds up that many gradients, Nesterov's form as well.
    A proximal map with lr alone would solve the problem for a penalty 1 / (1 - momentum) times too weak.
    """
    return float(group["lr"] * (1 - group["dampening"]) / (1 - group["momentum"]))


class ProximalStep(Optimizer):
    """An optimiser whose `step` is that of `optimizer` followed by the proximal map of `penalty`: its zeros are exact.

    Takes over `optimizer`; use this object in its place, and make schedulers from it. Two things change: scales and
    shifts of penalised normalisations move to parameter groups without weight decay; and the momentum of a group is
    cleared when it becomes zero (not while it stays so: there it gathers the gradient that may bring the group back).

    A captured step (see `CapturedStep`) needs learning rates that are tensors, one for all groups; the
    strengths then are read from the device as well, so that they may change between replays.

    Where somebody else calls the optimiser, `before_step` and `after_step` around each of its steps do the same.

    Args:
        optimizer: torch.optim.SGD, Adam or AdamW over all parameters of the penalised model. Learning rates may change
            at any time. With Adam all coordinates of a leaf share one second moment (see `SharedSecondMoment`).
        penalty: the groups. Their parameters must all be trained, with one learning rate and momentum.
        depth_strength: lambda0, for blocks; may be set at any time.
        width_strength: lambda1, for channels; may be set at any time.
        regroup: whether parameter groups may be split; without it weight decay stays where it is.

    Raises:
        TrainingError: `optimizer` is another one, lacks a penalised parameter, or has a scheduler already.
        SettingsError: a strength is negative or not finite.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        penalty: Penalty,
        *,
        depth_strength: float = 0.0,
        width_strength: float = 0.0,
        regroup: bool = True,
    ) -> None:
        # Optimizer.__init__ is not called: groups, state and defaults stay those of the wrapped optimiser.
        if not isinstance(optimizer, SGD | Adam):
            raise TrainingError(
                f"ProximalStep needs torch.optim.SGD, Adam or AdamW, got {type(optimizer).__name__}, whose step sizes "
                "it does not know; the proximal map with others would be wrong"
            )
        self.optimizer = optimizer
        self.penalty = penalty
        _check_trained(optimizer, penalty.groups)
        if regroup:
            _move_out_of_weight_decay(optimizer, penalty.groups.normalised_parameters)
        self._were_zero: Tensor | None = None
        self._penalised_groups = _groups_with(optimizer, penalty.parameters())
        self._shared = SharedSecondMoment(optimizer, penalty) if isinstance(optimizer, Adam) else None
        self._strengths = {"depth_strength": 0.0, "width_strength": 0.0}
        rates = [optimizer.param_groups[index]["lr"] for index in self._penalised_groups]
        is_captured = bool(rates) and isinstance(rates[0], Tensor)
        self._on_device = {name: torch.zeros_like(rates[0]) for name in self._strengths} if is_captured else {}
        self.depth_strength, self.width_strength = depth_strength, width_strength

    @property
    def depth_strength(self) -> float:
        """lambda0, for blocks."""
        return self._strengths["depth_strength"]

    @depth_strength.setter
    def depth_strength(self, value: float) -> None:
        self._set_strength("depth_strength", value)

    @property
    def width_strength(self) -> float:
        """lambda1, for channels."""
        return self._strengths["width_strength"]

    @width_strength.setter
    def width_strength(self, value: float) -> None:
        self._set_strength("width_strength", value)

    @property
    def variant(self) -> bool:
        """Whether there is a proximal map: a step that was captured with it holds for steps with it alone."""
        return bool(self._penalised_groups) and max(self._strengths.values()) > 0

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The parameter groups of the wrapped optimiser."""
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The state of the wrapped optimiser."""
        return self.optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The defaults of the wrapped optimiser."""
        return self.optimizer.defaults

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of the wrapped optimiser, then the proximal map.

        Raises:
            TrainingError: the penalised parameters have different learning rates, momenta or dampenings.
        """
        self.before_step()
        loss: float | None = self.optimizer.step(closure)
        self.after_step()
        return loss

    def before_step(self) -> None:
        """To be called before a step of the wrapped optimiser that `step` does not take."""
        if not self.variant:
            return
        has_momentum = any(_momentum(self.param_groups[index]) for index in self._penalised_groups)
        self._were_zero = zero_leaves(self.penalty.groups) if has_momentum else None
        if self._shared is not None:
            self._shared.remember()

    def after_step(self) -> None:
        """To be called after it: the proximal map. Strengths must be as they were before the step.

        Raises: as `step`.
        """
        if not self.variant:
            return
        if self._shared is not None:
            self._shared.repeat()
        strengths: Mapping[str, float | Tensor] = self._on_device or self._strengths
        self.penalty.prox_(self.step_size(), **strengths)
        if self._were_zero is not None:
            groups = self.penalty.groups
            stays = ~zero_leaves(groups) | self._were_zero
            groups.rows.multiply_(self._momenta(), stays.float())

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the wrapped optimiser's."""
        self.optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As the wrapped optimiser's; the group keeps its weight decay."""
        self.optimizer.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimiser's state and the two strengths."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "depth_strength": self.depth_strength,
            "width_strength": self.width_strength,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """What `state_dict` gave back.

        Raises:
            TrainingError: it comes from another kind of optimiser, or from other parameter groups.
        """
        missing = {"optimizer", "depth_strength", "width_strength"} - set(state_dict)
        if missing:
            raise TrainingError(
                f"expected the state of a ProximalStep; {', '.join(sorted(missing))} is missing from it"
            )
        try:
            self.optimizer.load_state_dict(state_dict["optimizer"])
        except ValueError as error:
            raise TrainingError(f"the saved optimiser state is of another model or penalty: {error}") from error
        self.depth_strength = state_dict["depth_strength"]
        self.width_strength = state_dict["width_strength"]

    def rate(self) -> float | Tensor:
        """The learning rate of the penalised parameters, now.

        Raises:
            TrainingError: their parameter groups differ.
        """
        rates = [self.param_groups[index]["lr"] for index in self._penalised_groups]
        if isinstance(rates[0], Tensor) and all(rate is rates[0] for rate in rates):
            return rates[0]
        return self._one_of([float(rate) for rate in rates])

    def step_size(self) -> float | Tensor:
        """How far one gradient moves the penalised parameters in the end, now; see `unit_step`.

        Raises:
            TrainingError: their parameter groups differ.
        """
        return self.rate() * self.unit_step()

    def unit_step(self) -> float | Tensor:
        """How far one gradient moves the penalised parameters in the end, for a learning rate of 1: one number for SGD,
        one for each leaf for Adam (0 before its first step).

        Raises:
            TrainingError: their parameter groups differ.
        """
        if self._shared is not None:
            return self._shared.unit_steps()
        return self._one_of(
            [accumulated_step_size({**self.param_groups[i], "lr": 1.0}) for i in self._penalised_groups]
        )

    def _set_strength(self, name: str, value: float) -> None:
        check_strength(name, value)
        self._strengths[name] = value
        if name in self._on_device:
            self._on_device[name].fill_(value)

    def _one_of(self, sizes: list[float]) -> float:
        if len(set(sizes)) > 1:
            raise TrainingError(
                "the penalised parameters need one step size lr * (1 - dampening) / (1 - momentum); their parameter "
                f"groups have {sorted(set(sizes))}"
            )
        return sizes[0]

    def _momenta(self) -> list[Tensor]:
        """Momentum of every penalised parameter; a stand-in where there is none yet."""
        kind = "momentum_buffer" if self._shared is None else "exp_avg"
        buffers = [self.state[p].get(kind) for p in self.penalty.parameters()]
        pairs = zip(buffers, self.penalty.parameters(), strict=True)
        return [torch.zeros_like(p) if buffer is None else buffer for buffer, p in pairs]


def _momentum(group: Mapping[str, Any]) -> float:
    return float(group["momentum"] if "momentum" in group else group["betas"][0])


def _check_trained(optimizer: Optimizer, groups: Groups) -> None:
    held = {p for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    missing = [name for name, p in zip(groups.names, groups.parameters, strict=True) if p not in held]
    if missing:
        raise TrainingError(
            f"{len(missing)} of {len(groups.parameters)} penalised parameters (first: {missing[0]}) are frozen or not "
            "in the optimizer; give it all of them, with requires_grad=True, or leave what is frozen out of the "
            f"penalty: Penalty(select(structure, keep=[{missing[0]!r}, ...]), model)"
        )


def _move_out_of_weight_decay(optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
    """Split every decayed parameter group in two, so that `parameters` have no weight decay and all else as before."""
    chosen = set(parameters)
    for group in list(optimizer.param_groups):
        moved = [p for p in group["params"] if p in chosen]
        if not moved or group["weight_decay"] == 0:
            continue
        if len(moved) == len(group["params"]):
            group["weight_decay"] = 0.0
            continue
        if "initial_lr" in group:
            raise TrainingError(
                "the optimizer has a learning-rate scheduler already, which would not know the parameter groups that "
                "ProximalStep splits off; make the ProximalStep first, then the scheduler from it"
            )
        group["params"] = [p for p in group["params"] if p not in chosen]
        settings = {key: value for key, value in group.items() if key not in ("params", "weight_decay")}
        optimizer.add_param_group({**settings, "params": moved, "weight_decay": 0.0})


def _groups_with(optimizer: Optimizer, parameters: list[nn.Parameter]) -> list[int]:
    """Which parameter groups hold some of `parameters`. Indices, because load_state_dict replaces the groups."""
    chosen = set(parameters)
    groups = enumerate(optimizer.param_groups)
    return [index for index, group in groups if any(p in chosen for p in group["params"])]
