"""The paired one-standard-error rule."""

import math

import pytest
import torch
from torch import Tensor

from amsc.training import one_standard_error_choice, paired_shortfall
from amsc.training.path.depth_rule import is_as_good


def _scores(wrong: int, *, also_right: int = 0, n: int = 100) -> Tensor:
    """n examples, of which the first `also_right` are right, the next wrong up to number `wrong`, the others right."""
    return torch.tensor([1.0] * also_right + [0.0] * (wrong - also_right) + [1.0] * (n - wrong))


def test_shortfall_is_the_mean_difference_in_its_own_standard_errors() -> None:
    best, other = torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    assert paired_shortfall(best, other) == pytest.approx(0.25 / (0.5 / math.sqrt(4)))
    assert paired_shortfall(other, best) < 0
    assert paired_shortfall(best, best) == 0


def test_the_same_small_loss_everywhere_is_certain_and_one_example_tells_nothing() -> None:
    assert paired_shortfall(torch.full((5,), 2.0), torch.full((5,), 1.9)) == math.inf
    assert paired_shortfall(torch.tensor([1.0]), torch.tensor([0.0])) == 0.0


def test_the_smallest_depth_within_one_error_is_taken() -> None:
    # against the first: 3 lost and 2 won (0.45 errors below), 6 lost (2.5 errors below)
    values = [_scores(10), _scores(13, also_right=2), _scores(16), _scores(40)]
    assert one_standard_error_choice([5, 4, 3, 2], values) == 1


@pytest.mark.parametrize("n", range(5, 400, 7))
def test_exactly_one_error_is_as_good_whatever_rounding_says(n: int) -> None:
    right = torch.ones(n)
    lost, three, two = right.clone(), right.clone(), right.clone()
    lost[0] = three[1] = three[2] = three[3] = two[0] = two[1] = 0
    assert paired_shortfall(right, lost) == pytest.approx(1)
    assert paired_shortfall(lost, three) == pytest.approx(1)
    assert is_as_good(right, lost)
    assert is_as_good(lost, three), "three lost, one won"
    assert not is_as_good(right, two)


def test_pairing_matters() -> None:
    best = torch.zeros(200)
    best[:100] = 1
    swapped = best.flip(0)
    swapped[-2:] = 0
    paired = best.clone()
    paired[:2] = 0
    assert paired.mean() == swapped.mean()
    assert paired_shortfall(best, paired) > 1 > paired_shortfall(best, swapped)


def test_of_equal_depths_the_latest_that_is_good_is_taken() -> None:
    assert one_standard_error_choice([4, 4, 4], [_scores(10), _scores(13, also_right=2), _scores(50)]) == 1


def test_a_deeper_best_does_not_hide_that_a_shallow_one_is_as_good() -> None:
    assert one_standard_error_choice([2, 5], [_scores(10), _scores(10)]) == 0


def test_losses_are_judged_the_other_way_round() -> None:
    good, bad = torch.linspace(0, 1, 50), torch.linspace(0, 1, 50) + torch.linspace(0.5, 1, 50)
    assert one_standard_error_choice([4, 3], [good, bad], higher_is_better=False) == 0
    assert one_standard_error_choice([4, 3], [good, bad], higher_is_better=True) == 1
