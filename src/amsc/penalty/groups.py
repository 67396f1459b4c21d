"""The penalised groups of a network, bound to its parameters: their norms, their gates, and what moves them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from amsc.borrowing import named_tensors
from amsc.errors import ModelError
from amsc.penalty.bypass import find_bypassed_groups
from amsc.penalty.coordinates import Coordinates, find_coordinates
from amsc.penalty.leaf_rows import LeafRows
from amsc.penalty.membership import Membership
from amsc.penalty.scales import leaf_scales
from amsc.structure.structure import Structure

__all__ = [
    "Groups",
    "bind_groups",
    "block_norms",
    "gate_derivatives",
    "gates_from_gradients",
    "leaf_norms",
    "reference_norms",
    "scale_",
    "speeds",
    "zero_leaves",
]


@dataclass(frozen=True, eq=False)
class Groups:
    """Leaves of parameters under blocks. The first `num_channels` leaves are the channels that can be removed alone,
    the others what the blocks hold besides.

    Attributes:
        names: the parameters' names.
        parameters: what the leaves lie in, penalised in whole or in part.
        is_normalised: whether each scales or shifts a normalised channel.
        origins: what each is counted from; None where that is zero. Where it is not, the parameter is one leaf.
        first_leaves: the leaf of each parameter's first row.
        rows: the leaf of each of their rows.
        roots: the block of each leaf.
        scales: s, see `leaf_scales`. Shape: leaf.
    """

    num_channels: int
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    is_normalised: tuple[bool, ...]
    origins: tuple[Tensor | None, ...]
    first_leaves: tuple[int, ...]
    rows: LeafRows
    roots: Membership
    scales: Tensor

    @property
    def num_leaves(self) -> int:
        """The penalised channels, and what the blocks hold besides."""
        return len(self.scales)

    @property
    def normalised_parameters(self) -> list[nn.Parameter]:
        """Those that scale or shift a normalised channel: weight decay must leave them alone."""
        return [p for p, is_normalised in zip(self.parameters, self.is_normalised, strict=True) if is_normalised]

    def follow(self) -> "Groups":
        """These groups, ready for where the parameters are now.

        Raises:
            ModelError: they are on several devices.
        """
        devices = {parameter.device for parameter in self.parameters}
        if len(devices) > 1:
            raise ModelError(f"the penalised parameters must be on one device; they are on {sorted(map(str, devices))}")
        for device in devices - {self.scales.device}:
            origins = tuple(None if origin is None else origin.to(device) for origin in self.origins)
            rows, roots = self.rows.to(device), self.roots.to(device)
            return replace(self, origins=origins, rows=rows, roots=roots, scales=self.scales.to(device))
        return self


def bind_groups(structure: Structure, model: nn.Module, theta_hat: Mapping[str, Tensor]) -> tuple[Coordinates, Groups]:
    """The coordinates of `structure`, and its groups in the parameters of `model`, with scales from `theta_hat`.

    Raises:
        ModelError: `model` or `theta_hat` lack a tensor of the structure, or it has another shape.
    """
    _check_fit(structure, named_tensors(model), type(model).__name__)
    _check_fit(structure, theta_hat, "the reference")
    found = find_coordinates(structure, find_bypassed_groups(structure, model))
    shapes = [structure.shapes[each.parameter] for each in found.slices]
    leaves = [torch.tensor(each.leaf, dtype=torch.long) for each in found.slices]
    groups = Groups(
        num_channels=len(found.channels),
        names=tuple(each.parameter for each in found.slices),
        parameters=tuple(model.get_parameter(each.parameter) for each in found.slices),
        is_normalised=tuple(each.parameter in found.normalised for each in found.slices),
        origins=tuple(_origin(structure.shapes[s.parameter], s.parameter in found.kernels) for s in found.slices),
        first_leaves=tuple(each.leaf[0] for each in found.slices),
        rows=LeafRows([each.axis for each in found.slices], leaves, shapes, len(found.root)),
        roots=Membership.of(torch.tensor(found.root, dtype=torch.long), len(found.blocks)),
        scales=leaf_scales(found, model, theta_hat),
    )
    return found, groups


def leaf_norms(groups: Groups) -> Tensor:
    """s_j ||x_j|| of every leaf, now. Shape: leaf."""
    norms = groups.rows.norms(_from_origins(groups, groups.parameters))
    return groups.scales.to(norms) * norms


def reference_norms(groups: Groups, tensors: Mapping[str, Tensor]) -> Tensor:
    """The same of other tensors by the parameters' names, computed on the CPU before the groups have moved."""
    values = [tensors[name].float().cpu() for name in groups.names]
    return groups.scales * groups.rows.norms(_from_origins(groups, values))


def block_norms(groups: Groups, norms: Tensor) -> Tensor:
    """Root of the sum of squares of each block's leaves. Shapes: leaf; the result: block."""
    return groups.roots.sums(norms.square()).sqrt()


def zero_leaves(groups: Groups) -> Tensor:
    """Whether each leaf is exactly zero. Shape: leaf (bool)."""
    return groups.rows.are_zero(_from_origins(groups, groups.parameters))


def scale_(groups: Groups, factors: Tensor) -> None:
    """Multiply the coordinates of each leaf, counted from their origin, by its factor. Shape: leaf."""
    groups.rows.multiply_(groups.parameters, factors)
    for parameter, origin, leaf in zip(groups.parameters, groups.origins, groups.first_leaves, strict=True):
        if origin is not None:  # its leaf is the whole of it
            parameter.add_((1 - factors[leaf]).to(parameter) * origin.to(parameter))


def gates_from_gradients(groups: Groups) -> tuple[Tensor, Tensor]:
    """Derivatives of the loss by a gate on each channel and on each block (theta_g times s_g, at s_g = 1), from the
    gradients that the parameters hold now. Shapes: channel, block."""
    return gate_derivatives(groups, groups.parameters, [parameter.grad for parameter in groups.parameters])


def gate_derivatives(
    groups: Groups, values: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """The same from `gradients` by the `values` of the parameters; None is zero. Shapes: channel, block."""
    pairs = zip(_from_origins(groups, values), gradients, strict=True)
    leaves = groups.rows.sums([x * (torch.zeros_like(x) if g is None else g.detach()) for x, g in pairs])
    return leaves[: groups.num_channels], groups.roots.sums(leaves)


def speeds(groups: Groups, norms: Tensor, step_size: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """How fast norms fall in a step under unit weight and strength (of blocks: how fast they start to). `step_size` may
    be another for each leaf. Shapes: channel, block."""
    squares = groups.scales.to(norms).square() * step_size
    own = groups.roots.sums(norms.square())
    mean = groups.roots.sums(squares * norms.square()) / own.clamp(min=1e-30)
    return squares[: groups.num_channels], torch.where(own > 0, mean, 1.0)


def _from_origins(groups: Groups, tensors: Sequence[Tensor]) -> list[Tensor]:
    """What is left of `tensors`, shaped like the parameters, without the origins."""
    pairs = zip(tensors, groups.origins, strict=True)
    return [tensor.detach() if origin is None else tensor.detach() - origin.to(tensor) for tensor, origin in pairs]


def _origin(shape: tuple[int, ...], is_kernel: bool) -> Tensor | None:
    """The Dirac kernel; None where the origin is zero."""
    return nn.init.dirac_(torch.empty(shape)) if is_kernel else None


def _check_fit(structure: Structure, tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors that are not the structure's. Buffers may be missing: a state dict leaves some out."""
    for name, shape in structure.shapes.items():
        if name not in tensors and name not in structure.buffers:
            raise ModelError(f"{what} has no tensor {name!r} of shape {shape}, which the structure names; trace anew")
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise ModelError(f"{name} should have shape {shape}; {what} has {tuple(tensors[name].shape)}; trace anew")
