"""The path of the gates against a slow generic solver, special cases with known answers, and its order."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from amsc.errors import SettingsError
from amsc.penalty import GateProblem, closing_order, solve_gates


def random_problem(num_examples: int, num_gates: int, seed: int) -> tuple[Tensor, GateProblem]:
    generator = torch.Generator().manual_seed(seed)
    scales = 10 ** (3 * torch.rand(num_gates, generator=generator) - 2)
    gradients = torch.randn(num_examples, num_gates, generator=generator).double() * scales
    weights = torch.rand(num_gates, generator=generator).double() + 0.1
    return gradients, GateProblem.of(gradients, weights)


def curvature(problem: GateProblem) -> np.ndarray:
    return np.asarray(problem.rows.T @ problem.rows + problem.ridge.diag())


def objective(problem: GateProblem, strength: float, t: np.ndarray) -> float:
    push = np.asarray(problem.linear + strength * problem.weights)
    return float(t @ curvature(problem) @ t / 2 - push @ t)


def generic(problem: GateProblem, strength: float) -> np.ndarray:
    a, push = curvature(problem), np.asarray(problem.linear + strength * problem.weights)
    scale = 1 / np.sqrt(np.diag(a))  # so that the generic solver converges at all
    found = minimize(
        lambda u: (u * scale) @ a @ (u * scale) / 2 - push @ (u * scale),
        np.full(len(push), 0.5) / scale,
        jac=lambda u: scale * (a @ (u * scale) - push),
        bounds=[(0, 1 / each) for each in scale],
        method="L-BFGS-B",
        options={"ftol": 1e-16, "gtol": 1e-11, "maxiter": 20000, "maxfun": 100000},
    )
    return np.asarray(found.x * scale)


@given(st.integers(1, 12), st.integers(1, 15), st.sampled_from([0.0, 0.003, 0.1, 1.0, 30.0]), st.integers(0, 10**6))
def test_no_generic_solver_finds_less(num_examples: int, num_gates: int, strength: float, seed: int) -> None:
    _, problem = random_problem(num_examples, num_gates, seed)
    t = solve_gates(problem, strength).numpy()
    assert t.min() >= 0
    assert t.max() <= 1
    ours, theirs = objective(problem, strength, t), objective(problem, strength, generic(problem, strength))
    assert ours <= theirs + 1e-7 * (abs(theirs) + 1e-9)


@pytest.mark.parametrize(("num_examples", "num_gates"), [(40, 12), (6, 25)])
def test_the_solution_is_that_of_scipy_and_does_not_depend_on_the_start(num_examples: int, num_gates: int) -> None:
    _, problem = random_problem(num_examples, num_gates, 3)
    for strength in (0.01, 0.1, 1.0):
        cold = solve_gates(problem, strength)
        warm = solve_gates(problem, strength, torch.ones(num_gates, dtype=torch.float64))
        torch.testing.assert_close(warm, cold, rtol=0, atol=1e-5)
        torch.testing.assert_close(cold, torch.from_numpy(generic(problem, strength)), rtol=0, atol=1e-4)


def test_independent_gates_close_where_their_own_curvature_says() -> None:
    """With J'J/n diagonal and no mean, gate g closes at a_g / w_g."""
    sizes = torch.tensor([4.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    gradients = torch.cat([sizes.diag(), -sizes.diag()])
    weights = torch.tensor([1.0, 1.0, 8.0, 2.0], dtype=torch.float64)
    problem = GateProblem.of(gradients, weights)
    order, since = closing_order(problem)
    exact = gradients.square().mean(0) / (weights / weights.mean())
    assert order.tolist() == exact.argsort().tolist()
    assert bool((since >= exact * (1 - 1e-9)).all())
    assert bool((since <= exact * 1.13).all()), "the next strength of the grid"


def test_all_gates_close_at_the_end_and_in_the_order_of_their_strengths() -> None:
    _, problem = random_problem(20, 60, 0)
    order, since = closing_order(problem)
    assert sorted(order.tolist()) == list(range(60))
    assert bool(torch.isfinite(since).all())
    assert bool((since[order].diff() >= 0).all())


def test_the_order_does_not_depend_on_units() -> None:
    gradients, problem = random_problem(30, 20, 1)
    for factor in (1e-4, 1e4):
        assert torch.equal(
            closing_order(GateProblem.of(gradients, factor * problem.weights))[0], closing_order(problem)[0]
        )
        scaled = GateProblem.of(gradients, problem.weights)
        assert torch.equal(closing_order(scaled)[0], closing_order(problem)[0])


def test_gates_that_compensate_each_other_are_seen() -> None:
    """Two gates whose derivatives cancel cost nothing together; each alone costs as much as the third."""
    one = torch.randn(50, generator=torch.Generator().manual_seed(0)).double()
    other = torch.randn(50, generator=torch.Generator().manual_seed(1)).double()
    gradients = torch.stack([one, -one, other], 1)
    order, _ = closing_order(GateProblem.of(gradients, torch.ones(3)))
    assert order.tolist()[-1] == 2
    problem = GateProblem.of(gradients, torch.ones(3))
    together, apart = problem.predicted_increase(torch.tensor([0, 1])), problem.predicted_increase(torch.tensor([0, 2]))
    assert together < 0.7 * apart


def test_gates_closed_before_push_the_others() -> None:
    _, problem = random_problem(30, 8, 5)
    closed, kept = torch.tensor([1, 4]), torch.tensor([0, 2, 3, 5, 6, 7])
    rest = problem.without(closed, kept)
    t = torch.zeros(8, dtype=torch.float64)
    t[closed] = 1.0
    for value in (0.0, 0.5, 1.0):
        t[kept] = value
        whole = objective(problem, 0.0, t.numpy())
        part = objective(rest, 0.0, t[kept].numpy())
        assert whole - part == pytest.approx(problem.predicted_increase(closed), rel=1e-9)


def test_a_gate_that_the_loss_does_not_see_closes_first() -> None:
    gradients, problem = random_problem(30, 6, 2)
    gradients[:, 3] = 0
    order, since = closing_order(GateProblem.of(gradients, problem.weights))
    assert float(since[3]) <= float(since[since > 0].min())
    assert 3 in order.tolist()[: 1 + int((since == 0).sum())]


def test_nothing_to_close() -> None:
    order, since = closing_order(GateProblem.of(torch.zeros(4, 0), torch.zeros(0)))
    assert len(order) == len(since) == 0
    problem = GateProblem.of(torch.ones(3, 2), torch.ones(2))
    assert problem.predicted_increase(torch.zeros(0, dtype=torch.long)) == 0


def test_a_loss_that_no_gate_changes_closes_all() -> None:
    order, _ = closing_order(GateProblem.of(torch.zeros(4, 3), torch.ones(3)))
    assert sorted(order.tolist()) == [0, 1, 2]


def test_the_prediction_is_exact_for_a_quadratic_loss() -> None:
    """loss_i = (c_i t - 1)^2 / 2 has derivative -c_i by s and curvature c_i^2."""
    gradients = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    problem = GateProblem.of(gradients, torch.ones(1))
    assert problem.predicted_increase(torch.tensor([0])) == pytest.approx((0.25 / 2 - 0.5 + 4 / 2 - 2) / 2)


def test_the_slope_is_as_certain_as_the_examples_agree() -> None:
    gradients = torch.tensor([[1.0, 2.0], [3.0, -2.0], [2.0, 0.0]], dtype=torch.float64)
    problem = GateProblem.of(gradients, torch.ones(2))
    assert problem.standard_error(torch.tensor([0])) == pytest.approx(1 / 3**0.5)
    assert problem.standard_error(torch.tensor([0, 1])) == pytest.approx(gradients.sum(1).std().item() / 3**0.5)
    assert GateProblem.of(gradients[:1], torch.ones(2)).standard_error(torch.tensor([0])) == float("inf")


def test_impossible_problems_are_refused() -> None:
    with pytest.raises(SettingsError, match="at least one example"):
        GateProblem.of(torch.zeros(0, 2), torch.ones(2))
    with pytest.raises(SettingsError, match="must be positive"):
        GateProblem.of(torch.ones(3, 2), torch.tensor([1.0, 0.0]))
