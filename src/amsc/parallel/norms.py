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
    """As `torch.nn.functional.batch_norm`."""
    if not training:
        return F.batch_norm(inputs, running_mean, running_var, weight, bias, False, momentum, eps)
    mean, variance, count = _statistics(inputs)
    for running, new in ((running_mean, mean), (running_var, variance * (count / (count - 1)))):
        if running is not None:
            with torch.no_grad():
                running.lerp_(new.to(running), momentum)
    found: Tensor = _Normalise.apply(inputs, weight, bias, mean, variance, count, eps)  # type: ignore[no-untyped-call]
    return found


def _statistics(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel over the examples of all processes, and how many numbers that are."""
    values = inputs.detach()
    values = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
    variance, mean = torch.var_mean(values, _axes(values), correction=0)
    exact = mean.double()  # of which squares may be taken from each other
    count = torch.full((1,), values.numel() // values.shape[1], dtype=torch.float64, device=values.device)
    sums = torch.cat([count, count * exact, count * (variance.double() + exact.square())])
    dist.all_reduce(sums)
    count, mean_sum, square_sum = sums.split([1, len(mean), len(mean)])
    common = mean_sum / count
    spread = (square_sum / count - common.square()).clamp(min=0)
    return common.to(values.dtype), spread.to(values.dtype), count


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, where mean and variance depend on the x of all processes
    (Ioffe and Szegedy 2015, the gradients of section 3)."""

    @staticmethod
    def forward(
        context: Any,
        inputs: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        context.save_for_backward(inputs, weight, mean, variance, count)
        context.eps = eps
        return F.batch_norm(inputs, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        inputs, weight, mean, variance, count = context.saved_tensors
        gradient, shape = gradients[0], [1, -1, *[1] * (inputs.ndim - 2)]
        scale = (variance + context.eps).rsqrt()
        above = gradient.to(mean.dtype)
        by_bias = above.sum(_axes(inputs))
        by_weight = (above * (inputs - mean.view(shape))).sum(_axes(inputs)) * scale
        common = torch.stack([by_bias, by_weight])
        dist.all_reduce(common)
        of_bias, of_weight = common / count.to(mean)
        slope = scale if weight is None else scale * weight
        line = -slope * scale * of_weight
        offset = -slope * of_bias - line * mean
        by_input = torch.addcmul(above * slope.view(shape) + offset.view(shape), inputs.to(mean), line.view(shape))
        own = (by_weight.to(weight), by_bias.to(weight)) if weight is not None else (None, None)
        return (by_input.to(inputs.dtype), *own, None, None, None, None)


def _axes(inputs: Tensor) -> list[int]:
    return [axis for axis in range(inputs.ndim) if axis != 1]
