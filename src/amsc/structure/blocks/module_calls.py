"""One call of a module as data: the leaves of its arguments and output, and what each of these is."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.structure.blocks.facts import ZERO, Fact, is_same_view
from amsc.structure.parts import Block, BlockCall, BlockKind, OutputLeaf

__all__ = ["Call", "NewChannels", "tensors_of"]

PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class NewChannels:
    """What a module is that, beside its input or alone, returns `size` entries along `axis` that are all zero."""

    block: Block
    axis: int
    size: int


@dataclass(frozen=True)
class Call:
    """The call of a `module`, by the leaves of its arguments: how each is told where to find it, and its value."""

    module: nn.Module
    arguments: tuple[tuple[OutputLeaf, Any], ...]

    @classmethod
    def of(cls, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Call":
        """The call of `module` with these arguments."""
        names = _positional_names(module)
        found: list[tuple[OutputLeaf, Any]] = []
        for position, value in enumerate(args):
            top = OutputLeaf("input", position, names[position] if position < len(names) else "")
            found += [(replace(top, path=path), leaf) for path, leaf in _leaves(value)]
        for keyword, value in kwargs.items():
            top = OutputLeaf("input", names.index(keyword) if keyword in names else -1, keyword)
            found += [(replace(top, path=path), leaf) for path, leaf in _leaves(value)]
        return cls(module, tuple(found))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors among the arguments."""
        return tuple(leaf for _, leaf in self.arguments if isinstance(leaf, Tensor))

    def block(self, output: Any, fact_of: Callable[[Tensor], Fact | None]) -> Block | None:
        """What the module is that gave this `output`, as a Block without name, parameters and MACs; None: no block.

        By what is known of tensors (`fact_of`), every leaf of the output must be one of the arguments, zeros of the
        shape of one, or a constant, and the arguments must be as they were.
        """
        if any(not _is_itself(tensor, fact_of(tensor)) for tensor in self.tensors):
            return None
        possible = [list(self._explanations(leaf, fact_of)) for _, leaf in _leaves(output)]
        if not all(possible):
            return None
        chosen = _chosen(possible)
        kind = _kind(chosen, output)
        return Block("", (), 0, kind, self._stand_in(chosen, output)) if kind else None

    def zeros(self, block: Block, output: Any) -> dict[int, tuple[Tensor, Tensor]]:
        """The tensors of the output in whose place the `block` leaves zeros, by their place, each with the argument
        whose shape these have."""
        if block.call is None:
            return {}
        arguments = {replace(address, kind="zeros"): value for address, value in self.arguments}
        leaves = zip(block.call.leaves, (leaf for _, leaf in _leaves(output)), strict=True)
        return {place: (made, arguments[leaf]) for place, (leaf, made) in enumerate(leaves) if leaf.kind == "zeros"}

    def new_channels(self, output: Any, fact_of: Callable[[Tensor], Fact | None]) -> NewChannels | None:
        """What the module is if all that this `output` has and its arguments have not are zeros along one axis: a layer
        of a DenseNet, whether or not it concatenates by itself; None otherwise."""
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        fact = fact_of(output)
        is_zero, core = fact is ZERO, None if fact is None else fact.core
        if (not is_zero and core is None) or any(not _is_itself(tensor, fact_of(tensor)) for tensor in self.tensors):
            return None
        for address, value in self.arguments:
            axis = _widened_axis(value, output) if isinstance(value, Tensor) else None
            if axis is not None and (is_zero or is_same_view(value, core)):
                leaf = replace(address, kind="empty", axis=axis) if is_zero else address
                size = output.shape[axis] - (0 if is_zero else value.shape[axis])
                return NewChannels(Block("", (), 0, BlockKind.DENSE, self._stand_in([leaf], output)), axis, size)
        return None

    def _stand_in(self, leaves: list[OutputLeaf], output: Any) -> BlockCall | None:
        """What must stand in for the module; None where `nn.Identity` does."""
        is_same = leaves[0].kind == "input" and not leaves[0].path if isinstance(output, Tensor) else False
        return None if is_same and _takes_one_tensor(self.module) else BlockCall(tuple(leaves), _layout(output))

    def _explanations(self, leaf: Any, fact_of: Callable[[Tensor], Fact | None]) -> Iterator[OutputLeaf]:
        """Everything that `leaf` of the output could be, the likeliest first."""
        if not isinstance(leaf, Tensor):
            is_plain = isinstance(leaf, PLAIN)
            for address, value in self.arguments:
                if leaf is not None and (value is leaf or (is_plain and type(value) is type(leaf) and value == leaf)):
                    yield address
            if is_plain:
                yield OutputLeaf("constant", constant=leaf)
            return
        tensors = [(address, value) for address, value in self.arguments if isinstance(value, Tensor)]
        fact = fact_of(leaf)
        if fact is not None and fact.kind == "same" and not fact.is_shifted:
            yield from (address for address, value in tensors if is_same_view(value, fact.twin))
        if fact is ZERO:
            yield from (replace(address, kind="zeros") for address, value in tensors if _are_alike(value, leaf))
            if not leaf.ndim:
                yield from (replace(address, kind="zero") for address, value in tensors if value.dtype == leaf.dtype)


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors in what a module returned."""
    return [leaf for _, leaf in _leaves(output) if isinstance(leaf, Tensor)]


def _takes_one_tensor(module: nn.Module) -> bool:
    """Whether forward has one parameter, which can come by position: nn.Identity can be called like it."""
    kinds = [parameter.kind for parameter in _forward_parameters(module)]
    return kinds in ([inspect.Parameter.POSITIONAL_ONLY], [inspect.Parameter.POSITIONAL_OR_KEYWORD])


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, leaf) of everything in nested tuples, lists and dicts with string keys; other objects are leaves."""
    if type(value) in (tuple, list):
        for index, part in enumerate(value):
            yield from _leaves(part, (*path, str(index)))
    elif type(value) is dict and all(isinstance(key, str) for key in value):
        for key, part in value.items():
            yield from _leaves(part, (*path, key))
    else:
        yield path, value


def _positional_names(module: nn.Module) -> list[str]:
    """Names of the positional parameters of forward, "" where the name cannot be used."""
    by_name, unnamed = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY
    found = (p for p in _forward_parameters(module) if p.kind in (by_name, unnamed))
    return [parameter.name if parameter.kind is by_name else "" for parameter in found]


def _forward_parameters(module: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # a forward implemented in C has no signature
        return []


def _is_itself(tensor: Tensor, fact: Fact | None) -> bool:
    return fact is not None and not fact.is_shifted and is_same_view(tensor, fact.twin)


def _chosen(possible: list[list[OutputLeaf]]) -> list[OutputLeaf]:
    """One meaning for each leaf: the first that no leaf before has, or else the first."""
    chosen: list[OutputLeaf] = []
    for options in possible:
        likely = [option for option in options if option.kind == options[0].kind]
        chosen.append(next((option for option in likely if option not in chosen), options[0]))
    return chosen


def _kind(chosen: list[OutputLeaf], output: Any) -> BlockKind | None:
    """Identity or branch by the first tensor of the output, None if that is neither."""
    for meaning, (_, leaf) in zip(chosen, _leaves(output), strict=True):
        if isinstance(leaf, Tensor):
            kinds = {kind.leaves: kind for kind in (BlockKind.IDENTITY, BlockKind.BRANCH)}
            return kinds.get(meaning.kind) if leaf.is_floating_point() else None
    return None


def _layout(output: Any) -> str:
    layout = pytree.tree_structure(output, is_leaf=lambda part: type(part) not in (tuple, list, dict))
    return str(pytree.treespec_dumps(layout))


def _widened_axis(one: Tensor, other: Tensor) -> int | None:
    """The only axis along which two tensors of a kind have not the same size."""
    if (one.ndim, one.dtype, one.device) != (other.ndim, other.dtype, other.device):
        return None
    differing = [axis for axis in range(one.ndim) if one.shape[axis] != other.shape[axis]]
    return differing[0] if len(differing) == 1 else None


def _are_alike(one: Tensor, other: Tensor) -> bool:
    return (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
