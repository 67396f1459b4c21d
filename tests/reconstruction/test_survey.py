"""Which consumers a network has, where they write, and what may take a shift."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from amsc.reconstruction.survey import Consumer, survey
from reconstruction.fits import Encoder, Residual, drawn, made


def found(model: nn.Module, inputs: Tensor) -> dict[str, Consumer]:
    return {name.removesuffix(".weight"): each for name, each in survey(model, inputs).consumers.items()}


def test_a_residual_network() -> None:
    consumers = found(made(lambda: Residual(nn.ReLU)), drawn(2, 3, 6, 6))
    assert list(consumers) == ["stem", "blocks.0.conv1", "blocks.0.conv2", "head"]
    assert [each.stream for each in consumers.values()] == [0, 0, 2, 0]
    assert [each.is_last for each in consumers.values()] == [False, False, False, True]
    assert [each.bias for each in consumers.values()] == ["stem.bias", None, None, "head.bias"]
    norms = [None, "blocks.0.bn1.running_mean", "blocks.0.bn2.running_mean", None]
    assert [each.norm for each in consumers.values()] == norms
    assert consumers["blocks.0.conv2"].row_size == 45
    assert consumers["blocks.0.conv2"].layout == (2, 6, 6)


def test_attention_of_torch_is_seen_into() -> None:
    consumers = found(made(lambda: Encoder(depth=1)), drawn(2, 5, 8))
    streams = {name: each.stream for name, each in consumers.items()}
    expected = {"layers.0.attention.in_proj_weight": 0, "layers.0.attention.out_proj": 3, "layers.0.up": 0}
    assert streams == {**expected, "layers.0.down": 1, "head": 0}


class Branch(nn.Module):
    """Adds what `change` makes of a layer's output to its input."""

    def __init__(self, change: Callable[["Branch", Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.rand(4) + 0.5)
        self.norm, self.drop, self.change = nn.LayerNorm(4), nn.Dropout(0.5), change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self, x, self.layer(x.sin()))


BRANCHES: dict[str, tuple[Callable[[Branch, Tensor, Tensor], Tensor], int]] = {
    "added": (lambda it, x, y: x + y, 1),
    "added to": (lambda it, x, y: y + x, 1),
    "added in place": (lambda it, x, y: y.add_(x), 1),
    "scaled": (lambda it, x, y: x + it.scale * y, 2),
    "scaled by a view": (lambda it, x, y: x + y * it.scale.view(1, 4), 2),
    "dropout": (lambda it, x, y: x + it.drop(y), 2),
    "moved": (lambda it, x, y: x + y.transpose(0, 1).reshape(4, -1).view(4, -1).t(), 5),
    "both branches": (lambda it, x, y: x + (y + it.other(x)), 2),
    "sum of a list": (lambda it, x, y: sum([x, y]), 1),
    "normalised first": (lambda it, x, y: x + it.norm(y), 0),
    "activated first": (lambda it, x, y: x + y.relu(), 0),
    "activated in place": (lambda it, x, y: x + y.relu_(), 0),
    "gated by the input": (lambda it, x, y: x + y * x.sigmoid(), 0),
    "read by two": (lambda it, x, y: x + y + y.sum(), 0),
    "read again behind the sum": (lambda it, x, y: (x + y) + 0 * y.relu(), 0),
    "read again by another layer": (lambda it, x, y: x + y * 1 + it.other(y), 0),
    "divided into": (lambda it, x, y: x + 1 / y, 0),
    "written into": (lambda it, x, y: written(x, y), 0),
    "broadcast": (lambda it, x, y: x + y[:1], 0),
    "of one shape after the sum": (lambda it, x, y: (x + y).relu() + x, 1),
}


def written(x: Tensor, y: Tensor) -> Tensor:
    """A gate is written into what is added."""
    y[:, 0] = x[:, 1].sigmoid()
    return y + x


@pytest.mark.parametrize("name", BRANCHES)
def test_where_an_output_is_added_to_a_stream(name: str) -> None:
    change, steps = BRANCHES[name]
    consumers = found(made(lambda: Branch(change)), drawn(3, 4))
    assert consumers["layer"].stream == steps


class Shared(nn.Module):
    def __init__(self, *, affine: bool = True) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
        self.norm = nn.BatchNorm2d(3, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.two(self.norm(self.one(x)).relu()))


def test_a_norm_that_is_called_twice_takes_no_shift() -> None:
    assert [each.norm for each in found(made(Shared), drawn(2, 3, 4, 4)).values()] == [None, None]
    alone = made(lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False)))
    assert [each.norm for each in found(alone, drawn(2, 3, 4, 4)).values()] == ["1.running_mean"]
    of_batches = made(lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)))
    assert [each.norm for each in found(of_batches, drawn(2, 3, 4, 4)).values()] == [None]


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.body(x).relu()
        return {"left": self.left(y).softmax(-1), "right": self.right(y)}


def test_what_is_frozen_takes_no_shift() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)))
    model.get_parameter("0.bias").requires_grad_(False)
    assert [each.bias for each in found(model, drawn(2, 3)).values()] == [None, "1.bias"]
    assert [each.reason for each in found(model, drawn(2, 3)).values()] == ["", ""]
    model.requires_grad_(False)
    assert all("frozen" in each.reason for each in found(model, drawn(2, 3)).values())


def test_several_heads_are_all_last() -> None:
    consumers = found(made(Heads), drawn(2, 4))
    assert [name for name, each in consumers.items() if each.is_last] == ["left", "right"]
