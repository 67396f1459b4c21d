"""What criteria look at: a network, what may go from it, and examples of what it is for."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from amsc.borrowing import named_tensors
from amsc.data import Data
from amsc.penalty import Coordinates
from amsc.reconstruction.batches import calibration
from amsc.structure.structure import Block, ChannelGroup, Structure
from amsc.surgery import stand_in
from amsc.tasks import Task
from amsc.training.gates.gradients import GateGradients
from amsc.training.gates.scan_gates import find_gates, gate_derivatives

__all__ = ["Scene"]


@dataclass(frozen=True, eq=False)
class Scene:
    """A network with its structure, its data and its task; and what several criteria need of it, found once.

    `examples` is how many training examples derivatives and probes are taken of, `mapped` of how many activations are
    looked at. With `streams` channels of residual streams may go as well. The model comes back as it was from all that
    is found here."""

    model: nn.Module
    structure: Structure
    data: Data
    task: Task
    seed: int = 0
    examples: int = 512
    mapped: int = 128
    streams: bool = False

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The groups whose channels may go, as in the other methods: those that have gates."""
        structure, coordinates = self._gates
        return tuple(structure.group(name) for name in dict.fromkeys(name for name, _ in coordinates.channels))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks that may go: outer ones that have gates and are no plain convolutions."""
        structure, coordinates = self._gates
        found = (structure.block(name) for name in coordinates.blocks)
        return tuple(block for block in found if not block.kind.is_dirac)

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """All parameters and buffers by name, without gradients."""
        return {name: tensor.detach() for name, tensor in named_tensors(self.model).items()}

    @cached_property
    def batches(self) -> tuple[Any, ...]:
        """Batches of training inputs, `mapped` examples in all."""
        return calibration(self.data, self.structure.inputs, self.mapped).batches

    @cached_property
    def gradients(self) -> GateGradients:
        """The derivatives of each example's loss by a gate on each channel and block (see `gate_gradients`)."""
        structure, coordinates = self._gates
        return gate_derivatives(
            self.model, structure, coordinates, self.data, self.task, stand_in=stand_in, examples=self.examples
        )

    def gate_columns(self, gates: list[Any]) -> Tensor:
        """The derivatives by these gates: names of blocks, or (group, channel). Shape: (example, gate), float64."""
        found = self.gradients
        return found.gradients[:, [found.column(gate) for gate in gates]]

    @cached_property
    def _gates(self) -> tuple[Structure, Coordinates]:
        return find_gates(self.structure, self.model, streams=self.streams)
