"""The way to the smallest network that loses nothing: which cost is next, and which network is chosen."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from amsc.structure import Structure
from amsc.structure.costing import predicted_macs
from amsc.tasks import Classification, Regression, Task
from amsc.training import Candidate, Removal, Snapshot
from amsc.training.path import free
from amsc.training.path.depth_rule import paired_difference
from training.small import small_data, small_net, traced

GOOD, BAD = torch.tensor([1.0, 1, 1, 0, 1, 1, 0, 1]), torch.tensor([0.0, 0, 1, 0, 0, 1, 0, 0])


@dataclass(frozen=True)
class Priced:
    """A candidate that costs what it says."""

    cost: int
    per_example: Tensor
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(Removal(), {}))


@pytest.fixture(autouse=True)
def _priced(monkeypatch: pytest.MonkeyPatch) -> None:
    own = free.cost_of
    monkeypatch.setattr(free, "cost_of", lambda s, one: one.cost if isinstance(one, Priced) else own(s, one))


def walked(breaks_at: float, lowest: int = 100) -> list[int]:
    """The costs that are looked at where every network below a cost is bad."""
    found = [Priced(1000, GOOD)]
    while (goal := free.next_cost(None, found, Classification(), lowest)) is not None:  # type: ignore[arg-type]
        found.append(Priced(goal, GOOD if goal >= breaks_at else BAD))
        assert len(found) < 30, "it ends"
    return [one.cost for one in found]


def test_the_way_goes_down_until_one_is_worse_and_then_between() -> None:
    assert walked(500) == [1000, 800, 640, 512, 410, 458, 484]
    assert walked(1001)[:3] == [1000, 800, 894], "also between the dense network and the first"


@pytest.mark.parametrize("breaks_at", [130, 333, 512, 700, 960])
def test_the_smallest_that_is_as_good_is_found_within_six_percent(breaks_at: int) -> None:
    smallest = min(cost for cost in walked(breaks_at) if cost >= breaks_at)
    assert breaks_at <= smallest <= breaks_at / free.CLOSE + 1


def test_it_ends_with_the_lowest_that_can_be_made() -> None:
    assert walked(0, lowest=300) == [1000, 800, 640, 512, 410, 328, 300]
    assert walked(0, lowest=1000) == [1000]


def test_a_loss_is_better_when_it_is_lower() -> None:
    found: list[Any] = [Priced(1000, BAD), Priced(800, GOOD)]
    assert free.smallest_as_good(None, found, Regression()) is found[0]  # type: ignore[arg-type]
    assert free.smallest_as_good(None, found, Classification()) is found[1]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def structure() -> Structure:
    data = small_data(limit=32)
    return traced(small_net(), data)


@pytest.mark.parametrize("task", [Classification(), Regression()])
def test_rows_say_how_far_each_lies_behind_the_best(structure: Structure, task: Task) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(50, generator=generator) + shift for shift in (0.0, 0.3, -0.3)]
    removals = [Removal(), Removal(("layer1.0",)), Removal(("layer1.0", "layer2.1"))]
    candidates = [Candidate(0, s, 0.0, Snapshot(r, {})) for s, r in zip(scores, removals, strict=True)]
    rows = free.judged_shares(structure, candidates, task)
    best = scores[1 if task.higher_is_better else 2].double()
    sign = 1 if task.higher_is_better else -1
    for row, values, removal in zip(rows, scores, removals, strict=True):
        difference = sign * (best - values.double())
        assert row.macs == predicted_macs(structure, {}, removal.blocks)
        assert row.share == row.macs / predicted_macs(structure)
        assert row.score == pytest.approx(float(values.double().mean()))
        assert row.behind == pytest.approx(float(difference.mean()))
        assert row.standard_error == pytest.approx(float(difference.std()) / math.sqrt(50))
        assert row.is_as_good == (row.behind <= row.standard_error * (1 + 1e-9))
        assert row.examples == 50
    assert sum(row.behind == 0 for row in rows) == 1
    chosen = free.smallest_as_good(structure, candidates, task)
    assert predicted_macs(structure, {}, chosen.snapshot.removal.blocks) == min(r.macs for r in rows if r.is_as_good)


def test_a_single_example_has_no_standard_error() -> None:
    assert paired_difference(torch.tensor([1.0]), torch.tensor([0.0])) == (1.0, math.inf)
