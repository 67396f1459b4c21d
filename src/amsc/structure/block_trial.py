"""What a submodule computes with its parameters at zero, found by running it alone: its input, zeros, or neither."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from amsc.structure.calls import (
    PLAIN,
    Arguments,
    argument_leaves,
    copied_arguments,
    leaves,
    perturbed,
    real_arguments,
    takes_one_tensor,
)
from amsc.structure.values import Block, BlockCall, OutputLeaf

__all__ = ["adds_something", "could_be_block", "tried_at_zero"]

# A larger module on the meta device is not materialised to be tried.
MOST_META_PARAMETERS = 300_000_000


def could_be_block(module: nn.Module, arguments: Arguments, output: Any) -> bool:
    """Whether the first tensor of the output has the shape and dtype of an argument."""
    first = _first_tensor(output)
    return first is not None and any(_alike(leaf, first) for _, leaf in argument_leaves(module, arguments))


def tried_at_zero(module: nn.Module, arguments: Arguments) -> Block | None:
    """What the module is with its parameters at zero, as a Block without name, parameters and MACs; None: no block.

    It is run on the arguments and on perturbed ones. Every leaf of its output must both times be one of its arguments,
    zeros of the shape of one, or a constant, and it must leave its arguments as they are.
    """
    try:
        return _tried(module, arguments)
    except Exception:  # the user's forward may raise anything on arguments it was not called with
        return None


def adds_something(module: nn.Module, arguments: Arguments, silent: Collection[str], block: Block | None) -> bool:
    """Whether `module` still does its work when its submodules `silent` are zero, and they were not all of it.

    With generic parameters, but those of `silent` at zero, the output must depend on the arguments; if the module is an
    identity `block`, it must also differ from its input by more than a constant, or else removing it whole is better.
    """
    try:
        first = _base(module, arguments)
        second = perturbed(first)
        values = _values(module, silent)
        outputs = [_first_tensor(_run(module, values, inputs)) for inputs in (first, second)]
        if outputs[0] is None or outputs[1] is None or not _differ(outputs[0], outputs[1], outputs[0]):
            return False
        if block is None or block.kind != "identity":
            return True
        passed = [_passed(module, inputs, block) for inputs in (first, second)]
        return _differ(outputs[0] - passed[0], outputs[1] - passed[1], outputs[0])
    except Exception:  # as above
        return False


def _tried(module: nn.Module, arguments: Arguments) -> Block | None:
    base = _base(module, arguments)
    values = _values(module, None)
    output, possible = _meanings(module, values, base)
    if not all(possible):
        return None
    kinds = {leaf.shape for _, leaf in leaves(output) if isinstance(leaf, Tensor)}
    other_output, other_possible = _meanings(module, values, perturbed(base, kinds))
    if _layout(output) != _layout(other_output):
        return None
    left = [[leaf for leaf in one if leaf in two] for one, two in zip(possible, other_possible, strict=True)]
    if not all(left):
        return None
    chosen = _chosen(left)
    kind = _kind(chosen, output)
    is_plain = isinstance(output, Tensor) and kind == "identity" and not chosen[0].path and takes_one_tensor(module)
    call = None if is_plain else BlockCall(tuple(chosen), _layout(output))
    return Block("", (), 0, kind, call) if kind else None


def _meanings(module: nn.Module, values: dict[str, Tensor], base: Arguments) -> tuple[Any, list[list[OutputLeaf]]]:
    """The output for these arguments, and for each leaf of it all that it could be.

    Raises:
        ValueError: the call changes its arguments.
    """
    inputs = copied_arguments(base)
    output = functional_call(module, values, inputs.args, inputs.kwargs)
    before, after = argument_leaves(module, base), argument_leaves(module, inputs)
    for (_, old), (_, new) in zip(before, after, strict=True):
        if isinstance(old, Tensor) and not torch.equal(old, new):
            raise ValueError("it writes into its arguments")
    return output, [list(_explanations(leaf, after)) for _, leaf in leaves(output)]


def _explanations(leaf: Any, arguments: list[tuple[OutputLeaf, Any]]) -> Iterator[OutputLeaf]:
    """Everything that `leaf` of the output could be, the likeliest first."""
    if not isinstance(leaf, Tensor):
        is_plain = isinstance(leaf, PLAIN)
        for address, value in arguments:
            if leaf is not None and (value is leaf or (is_plain and type(value) is type(leaf) and value == leaf)):
                yield address
        if is_plain:
            yield OutputLeaf("constant", constant=leaf)
        return
    yield from (address for address, value in arguments if _alike(value, leaf) and torch.equal(value, leaf))
    if not bool(leaf.count_nonzero()):
        yield from (replace(address, kind="zeros") for address, value in arguments if _alike(value, leaf))
        if not leaf.ndim:
            same = (place for place, value in arguments if isinstance(value, Tensor) and value.dtype == leaf.dtype)
            yield from (replace(address, kind="zero") for address in same)


def _chosen(possible: list[list[OutputLeaf]]) -> list[OutputLeaf]:
    """One meaning for each leaf: the first that no leaf before has, or else the first."""
    chosen: list[OutputLeaf] = []
    for options in possible:
        likely = [option for option in options if option.kind == options[0].kind]
        chosen.append(next((option for option in likely if option not in chosen), options[0]))
    return chosen


def _kind(chosen: list[OutputLeaf], output: Any) -> str:
    """ "identity" or "branch" by the first tensor of the output, "" if that is neither."""
    for meaning, (_, leaf) in zip(chosen, leaves(output), strict=True):
        if isinstance(leaf, Tensor):
            kinds = {"input": "identity", "zeros": "branch"} if leaf.is_floating_point() else {}
            return kinds.get(meaning.kind, "")
    return ""


def _layout(output: Any) -> str:
    layout = pytree.tree_structure(output, is_leaf=lambda part: type(part) not in (tuple, list, dict))
    return str(pytree.treespec_dumps(layout))


def _base(module: nn.Module, arguments: Arguments) -> Arguments:
    if not _is_meta(module):
        return arguments
    if sum(parameter.numel() for parameter in module.parameters()) > MOST_META_PARAMETERS:
        raise ValueError("too large to try")
    return real_arguments(arguments)


def _values(module: nn.Module, silent: Collection[str] | None) -> dict[str, Tensor]:
    """Tensors to run with: those of the submodules `silent` (None: all) at zero, the others generic; known buffers on
    the meta device as they are initially."""
    prefixes = ("",) if silent is None else tuple(f"{name}." for name in silent)
    values = {
        name: _zeros(parameter) if name.startswith(prefixes) else _generic(parameter)
        for name, parameter in module.named_parameters()
        if parameter.is_floating_point()
    }
    return values | (dict(_initial_buffers(module)) if _is_meta(module) else {})


def _zeros(parameter: Tensor) -> Tensor:
    """Zeros of its shape that take no memory."""
    return torch.zeros((), dtype=parameter.dtype, device=_device(parameter)).expand(parameter.shape)


def _generic(parameter: Tensor) -> Tensor:
    """Random numbers of its shape, of about the size a trained weight has; on the meta device, where a layer may not
    fit into memory, a window that moves over a few of them."""
    options: dict[str, Any] = {"dtype": parameter.dtype, "device": _device(parameter)}
    if parameter.ndim < 2:
        return torch.rand(parameter.shape, **options) + 0.5
    scale = (parameter.numel() / max(1, len(parameter))) ** -0.5
    if not parameter.is_meta:
        return torch.randn(parameter.shape, **options).mul_(scale)
    strides = [1 + 2 * axis for axis in range(parameter.ndim)]
    size = 1 + sum(stride * (length - 1) for stride, length in zip(strides, parameter.shape, strict=True))
    return torch.randn(size, **options).mul_(scale).as_strided(parameter.shape, strides)


def _device(tensor: Tensor) -> torch.device:
    return torch.device("cpu") if tensor.is_meta else tensor.device


def _is_meta(module: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in module.parameters())


def _initial_buffers(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Running statistics as they are initially; other buffers on the meta device are unknown, which is an error."""
    for name, buffer in module.named_buffers():
        if buffer.is_meta:
            if not hasattr(module.get_submodule(name.rpartition(".")[0]), "reset_running_stats"):
                raise ValueError(f"the values of {name} are not known")
            yield name, torch.full(buffer.shape, float(name.endswith("var")), dtype=buffer.dtype)


def _run(module: nn.Module, values: dict[str, Tensor], arguments: Arguments) -> Any:
    inputs = copied_arguments(arguments)
    return functional_call(module, values, inputs.args, inputs.kwargs)


def _passed(module: nn.Module, arguments: Arguments, block: Block) -> Tensor:
    """The argument that the identity `block` returns first."""
    addresses = argument_leaves(module, arguments)
    wanted = [leaf for leaf in block.call.leaves if leaf.kind == "input"] if block.call else [addresses[0][0]]
    tensors = (value for place in wanted for address, value in addresses if address == place)
    found: Tensor = next(value for value in tensors if isinstance(value, Tensor))
    return found


def _first_tensor(output: Any) -> Tensor | None:
    return next((leaf for _, leaf in leaves(output) if isinstance(leaf, Tensor)), None)


def _alike(value: Any, leaf: Tensor) -> bool:
    return isinstance(value, Tensor) and _kind_of(value) == _kind_of(leaf)


def _kind_of(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


def _differ(one: Tensor, other: Tensor, scale: Tensor) -> bool:
    """Whether two tensors differ by more than rounding at the size of `scale`."""
    difference = float((one - other).abs().max())
    return difference > 16 * torch.finfo(scale.dtype).eps * float(scale.abs().max())
