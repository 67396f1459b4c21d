"""BatchNorm in training by the statistics of the whole batch, of which each process has a part.

torch's `SyncBatchNorm` needs GPUs, and takes the place of the module. Here the call is caught, whatever module makes
it, so that the network stays what it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["SharedNorms"]


class SharedNorms(TorchFunctionMode):
    """Inside, every batch normalisation in training takes mean and variance over all processes; gradients too."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if function is F.batch_norm:
            return _batch_norm(*args, **options)
        return function(*args, **options)


class _Sum(torch.autograd.Function):
    """The sum over all processes; each gradient by it counts in all of them."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _total(own: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(own)  # type: ignore[no-untyped-call]
    return total


def _batch_norm(
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As `torch.nn.functional.batch_norm`; the variance is that around the common mean (two passes)."""
    if not training:
        return F.batch_norm(inputs, running_mean, running_var, weight, bias, False, momentum, eps)
    axes, shape = [axis for axis in range(inputs.ndim) if axis != 1], [1, -1, *[1] * (inputs.ndim - 2)]
    values = inputs.float() if inputs.dtype in (torch.bfloat16, torch.float16) else inputs
    count = torch.tensor(float(values.numel() // values.shape[1]), device=values.device, dtype=values.dtype)
    dist.all_reduce(count)
    mean = _total(values.sum(axes)) / count
    centred = values - mean.view(shape)
    variance = _total(centred.square().sum(axes)) / count
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.detach().to(running_mean), momentum)
        if running_var is not None:
            running_var.lerp_((variance * count / (count - 1)).detach().to(running_var), momentum)
    scale = (variance + eps).rsqrt() if weight is None else weight.to(values) * (variance + eps).rsqrt()
    found: Tensor = centred * scale.view(shape)
    return (found if bias is None else found + bias.to(values).view(shape)).to(inputs.dtype)
