"""On a path: blocks by their prices, channels by their prices without them, and no help where a criterion fails."""

import pytest
from torch import nn

from amsc.criteria import PricedThinning, Pricing
from amsc.structure import Structure
from amsc.structure.costing import predicted_cost
from amsc.surgery import stand_in
from amsc.training.path.candidates import SLIVER, Making
from amsc.training.path.thinning import Thinning
from training.path.test_equal_cost import DATA, trail_of
from training.small import TASK, traced, trained_net


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return trained_net(DATA)


@pytest.fixture(scope="module")
def structure(dense: nn.Module) -> Structure:
    return traced(dense, DATA)


def thinning(dense: nn.Module, structure: Structure, **choices: str) -> PricedThinning:
    pricing = Pricing(**{"channel": "l1", "block": "", "spread": "auto", "data": DATA, "task": TASK, **choices})  # type: ignore[arg-type]
    return PricedThinning(trail_of(dense, structure), 0, pricing)


def test_blocks_go_in_the_order_of_their_prices(dense: nn.Module, structure: Structure) -> None:
    made = thinning(dense, structure, block="shortgpt")
    order = made._pricing.block_order(dense, structure)
    assert len(order) == 4
    for number in range(5):
        cut = made.without(number, 0)
        assert set(cut.removal.blocks) == set(order[:number])
        assert {block.name for block in cut.live.structure.outer_blocks} == set(order[number:])


def test_without_a_criterion_for_blocks_all_stay(dense: nn.Module, structure: Structure) -> None:
    assert thinning(dense, structure).without(3, 0).removal.blocks == ()


def test_channels_are_priced_without_the_blocks_and_once(dense: nn.Module, structure: Structure) -> None:
    made = thinning(dense, structure, block="taylor", channel="l2")
    cut = made.without(2, 0)
    choice = made.width_choice(cut, stand_in)
    assert made.width_choice(cut, stand_in) is choice
    gone = choice.removal(int(0.8 * predicted_cost(cut.live.structure))).channels
    assert gone
    assert set(gone) <= {group.name for group in cut.live.structure.channels}


def test_a_criterion_whose_layers_collapse_gets_no_other_networks(dense: nn.Module, structure: Structure) -> None:
    cost = int(0.3 * predicted_cost(structure))
    priced = thinning(dense, structure, spread="global", channel="fisher")
    making = Making(trail_of(dense, structure), cost, stand_in, priced)
    one = making.candidate(priced.without(0, 0))
    sizes = {group.name: group.size for group in structure.channels}
    left = one.narrowed.live.structure
    assert any(group.size < SLIVER * sizes[group.name] for group in left.channels), "it has collapsed"
    assert making.rivals(one) == []
    helped = Making(making.trail, cost, stand_in, Thinning(making.trail, cost))
    assert helped.rivals(one)
