"""On an accelerator a reconstruction comes out as on the CPU; on the CPU it is compared with itself."""

import copy

import pytest
import torch
from torch import nn

from amsc.reconstruction import reconstruct
from reconstruction.fits import Encoder, Residual, batches, made, with_statistics, without

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_a_reconstruction_on_this_device(device: str) -> None:
    data = batches(8, 3, 8, 8, count=8)
    dense = with_statistics(made(lambda: Residual(nn.ReLU, nn.ReLU)), data)
    small = without(dense, data[0], "blocks.0.conv1", [0, 3])
    expected = reconstruct(small, dense, data).model
    found = reconstruct(copy.deepcopy(small).to(device), copy.deepcopy(dense).to(device), data).model
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name].cpu(), tensor, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("device", DEVICES)
def test_a_transformer_on_this_device(device: str) -> None:
    data = batches(16, 5, 8, count=8)
    dense = made(Encoder)
    small = without(dense, data[0], "layers.0.up", [0, 3])
    expected = reconstruct(small, dense, data).record.layers
    found = reconstruct(copy.deepcopy(small).to(device), copy.deepcopy(dense).to(device), data).record.layers
    assert [layer.ridge for layer in found] == [layer.ridge for layer in expected]
    errors = [[layer.error_after for layer in layers] for layers in (found, expected)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-6)
