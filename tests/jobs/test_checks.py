"""Example inputs that are not of the data's size are told, those that are pass in silence."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc import Target
from amsc.errors import AmscWarning, SettingsError, TargetError
from amsc.jobs.checks import check_data, chosen_settings, chosen_target
from amsc.settings import Settings
from amsc.tasks import Classification
from training.small import ListData


class Pooled(nn.Module):
    """Takes images of any size, or sequences with the time first."""

    def forward(self, x: Tensor, t: Any = None) -> Tensor:
        return x.mean((2, 3)) if x.ndim == 4 else x.mean(0)


def images(count: int = 5, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size)


def data_of(inputs: Any, count: int = 5) -> Any:
    return ListData(((inputs, torch.zeros(count, dtype=torch.long)),))


@pytest.mark.parametrize(
    ("example", "inputs"),
    [
        (images(1), images()),
        (images(), images()),
        ((images(1), torch.tensor(2.0)), (images(), torch.tensor(3.0))),
        ({"x": images(1)}, images()),
        (torch.randn(7, 1, 3), torch.randn(7, 5, 3)),  # time first
    ],
)
def test_an_example_of_the_data_s_size_is_no_news(example: Any, inputs: Any) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        check_data(Pooled(), data_of(inputs), Classification(), example)
    assert not told


@pytest.mark.parametrize(
    ("example", "inputs", "words"),
    [
        (images(1, 16), images(), r"shape \(1, 3, 16, 16\), the data's batches \(5, 3, 8, 8\): MACs, latency"),
        (images(5, 16), images(), r"shape \(5, 3, 16, 16\)"),
        ({"x": torch.randn(9, 1, 3)}, torch.randn(7, 5, 3), r"shape \(9, 1, 3\), the data's batches \(7, 5, 3\)"),
        (torch.randn(7, 3), torch.randn(7, 5, 3), r"shape \(7, 3\)"),
    ],
)
def test_an_example_of_another_size_is_told_with_both_shapes(example: Any, inputs: Any, words: str) -> None:
    with pytest.warns(AmscWarning, match=words):
        check_data(Pooled(), data_of(inputs), Classification(), example)


def test_a_target_may_be_typed_and_an_effort_is_named() -> None:
    assert chosen_target("macs=50%, drop=1%") == Target(macs=0.5, drop="1%")
    with pytest.raises(TargetError, match=r"must be an amsc\.Target"):
        chosen_target(0.5)
    with pytest.raises(SettingsError, match=r"write amsc.Settings.of\('quick'\)"):
        chosen_settings("quick", Settings())
