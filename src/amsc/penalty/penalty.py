"""The AMSC penalty of a network: one group norm per removable channel and one per block, and its proximal map."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from amsc.borrowing import named_tensors
from amsc.errors import ModelError, SettingsError
from amsc.penalty.bypass import find_bypassed_groups
from amsc.penalty.coordinates import Coordinates, find_coordinates
from amsc.penalty.prox import nested_factors
from amsc.penalty.rows import Rows
from amsc.penalty.scales import leaf_scales
from amsc.penalty.sizes import parameters_held, saved_cost, saved_macs
from amsc.penalty.weights import group_weights, sensitivity_weights
from amsc.structure.structure import Structure

__all__ = ["Penalty"]

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
        weights: family of weights, a key of `amsc.penalty.WEIGHTS`.
        currency: what a group's size q counts: "params" it holds, "macs" its removal saves, or what that takes off
            the cost that the "target" is about.
        reference: theta_hat as a state dict; the model as it is now if None.

    Attributes:
        channels: the penalised channels as (group, index); `leaf_weights` and `leaf_costs` (what removing one
            takes off the structure's `cost`) are in this order.
        blocks: the penalised blocks; `block_weights` and `block_costs` are in this order.

    Raises:
        ModelError: model or reference lack a tensor of the structure, or it has another shape.
        SettingsError: unknown weights or currency.
    """

    def __init__(
        self,
        structure: Structure,
        model: nn.Module,
        *,
        weights: str = "amsc",
        currency: str = "params",
        reference: Mapping[str, Tensor] | None = None,
    ) -> None:
        if currency not in CURRENCIES:
            raise SettingsError(f"currency must be one of {', '.join(CURRENCIES)}; got {currency!r}")
        _check_fit(structure, named_tensors(model), type(model).__name__)
        theta_hat = named_tensors(model) if reference is None else reference
        _check_fit(structure, theta_hat, "the reference")
        found = find_coordinates(structure, find_bypassed_groups(structure, model))
        self.channels, self.blocks = found.channels, found.blocks
        self._parameters = [model.get_parameter(slices.parameter) for slices in found.slices]
        self._is_normalised = [slices.parameter in found.normalised for slices in found.slices]
        shapes = structure.shapes
        self._origins = [_origin(shapes[s.parameter], s.parameter in found.kernels) for s in found.slices]
        self._first_leaves = [slices.leaf[0] for slices in found.slices]
        self._rows = _rows_of(found, self._parameters)
        self.leaf_costs, self.block_costs = saved_cost(structure, found)
        held = CURRENCIES[currency](structure, found)
        scales, root = leaf_scales(found, model, theta_hat), torch.tensor(found.root, dtype=torch.long)
        held_at = [theta_hat[slices.parameter].float().cpu() for slices in found.slices]
        norms = scales * self._rows.norms(self._from_origins(held_at))
        root[root < 0] = len(self.blocks)
        self._sizes = held
        self.leaf_weights = group_weights(weights, held[0], norms[: len(self.channels)])
        self.block_weights = group_weights(weights, held[1], _root_norms(norms, root, len(self.blocks)))
        self._constants = _Constants(scales, *self._padded_weights(len(found.root)), root)

    def __repr__(self) -> str:
        """How many channels, blocks and parameters are penalised."""
        count = sum(p.numel() for p in self._parameters)
        return f"Penalty({len(self.channels)} channels, {len(self.blocks)} blocks; {count} parameters)"

    def gate_gradients(self) -> tuple[Tensor, Tensor]:
        """Derivatives of the loss by a gate on each channel and on each block (theta_g times s_g, at s_g = 1), from the
        gradients that the parameters hold now. Shapes: channel, block."""
        self._move()
        values = self._from_origins(self._parameters)
        pairs = zip(values, self._parameters, strict=True)
        leaves = self._rows.sums([x * (torch.zeros_like(x) if p.grad is None else p.grad) for x, p in pairs])
        return leaves[: len(self.channels)], self._by_block(leaves)

    @torch.no_grad()
    def reweight(self, leaf_sensitivities: Tensor, block_sensitivities: Tensor) -> None:
        """Replace the weights by those of `sensitivity_weights`, for the parameters as they are now.

        Args:
            leaf_sensitivities: mean squares of the channels' `gate_gradients`. Shape: channel.
            block_sensitivities: those of the blocks. Shape: block.
        """
        leaf_speeds, block_speeds = self._speeds()
        leaves, blocks = self.leaf_norms(), self.block_norms()
        self.leaf_weights = sensitivity_weights(self._sizes[0], leaves, leaf_sensitivities, leaf_speeds)
        self.block_weights = sensitivity_weights(self._sizes[1], blocks, block_sensitivities, block_speeds)
        fixed = self._constants
        leaf_weights, root_weights = self._padded_weights(len(fixed.root))
        device = fixed.root.device
        self._constants = _Constants(fixed.scales, leaf_weights.to(device), root_weights.to(device), fixed.root)

    @torch.no_grad()
    def emptying_times(self, step_size: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
        """Strength times number of steps (of this size, or of these sizes of each leaf) after which each channel and
        each block is zero if the loss does not resist (for blocks: at the speed with which they start). Infinite where
        weight or step is 0. Shapes: channel, block."""
        leaf_speeds, block_speeds = self._speeds(step_size)
        leaves, blocks = self.leaf_norms(), self.block_norms()
        return leaves / (leaf_speeds * self.leaf_weights.to(leaves)), blocks / (
            block_speeds * self.block_weights.to(blocks)
        )

    def _speeds(self, step_size: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
        """How fast norms fall in a step under unit weight and strength. Shapes: channel, block."""
        norms = self._norms()
        squares = self._constants_for(norms).scales.square() * step_size
        own = self._by_block(norms.square())
        mean = self._by_block(squares * norms.square()) / own.clamp(min=1e-30)
        return squares[: len(self.channels)], torch.where(own > 0, mean, 1.0)

    def _by_block(self, leaves: Tensor) -> Tensor:
        """Sums over the leaves of each block. Shape: block."""
        return leaves.new_zeros(len(self.blocks) + 1).index_add_(0, self._constants.root, leaves)[:-1]

    def _padded_weights(self, num_leaves: int) -> tuple[Tensor, Tensor]:
        """Weights of all leaves (0 for those that cannot go alone) and roots (0 for that of leaves in no block)."""
        others = self.leaf_weights.new_zeros(num_leaves - len(self.channels))
        return torch.cat([self.leaf_weights, others]), torch.cat([self.block_weights, self.block_weights.new_zeros(1)])

    @property
    def num_leaves(self) -> int:
        """The penalised channels, and what the blocks hold besides."""
        return len(self._constants.root)

    @torch.no_grad()
    def leaf_means(self, tensors: Sequence[Tensor]) -> Tensor:
        """Mean of each leaf's coordinates in `tensors`, shaped like `parameters()`. Shape: leaf."""
        self._move()
        return self._rows.means(tensors)

    @torch.no_grad()
    def fill_(self, tensors: Sequence[Tensor], values: Tensor) -> None:
        """Set the coordinates of each leaf in `tensors`, shaped like `parameters()`. Shape of `values`: leaf."""
        self._move()
        self._rows.fill_(tensors, values)

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that `prox_` changes, penalised in whole or in part."""
        return list(self._parameters)

    @torch.no_grad()
    def empty_(self, blocks: Tensor) -> None:
        """Put the coordinates of these blocks at their origin. Shape: block (bool)."""
        fixed = self._constants
        chosen = torch.cat([blocks.to(fixed.root.device), blocks.new_zeros(1).to(fixed.root.device)])[fixed.root]
        self._scale_(torch.where(chosen, 0.0, 1.0))

    def normalised_parameters(self) -> list[nn.Parameter]:
        """Those among them that scale or shift a normalised channel: weight decay must leave them alone."""
        return [p for p, is_normalised in zip(self._parameters, self._is_normalised, strict=True) if is_normalised]

    @torch.no_grad()
    def leaf_norms(self) -> Tensor:
        """n_j of the penalised channels, now. Shape: channel."""
        return self._norms()[: len(self.channels)]

    @torch.no_grad()
    def block_norms(self) -> Tensor:
        """N_l of the blocks, now. Shape: block."""
        norms = self._norms()
        return _root_norms(norms, self._constants_for(norms).root, len(self.blocks))

    def value(self, depth_strength: float, width_strength: float) -> Tensor:
        """The penalty, now; for display: it carries no gradient, `prox_` is what minimises it. Shape: scalar."""
        blocks, leaves = self.block_norms(), self.leaf_norms()
        depth = (self.block_weights.to(blocks) * blocks).sum()
        return depth_strength * depth + width_strength * (self.leaf_weights.to(leaves) * leaves).sum()

    @torch.no_grad()
    def prox_(self, step_size: float | Tensor, depth_strength: float, width_strength: float) -> None:
        """Replace the parameters y by argmin_x ||x - y||^2 / (2 step_size) + value(depth_strength, width_strength)(x).

        Exact up to rounding; what becomes zero is exactly zero. In coordinates s_j x_j the step size is
        d_j = step_size * s_j^2, constant on each leaf, which is what the nested solution needs. `step_size` may be
        another for each leaf (shape: leaf); a leaf with 0 stays as it is.

        Raises:
            SettingsError: an argument is negative or not finite.
        """
        numbers = {"depth_strength": depth_strength, "width_strength": width_strength}
        if not isinstance(step_size, Tensor):
            numbers["step_size"] = step_size
        for name, value in numbers.items():
            if not (value >= 0 and math.isfinite(value)):
                raise SettingsError(f"{name} must be a finite number, at least 0; got {value}")
        if numbers.get("step_size") == 0 or (depth_strength == 0 and width_strength == 0):
            return
        norms = self._norms()
        fixed = self._constants_for(norms)
        factors = nested_factors(
            norms,
            step_size * fixed.scales.square(),
            width_strength * fixed.leaf_weights,
            depth_strength * fixed.root_weights,
            fixed.root,
        )
        self._scale_(factors)

    def zero_blocks(self) -> Tensor:
        """Whether each block is exactly zero. Shape: block (bool)."""
        zero = self.zero_leaves()
        alive = torch.zeros(len(self.blocks) + 1, device=zero.device)
        return alive.index_add_(0, self._constants_for(alive).root, (~zero).to(alive))[:-1] == 0

    def zero_channels(self) -> Tensor:
        """Whether each penalised channel is exactly zero. Shape: channel (bool)."""
        return self.zero_leaves()[: len(self.channels)]

    @torch.no_grad()
    def zero_leaves(self) -> Tensor:
        """Whether each leaf is exactly zero: the penalised channels, then what the blocks hold besides. Shape: leaf."""
        self._move()
        return self._rows.are_zero(self._from_origins(self._parameters))

    @torch.no_grad()
    def clear_(self, tensors: Sequence[Tensor], leaves: Tensor) -> None:
        """Zero the coordinates of the chosen leaves in `tensors`, shaped like `parameters()`. Shape: leaf (bool)."""
        self._move()
        self._rows.multiply_(tensors, (~leaves).to(torch.float32))

    def _norms(self) -> Tensor:
        self._move()
        norms = self._rows.norms(self._from_origins(self._parameters))
        return self._constants_for(norms).scales * norms

    def _from_origins(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What is left of `tensors`, shaped like `parameters()`, without the origins."""
        pairs = zip(tensors, self._origins, strict=True)
        return [tensor.detach() if origin is None else tensor.detach() - origin.to(tensor) for tensor, origin in pairs]

    def _scale_(self, factors: Tensor) -> None:
        """Multiply the coordinates of each leaf, counted from their origin. Shape: leaf."""
        self._rows.multiply_(self._parameters, factors)
        for parameter, origin, leaf in zip(self._parameters, self._origins, self._first_leaves, strict=True):
            if origin is not None:  # its leaf is the whole of it
                parameter.add_((1 - factors[leaf]).to(parameter) * origin.to(parameter))

    def _constants_for(self, like: Tensor) -> "_Constants":
        """The constants in the dtype of `like`."""
        fixed = self._constants
        weights = (fixed.scales.to(like), fixed.leaf_weights.to(like), fixed.root_weights.to(like))
        return _Constants(*weights, fixed.root)

    def _move(self) -> None:
        """Follow the parameters to their device."""
        devices = {parameter.device for parameter in self._parameters}
        if len(devices) > 1:
            raise ModelError(f"the penalised parameters must be on one device; they are on {sorted(map(str, devices))}")
        for device in devices - {self._constants.root.device}:
            self._rows.move_to(device)
            self._constants = _Constants(*(getattr(self._constants, f.name).to(device) for f in fields(_Constants)))


@dataclass(frozen=True)
class _Constants:
    """What stays fixed once the penalty is bound. Leaves without a block have the last root, of weight 0.

    Shapes: leaf, leaf, block + 1, leaf."""

    scales: Tensor
    leaf_weights: Tensor
    root_weights: Tensor
    root: Tensor


def _check_fit(structure: Structure, tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors that are not the structure's. Buffers may be missing: a state dict leaves some out."""
    for name, shape in structure.shapes.items():
        if name not in tensors and name not in structure.buffers:
            raise ModelError(f"{what} has no tensor {name!r} of shape {shape}, which the structure names; trace anew")
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise ModelError(f"{name} should have shape {shape}; {what} has {tuple(tensors[name].shape)}; trace anew")


def _origin(shape: tuple[int, ...], is_kernel: bool) -> Tensor | None:
    """The Dirac kernel; None where the origin is zero."""
    return nn.init.dirac_(torch.empty(shape)) if is_kernel else None


def _rows_of(found: Coordinates, parameters: Sequence[Tensor]) -> Rows:
    leaves = [torch.tensor(slices.leaf, dtype=torch.long) for slices in found.slices]
    return Rows([s.axis for s in found.slices], leaves, [p.ndim > 1 for p in parameters], len(found.root))


def _root_norms(norms: Tensor, root: Tensor, num_blocks: int) -> Tensor:
    """Root of the sum of squares of each block's leaves. Shape: block."""
    return norms.new_zeros(num_blocks + 1).index_add_(0, root, norms.square())[:-1].sqrt()
