"""How much a normalised channel's scale and shift count: s_j = ||W_j|| / sigma_j, frozen at theta_hat.

A filter under BatchNorm can be multiplied by any constant without a change of the function, so its norm alone says
nothing. s_j does not change either, because sigma_j grows by the same constant.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from amsc.penalty.coordinates import Coordinates, Normalisation
from amsc.penalty.weights import floored
from amsc.structure.names import holder

__all__ = ["leaf_scales"]


@torch.no_grad()
def leaf_scales(coordinates: Coordinates, model: nn.Module, reference: Mapping[str, Tensor]) -> Tensor:
    """s for every leaf: the root mean square of s_k over its normalised coordinates, and 1 for a leaf without any.

    A leaf under several normalisations has one scale, so that its step size stays constant and the proximal map
    exact. Scales are floored at 0.01 of their median: a dead filter must not make its channel free of charge.

    Args:
        coordinates: the leaves.
        model: gives the `eps` of the normalisations.
        reference: the tensors of theta_hat by name. Shape of the result: leaf, on the CPU.
    """
    leaf_of = {slices.parameter: torch.tensor(slices.leaf) for slices in coordinates.slices}
    total, count = torch.zeros(len(coordinates.root)), torch.zeros(len(coordinates.root))
    for normalisation in coordinates.normalisations:
        if normalisation.parameter in leaf_of:
            leaf = leaf_of[normalisation.parameter][list(normalisation.positions)]
            squares = _squared_scales(normalisation, model, reference)[leaf >= 0]
            total.index_add_(0, leaf[leaf >= 0], squares)
            count.index_add_(0, leaf[leaf >= 0], torch.ones_like(squares))
    scales = torch.ones_like(total)
    scales[count > 0] = floored((total[count > 0] / count[count > 0]).sqrt())
    return scales


def _squared_scales(normalisation: Normalisation, model: nn.Module, reference: Mapping[str, Tensor]) -> Tensor:
    """s_k^2 for each position; 1 where no running deviation is kept (LayerNorm, GroupNorm). Shape: position."""
    module = holder(normalisation.parameter)
    variance = reference.get(f"{module}.running_var".removeprefix("."))
    if variance is None:
        return torch.ones(len(normalisation.positions))
    weight = reference[normalisation.producer].float().cpu().movedim(normalisation.axis, 0).flatten(1)
    filters = torch.linalg.vector_norm(weight, dim=1).square()
    # a channel made by several output slices (pixel shuffle) counts one of them, on average
    of = torch.tensor([k for k, source in enumerate(normalisation.sources) for _ in source])
    used = filters[[position for source in normalisation.sources for position in source]]
    counts = torch.tensor([len(source) for source in normalisation.sources])
    produced = torch.zeros(len(counts)).index_add_(0, of, used) / counts
    eps = getattr(model.get_submodule(module), "eps", 0.0)
    return produced / (variance.float().cpu()[list(normalisation.positions)] + eps)
