"""The AMSC penalty of a network: one group norm per removable channel and one per block, and its proximal map."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from amsc.borrowing import named_tensors
from amsc.errors import SettingsError
from amsc.penalty.coordinates import Coordinates
from amsc.penalty.groups import (
    Groups,
    bind_groups,
    block_norms,
    gate_derivatives,
    leaf_norms,
    reference_norms,
    scale_,
    speeds,
    zero_leaves,
)
from amsc.penalty.prox import nested_factors
from amsc.penalty.sizes import parameters_held, saved_cost, saved_macs
from amsc.penalty.weights import group_weights, sensitivity_weights
from amsc.structure.structure import Structure

__all__ = ["CURRENCIES", "Penalty", "check_strength", "empty_", "emptying_times", "group_norms", "reweighted"]

CURRENCIES: Mapping[str, Callable[[Structure, Coordinates], tuple[Tensor, Tensor]]] = {
    "params": parameters_held,
    "macs": saved_macs,
    "target": saved_cost,
}


class Penalty:
    """depth_strength * sum_l w_l N_l + width_strength * sum_j w_j n_j over a model's blocks l and removable channels j.

    n_j = s_j ||x_j||. Where all that reads channel j reads it normalised, x_j is the scale and shift of its
    normalisations and s_j = ||W_j||/sigma_j frozen at theta_hat; otherwise x_j is its filter and bias (with scale and
    shift, if some readers see them) and s_j = 1. N_l is the root of the sum of the squares over all channels in block
    l, removable alone or not. Zero means gone: a zero channel outputs zero for every input, a zero block returns its
    input. Coordinates are counted from their origin: for the kernel of a plain convolution that is the one of Dirac, so
    that its N_l is the distance from the identity.

    Bound to the model's parameters as they are now: moving or casting the model is followed, new parameter objects
    are not. Parameters in half precision are computed in float32 and then rounded, so that a shrinkage below their
    resolution is lost; train with float32 parameters (autocast is fine).

    Args:
        structure: what `trace` found in `model`.
        model: the network; only `prox_` changes it.
        weights: family of weights, a key of `amsc.penalty.WEIGHTS`; or "fisher": groups are priced by what closing
            their gate costs the loss, as `losses` tell.
        currency: what a group's size q counts: "params" it holds, "macs" its removal saves, or what that takes off
            the cost that the "target" is about.
        reference: theta_hat as a state dict; the model as it is now if None.
        losses: for "fisher", the model's losses on some batches of training data, of which small ones tell more. A
            generator will do: each is asked for its gradients before the next is computed.

    Attributes:
        structure: as given.
        channels: the penalised channels as (group, index); `leaf_weights`, `leaf_sizes` (q) and `leaf_costs` (what
            removing one takes off the structure's `cost`) are in this order.
        blocks: the penalised blocks; `block_weights`, `block_sizes` and `block_costs` are in this order.

    Raises:
        ModelError: model or reference lack a tensor of the structure, or it has another shape.
        SettingsError: unknown weights or currency, or "fisher" without losses.
    """

    def __init__(
        self,
        structure: Structure,
        model: nn.Module,
        *,
        weights: str = "amsc",
        currency: str = "params",
        reference: Mapping[str, Tensor] | None = None,
        losses: Iterable[Tensor] = (),
    ) -> None:
        if currency not in CURRENCIES:
            raise SettingsError(f"currency must be one of {', '.join(CURRENCIES)}; got {currency!r}")
        theta_hat = named_tensors(model) if reference is None else reference
        found, self._groups = bind_groups(structure, model, theta_hat)
        self.channels, self.blocks = found.channels, found.blocks
        self.leaf_costs, self.block_costs = saved_cost(structure, found)
        self.leaf_sizes, self.block_sizes = CURRENCIES[currency](structure, found)
        norms = reference_norms(self._groups, theta_hat)
        family = "amsc" if weights == "fisher" else weights
        self.leaf_weights = group_weights(family, self.leaf_sizes, norms[: len(self.channels)])
        self.block_weights = group_weights(family, self.block_sizes, block_norms(self._groups, norms))
        self.structure = structure
        if weights == "fisher":
            priced = reweighted(self, *_sensitivities(self, losses))
            self.leaf_weights, self.block_weights = priced.leaf_weights, priced.block_weights

    def __repr__(self) -> str:
        """How many channels, blocks and parameters are penalised."""
        count = sum(p.numel() for p in self._groups.parameters)
        return f"Penalty({len(self.channels)} channels, {len(self.blocks)} blocks; {count} parameters)"

    @property
    def groups(self) -> Groups:
        """Its groups, where the parameters are now; the weights are there as well from then on."""
        groups = self._groups.follow()
        if groups is not self._groups:
            self._groups, device = groups, groups.scales.device
            self.leaf_weights, self.block_weights = self.leaf_weights.to(device), self.block_weights.to(device)
        return groups

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that `prox_` changes, penalised in whole or in part."""
        return list(self._groups.parameters)

    def leaf_norms(self) -> Tensor:
        """n_j of the penalised channels, now. Shape: channel."""
        return leaf_norms(self.groups)[: len(self.channels)]

    def block_norms(self) -> Tensor:
        """N_l of the blocks, now. Shape: block."""
        return block_norms(self.groups, leaf_norms(self.groups))

    def value(self, depth_strength: float, width_strength: float) -> Tensor:
        """The penalty, now; for display: it carries no gradient, `prox_` is what minimises it. Shape: scalar."""
        blocks, leaves = self.block_norms(), self.leaf_norms()
        depth = (self.block_weights.to(blocks) * blocks).sum()
        return depth_strength * depth + width_strength * (self.leaf_weights.to(leaves) * leaves).sum()

    @torch.no_grad()
    def prox_(self, step_size: float | Tensor, depth_strength: float | Tensor, width_strength: float | Tensor) -> None:
        """Replace the parameters y by argmin_x ||x - y||^2 / (2 step_size) + value(depth_strength, width_strength)(x).

        Exact up to rounding; what becomes zero is exactly zero. In coordinates s_j x_j the step size is
        d_j = step_size * s_j^2, constant on each leaf, which is what the nested solution needs. `step_size` may be
        another for each leaf (shape: leaf); a leaf with 0 stays as it is. Strengths that are tensors (scalars on the
        parameters' device) are not looked at.

        Raises:
            SettingsError: an argument is negative or not finite.
        """
        given = {"step_size": step_size, "depth_strength": depth_strength, "width_strength": width_strength}
        numbers = {name: value for name, value in given.items() if not isinstance(value, Tensor)}
        for name, value in numbers.items():
            check_strength(name, value)
        if numbers.get("step_size") == 0 or numbers.get("depth_strength") == numbers.get("width_strength") == 0:
            return
        groups = self.groups
        norms = leaf_norms(groups)
        leaf_strengths = norms.new_zeros(len(norms))  # 0 for leaves that cannot go alone
        leaf_strengths[: len(self.channels)] = width_strength * self.leaf_weights.to(norms)
        factors = nested_factors(
            norms,
            step_size * groups.scales.to(norms).square(),
            leaf_strengths,
            depth_strength * self.block_weights.to(norms),
            groups.roots,
        )
        scale_(groups, factors)

    def zero_blocks(self) -> Tensor:
        """Whether each block is exactly zero. Shape: block (bool)."""
        alive = ~zero_leaves(self.groups)
        return self.groups.roots.sums(alive.float()) == 0

    def zero_channels(self) -> Tensor:
        """Whether each penalised channel is exactly zero. Shape: channel (bool)."""
        return zero_leaves(self.groups)[: len(self.channels)]


def check_strength(name: str, value: float) -> None:
    """Refuse what is no finite number, at least 0.

    Raises:
        SettingsError: it is none.
    """
    if not (value >= 0 and math.isfinite(value)):
        raise SettingsError(f"{name} must be a finite number, at least 0; got {value}")


@torch.no_grad()
def reweighted(penalty: Penalty, leaf_sensitivities: Tensor, block_sensitivities: Tensor) -> Penalty:
    """The same penalty with the weights of `sensitivity_weights`, for the parameters as they are now.

    Args:
        leaf_sensitivities: mean squares of the channels' `gates_from_gradients`. Shape: channel.
        block_sensitivities: those of the blocks. Shape: block.
    """
    groups, norms = penalty.groups, leaf_norms(penalty.groups)
    leaf_speeds, block_speeds = speeds(groups, norms)
    leaves = (penalty.leaf_sizes, norms[: groups.num_channels], leaf_sensitivities, leaf_speeds)
    blocks = (penalty.block_sizes, block_norms(groups, norms), block_sensitivities, block_speeds)
    found = copy.copy(penalty)
    # on the CPU, as they need double precision, which not every device has
    found.leaf_weights, found.block_weights = (
        sensitivity_weights(*(each.cpu() for each in given)).to(norms.device) for given in (leaves, blocks)
    )
    return found


def _sensitivities(penalty: Penalty, losses: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean squares of the gates' derivatives over these losses. Shapes: channel, block."""
    parameters, squares = penalty.parameters(), list[Tensor]()
    for loss in losses:
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True) if parameters else ()
        squares.append(torch.cat(gate_derivatives(penalty.groups, parameters, gradients)).square())
    if not squares:
        raise SettingsError(
            'weights="fisher" needs the losses of some batches: Penalty(structure, model, weights="fisher", '
            "losses=(loss_of(model(inputs), target) for inputs, target in batches))"
        )
    mean = torch.stack(squares).mean(0)
    return mean[: len(penalty.channels)], mean[len(penalty.channels) :]


@torch.no_grad()
def group_norms(penalty: Penalty) -> tuple[Tensor, Tensor]:
    """The norms n_j of the penalised channels and N_l of the blocks, now. Shapes: channel, block."""
    norms = leaf_norms(penalty.groups)
    return norms[: penalty.groups.num_channels], block_norms(penalty.groups, norms)


@torch.no_grad()
def emptying_times(penalty: Penalty, step_size: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """Strength times number of steps (of this size, or of these sizes of each leaf) after which each channel and each
    block is zero if the loss does not resist (for blocks: at the speed with which they start). Infinite where weight or
    step is 0. Shapes: channel, block."""
    groups, norms = penalty.groups, leaf_norms(penalty.groups)
    leaf_speeds, block_speeds = speeds(groups, norms, step_size)
    leaves = norms[: groups.num_channels] / (leaf_speeds * penalty.leaf_weights.to(norms))
    return leaves, block_norms(groups, norms) / (block_speeds * penalty.block_weights.to(norms))


@torch.no_grad()
def empty_(penalty: Penalty, blocks: Tensor) -> None:
    """Put the coordinates of these blocks at their origin. Shape: block (bool), where the parameters are."""
    groups = penalty.groups
    scale_(groups, groups.roots.spread((~blocks).float(), none=1.0))
