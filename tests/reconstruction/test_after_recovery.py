"""Prices after recovery: shares that others cannot take over, against least squares and where the answer is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import amsc
from amsc.errors import DataError
from amsc.reconstruction import remainders
from amsc.reconstruction.elimination import RIDGE, Layer, Reader, elimination
from reconstruction.fits import Residual, batches, drawn, made
from reconstruction.test_left_alone import Tied, Twice, computed, frozen
from reconstruction.test_refit import Conv1D


def lost(weights: Tensor, moments: Tensor, gone: Tensor) -> float:
    """The least tr (W - V) (H + mu I) (W - V)' over V without the columns `gone`, as a share of that with V = 0."""
    damped = moments + RIDGE * moments.diagonal().mean() * torch.eye(len(moments), dtype=torch.float64)
    kept = torch.tensor([column for column in range(len(moments)) if column not in gone.tolist()])
    left = torch.zeros_like(weights)
    if len(kept):
        left[:, kept] = torch.linalg.solve(damped[kept][:, kept], (weights @ damped)[:, kept], left=False)
    error = ((weights - left) @ damped * (weights - left)).sum()
    return float(error / (weights @ damped * weights).sum())


def columns_of(channels: int, places: int) -> Tensor:
    return torch.arange(channels * places).view(places, channels).T


def reader(channels: int, places: int, seed: int) -> tuple[Reader, Tensor, Tensor]:
    """Three outputs that read correlated numbers; the channels lie in turns. With its weights and moments."""
    size = channels * places
    rows, weights = drawn(200, size, seed=seed) @ drawn(size, size, seed=seed + 1), drawn(3, size, seed=seed + 2)
    moments = rows.T @ rows / len(rows)
    return Reader(Layer.of(weights, moments), columns_of(channels, places)), weights, moments


@pytest.mark.parametrize(("channels", "places"), [(5, 1), (4, 3)])
def test_prices_are_what_least_squares_leaves(channels: int, places: int) -> None:
    it, weights, moments = reader(channels, places, 0)
    columns, gone, left = columns_of(channels, places), list[int](), list(range(channels))
    for channel in (2, 0, 3):
        before, place = lost(weights, moments, columns[gone].flatten()), left.index(channel)
        price = float(it.prices()[place])
        it.remove(torch.tensor([place]), torch.tensor([n for n in range(len(left)) if n != place]))
        gone.append(channel)
        left.remove(channel)
        assert price == pytest.approx(lost(weights, moments, columns[gone].flatten()) - before, rel=1e-8)
        alone = float(it.alone[channel])
        assert alone >= lost(weights, moments, columns[channel]) - 1e-12


def test_channels_go_in_the_order_of_what_they_cost_by_then() -> None:
    it, weights, moments = reader(5, 2, 3)
    left, expected, before = set(range(5)), dict[int, float](), 0.0
    while left:
        gone = sorted(set(range(5)) - left)
        prices = {c: lost(weights, moments, columns_of(5, 2)[[*gone, c]].flatten()) - before for c in left}
        cheapest = min(prices, key=prices.__getitem__)
        expected[cheapest] = prices[cheapest] / float(it.alone[cheapest])
        before += prices[cheapest]
        left.remove(cheapest)
    assert before == pytest.approx(1.0)
    order, shares = elimination([it])
    assert order.tolist() == list(expected)
    torch.testing.assert_close(shares, torch.tensor([*expected.values()]).double())


def test_errors_of_several_readers_add_up() -> None:
    one, other = reader(4, 1, 5)[0], reader(4, 3, 8)[0]
    prices, alone = one.prices() + other.prices(), one.alone + other.alone
    order, shares = elimination([one, other])
    cheapest = int(prices.argmin())
    assert int(order[0]) == cheapest
    assert float(shares[0]) == pytest.approx(float(prices[cheapest] / alone[cheapest]))
    for alone in (reader(4, 1, 5)[0], reader(4, 3, 8)[0]):
        assert float(shares[0]) != pytest.approx(float(elimination([alone])[1][0])), "one of them says otherwise"


def test_large_groups_go_a_few_channels_at_a_time() -> None:
    order, shares = elimination([reader(130, 1, 11)[0]])
    first = reader(130, 1, 11)[0]
    gone = first.prices().argsort()[:3]
    assert order[:3].tolist() == gone.tolist()
    assert sorted(order.tolist()) == list(range(130))
    torch.testing.assert_close(shares[:3], first.prices()[gone] / first.alone[gone])
    assert bool((shares >= 0).all())


class Heads(nn.Module):
    """Attention of three heads of four, the second of which is the first again."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        with torch.no_grad():
            weight, bias = self.attention.in_proj_weight, self.attention.in_proj_bias
            for start in (0, 12, 24):
                weight[start + 4 : start + 8] = weight[start : start + 4]
                bias[start + 4 : start + 8] = bias[start : start + 4]

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def doubled(first: nn.Module, then: nn.Module, *, axis: int = 0) -> nn.Module:
    """Two layers; the second channel of the first layer is its first again."""
    with torch.no_grad():
        for parameter in first.parameters():
            rows = parameter.movedim(min(axis, parameter.ndim - 1), 0)
            rows[1] = rows[0]
    return nn.Sequential(first, nn.ReLU(), then)


TWINS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: doubled(nn.Linear(8, 5), nn.Linear(5, 4)), (40, 8)),
    "of GPT-2": (lambda: doubled(Conv1D(8, 5), Conv1D(5, 4), axis=1), (40, 2, 8)),
    "1d": (lambda: doubled(nn.Conv1d(8, 5, 1), nn.Conv1d(5, 4, 3, stride=2)), (10, 8, 9)),
    "2d": (lambda: doubled(nn.Conv2d(8, 5, 1), nn.Conv2d(5, 4, 3, padding=1, bias=False)), (6, 8, 7, 7)),
    "transposed": (lambda: doubled(nn.Conv2d(8, 5, 1), nn.ConvTranspose2d(5, 4, 3, stride=2)), (6, 8, 5, 5)),
    "heads": (Heads, (10, 6, 12)),
}


@pytest.mark.parametrize("name", TWINS)
def test_of_two_channels_that_are_the_same_one_is_nearly_free(name: str) -> None:
    build, shape = TWINS[name]
    model, data = made(build), batches(*shape)
    structure = amsc.trace(model, data[0])
    (group,) = (each for each in structure.channels if each.kind in ("filter", "hidden", "head"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    order = remainders(model, structure, inputs=data)[group.name]
    (first, share), shares = order[0], dict(order)
    assert first in (0, 1)
    assert share < 0.05, "its twin can do its work"
    assert shares[1 - first] > 0.3, "once one is gone nobody can do that of the other"
    assert min(shares[index] for index in range(2, group.size)) > 5 * share
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_convolution_in_a_block_reads_what_it_reads() -> None:
    model, data = made(lambda: Residual(nn.ReLU)), batches(4, 3, 8, 8, count=3)
    structure = amsc.trace(model, data[0])
    (name,) = (group.name for group in structure.channels if group.name.endswith("conv1"))
    block = next(module for module in model.modules() if hasattr(module, "conv2"))
    read = list[Tensor]()
    block.conv2.register_forward_pre_hook(lambda _, args: read.append(functional.unfold(args[0], 3, padding=1)))
    with torch.no_grad():
        for batch in data:
            model(batch)
    rows = torch.cat([each.transpose(1, 2).flatten(0, 1) for each in read])
    rows = rows - rows.mean(0)
    size = rows.shape[1] // 9
    layer = Layer.of(block.conv2.weight.detach().flatten(1), rows.T @ rows / len(rows))
    it = Reader(layer, torch.arange(9 * size).view(size, 9))
    order, shares = zip(*remainders(model, structure, inputs=data, examples=12)[name], strict=True)
    expected = elimination([it])
    assert list(order) == expected[0].tolist()
    torch.testing.assert_close(torch.tensor(shares, dtype=torch.float64), expected[1], rtol=1e-6, atol=0)


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.then = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 3, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.first(x))


@pytest.mark.parametrize(
    ("build", "shape"),
    [(Twice, (9, 4)), (Tied, (9, 4)), (frozen, (9, 4)), (computed, (9, 4)), (Grouped, (3, 4, 5, 5))],
)
def test_where_nobody_makes_up_there_is_no_share(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    model, data = made(build), batches(*shape)
    structure = amsc.trace(model, data[0])
    assert structure.channels
    assert remainders(model, structure, inputs=data) == {}


def test_too_wide_layers_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = made(TWINS["2d"][0]), batches(*TWINS["2d"][1])
    structure = amsc.trace(model, data[0])
    monkeypatch.setattr("amsc.reconstruction.after_recovery.MOST_READ", 44)
    assert remainders(model, structure, inputs=data) == {}
    monkeypatch.setattr("amsc.reconstruction.after_recovery.MOST_READ", 45)
    assert [len(order) for order in remainders(model, structure, inputs=data).values()] == [5]
    assert remainders(model, structure, (), inputs=data) == {}


def test_layers_that_do_not_fit_into_memory_together_are_looked_at_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = made(lambda: Residual(nn.ReLU, nn.GELU)), batches(4, 3, 8, 8, count=3)
    structure = amsc.trace(model, data[0])
    together = remainders(model, structure, inputs=data)
    monkeypatch.setattr("amsc.reconstruction.batches.MOST_BYTES", 1)
    assert remainders(model, structure, inputs=data) == together


def test_channels_that_are_always_zero_are_no_division_by_zero() -> None:
    model, data = made(lambda: doubled(nn.Linear(8, 5), nn.Linear(5, 4))), batches(40, 8)
    with torch.no_grad():
        model[0].weight[3], model[0].bias[3] = 0, -1
        model[2].weight[:, 4] = 0
    shares = dict(remainders(model, amsc.trace(model, data[0]), inputs=data)["0"])
    assert shares[3] == pytest.approx(1.0)
    assert shares[4] == 1.0


def test_what_is_not_finite_is_an_error() -> None:
    model, data = made(lambda: doubled(nn.Linear(8, 5), nn.Linear(5, 4))), batches(40, 8)
    structure = amsc.trace(model, data[0])
    data[2][1, 1] = torch.nan
    with pytest.raises(DataError, match="not finite"):
        remainders(model, structure, inputs=data)


def test_what_is_always_the_same_has_an_order_all_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(
            torch.linspace(0.1, 2.3, 6)
        )  # the mean of 100 squares, less the square of the mean, is -1e-15
    structure = amsc.trace(model, torch.randn(2, 3))
    found = remainders(model, structure, ["1"], inputs=[torch.randn(100, 3)])
    assert sorted(channel for channel, _ in found["1"]) == [*range(6)]
    assert all(0 <= share <= 1 for _, share in found["1"])
