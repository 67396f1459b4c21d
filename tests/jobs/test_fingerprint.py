"""Data are told from others, and nothing that is the same looks different."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from amsc.data import LoaderData
from amsc.jobs.fingerprint import fingerprint

INPUTS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 2


def loaders(inputs: torch.Tensor = INPUTS, labels: torch.Tensor = LABELS, **options: Any) -> LoaderData:
    validation = DataLoader(TensorDataset(inputs, labels), 4)
    return LoaderData(DataLoader(TensorDataset(INPUTS, LABELS), 4, shuffle=True), validation, **options)


def test_the_same_has_the_same() -> None:
    data = loaders()
    known = fingerprint(data)
    assert fingerprint(data) == known == fingerprint(loaders())
    assert fingerprint(loaders(INPUTS * (1 + 1e-7))) == known, "other machines round otherwise"


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (loaders(INPUTS[:9], LABELS[:9]), "splits of the data"),
        (loaders(num_classes=2), "classes of the data"),
        (loaders(INPUTS.flip(0)), "examples of the data"),
        (loaders(labels=1 - LABELS), "examples of the data"),
        (replace(loaders(), test=DataLoader(TensorDataset(INPUTS, LABELS))), "splits of the data"),
    ],
)
def test_others_have_another(other: LoaderData, differs: str) -> None:
    known, found = fingerprint(loaders()), fingerprint(other)
    assert differs in [key for key in known if known[key] != found[key]]


def test_inputs_of_any_form_and_data_without_batches() -> None:
    batch = ({"x": torch.zeros(2, 3), "t": torch.tensor(0.5), "mode": "text"}, [torch.zeros(0, 4), torch.ones(1, 4)])
    data = LoaderData([batch], [batch])
    assert fingerprint(data) == fingerprint(LoaderData([batch], [batch]))
    assert fingerprint(LoaderData([batch], []))["splits of the data"] == "2/0/0 examples"
