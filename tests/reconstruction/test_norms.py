"""BatchNorm behind a refitted layer: evaluation as it was, and a training batch sees the same function."""

import copy

import torch
from torch import nn

from amsc.reconstruction import reconstruct
from amsc.reconstruction.norms import settle
from reconstruction.fits import (
    Residual,
    batches,
    drawn,
    largest_difference,
    made,
    plan_of_nothing,
    with_statistics,
    without,
)


def test_evaluation_is_unchanged_and_statistics_are_those_of_the_batches() -> None:
    data = batches(16, 3, 6, 6)
    model = with_statistics(made(lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))), data)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(2)
    before = copy.deepcopy(other)
    settle(other, data, ["1.running_mean"])
    assert largest_difference(before, other, drawn(4, 3, 6, 6, seed=9)) < 1e-12
    with torch.no_grad():
        values = torch.cat([other[0](batch) for batch in data])
    torch.testing.assert_close(other[1].running_mean, values.mean((0, 2, 3)))
    torch.testing.assert_close(other[1].running_var, values.var((0, 2, 3)))
    again = copy.deepcopy(before)
    settle(again, data, [])
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_training_batch_sees_what_evaluation_does() -> None:
    data = batches(64, 3, 6, 6, count=8)
    dense = with_statistics(made(lambda: Residual(nn.ReLU, nn.ReLU)), data)
    small = without(dense, data[0], "blocks.0.conv1", [0, 2])
    found = reconstruct(small, dense, data).model
    batch = drawn(256, 3, 6, 6, seed=40)
    with torch.no_grad():
        expected, in_training = found.eval()(batch), copy.deepcopy(found).train()(batch)
    assert float((expected - in_training).norm() / expected.norm()) < 0.03
    other = copy.deepcopy(found)
    with torch.no_grad():  # as least squares leaves it
        other.blocks[0].bn2.running_var.mul_(2)
        assert float((other.eval()(batch) - in_training).norm() / expected.norm()) > 0.03


def test_without_scale_only_the_mean_takes_the_shift() -> None:
    data = batches(16, 3, 6, 6)
    dense = made(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)))
    other = copy.deepcopy(dense)
    with torch.no_grad():
        other[0].weight.add_(0.1 * drawn(4, 3, 3, 3))
        other[1].running_mean.add_(1)
    found = reconstruct(other, dense, data, plan=plan_of_nothing(dense, data[0])).model
    assert torch.equal(found.get_buffer("1.running_var"), dense.get_buffer("1.running_var"))
    torch.testing.assert_close(found.get_parameter("0.weight"), dense.get_parameter("0.weight"))


def test_a_constant_channel_is_no_trouble() -> None:
    data = batches(8, 3, 6, 6)
    model = with_statistics(made(lambda: nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))), data)
    with torch.no_grad():
        model[0].weight[0] = 0
    before = copy.deepcopy(model)
    settle(model, data, ["1.running_mean"])
    assert largest_difference(before, model, data[0]) < 1e-9
    assert float(model[1].running_var[0]) < 1e-20
