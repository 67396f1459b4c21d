"""Prices of blocks, against loops over examples."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from amsc.criteria import Scene, block_prices
from amsc.criteria.by_blocks import linear_cka
from amsc.errors import SettingsError
from amsc.models.densenet import CifarDenseNet
from amsc.structure import trace
from amsc.tasks import Regression
from criteria.small import DATA, TASK, Net, inner_maps, net, scene
from training.small import ListData, small_data


@torch.no_grad()
def ends(model: Net) -> tuple[Tensor, Tensor]:
    x = functional.relu(model.bn(model.stem(torch.cat([inputs for inputs, _ in DATA.items]))))
    return x, model.first(x)


def hsic(first: np.ndarray, second: np.ndarray) -> float:
    """tr(K H L H), of linear kernels."""
    centre = np.eye(len(first)) - 1 / len(first)
    return float(np.trace(first @ first.T @ centre @ second @ second.T @ centre))


def test_cka_compares_the_features_with_and_without_the_block() -> None:
    model = net()
    with torch.no_grad():
        whole = model.second(ends(model)[1]).mean((2, 3)).double().numpy()
        without = model.second(ends(model)[0]).mean((2, 3)).double().numpy()
    by_hand = hsic(whole, without) / (hsic(whole, whole) * hsic(without, without)) ** 0.5
    assert block_prices(scene(model), "cka")["first"] == pytest.approx(1 - by_hand, rel=1e-4)


def test_cka_is_one_of_turned_and_scaled_features_and_none_of_constant_ones() -> None:
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1))).Q
    assert linear_cka(rows, 3 * rows @ turn + 1) == pytest.approx(1)
    assert linear_cka(rows, torch.ones(9, 2)) == 0


def test_shortgpt_is_one_less_the_mean_cosine_of_what_goes_in_and_comes_out() -> None:
    model = net()
    before, after = (one.permute(0, 2, 3, 1).reshape(-1, 4).tolist() for one in ends(model))

    def cosine(one: list[float], other: list[float]) -> float:
        product = sum(a * b for a, b in zip(one, other, strict=True))
        return product / max(math.hypot(*one) * math.hypot(*other), 1e-8)

    by_hand = 1 - sum(cosine(a, b) for a, b in zip(before, after, strict=True)) / len(before)
    assert block_prices(scene(model), "shortgpt")["first"] == pytest.approx(by_hand, rel=1e-4)


def test_dbp_is_what_a_linear_probe_gains() -> None:
    labels = torch.cat([target for _, target in DATA.items]).numpy()
    scores = []
    for values in ends(net()):
        rows = values.double().mean((2, 3)).numpy()
        rows = (rows - rows[:12].mean(0)) / rows[:12].std(0, ddof=1)
        probe = LogisticRegression(max_iter=1000).fit(rows[:12], labels[:12])
        scores.append(np.mean(probe.predict(rows[12:]) == labels[12:]))
    assert block_prices(scene(), "dbp")["first"] == pytest.approx(scores[1] - scores[0])


def test_entropy_counts_how_often_units_are_on() -> None:
    """The published code: the share of examples and positions, and -p log2 p - (1 - p) log2 (1 - p)."""
    model = net()
    on = [float((inner_maps(model)[0][:, channel] > 0).float().mean()) for channel in range(5)]
    by_hand = [-p * math.log2(p) - (1 - p) * math.log2(1 - p) if 0 < p < 1 else 0.0 for p in on]
    assert block_prices(scene(model), "entropy")["first"] == pytest.approx(sum(by_hand) / 5, rel=1e-5)


class Branches(nn.Module):
    """A layer that is added to the stream outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.branch(x))


def test_a_block_that_does_not_return_its_input_has_no_ends() -> None:
    torch.manual_seed(0)
    model, data = Branches().eval(), ListData(((torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])),))
    where = Scene(model, trace(model, data.example_inputs()), data, TASK)
    for name in ("shortgpt", "dbp"):
        with pytest.raises(SettingsError, match=f"'{name}' cannot price branch .*leaves zeros.*keep=..branch.."):
            block_prices(where, name)
    assert 0 < block_prices(where, "cka")["branch"] < 1
    assert 0 < block_prices(where, "entropy")["branch"] <= 1


def test_a_block_without_units_of_its_own_has_no_entropy() -> None:
    model, data = CifarDenseNet(2, growth=3, num_classes=10, in_channels=1).eval(), small_data()
    where = Scene(model, trace(model, data.example_inputs()), data, TASK)
    assert len(where.blocks) == 6
    with pytest.raises(SettingsError, match=r"cannot price dense1\.0 \(it has no units .*\) and 5 more"):
        block_prices(where, "entropy")


def test_targets_that_are_no_classes_are_not_told_apart() -> None:
    items = tuple((inputs, target.float()) for inputs, target in DATA.items)
    model = net()
    where = Scene(model, trace(model, DATA.example_inputs()), ListData(items), Regression())
    with pytest.raises(SettingsError, match=r"'dbp' cannot price first \(the data have no classes"):
        block_prices(where, "dbp")
