"""What a record says of its layers."""

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from amsc.jobs.stages.account import layer_widths
from amsc.structure import trace
from amsc.training import Removal


class OutputFirst(nn.Module):
    """Attention whose products are counted with the output layer, the first that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.qkv = nn.Linear(8, 8), nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        read: Tensor = self.out((q @ k.transpose(-2, -1)).softmax(-1) @ v)
        return read


def test_a_layer_is_what_it_is_and_no_module_around_it() -> None:
    model = nn.Sequential(nn.Linear(5, 8), OutputFirst()).eval()
    job = cast(Any, SimpleNamespace(structure=trace(model, torch.randn(2, 3, 5)), dense=model))
    layers = layer_widths(job, Removal((), {}), [])
    assert {layer.name: layer.kind for layer in layers} == dict.fromkeys(("0", "1.out", "1.qkv"), "Linear")
