"""From prices to channels: the same share of each layer, or the cheapest of all; no layer is emptied."""

from collections import Counter

import pytest
import torch

from amsc.criteria import Pricing, by_their_mean, channel_prices, global_ranking, uniform_ranking
from amsc.errors import TargetError
from amsc.structure import Rounding, Structure
from amsc.structure.costing import predicted_cost, predicted_macs
from amsc.training import Removal
from criteria.small import DATA, TASK, net, scene
from training.small import shrink

PRICES = {"a": torch.tensor([3.0, 1.0, 2.0, 4.0]), "b": torch.tensor([10.0, 20.0])}


def pricing(**options: object) -> Pricing:
    return Pricing(**{"channel": "l1", "block": "", "spread": "auto", "data": DATA, "task": TASK, **options})  # type: ignore[arg-type]


def test_uniform_takes_about_the_same_share_of_each() -> None:
    assert uniform_ranking(PRICES) == [("a", 1), ("b", 0), ("a", 2), ("a", 0), ("b", 1), ("a", 3)]


def test_global_takes_the_cheapest_or_the_cheapest_for_their_layer() -> None:
    assert global_ranking(PRICES) == [("a", 1), ("a", 2), ("a", 0), ("a", 3), ("b", 0), ("b", 1)]
    assert global_ranking(by_their_mean(PRICES)) == [
        ("a", 1),
        ("b", 0),
        ("a", 2),
        ("a", 0),
        ("b", 1),
        ("a", 3),
    ]


@pytest.mark.parametrize("spread", ["uniform", "global"])
@pytest.mark.parametrize("share", [0.9, 0.75, 0.6])
def test_the_target_is_met_and_the_cheapest_are_gone(spread: str, share: float) -> None:
    where = scene()
    cost = int(share * predicted_macs(where.structure))
    removal = pricing(spread=spread).choice(where.model, where.structure).removal(cost)
    assert predicted_cost(where.structure, removal.channels) <= cost
    prices, sizes = channel_prices(where, "l1"), {group.name: group.size for group in where.groups}
    for name, gone in removal.channels.items():
        assert 0 < len(gone) < sizes[name]
        kept = [channel for channel in range(sizes[name]) if channel not in gone]
        assert prices[name][list(gone)].max() <= prices[name][kept].min()


def lowest(structure: Structure, rounding: Rounding) -> dict[str, int]:
    choice = pricing(rounding=rounding).choice(net(), structure)
    gone = choice.removal(choice.lowest).channels
    with pytest.raises(TargetError, match="cannot be reached"):
        choice.removal(choice.lowest - 1)
    return {group.name: group.size - len(gone.get(group.name, ())) for group in scene().groups}


def test_no_layer_is_emptied_and_rounding_is_obeyed() -> None:
    structure = scene().structure
    assert lowest(structure, Rounding()) == {"first.conv1": 1, "second.conv1": 1}
    assert lowest(structure, Rounding(2)) == {"first.conv1": 2, "second.conv1": 2}


def test_what_is_usual_for_a_criterion_is_its_spread() -> None:
    model, structure = net(), scene().structure
    orders = {
        (channel, spread): pricing(channel=channel, spread=spread).choice(model, structure).ranking
        for channel in ("l1", "taylor")
        for spread in ("auto", "uniform", "global")
    }
    assert orders["l1", "auto"] == orders["l1", "uniform"]
    assert orders["taylor", "auto"] == orders["taylor", "global"]
    assert Counter(orders["l1", "auto"]) == Counter(orders["taylor", "auto"])


def test_blocks_go_only_where_channels_are_not_enough() -> None:
    model, structure = net(), scene().structure
    live, dense = shrink(model, structure, Removal()), predicted_cost(structure)
    priced = pricing(block="cka", channel="l2")
    order = priced.block_order(model, structure)
    assert set(order) == {"first", "second"}
    assert priced.narrowing(live, int(0.8 * dense)).blocks == ()
    few = priced.choice(model, structure).lowest - 1
    removal = priced.narrowing(live, few)
    assert removal.blocks == order[:1]
    assert predicted_cost(structure, removal.channels, removal.blocks) <= few
