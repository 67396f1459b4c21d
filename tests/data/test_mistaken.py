"""A data set, or one loader, in the place of data: the message has the line to write."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import amsc
from amsc.data import Data, LoaderData
from amsc.errors import DataError

ROWS = TensorDataset(torch.randn(8, 3), torch.arange(8) % 2)
LOADER: Any = DataLoader(ROWS, batch_size=4)
NET = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


class Module:
    """As Lightning's data modules are."""

    def train_dataloader(self) -> Any:
        return LOADER


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (ROWS, r"TensorDataset is not; .*train_loader = DataLoader\(train_set, batch_size=128, shuffle=True\)"),
        (LOADER, r"DataLoader is not; it is one loader, .*LoaderData\(train_loader, validation_loader, test_loader\)"),
        ((LOADER, LOADER), r"write amsc.data.LoaderData\(\*data\)"),
        ({"train": LOADER, "validation": LOADER}, r"write amsc.data.LoaderData\(\*\*data\)"),
        (Module(), r"data.train_dataloader\(\), data.val_dataloader"),
        ("digits", "wrap your own loaders"),
    ],
)
@pytest.mark.parametrize("job", [amsc.scan, lambda *given: amsc.compress(*given, target="macs=50%")])
def test_what_is_no_data_is_told_how_to_become_some(job: Any, data: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        job(NET, torch.zeros(1, 3), data)


@pytest.mark.parametrize(
    ("loaders", "words"),
    [
        (
            {"train": ROWS, "validation": LOADER},
            r"the train loader is .*DataLoader\(train_set, batch_size=128, shuffle",
        ),
        ({"train": LOADER, "validation": ROWS}, r"the validation .*DataLoader\(validation_set, batch_size=128\), or "),
        ({"train": LOADER, "validation": LOADER, "test": ROWS}, r"the test .*DataLoader\(test_set, batch_size=None\)"),
    ],
)
def test_a_data_set_is_no_loader(loaders: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        LoaderData(**loaders)


def test_the_lines_that_are_named_work() -> None:
    assert isinstance(LoaderData(LOADER, LOADER), Data)
    assert LoaderData(DataLoader(ROWS, batch_size=None), LOADER).num_batches("train") == 8
