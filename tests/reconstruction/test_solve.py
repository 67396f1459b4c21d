"""The solution against a dense oracle, and the choice of its strength."""

import numpy as np
import pytest
import torch
from torch import Tensor

from amsc.reconstruction.moments import Moments
from amsc.reconstruction.solve import AS_GOOD, error_with, ridge_change, solved
from reconstruction.fits import drawn


def moments(read: Tensor, lacking: Tensor, *, with_shift: bool = False) -> Moments:
    found = Moments()
    if with_shift:
        read = torch.cat([read, torch.ones_like(read[..., :1])], dim=-1)
    for u, r in zip(read.split(7, dim=1), lacking.split(7, dim=1), strict=True):
        found.add(u, r)
    return found


def oracle(read: Tensor, lacking: Tensor, ridge: float, *, with_shift: bool) -> np.ndarray:
    """The same by least squares over more rows: one for each number read, of size sqrt(mu), that should give 0."""
    u, r = read.numpy(), lacking.numpy()
    centred = u - u.mean(0) if with_shift else u
    mu = ridge * np.square(centred).mean()
    left = np.concatenate([centred / np.sqrt(len(u)), np.sqrt(mu) * np.eye(u.shape[1])])
    right = np.concatenate([(r - r.mean(0) if with_shift else r) / np.sqrt(len(u)), np.zeros((u.shape[1], r.shape[1]))])
    change = np.linalg.lstsq(left, right, rcond=None)[0].T
    if not with_shift:
        return change
    return np.concatenate([change, (r.mean(0) - change @ u.mean(0))[:, None]], axis=1)


@pytest.mark.parametrize("with_shift", [False, True])
@pytest.mark.parametrize("rows", [40, 5])
def test_the_solution_is_that_of_a_dense_oracle(rows: int, with_shift: bool) -> None:
    read, lacking = drawn(2, rows, 6, seed=1) + 3, drawn(2, rows, 4, seed=2)
    found = ridge_change(moments(read, lacking, with_shift=with_shift), 0.01, with_shift=with_shift)
    assert found is not None
    for group in range(2):
        expected = oracle(read[group], lacking[group], 0.01, with_shift=with_shift)
        np.testing.assert_allclose(found[group].numpy(), expected, atol=1e-10)
    assert found.shape == (2, 4, 7 if with_shift else 6)


def test_the_error_is_that_of_the_rows() -> None:
    read, lacking, change = drawn(2, 30, 5), drawn(2, 30, 3, seed=1), drawn(2, 3, 5, seed=2)
    weights = drawn(2, 3, seed=3).square()
    expected = ((lacking - read @ change.mT).square().mean(1) * weights).sum()
    assert error_with(moments(read, lacking), change, weights) == pytest.approx(float(expected), rel=1e-12)


def test_what_is_nothing_but_noise_changes_nothing() -> None:
    fit, held = (moments(drawn(1, 12, 10, seed=seed), drawn(1, 12, 3, seed=seed + 9)) for seed in (1, 2))
    assert solved(fit, held, torch.ones(1, 3, dtype=torch.float64), with_shift=False) is None


def test_the_strength_is_the_best_on_what_is_held_out() -> None:
    truth, weights = drawn(1, 2, 20), torch.ones(1, 2, dtype=torch.float64)

    def part(rows: int, seed: int) -> Moments:
        read = drawn(1, rows, 20, seed=seed)
        return moments(read, read @ truth.mT + 4 * drawn(1, rows, 2, seed=seed + 1))

    fit, held = part(30, 1), part(300, 5)
    found = solved(fit, held, weights, with_shift=False)
    assert found is not None
    assert found.ridge >= 0.1
    assert found.after < float(held.residuals.sum()) / held.count
    weaker = ridge_change(fit, 1e-6, with_shift=False)
    assert weaker is not None
    assert found.after < error_with(held, weaker, weights)


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_constant_inputs_are_no_trouble(value: float) -> None:
    read, lacking = torch.full((1, 20, 4), value, dtype=torch.float64), torch.ones(1, 20, 1, dtype=torch.float64)
    found = solved(moments(read, lacking), moments(read, lacking), torch.ones(1, 1).double(), with_shift=False)
    if value == 0:
        assert found is None
    else:
        assert found is not None
        assert found.after < 1e-9
        torch.testing.assert_close(found.change, torch.full((1, 1, 4), 1 / 8, dtype=torch.float64), atol=1e-4, rtol=0)


def test_of_strengths_that_are_as_good_the_strongest_is_taken() -> None:
    """Two inputs that are nearly one: what tells them apart is noise, which a weak ridge follows with large weights."""
    common, weights = drawn(1, 8000, 1, seed=5), torch.ones(1, 1, dtype=torch.float64)
    halves = []
    for rows, seed in ((slice(0, 6000), 6), (slice(6000, 8000), 7)):
        one = common[:, rows]
        read = torch.cat([one, one + 1e-4 * drawn(*one.shape, seed=seed)], dim=-1)
        halves.append(moments(read, one + 0.3 * drawn(*one.shape, seed=seed + 2)))
    fit, held = halves
    weak, found = ridge_change(fit, 1e-12, with_shift=False), solved(fit, held, weights, with_shift=False)
    assert weak is not None
    assert found is not None
    assert float(weak.abs().max()) > 10
    assert float(found.change.abs().max()) < 2
    assert found.ridge > 1e-4
    assert found.after <= AS_GOOD * error_with(held, weak, weights)


def test_what_can_be_had_exactly_is_not_held_back() -> None:
    truth, read = drawn(1, 2, 6, seed=3), drawn(1, 60, 6, seed=4)
    found = solved(
        moments(read, read @ truth.mT), moments(read, read @ truth.mT), torch.ones(1, 2).double(), with_shift=False
    )
    assert found is not None
    torch.testing.assert_close(found.change, truth, rtol=1e-9, atol=1e-9)
