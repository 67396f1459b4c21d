"""The user's forward, run as it is: on which inputs, with which tensors, and its failures explained."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from amsc.borrowing.failures import forward_failed
from amsc.borrowing.inputs import call_arguments, example_calls
from amsc.borrowing.model import named_tensors
from amsc.errors import AmscError, InputError

__all__ = ["check_devices", "run_model", "unfused_attention"]


def check_devices(model: nn.Module, example_inputs: Any) -> None:
    """Raises InputError if `example_inputs` are not where the model is."""
    devices = {tensor.device for tensor in named_tensors(model).values()}
    for leaf in pytree.tree_leaves([call_arguments(call) for call in example_calls(example_inputs)]):
        if isinstance(leaf, Tensor) and devices and leaf.device not in devices:
            raise InputError(
                f"example_inputs are on {leaf.device}, the model is on {', '.join(sorted(map(str, devices)))}; "
                "move one to the other"
            )


def run_model(model: nn.Module, example_inputs: Any, tensors: Mapping[str, Tensor] | None = None) -> Any:
    """The model's output for `example_inputs` (of several calls the first), with failures explained; `tensors` take the
    place of its own.

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
        raise forward_failed(model, "example_inputs", (args, kwargs), error) from error


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
