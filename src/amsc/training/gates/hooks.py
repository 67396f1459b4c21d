"""Gates on the outputs of layers and blocks, one for each example, put there by hooks for one forward pass."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils import _pytree as pytree

from amsc.errors import ModelError

__all__ = ["GateHooks", "GatedLayer", "Gates", "block_hooks", "layer_of"]

Slices = tuple[str, int, Tensor]
"""A parameter, an axis, and the gate of each position on it."""
Attach = Callable[[], list[Any]]
"""Registers hooks and returns their handles."""


class Gates:
    """Ones that every example has for itself, and the derivatives of a loss by them.

    Args:
        count: number of examples.
        num_blocks: gates of blocks, which come first.
        num_channels: gates of channels.
        device: where the network is.
    """

    def __init__(self, count: int, num_blocks: int, num_channels: int, device: torch.device) -> None:
        self.count, self.num_blocks, self._size = count, num_blocks, num_blocks + num_channels
        # one more column for positions that no gate multiplies
        self._values = torch.ones(count, self._size + 1, device=device, requires_grad=True)

    def channels(self, leaf: Tensor) -> Tensor:
        """Gates of the channels with these numbers, which lie where the network is. Shape: (example, position)."""
        return self._values[:, self.num_blocks + leaf]

    def block(self, number: int) -> Tensor:
        """Gates of one block. Shape: example."""
        return self._values[:, number]

    def derivatives(self, loss: Tensor, *, keep: bool = False) -> Tensor:
        """Derivatives of `loss` by each gate, zero where it does not depend on it; `keep` what other losses of the same
        pass need. Shape: (example, gate), float64."""
        if not loss.requires_grad:
            return torch.zeros(self.count, self._size, dtype=torch.float64)
        (found,) = torch.autograd.grad(loss, self._values, allow_unused=True, retain_graph=keep)
        found = torch.zeros_like(self._values) if found is None else found
        return found[:, : self._size].detach().cpu().double()


class GateHooks(contextlib.AbstractContextManager[None]):
    """The hooks are there inside of the `with`, and gone after it."""

    def __init__(self, attach: Sequence[Attach]) -> None:
        self._attach = attach
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        for attach in self._attach:
            for handle in attach():
                self._stack.callback(handle.remove)

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@dataclass(frozen=True, eq=False)
class GatedLayer:
    """A layer whose output has its positions along `axis`; `weight` and `bias` are the gates of their positions, None
    where the layer has no such parameter or no gate multiplies it. `is_one` says that both have the same gates."""

    module: nn.Module
    axis: int
    weight: Tensor | None
    bias: Tensor | None
    is_one: bool = False

    def hook(self, gates: Gates) -> Attach:
        """Multiplies what weight and bias contribute to the output by their gates."""

        def gated(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            value = output.detach()
            if self.weight is not None and self.is_one:
                return output + self._spread(gates.channels(self.weight) - 1, output) * value
            bias = getattr(module, "bias", None)
            shift = None if bias is None else self._along(bias.detach(), output)
            if self.weight is not None:
                part = value if shift is None else value - shift
                output = output + self._spread(gates.channels(self.weight) - 1, output) * part
            if self.bias is not None and shift is not None:
                output = output + self._spread(gates.channels(self.bias) - 1, output) * shift
            return output

        return lambda: [self.module.register_forward_hook(gated)]

    def _along(self, vector: Tensor, output: Tensor) -> Tensor:
        axis = self.axis % output.ndim
        return vector.view([-1 if a == axis else 1 for a in range(output.ndim)])

    def _spread(self, gate: Tensor, output: Tensor) -> Tensor:
        """`gate` so shaped that it multiplies `output`, whose first axis holds the examples one after the other."""
        axis = self.axis % output.ndim
        gate = _repeated(gate, output).to(output.dtype)
        return gate.view([len(output) if a == 0 else -1 if a == axis else 1 for a in range(output.ndim)])


def layer_of(model: nn.Module, slices: Sequence[Slices]) -> list[GatedLayer] | None:
    """The layers that hold all of these parameters; None where one is in nothing whose output has its positions."""
    by_tensor = {id(model.get_parameter(name)): (axis, leaf) for name, axis, leaf in slices}
    found, layers = set[int](), []
    for module in model.modules():
        own = {key: id(p) for key, p in module._parameters.items() if p is not None and id(p) in by_tensor}
        if not own:
            continue
        axes = _axes(module)
        if axes is None or not own.keys() <= {"weight", "bias"}:
            return None
        if "weight" in own and by_tensor[own["weight"]][0] != axes[0]:
            return None
        leaves = {key: by_tensor[tensor][1] for key, tensor in own.items()}
        weight, bias = leaves.get("weight"), leaves.get("bias")
        is_one = weight is not None and bias is not None and torch.equal(weight, bias)
        layers.append(GatedLayer(module, axes[1], weight, bias, is_one))
        found.update(own.values())
    return layers if len(found) == len(by_tensor) else None


def _axes(module: nn.Module) -> tuple[int, int] | None:
    """(axis of the weight, axis of the output) along which an ordinary layer has its channels; None of others."""
    if isinstance(module, _ConvTransposeNd):
        return (1, 1) if module.groups == 1 else None
    if isinstance(module, _ConvNd | _BatchNorm | _InstanceNorm | nn.GroupNorm):
        return (0, 1)
    is_row = isinstance(module, nn.LayerNorm | nn.RMSNorm) and len(module.normalized_shape) == 1
    return (0, -1) if is_row or isinstance(module, nn.Linear) else None


def block_hooks(module: nn.Module, stand_in: nn.Module, gates: Gates, number: int) -> Attach:
    """Makes of the block's output y the output r + s (y - r); r is what `stand_in` returns, copied before the block
    runs, which may change its input."""
    before: list[list[Any]] = []

    def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
        before.append([_copy(leaf) for leaf in pytree.tree_leaves(stand_in(*args, **kwargs))])

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        leaves, layout = pytree.tree_flatten(output)
        rest = before.pop()
        if len(rest) != len(leaves):
            raise ModelError(
                f"a block ({type(module).__name__}) returned {len(leaves)} values where {len(rest)} were traced, so it "
                "has no gate; keep it with keep=[...]"
            )
        return pytree.tree_unflatten(
            [_gated(y, r, gates.block(number)) for y, r in zip(leaves, rest, strict=True)], layout
        )

    return lambda: [
        module.register_forward_pre_hook(enter, with_kwargs=True),
        module.register_forward_hook(leave, with_kwargs=True),
    ]


def _copy(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _gated(output: Any, rest: Any, gate: Tensor) -> Any:
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return output
    part = output.detach() - rest if isinstance(rest, Tensor) and rest.shape in (output.shape, ()) else output.detach()
    if len(gate) > 1 and (not output.ndim or len(output) % len(gate)):
        if bool(part.any()):
            raise ModelError(f"an output of shape {tuple(output.shape)} has no rows for each of {len(gate)} examples")
        return output  # a mask that is handed through, say
    gate = gate if len(gate) == 1 else _repeated(gate, output)
    return output + (gate - 1).to(output.dtype).view(-1 if output.ndim else (), *[1] * (output.ndim - 1)) * part


def _repeated(gate: Tensor, output: Tensor) -> Tensor:
    """Each example's gates as often as it has rows in `output`, which hold the examples one after the other."""
    return gate.repeat_interleave(len(output) // len(gate), 0) if len(output) != len(gate) else gate
