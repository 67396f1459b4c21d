"""Rows of what positions read, times matrices, are what the operators return."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from amsc.reconstruction.calls import input_rows, linear_call, output_rows, weight_change
from reconstruction.fits import drawn

Case = tuple[Callable[..., Tensor], tuple[int, ...], tuple[int, ...], dict[str, Any]]
CASES: dict[str, Case] = {
    "linear": (functional.linear, (5, 3, 6), (4, 6), {}),
    "linear of one row": (functional.linear, (6,), (4, 6), {}),
    "product with a matrix": (torch.matmul, (5, 3, 6), (6, 4), {}),
    "1d": (torch.conv1d, (2, 4, 9), (6, 4, 3), {"padding": 1}),
    "2d, stride and dilation": (torch.conv2d, (2, 4, 9, 8), (6, 4, 3, 2), {"stride": (2, 1), "dilation": (1, 2)}),
    "3d": (torch.conv3d, (2, 2, 4, 5, 3), (3, 2, 2, 3, 1), {"padding": (0, 1, 0)}),
    "2d without a batch axis": (torch.conv2d, (4, 5, 5), (6, 4, 3, 3), {"padding": 1}),
    "same": (torch.conv2d, (2, 4, 7, 7), (6, 4, 4, 3), {"padding": "same", "dilation": (1, 2)}),
    "valid": (torch.conv2d, (2, 4, 7, 7), (6, 4, 4, 3), {"padding": "valid"}),
    "groups": (torch.conv2d, (2, 6, 5, 5), (4, 3, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": (torch.conv2d, (2, 6, 5, 5), (6, 1, 3, 3), {"groups": 6, "padding": 1}),
    "transposed 1d": (torch.conv_transpose1d, (2, 4, 5), (4, 3, 4), {"stride": 2, "padding": 1}),
    "transposed": (
        torch.conv_transpose2d,
        (2, 4, 5, 4),
        (4, 3, 3, 2),
        {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "dilation": (2, 1)},
    ),
    "transposed, groups": (torch.conv_transpose2d, (2, 6, 4, 4), (6, 2, 3, 3), {"stride": 2, "groups": 3}),
    "transposed 3d": (torch.conv_transpose3d, (1, 2, 3, 3, 2), (2, 3, 2, 2, 2), {"stride": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_change_of_the_matrices_is_one_of_the_output(name: str) -> None:
    function, shape, weight_shape, options = CASES[name]
    values, weight = drawn(*shape), drawn(*weight_shape, seed=1)
    output = function(values, weight, **options)
    call = linear_call(function, (values, weight), options)
    assert call is not None
    positions = torch.arange(output.numel() // call.num_outputs).flip(0)[::2]
    read = input_rows(call, output, positions)
    assert read.shape == (call.groups, len(positions), call.row_size)
    change = drawn(call.groups, call.num_outputs // call.groups, call.row_size, seed=2)
    changed = function(values, weight + weight_change(weight, change, transposed=call.transposed), **options)
    expected = output_rows(call, changed - output, positions).unflatten(1, (call.groups, -1)).movedim(1, 0)
    torch.testing.assert_close(read @ change.mT, expected)


def test_other_functions_are_no_consumers() -> None:
    assert linear_call(functional.bilinear, (drawn(2, 3), drawn(2, 3), drawn(4, 3, 3)), {}) is None
    assert linear_call(torch.addmm, (drawn(2), drawn(4, 3), drawn(3, 2)), {"beta": 0.5}) is None
    assert linear_call(torch.matmul, (drawn(2, 3),), {"other": drawn(3, 2)}) is None
