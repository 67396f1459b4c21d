import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from amsc.penalty import Membership
from amsc.penalty.prox import block_soft_threshold, leaf_factors, nested_factors, root_factors
from penalty.oracle import distance_from_optimal, slow_prox


def random_problem(seed: int, num_leaves: int, spread: float) -> tuple[list[Tensor], Tensor, Tensor, float]:
    """Leaves y, a metric that differs by up to 10^spread between them, leaf strengths (some zero), a root strength."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    metric = 10 ** (spread * (uniform(num_leaves) - 0.5))
    sizes = torch.randint(1, 5, (num_leaves,), generator=g).tolist()
    y = [torch.randn(size, generator=g, dtype=torch.float64) for size in sizes]
    leaf = uniform(num_leaves) * (uniform(num_leaves) > 0.3) * 0.5 / metric
    return (
        y,
        metric,
        leaf,
        float(uniform(1) * 1.5 * torch.stack([b.norm() / d for b, d in zip(y, metric, strict=True)]).norm()),
    )


def one_root(num_leaves: int) -> Membership:
    return Membership.of(torch.zeros(num_leaves, dtype=torch.long), 1)


def solve(y: list[Tensor], metric: Tensor, leaf: Tensor, root: float) -> list[Tensor]:
    norms = torch.stack([block.norm() for block in y])
    which = one_root(len(y))
    factors = nested_factors(norms, metric, leaf, torch.tensor([root], dtype=metric.dtype), which)
    return [block * factor for block, factor in zip(y, factors, strict=True)]


@given(seed=st.integers(0, 10**6), num_leaves=st.integers(1, 12), spread=st.sampled_from([0.0, 1.0, 3.0, 6.0]))
def test_nested_prox_satisfies_the_optimality_conditions(seed: int, num_leaves: int, spread: float) -> None:
    y, metric, leaf, root = random_problem(seed, num_leaves, spread)
    scale = max(float((block / d).norm()) for block, d in zip(y, metric, strict=True))
    assert distance_from_optimal(y, solve(y, metric, leaf, root), metric, leaf, root) <= 1e-10 * scale


@pytest.mark.parametrize("seed", range(4))
def test_nested_prox_equals_a_slow_solver(seed: int) -> None:
    y, metric, leaf, root = random_problem(seed, 4, 1.0)
    root *= 0.4
    fast, slow = solve(y, metric, leaf, root), slow_prox(y, metric, leaf, root)
    torch.testing.assert_close(torch.cat(fast), torch.cat(slow), atol=1e-6, rtol=0)


def test_root_before_leaf_would_be_wrong() -> None:
    y, metric = [torch.tensor([2.0]), torch.tensor([0.6])], torch.ones(2)
    leaf, root, which = torch.full((2,), 0.5), torch.ones(1), one_root(2)
    norms = torch.tensor([2.0, 0.6])
    shrunk = norms * root_factors(norms, metric, root, which)
    other_order = shrunk * leaf_factors(shrunk, leaf)
    exact = torch.cat(slow_prox(y, metric, leaf, 1.0, steps=2000))
    torch.testing.assert_close(torch.cat(solve(y, metric, leaf, 1.0)), exact, atol=1e-5, rtol=0)
    assert float((other_order - exact).abs().max()) > 0.01


def test_groups_of_size_one_are_the_lasso() -> None:
    y = torch.linspace(-3, 3, 13)
    factors = leaf_factors(y.abs(), torch.full_like(y, 0.75))
    torch.testing.assert_close(y * factors, torch.nn.functional.softshrink(y, 0.75))


def test_one_leaf_under_a_root_adds_the_two_strengths() -> None:
    y = torch.tensor([3.0, 4.0])
    torch.testing.assert_close(solve([y], torch.ones(1), torch.ones(1), 1.5)[0], y * 0.5)


def test_roots_do_not_see_each_other() -> None:
    together = root_factors(
        torch.tensor([3.0, 1.0, 4.0]),
        torch.ones(3),
        torch.tensor([1.0, 2.0]),
        Membership.of(torch.tensor([0, 1, 0]), 2),
    )
    torch.testing.assert_close(together, torch.tensor([0.8, 0.0, 0.8]))


@given(
    norms=st.lists(st.sampled_from([0.0, 1e-38, 1e-20, 1e-3, 1.0, 1e15]), min_size=1, max_size=6),
    leaf=st.sampled_from([0.0, 1e-30, 1.0, 1e20]),
    root=st.sampled_from([0.0, 1e-30, 1.0, 1e20]),
    step=st.sampled_from([1e-12, 1.0]),
)
def test_factors_are_numbers_between_zero_and_one_in_float32(
    norms: list[float], leaf: float, root: float, step: float
) -> None:
    ones = torch.ones(len(norms))
    which = one_root(len(norms))
    factors = nested_factors(torch.tensor(norms), step * ones, leaf * ones, torch.tensor([root]), which)
    assert bool(((factors >= 0) & (factors <= 1)).all()), factors
    if leaf == root == 0:
        assert factors.tolist() == ones.tolist()


def test_zero_is_exact_from_the_critical_strength_on() -> None:
    norms, metric, which = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0]), one_root(2)
    critical = (9 + 4) ** 0.5  # sqrt(sum (||y_j|| / d_j)^2)
    below, above = (
        root_factors(norms, metric, torch.tensor([critical * by]), which).tolist() for by in (1 - 1e-4, 1 + 1e-6)
    )
    assert all(factor > 0 for factor in below)
    assert above == [0.0, 0.0]


def test_no_leaves_at_all() -> None:
    empty = torch.zeros(0)
    assert nested_factors(empty, empty, empty, torch.zeros(1), one_root(0)).shape == (0,)


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, [3.0, 4.0]), (2.5, [1.5, 2.0]), (5.0, [0.0, 0.0])])
def test_block_soft_threshold(threshold: float, expected: list[float]) -> None:
    assert block_soft_threshold(torch.tensor([3.0, 4.0]), threshold).tolist() == pytest.approx(expected)
    assert block_soft_threshold(torch.zeros(2), threshold).tolist() == [0.0, 0.0]
