"""Plain convolutions that keep the shape of their input: found, and removed where they are the Dirac kernel."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from amsc.errors import CutError
from amsc.measurement import count_macs
from amsc.records import from_json, to_json
from amsc.structure import Structure, trace
from amsc.structure.cutting import after_removal, channels_gone
from amsc.surgery import CutPlan, compose, cut, cuttable, load, masked, plan_cut, plan_of, save
from dense_nets import images, randomized

WIDTH = 6


def conv(inputs: int = WIDTH, outputs: int = WIDTH, kernel: Any = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **{"padding": "same"} | options)


def vgg() -> nn.Sequential:
    """Four convolutions of the same width, of which the second and third are plain without and with BatchNorm, and the
    fourth is read by a linear layer; the first makes the channels."""
    parts = [conv(3), nn.ReLU(), conv(), nn.ReLU(inplace=True), conv(bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()]
    head = [conv(WIDTH, WIDTH, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * WIDTH, 5)]
    return nn.Sequential(*parts, nn.MaxPool2d(2), *head)


NAMES = ["2", "4", "8"]


def plain(model: nn.Module, inputs: Tensor | None = None) -> list[str]:
    blocks = trace(model.eval(), images() if inputs is None else inputs).blocks
    return [block.name for block in blocks if block.kind == "plain"]


def between(middle: nn.Module, width: int = WIDTH) -> nn.Sequential:
    return nn.Sequential(conv(3), nn.ReLU(), middle, nn.ReLU(), conv(width, 4, 1))


def test_the_convolutions_of_a_plain_network_are_found() -> None:
    assert plain(vgg()) == NAMES
    block = trace(vgg(), images()).block("4")
    assert (block.parameters, block.macs, block.call) == (("4.weight",), 2 * 64 * 9 * WIDTH**2, None)


@pytest.mark.parametrize(
    "middle",
    [
        conv(kernel=1),
        conv(kernel=2),
        conv(stride=2, padding=1),
        conv(padding=0),
        conv(groups=2),
        weight_norm(conv()),
        nn.ConvTranspose2d(WIDTH, WIDTH, 3, padding=1),
        type("Own", (nn.Conv2d,), {})(WIDTH, WIDTH, 3, padding=1),
        nn.Sequential(shared := conv(), nn.ReLU(), shared),
    ],
    ids=lambda module: type(module).__name__,
)
def test_other_convolutions_are_none(middle: nn.Module) -> None:
    assert plain(between(middle)) == []
    assert plain(between(conv(dilation=2, kernel=(1, 5), padding=(0, 4)))) == ["2"]


class Bottleneck(nn.Module):
    """A residual block that changes its stream, and so is no block itself."""

    def __init__(self, is_long: bool) -> None:
        super().__init__()
        middle = [conv(), nn.ReLU()] if is_long else []
        self.branch = nn.Sequential(conv(), nn.ReLU(), *middle, conv(WIDTH, 8, 1))
        self.shortcut = conv(WIDTH, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.branch(x) + self.shortcut(x)).relu()


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(self.one(x).relu())


@pytest.mark.parametrize(
    "model", [between(Bottleneck(True), 8), between(Bottleneck(False), 8), between(Added()), between(nn.Sigmoid())]
)
def test_none_lies_in_a_residual_block(model: nn.Module) -> None:
    assert plain(model) == []


def test_along_one_and_three_axes() -> None:
    for kind, shape in ((nn.Conv1d, (2, 3, 9)), (nn.Conv3d, (2, 3, 4, 4, 4))):
        model = nn.Sequential(kind(3, 4, 1), nn.ReLU(), kind(4, 4, 3, padding=1), nn.ReLU(), kind(4, 2, 1)).eval()
        inputs = torch.rand(shape)
        assert plain(model, inputs) == ["2"]
        cut(model, plan_cut(trace(model, inputs), blocks=["2"]), inputs)


def checked(model: nn.Module, plan: CutPlan) -> nn.Module:
    small = cut(model, plan, images())
    assert count_macs(small, images()) == plan.macs
    assert sum(parameter.numel() for parameter in small.parameters()) == plan.parameters
    return small


@pytest.mark.parametrize("blocks", [["2"], ["4"], ["8"], ["2", "4"], NAMES])
def test_they_go_alone_and_together(blocks: list[str]) -> None:
    model = randomized(vgg())
    structure = trace(model, images())
    plan = plan_cut(structure, blocks=blocks)
    assert plan.plain == tuple(blocks)
    small = checked(model, plan)
    assert all(isinstance(small.get_submodule(name), nn.Identity) for name in blocks)
    kernels = [masked(model, plan).get_parameter(f"{name}.weight") for name in blocks]
    assert all(torch.equal(kernel, nn.init.dirac_(torch.empty_like(kernel))) for kernel in kernels)
    assert cuttable(model, structure, images()) is structure


def group_of(structure: Structure, module: str) -> str:
    return next(g.name for g in structure.channels if any(m.parameter == f"{module}.weight" for m in g.members))


def test_channels_go_along_if_they_are_the_same_before_and_behind() -> None:
    model = randomized(vgg())
    structure = trace(model, images())
    with pytest.raises(CutError, match="'4' can only go if the same channels"):
        plan_cut(structure, channels={"4": [1, 3]}, blocks=["4"])
    with pytest.raises(CutError, match="here 1 and 1"):
        plan_cut(structure, channels={"2": [1], "4": [2]}, blocks=["4"])
    checked(model, plan_cut(structure, channels={"2": [1, 3], "4": [3, 1]}, blocks=["4"]))
    checked(model, plan_cut(structure, channels={"0": [5], "2": [5], "4": [5], "8": [5]}, blocks=NAMES))
    checked(model, plan_cut(structure, channels={"0": [1], "8": [1, 2]}, blocks=["4"]))


@pytest.mark.parametrize("blocks", [["2"], ["2", "4"], NAMES])
def test_what_they_read_goes_behind_them_as_well(blocks: list[str]) -> None:
    model = randomized(vgg())
    structure = trace(model, images())
    plan = plan_cut(structure, channels={"0": [1, 4]}, blocks=blocks)
    checked(model, plan)
    gone = channels_gone(structure, {"0": [1, 4]}, blocks)
    assert gone == dict.fromkeys(("0", *blocks), (1, 4))
    assert after_removal(structure, {"0": [1, 4]}, blocks).group("0").size == WIDTH - 2


def test_behind_a_removed_one_both_groups_are_one() -> None:
    model = randomized(vgg())
    structure = trace(model, images())
    first = plan_cut(structure, channels={"2": [1], "4": [1], "0": [0, 1]}, blocks=["4"])
    once, middle = checked(model, first), after_removal(structure, first.channels, first.blocks)
    assert {(group.name, group.size) for group in middle.channels} == {("0", 4), ("2", 5), ("8", 6)}
    assert middle.blocks == (), "the others read channels that they do not make now"
    second = plan_cut(middle, channels={"2": [0, 4], "8": [3]})
    twice = checked(once, second)
    whole = plan_of(twice)
    assert whole == compose(first, second)
    assert whole is not None
    torch.testing.assert_close(masked(model, whole)(x := images()), twice(x), rtol=1e-4, atol=1e-5)
    assert {group.size for group in trace(twice, images()).channels} == {4, 3, 5}


class Beside(nn.Module):
    """Reads a convolution and its input side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle, self.last = conv(3), conv(), conv(2 * WIDTH, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.last(torch.cat((x, self.middle(x)), 1))


def test_what_is_read_beside_its_input_is_read_twice() -> None:
    model = Beside().eval()
    structure = trace(model, images())
    first = plan_cut(structure, blocks=["middle"])
    once, middle = checked(model, first), after_removal(structure, {}, ["middle"])
    checked(once, plan_cut(middle, channels={"stem": [2]}))
    assert after_removal(middle, {"stem": [2]}).shapes["last.weight"] == (4, 2 * WIDTH - 2, 1, 1)


def test_it_is_saved_and_built_again(tmp_path: Path) -> None:
    model = randomized(vgg())
    plan = plan_cut(trace(model, images()), blocks=["2", "8"])
    assert from_json(CutPlan, to_json(plan)) == plan
    small = checked(model, plan)
    save(small, tmp_path / "model")
    torch.testing.assert_close(load(tmp_path / "model", vgg).eval()(x := images()), small(x))
