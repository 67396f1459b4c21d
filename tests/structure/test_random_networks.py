"""Random networks of awkward constructs: a cut equals masking, or what cannot be cut is pinned with a reason."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amsc.measurement import count_macs
from amsc.structure import trace
from amsc.structure.costing import predicted_macs
from amsc.surgery import cut, cuttable, plan_cut
from random_constructs import CONSTRUCTS
from random_networks import FIRST_STAGES, SIZE, STAGES, costs_are_exact, genes_of, random_network
from removals import random_removal
from structure.awkward import Net


def check_random_network(genes: list[int], seed: int, kinds: tuple[Any, ...] = STAGES) -> int:
    """Removes at random; raises where masking and cutting differ; the number of channels and blocks removed."""
    torch.manual_seed(seed)
    network, inputs = random_network(genes, kinds), torch.randn(2, 3, SIZE, SIZE)
    traced = trace(network, inputs)
    assert predicted_macs(traced) == count_macs(network, inputs)
    structure = cuttable(network, traced, inputs)
    assert all(pin.reason for pin in structure.pins)
    channels, blocks = random_removal(structure, seed)
    if channels or blocks:
        plan = plan_cut(structure, channels=channels, blocks=blocks)
        small = cut(network, plan, inputs)  # raises above 1e-5 relative
        left = count_macs(small, inputs)
        assert left == plan.macs or (left < plan.macs and not costs_are_exact(network, structure, channels))
    return sum(map(len, channels.values())) + len(blocks)


@pytest.mark.parametrize("first", range(0, 80, 16))
def test_cut_equals_masked_on_random_networks(first: int) -> None:
    """Most have something to remove: a tracer that pins everything would pass otherwise."""
    removed = [check_random_network(genes_of(seed), seed) for seed in range(first, first + 16)]
    assert sum(count > 0 for count in removed) >= 13


@pytest.mark.parametrize(
    "seed",
    [
        61,  # dimensions of heads go, and a number of heads is as large as a table of which half goes
        951,  # a block goes that has the width of a stream which costs elsewhere follow
        2208,
        2469,  # a block goes that mixes tokens, of which there are as many afterwards
    ],
)
def test_random_networks_that_once_were_wrong(seed: int) -> None:
    assert check_random_network(genes_of(seed), seed, FIRST_STAGES) > 0


def check_stages(kinds: tuple[Any, ...], seeds: range) -> int:
    return sum(check_random_network(genes_of(seed), seed, kinds) > 0 for seed in seeds)


@pytest.mark.parametrize("kind", CONSTRUCTS)
def test_what_stands_beside_channels_lets_them_go(kind: Any) -> None:
    assert check_stages((kind,), range(8)) >= 6


# -- where costs were once not predicted -------------------------------------------------------------------------------


def check_costs(network: nn.Module, inputs: Tensor, group: str) -> None:
    """The multiply-adds are predicted for every other channel of a group removed."""
    structure = trace(network.eval(), inputs)
    plan = plan_cut(structure, channels={group: range(0, structure.group(group).size, 2)})
    assert plan.macs == count_macs(cut(network, plan, inputs), inputs)


def fused(self: Net, x: Tensor) -> Tensor:
    q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
    y = F.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2)
    return self.proj(y.flatten(2))


def test_costs_of_fused_attention_follow_the_heads() -> None:
    network = Net(fused, qkv=nn.Linear(8, 24), proj=nn.Linear(8, 8))
    check_costs(network, torch.randn(2, 5, 8), "qkv")


def test_costs_of_spectral_norm_follow_the_rows() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 8))
    check_costs(nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 2)), torch.randn(4, 6), "0.bias")


def test_costs_are_counted_once_beside_an_unused_parameter() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network.register_parameter("unused", nn.Parameter(torch.zeros(3)))
    inputs = torch.randn(1, 3, SIZE, SIZE)
    assert predicted_macs(trace(network.eval(), inputs)) == count_macs(network, inputs)
