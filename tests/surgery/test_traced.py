"""Cutting what the tracer found: masked equals cut, and the predicted cost is the counted one."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from amsc.measurement import count_macs
from amsc.structure import trace
from amsc.structure.cutting import after_removal
from amsc.structure.structure import Structure
from amsc.surgery import CutPlan, compose, cut, load, plan_cut, save, verify
from surgery.nets import Residual, SmallNet, images, randomized


class Head(nn.Module):
    """Convolution to `width`, `middle`, convolution with bias, flatten, linear; after `middle` the images
    have `pixels` pixels."""

    def __init__(self, middle: nn.Module, width: int = 12, out: int = 12, pixels: int = 36) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.middle = middle
        self.last = nn.Conv2d(out, 6, 1)
        self.fc = nn.Linear(6 * pixels, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.stem(x))
        return self.fc(self.last(x).sigmoid().mul(0.5).relu().flatten(1))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Twice(nn.Module):
    """Two convolutions that share one weight, beside each other."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x.relu())


class Dense(nn.Module):
    """Concatenates its input with a convolution of it."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(width, 6, 3, padding=1), nn.BatchNorm2d(width + 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.cat([x, self.conv(x)], 1)).relu()


NETS: dict[str, Callable[[], nn.Module]] = {
    "small": SmallNet,
    "chain": lambda: Head(nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())),
    "batchnorm without affine": lambda: Head(nn.Sequential(nn.Conv2d(12, 12, 1), nn.BatchNorm2d(12, affine=False))),
    "residual": lambda: Head(nn.Sequential(Residual(12, 7), nn.ReLU(), Residual(12, 5))),
    "grouped": lambda: Head(nn.Conv2d(12, 12, 3, padding=1, groups=4)),
    "grouped and wider": lambda: Head(nn.Conv2d(12, 24, 3, padding=1, groups=3), out=24),
    "depthwise": lambda: Head(nn.Sequential(nn.Conv2d(12, 24, 3, padding=1, groups=12), nn.BatchNorm2d(24)), out=24),
    "transposed": lambda: Head(nn.ConvTranspose2d(12, 8, 2, stride=2), out=8, pixels=144),
    "grouped transposed": lambda: Head(nn.ConvTranspose2d(12, 8, 2, stride=2, groups=4), out=8, pixels=144),
    "groupnorm": lambda: Head(nn.Sequential(nn.Conv2d(12, 12, 1), nn.GroupNorm(4, 12), nn.ReLU())),
    "squeeze-excite": lambda: Head(SqueezeExcite()),
    "tied": lambda: Head(Twice()),
    "prelu": lambda: Head(nn.Sequential(nn.Conv2d(12, 12, 1), nn.PReLU(12))),
    "concatenation": lambda: Head(Dense(), out=18),
    "pixel shuffle": lambda: Head(nn.PixelShuffle(2), out=3, pixels=144),
}


def random_plan(structure: Structure, seed: int) -> CutPlan:
    """One channel to half of the channels of each exact group and every other block, at random."""
    draw = random.Random(seed)
    channels = {
        group.name: draw.sample(range(group.size), draw.randint(min(1, group.size // 2), group.size // 2))
        for group in structure.channels
        if group.exact
    }
    blocks = [block for block in structure.blocks if block.kind != "plain"]  # these go with the channels around them
    return plan_cut(structure, channels=channels, blocks=[block.name for block in blocks if draw.random() < 0.5])


@pytest.mark.parametrize("name", NETS)
def test_cut_equals_masked_and_costs_what_was_predicted(name: str) -> None:
    model = randomized(NETS[name]()).eval()
    structure = trace(model, images())
    assert any(group.exact for group in structure.channels)
    for seed in range(4):
        plan = random_plan(structure, seed)
        small = cut(model, plan, images())
        assert verify(model, small, plan, images()) < 1e-5
        assert count_macs(small, images()) == plan.macs
        assert sum(p.numel() for p in small.parameters()) == plan.parameters
        for group in trace(small, images()).channels:
            assert group.size <= structure.group(group.name).size


@pytest.mark.parametrize("name", ["grouped", "depthwise", "grouped transposed", "groupnorm", "tied", "prelu"])
def test_the_layer_in_question_really_shrinks(name: str) -> None:
    model = NETS[name]()
    structure = trace(model, images())
    before = sum(p.numel() for p in model.get_submodule("middle").parameters())
    channels = {group.name: [0] for group in structure.channels if group.exact}
    small = cut(randomized(model), plan_cut(structure, channels=channels))
    assert sum(p.numel() for p in small.get_submodule("middle").parameters()) < before


def test_tied_weights_are_still_tied() -> None:
    model = randomized(NETS["tied"]())
    structure = trace(model, images())
    channels = {group.name: [0, 1] for group in structure.channels if group.exact}
    small = cut(model, plan_cut(structure, channels=channels))
    assert small.get_parameter("middle.first.weight") is small.get_parameter("middle.second.weight")


@pytest.mark.parametrize("name", ["small", "residual", "grouped", "concatenation"])
def test_two_cuts_equal_one(name: str) -> None:
    model = randomized(NETS[name]()).eval()
    structure = trace(model, images())
    first = random_plan(structure, 1)
    once = cut(model, first)
    for middle in (after_removal(structure, first.channels, first.blocks), trace(once, images())):
        second = random_plan(middle, 2)
        twice = cut(once, second)
        both = compose(first, second)
        assert twice.amsc_plan == both
        at_once = plan_cut(structure, channels=both.channels, blocks=both.blocks)
        assert (at_once.cuts, at_once.macs, at_once.parameters) == (both.cuts, both.macs, both.parameters)
        torch.testing.assert_close(cut(model, at_once)(images()), twice(images()))


def test_saved_cut_of_a_cut_loads(tmp_path: Path) -> None:
    model = randomized(NETS["residual"]()).eval()
    once = cut(model, random_plan(trace(model, images()), 1))
    twice = cut(once, random_plan(trace(once, images()), 2))
    save(twice, tmp_path)
    loaded = load(tmp_path, NETS["residual"]).eval()
    assert torch.equal(loaded(images()), twice(images()))
