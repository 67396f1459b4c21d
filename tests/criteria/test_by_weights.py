"""Prices by weights, against loops over single weights and the arithmetic of published code."""

import numpy as np
import pytest
import torch
from scipy.spatial import distance
from torch import nn

from amsc.criteria import CHANNELS, channel_prices
from amsc.criteria.by_weights import filters
from amsc.errors import SettingsError
from criteria.small import DATA, net, scene

GROUP = "first.conv1"


def rows() -> list[list[float]]:
    return [row.flatten().tolist() for row in net().first.conv1.weight.detach()]


def test_l1_and_l2_are_sums_over_the_weights_of_a_filter() -> None:
    prices = {name: channel_prices(scene(), name)[GROUP].tolist() for name in ("l1", "l2")}
    assert prices["l1"] == pytest.approx([sum(abs(w) for w in row) for row in rows()])
    assert prices["l2"] == pytest.approx([sum(w * w for w in row) ** 0.5 for row in rows()])


def test_the_scale_is_the_absolute_one_of_the_normalisation() -> None:
    model = net()
    with torch.no_grad():
        model.first.bn1.weight[2] *= -1
    prices = channel_prices(scene(model), "batchnorm-scale")[GROUP]
    assert prices.tolist() == pytest.approx(model.first.bn1.weight.abs().tolist())


def test_distances_to_all_other_filters_are_added() -> None:
    """The published code: cdist of flattened filters, and the sum of each column."""
    prices = channel_prices(scene(), "geometric-median")[GROUP]
    published = np.sum(np.abs(distance.cdist(rows(), rows(), "euclidean")), axis=0)
    assert prices.tolist() == pytest.approx(published.tolist())
    by_hand = [
        sum(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 for other in rows()) for one in rows()
    ]
    assert prices.tolist() == pytest.approx(by_hand)


def test_lamp_divides_by_all_that_are_no_smaller() -> None:
    prices = channel_prices(scene(), "lamp")[GROUP]
    squares = [sum(w * w for w in row) for row in rows()]
    by_hand = [one / sum(other for other in squares if other >= one) for one in squares]
    assert prices.tolist() == pytest.approx(by_hand)
    assert max(prices) == 1


def test_group_norm_counts_what_makes_reads_and_scales_a_channel() -> None:
    model, prices = net(), channel_prices(scene(), "group-norm")[GROUP]
    for channel in range(5):
        makes = sum(w * w for w in model.first.conv1.weight[channel].flatten().tolist())
        reads = sum(w * w for w in model.first.conv2.weight[:, channel].flatten().tolist())
        scales = float(model.first.bn1.weight.detach()[channel]) ** 2
        assert float(prices[channel]) == pytest.approx((makes + reads + scales) / 3)


def test_group_norm_agrees_with_torch_pruning() -> None:
    tp = pytest.importorskip("torch_pruning")
    model, prices = net(), channel_prices(scene(), "group-norm")[GROUP]
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=DATA.example_inputs())
    group = graph.get_pruning_group(model.first.conv1, tp.prune_conv_out_channels, idxs=list(range(5)))
    theirs = tp.importance.GroupMagnitudeImportance(p=2)(group)
    torch.testing.assert_close((prices / prices.mean()).float(), theirs)


def test_random_prices_are_those_of_the_seed() -> None:
    first, again, other = (channel_prices(scene(seed=seed), "random") for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first[GROUP], other[GROUP])
    assert not torch.equal(first[GROUP][:3], first["second.conv1"])


def test_a_channel_of_a_stream_has_the_filters_of_all_its_makers() -> None:
    model = net()
    where = scene(model, streams=True)
    (stream,) = (group for group in where.groups if group.kind == "stream")
    made = [model.stem.weight, model.first.conv2.weight, model.second.conv2.weight]
    by_hand = [sum(float(w[channel].detach().abs().sum()) for w in made) for channel in range(4)]
    assert channel_prices(where, "l1")[stream.name].tolist() == pytest.approx(by_hand)
    assert filters(where, stream).shape == (4, 2 * 9 + 5 * 9 + 3 * 9)
    scales = torch.stack([module.weight.abs() for module in (model.bn, model.first.bn2, model.second.bn2)])
    assert channel_prices(where, "batchnorm-scale")[stream.name].tolist() == pytest.approx(scales.mean(0).tolist())


def test_a_channel_without_a_scale_is_named_and_so_is_the_cure() -> None:
    model = net()
    model.first.bn1, model.second.bn1 = nn.Identity(), nn.Identity()
    with pytest.raises(SettingsError, match=r"'batchnorm-scale' cannot price first\.conv1 .* and 1 more.*keep=\["):
        channel_prices(scene(model), "batchnorm-scale")


def test_every_price_goes_with_its_channel() -> None:
    """The same network with its inner channels in another order has the same prices in that order."""
    order = torch.tensor([3, 0, 4, 1, 2])
    model, other = net(), net()
    with torch.no_grad():
        other.first.conv1.weight.copy_(model.first.conv1.weight[order])
        other.first.conv2.weight.copy_(model.first.conv2.weight[:, order])
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(other.first.bn1, name).copy_(getattr(model.first.bn1, name)[order])
    for name in sorted(set(CHANNELS) - {"random"}):
        before, after = (channel_prices(scene(one), name) for one in (model, other))
        torch.testing.assert_close(after[GROUP], before[GROUP][order], rtol=1e-3, atol=1e-9, msg=name)
        torch.testing.assert_close(after["second.conv1"], before["second.conv1"], rtol=1e-3, atol=1e-9, msg=name)
