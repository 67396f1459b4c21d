"""Constants of removed channels move into the biases of the layers that read them.

A channel behind a sigmoid is 0.5 when it is zeroed. A linear layer or unpadded convolution that reads it then adds the
same numbers to its outputs everywhere: they can as well be in its bias. Whether the channel is a constant, and which,
is found by running the masked network.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from amsc.borrowing import (
    borrowed,
    copied,
    copied_inputs,
    devices_of,
    in_double,
    named_tensors,
    run_model,
    seed_generators,
)
from amsc.errors import CutError, InputError
from amsc.surgery.inputs import SEED, trial_inputs
from amsc.surgery.plan import CutPlan

__all__ = ["fold_constants", "give_biases", "unfolded"]

NUM_INPUTS = 2
# Values that differ by less than this many units of the last place are the same constant.
ROUNDING = 8


def give_biases(model: nn.Module, layers: Iterable[str]) -> None:
    """A bias of zero for each of these layers of `model` that has none.

    Raises:
        CutError: the model has no such layer.
    """
    modules = dict(model.named_modules())
    for name in layers:
        layer = modules.get(name)
        if not isinstance(layer, nn.Linear | _ConvNd):
            raise CutError(
                f"the plan folds constants into the layer {name!r}, which is {type(layer).__name__} here; the plan was"
                " made for another network; trace this one and plan again"
            )
        if layer.bias is None:
            zeros = layer.weight.detach().new_zeros(layer.weight.shape[0])
            layer.bias = nn.Parameter(zeros, requires_grad=layer.weight.requires_grad)


def fold_constants(model: nn.Module, zeroed: nn.Module, plan: CutPlan, example_inputs: Any = None) -> None:
    """Add to the biases of the layers `plan.folds` of `model`, which is not cut yet, what they read of the channels
    that go. `zeroed` is the masked network; it runs on the example inputs, if given, and on random ones.

    Raises:
        CutError: a channel that goes is not the same number for all inputs and positions when it is zeroed.
    """
    removed = _removed_inputs(plan)
    constants = _constants(zeroed, removed, plan, example_inputs)
    tensors, sources = named_tensors(model), named_tensors(zeroed)
    with torch.no_grad():
        for name, constant in constants.items():
            weight, bias = sources[f"{name}.weight"], tensors[f"{name}.bias"]
            columns = in_double(weight.index_select(1, torch.tensor(removed[name], device=weight.device)))
            bias.add_((columns.reshape(*columns.shape[:2], -1).sum(-1) @ constant).to(bias))


def unfolded(dense: nn.Module, small: nn.Module, plan: CutPlan) -> nn.Module:
    """A copy of `dense`, from which `plan` led to `small`, with the tensors of `small` where they stay.

    What layers read of constants is zero, since their biases have it: zeroing the channels that go gives `small`."""
    full = copied(dense)
    give_biases(full, plan.folds)
    tensors = named_tensors(full)
    removed = _removed_inputs(plan)
    with torch.no_grad():
        for name, indices in removed.items():
            weight = tensors[f"{name}.weight"]
            weight.index_fill_(1, torch.tensor(indices, device=weight.device), 0)
        for name, value in named_tensors(small).items():
            kept = {cut.axis: cut.kept for cut in plan.cuts if cut.parameter == name}
            tensors[name][_grid(tensors[name], kept)] = value
    return full


def _grid(tensor: Tensor, kept: Mapping[int, tuple[int, ...]]) -> tuple[Tensor, ...]:
    """Index of the positions `kept` on each axis (all of them on the others), for writing."""
    axes = [torch.tensor(kept.get(axis, range(size)), device=tensor.device) for axis, size in enumerate(tensor.shape)]
    return tuple(torch.meshgrid(*axes, indexing="ij")) if axes else ()


def _removed_inputs(plan: CutPlan) -> dict[str, tuple[int, ...]]:
    """The input channels that go from each of the layers `plan.folds`."""
    layers = {f"{name}.weight": name for name in plan.folds}
    return {layers[cut.parameter]: cut.removed for cut in plan.cuts if cut.parameter in layers and cut.axis == 1}


def _constants(
    zeroed: nn.Module, removed: Mapping[str, tuple[int, ...]], plan: CutPlan, example_inputs: Any
) -> dict[str, Tensor]:
    """The constants of the `removed` channels, one vector for each layer, in double precision."""
    probes = {name: _Probe(name, indices) for name, indices in removed.items()}
    failures, runs = [], 0
    with borrowed(zeroed):
        for name, probe in probes.items():
            zeroed.get_submodule(name).register_forward_pre_hook(probe, with_kwargs=True)
        for label, inputs in trial_inputs(zeroed, plan.inputs, example_inputs, NUM_INPUTS):
            seed_generators(SEED, devices_of(zeroed))
            try:
                run_model(zeroed, copied_inputs(inputs))
                runs += 1
            except InputError as error:  # random inputs may be outside of what the user's forward accepts
                failures.append(f"{label}: {error}")
    if runs < NUM_INPUTS:
        raise CutError(
            f"whether the channels read by {', '.join(probes)} are constants when zeroed takes {NUM_INPUTS} different"
            f" inputs to see, but the model fails on {'; '.join(failures)}"
        )
    return {name: probe.constant() for name, probe in probes.items()}


class _Probe:
    """A forward pre-hook that watches some input channels of a layer."""

    def __init__(self, name: str, indices: tuple[int, ...]) -> None:
        self._name, self._indices = name, indices
        self._first: Tensor | None = None
        self._is_constant = True

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        data: Tensor = args[0] if args else kwargs["input"]
        axis = -1 - len(layer.kernel_size) if isinstance(layer, _ConvNd) else -1
        chosen = data.index_select(axis, torch.tensor(self._indices, device=data.device)).movedim(axis, 0).flatten(1)
        if chosen.numel() == 0:
            return
        values = in_double(chosen)
        if self._first is None:
            self._first = values[:, 0].clone()
        allowed = ROUNDING * torch.finfo(chosen.dtype).eps * float(self._first.abs().max())
        spread = float((values - self._first[:, None]).abs().max())
        self._is_constant &= spread <= allowed  # not if one is infinite or not a number

    def constant(self) -> Tensor:
        """The value of each channel.

        Raises:
            CutError: some have several values, or the layer has not run.
        """
        if self._first is None or not self._is_constant:
            raise CutError(
                f"{self._name} reads channels that are not zero when they are zeroed, and not the same constant for all"
                " inputs and positions, so that its bias cannot have what they add"
                if self._first is not None
                else f"{self._name} reads channels that may not be zero when they are zeroed, but it did not run"
            )
        return self._first
