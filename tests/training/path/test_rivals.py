"""Where layers have collapsed, a more even network and one without those blocks are candidates too."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from amsc.errors import SettingsError
from amsc.reconstruction import reconstruct
from amsc.structure import Rounding, Structure
from amsc.structure.costing import predicted_cost
from amsc.surgery import cut, plan_cut, stand_in
from amsc.training.path.candidates import SLIVER, AtTarget, Making
from amsc.training.path.thinning import Cut, Thinning
from amsc.training.removal.removed import Removal
from training.path.test_equal_cost import DATA, trail_of


def making_of(dense: nn.Module, structure: Structure, share: float, **settings: Any) -> Making:
    trail, cost = trail_of(dense, structure, **settings), int(share * predicted_cost(structure))
    return Making(trail, cost, stand_in, Thinning(trail, cost))


def whole(making: Making) -> Cut:
    return making.thinning.without(0, 0)


class OneCollapses:
    """A choice of channels under which the inner layer of a block keeps one filter, unless all keep some share."""

    def __init__(self, choice: Any, group: str, size: int) -> None:
        self.rounding, self.lowest, self._choice = choice.rounding, choice.lowest, choice
        self._gone = {group: tuple(range(size - 1))}

    def removal(self, cost: int) -> Removal:
        return Removal((), dict(self._gone))

    def with_rounding(self, rounding: Rounding) -> Any:
        return self._choice.with_rounding(rounding)


def collapsed(making: Making, monkeypatch: pytest.MonkeyPatch) -> tuple[AtTarget, str]:
    """A candidate whose layer inside of one block is down to one filter, and that block."""
    block = next(block for block in making.trail.structure.outer_blocks if not block.kind.is_dirac)
    group = next(g for g in making.trail.structure.channels if g.name.startswith(block.name) and g.exact)
    scanned = type(making.trail).scanned
    monkeypatch.setattr(
        type(making.trail),
        "scanned",
        lambda *args, **more: OneCollapses(scanned(*args, **more), group.name, group.size),
    )
    one = making.candidate(whole(making))
    monkeypatch.undo()
    return one, block.name


def test_an_even_network_has_no_rivals(dense: nn.Module, structure: Structure) -> None:
    making = making_of(dense, structure, 0.95)
    one = making.candidate(whole(making))
    sizes = {group.name: group.size for group in structure.channels}
    assert all(group.size >= SLIVER * sizes[group.name] for group in one.narrowed.live.structure.channels)
    assert making.rivals(one) == []


def test_rivals_are_more_even_or_without_the_block(
    dense: nn.Module, structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    making = making_of(dense, structure, 0.5)
    one, block = collapsed(making, monkeypatch)
    evener, fewer = making.rivals(one)
    sizes = {group.name: group.size for group in structure.channels}
    assert evener.least_share == SLIVER
    assert evener.thinned is one.thinned
    assert all(group.size >= SLIVER * sizes[group.name] for group in evener.narrowed.live.structure.channels)
    assert fewer.thinned.removal.blocks == (block,)
    for rival in (evener, fewer):
        assert predicted_cost(rival.narrowed.live.structure) <= making.target_cost


def test_no_block_goes_for_a_rival_where_none_may(
    dense: nn.Module, structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    making = making_of(dense, structure, 0.5, depth_share=0.0)
    one, _ = collapsed(making, monkeypatch)
    (evener,) = making.rivals(one)
    assert not evener.narrowed.removal.blocks


def test_blocks_that_collapsed_stay_where_the_network_would_fall_far_below_the_target(
    dense: nn.Module, structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    making = making_of(dense, structure, 0.98)
    one, block = collapsed(making, monkeypatch)
    assert predicted_cost(structure, {}, (block,)) < making.target_cost
    assert [rival.least_share for rival in making.rivals(one)] == [SLIVER]


def test_prices_are_asked_anew_only_while_an_old_one_is_the_cheapest(
    dense: nn.Module, structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = trail_of(dense, structure)
    asked: list[str] = []
    tried = type(trail).tried
    monkeypatch.setattr(type(trail), "tried", lambda self, live, name: (asked.append(name), tried(self, live, name))[1])
    names = [block.name for block in structure.outer_blocks]
    prices = {name: 0.1 * (1 + number) for number, name in enumerate(names)}

    def loss(self: Thinning, live: Any) -> float:
        gone = set(names) - {block.name for block in live.structure.outer_blocks}
        return 1 + sum(prices[name] for name in gone)

    monkeypatch.setattr(Thinning, "_loss", loss)
    thinning = Thinning(trail, 0)
    first = thinning.without(1, 0)
    assert sorted(asked) == sorted(names)  # nothing is known at first
    asked.clear()
    second = thinning.without(2, 0)
    assert first.removal.blocks == tuple(b for b in second.removal.blocks if b in first.removal.blocks)
    assert len(asked) < len(names) - 1  # the next cheapest kept its price
    asked.clear()
    assert thinning.without(2, 0) is second
    assert asked == []


def test_only_the_first_layers_behind_a_cut_are_refitted(dense: nn.Module, structure: Structure) -> None:
    block = structure.outer_blocks[0].name
    plan = plan_cut(structure, blocks=[block])
    small = cut(dense, plan, DATA.example_inputs())

    def refitted(layers: int | None) -> list[str]:
        record = reconstruct(small, dense, DATA, plan=plan, examples=32, layers=layers, inner=False).record
        return [layer.name for layer in record.layers if layer.ridge is not None or layer.error_before is not None]

    every = refitted(None)
    assert len(every) > 2
    for count in (1, 2):
        assert refitted(count) == every[:count]


def test_no_layers_are_refused(dense: nn.Module) -> None:
    with pytest.raises(SettingsError, match="layers must be a whole number of at least 1"):
        reconstruct(dense, dense, DATA, layers=0)


def test_every_group_keeps_its_share() -> None:
    group = SimpleNamespace(name="g", kind="filter", size=16, members=())
    assert list(Rounding(share=0.25).smaller_sizes(group)) == list(range(4, 16))  # type: ignore[arg-type]
    assert list(Rounding(to=8, share=0.25).smaller_sizes(group)) == [8]  # type: ignore[arg-type]
    assert Rounding(share=0.3).most_to_go(group, 15) == 11  # type: ignore[arg-type]


@pytest.mark.parametrize("price", [0.0, float("nan")])
def test_of_blocks_that_are_as_cheap_the_network_and_the_removal_are_of_the_same(
    dense: nn.Module, structure: Structure, monkeypatch: pytest.MonkeyPatch, price: float
) -> None:
    """A network that gives every example the same answer loses the same without any of its blocks."""
    thinning = making_of(dense, structure, 0.5).thinning
    monkeypatch.setattr(thinning, "_prices", dict.fromkeys(reversed([b.name for b in structure.outer_blocks]), -1.0))
    monkeypatch.setattr(Thinning, "_loss", lambda self, live: price)
    cut = thinning.without(2, 0)
    assert len(cut.removal.blocks) == 2
    left = {block.name for block in cut.live.structure.outer_blocks}
    assert left == {block.name for block in structure.outer_blocks} - set(cut.removal.blocks)
