"""Devices without float64."""

import pytest
import torch

from amsc.borrowing import has_double, in_double
from without_double import OnMPS


@pytest.mark.parametrize(("device", "expected"), [("cpu", True), ("cuda:1", True), ("mps", False), ("mps:0", False)])
def test_which_devices_have_float64(device: str, expected: bool) -> None:
    assert has_double(torch.device(device)) == expected


def test_what_cannot_be_double_where_it_is_goes_to_the_cpu() -> None:
    there = torch.arange(3.0).as_subclass(OnMPS)
    with pytest.raises(TypeError, match="float64"):
        there.double()
    found = in_double(there)
    assert (found.dtype, found.device.type, found.tolist()) == (torch.float64, "cpu", [0.0, 1.0, 2.0])
    assert in_double(torch.tensor([1j])).dtype == torch.complex128
    assert in_double(torch.tensor([2])).dtype == torch.float64
