"""Run the network on labels: the user's own forward, observed operator by operator."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from amsc.structure.labels import Ledger, compact, no_labels
from amsc.structure.values import LayerCost

__all__ = ["Parameter", "Tracer"]

# A parameter used element-wise gets one label per element; larger ones are pinned instead.
MOST_ELEMENTS = 1 << 22


@dataclass
class Parameter:
    """What is known of one parameter or buffer: a label vector for every axis used as a layer's axis, labels of
    its elements when it is used as an operand, and the role of each axis."""

    name: str
    tensor: Tensor
    axes: dict[int, Tensor] = field(default_factory=dict)
    roles: dict[int, str] = field(default_factory=dict)
    elements: Tensor | None = None
    modules: set[str] = field(default_factory=set)


class Tracer(TorchDispatchMode):
    """Carries labels beside every tensor while the network runs; the rules are in `amsc.structure.rules`.

    Args:
        tensors: the network's parameters and buffers by name.
        names: name of every module of the network, by `id`.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch asks. Guarding every operator against compilation would import torch._dynamo: more than a second."""
        return False

    def __init__(self, tensors: Mapping[str, Tensor], names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger = Ledger()
        self.costs: list[LayerCost] = []
        self.parameters = {id(tensor): Parameter(name, tensor) for name, tensor in tensors.items()}
        self.used: set[str] = set()
        self._names = names
        self._stack: list[str] = []
        self._labels = WeakTensorKeyDictionary()
        self._views = WeakTensorKeyDictionary()
        self._aliases: dict[int, list[TensorWeakRef]] = {}
        self._reason = ""

    # -- the observed run ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Observe everything that runs inside, and which module it runs in."""
        before = register_module_forward_pre_hook(self._enter)
        after = register_module_forward_hook(self._leave, always_call=True)
        try:
            with self:
                yield
        finally:
            before.remove()
            after.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._stack.append(self._names.get(id(module), self.module))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._stack.pop()

    @property
    def module(self) -> str:
        """Name of the module that is running ("" for the network itself)."""
        return self._stack[-1] if self._stack else ""

    @property
    def reason(self) -> str:
        """The operator that is running, and where: what to name when it pins something."""
        return self._reason

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from amsc.structure.rules import rule_for

        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        self._reason = f"{func} in {self.module}" if self.module else str(func)
        self._note_use((args, kwargs))
        rule_for(func)(self, func, args, kwargs, output)
        for tensor in pytree.tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor not in self._labels:
                self.set_labels(tensor, no_labels(tensor.shape))
        return output

    def _note_use(self, arguments: Any) -> None:
        for leaf in pytree.tree_leaves(arguments):
            if isinstance(leaf, Tensor) and id(leaf) in self.parameters:
                parameter = self.parameters[id(leaf)]
                parameter.modules.add(self.module)
                self.used.add(parameter.name)

    # -- labels of activations -------------------------------------------------------------------------------------

    def labels(self, tensor: Tensor) -> Tensor:
        """Compact labels of a tensor; those of its elements if it is a parameter."""
        view = self.parameter_view(tensor)
        if view is not None:
            return compact(self._element_labels(view[0]).permute(view[1]))
        known: Tensor | None = self._labels.get(tensor)
        return no_labels(tensor.shape) if known is None else known

    def set_labels(self, tensor: Tensor, labels: Tensor) -> None:
        """`labels` (compact) belong to `tensor` from now on."""
        self._labels[tensor] = labels
        if tensor.layout == torch.strided and tensor.device.type != "meta":
            key = tensor.untyped_storage()._cdata
            self._aliases.setdefault(key, []).append(TensorWeakRef(tensor))

    def write(self, tensor: Tensor, labels: Tensor) -> None:
        """`tensor` was overwritten in place: it and every other view of its storage get new labels."""
        for parameter in self.parameters.values():
            if parameter.tensor.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
                self.pin_parameter(parameter)
                self.ledger.pin(labels, self.reason)
                return
        others = [other for other in self._shared_with(tensor) if other is not tensor]
        if not others:
            self.set_labels(tensor, labels)
            return
        if any(other.numel() != tensor.numel() for other in others):
            # Moved into part of somebody's buffer: the buffer's size and the positions are the user's constants.
            moved = self.labels(tensor).abs() != labels.abs()
            if bool(moved.any()):
                self.ledger.pin(labels, f"{self.reason} writes to fixed positions")
                labels = no_labels(tensor.shape)
        flat = torch.zeros(tensor.untyped_storage().nbytes() // tensor.element_size(), dtype=torch.int64)
        for other in [*others, tensor]:
            _window(flat, other).copy_(self.labels(other))
        _window(flat, tensor).copy_(labels)
        for other in [*others, tensor]:
            self._labels[other] = compact(_window(flat, other).clone())

    def _shared_with(self, tensor: Tensor) -> list[Tensor]:
        key = tensor.untyped_storage()._cdata
        living = (reference() for reference in self._aliases.get(key, []))
        unique = {id(other): other for other in living if other is not None}
        return [other for other in unique.values() if other.untyped_storage()._cdata == key]

    # -- labels of parameters --------------------------------------------------------------------------------------

    def parameter_view(self, tensor: Tensor) -> tuple[Parameter, tuple[int, ...]] | None:
        """(parameter, its axes in the order of `tensor`'s) if `tensor` is a parameter, or one transposed."""
        if id(tensor) in self.parameters:
            return self.parameters[id(tensor)], tuple(range(tensor.ndim))
        view: tuple[Parameter, tuple[int, ...]] | None = self._views.get(tensor)
        return view

    def set_parameter_view(self, tensor: Tensor, parameter: Parameter, axes: tuple[int, ...]) -> None:
        """`tensor` is `parameter` with its axes in this order."""
        self._views[tensor] = (parameter, axes)

    def axis_labels(self, parameter: Parameter, axis: int, role: str) -> Tensor:
        """Labels along one axis of a layer's parameter; an axis of size 1 cannot lose anything."""
        if axis not in parameter.axes:
            size = parameter.tensor.shape[axis]
            if parameter.tensor.ndim == 1:
                parameter.axes[axis] = self._element_labels(parameter)
            else:
                parameter.axes[axis] = self.ledger.fresh(size) if size > 1 else no_labels((size,))
        # An axis that is both written and read (tied weights) must be zeroed to silence the channel.
        if parameter.roles.get(axis) in (None, "in", "element"):
            parameter.roles[axis] = role
        return parameter.axes[axis]

    def _element_labels(self, parameter: Parameter) -> Tensor:
        tensor = parameter.tensor
        if parameter.elements is None:
            if tensor.numel() <= 1 or tensor.numel() > MOST_ELEMENTS:
                parameter.elements = no_labels(tensor.shape)
            else:
                parameter.elements = self.ledger.fresh(tensor.numel()).reshape(tensor.shape)
        return parameter.elements

    def pin_parameter(self, parameter: Parameter) -> None:
        """Every axis of the parameter stays as it is."""
        for axis in range(parameter.tensor.ndim):
            self.ledger.pin(self.axis_labels(parameter, axis, "element"), self.reason)
        if parameter.elements is not None:
            self.ledger.pin(parameter.elements, self.reason)

    def pin_all(self, arguments: Any) -> None:
        """Everything labelled among the arguments of the running operator stays."""
        for leaf in pytree.tree_leaves(arguments):
            if isinstance(leaf, Tensor):
                view = self.parameter_view(leaf)
                if view is not None:
                    self.pin_parameter(view[0])
                else:
                    self.ledger.pin(self.labels(leaf), self.reason)


def _window(flat: Tensor, tensor: Tensor) -> Tensor:
    return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
