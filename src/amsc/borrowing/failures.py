"""What to say when the user's forward fails: on what, where, why, and what to do about it."""

import inspect
import traceback
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.errors import InputError

__all__ = ["forward_failed"]

MOST_NAMES = 8


def forward_failed(model: nn.Module, what: str, arguments: tuple[Any, Any], error: Exception) -> InputError:
    """The error that says what forward failed on (shapes and types), in which layer, how, and what to do."""
    tensors = _tensors(arguments)
    layer, came = _innermost(model, error)
    return InputError(
        f"{type(model).__name__}.forward failed on {what} of shape {', '.join(map(_shape, tensors))}"
        f"{_where(model, layer, came)}: {_said(error)}; {_cure(model, tensors, arguments, layer, error)}"
    )


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _shape(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {_type(tensor.dtype)}"


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _innermost(model: nn.Module, error: Exception) -> tuple[nn.Module, list[Tensor]]:
    """The module of the model that was running last, and the tensors that its forward was given."""
    known = {id(module): module for module in model.modules()}
    layer, came = model, list[Tensor]()
    for frame, _ in traceback.walk_tb(error.__traceback__):
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        owner = id(frame.f_locals.get(names[0])) if names else None
        if frame.f_code.co_name == "forward" and owner in known:
            layer, came = known[owner], _tensors([frame.f_locals.get(name) for name in names[1:]])
    return layer, came


def _where(model: nn.Module, layer: nn.Module, came: list[Tensor]) -> str:
    """The layer that failed and what it was given; nothing if that is the model itself."""
    if layer is model:
        return ""
    name = next(name for name, module in model.named_modules() if module is layer)
    is_torchs = type(layer).__module__.startswith("torch.") and not list(layer.children())
    kind = str(layer) if is_torchs else type(layer).__name__
    return f", in {name}, {kind}{', which was given ' + ', '.join(map(_shape, came)) if came else ''}"


def _said(error: Exception) -> str:
    """What an error says, without the numbers of tensors."""
    text = str(error) or type(error).__name__
    if "tensor(" not in text:
        return text
    if all(isinstance(argument, str) for argument in error.args):
        return f"{text.partition('tensor(')[0]}tensor(...)"
    return f"{type(error).__name__} of {', '.join(map(_kind, error.args))}"


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(map(_kind, value))})"
    return repr(value) if isinstance(value, str | int | float) else type(value).__name__


def _cure(model: nn.Module, tensors: list[Tensor], arguments: Any, layer: nn.Module, error: Exception) -> str:
    """What to do about it."""
    if isinstance(error, torch.OutOfMemoryError):
        return "give a smaller batch"
    if names := _unbound(model, arguments):
        return f"expected what forward({names}) takes: a tensor, a tuple of its arguments, or a dict of them by name"
    if isinstance(layer, nn.Embedding):
        return f"expected whole numbers from 0 to {layer.num_embeddings - 1}, such as tokens.long()"
    own, came = _floats([*model.parameters(), *model.buffers()]), _floats(tensors)
    if own and not came <= own:
        return f"expected {_named(own)}, as the model's weights are, not {_named(came - own)}; write {_converted(own)}"
    if own and not came and not any(isinstance(module, nn.Embedding) for module in model.modules()):
        return f"expected numbers of type {_named(own)}; write {_converted(own)}"
    return "give it inputs of the size and type that it gets in your own code"


def _unbound(model: nn.Module, arguments: tuple[Any, Any]) -> str:
    """The names that forward takes, if it takes others than these arguments; nothing if they fit."""
    positional, named = arguments
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # it has none
        return ""
    try:
        signature.bind(*positional, **named)
    except TypeError:
        return ", ".join([*signature.parameters][:MOST_NAMES]) + (
            ", ..." if len(signature.parameters) > MOST_NAMES else ""
        )
    return ""


def _floats(tensors: list[Tensor]) -> set[torch.dtype]:
    return {tensor.dtype for tensor in tensors if tensor.is_floating_point()}


def _named(types: set[torch.dtype]) -> str:
    return " or ".join(sorted(map(_type, types)))


def _converted(own: set[torch.dtype]) -> str:
    return f"inputs.to(torch.{min(map(_type, own))})"
