"""A scan of a network as it is: its gates, the derivatives of the loss by them, and what goes for any cost."""

from collections.abc import Callable, Collection
from dataclasses import replace

import torch
from torch import Tensor, nn

from amsc.data import Data
from amsc.errors import TargetError
from amsc.penalty import Coordinates, find_bypassed_groups, find_coordinates, parameters_held, saved_cost, saved_macs
from amsc.progress import NoProgress, Progress
from amsc.structure.rounding import Rounding
from amsc.structure.structure import BlockCall, Structure
from amsc.tasks import Task
from amsc.training.gates.choice import GateChoice, Remainders
from amsc.training.gates.gradients import GateGradients, gate_gradients
from amsc.training.removal.bunches import ANY_NUMBER

__all__ = ["Recovery", "StandIn", "choose_gates", "find_gates", "gate_derivatives"]

StandIn = Callable[[BlockCall | None], nn.Module]
"""Makes what returns what is left where a block with this call is gone."""
Recovery = Callable[[nn.Module, Structure, Collection[str]], Remainders]
"""What the others of its layer cannot take over of the work of each channel, in these groups of a network; given from
above, as `StandIn` is."""


def find_gates(structure: Structure, model: nn.Module, *, streams: bool = False) -> tuple[Structure, Coordinates]:
    """The structure without blocks that have no gate (those whose channels go with them, if these have no coordinates),
    and the coordinates of the gates, of residual streams too if asked for.

    Raises:
        TargetError: there is no gate.
    """
    bypassed = find_bypassed_groups(structure, model, streams=streams)
    coordinates = find_coordinates(structure, bypassed, streams=streams)
    gated = {name for name, _ in coordinates.channels}
    blocks = tuple(block for block in structure.blocks if gated.issuperset(block.channels))
    if len(blocks) < len(structure.blocks):
        structure = replace(structure, blocks=blocks)
        coordinates = find_coordinates(structure, bypassed, streams=streams)
    if not coordinates.channels and not coordinates.blocks:
        raise TargetError("nothing in this network can be removed: `amsc inspect` shows what is pinned, and why")
    return structure, coordinates


def gate_derivatives(
    model: nn.Module,
    structure: Structure,
    coordinates: Coordinates,
    data: Data,
    task: Task,
    *,
    stand_in: StandIn,
    examples: int,
    progress: Progress = NoProgress(),  # noqa: B008 - it has no state
) -> GateGradients:
    """`gate_gradients`, with `stand_in` for what takes the place of blocks."""
    stand_ins = {name: stand_in(structure.block(name).call) for name in coordinates.blocks}
    return gate_gradients(model, structure, coordinates, stand_ins, data, task, examples=examples, progress=progress)


def choose_gates(
    structure: Structure,
    coordinates: Coordinates,
    found: GateGradients,
    *,
    currency: str = "target",
    power: float = 1.0,
    dimensions: str = "both",
    depth_share: float = 0.5,
    rounding: Rounding = ANY_NUMBER,
    remainders: Remainders | None = None,
) -> GateChoice:
    """What goes for any cost, gates weighing their size in the currency ("target", "macs" or "params") to `power`; the
    rest as of `GateChoice`.

    Raises:
        SettingsError: there is no such word for `dimensions`.
    """
    sized = {"params": parameters_held, "macs": saved_macs, "target": saved_cost}[currency]
    channels, blocks = sized(structure, coordinates)
    sizes: Tensor = torch.cat((blocks, channels))
    return GateChoice(
        structure,
        found,
        sizes,
        power=power,
        dimensions=dimensions,
        depth_share=depth_share,
        rounding=rounding,
        remainders=remainders,
    )
