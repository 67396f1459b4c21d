"""Sums over groups against a loop, and rows of tensors of every kind, also of those without an axis."""

import pytest
import torch
from torch import Tensor

from amsc.penalty import Membership
from amsc.penalty.leaf_rows import LeafRows

GROUP = torch.tensor([2, -1, 0, 2, 5, 0, 2])


def test_sums_spread_and_maxima_are_those_of_a_loop() -> None:
    groups, values = Membership.of(GROUP, 4), torch.randn(7)
    items = [[i for i, own in enumerate(GROUP.tolist()) if own == group] for group in range(4)]
    expected = []
    for own in items:
        total = torch.tensor(0.0)
        for i in own:  # in this order: another one rounds otherwise
            total = total + values[i]
        expected.append(total)
    assert torch.equal(groups.sums(values), torch.stack(expected))
    largest = [max([0.0, *(float(values[i]) for i in own)]) for own in items]
    assert groups.maxima(values).tolist() == largest
    spread = groups.spread(torch.tensor([10.0, 11.0, 12.0, 13.0]), none=-1.0)
    assert spread.tolist() == [12, -1, 10, 12, -1, 10, 12]


def test_nothing_at_all() -> None:
    assert Membership.of(torch.zeros(0, dtype=torch.long), 0).sums(torch.zeros(0)).shape == (0,)
    assert Membership.of(torch.tensor([-1]), 2).sums(torch.ones(1)).tolist() == [0, 0]
    rows = LeafRows([], [], [], 3)
    assert rows.norms([]).tolist() == rows.sums([]).tolist() == rows.means([]).tolist() == [0, 0, 0]


def mixture() -> tuple[LeafRows, list[Tensor]]:
    """A matrix along its second axis with a column in no leaf, a vector, and two without an axis, one in no leaf."""
    tensors = [torch.tensor([[3.0, 1.0, 0.0], [4.0, 1.0, 0.0]]), torch.tensor([2.0, -1.0]), torch.tensor(5.0)]
    tensors.append(torch.tensor(7.0))
    leaves = [torch.tensor(own) for own in ([0, -1, 1], [1, 0], [2], [-1])]
    return LeafRows([1, 0, 0, 0], leaves, [t.shape for t in tensors], 3), tensors


def test_rows_of_a_mixture_of_tensors() -> None:
    rows, tensors = mixture()
    torch.testing.assert_close(rows.norms(tensors), torch.tensor([26.0, 4.0, 25.0]).sqrt())
    assert rows.sums(tensors).tolist() == [6, 2, 5]
    torch.testing.assert_close(rows.means(tensors), torch.tensor([6 / 3, 2 / 3, 5]))
    assert rows.are_zero(tensors).tolist() == [False] * 3
    rows.multiply_(tensors, torch.tensor([2.0, 0.0, 3.0]))
    assert [t.tolist() for t in tensors] == [[[6, 1, 0], [8, 1, 0]], [0, -2], 15, 7]
    assert rows.are_zero(tensors).tolist() == [False, True, False]
    rows.fill_(tensors, torch.tensor([1.0, 2.0, 3.0]))
    assert [t.tolist() for t in tensors] == [[[1, 1, 2], [1, 1, 2]], [2, 1], 3, 7]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_tensors_keep_their_type(dtype: torch.dtype) -> None:
    rows, tensors = mixture()
    tensors = [tensor.to(dtype) for tensor in tensors]
    assert rows.norms(tensors).dtype == torch.promote_types(dtype, torch.float32)
    rows.fill_(tensors, torch.ones(3))
    assert {tensor.dtype for tensor in tensors} == {dtype}
