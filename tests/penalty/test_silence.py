"""Zero coordinates mean what they should: the channel is mute, the block returns its input."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc.borrowing import named_tensors
from amsc.models import open_model
from amsc.penalty import Penalty
from amsc.penalty.bypass import find_bypassed_groups
from amsc.structure import Structure, trace
from amsc.surgery import masked, plan_cut
from penalty.nets import images, randomized
from random_networks import CONVOLUTIONAL, SIZE, genes_of, preactivated, random_network, residual


class Dense(nn.Module):
    """conv, then concat(x, conv(relu(bn(x)))): the head reads x past the normalisation, unless it has its own."""

    def __init__(self, is_head_normalised: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.grow = nn.Conv2d(4, 2, 1)
        self.bn_head = nn.BatchNorm2d(6) if is_head_normalised else nn.Identity()
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = torch.cat([x, self.grow(self.bn(x).relu())], 1)
        return self.head(self.bn_head(x).relu()).mean((2, 3))


class DepthwiseWithBias(nn.Module):
    """conv, bn, relu, depthwise convolution with bias and no normalisation after it, head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.depthwise(self.bn(self.conv(x)).relu()).relu()).mean((2, 3))


def half_emptied(penalty: Penalty) -> dict[str, list[int]]:
    """Raise the width strength until about half of the channels are exactly zero; which they are."""
    strength = 1e-3
    while penalty.channels and penalty.zero_channels().float().mean() < 0.5:
        penalty.prox_(0.1, 0.0, strength)
        strength *= 1.5
    zero: dict[str, list[int]] = {}
    for (name, index), is_zero in zip(penalty.channels, penalty.zero_channels().tolist(), strict=True):
        if is_zero:
            zero.setdefault(name, []).append(index)
    return zero


def mask(model: nn.Module, structure: Structure, channels: dict[str, list[int]]) -> None:
    """Zero everything that these channels own, as surgery does."""
    for name, indices in channels.items():
        for member in structure.group(name).members:
            if member.role in ("out", "affine", "element"):
                chosen = torch.tensor([p for c in indices for p in member.indices[c]])
                named_tensors(model)[member.parameter].detach().index_fill_(member.axis, chosen, 0.0)


def check_silence(model: nn.Module, inputs: Tensor) -> tuple[int, int]:
    """Zero channels and blocks are as good as masked ones, residual blocks are the identity; returns how many channels
    and how many blocks were zero."""
    structure = trace(model, inputs)
    penalty = Penalty(structure, model)
    channels = half_emptied(penalty)
    with torch.no_grad():
        output = model(inputs)
        mask(model, structure, channels)
        torch.testing.assert_close(model(inputs), output, rtol=1e-5, atol=1e-5 * float(output.abs().max()))
        penalty.prox_(1.0, 1e12, 0.0)
        assert penalty.zero_blocks().all()
        for name in penalty.blocks:
            if structure.block(name).kind == "identity":
                check_identity(model, name, inputs)
        if penalty.blocks:
            output, reference = model(inputs), masked(model, plan_cut(structure, blocks=penalty.blocks))(inputs)
            torch.testing.assert_close(output, reference, rtol=1e-5, atol=1e-5 * float(reference.abs().max()))
    return sum(map(len, channels.values())), len(penalty.blocks)


def check_identity(model: nn.Module, name: str, inputs: Tensor) -> None:
    seen: list[bool] = []
    hook = model.get_submodule(name).register_forward_hook(
        lambda module, args, output: seen.append(torch.equal(args[0], output))
    )
    model(inputs)
    hook.remove()
    assert seen == [True], name


@pytest.mark.parametrize("build", [partial(Dense, False), partial(Dense, True), DepthwiseWithBias])
def test_zero_channels_are_mute(build: Callable[[], nn.Module]) -> None:
    assert check_silence(randomized(build()), images())[0] > 0


@pytest.mark.parametrize(
    ("kinds", "with_channels", "with_blocks"),
    [(CONVOLUTIONAL, 22, 6), ((residual, preactivated), 24, 24)],
    ids=["any constructs", "residual blocks"],
)
def test_zero_channels_and_blocks_of_random_networks(
    kinds: tuple[Any, ...], with_channels: int, with_blocks: int
) -> None:
    found = [check_random(seed, kinds) for seed in range(24)]
    assert sum(channels > 0 for channels, _ in found) >= with_channels
    assert sum(blocks > 0 for _, blocks in found) >= with_blocks


def check_random(seed: int, kinds: tuple[Any, ...]) -> tuple[int, int]:
    torch.manual_seed(seed)
    network = randomized(random_network(genes_of(seed), kinds), seed)
    return check_silence(network, torch.randn(2, 3, SIZE, SIZE))


def test_only_groups_read_past_their_normalisation_lose_its_coordinates() -> None:
    for is_head_normalised, expected in ((True, frozenset()), (False, frozenset({"conv"}))):
        model = randomized(Dense(is_head_normalised))
        before = {name: tensor.clone() for name, tensor in named_tensors(model).items()}
        assert find_bypassed_groups(trace(model, images()), model) == expected
        assert all(torch.equal(tensor, before[name]) for name, tensor in named_tensors(model).items())
    model = open_model("densenet40", num_classes=10)
    assert find_bypassed_groups(trace(model, torch.randn(1, 3, 32, 32)), model) == frozenset()
