"""Prices of channels by their activations, as the first layer that reads them finds them; no labels are needed."""

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lars_path_gram
from torch import Tensor

from amsc.borrowing import in_double
from amsc.criteria.maps import maps_of
from amsc.criteria.scene import Scene
from amsc.structure.structure import ChannelGroup

__all__ = ["chip", "hrank", "hsic"]

PART = 64
"""Channels whose absence is looked at in one go."""


def hrank(scene: Scene, group: ChannelGroup) -> Tensor:
    """The rank of each channel's feature map, mean over examples. Shape: channel.

    Lin, Ji, Wang, Zhang, Zhang, Tian and Shao 2020 (HRank). Maps are what the first convolution reads, or
    what the last one that makes them returns, where none reads them.

    Raises:
        SettingsError: the channels have no maps with two axes."""
    found = [maps.values.float().flatten(4) for maps in maps_of(scene, group, axes=2)]
    return torch.cat([torch.linalg.matrix_rank(maps).float().mean(2) for maps in found]).mean(0).cpu()


def chip(scene: Scene, group: ChannelGroup) -> Tensor:
    """||A||_* - ||A without row j||_*, mean over examples; the rows of A are the flattened maps of one. Shape: channel.

    Sui, Yin, Xie, Phan, Zonouz and Yuan 2021 (CHIP): how much the nuclear norm falls when a channel
    is zero is how independent it is of the others."""
    found = [_independence(rows) for maps in maps_of(scene, group) for rows in in_double(maps.values).flatten(2)]
    return torch.stack(found).mean(0).cpu()


def _independence(rows: Tensor) -> Tensor:
    """By how much the nuclear norm of `rows` (shape: channel, position) falls without each. Shape: channel."""
    if rows.shape[1] > rows.shape[0]:  # the same singular values, with fewer columns
        rows = torch.linalg.qr(rows.T, mode="r").R.T
    kept = 1 - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    left = [torch.linalg.svdvals(part[:, :, None] * rows).sum(1) for part in kept.split(PART)]
    whole: Tensor = torch.linalg.svdvals(rows).sum()
    return whole - torch.cat(left)


def hsic(scene: Scene, group: ChannelGroup) -> Tensor:
    """The strongest penalty under which a channel has a part in explaining what the layer returns that reads it: 0 for
    one that never has. Shape: channel.

    Guo, Zhang, Zheng, Wang, Li, Chao, Wu, Zhang and Ji 2023 (APIB): the HSIC lasso min_a 1/(2 n^2) ||L - sum_j a_j
    K_j||^2 + lambda ||a||_1, where K_j and L are the centred Gaussian kernels of n examples by the channel and by the
    output, of width 1 / number of entries. For one lambda in all layers channels go whose price is below it. It looks
    at one example against another, so batches have examples along their first axis.

    Where nothing reads the channels the output is that of the layer that makes them."""
    every = maps_of(scene, group)
    values = torch.cat([in_double(maps.values).flatten(2) for maps in every]).movedim(1, 0)
    read = torch.cat([in_double(maps.values if maps.read is None else maps.read).flatten(1) for maps in every])
    kernels, output = _centred_kernels(values).flatten(1), _centred_kernels(read[None]).flatten()
    return _entry_penalties(kernels @ kernels.T, kernels @ output, len(output))


def _centred_kernels(values: Tensor) -> Tensor:
    """exp(-||x - x'||^2 / number of entries), rows and columns centred. Shapes: (set, example, entry), (set, example,
    example)."""
    kernels = torch.exp(-torch.cdist(values, values).square() / values.shape[2])
    return kernels - kernels.mean(1, keepdim=True) - kernels.mean(2, keepdim=True) + kernels.mean((1, 2), keepdim=True)


def _entry_penalties(gram: Tensor, product: Tensor, count: int) -> Tensor:
    """The penalty at which each coefficient of a lasso with these moments leaves zero as it falls. Shape: channel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of channels that are the same one stays out
        strengths, _, path = lars_path_gram(
            Xy=product.cpu().numpy(), Gram=gram.cpu().numpy(), n_samples=count, method="lasso"
        )
    is_in = torch.from_numpy(path) != 0
    first = torch.where(is_in.any(1), is_in.double().argmax(1), 0)
    entered = torch.from_numpy(strengths.copy())[(first - 1).clamp(min=0)]
    return torch.where(is_in.any(1), entered, 0.0)
