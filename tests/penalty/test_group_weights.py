import pytest
import torch

from amsc.errors import SettingsError
from amsc.penalty.weights import WEIGHTS, floored, group_weights

SIZES = torch.tensor([9, 36, 4])
NORMS = torch.tensor([3.0, 2.0, 4.0])

# family -> weights before they are divided by their mean, by hand
EXPECTED = {
    "amsc": [3 / 3, 6 / 2, 2 / 4],
    "ssl": [1, 1, 1],
    "gl": [3, 6, 2],
    "rw": [3 / 3, 2 / 6, 4 / 2],
}


def test_every_family_is_in_the_table() -> None:
    assert set(EXPECTED) == set(WEIGHTS)


@pytest.mark.parametrize("family", sorted(WEIGHTS))
def test_weights_follow_their_formula_and_have_mean_one(family: str) -> None:
    expected = torch.tensor(EXPECTED[family], dtype=torch.float32)
    torch.testing.assert_close(group_weights(family, SIZES, NORMS), expected / expected.mean())
    assert float(group_weights(family, SIZES, NORMS).mean()) == pytest.approx(1)


@pytest.mark.parametrize("family", sorted(WEIGHTS))
@pytest.mark.parametrize(
    ("sizes", "norms"),
    [([5, 5], [0.0, 1.0]), ([5, 5], [0.0, 0.0]), ([0, 7], [1.0, 1.0]), ([5], [1e-30]), ([], [])],
)
def test_weights_are_finite_at_the_edges(family: str, sizes: list[int], norms: list[float]) -> None:
    weights = group_weights(family, torch.tensor(sizes, dtype=torch.long), torch.tensor(norms))
    assert weights.shape == (len(sizes),)
    assert bool((weights.isfinite() & (weights > 0)).all())


def test_dead_group_counts_as_one_hundredth_of_the_median() -> None:
    assert floored(torch.tensor([0.0, 1e-9, 2.0, 3.0, 4.0, 5.0])).tolist() == pytest.approx([0.03, 0.03, 2, 3, 4, 5])


def test_unknown_family_is_named_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"amsc, gl, rw, ssl; got 'amcs'"):
        group_weights("amcs", SIZES, NORMS)
