"""Zeroing and cutting are the same function, and cost what was predicted, on every network of the zoo."""

import pytest
import torch
from torch import Tensor, nn

from amsc.measurement import count_macs
from amsc.models import open_model
from amsc.structure import trace
from amsc.structure.costing import predicted_macs
from amsc.surgery import cut, plan_cut
from removals import random_removal

KINDS = ("inner", "stream", "blocks", "mixed")
SMALL = ("digits_resnet", "resnet20")
LARGE = ("resnet32", "resnet44", "resnet56", "resnet110", "vgg16", "densenet40", "resnet50")


def example(name: str) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (2, 1, 8, 8) if name == "digits_resnet" else (1, 3, 64, 64) if name == "resnet50" else (1, 3, 32, 32)
    return torch.randn(shape, generator=generator)


def with_random_statistics(model: nn.Module) -> nn.Module:
    """Every BatchNorm gets statistics, scales and shifts that hide nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.2)
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.2)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return model


def check_removals(name: str, seeds: range) -> None:
    model, inputs = with_random_statistics(open_model(name)), example(name)
    structure = trace(model, inputs)
    for seed in seeds:
        channels, blocks = random_removal(structure, seed, kind=KINDS[seed % len(KINDS)])
        if channels or blocks:
            plan = plan_cut(structure, channels=channels, blocks=blocks)
            small = cut(model, plan, inputs)  # raises above 1e-5 relative
            assert count_macs(small, inputs) == plan.macs == predicted_macs(structure, channels, blocks)
            assert sum(p.numel() for p in small.parameters()) == plan.parameters


@pytest.mark.parametrize("name", SMALL)
def test_twenty_random_removals_equal_masking(name: str) -> None:
    check_removals(name, range(20))


@pytest.mark.parametrize("name", LARGE)
def test_random_removals_equal_masking_on_large_networks(name: str) -> None:
    check_removals(name, range(4))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_twenty_random_removals_equal_masking_on_large_networks(name: str) -> None:
    check_removals(name, range(4, 20))


BLOCKS = [
    ("resnet20", "identity", 7),
    ("resnet56", "identity", 25),
    ("resnet50", "identity", 12),
    ("vgg16", "plain", 9),
    ("densenet40", "dense", 36),
]


@pytest.mark.parametrize(("name", "kind", "count"), BLOCKS)
def test_the_blocks_are_found_by_behaviour(name: str, kind: str, count: int) -> None:
    structure = trace(open_model(name), example(name))
    assert [block.kind for block in structure.blocks] == [kind] * count


def test_a_block_of_resnet56_costs_what_the_method_page_says() -> None:
    structure = trace(open_model("resnet56"), torch.randn(1, 3, 32, 32))
    assert {block.macs for block in structure.blocks} == {4_718_592}
