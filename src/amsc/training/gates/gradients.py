"""Derivatives of each example's loss by gates on channels and blocks: from one backward pass where that is exact."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from amsc.borrowing import borrowed, call_arguments
from amsc.data import Data, batch_size, moved, some_examples, spread_batches
from amsc.errors import DataError, TrainingError
from amsc.penalty import Coordinates
from amsc.progress import NoProgress, Progress
from amsc.structure.structure import Structure
from amsc.tasks import Task
from amsc.training.gates.hooks import GateHooks, Gates, block_hooks, layer_of
from amsc.training.removal.removed import Leaf
from amsc.training.steps.loop import device_of, forward

__all__ = ["GateGradients", "gate_gradients"]

CHUNK = 64
"""Most examples in one backward pass."""
TRIED = 3
"""Examples on which the fast way is compared with one example at a time."""


@dataclass(frozen=True, eq=False)
class GateGradients:
    """`gradients[i, g]` is the derivative of the loss of example i by gate g, at 1: first the gates of `blocks`, then
    those of `channels`. Shape: (example, gate), float64 on the CPU. `is_batched` tells whether many examples shared a
    backward pass."""

    gradients: Tensor
    blocks: tuple[str, ...]
    channels: tuple[Leaf, ...]
    is_batched: bool

    def column(self, gate: str | Leaf) -> int:
        """Where the gate of a block (by name) or of a channel stands."""
        if isinstance(gate, str):
            return self.blocks.index(gate)
        return len(self.blocks) + self.channels.index(gate)


def gate_gradients(
    model: nn.Module,
    structure: Structure,
    coordinates: Coordinates,
    stand_ins: Mapping[str, nn.Module],
    data: Data,
    task: Task,
    *,
    examples: int,
    progress: Progress = NoProgress(),  # noqa: B008 - it has no state
) -> GateGradients:
    """Derivatives of the losses of training examples by a gate on every penalised channel and block.

    A channel's gate multiplies its coordinates (see `Coordinates`), so that the mean over a batch is what
    `gates_from_gradients` gives. A block's gate s makes of its output y the output r + s (y - r), where r is what is
    returned once the block is gone; a block whose channels go with it has the sum of their derivatives. BatchNorm runs
    in eval mode, images are not augmented, examples lie evenly over an epoch.

    Where the parameters of all channels belong to ordinary layers (convolutions, linear layers, normalisations), every
    example of a batch gets gates of its own on these layers' outputs, and one backward pass gives all derivatives. This
    is tried on a few examples first; where it is not the derivative of each example alone (the loss or the network
    couples examples, a parameter is used elsewhere), examples are taken one by one. `model` comes back as it was.

    Args:
        stand_ins: for each of `coordinates.blocks` a module that returns what is left where the block is gone.
        examples: how many are looked at, at most all there are.

    Raises:
        DataError: there is no training example.
        TrainingError: a derivative is not finite.
    """
    run = _Run(model, structure, coordinates, stand_ins, task)
    limit = min(examples, data.num_examples("train"))
    parts: list[Tensor] = []
    is_batched: bool | None = None
    with borrowed(model), torch.enable_grad():
        for inputs, target in _chunks(data, limit):
            if is_batched is None:
                is_batched = run.agrees(*_rows(inputs, target, slice(0, TRIED)))
            parts.append(run.together(inputs, target) if is_batched else run.one_by_one(inputs, target))
            progress.update("gates", sum(map(len, parts)), limit)
    if not parts:
        raise DataError(f"the training split of {data.name} is empty; a scan needs examples to take derivatives on")
    gradients = torch.cat(parts)
    if not bool(torch.isfinite(gradients).all()):
        raise TrainingError(
            "the loss has derivatives that are not finite on the training examples; check that the data and the "
            "model's weights are finite, and lower the learning rate of what has trained it"
        )
    return GateGradients(gradients, coordinates.blocks, coordinates.channels, bool(is_batched))


def _chunks(data: Data, examples: int) -> Iterator[tuple[Any, Any]]:
    """About `examples` training examples from batches that lie evenly over an epoch, at most `CHUNK` at a time."""
    if not data.num_batches("train") or examples < 1:
        return
    smallest = max(1, data.num_examples("train") // data.num_batches("train"))
    left = examples
    for inputs, target in spread_batches(data, "train", -(-examples // smallest)):
        for start in range(0, min(left, batch_size(target)), CHUNK):
            yield _rows(inputs, target, slice(start, min(start + CHUNK, left, batch_size(target))))
        left -= min(left, batch_size(target))


def _rows(inputs: Any, target: Any, rows: slice) -> tuple[Any, Any]:
    return pytree.tree_map_only(Tensor, operator.itemgetter(rows), inputs), some_examples(target, rows)


class _Run:
    """The two ways to the derivatives; their columns are those of `GateGradients`."""

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        coordinates: Coordinates,
        stand_ins: Mapping[str, nn.Module],
        task: Task,
    ) -> None:
        self.model, self.task, self.device = model, task, device_of(model)
        self.num_blocks, self.num_channels = len(coordinates.blocks), len(coordinates.channels)
        self.blocks = [(model.get_submodule(name), stand_ins[name]) for name in coordinates.blocks]
        self.slices = [
            (slices.parameter, slices.axis, _leaves(slices.leaf, self.num_channels)) for slices in coordinates.slices
        ]
        self.slices = [each for each in self.slices if bool((each[2] < self.num_channels).any())]
        self.dense = _dense_columns(structure, coordinates)
        self.layers = layer_of(model, self.slices)

    def agrees(self, inputs: Any, target: Any) -> bool:
        """Whether many examples can share a backward pass: it gives what each alone does."""
        if self.layers is None:
            return False
        try:
            fast = self.together(inputs, target)
        except Exception:  # a batch that cannot be told apart fails in many ways; alone each example is exact
            return False
        slow = self.one_by_one(inputs, target)
        scale = slow.abs().amax(0)
        return bool(((fast - slow).abs() <= 1e-2 * scale + 1e-3 * slow.abs().max() + 1e-12).all())

    def together(self, inputs: Any, target: Any) -> Tensor:
        """All examples in one backward pass. Shape: (example, gate)."""
        assert self.layers is not None, "`agrees` has asked"
        gates = Gates(batch_size(target), self.num_blocks, self.num_channels, self.device)
        hooks = [*self._block_hooks(gates), *(layer.hook(gates) for layer in self.layers)]
        target = moved(target, self.device)
        with GateHooks(hooks):  # also during the backward pass, in which checkpointed parts run again
            output = forward(self.model, inputs, self.device)
            losses = [
                self.task.loss(_example(output, i, batch_size(target)), some_examples(target, slice(i, i + 1)))
                for i in range(batch_size(target))
            ]
            return self._finished(gates.derivatives(torch.stack([loss.reshape(()) for loss in losses]).sum()))

    def one_by_one(self, inputs: Any, target: Any) -> Tensor:
        """The same from a pass for each example, in which gates multiply the parameters themselves."""
        return torch.cat([self._alone(*_rows(inputs, target, slice(i, i + 1))) for i in range(batch_size(target))])

    def _alone(self, inputs: Any, target: Any) -> Tensor:
        gates = Gates(1, self.num_blocks, self.num_channels, self.device)
        with GateHooks(list(self._block_hooks(gates))):
            args, kwargs = call_arguments(_moved(inputs, self.device))
            output = functional_call(self.model, self._gated(gates), args, kwargs)
            return self._finished(gates.derivatives(self.task.loss(output, moved(target, self.device))))

    def _gated(self, gates: Gates) -> dict[str, Tensor]:
        """The parameters, each slice multiplied by the gate of its channel."""
        gated = {}
        for name, axis, leaf in self.slices:
            value = self.model.get_parameter(name).detach()
            gate = gates.channels(leaf)[0].to(value.dtype)
            gated[name] = value * gate.view([-1 if a == axis else 1 for a in range(value.ndim)])
        return gated

    def _block_hooks(self, gates: Gates) -> Iterator[Any]:
        for number, (module, stand_in) in enumerate(self.blocks):
            if number not in self.dense:
                yield block_hooks(module, stand_in, gates, number)

    def _finished(self, gradients: Tensor) -> Tensor:
        for number, columns in self.dense.items():
            gradients[:, number] = gradients[:, columns].sum(1)
        return gradients


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


def _example(output: Any, index: int, count: int) -> Any:
    """What the network said of one example of `count`."""
    return pytree.tree_map_only(
        Tensor, lambda leaf: leaf[index : index + 1] if leaf.ndim and len(leaf) == count else leaf, output
    )


def _moved(inputs: Any, device: torch.device) -> Any:
    return pytree.tree_map_only(Tensor, lambda leaf: leaf.to(device), inputs)
