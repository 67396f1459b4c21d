"""Reading and calling a model that belongs to somebody else: borrow it, and give it back as it was."""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from amsc.errors import AmscError, InputError, ModelError

__all__ = [
    "InputSpec",
    "TensorSpec",
    "borrowed",
    "call_arguments",
    "check_devices",
    "copied",
    "copied_inputs",
    "named_tensors",
    "output_leaves",
    "random_inputs",
    "run_model",
    "set_tensor",
    "storage_id",
    "unfused_attention",
]


@dataclass(frozen=True)
class TensorSpec:
    """Shape, dtype (such as "float32") and value range of one input; a non-tensor input is `constant`."""

    shape: tuple[int, ...] = ()
    dtype: str = ""
    low: float = 0.0
    high: float = 0.0
    constant: Any = None


@dataclass(frozen=True)
class InputSpec:
    """The arguments of a call as data: its leaves, and the layout that puts them back together."""

    leaves: tuple[TensorSpec, ...]
    layout: str

    @classmethod
    def of(cls, example_inputs: Any) -> "InputSpec":
        """The specification of `example_inputs` (a tensor, a tuple or list of positional arguments, or a
        dict of keyword arguments)."""
        leaves, layout = pytree.tree_flatten(call_arguments(example_inputs))
        return cls(tuple(_leaf_spec(leaf) for leaf in leaves), pytree.treespec_dumps(layout))


def _leaf_spec(leaf: Any) -> TensorSpec:
    if not isinstance(leaf, Tensor):
        return TensorSpec(constant=leaf)
    has_range = leaf.numel() > 0 and not leaf.is_complex() and leaf.device.type != "meta"
    low, high = (float(leaf.min()), float(leaf.max())) if has_range else (0.0, 1.0)
    return TensorSpec(tuple(leaf.shape), str(leaf.dtype).removeprefix("torch."), low, high)


def random_inputs(spec: InputSpec, device: torch.device, generator: torch.Generator) -> Any:
    """Random example inputs (a tuple of positional or a dict of keyword arguments) of the specified shapes: standard
    normal for floating point, uniform between the values seen for integers. `generator` lives on the CPU."""
    leaves = [_random_leaf(leaf, device, generator) for leaf in spec.leaves]
    positional, keyword = pytree.tree_unflatten(leaves, pytree.treespec_loads(spec.layout))
    return keyword or positional


def _random_leaf(spec: TensorSpec, device: torch.device, generator: torch.Generator) -> Any:
    if not spec.dtype:
        return spec.constant
    dtype = getattr(torch, spec.dtype)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(spec.shape, generator=generator).to(device, dtype)
    values = torch.randint(int(spec.low), int(spec.high) + 1, spec.shape, generator=generator)
    return values.to(device, dtype)


def call_arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`example_inputs` as (positional, keyword) arguments of `forward`.

    Raises:
        InputError: it is neither a tensor nor a tuple, list or dict that holds one.
    """
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), dict(example_inputs))
    elif isinstance(example_inputs, tuple | list):
        arguments = (tuple(example_inputs), {})
    else:
        raise InputError(
            "example_inputs must be a tensor, a tuple of positional arguments or a dict of keyword arguments, "
            f"not {type(example_inputs).__name__}"
        )
    if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(arguments)):
        raise InputError("example_inputs holds no tensor; give one batch as the model's forward takes it")
    return arguments


def copied_inputs(example_inputs: Any) -> Any:
    """The same inputs in tensors of their own: a forward may write to what it is given."""
    return pytree.tree_map_only(Tensor, Tensor.clone, example_inputs)


def check_devices(model: nn.Module, example_inputs: Any) -> None:
    """Raises InputError if `example_inputs` are not where the model is."""
    devices = {tensor.device for tensor in named_tensors(model).values()}
    for leaf in pytree.tree_leaves(call_arguments(example_inputs)):
        if isinstance(leaf, Tensor) and devices and leaf.device not in devices:
            raise InputError(
                f"example_inputs are on {leaf.device}, the model is on {', '.join(sorted(map(str, devices)))}; "
                "move one to the other"
            )


def run_model(model: nn.Module, example_inputs: Any, tensors: Mapping[str, Tensor] | None = None) -> Any:
    """The model's output for `example_inputs` (with `tensors` in the place of its own), with failures explained.

    Raises:
        InputError: forward fails on these inputs, or they are on another device than the model.
    """
    args, kwargs = call_arguments(example_inputs)
    if tensors is None:
        check_devices(model, example_inputs)
    try:
        return model(*args, **kwargs) if tensors is None else functional_call(model, dict(tensors), args, kwargs)
    except AmscError:
        raise
    except Exception as error:  # the user's forward may raise anything
        shapes = [tuple(t.shape) for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        raise InputError(
            f"{type(model).__name__}.forward failed on example_inputs of shape {', '.join(map(str, shapes))}: "
            f"{error or type(error).__name__}"
        ) from error


def output_leaves(output: Any) -> dict[str, Tensor | int | float]:
    """The tensors and numbers of an output by where they stand in it, such as "output[0]" or "output.logits".

    Looks into tuples, lists, dicts and dataclasses; other objects, such as the caches of language models, are passed
    over: they are for the model itself."""
    found: dict[str, Tensor | int | float] = {}
    leaves, _ = pytree.tree_flatten_with_path({"output": output})
    for path, leaf in leaves:
        name = "output" + pytree.keystr(path[1:])
        if isinstance(leaf, Tensor | int | float):
            found[name] = leaf
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            for part in dataclasses.fields(leaf):
                inner = output_leaves(getattr(leaf, part.name, None))
                found |= {f"{name}.{part.name}{key.removeprefix('output')}": value for key, value in inner.items()}
    return found


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, every tensor once (under its first name)."""
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    return tensors | dict(model.named_buffers())


def set_tensor(model: nn.Module, name: str, value: Tensor) -> None:
    """Put `value` in the place of the parameter or buffer `name`, and of everything tied to it."""
    old = named_tensors(model)[name]
    new = nn.Parameter(value, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else value
    for module in model.modules():
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for table in tables:
            table.update({key: new for key, tensor in table.items() if tensor is old})


def copied(model: nn.Module, replaced: dict[int, Any] | None = None) -> nn.Module:
    """A copy of `model` that shares nothing with it, without the gradients, with other tensors in the place of those
    with the ids in `replaced`.

    Raises:
        ModelError: it cannot be copied.
    """
    try:
        return copy.deepcopy(model, replaced)
    except Exception as error:  # whatever the user's own __deepcopy__ or __reduce__ raises
        raise ModelError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}); amsc works on a copy. Remove"
            " what copy.deepcopy cannot take (open files, locks, stored activations), or give the model a __deepcopy__"
        ) from error


def storage_id(tensor: Tensor) -> int:
    """The same number for tensors that share their memory (as long as one of them lives)."""
    return int(tensor.untyped_storage()._cdata)


@contextlib.contextmanager
def borrowed(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode and without gradient recording; whatever happens inside, its train/eval
    flags and other attributes, its buffers, gradients and the random number generators come back as they were.

    Raises:
        ModelError: `model` is not an nn.Module.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(model).__name__}")
    attributes = [(module, _attributes(module)) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    uses_cuda = any(p.is_cuda for p in model.parameters())
    try:
        with torch.random.fork_rng(devices=None if uses_cuda else []), torch.no_grad():
            model.eval()
            yield model
    finally:
        for module, known in attributes:
            _give_back(module, known)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, old in buffers:
                buffer.copy_(old)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What the module's attributes are, with copies of its tables: parameters, submodules, hooks, caches."""
    return {key: _Table(value) if isinstance(value, dict) else value for key, value in vars(module).items()}


def _give_back(module: nn.Module, known: Mapping[str, Any]) -> None:
    """Undo what a forward has set, replaced or added."""
    own = vars(module)
    for key in [key for key in own if key not in known]:
        del own[key]
    for key, value in known.items():
        own[key] = value.given_back() if isinstance(value, _Table) else value


class _Table:
    """A dict among the attributes of a module, and what it holds."""

    def __init__(self, table: dict[Any, Any]) -> None:
        self._table, self._items = table, list(table.items())

    def given_back(self) -> dict[Any, Any]:
        """The same dict with what it held."""
        own = list(self._table.items())
        if len(own) != len(self._items) or any(a[1] is not b[1] for a, b in zip(own, self._items, strict=True)):
            self._table.clear()
            self._table.update(self._items)
        return self._table


@contextlib.contextmanager
def unfused_attention() -> Iterator[None]:
    """Attention runs as plain matrix products: fused kernels hide them from whoever watches the operators."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
