"""Sizes that modules store beside their tensors follow the cut: one small function per module type."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from amsc.errors import CutError

__all__ = ["follow_shape", "sizing_tensor"]


def sizing_tensor(module: nn.Module) -> Tensor | None:
    """The tensor whose shape the sizes of `module` follow: its weight, or the running mean of a
    normalisation without one; None for modules that this file does not know or that have neither."""
    if not isinstance(module, _KNOWN):
        return None
    for name in ("weight", "running_mean"):
        tensor = getattr(module, name, None)
        if isinstance(tensor, Tensor):
            return tensor
    return None


def follow_shape(module: nn.Module, old: torch.Size) -> None:
    """Set the sizes `module` stores after its sizing tensor, of shape `old` before, was cut.

    Raises:
        CutError: part of a convolution group or normalisation group would be removed.
    """
    tensor = sizing_tensor(module)
    if tensor is None or tensor.shape == old:
        return
    update = next(update for kind, update in _UPDATES.items() if isinstance(module, kind))
    update(module, old, tensor.shape)


def _convolution(module: Any, old: torch.Size, new: torch.Size) -> None:
    module.groups = _whole_groups(module, "groups", old, new)
    module.in_channels, module.out_channels = new[1] * module.groups, new[0]


def _transposed_convolution(module: Any, old: torch.Size, new: torch.Size) -> None:
    module.groups = _whole_groups(module, "groups", old, new)
    module.in_channels, module.out_channels = new[0], new[1] * module.groups


def _linear(module: Any, old: torch.Size, new: torch.Size) -> None:
    module.out_features, module.in_features = new


def _batch_norm(module: Any, old: torch.Size, new: torch.Size) -> None:
    module.num_features = new[0]


def _group_norm(module: Any, old: torch.Size, new: torch.Size) -> None:
    module.num_groups = _whole_groups(module, "num_groups", old, new)
    module.num_channels = new[0]


def _layer_norm(module: Any, old: torch.Size, new: torch.Size) -> None:
    module.normalized_shape = tuple(new)


def _prelu(module: Any, old: torch.Size, new: torch.Size) -> None:
    module.num_parameters = new[0]


def _embedding(module: Any, old: torch.Size, new: torch.Size) -> None:
    module.num_embeddings, module.embedding_dim = new


def _whole_groups(module: Any, attribute: str, old: torch.Size, new: torch.Size) -> int:
    """How many groups are left, knowing that only whole ones go and that they divide axis 0 evenly."""
    groups = int(getattr(module, attribute))
    left = groups * new[0] // old[0] if groups > 1 else 1
    if groups > 1 and left * old[0] != groups * new[0]:
        raise CutError(
            f"{module} has {attribute}={groups} of {old[0] // groups} channels each, and {old[0] - new[0]} channels of"
            f" {old[0]} would go; only whole groups can be removed"
        )
    return left


# The first type that fits counts, so a subclass stands before its base.
_UPDATES: dict[type[nn.Module], Callable[[Any, torch.Size, torch.Size], None]] = {
    _ConvTransposeNd: _transposed_convolution,
    _ConvNd: _convolution,
    nn.Linear: _linear,
    _NormBase: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.PReLU: _prelu,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
}
_KNOWN = tuple(_UPDATES)
