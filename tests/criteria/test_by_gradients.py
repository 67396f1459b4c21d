"""Prices by derivatives, against derivatives of losses that are written out, one example or batch at a time."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from amsc.criteria import block_prices, channel_prices
from criteria.small import DATA, SIZE, Net, gated_losses, net, scene

GROUP = "first.conv1"


def derivative(model: Net, inputs: Tensor, target: Tensor) -> list[float]:
    gates = torch.ones(5, requires_grad=True)
    (found,) = torch.autograd.grad(gated_losses(model, inputs, target, gates).mean(), gates)
    return found.tolist()


def test_taylor_squares_the_derivative_of_each_batch() -> None:
    model = net()
    by_batch = [derivative(model, *batch) for batch in DATA.items]
    by_hand = [sum(d[channel] ** 2 for d in by_batch) / len(by_batch) for channel in range(5)]
    assert channel_prices(scene(model), "taylor")[GROUP].tolist() == pytest.approx(by_hand, rel=1e-4)


def test_fisher_squares_the_derivative_of_each_example_and_counts_what_is_written() -> None:
    model = net()
    examples = [(x[i : i + 1], y[i : i + 1]) for x, y in DATA.items for i in range(len(y))]
    by_example = [derivative(model, *example) for example in examples]
    mean = [sum(d[channel] ** 2 for d in by_example) / len(by_example) for channel in range(5)]
    prices = channel_prices(scene(model), "fisher")
    assert prices[GROUP].tolist() == pytest.approx([value / SIZE**2 for value in mean], rel=1e-4)


def test_a_gate_on_a_stream_saves_what_all_its_makers_write() -> None:
    where = scene(streams=True)
    (stream,) = (group for group in where.groups if group.kind == "stream")
    rows = where.gate_columns([(stream.name, channel) for channel in range(4)])
    expected = rows.square().mean(0) / (3 * SIZE**2)
    torch.testing.assert_close(channel_prices(where, "fisher")[stream.name], expected)


def test_a_block_has_a_gate_between_its_input_and_its_output() -> None:
    model, by_batch = net(), []
    for inputs, target in DATA.items:
        gate = torch.ones((), requires_grad=True)
        x = functional.relu(model.bn(model.stem(inputs)))
        x = x + gate * (model.first(x) - x)
        loss = functional.cross_entropy(model.fc(model.second(x).mean((2, 3))), target)
        by_batch.append(float(torch.autograd.grad(loss, gate)[0]))
    by_hand = sum(d**2 for d in by_batch) / len(by_batch)
    assert block_prices(scene(model), "taylor")["first"] == pytest.approx(by_hand, rel=1e-4)


def test_frozen_layers_are_priced_as_well() -> None:
    model = net()
    prices = channel_prices(scene(model), "taylor")
    model.first.requires_grad_(False)
    torch.testing.assert_close(channel_prices(scene(model), "taylor"), prices)
