"""Passes that go on where the last one stood: the same numbers as passes from the start, and fewer of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import amsc
from amsc.reconstruction import reconstruct, refit, replay
from reconstruction.fits import Encoder, Residual, batches, drawn, made


class Branch(nn.Module):
    """A block whose forward does what a test asks for between its two layers, and what is read from outside after."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 6)
        self.register_buffer("count", torch.zeros(()))
        self.constant = drawn(5, seed=3)
        self.between, self.cache = between, None

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(self.between(self, self.one(x)))


def network(between: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    blocks = (Branch(between) for _ in range(3))
    return made(lambda: nn.Sequential(nn.Linear(6, 6), *blocks, nn.Linear(6, 3)))


def in_place(_: Any, y: Tensor) -> Tensor:
    view = y[:, 1:3]
    y.mul_(2)
    view.relu_()
    return y.relu_()


def of_an_attribute(block: Any, y: Tensor) -> Tensor:
    return y * block.constant


def random(_: Any, y: Tensor) -> Tensor:
    return y + 0.01 * torch.rand_like(y)


def counting(block: Any, y: Tensor) -> Tensor:
    block.count += 1
    return y.relu() + 0 * block.count


def scripted(_: Any, y: Tensor) -> Tensor:
    return torch.special.expit(_SCRIPT(y))


def asking(_: Any, y: Tensor) -> Tensor:
    return y.relu() if float(y.detach().sum()) > -1e9 and y.shape[1] == y.size(1) else -y


def caching(block: Any, y: Tensor) -> Tensor:
    if block.cache is None:
        block.cache = torch.linspace(0, 1, y.shape[-1], dtype=y.dtype)
    return y * block.cache


def unpacking(_: Any, y: Tensor) -> Tensor:
    return torch.stack([row.relu() for row in y])


def several(_: Any, y: Tensor) -> Tensor:
    values, _order = torch.sort(y, dim=0)
    one, two = values.split([3, len(values) - 3])
    return torch.cat([one.relu(), two.tanh()])


@torch.jit.script
def _SCRIPT(y: Tensor) -> Tensor:
    return y * 2


WAYS = (in_place, of_an_attribute, random, counting, scripted, asking, caching, unpacking, several)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{way.__name__: (lambda way=way: network(way), (8, 6)) for way in WAYS},
    "convolutions": (lambda: made(lambda: Residual(nn.ReLU, nn.GELU, nn.ReLU)), (4, 3, 6, 6)),
    "attention": (lambda: made(Encoder), (4, 5, 8)),
}


def cut_down(model: nn.Module, inputs: Any) -> nn.Module:
    """Without a third of the channels of each group."""
    groups = [group for group in amsc.trace(model, inputs).channels if group.exact and group.size > 2]
    plan = amsc.plan_cut(amsc.trace(model, inputs), channels={group.name: range(group.size // 3) for group in groups})
    return amsc.cut(model, plan, inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_weights_are_those_of_passes_from_the_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, shape = NETWORKS[name]
    model, data = build(), batches(*shape)
    small = cut_down(model, data[0])
    going_on = reconstruct(small, model, data, inner=True)
    monkeypatch.setattr(refit, "Replay", lambda _: None)
    from_the_start = reconstruct(small, model, data, inner=True)

    assert sum(layer.ridge is not None for layer in going_on.record.layers) > 1
    for one, other in zip(going_on.model.parameters(), from_the_start.model.parameters(), strict=True):
        assert torch.equal(one, other)


class Products(TorchDispatchMode):
    """Counts what is multiplied with the weights of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten.addmm.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("way", "goes_on"), [(asking, True), (in_place, True), (several, True), (random, False)])
def test_a_pass_does_not_begin_anew(way: Callable[[Any, Tensor], Tensor], goes_on: bool) -> None:
    """Each of eight layers runs for the dense network, for itself and for the one behind it, not for all of them."""
    model, data = network(way), batches(8, 6)
    small = cut_down(model, data[0])
    with Products() as products:
        reconstruct(small, model, data, inner=True)
    assert (products.count < 5 * 8 * len(data)) == goes_on


def test_what_is_kept_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = network(asking), batches(8, 6)
    small = cut_down(model, data[0])
    counts = []
    for limit in (2**30, 0):
        monkeypatch.setattr(replay, "MOST_BYTES", limit)
        with Products() as products:
            reconstruct(small, model, data, inner=True)
        counts.append(products.count)
    assert counts[1] > 1.2 * counts[0]
