"""Prices of channels by weights alone: no data is looked at.

A channel that several layers make (of a residual stream, or behind a depthwise convolution) has the filters of all of
them, laid end to end.
"""

import torch
from torch import Tensor

from amsc.criteria.scene import Scene
from amsc.errors import SettingsError
from amsc.structure.structure import ChannelGroup

__all__ = ["batchnorm_scale", "filters", "geometric_median", "group_norm", "l1", "l2", "lamp", "random"]


def random(scene: Scene, group: ChannelGroup) -> Tensor:
    """Prices drawn evenly from [0, 1), the same for the same seed. Shape: channel."""
    place = [each.name for each in scene.structure.channels].index(group.name)
    generator = torch.Generator().manual_seed(scene.seed * 1_000_003 + place)
    return torch.rand(group.size, generator=generator, dtype=torch.float64)


def l1(scene: Scene, group: ChannelGroup) -> Tensor:
    """sum |W_j|, the sum of the absolute weights of each channel's filters. Shape: channel.

    Li, Kadav, Durdanovic, Samet and Graf 2017 (Pruning filters for efficient
    ConvNets): the sum of a filter's absolute kernel weights."""
    return filters(scene, group).abs().sum(1)


def l2(scene: Scene, group: ChannelGroup) -> Tensor:
    """||W_j||_2, the norm of each channel's filters. Shape: channel.

    He, Kang, Dong, Fu and Yang 2018 (Soft filter pruning): the l_p norm of filters with p = 2."""
    norms: Tensor = torch.linalg.vector_norm(filters(scene, group), dim=1)
    return norms


def batchnorm_scale(scene: Scene, group: ChannelGroup) -> Tensor:
    """|gamma_j|, the scale of each channel in its normalisation; the mean where it has several. Shape: channel.

    Liu, Li, Shen, Huang, Yan and Zhang 2017 (Network slimming), whose training with an L1 penalty on the scales is not
    part of it.

    Raises:
        SettingsError: the channels have no scale."""
    scales = [
        scene.tensors[m.parameter].cpu().double()[torch.tensor(m.indices)].abs().mean(1)
        for m in group.members
        if m.role == "affine" and m.parameter.rpartition(".")[2] == "weight"
    ]
    if not scales:
        raise SettingsError("its channels pass no normalisation that scales them")
    return torch.stack(scales).mean(0)


def geometric_median(scene: Scene, group: ChannelGroup) -> Tensor:
    """sum_k ||W_j - W_k||_2: filters near to all others, whose work these can do, are cheap. Shape: channel.

    He, Liu, Wang, Hu and Yang 2019 (FPGM): the filter nearest to the geometric median is the one with the
    least sum of distances."""
    weights = filters(scene, group)
    return torch.cdist(weights, weights, compute_mode="donot_use_mm_for_euclid_dist").sum(1)


def lamp(scene: Scene, group: ChannelGroup) -> Tensor:
    """||W_j||^2 / sum of ||W_k||^2 over the channels k that are no smaller. Shape: channel; the largest has 1.

    Lee, Park, Mo, Ahn and Shin 2021 (the LAMP score), for channels in the place of single weights."""
    squares = filters(scene, group).square().sum(1)
    order = torch.argsort(squares, stable=True)
    rest = squares[order].flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = squares[order] / rest.clamp(min=torch.finfo(rest.dtype).tiny)
    return scores


def group_norm(scene: Scene, group: ChannelGroup) -> Tensor:
    """The sum of squares of all weights that make a channel, read it or scale it, mean over the layers. Shape: channel.

    Fang, Ma, Song, Mi and Wang 2023 (DepGraph), whose importances are divided by their mean over the group; biases and
    shifts do not count.

    Raises:
        SettingsError: no layer with weights makes or reads them."""
    parts = []
    for member in group.members:
        tensor = scene.tensors[member.parameter]
        is_scale = member.role == "affine" and member.parameter.rpartition(".")[2] == "weight"
        if is_scale or (member.role in ("in", "out") and tensor.ndim > 1):
            rows = tensor.cpu().double().movedim(member.axis, 0)[torch.tensor(member.indices)]
            parts.append(rows.flatten(1).square().sum(1))
    if not parts:
        raise SettingsError("no layer with weights makes its channels or reads them")
    return torch.stack(parts).mean(0)


def filters(scene: Scene, group: ChannelGroup) -> Tensor:
    """The weights that make each channel, of all layers that do, without biases. Shape: (channel, weight), float64.

    Raises:
        SettingsError: no layer with weights makes them."""
    parts = []
    for member in group.members:
        weight = scene.tensors[member.parameter]
        if member.role == "out" and weight.ndim > 1:
            rows = weight.cpu().double().movedim(member.axis, 0)
            parts.append(rows[torch.tensor(member.indices)].flatten(1))
    if not parts:
        raise SettingsError("no layer with weights makes its channels")
    return torch.cat(parts, 1)
