"""Channels that are constants when they are zeroed: what the next layer reads of them moves into its bias."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc.errors import CutError
from amsc.structure import Structure, trace
from amsc.structure.cutting import after_removal
from amsc.surgery import apply_plan, compose, cut, cut_tensors, cuttable, load, masked, plan_cut, save, unfolded, verify
from surgery.nets import randomized


class Function(nn.Module):
    """A function without parameters as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class TwoReaders(nn.Module):
    """Two layers read what comes out of the sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.left, self.right = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).sigmoid()
        return self.left(y) * self.right(y)


class Twice(nn.Module):
    """One layer reads two things."""

    def __init__(self, other: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.other = nn.Linear(6, 8), nn.Linear(8, 4), other

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y.sigmoid()) * self.b(self.other(y))


class Mixed(nn.Module):
    """What is left of a removed channel is a number for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) + x.mean(1, keepdim=True))


def features() -> Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def images() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def linear(function: Callable[[Tensor], Tensor], *, bias: bool) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), Function(function), nn.Linear(8, 4, bias=bias))


def convolution(middle: nn.Module, *, bias: bool, kernel: int = 1, padding: int = 0) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), middle, nn.Conv2d(8, 4, kernel, padding=padding, bias=bias))


FOLDED: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], tuple[str, ...]]] = {
    "sigmoid, linear": (lambda: linear(torch.sigmoid, bias=True), features, ("2",)),
    "sigmoid, linear without bias": (lambda: linear(torch.sigmoid, bias=False), features, ("2",)),
    "sigmoid, 1x1": (lambda: convolution(nn.Sigmoid(), bias=True), images, ("2",)),
    "sigmoid, 1x1 without bias": (lambda: convolution(nn.Sigmoid(), bias=False), images, ("2",)),
    "sigmoid, 3x3 without padding": (lambda: convolution(nn.Sigmoid(), bias=True, kernel=3), images, ("2",)),
    "exp": (lambda: linear(torch.exp, bias=True), features, ("2",)),
    "plus one": (lambda: linear(lambda x: x + 1, bias=False), features, ("2",)),
    "batch norm": (lambda: convolution(nn.BatchNorm2d(8, affine=False), bias=False), images, ("2",)),
    "flattened": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(128, 4)),
        images,
        ("3",),
    ),
    "reflected border": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect")),
        images,
        ("2",),
    ),
    "two in a row": (
        lambda: nn.Sequential(
            *(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 8, bias=False), nn.Sigmoid(), nn.Linear(8, 4, bias=False))
        ),
        features,
        ("2", "4"),
    ),
    "two readers": (TwoReaders, features, ("left", "right")),
    "read twice": (lambda: Twice(lambda y: y.cos() / 2), features, ("b",)),
}


def halved(structure: Structure) -> dict[str, range]:
    return {group.name: range(group.size // 2) for group in structure.channels if group.exact}


@pytest.mark.parametrize("name", FOLDED)
def test_the_constant_moves_into_the_bias(name: str) -> None:
    build, inputs, folds = FOLDED[name]
    model = randomized(build()).eval()
    structure = cuttable(model, trace(model, inputs()), inputs())
    plan = plan_cut(structure, channels=halved(structure))
    assert plan.folds == folds
    small = cut(model, plan, inputs())
    torch.testing.assert_close(small(inputs()), masked(model, plan)(inputs()))
    assert sum(p.numel() for p in small.parameters()) == plan.parameters
    after = after_removal(structure, plan.channels)
    assert after.shapes == {key: tuple(tensor.shape) for key, tensor in small.state_dict().items()}
    again = {g.name: {(m.parameter, m.axis) for m in g.members} for g in trace(small, inputs()).channels}
    assert {g.name: {(m.parameter, m.axis) for m in g.members} for g in after.channels} == again


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_padded_convolution_meets_zeros_beside_the_constant_and_stays(kernel: int) -> None:
    (group,) = trace(convolution(nn.Sigmoid(), bias=True, kernel=kernel, padding=1), images()).channels
    assert not group.exact
    assert "non-zero constant" in group.reason


@pytest.mark.parametrize("reader", [nn.Conv2d(8, 8, 1, groups=2), nn.ConvTranspose2d(8, 4, 1)])
def test_grouped_and_transposed_convolutions_do_not_fold(reader: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sigmoid(), reader)
    assert not any(group.exact for group in trace(model, images()).channels)


def test_a_computed_weight_does_not_fold() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.utils.parametrizations.weight_norm(nn.Linear(8, 4)))
    assert not any(group.exact for group in trace(model, features()).channels)


def test_a_constant_that_depends_on_the_input_stays_and_says_so() -> None:
    model = randomized(Mixed()).eval()
    structure = trace(model, features())
    plan = plan_cut(structure, channels={"a": [0, 1]})
    with pytest.raises(CutError, match=r"b reads channels that are not zero .* not the same constant"):
        cut(model, plan, features())
    (group,) = cuttable(model, structure, features()).channels
    assert (group.exact, group.folds) == (False, ())
    assert "not the same constant" in group.reason


def test_a_single_example_does_not_make_a_constant() -> None:
    model = randomized(Mixed()).eval()
    with pytest.raises(CutError, match="not the same constant"):
        cut(model, plan_cut(trace(model, features()[:1]), channels={"a": [0]}), features()[:1])


def test_a_new_bias_needs_a_gradient_as_its_weight_does() -> None:
    model = randomized(linear(torch.sigmoid, bias=False))
    model[2].weight.requires_grad_(False)
    small: Any = cut(model, plan_cut(trace(model, features()), channels={"0": [0]}))
    assert not small[2].bias.requires_grad
    assert model[2].bias is None


@pytest.mark.parametrize("name", FOLDED)
def test_a_saved_cut_loads(name: str, tmp_path: Path) -> None:
    build, inputs, _ = FOLDED[name]
    model = randomized(build()).eval()
    small = cut(model, plan_cut(structure := trace(model, inputs()), channels=halved(structure)), inputs())
    save(small, tmp_path)
    assert torch.equal(load(tmp_path, build).eval()(inputs()), small(inputs()))


@pytest.mark.parametrize("name", FOLDED)
def test_two_cuts_are_one(name: str) -> None:
    build, inputs, _ = FOLDED[name]
    model = randomized(build()).eval()
    structure = trace(model, inputs())
    first = plan_cut(structure, channels={group.name: [1] for group in structure.channels})
    once = cut(model, first, inputs())
    second = plan_cut(after := after_removal(structure, first.channels), channels=halved(after))
    twice = cut(once, second, inputs())
    both = compose(first, second)
    assert twice.amsc_plan == both
    at_once = plan_cut(structure, channels=both.channels)
    assert (at_once.cuts, at_once.folds, at_once.parameters) == (both.cuts, both.folds, both.parameters)
    torch.testing.assert_close(cut(model, at_once)(inputs()), twice(inputs()))


def test_a_bias_made_by_the_second_cut_has_the_rows_that_the_first_one_left() -> None:
    build, inputs, _ = FOLDED["two in a row"]
    model = randomized(build()).eval()
    structure = trace(model, inputs())
    first = plan_cut(structure, channels={"2": [1, 3]})
    second = plan_cut(after_removal(structure, first.channels), channels={"0": [0], "2": [0]})
    twice = cut(cut(model, first), second)
    at_once = plan_cut(structure, channels={"0": [0], "2": [0, 1, 3]})
    assert twice.amsc_plan == at_once
    torch.testing.assert_close(cut(model, at_once)(inputs()), twice(inputs()))


def test_momentum_of_a_new_bias_starts_at_zero() -> None:
    model = linear(torch.sigmoid, bias=False)
    plan = plan_cut(trace(model, features()), channels={"0": [0, 1]})
    momentum = {name: torch.ones_like(parameter) for name, parameter in model.named_parameters()}
    sliced = cut_tensors(momentum, plan)
    small = cut(model, plan)
    assert {name: tensor.shape for name, tensor in sliced.items()} == {
        name: parameter.shape for name, parameter in small.named_parameters()
    }
    assert torch.equal(sliced["2.bias"], torch.zeros(4))
    assert "2.bias" not in cut_tensors({"0.bias": torch.ones(8)}, plan)


def test_a_trained_cut_is_the_dense_network_without_the_channels() -> None:
    model = randomized(linear(torch.sigmoid, bias=False))
    plan = plan_cut(trace(model, features()), channels={"0": [0, 1]})
    small = cut(model, plan)
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    small(features()).square().sum().backward()
    optimizer.step()
    assert verify(unfolded(model, small, plan), small, plan, features()) < 1e-6


def test_a_layer_that_reads_two_constants_of_one_channel_has_no_bias_for_both() -> None:
    model = randomized(Twice(torch.exp)).eval()
    (group,) = cuttable(model, trace(model, features()), features()).channels
    assert not group.exact


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_bias_is_of_the_networks_precision(dtype: torch.dtype) -> None:
    model = randomized(linear(torch.exp, bias=False)).to(dtype)
    x = features().to(dtype)
    small: Any = cut(model, plan_cut(trace(model, x), channels={"0": [0, 3]}), x)
    assert small[2].bias.dtype == dtype


def test_a_network_without_values_gets_the_shapes() -> None:
    with torch.device("meta"):
        model = linear(torch.sigmoid, bias=False)
    plan = plan_cut(trace(model, features().to("meta")), channels={"0": [0]})
    assert plan.folds == ("2",)
    small: Any = apply_plan(model, plan)
    assert small[2].bias.shape == (4,)


def test_explain_tells_where_the_constant_goes() -> None:
    text = trace(linear(torch.sigmoid, bias=False), features()).explain("0.weight")
    assert "a constant when zeroed, which moves into the bias of 2" in text
