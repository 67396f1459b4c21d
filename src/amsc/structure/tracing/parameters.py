"""The book of parameters: which tensors are parameters, views of one, or made of nothing else, and their labels."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

from amsc.borrowing import storage_id
from amsc.structure.labels.combine import Layers
from amsc.structure.labels.ledger import Ledger, compact, no_labels

__all__ = ["Parameter", "Parameters"]


@dataclass
class Parameter:
    """What is known of one parameter or buffer: a label vector and a role for every axis that something ran along, the
    modules that used it, whether a convolution did, and whether it is the kernel of one (positions as last axes)."""

    name: str
    tensor: Tensor
    axes: dict[int, Tensor] = field(default_factory=dict)
    roles: dict[int, str] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    is_convolution: bool = False
    is_kernel: bool = False


@dataclass(frozen=True)
class _Made:
    """Of a tensor that is made of parameters alone: whether its numbers depend on more than one of a parameter's each,
    and whether no cut can change it, since it is made of single numbers."""

    is_computed: bool
    is_fixed: bool


class Parameters:
    """The parameters and buffers of a network, and what is made of them while it runs.

    Args:
        tensors: the parameters and buffers by name.
        kernels: names of those that belong to convolutions.
        moves: names of the operators that only move data.
        ledger: where their labels come from.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], kernels: Collection[str], moves: Collection[str], ledger: Ledger
    ) -> None:
        self.by_id = {
            id(tensor): Parameter(name, tensor, is_kernel=name in kernels) for name, tensor in tensors.items()
        }
        self._moves, self._ledger = moves, ledger
        self._views = WeakTensorKeyDictionary()
        self._constant = WeakTensorKeyDictionary()  # what is made of parameters alone, as _Made
        self._storages = {
            storage_id(tensor): self.by_id[id(tensor)] for tensor in tensors.values() if tensor.layout == torch.strided
        }

    def used(self) -> Iterator[Parameter]:
        """Those that the run has used."""
        return (parameter for parameter in self.by_id.values() if parameter.modules)

    def at(self, tensor: Tensor) -> Parameter | None:
        """The parameter in whose memory `tensor` lies."""
        return self._storages.get(storage_id(tensor))

    def note_use(self, func: Any, arguments: Any, output: Any, module: str) -> None:
        """The `module` uses parameters in an operator; what is computed from these alone is noted as well."""
        tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
        for leaf in tensors:
            if id(leaf) in self.by_id:
                parameter = self.by_id[id(leaf)]
                parameter.modules.add(module)
        if tensors and all(id(leaf) in self.by_id or leaf in self._constant for leaf in tensors):
            num_wide = sum(not self.is_fixed(leaf) for leaf in tensors)
            number_by_number = torch.Tag.pointwise in func.tags and num_wide == 1
            is_new = not number_by_number and str(func).split(".")[1] not in self._moves
            was_computed = any(leaf in self._constant and self._constant[leaf].is_computed for leaf in tensors)
            made = _Made(is_new or was_computed, num_wide == 0)
            for leaf in pytree.tree_leaves(output):
                if isinstance(leaf, Tensor):
                    self._constant[leaf] = made

    def name(self, tensor: Tensor) -> str | None:
        """The name of a parameter or buffer; None of another tensor."""
        parameter = self.by_id.get(id(tensor))
        return None if parameter is None else parameter.name

    def is_activation(self, tensor: Tensor) -> bool:
        """Whether `tensor` depends on the inputs."""
        return tensor not in self._constant and self.view(tensor) is None

    def is_computed(self, tensor: Tensor) -> bool:
        """Whether `tensor` is a weight that was computed from parameters alone, and not only moved."""
        made = self._constant.get(tensor)
        return made is not None and made.is_computed and self.view(tensor) is None

    def is_fixed(self, tensor: Tensor) -> bool:
        """Whether `tensor` is one number that no cut can change: a parameter, or made of such parameters alone."""
        if tensor.numel() != 1:
            return False
        return id(tensor) in self.by_id or (tensor in self._constant and self._constant[tensor].is_fixed)

    def view(self, tensor: Tensor) -> tuple[Parameter, tuple[int, ...]] | None:
        """(parameter, its axes in the order of `tensor`'s) if `tensor` is a parameter, or one transposed."""
        if id(tensor) in self.by_id:
            return self.by_id[id(tensor)], tuple(range(tensor.ndim))
        view: tuple[Parameter, tuple[int, ...]] | None = self._views.get(tensor)
        return view

    def set_view(self, tensor: Tensor, parameter: Parameter, axes: tuple[int, ...]) -> None:
        """`tensor` is `parameter` with its axes in this order."""
        self._views[tensor] = (parameter, axes)

    def layers(self, tensor: Tensor, parameter: Parameter, axes: tuple[int, ...], roles: Sequence[str]) -> Layers:
        """One layer for each axis of `tensor`, a view of `parameter`; `roles` are those of its axes ("" for none)."""
        layers = []
        for place, (axis, role) in enumerate(zip(axes, roles, strict=True)):
            if role and tensor.shape[place] > 1 and not (parameter.is_kernel and axis > 1):
                shape = [1] * tensor.ndim
                shape[place] = -1
                labels = self.axis_labels(parameter, axis, role)
                labels = labels if parameter.roles[axis] != "in" else -labels
                layers.append(compact(labels.reshape(shape).expand(tensor.shape)))
        return tuple(layers)

    def axis_labels(self, parameter: Parameter, axis: int, role: str) -> Tensor:
        """Labels along one axis of a parameter; an axis of size 1 cannot lose anything."""
        if axis not in parameter.axes:
            size = parameter.tensor.shape[axis]
            parameter.axes[axis] = self._ledger.fresh(size) if size > 1 else no_labels((size,))
        # An axis that is both written and read (tied weights) must be zeroed to silence the channel.
        if parameter.roles.get(axis) in (None, "in", "element"):
            parameter.roles[axis] = role
        return parameter.axes[axis]

    def pin(self, parameter: Parameter, reason: str) -> None:
        """Every axis of the parameter stays as it is."""
        for axis in range(parameter.tensor.ndim):
            self._ledger.pin(self.axis_labels(parameter, axis, "element"), reason)
