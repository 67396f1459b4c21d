"""amsc's penalty on every network of a stack at once: its own groups, repeated."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from benchmarks.theory.networks import ResidualNet, Stack
from torch import Tensor

from amsc import Penalty
from amsc.penalty import Groups, Membership, find_coordinates, group_weights
from amsc.penalty.groups import block_norms, reference_norms
from amsc.penalty.leaf_rows import LeafRows
from amsc.structure import Structure

__all__ = ["StackedPenalty"]


class StackedPenalty(Penalty):
    """The penalty of each network in a stack, with the weights that it would have alone.

    Norms, proximal map and zeros are `Penalty`'s; only the groups are repeated. What is zero in a stack is not cut, as
    amsc would cut it, but left out where weights are normalised.

    Args:
        stack: the networks; only `prox_` changes them.
        structure: of one of them.
        weights: a family of `amsc.penalty.WEIGHTS` for each replicate.
        reference: theta_hat, the state of a stack.
        depth: for each replicate a factor on the weights of its blocks; None: 1. Shape: replicate.
        width: the same for its channels.
    """

    def __init__(
        self,
        stack: Stack,
        structure: Structure,
        *,
        weights: Sequence[str],
        reference: Mapping[str, Tensor],
        depth: Tensor | None = None,
        width: Tensor | None = None,
    ) -> None:
        super().__init__(structure, ResidualNet(stack.shape))
        self.replicates, self._groups = stack.replicates, _repeated(self._groups, structure, stack)
        self.channels, self.blocks = self.channels * stack.replicates, self.blocks * stack.replicates
        norms = reference_norms(self._groups, reference)
        leaves, roots = norms[: len(self.channels)], block_norms(self._groups, norms)
        self.leaf_weights = _weights(weights, self.leaf_sizes, leaves, ~self.zero_channels(), width)
        self.block_weights = _weights(weights, self.block_sizes, roots, ~self.zero_blocks(), depth)


def _weights(families: Sequence[str], sizes: Tensor, norms: Tensor, live: Tensor, factors: Tensor | None) -> Tensor:
    """Of the groups of all replicates, one after the other; 0 for what is zero already."""
    rows = norms.view(-1, len(sizes))
    found = torch.zeros_like(rows)
    for family, row, weights, is_live in zip(families, rows, found, live.view_as(rows), strict=True):
        weights[is_live] = group_weights(family, sizes[is_live], row[is_live])
    return (found if factors is None else found * factors[:, None]).flatten()


def _repeated(groups: Groups, structure: Structure, stack: Stack) -> Groups:
    """The groups of one network for each of the stack: first the channels of all replicates, then the other leaves."""
    found, count = find_coordinates(structure), groups.num_channels
    leaves, blocks = len(found.root), len(found.blocks)
    replicate = torch.arange(stack.replicates)[:, None]

    def numbered(own: Sequence[int]) -> Tensor:
        """The leaves of the stack for leaves of one network. Shape: (replicate, leaf)."""
        leaf = torch.tensor(own)
        rest = stack.replicates * count + replicate * (leaves - count) + leaf - count
        return torch.where(leaf < count, replicate * count + leaf, rest)

    rows = [numbered(each.leaf).flatten() for each in found.slices]
    parameters = tuple(stack.get_parameter(name) for name in groups.names)
    root = torch.empty(stack.replicates * leaves, dtype=torch.long)
    root[numbered(range(leaves))] = replicate * blocks + torch.tensor(found.root)
    return replace(
        groups,
        num_channels=stack.replicates * count,
        parameters=parameters,
        first_leaves=tuple(int(leaf[0]) for leaf in rows),
        rows=LeafRows([each.axis for each in found.slices], rows, [p.shape for p in parameters], len(root)),
        roots=Membership.of(root, stack.replicates * blocks),
        scales=torch.ones(len(root)),
    )
