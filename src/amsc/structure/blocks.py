"""Blocks found by behaviour: a submodule that returns its input when its own parameters are zero."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from amsc.model_access import run_model

__all__ = ["find_blocks"]


def find_blocks(model: nn.Module, inputs: list[Any], users: Mapping[str, set[str]]) -> tuple[str, ...]:
    """Names of the submodules that are the identity at zero on each of `inputs`, the innermost ones.

    A submodule counts if it runs once per forward pass, takes one tensor and shares no parameter with what is
    outside. `model` is borrowed (eval mode, no gradients). `users`: modules that used each parameter.
    """
    found = {name for name, module in model.named_modules() if name and any(True for _ in module.children())}
    for arguments in inputs:
        found = _identities(model, arguments, found)
    own = {name for name in found if _owns_its_parameters(model, name, users)}
    return tuple(
        name
        for name, _ in model.named_modules()
        if name in own and not any(other.startswith(f"{name}.") for other in own)
    )


def _identities(model: nn.Module, arguments: Any, names: set[str]) -> set[str]:
    """Those of the submodules `names` that are the identity at zero in one run of the model."""
    candidates = {model.get_submodule(name): name for name in names}
    calls: Counter[str] = Counter()
    identities: set[str] = set()
    is_trying = False

    def try_zero(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        nonlocal is_trying
        if is_trying:
            return
        name = candidates[module]
        calls[name] += 1
        if not _same_kind(args, kwargs, output):
            return
        zeros = {key: torch.zeros_like(value) for key, value in module.named_parameters()}
        is_trying = True
        try:
            silenced = functional_call(module, zeros, args)
        finally:
            is_trying = False
        if torch.equal(silenced, args[0]):
            identities.add(name)

    handles = [module.register_forward_hook(try_zero, with_kwargs=True) for module in candidates]
    try:
        run_model(model, arguments)
    finally:
        for handle in handles:
            handle.remove()
    return {name for name in identities if calls[name] == 1}


def _same_kind(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> bool:
    """One tensor in, one tensor of the same shape out."""
    return (
        len(args) == 1
        and not kwargs
        and isinstance(args[0], Tensor)
        and isinstance(output, Tensor)
        and args[0].shape == output.shape
        and args[0].dtype == output.dtype
    )


def _owns_its_parameters(model: nn.Module, name: str, users: Mapping[str, set[str]]) -> bool:
    """It has parameters, and nothing outside the submodule reads them."""
    own = {id(parameter) for parameter in model.get_submodule(name).parameters()}
    names = [full for full, parameter in model.named_parameters() if id(parameter) in own]
    inside = f"{name}."
    return bool(names) and all(
        full.startswith(inside) and all(user == name or user.startswith(inside) for user in users.get(full, ()))
        for full in names
    )
