"""Run the network on labels: the user's own forward, observed operator by operator."""

import contextlib
import linecache
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from amsc.borrowing import calling, storage_id, unfused_attention
from amsc.structure.labels.combine import Layers, Operand
from amsc.structure.labels.ledger import Ledger, compact, core, no_labels, squeezed, varying_axes

__all__ = ["Parameter", "Tracer"]

_TORCH = os.path.dirname(torch.__file__)
_AMSC = str(Path(__file__).parents[2])
_CALLER = calling.__file__
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


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


class Tracer(TorchDispatchMode):
    """Carries labels beside every tensor while the network runs; the rules are in `amsc.structure.operators.table`.

    Args:
        tensors: the network's parameters and buffers by name.
        names: name of every module of the network, by `id`.
        kernels: names of the tensors that belong to convolutions.
        foldable: names of the layers whose bias can have what they read of a constant.
        moves: names of the operators that only move data.
        rule_for: the rule of an operator.
        before: told of every operator and its arguments before it runs.
        aside: a context in which labels can be computed with while the network is running.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch asks. Guarding every operator against compilation would import torch._dynamo: more than a second."""
        return False

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        names: Mapping[int, str],
        kernels: Collection[str],
        foldable: Collection[str],
        moves: Collection[str],
        rule_for: Callable[[Any], Callable[..., None]],
        before: Callable[[Any, Any, Any], None] = lambda func, args, kwargs: None,
        aside: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger = Ledger(locate=_running_line)
        self.parameters = {
            id(tensor): Parameter(name, tensor, is_kernel=name in kernels) for name, tensor in tensors.items()
        }
        self.used: set[str] = set()
        self._names, self._foldable = names, foldable
        self._stack: list[str] = []
        self._labels = WeakTensorKeyDictionary()
        self._views = WeakTensorKeyDictionary()
        self._uniform = WeakTensorKeyDictionary()
        self._constant = WeakTensorKeyDictionary()  # what is made of parameters alone, as _Made
        self._moves = moves
        self._aliases: dict[int, list[TensorWeakRef]] = {}
        self._storages = {
            storage_id(tensor): self.parameters[id(tensor)]
            for tensor in tensors.values()
            if tensor.layout == torch.strided
        }
        self.unscaled: Tensor | None = None
        self._operator = ""
        self._rule_for = rule_for
        self._before = before
        self.aside = aside
        self.after: Callable[[Any, Any, Any, Any], None] | None = None  # told of every operator that has run

    # -- the observed run ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Observe everything that runs inside, and which module it runs in."""
        before = register_module_forward_pre_hook(self._enter)
        after = register_module_forward_hook(self._leave, always_call=True)
        try:
            with unfused_attention(), self, _AttentionScale(self):
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
        return f"{self._operator} in {self.module}" if self.module else self._operator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func):  # in inference mode they come whole: taken apart here, as autograd does otherwise
            with self:
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        self._before(func, args, kwargs)
        output = func(*args, **kwargs)
        self._operator = str(func)
        with self.aside():
            if self.unscaled is not None:
                self._note_scale(self.unscaled)
            self._note_use(func, (args, kwargs), output)
            try:
                self._rule_for(func)(self, func, args, kwargs, output)
            except Exception as error:  # a fault of ours, on arguments nobody thought of: all that it concerns stays
                self._operator += f" (its rule failed: {type(error).__name__}: {error})"
                warnings.warn(f"what {self.reason} touches is left as it is; please report this", stacklevel=2)
                self.pin_all((args, kwargs, output), "")
            if self.after is not None:
                self.after(func, args, kwargs, output)
        return output

    def _note_scale(self, query: Tensor) -> None:
        self.unscaled = None
        reason = f"the scale of the attention in {self.module} is taken from the head size"
        for layer in self.layers(query):
            self.ledger.read(layer, [layer.ndim - 1], reason, takes_zeros=False)

    def _note_use(self, func: Any, arguments: Any, output: Any) -> None:
        """Which module uses which parameter; what is computed from parameters alone is noted as well."""
        tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
        for leaf in tensors:
            if id(leaf) in self.parameters:
                parameter = self.parameters[id(leaf)]
                parameter.modules.add(self.module)
                self.used.add(parameter.name)
        if tensors and all(id(leaf) in self.parameters or leaf in self._constant for leaf in tensors):
            num_wide = sum(not self.is_fixed(leaf) for leaf in tensors)
            number_by_number = torch.Tag.pointwise in func.tags and num_wide == 1
            is_new = not number_by_number and self._operator.split(".")[1] not in self._moves
            was_computed = any(leaf in self._constant and self._constant[leaf].is_computed for leaf in tensors)
            made = _Made(is_new or was_computed, num_wide == 0)
            for leaf in pytree.tree_leaves(output):
                if isinstance(leaf, Tensor):
                    self._constant[leaf] = made

    def parameter_name(self, tensor: Tensor) -> str | None:
        """The name of a parameter or buffer; None of another tensor."""
        parameter = self.parameters.get(id(tensor))
        return None if parameter is None else parameter.name

    def is_activation(self, tensor: Tensor) -> bool:
        """Whether `tensor` depends on the inputs."""
        return tensor not in self._constant and self.parameter_view(tensor) is None

    def is_computed(self, tensor: Tensor) -> bool:
        """Whether `tensor` is a weight that was computed from parameters alone, and not only moved."""
        made = self._constant.get(tensor)
        return made is not None and made.is_computed and self.parameter_view(tensor) is None

    def is_fixed(self, tensor: Tensor) -> bool:
        """Whether `tensor` is one number that no cut can change: a parameter, or made of such parameters alone."""
        if tensor.numel() != 1:
            return False
        return id(tensor) in self.parameters or (tensor in self._constant and self._constant[tensor].is_fixed)

    def folds(self, weight: Tensor) -> str:
        """The layer that is running if a constant that it reads through `weight` can move into its bias, else ""."""
        view = self.parameter_view(weight)
        is_own = view is not None and view[0].name == f"{self.module}.weight".removeprefix(".")
        return self.module if is_own and self.module in self._foldable else ""

    # -- labels of activations -------------------------------------------------------------------------------------

    def layers(self, tensor: Tensor) -> Layers:
        """Compact layers of a tensor; of a parameter one for each of its axes."""
        view = self.parameter_view(tensor)
        if view is not None:
            parameter, axes = view
            return self.parameter_layers(tensor, parameter, axes, ["element"] * tensor.ndim)
        known: Layers | None = self._labels.get(tensor)
        return () if known is None else known

    def set_layers(self, tensor: Tensor, layers: Sequence[Tensor]) -> None:
        """`layers` (expanded to its shape here) belong to `tensor` from now on, whose values are new."""
        self._uniform.pop(tensor, None)
        self._label(tensor, layers)

    def _label(self, tensor: Tensor, layers: Sequence[Tensor]) -> None:
        whole = (compact(layer.expand(tensor.shape)) for layer in layers if tensor.numel())
        kept = tuple(layer for layer in whole if bool((squeezed(layer) != 0).any()))
        self._labels[tensor] = kept
        for layer in kept:
            self.ledger.box(layer, self.reason)
        if tensor.layout == torch.strided:
            key = storage_id(tensor)
            self._aliases.setdefault(key, []).append(TensorWeakRef(tensor))

    def operand(self, tensor: Tensor, shape: torch.Size) -> Operand:
        """`tensor` as an operand of an operator that broadcasts it to `shape`."""
        missing = len(shape) - tensor.ndim
        own = frozenset(axis + missing for axis in self.own_axes(tensor))
        return Operand(tuple(layer.expand(shape) for layer in self.layers(tensor)), own, self.is_zero(tensor))

    def own_axes(self, tensor: Tensor) -> frozenset[int]:
        """The axes along which `tensor` has values of its own: longer than 1, and not known to be the same."""
        if self.is_uniform(tensor):
            return frozenset()
        return frozenset(axis for axis in range(tensor.ndim) if tensor.shape[axis] > 1 and tensor.stride(axis) != 0)

    def channels(self, data: Tensor) -> Operand:
        """The label vectors along axis 1 of `data`: what lies along the other axes is mixed."""
        others = [axis for axis in range(data.ndim) if axis != 1]
        vectors = []
        for layer in self.layers(data):
            vector = self.ledger.mix(layer, others, self.reason).reshape(-1)
            if len(vector) > 1:
                vectors.append(compact(vector))
            else:
                self.ledger.pin(vector, f"{self.reason} reads nothing else")
        return Operand(tuple(vectors), frozenset([0]) if 1 in self.own_axes(data) else frozenset())

    def set_uniform(self, tensor: Tensor, *, is_zero: bool = False) -> None:
        """Every element of `tensor` has the same value (it was made by zeros, ones, full ...)."""
        self._uniform[tensor] = is_zero

    def is_uniform(self, tensor: Tensor) -> bool:
        """Whether every element is known to have the same value."""
        return tensor in self._uniform

    def is_zero(self, tensor: Tensor) -> bool:
        """Whether every element is known to be zero."""
        return bool(self._uniform.get(tensor))

    def write(self, tensor: Tensor, layers: Sequence[Tensor]) -> None:
        """`tensor` was overwritten in place: it and every other view of its storage get new labels."""
        layers = tuple(compact(layer.expand(tensor.shape)) for layer in layers)
        written = self._storages.get(storage_id(tensor))
        if written is not None:
            reason = f"{self.reason} overwrites a parameter or buffer with it"
            self.pin_parameter(written, f"{self.reason} overwrites it")
            self.pin_layers(layers, reason)
            return
        others = [other for other in self._shared_with(tensor) if other is not tensor]
        self._label_around(tensor, layers, others)
        for other in (*others, tensor):
            self._uniform.pop(other, None)
        if not others:
            self.set_layers(tensor, layers)
            return
        if any(other.numel() != tensor.numel() for other in others):
            layers = self._in_place_of_part(tensor, layers)
        every = [(other, self.layers(other)) for other in others]
        if max(len(layers), *(len(own) for _, own in every)) > 1:
            for own in (layers, *(own for _, own in every)):
                self.pin_layers(own, f"{self.reason} overwrites part of it")
            return
        flat = torch.zeros(tensor.untyped_storage().nbytes() // tensor.element_size(), dtype=torch.int64)
        for other, own in every:
            _window(flat, other).copy_(own[0] if own else no_labels(other.shape))
        _window(flat, tensor).copy_(layers[0] if layers else no_labels(tensor.shape))
        for other in (*others, tensor):
            self.set_layers(other, [_window(flat, other).clone()])

    def _label_around(self, tensor: Tensor, layers: Layers, others: Sequence[Tensor]) -> None:
        """A new buffer of one value takes the labels of what is written to a part of it, where that part is whole along
        the axes of channels: what is shifted, or padded with its other end."""
        every = (*others, tensor)
        if len(layers) != 1 or not all(self.is_uniform(one) and not self.layers(one) for one in every):
            return
        along = varying_axes(layers[0])
        sizes = [tensor.shape[axis] for axis in along]
        if any(one.ndim != tensor.ndim or [one.shape[axis] for axis in along] != sizes for one in others):
            return
        if any(one.stride() != tensor.stride() for one in others):
            return
        around = core(layers[0]).abs() if all(map(self.is_zero, every)) else -core(layers[0]).abs()
        for one in every:
            self._label(one, [around])

    def _in_place_of_part(self, tensor: Tensor, layers: Layers) -> Layers:
        """The layers of what was written to part of somebody's buffer, whose size and positions are the user's
        constants: what was not there before stays."""
        before = [layer.abs() for layer in self.layers(tensor)]
        same = len(before) == len(layers) and all(
            torch.equal(old, new.abs()) for old, new in zip(before, layers, strict=True)
        )
        if same:
            return layers
        self.pin_layers(layers, f"{self.reason} writes to fixed positions")
        return ()

    def _shared_with(self, tensor: Tensor) -> list[Tensor]:
        key = storage_id(tensor)
        living = (reference() for reference in self._aliases.get(key, []))
        unique = {id(other): other for other in living if other is not None}
        return [other for other in unique.values() if storage_id(other) == key]

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

    def parameter_layers(
        self, tensor: Tensor, parameter: Parameter, axes: tuple[int, ...], roles: Sequence[str]
    ) -> Layers:
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
            parameter.axes[axis] = self.ledger.fresh(size) if size > 1 else no_labels((size,))
        # An axis that is both written and read (tied weights) must be zeroed to silence the channel.
        if parameter.roles.get(axis) in (None, "in", "element"):
            parameter.roles[axis] = role
        return parameter.axes[axis]

    def pin_parameter(self, parameter: Parameter, reason: str) -> None:
        """Every axis of the parameter stays as it is."""
        for axis in range(parameter.tensor.ndim):
            self.ledger.pin(self.axis_labels(parameter, axis, "element"), reason)

    def pin_layers(self, layers: Layers, reason: str) -> None:
        """Everything labelled in `layers` stays."""
        for layer in layers:
            self.ledger.pin(layer, reason)

    def pin_all(self, arguments: Any, why: str) -> None:
        """Everything labelled among the arguments of the running operator stays; `why` goes on after its name."""
        reason = f"{self.reason} {why}".rstrip()
        for leaf in pytree.tree_leaves(arguments):
            if isinstance(leaf, Tensor):
                view = self.parameter_view(leaf)
                if view is not None:
                    self.pin_parameter(view[0], reason)
                else:
                    self.pin_layers(self.layers(leaf), reason)


@cache
def _is_composite(func: Any) -> bool:
    """Whether the operator is written in terms of others for every device, its gradient too."""
    try:
        return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE))
    except RuntimeError:  # the dispatcher does not know it: one of TorchScript's own, such as prim::device
        return False


def _running_line() -> str:
    """The line of the user's code that called the running operator, as "file.py:12: code"; "" if torch's own did."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((_TORCH, _AMSC)):
        if frame.f_code.co_filename == _CALLER:
            return ""
        frame = frame.f_back
    if frame is None:
        return ""
    path, number = frame.f_code.co_filename, frame.f_lineno
    return f"{os.path.basename(path)}:{number}: {linecache.getline(path, number).strip()}"


class _AttentionScale(TorchFunctionMode):
    """Attention without a given scale divides by the root of the head size: a removed dimension changes it."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and kwargs.get("scale") is None:
            self._tracer.unscaled = args[0] if args else kwargs["query"]
        return func(*args, **kwargs)


def _window(flat: Tensor, tensor: Tensor) -> Tensor:
    return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
