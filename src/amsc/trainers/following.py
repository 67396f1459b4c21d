"""What an optimiser holds and remembers of a network follows a cut in place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from amsc.errors import TrainingError
from amsc.surgery import CutPlan, cut_tensors

__all__ = ["Follower", "follower_of"]

State = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Follower:
    """An optimiser before a cut, by the names of the network's parameters: which it holds (`held`, by the parameter),
    and what it will remember of each that is left after the cut (`states`)."""

    optimizer: Optimizer
    held: Mapping[nn.Parameter, str]
    states: Mapping[str, State]
    new_biases: tuple[str, ...]

    def follow(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Hold these in the place of those before, in the same groups with the same options; the groups stay the same
        objects, so that a scheduler keeps its place. A new bias stands behind its weight, as it does in a module."""
        for group in self.optimizer.param_groups:
            group["params"] = [new for old in group["params"] for new in self._successors(old, parameters)]
        for old in self.held:
            self.optimizer.state.pop(old, None)
        self.optimizer.state.update({parameters[name]: state for name, state in self.states.items()})

    def _successors(self, old: nn.Parameter, parameters: Mapping[str, nn.Parameter]) -> list[nn.Parameter]:
        name = self.held.get(old)
        if name is None:  # of something else than the network
            return [old]
        bias = f"{name.removesuffix('weight')}bias"
        names = (name, bias) if name.endswith("weight") and bias in self.new_biases else (name,)
        return [parameters[name] for name in names if name in parameters]


def follower_of(optimizer: Optimizer, model: nn.Module, plan: CutPlan) -> Follower:
    """What `optimizer` needs to follow the cut of `model`, which is still to come, by `plan`. Nothing is changed.

    Raises:
        TrainingError: it remembers something that cannot be cut as its parameter is.
    """
    named = dict(model.named_parameters())
    trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    held = {parameter: name for name, parameter in named.items() if parameter in trained}
    states: dict[str, State] = {}
    for kind, values in _by_kind(optimizer, held).items():
        sliced = cut_tensors({name: value for name, value in values.items() if _is_whole(value)}, plan)
        left = cut_tensors({name: named[name] for name in values}, plan)  # without removed blocks
        for name, value in values.items():
            if name in left:
                states.setdefault(name, {})[kind] = sliced[name] if _is_whole(value) else value
    biases = (f"{layer}.bias" for layer in plan.folds)
    return Follower(optimizer, held, states, tuple(name for name in biases if name not in named))


def _by_kind(optimizer: Optimizer, held: Mapping[nn.Parameter, str]) -> dict[str, dict[str, Any]]:
    """What it remembers by kind, then by the parameter's name."""
    found: dict[str, dict[str, Any]] = {}
    for parameter, name in held.items():
        for kind, value in optimizer.state.get(parameter, {}).items():
            if _is_whole(value) and value.shape != parameter.shape:
                raise TrainingError(
                    f"{type(optimizer).__name__} remembers {kind!r} of shape {tuple(value.shape)} for {name} of shape "
                    f"{tuple(parameter.shape)}: it is not known how to cut that. Use an optimiser whose memory has the "
                    "shapes of the parameters, such as torch.optim.SGD, Adam or AdamW"
                )
            found.setdefault(kind, {})[name] = value
    return found


def _is_whole(value: Any) -> bool:
    """Whether it has axes, as its parameter has: numbers of steps have none."""
    return isinstance(value, Tensor) and value.ndim > 0
