"""A network and data are told from others, and nothing that is the same looks different."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from amsc.data import LoaderData
from amsc.jobs.fingerprint import fingerprint


def network(width: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2).bfloat16())


INPUTS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 2


def loaders(inputs: torch.Tensor = INPUTS, labels: torch.Tensor = LABELS, **options: Any) -> LoaderData:
    validation = DataLoader(TensorDataset(inputs, labels), 4)
    return LoaderData(DataLoader(TensorDataset(INPUTS, LABELS), 4, shuffle=True), validation, **options)


def test_the_same_has_the_same() -> None:
    model, data = network(), loaders()
    known = fingerprint(model, data)
    model.train()
    model[:3](INPUTS)  # running statistics are no weights
    assert fingerprint(model, data) == known == fingerprint(network(), loaders())
    assert fingerprint(network(), loaders(INPUTS * (1 + 1e-7))) == known, "other machines round otherwise"


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (lambda: fingerprint(network(5), loaders()), "tensors of the network"),
        (lambda: fingerprint(network(seed=1), loaders()), "weights of the network"),
        (lambda: fingerprint(network().double(), loaders()), "tensors of the network"),
        (lambda: fingerprint(network(), loaders(INPUTS[:9], LABELS[:9])), "splits of the data"),
        (lambda: fingerprint(network(), loaders(num_classes=2)), "classes of the data"),
        (lambda: fingerprint(network(), loaders(INPUTS.flip(0))), "examples of the data"),
        (lambda: fingerprint(network(), loaders(labels=1 - LABELS)), "examples of the data"),
        (lambda: fingerprint(network(), replace(loaders(), test=DataLoader(TensorDataset(INPUTS, LABELS)))), "splits"),
    ],
)
def test_another_has_another(other: Callable[[], dict[str, Any]], differs: str) -> None:
    known, found = fingerprint(network(), loaders()), other()
    assert any(known[key] != found[key] for key in known if key.startswith(differs))


def test_inputs_of_any_form_and_data_without_batches() -> None:
    batch = ({"x": torch.zeros(2, 3), "t": torch.tensor(0.5), "mode": "text"}, [torch.zeros(0, 4), torch.ones(1, 4)])
    data = LoaderData([batch], [batch])
    assert fingerprint(network(), data) == fingerprint(network(), LoaderData([batch], [batch]))
    assert fingerprint(network(), LoaderData([batch], []))["splits of the data"] == "2/0/0 examples"
