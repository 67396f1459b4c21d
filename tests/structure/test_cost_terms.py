"""What the latency is taken to depend on, counted by hand."""

import torch
from torch import nn

from amsc.structure import trace
from amsc.structure.cost_terms import time_features


def test_elements_read_and_written_do_not_depend_on_the_kernel() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 16, 1),
        nn.Conv2d(16, 16, 5, padding=2, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    structure = trace(net, torch.randn(2, 3, 8, 8))
    shapes = structure.shapes
    _, operators, macs, read, written, parameters = (
        [cost.at(shapes) for cost in costs] for costs in time_features(structure)
    )
    places = [2 * 64, 2 * 64, 2 * 16, 2]
    assert read == [count * width for count, width in zip(places, (3, 8, 16, 16), strict=True)]
    assert written == [count * width for count, width in zip(places, (8, 16, 16, 10), strict=True)]
    assert macs == [128 * 3 * 8 * 9, 128 * 8 * 16, 32 * 16 * 16 * 25, 2 * 16 * 10]
    assert operators == [1, 1, 1, 1]
    assert sum(parameters) == sum(parameter.numel() for parameter in net.parameters())
