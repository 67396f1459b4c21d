"""The network and the optimiser inside of what a trainer has wrapped around them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

from amsc.errors import ModelError, TrainingError
from amsc.training import device_of

__all__ = ["averaged_network", "bare_network", "bare_optimizer", "check_alone", "undisturbed"]

SHARDED = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")


def bare_network(model: nn.Module) -> nn.Module:
    """`model` without the wrapper of `torch.compile`.

    Raises:
        ModelError: it is no module, or is wrapped for training on several devices.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(model).__name__}")
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if isinstance(model, DataParallel | DistributedDataParallel) or not kinds.isdisjoint(SHARDED):
        raise ModelError(
            f"the network is wrapped in {type(model).__name__}, for training on several devices, which amsc does not "
            "cut along with: a cut would leave the wrapper with parameters that are gone. Train on one device, or cut "
            "the network before it is wrapped"
        )
    if isinstance(model, torch._dynamo.OptimizedModule):
        return bare_network(model._orig_mod)
    return model


def averaged_network(average: nn.Module) -> nn.Module:
    """The copy of the network in which averaged weights are kept: `average` itself, or its only submodule if that is
    called "module", as in torch's `AveragedModel` and timm's `ModelEmaV3`.

    Raises:
        ModelError: see `bare_network`.
    """
    inner = average._modules.get("module") if isinstance(average, nn.Module) else None
    is_wrapper = inner is not None and len(average._modules) == 1 and not average._parameters
    return bare_network(inner if inner is not None and is_wrapper else average)


def bare_optimizer(optimizer: Any) -> Optimizer:
    """The torch optimiser inside of what Accelerate, Lightning or `ProximalStep` have made of it.

    Raises:
        TrainingError: there is none.
    """
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    if not isinstance(optimizer, Optimizer):
        raise TrainingError(f"expected a torch.optim.Optimizer, got {type(optimizer).__name__}")
    return optimizer


def check_alone() -> None:
    """Refuse to go on where several processes train together.

    Raises:
        TrainingError: they do.
    """
    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    ):
        raise TrainingError(
            f"{torch.distributed.get_world_size()} processes train together (DDP, FSDP or DeepSpeed), and amsc does "
            "not cut in all of them at once yet; train in one process on one device"
        )


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """A context in which `model` computes as it was written: without the autocast around it, and without the forward
    in mixed precision that Accelerate gives it. A cut is proven in the precision of the weights."""
    own = {module: vars(module).pop("forward") for module in model.modules() if "_original_forward" in vars(module)}
    try:
        with torch.autocast(device_of(model).type, enabled=False):
            yield
    finally:
        for module, forward in own.items():
            vars(module)["forward"] = forward
