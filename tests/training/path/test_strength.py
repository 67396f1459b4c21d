"""The plan in MACs and the strength that keeps to it."""

import pytest
import torch

from amsc.training.path.strength import FACTOR, CostPlan, StrengthControl, forecast_strength


def test_the_plan_ends_at_the_goal_straight_or_bent() -> None:
    straight, cubic = CostPlan(1000, 360, 60), CostPlan(1000, 360, 60, power=3)
    assert [straight.at(step) for step in (-5, 0, 15, 30, 60, 99)] == [1000, 1000, 840, 680, 360, 360]
    assert [cubic.at(step) for step in (-5, 0, 15, 30, 60, 99)] == [1000, 1000, 630, 440, 360, 360]
    assert CostPlan(1000, 400, 0).at(0) == 400


def test_the_forecast_empties_just_what_is_needed_in_the_time_given() -> None:
    times, costs = torch.tensor([4.0, 1.0, 2.0]), torch.tensor([10, 10, 10])
    for needed, strength in ((10, 1.0), (20, 2.0), (30, 4.0), (15, 1.5), (5, 0.5)):
        assert forecast_strength(times, costs, needed, travel=1.0) == pytest.approx(strength)
    assert forecast_strength(times, costs, 20, travel=8.0) == pytest.approx(0.25)
    assert forecast_strength(times, costs, 999, travel=1.0) == pytest.approx(4.0), "all there is"


def test_little_needed_starts_below_what_empties_anything() -> None:
    times, costs = torch.tensor([3.0, 7.0]), torch.tensor([10, 10])
    assert 0 < forecast_strength(times, costs, 0.1, travel=1.0) < 3.0


@pytest.mark.parametrize("times", [[], [torch.inf], [0.0]])
def test_without_groups_needs_or_time_there_is_no_strength(times: list[float]) -> None:
    assert forecast_strength(torch.tensor(times), torch.ones(len(times)), 5, travel=1.0) == 0.0
    assert forecast_strength(torch.ones(1), torch.ones(1), 0, travel=1.0) == 0.0
    assert forecast_strength(torch.ones(1), torch.ones(1), 5, travel=0.0) == 0.0


def test_behind_the_plan_the_strength_grows_ahead_of_it_it_falls_within_bounds() -> None:
    control = StrengthControl().next(2.0, cost=100, planned=100)
    behind = control.next(2.0, cost=100, planned=90)
    assert behind.strength > control.strength
    assert control.next(2.0, cost=80, planned=90).strength < control.strength
    assert control.next(1000.0, cost=100, planned=90).strength == pytest.approx(FACTOR * control.strength)
    assert control.next(1e-6, cost=100, planned=90).strength == pytest.approx(control.strength / FACTOR)


def test_nothing_needed_switches_the_penalty_off_and_it_can_start_again() -> None:
    off = StrengthControl(3.0, 1.0).next(0.0, cost=90, planned=100)
    assert off.strength == 0
    assert off.next(5.0, cost=100, planned=90).strength == pytest.approx(5.0)


def test_the_correction_stays_bounded_however_long_the_network_resists() -> None:
    control = StrengthControl()
    for _ in range(200):
        control = control.next(1.0, cost=100, planned=50)
    assert control.strength == pytest.approx(30.0)
