"""What stands where a block was: it hands its input on, or returns zeros, in the form the network expects."""

from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from amsc.structure.structure import BlockCall, OutputLeaf

__all__ = ["PassThrough", "stand_in"]


def stand_in(call: BlockCall | None) -> nn.Module:
    """What stands where a block was: `nn.Identity`, or what returns the leaves of `call`."""
    return nn.Identity() if call is None else PassThrough(call)


class PassThrough(nn.Module):
    """A module without parameters that returns what a removed block returns with its parameters at zero.

    Every leaf of the output is one of the arguments, whole or without any of its channels, zeros of an argument's shape
    or of a width of their own, or a constant. The arguments it does not need may be anything, and each may come by
    position or by name.

        PassThrough(BlockCall((OutputLeaf("input", 0, "hidden_states"), OutputLeaf("constant")), layout))(x, mask=m)
        # (x, None)

    Args:
        call: the leaves of the output and their layout.
    """

    def __init__(self, call: BlockCall) -> None:
        super().__init__()
        self.call = call
        layout = pytree.treespec_loads(call.layout)
        self._template = pytree.tree_unflatten(list(range(len(call.leaves))), layout)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output for these arguments; TypeError if one that is needed is missing."""
        return self._built(self._template, args, kwargs)

    def extra_repr(self) -> str:
        """What it returns, for printing."""
        return ", ".join(_described(leaf) for leaf in self.call.leaves)

    def _built(self, template: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(template, tuple):
            return tuple([self._built(part, args, kwargs) for part in template])
        if isinstance(template, list):
            return [self._built(part, args, kwargs) for part in template]
        if isinstance(template, dict):
            return {key: self._built(part, args, kwargs) for key, part in template.items()}
        return _value(self.call.leaves[template], args, kwargs)


def _value(leaf: OutputLeaf, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if leaf.kind == "constant":
        return leaf.constant
    argument = _argument(leaf, args, kwargs)
    if leaf.kind == "zeros" and leaf.size:
        return argument.new_zeros([leaf.size if n == leaf.axis else size for n, size in enumerate(argument.shape)])
    if leaf.kind == "zeros":
        return torch.zeros_like(argument)
    if leaf.kind == "empty":
        return argument.narrow(leaf.axis, 0, 0)
    return argument.new_zeros(()) if leaf.kind == "zero" else argument


def _argument(leaf: OutputLeaf, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if leaf.keyword in kwargs:
        value = kwargs[leaf.keyword]
    elif 0 <= leaf.position < len(args):
        value = args[leaf.position]
    else:
        raise TypeError(
            f"the removed block passes its argument {leaf.keyword or leaf.position!r} on, but was called with"
            f" {len(args)} positional arguments and {sorted(kwargs) or 'no keywords'}"
        )
    for key in leaf.path:
        value = value[key] if isinstance(value, dict) else value[int(key)]
    return value


def _described(leaf: OutputLeaf) -> str:
    if leaf.kind == "constant":
        return repr(leaf.constant)
    place = ".".join((leaf.keyword or str(leaf.position), *leaf.path))
    if leaf.kind == "empty":
        return f"empty({place}, axis={leaf.axis})"
    if leaf.size:
        return f"zeros({place}, {leaf.size} on axis {leaf.axis})"
    return place if leaf.kind == "input" else f"{leaf.kind}({place})"
