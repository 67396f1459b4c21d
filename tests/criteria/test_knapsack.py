"""Depth and width as a knapsack, against all that could be chosen."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc.criteria import KnapsackChoice, Pricing, channel_prices
from amsc.errors import SettingsError, TargetError
from amsc.settings import Settings
from amsc.structure import Limit, Rounding, Structure, parameter_costs, trace
from amsc.structure.costing import predicted_cost, predicted_macs
from amsc.training import Removal
from criteria.small import DATA, TASK, net, scene
from criteria.test_runs import DATA as DIGITS
from criteria.test_runs import run
from training.small import trained_net

BLOCKS = ("first", "second")


def value(prices: dict[str, Tensor], removal: Removal, home: dict[str, str]) -> float:
    """What is kept."""
    kept = {name: values for name, values in prices.items() if home.get(name) not in removal.blocks}
    gone = sum(float(kept[name][list(channels)].sum()) for name, channels in removal.channels.items() if name in kept)
    return sum(float(values.sum()) for values in kept.values()) - gone


def best(structure: Structure, prices: dict[str, Tensor], home: dict[str, str], cost: int) -> float:
    """Of all blocks and all numbers of channels, tried one by one."""
    blocks = sorted(set(home.values()))
    found = -1.0
    for gone in itertools.chain.from_iterable(itertools.combinations(blocks, n) for n in range(len(blocks) + 1)):
        left = [name for name in prices if home.get(name) not in gone]
        for sizes in itertools.product(*(range(1, len(prices[name]) + 1) for name in left)):
            channels = {
                name: tuple(prices[name].argsort(stable=True)[: len(prices[name]) - size].tolist())
                for name, size in zip(left, sizes, strict=True)
            }
            removal = Removal(gone, {name: indices for name, indices in channels.items() if indices})
            if predicted_cost(structure, removal.channels, removal.blocks) <= cost:
                found = max(found, value(prices, removal, home))
    return found


def check(
    structure: Structure, prices: dict[str, Tensor], blocks: tuple[str, ...], shares: list[float]
) -> list[Removal]:
    choice, removals = KnapsackChoice(structure, prices, Rounding(), blocks), []
    for share in shares:
        cost = int(share * predicted_cost(structure))
        removal = choice.removal(cost)
        assert predicted_cost(structure, removal.channels, removal.blocks) <= cost
        expected = best(structure, prices, dict(choice.home), cost)
        assert value(prices, removal, dict(choice.home)) == pytest.approx(expected, rel=1e-3)
        removals.append(removal)
    with pytest.raises(TargetError, match=f"the lowest is {choice.lowest}"):
        choice.removal(choice.lowest - 1)
    return removals


def test_the_most_is_kept_of_blocks_and_channels() -> None:
    where = scene()
    prices = channel_prices(where, "l2")
    removals = check(where.structure, prices, BLOCKS, [0.9, 0.7, 0.5, 0.4])
    assert any(removal.blocks for removal in removals)
    assert any(removal.channels and not removal.blocks for removal in removals)


def test_streams_are_multiplied_with_what_reads_them_and_cost_nothing_in_a_block_that_is_gone() -> None:
    where = scene(streams=True)
    check(where.structure, channel_prices(where, "l2"), BLOCKS, [0.8, 0.5, 0.3])


def test_limits_of_several_kinds_are_kept_at_once() -> None:
    where = scene()
    structure = where.structure
    held = parameter_costs(structure)
    macs = Limit("macs", predicted_macs(structure), structure.costs)
    params = Limit("params", sum(cost.at(structure.shapes) for cost in held), held)
    check(replace(structure, limits=(macs, params)), channel_prices(where, "l2"), BLOCKS, [0.8, 0.6])


class Chain(nn.Module):
    """Layers each of which reads the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_a_chain_without_blocks_is_a_product_of_widths() -> None:
    structure = trace(Chain().eval(), torch.zeros(2, 6))
    drawn = torch.Generator().manual_seed(3)
    prices = {group.name: torch.rand(group.size, generator=drawn).double() for group in structure.channels}
    assert len(prices) == 2
    check(structure, prices, (), [0.9, 0.6, 0.3])


def test_rounding_is_obeyed() -> None:
    where = scene()
    choice = KnapsackChoice(where.structure, channel_prices(where, "l2"), Rounding(2), ())
    gone = choice.removal(choice.lowest).channels
    assert {name: len(indices) for name, indices in gone.items()} == {"first.conv1": 3, "second.conv1": 1}


@pytest.mark.parametrize("more", [{"block_criterion": "cka"}, {"uniform": True}])
def test_what_a_knapsack_does_not_look_at_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"knapsack.*leave one of the two out"):
        Settings(method="criterion", criterion="l1", criterion_spread="knapsack", **more)


def test_a_run_takes_blocks_and_channels_by_a_knapsack() -> None:
    dense = trained_net(DIGITS)
    record = run(dense, {"criterion": "taylor", "criterion_spread": "knapsack"}).record
    assert record.after.macs <= 0.6 * record.before.macs
    assert record.verification_error < 1e-5
    assert [point.candidates[0].removed_blocks for point in record.path[1:3]] == [
        point.removed_blocks for point in record.path[1:3]
    ]


def test_the_narrowing_is_that_of_the_knapsack() -> None:
    from training.small import shrink

    model, structure = net(), scene().structure
    pricing = Pricing("l2", "", "knapsack", DATA, TASK)
    cost = int(0.4 * predicted_cost(structure))
    assert pricing.narrowing(shrink(model, structure, Removal()), cost) == pricing.choice(model, structure).removal(
        cost
    )
