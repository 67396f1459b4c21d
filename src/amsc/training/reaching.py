"""Networks of the path: made again from what is kept of them, and cut to what a target needs."""

from collections.abc import Mapping

from torch import Tensor, nn

from amsc.data import Data
from amsc.penalty import Penalty
from amsc.structure.values import Structure
from amsc.tasks import Task
from amsc.training.evaluation import reestimate_batchnorm
from amsc.training.gating import find_gates
from amsc.training.optimizers import cut_moments
from amsc.training.removal import Removal, Shrink, Shrunk, compose_removals
from amsc.training.selection import blocks_needed, cut_to_target, lowest_cost
from amsc.training.sensitivity import gate_sensitivities
from amsc.training.walk_state import Snapshot, WalkSettings

__all__ = ["bound", "copied_tensors", "cut_down", "rebuild", "without_what_is_in_the_way"]


def rebuild(model: nn.Module, structure: Structure, shrink: Shrink, snapshot: Snapshot) -> Shrunk:
    """The network of `snapshot`, cut from the dense `model` and with the snapshot's weights."""
    shrunk = shrink(model, structure, snapshot.removal)
    shrunk.model.load_state_dict(dict(snapshot.weights))
    return shrunk


def cut_down(
    model: nn.Module,
    structure: Structure,
    data: Data,
    task: Task,
    snapshot: Snapshot,
    *,
    shrink: Shrink,
    target_cost: int,
    settings: WalkSettings,
) -> tuple[Snapshot, float]:
    """The network of `snapshot` without what the penalty would empty next, so that it costs `target_cost` or just less,
    and the relative error that verifying the cut gave. **The function changes**; BatchNorm is re-estimated.

    Args:
        model: the dense network, theta_hat.
        structure: its structure.

    Raises:
        TargetError: no removal reaches the target.
    """
    live = rebuild(model, structure, shrink, snapshot)
    penalty = bound(live, live.slice_tensors(model.state_dict()), data, task, settings)
    blocks, channels = penalty.zero_blocks(), penalty.zero_channels()
    removal = cut_to_target(live.structure, penalty, blocks, channels, target_cost, settings.rounding)
    return _without(removal, snapshot, live, structure, data, shrink, settings)


def without_what_is_in_the_way(
    model: nn.Module,
    structure: Structure,
    data: Data,
    task: Task,
    snapshot: Snapshot,
    *,
    shrink: Shrink,
    target_cost: int,
    settings: WalkSettings,
) -> tuple[Snapshot, float]:
    """`snapshot` without the blocks that would keep the cost above `target_cost` if all channels went that can; those
    go first that the penalty would empty first. Else they would go at the end, when channels that could have stayed in
    their place are gone; and plain convolutions can only go before channels do. Arguments and outcome as of `cut_down`.

    Raises:
        TargetError: no removal reaches the target.
    """
    live = rebuild(model, structure, shrink, snapshot)
    if live.structure.cost() <= target_cost:
        return snapshot, 0.0
    _, gates = find_gates(live.structure, live.model, streams=settings.streams)
    if lowest_cost(live.structure, gates.channels, settings.rounding) <= target_cost:
        return snapshot, 0.0
    penalty = bound(live, live.slice_tensors(model.state_dict()), data, task, settings)
    gone = blocks_needed(live.structure, penalty, gates.channels, target_cost, settings.rounding)
    return _without(Removal(gone), snapshot, live, structure, data, shrink, settings)


def _without(
    removal: Removal,
    snapshot: Snapshot,
    live: Shrunk,
    structure: Structure,
    data: Data,
    shrink: Shrink,
    settings: WalkSettings,
) -> tuple[Snapshot, float]:
    """`snapshot`, whose network is `live`, without `removal` (in the numbers of `live`), and the cut's error."""
    cut = shrink(live.model, live.structure, removal)
    reestimate_batchnorm(cut.model, data, speed=settings.speed)
    smaller = Snapshot(
        compose_removals(structure, snapshot.removal, removal),
        copied_tensors(cut.model.state_dict()),
        cut_moments(snapshot.moments, cut.slice_tensors),
        cut.slice_tensors(snapshot.theta_hat),
    )
    return smaller, cut.error


def bound(live: Shrunk, reference: Mapping[str, Tensor], data: Data, task: Task, settings: WalkSettings) -> Penalty:
    """The penalty of a network, with the weights that the settings ask for."""
    by_sensitivity = settings.weights == "fisher"
    weights = "amsc" if by_sensitivity else settings.weights
    penalty = Penalty(live.structure, live.model, weights=weights, currency=settings.currency, reference=reference)
    if by_sensitivity:
        penalty.reweight(*gate_sensitivities(live.model, penalty, data, task, speed=settings.speed))
    return penalty


def copied_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, copied."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
