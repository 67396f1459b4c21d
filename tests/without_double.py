"""An MPS device on a machine without one: its tensors cannot be float64, and it has a random generator."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

MPS = torch.device("mps")
DOUBLE = (torch.float64, torch.complex128)


class OnMPS(Tensor):
    """A tensor on the CPU that says it is on an MPS device, and refuses what such a device cannot do."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return MPS
        result = super().__torch_function__(func, types, args, kwargs or {})
        if func is Tensor.cpu:
            return result.as_subclass(Tensor)
        pytree.tree_map_only(OnMPS, _refuse_double, result)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        new: Tensor = self.detach().clone()
        new = nn.Parameter(new, self.requires_grad) if isinstance(self, nn.Parameter) else new
        memo[id(self)] = new
        return new


def _refuse_double(tensor: Tensor) -> None:
    if tensor.dtype in DOUBLE:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")


class _Made(TorchFunctionMode):
    """What is made on an MPS device, or moved there or back, is so in name."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = next((one for one in (*args, *kwargs.values()) if isinstance(one, torch.device)), None)
        if device is None or func == torch.device:
            return func(*args, **kwargs)
        args, kwargs = pytree.tree_map_only(
            torch.device, lambda one: torch.device("cpu") if one == MPS else one, (args, kwargs)
        )
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor):
            return result
        if device != MPS:
            return result.as_subclass(Tensor)
        _refuse_double(result)
        return result.as_subclass(OnMPS)


def on_mps(model: nn.Module) -> nn.Module:
    """The model with its tensors there."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                there = parameter.detach().as_subclass(OnMPS)
                module._parameters[name] = nn.Parameter(there, parameter.requires_grad)  # type: ignore[arg-type]
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.as_subclass(OnMPS)
    return model


@contextmanager
def mps() -> Iterator[torch.Generator]:
    """A context with such a device, and its generator."""
    generator = torch.Generator()
    with pytest.MonkeyPatch.context() as patched, _Made():
        patched.setattr(torch.mps, "manual_seed", generator.manual_seed)
        patched.setattr(torch.mps, "get_rng_state", lambda device="mps": generator.get_state())
        patched.setattr(torch.mps, "set_rng_state", lambda state, device="mps": generator.set_state(state))
        yield generator
