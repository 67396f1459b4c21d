"""Other people's libraries as methods of a bench: they cut, and all else is as for amsc's own methods."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from amsc.borrowing import copied
from amsc.data import Data, batch_size_of, moved, spread_batches
from amsc.errors import SettingsError, TargetError
from amsc.jobs.preparation import removable
from amsc.limits.target import parse_target
from amsc.measurement import count_macs
from amsc.settings import Settings
from amsc.structure.names import holder
from amsc.tasks import Task
from amsc.training import device_of, forward, reestimate_batchnorm

__all__ = ["cut_outside"]

STEPS = 200
"""Steps from the whole network to nothing: as many channels go in each, and importances are asked anew."""
EXAMPLES = 512
"""Training examples that gradients are taken of, as in amsc's own prices."""
MAGNITUDE, TAYLOR = "torch-pruning:magnitude", "torch-pruning:taylor"

Importance = Callable[[Any], Any]
IMPORTANCES: Mapping[str, Importance] = {
    MAGNITUDE: lambda library: library.importance.GroupMagnitudeImportance(p=2),
    TAYLOR: lambda library: library.importance.GroupTaylorImportance(),
}


def cut_outside(outsider: str, dense: nn.Module, budget: str, data: Data, task: Task, settings: Settings) -> nn.Module:
    """A copy of `dense` without the channels that an outsider takes, so that the multiply-adds that amsc counts are
    within `budget`; BatchNorm is estimated anew, as for amsc's networks that are not reconstructed.

    Torch-Pruning (Fang et al. 2023) ranks all channels by its group importance and takes them in small steps, as in its
    authors' benchmarks, of the layers of which `settings` let channels go. Nothing verifies the cut: it is what its
    users get.

    Raises:
        SettingsError: Torch-Pruning is not installed.
        TargetError: nothing may go, or the budget is not reached before nothing more goes.
    """
    library, model = _library(), copied(dense)
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # it passes over layers without gradients
    example = data.example_inputs(1)
    pruner = library.pruner.BasePruner(
        model,
        example,
        importance=IMPORTANCES[outsider](library),
        global_pruning=True,
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        ignored_layers=_left_alone(model, example, settings),
    )
    macs = count_macs(model, example)
    goal = int(parse_target(budget).limits["macs"].of(macs))
    for _ in range(STEPS):
        if macs <= goal:
            break
        if outsider == TAYLOR:
            _take_gradients(model, data, task)
        pruner.step()
        model.zero_grad()
        macs = count_macs(model, example)
    if macs > goal:
        raise TargetError(f"{budget} cannot be reached by {outsider}: it stops at {macs:,} multiply-adds of {goal:,}")
    reestimate_batchnorm(model, data)
    return model.eval()


def _library() -> Any:
    """Torch-Pruning.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        return importlib.import_module("torch_pruning")
    except ImportError as error:
        raise SettingsError(
            f"this outsider needs Torch-Pruning 1.6.1, which is not installed: pip install 'amsc[rivals]' ({error})"
        ) from error


def _left_alone(model: nn.Module, example: Any, settings: Settings) -> list[nn.Module]:
    """The convolutions and linear layers that make no channels which may go by these settings: the last one, and those
    on residual streams unless the settings let them go.

    Raises:
        TargetError: nothing may go.
    """
    structure = removable(model, example, settings)
    groups = [one for one in structure.channels if one.removable and (settings.with_streams or one.kind != "stream")]
    makers = {holder(member.parameter) for group in groups for member in group.members if member.role == "out"}
    layers = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear | nn.modules.conv._ConvNd)}
    if makers.isdisjoint(layers):
        raise TargetError("no convolution or linear layer of this network makes channels that may go")
    return [layer for name, layer in layers.items() if name not in makers]


def _take_gradients(model: nn.Module, data: Data, task: Task) -> None:
    """Leave the gradients of the loss on some training batches in the parameters."""
    device, count = device_of(model), -(-EXAMPLES // batch_size_of(data))
    for inputs, target in spread_batches(data, "train", count):
        task.loss(forward(model, inputs, device), moved(target, device)).backward()
