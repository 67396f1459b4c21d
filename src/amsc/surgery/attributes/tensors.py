"""Modules whose sizes are those of their own tensor: convolutions, linear layers, normalisations, embeddings."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from amsc.errors import CutError
from amsc.surgery.plan import AxisCut

__all__ = ["follow_own_tensors", "has_own_sizes"]


def has_own_sizes(module: nn.Module) -> bool:
    """Whether all sizes that `module` stores are those of its own tensors, as far as is known here."""
    return isinstance(module, nn.MultiheadAttention) or _update_of(module, _sizing_tensor(module)[1]) is not None


def follow_own_tensors(module: nn.Module, cuts: Iterable[AxisCut]) -> bool:
    """Set the sizes that `module` stores after its tensors were cut; False, and nothing done, for unknown modules.

    Raises:
        CutError: part of a convolution group or normalisation group would be removed.
    """
    name, tensor = _sizing_tensor(module)
    update = _update_of(module, tensor)
    if update is None or tensor is None:
        return False
    old = list(tensor.shape)
    for cut in cuts:
        if cut.parameter == name:
            old[cut.axis] = cut.size
            if update is _convolution and cut.axis == 0:
                vars(module)["groups"] = _groups_left(module, cut)
    if old != list(tensor.shape):
        update(module, torch.Size(old), tensor.shape)
    return True


def _update_of(module: nn.Module, tensor: Tensor | None) -> Callable[[Any, torch.Size, torch.Size], None] | None:
    fitting = (update for fits, update in _UPDATES if fits(module, tensor)) if tensor is not None else iter(())
    return next(fitting, None)


def _sizing_tensor(module: nn.Module) -> tuple[str, Tensor | None]:
    """The tensor whose shape the sizes follow: the weight, or the running mean of a normalisation without one."""
    for name in ("weight", "running_mean"):
        tensor = getattr(module, name, None)
        if isinstance(tensor, Tensor):
            return name, tensor
    return "", None


def _convolution(module: Any, old: torch.Size, new: torch.Size) -> None:
    module.in_channels, module.out_channels = new[1] * int(module.groups), new[0]


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


def _bilinear(module: Any, old: torch.Size, new: torch.Size) -> None:
    module.out_features, module.in1_features, module.in2_features = new


def _transposed_linear(module: Any, old: torch.Size, new: torch.Size) -> None:
    module.nx, module.nf = new


def _groups_left(module: Any, cut: AxisCut) -> int:
    """How many groups of a convolution are left, if whole ones go, or as many outputs of every other one."""
    groups = int(module.groups)
    size = cut.size // groups
    left = Counter(position // size for position in cut.kept)
    if len(set(left.values())) > 1:
        raise CutError(
            f"{module} has groups={groups} of {size} channels each, of which {', '.join(map(str, left.values()))} would"
            " be left; only whole groups can be removed, or as many channels of every group"
        )
    return len(left)


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


def _is(kind: type[nn.Module]) -> Callable[[nn.Module, Tensor], bool]:
    return lambda module, tensor: isinstance(module, kind)


def _stores(*names: str, rank: int) -> Callable[[nn.Module, Tensor], bool]:
    """Other libraries' layers that take after one of PyTorch, known by the names of their sizes."""
    return lambda module, tensor: tensor.dim() == rank and all(type(vars(module).get(name)) is int for name in names)


# The first that fits counts, so a subclass stands before its base.
_UPDATES: tuple[tuple[Callable[[nn.Module, Tensor], bool], Callable[[Any, torch.Size, torch.Size], None]], ...] = (
    (_is(_ConvTransposeNd), _transposed_convolution),
    (_is(_ConvNd), _convolution),
    (_is(nn.Linear), _linear),
    (_is(nn.Bilinear), _bilinear),
    (_is(_NormBase), _batch_norm),
    (_is(nn.GroupNorm), _group_norm),
    (_is(nn.LayerNorm), _layer_norm),
    (_is(nn.RMSNorm), _layer_norm),
    (_is(nn.PReLU), _prelu),
    (_is(nn.Embedding), _embedding),
    (_is(nn.EmbeddingBag), _embedding),
    (_stores("in_features", "out_features", rank=2), _linear),
    (_stores("nx", "nf", rank=2), _transposed_linear),  # Conv1D of transformers keeps its weight [inputs, outputs]
)
