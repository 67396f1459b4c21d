"""Models timed in turns."""

import torch
from torch import nn

from amsc.measurement import time_in_turns


def test_models_are_timed_in_turns() -> None:
    calls: list[str] = []

    class Named(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(self.name)
            return x

    found = time_in_turns([Named("a"), Named("b")], torch.ones(1), rounds=4)
    assert "".join(calls).endswith("abababab")
    assert all(0 < middle < 1 and spread >= 0 for middle, spread in found)
