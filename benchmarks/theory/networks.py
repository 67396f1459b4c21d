"""Small residual networks: one that amsc traces, and many of them side by side.

The theorem is about many replicates of one estimator. Fitted one by one they cost hours, so a `Stack` holds the
weights of all replicates in the parameters of one module. Replicates do not touch each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from amsc import trace
from amsc.structure import Structure

__all__ = ["ResidualNet", "Shape", "Stack", "downers", "drawn_stack", "structure_of", "uppers"]

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """How many inputs (and outputs) a network has, and how many hidden units in each of its blocks."""

    inputs: int
    units: tuple[int, ...]


class ResidualBlock(nn.Module):
    """x + V tanh(W x + b)."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(inputs, units), nn.Linear(units, inputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.down(torch.tanh(self.up(x)))
        return found


class ResidualNet(nn.Module):
    """Blocks one after the other: a map of a space into itself."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualBlock(shape.inputs, units) for units in shape.units))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (example, input), both."""
        found: Tensor = self.blocks(x)
        return found


def structure_of(shape: Shape) -> Structure:
    """What amsc's tracing finds in such a network."""
    return trace(ResidualNet(shape), torch.randn(2, shape.inputs))


class Stack(nn.Module):
    """The same network with other weights in each replicate: every parameter holds those of all, below each other."""

    def __init__(self, shape: Shape, state: State, replicates: int) -> None:
        super().__init__()
        self.shape, self.replicates = shape, replicates
        self.blocks = ResidualNet(shape).blocks
        for name, parameter in self.named_parameters():
            parameter.data = state[name].detach().clone()

    @classmethod
    def of(cls, shape: Shape, states: Sequence[State]) -> "Stack":
        """Of the weights of single networks."""
        return cls(shape, {name: torch.cat([state[name] for state in states]) for name in states[0]}, len(states))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (replicate, input, example), both: with examples last, products of small matrices are fast."""
        r, p = self.replicates, self.shape.inputs
        for up, down, m in zip(uppers(self), downers(self), self.shape.units, strict=True):
            hidden = torch.tanh(torch.baddbmm(up.bias.view(r, m, 1), up.weight.view(r, m, p), x))
            x = torch.baddbmm(x, down.weight.view(r, p, m), hidden)
        return x

    def state(self) -> dict[str, Tensor]:
        """A copy of the weights of all replicates."""
        return {name: parameter.detach().clone() for name, parameter in self.named_parameters()}

    def state_of(self, replicate: int) -> dict[str, Tensor]:
        """The weights of one replicate, as a `ResidualNet` takes them."""
        return {name: tensor.chunk(self.replicates)[replicate] for name, tensor in self.state().items()}


def uppers(stack: Stack) -> list[nn.Linear]:
    """W and b of each block, of all replicates."""
    return [module for name, module in stack.named_modules() if isinstance(module, nn.Linear) and name.endswith("up")]


def downers(stack: Stack) -> list[nn.Linear]:
    """V of each block, of all replicates."""
    return [module for name, module in stack.named_modules() if isinstance(module, nn.Linear) and name.endswith("down")]


def drawn_stack(shape: Shape, replicates: int, generator: torch.Generator) -> Stack:
    """Untrained networks: W of unit rows on average, V small."""
    states = []
    for _ in range(replicates):
        state = {}
        for name, parameter in ResidualNet(shape).named_parameters():
            scale = 0.3 if name.endswith("down.weight") else shape.inputs**-0.5
            state[name] = scale * torch.randn(parameter.shape, generator=generator)
        states.append(state)
    return Stack.of(shape, states)
