"""The book of labels: the layers of every tensor of the run, what has one value, and what shares memory."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from amsc.borrowing import storage_id
from amsc.structure.labels.combine import Layers, Operand
from amsc.structure.labels.ledger import Ledger, compact, core, no_labels, squeezed, varying_axes
from amsc.structure.tracing.parameters import Parameters
from amsc.structure.tracing.running import Running

__all__ = ["Labelled"]


class Labelled:
    """Labels of all tensors while the network runs.

    Args:
        ledger: what is learnt about labels.
        parameters: where the labels of parameters are.
        running: what is running.
    """

    def __init__(self, ledger: Ledger, parameters: Parameters, running: Running) -> None:
        self._ledger, self._parameters, self._running = ledger, parameters, running
        self._labels = WeakTensorKeyDictionary()
        self._uniform = WeakTensorKeyDictionary()  # what has one value everywhere: whether that is zero
        self._aliases: dict[int, list[TensorWeakRef]] = {}

    def layers(self, tensor: Tensor) -> Layers:
        """Compact layers of a tensor; of a parameter one for each of its axes."""
        view = self._parameters.view(tensor)
        if view is not None:
            parameter, axes = view
            return self._parameters.layers(tensor, parameter, axes, ["element"] * tensor.ndim)
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
            self._ledger.box(layer, self._running.reason)
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
            vector = self._ledger.mix(layer, others, self._running.reason).reshape(-1)
            if len(vector) > 1:
                vectors.append(compact(vector))
            else:
                self._ledger.pin(vector, f"{self._running.reason} reads nothing else")
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
        written = self._parameters.at(tensor)
        if written is not None:
            reason = f"{self._running.reason} overwrites a parameter or buffer with it"
            self._parameters.pin(written, f"{self._running.reason} overwrites it")
            self._ledger.pin_layers(layers, reason)
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
                self._ledger.pin_layers(own, f"{self._running.reason} overwrites part of it")
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
        self._ledger.pin_layers(layers, f"{self._running.reason} writes to fixed positions")
        return ()

    def _shared_with(self, tensor: Tensor) -> list[Tensor]:
        key = storage_id(tensor)
        living = (reference() for reference in self._aliases.get(key, []))
        unique = {id(other): other for other in living if other is not None}
        return [other for other in unique.values() if storage_id(other) == key]


def _window(flat: Tensor, tensor: Tensor) -> Tensor:
    return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
