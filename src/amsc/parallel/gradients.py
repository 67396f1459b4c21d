"""Gradients of the loss of a whole batch, of which each process has seen a part."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from amsc.parallel.processes import world

__all__ = ["share_gradients"]


def share_gradients(parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
    """Put the mean of the gradients over all processes in their place, and return that of the `loss`.

    They are sent in one piece, after the backward pass. A parameter that no process has a gradient of keeps none.
    """
    if world().is_alone:
        return loss
    all_parameters = [parameter for parameter in parameters if parameter.requires_grad]
    own = [parameter.grad for parameter in all_parameters]
    is_there = torch.tensor([gradient is not None for gradient in own], dtype=torch.float32, device=loss.device)
    pieces = [torch.zeros_like(p) if g is None else g for p, g in zip(all_parameters, own, strict=True)]
    whole = torch.cat([*(piece.flatten() for piece in pieces), is_there, loss.detach().reshape(1)])
    dist.all_reduce(whole)
    whole /= world().size
    means = whole.split([*(piece.numel() for piece in pieces), len(is_there), 1])
    for number, (parameter, mean) in enumerate(zip(all_parameters, means, strict=False)):
        gradient = own[number]
        if gradient is not None:
            gradient.copy_(mean.view_as(gradient))
        elif bool(means[-2][number]):
            parameter.grad = mean.view_as(parameter).to(parameter.dtype, copy=True)
    mean_loss: Tensor = means[-1][0].to(loss.dtype)
    return mean_loss
