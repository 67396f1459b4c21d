"""The ways to the derivatives of each example's loss by the gates; which one a batch allows is found by trying."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from amsc.borrowing import call_arguments
from amsc.data import batch_size, moved, some_examples, some_rows
from amsc.penalty import Coordinates
from amsc.structure.structure import Structure
from amsc.tasks import Task
from amsc.training.gates.apart import TRIED, can_split_inputs, can_split_outputs, output_rows
from amsc.training.gates.hooks import GateHooks, Gates, block_hooks, layer_of
from amsc.training.steps.step import device_of, forward

__all__ = ["GateRuns"]

CHUNK = 64
"""Most examples in one backward pass."""


class GateRuns:
    """Derivatives of losses by the gates of a network; their columns are those of `GateGradients`.

    Attributes:
        way: how they are taken. "together": many examples in one backward pass; "alone": example by example; "whole":
            a pass forward of the whole batch, and one backward for each example's loss; "mean": the mean loss of whole
            batches.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        coordinates: Coordinates,
        stand_ins: Mapping[str, nn.Module],
        task: Task,
        first_batch: tuple[Any, Any],
    ) -> None:
        self._model, self._task, self._device = model, task, device_of(model)
        self._num_blocks, self._num_channels = len(coordinates.blocks), len(coordinates.channels)
        self._blocks = [(model.get_submodule(name), stand_ins[name]) for name in coordinates.blocks]
        slices = [(each.parameter, each.axis, _leaves(each.leaf, self._num_channels)) for each in coordinates.slices]
        self._slices = [
            (name, axis, leaf.to(self._device))
            for name, axis, leaf in slices
            if bool((leaf < self._num_channels).any())
        ]
        self._dense = _dense_columns(structure, coordinates)
        self._layers = layer_of(model, self._slices)
        self.way = self._way(*first_batch)

    def rows(self, inputs: Any, target: Any, count: int) -> Iterator[Tensor]:
        """Derivatives of the losses of the first `count` examples of a batch, some at a time; with the way "mean" one
        row for all of it. Shape: (example, gate), float64 on the CPU."""
        if self.way == "mean":
            yield self._mean(inputs, target)
        elif self.way == "whole":
            yield from self._whole(inputs, target, count)
        else:
            take = self._together if self.way == "together" else self._one_by_one
            for start in range(0, count, CHUNK):
                yield take(*_part(inputs, target, slice(start, min(start + CHUNK, count))))

    def _way(self, inputs: Any, target: Any) -> str:
        if can_split_inputs(self._model, self._task, inputs, target):
            return "together" if self._agrees(*_part(inputs, target, slice(0, TRIED))) else "alone"
        with torch.no_grad():
            output, target = forward(self._model, inputs, self._device), moved(target, self._device)
        return "whole" if can_split_outputs(self._task, output, target) else "mean"

    def _agrees(self, inputs: Any, target: Any) -> bool:
        """Whether many examples can share a backward pass: it gives what each alone does."""
        if self._layers is None:
            return False
        try:
            fast = self._together(inputs, target)
        except Exception:  # a batch that cannot be told apart fails in many ways; alone each example is exact
            return False
        slow = self._one_by_one(inputs, target)
        scale = slow.abs().amax(0)
        return bool(((fast - slow).abs() <= 1e-2 * scale + 1e-3 * slow.abs().max() + 1e-12).all())

    def _together(self, inputs: Any, target: Any) -> Tensor:
        """All examples in one backward pass. Shape: (example, gate)."""
        assert self._layers is not None, "`_agrees` has asked"
        count, target = batch_size(target), moved(target, self._device)
        gates = Gates(count, self._num_blocks, self._num_channels, self._device)
        hooks = [*self._block_hooks(gates), *(layer.hook(gates) for layer in self._layers)]
        with GateHooks(hooks):  # also during the backward pass, in which checkpointed parts run again
            output = forward(self._model, inputs, self._device)
            losses = [self._loss_of(output, target, i, count).reshape(()) for i in range(count)]
            return self._finished(gates.derivatives(torch.stack(losses).sum()))

    def _one_by_one(self, inputs: Any, target: Any) -> Tensor:
        """The same from a pass for each example, in which gates multiply the parameters themselves."""
        return torch.cat([self._mean(*_part(inputs, target, slice(i, i + 1))) for i in range(batch_size(target))])

    def _mean(self, inputs: Any, target: Any) -> Tensor:
        """Derivatives of the loss of a whole batch. Shape: (1, gate)."""
        gates = self._shared_gates()
        with GateHooks(list(self._block_hooks(gates))):
            output = self._gated_output(inputs, gates)
            return self._finished(gates.derivatives(self._task.loss(output, moved(target, self._device))))

    def _whole(self, inputs: Any, target: Any, count: int) -> Iterator[Tensor]:
        """Derivatives of each example's loss among the others of its batch. Shape: (1, gate) each."""
        gates, target, size = self._shared_gates(), moved(target, self._device), batch_size(target)
        with GateHooks(list(self._block_hooks(gates))):
            output = self._gated_output(inputs, gates)
            for i in range(count):
                yield self._finished(gates.derivatives(self._loss_of(output, target, i, size), keep=i < count - 1))

    def _shared_gates(self) -> Gates:
        return Gates(1, self._num_blocks, self._num_channels, self._device)

    def _gated_output(self, inputs: Any, gates: Gates) -> Any:
        """What the network returns with each slice of its parameters multiplied by the gate of its channel."""
        gated = {}
        for name, axis, leaf in self._slices:
            value = self._model.get_parameter(name).detach()
            gate = gates.channels(leaf)[0].to(value.dtype)
            gated[name] = value * gate.view([-1 if a == axis else 1 for a in range(value.ndim)])
        args, kwargs = call_arguments(moved(inputs, self._device))
        return functional_call(self._model, gated, args, kwargs)

    def _loss_of(self, output: Any, target: Any, index: int, count: int) -> Tensor:
        row = slice(index, index + 1)
        return self._task.loss(output_rows(output, row, count), some_examples(target, row))

    def _block_hooks(self, gates: Gates) -> Iterator[Any]:
        for number, (module, stand_in) in enumerate(self._blocks):
            if number not in self._dense:
                yield block_hooks(module, stand_in, gates, number)

    def _finished(self, gradients: Tensor) -> Tensor:
        for number, columns in self._dense.items():
            gradients[:, number] = gradients[:, columns].sum(1)
        return gradients


def _part(inputs: Any, target: Any, rows: slice) -> tuple[Any, Any]:
    return some_rows(inputs, rows), some_examples(target, rows)


def _leaves(leaf: Sequence[int], num_channels: int) -> Tensor:
    """The channel of each position, `num_channels` for those that no gate multiplies. Shape: position."""
    numbers = torch.tensor(leaf, dtype=torch.long)
    return torch.where((numbers < 0) | (numbers >= num_channels), num_channels, numbers)


def _dense_columns(structure: Structure, coordinates: Coordinates) -> dict[int, list[int]]:
    """The columns of the channels that go with a block, for the blocks all of whose channels have gates."""
    columns: dict[str, list[int]] = {}
    for number, (group, _) in enumerate(coordinates.channels):
        columns.setdefault(group, []).append(len(coordinates.blocks) + number)
    found = {}
    for number, name in enumerate(coordinates.blocks):
        groups = structure.block(name).channels
        if groups and all(group in columns for group in groups):
            found[number] = [column for group in groups for column in columns[group]]
    return found
