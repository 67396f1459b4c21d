"""Channels beside constants, and through weights that are computed: what can go there, and that it goes exactly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amsc.structure import Structure, trace
from amsc.surgery import cut, plan_cut
from random_constructs import FrozenNorm
from structure.awkward import Net, conv, images

Layer = Callable[[Any, Tensor, Tensor], Tensor]


def cut_half(model: nn.Module, inputs: Tensor) -> Structure:
    """The structure, after every second channel of all exact groups was cut and compared with masking."""
    structure = trace(model.eval(), inputs)
    cut(model, plan_cut(structure, channels={g.name: range(0, g.size, 2) for g in structure.channels if g.exact}))
    return structure


def between(middle: Callable[[Tensor], Tensor], width: int = 8) -> nn.Module:
    return Net(lambda self, x: self.b(F.relu(middle(self.a(x)))), a=conv(3, width), b=conv(8, 2))


def into_zeros(x: Tensor, new: Callable[..., Tensor]) -> Tensor:
    wide = new(*x.shape[:3], x.shape[3] + 2)
    wide[..., 2:] = x
    return wide


KEEPS_ZERO: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros joined behind": lambda x: torch.cat([x, x.new_zeros(*x.shape[:3], 1)], 3),
    "zeros joined above": lambda x: torch.cat([x.new_zeros(*x.shape[:2], 1, x.shape[3]), x], 2),
    "zeros joined by full": lambda x: torch.cat([x.new_full((*x.shape[:3], 1), 0.0), x], 3),
    "products of zeros joined": lambda x: torch.cat([x.new_zeros(*x.shape[:3], 1) * 2, x], 3),
    "filled with zeros and joined": lambda x: torch.cat([x.new_empty(*x.shape[:3], 1).fill_(0), x], 3),
    "zeros stacked": lambda x: torch.stack([x, x.new_zeros(x.shape)], 3).flatten(3),
    "zeros added": lambda x: x + x.new_zeros(x.shape),
    "zero padding": lambda x: F.pad(x, (1, 0, 2, -1)),
    "circular padding": lambda x: F.pad(x, (1, 1, 2, 0), mode="circular"),
    "written into zeros": lambda x: into_zeros(x, x.new_zeros),
    "gated along the width": lambda x: F.glu(x, 3),
}
LEAVES_ONES: dict[str, Callable[[Tensor], Tensor]] = {
    "ones joined": lambda x: torch.cat([x, x.new_ones(*x.shape[:3], 1)], 3),
    "ones stacked": lambda x: torch.stack([x, x.new_ones(x.shape)], 3).flatten(3),
    "ones added": lambda x: x + x.new_ones(x.shape),
    "zeros filled with ones": lambda x: torch.cat([x, x.new_zeros(*x.shape[:3], 1).fill_(1)], 3),
    "zeros overwritten by noise": lambda x: torch.cat([x, x.new_zeros(*x.shape[:3], 1).uniform_(0.5, 1)], 3),
    "written into ones": lambda x: into_zeros(x, x.new_ones),
    "padding with ones": lambda x: F.pad(x, (1, 1), value=1.0),
}


@pytest.mark.parametrize("name", KEEPS_ZERO)
def test_channels_go_beside_zeros(name: str) -> None:
    structure = cut_half(between(KEEPS_ZERO[name]), images())
    assert structure.group("a").exact, structure.explain("a")


@pytest.mark.parametrize("name", LEAVES_ONES)
def test_channels_beside_other_constants_are_not_offered_as_exact(name: str) -> None:
    structure = cut_half(between(LEAVES_ONES[name]), images())
    assert not any(group.exact and group.name == "a" for group in structure.channels)


def test_halves_of_a_gated_linear_unit_go_together() -> None:
    structure = cut_half(between(lambda x: F.glu(x, 1), width=16), images())
    group = structure.group("a")
    assert group.exact
    assert group.members[0].indices[3] == (3, 11)


# -- weights that are computed -----------------------------------------------------------------------------------------


def weighted(layer: Layer, *shape: int, **parameters: Tensor) -> nn.Module:
    own = {name: nn.Parameter(value) for name, value in parameters.items()}
    return Net(
        lambda self, x: self.b(F.relu(layer(self, F.relu(self.a(x)), self.w))),
        a=conv(3, 8), b=conv(6, 2), w=nn.Parameter(torch.randn(shape) * 0.2), **own,
    )  # fmt: skip


def with_weight(how: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    return weighted(lambda self, x, w: F.conv2d(x, how(self, w)), 6, 8, 3, 3, gain=torch.tensor(0.3))


def linear(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)


NUMBER_BY_NUMBER: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "times a constant": lambda self, w: w * 0.1,
    "a constant times": lambda self, w: torch.mul(0.1, w),
    "divided": lambda self, w: w / 3,
    "times a learnt number": lambda self, w: w * self.gain,
    "times a function of a learnt number": lambda self, w: self.gain.exp() * w,
    "a function that keeps zero": lambda self, w: torch.tanh(w),
    "twice": lambda self, w: (w * 0.1).abs() / 2,
}


@pytest.mark.parametrize("name", NUMBER_BY_NUMBER)
def test_a_function_of_a_weight_that_keeps_zeros_is_cut_as_the_weight(name: str) -> None:
    structure = cut_half(with_weight(NUMBER_BY_NUMBER[name]), images())
    roles = {(m.parameter, m.axis): m.role for g in structure.channels if g.exact for m in g.members}
    assert (roles["w", 0], roles["w", 1]) == ("out", "in")


@pytest.mark.parametrize("how", [lambda self, w: w + 0.1, lambda self, w: 1 - w, lambda self, w: w - self.gain])
def test_a_weight_plus_a_constant_loses_inputs_and_no_outputs(how: Callable[[Any, Tensor], Tensor]) -> None:
    structure = cut_half(with_weight(how), images())
    assert structure.group("a").exact
    assert not structure.group("w").exact, "a zeroed filter is a constant one"


@pytest.mark.parametrize(
    "how",
    [
        lambda self, w: w / w.norm(),
        lambda self, w: w - w.mean(),
        lambda self, w: w * w.sum().exp(),
        lambda self, w: (w * 0.1) / (w * 0.1).norm(),
    ],
)
def test_a_weight_scaled_by_what_depends_on_it_loses_no_inputs(how: Callable[[Any, Tensor], Tensor]) -> None:
    assert not cut_half(with_weight(how), images()).group("a").exact


RESHAPED: dict[str, nn.Module] = {
    "view": weighted(lambda self, x, w: linear(x, w.view(w.shape[0], -1)), 6, 8, 1, 1),
    "reshape of a multiple": weighted(lambda self, x, w: linear(x, (w * 0.5).reshape(w.shape[0], -1)), 6, 8, 1, 1),
    "flatten and matmul": weighted(lambda self, x, w: (w.flatten(1) @ x.flatten(2)).unflatten(2, (8, 8)), 6, 8, 1, 1),
    "new axes": weighted(lambda self, x, w: F.conv2d(x, w[:, :, None, None]), 6, 8),
    "columns of an image": weighted(
        lambda self, x, w: (w.flatten(1) @ F.unfold(x, 3, padding=1)).unflatten(2, (8, 8)), 6, 8, 3, 3
    ),
}


@pytest.mark.parametrize("name", RESHAPED)
def test_a_reshaped_weight_loses_inputs_and_outputs(name: str) -> None:
    structure = cut_half(RESHAPED[name], images())
    assert {(m.parameter, m.axis) for g in structure.channels if g.exact for m in g.members} >= {("w", 0), ("w", 1)}


# -- frozen normalisations ---------------------------------------------------------------------------------------------


def frozen_network() -> nn.Module:
    def branch() -> nn.Module:
        return nn.Sequential(conv(8, 6), FrozenNorm(6), nn.ReLU(), conv(6, 8, bias=False), FrozenNorm(8))

    blocks = [Net(lambda self, x: F.relu(x + self.branch(x)), branch=branch()) for _ in range(2)]
    return nn.Sequential(conv(3, 8), FrozenNorm(8), nn.ReLU(), *blocks, conv(8, 2))


def test_channels_go_through_a_frozen_normalisation() -> None:
    structure = cut_half(frozen_network(), images())
    assert [(group.name, group.size, group.exact) for group in structure.channels] == [
        ("0", 8, True), ("3.branch.0", 6, True), ("4.branch.0", 6, True)
    ]  # fmt: skip


def test_blocks_with_frozen_normalisations_go() -> None:
    model = frozen_network().eval()
    structure = trace(model, images())
    assert [block.name for block in structure.blocks] == ["3", "4"]
    for blocks in (["3"], ["4"], ["3", "4"]):
        cut(model, plan_cut(structure, channels={"0": [1, 2]}, blocks=blocks), images())
