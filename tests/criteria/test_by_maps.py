"""Prices by activations, against loops over examples and channels and the arithmetic of published code."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn

from amsc.criteria import Scene, channel_prices, maps_of
from amsc.data import Data
from amsc.errors import SettingsError
from amsc.structure import trace
from criteria.small import SIZE, TASK, inner_maps, net, scene
from training.small import ListData

GROUP = "first.conv1"


def test_maps_are_what_the_next_layer_reads() -> None:
    model = net()
    where = scene(model)
    maps, read = inner_maps(model)
    found = maps_of(where, where.structure.group(GROUP))
    assert [one.values.shape for one in found] == [(8, 5, 1, SIZE, SIZE)] * 3
    torch.testing.assert_close(torch.cat([one.values for one in found])[:, :, 0], maps)
    torch.testing.assert_close(torch.cat([one.read for one in found if one.read is not None]), read)


def test_hrank_is_the_mean_rank_of_the_maps() -> None:
    maps = inner_maps(net())[0].numpy()
    by_hand = [np.mean([np.linalg.matrix_rank(maps[i, j]) for i in range(len(maps))]) for j in range(5)]
    assert len(set(by_hand)) > 1
    assert channel_prices(scene(), "hrank")[GROUP].tolist() == pytest.approx(by_hand)


def test_chip_is_what_the_nuclear_norm_loses_without_a_channel() -> None:
    """The published code: each row of each example set to zero in turn."""
    maps = inner_maps(net())[0].flatten(2).double().numpy()
    scores = np.zeros(maps.shape[:2])
    for example, rows in enumerate(maps):
        for channel in range(5):
            without = rows.copy()
            without[channel] = 0
            scores[example, channel] = np.linalg.norm(rows, "nuc") - np.linalg.norm(without, "nuc")
    assert channel_prices(scene(), "chip")[GROUP].tolist() == pytest.approx(scores.mean(0).tolist())


def test_chip_of_more_channels_than_positions_is_the_same() -> None:
    from amsc.criteria.by_maps import _independence

    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_hand = []
    for channel in range(7):
        without = rows.clone()
        without[channel] = 0
        by_hand.append(float(torch.linalg.matrix_norm(rows, "nuc") - torch.linalg.matrix_norm(without, "nuc")))
    assert _independence(rows).tolist() == pytest.approx(by_hand)


def kernel(values: np.ndarray) -> np.ndarray:
    """Centred, of examples in rows, entry by entry."""
    count, gamma = len(values), 1 / values.shape[1]
    made = np.array([[np.exp(-gamma * np.sum((a - b) ** 2)) for b in values] for a in values])
    centre = np.eye(count) - np.ones((count, count)) / count
    return np.asarray(centre @ made @ centre)


def test_hsic_is_the_penalty_at_which_a_channel_enters_the_lasso() -> None:
    """The published code: a lasso of the output's kernel on those of the channels."""
    maps, read = (one.flatten(2).double() for one in inner_maps(net()))
    columns = np.stack([kernel(maps[:, channel].numpy()).ravel() for channel in range(5)], 1)
    output = kernel(read.flatten(1).numpy()).ravel()
    prices = channel_prices(scene(), "hsic")[GROUP].numpy()
    assert prices.max() == pytest.approx(np.abs(columns.T @ output).max() / len(output))
    asked = 0
    for strength in np.sort(prices[prices > 0]):
        for factor in (1.02, 0.98):
            lasso = Lasso(alpha=factor * strength, tol=1e-12, max_iter=100_000).fit(columns, output)
            is_in = np.abs(lasso.coef_) > 1e-9
            assert (is_in == (prices > factor * strength)).all()
            asked += 1
    assert asked >= 4


def flattened() -> tuple[nn.Module, Data]:
    """A convolution that is read behind a flatten, and a hidden layer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 6), nn.ReLU(), nn.Linear(6, 3)
    ).eval()
    batches = tuple((torch.randn(6, 1, 4, 4), torch.randint(0, 3, (6,))) for _ in range(2))
    return model, ListData(batches)


def test_a_channel_behind_a_flatten_owns_all_its_positions() -> None:
    model, data = flattened()
    where = Scene(model, trace(model, data.example_inputs()), data, TASK)
    maps = maps_of(where, where.structure.group("0"))
    with torch.no_grad():
        expected = torch.relu(model[0](next(iter(data.batches("train")))[0]))
    torch.testing.assert_close(maps[0].values[..., :], expected.flatten(2))
    conv = maps_of(where, where.structure.group("0"), axes=2)
    assert conv[0].values.shape == (6, 4, 1, 2, 2)
    assert conv[0].read is None


def test_what_has_no_maps_is_named() -> None:
    model, data = flattened()
    where = Scene(model, trace(model, data.example_inputs()), data, TASK)
    with pytest.raises(SettingsError, match=r"criterion='hrank' cannot price 3 \(no convolution over 2 axes"):
        channel_prices(where, "hrank")
    assert channel_prices(where, "chip")["3"].shape == (6,)
