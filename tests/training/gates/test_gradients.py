"""Derivatives by gates: against finite differences of real gates, and one example at a time against many."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amsc.data import Data
from amsc.errors import DataError, TrainingError
from amsc.models import open_model
from amsc.penalty import Penalty, find_bypassed_groups, find_coordinates, gates_from_gradients
from amsc.structure import Structure, trace
from amsc.surgery import stand_in
from amsc.tasks import Classification, Task
from amsc.training import GateGradients, gate_gradients
from amsc.training.gates.hooks import GatedLayer, GateHooks, Gates
from blocks_nets import Decoder, rows
from penalty.nets import Net, images, randomized
from training.small import ListData


class Mean:
    """The mean of squares of all that comes out, for networks that are no classifiers."""

    name, higher_is_better = "squares", False

    def loss(self, output: Any, target: Tensor) -> Tensor:
        first = output if isinstance(output, Tensor) else output[0]
        return first.square().mean()

    def per_example(self, output: Any, target: Tensor) -> Tensor:
        return output.square().flatten(1).mean(1)


class Coupled(Classification):
    """Logits of a batch are compared with each other: an example alone has another loss."""

    def loss(self, output: Any, target: Tensor) -> Tensor:
        return super().loss(output * output.shape[0], target)


def gradients_of(
    model: nn.Module, inputs: Tensor, target: Tensor, task: Task, *, examples: int = 100
) -> tuple[Structure, GateGradients]:
    structure = trace(model, inputs)
    coordinates = find_coordinates(structure, find_bypassed_groups(structure, model))
    data: Data = ListData(((inputs, target),))
    stand_ins = {name: stand_in(structure.block(name).call) for name in coordinates.blocks}
    return structure, gate_gradients(model, structure, coordinates, stand_ins, data, task, examples=examples)


def classifier(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    shape = (5, 3, 6, 6) if name.startswith("net") else (5, 1, 8, 8)
    made: dict[str, Callable[[], nn.Module]] = {
        "net": Net,
        "net without normalisation": lambda: Net(is_normalised=False),
        "digits_resnet": lambda: open_model("digits_resnet"),
        "groups": Grouped,
        "transposed": Transposed,
    }
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    model = tamed(randomized(made[name]()))
    return model.double(), inputs.double(), torch.arange(5) % 3


def tamed(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter /= parameter[0].numel() ** 0.5
    return model


class Grouped(nn.Module):
    """Depthwise convolution, GroupNorm, a linear layer on the last axis, LayerNorm; a bias after the normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.deep, self.b = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 6, 1)
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6)
        self.ln, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(F.relu(self.deep(self.norm(self.a(x))), inplace=True))
        x = x.permute(0, 2, 3, 1)
        x = x + self.down(F.gelu(self.up(x)))
        return self.head(self.ln(x).mean((1, 2)))


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.up = nn.Conv2d(1, 5, 3), nn.ConvTranspose2d(5, 7, 2, stride=2)
        self.head = nn.Conv2d(7, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.a(x).relu()).relu()).mean((2, 3))


class Functional(nn.Module):
    """A weight that no layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias, self.head = (
            nn.Parameter(torch.randn(6, 4)),
            nn.Parameter(torch.randn(6)),
            nn.Linear(6, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.linear(x, self.weight, self.bias).relu())


CLASSIFIERS = ["net", "net without normalisation", "digits_resnet", "groups", "transposed"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_each_row_is_what_the_penalty_says_of_that_example_alone(name: str) -> None:
    model, inputs, target = classifier(name)
    structure, found = gradients_of(model, inputs, target, Classification())
    assert found.is_batched
    penalty = Penalty(structure, model)
    assert found.channels == penalty.channels
    assert found.blocks == penalty.blocks
    for i in range(len(target)):
        model.zero_grad()
        F.cross_entropy(model(inputs[i : i + 1]), target[i : i + 1]).backward()
        expected = gates_from_gradients(penalty.groups)[0].double()
        torch.testing.assert_close(found.gradients[i, len(found.blocks) :], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_channel_is_the_finite_difference_of_a_factor_on_its_coordinates(name: str) -> None:
    model, inputs, target = classifier(name)
    structure, found = gradients_of(model, inputs, target, Classification())
    coordinates = find_coordinates(structure, find_bypassed_groups(structure, model))
    for leaf in range(0, len(found.channels), 1 + len(found.channels) // 5):

        def losses(gate: float, leaf: int = leaf) -> Tensor:
            other = copy.deepcopy(model)
            with torch.no_grad():
                for slices in coordinates.slices:
                    positions = [p for p, own in enumerate(slices.leaf) if own == leaf]
                    tensor = other.get_parameter(slices.parameter)
                    tensor.index_copy_(
                        slices.axis, torch.tensor(positions, dtype=torch.long),
                        gate * tensor.index_select(slices.axis, torch.tensor(positions, dtype=torch.long)),
                    )  # fmt: skip
            return F.cross_entropy(other(inputs), target, reduction="none").detach()

        difference = (losses(1 + 1e-5) - losses(1 - 1e-5)) / 2e-5
        column = found.gradients[:, len(found.blocks) + leaf]
        torch.testing.assert_close(column, difference, rtol=1e-4, atol=1e-7)


def test_a_block_is_the_finite_difference_of_a_factor_on_what_it_adds() -> None:
    model, inputs, target = classifier("digits_resnet")
    _, found = gradients_of(model, inputs, target, Classification())
    assert found.blocks
    for name in found.blocks:
        column = found.gradients[:, found.column(name)]
        difference = (
            block_losses(model, name, inputs, target, 1 + 1e-5) - block_losses(model, name, inputs, target, 1 - 1e-5)
        ) / 2e-5
        torch.testing.assert_close(column, difference, rtol=1e-4, atol=1e-7)


def block_losses(model: nn.Module, name: str, inputs: Tensor, target: Tensor, gate: float) -> Tensor:
    scale = lambda _, args, output: args[0] + gate * (output - args[0])  # noqa: E731
    handle = model.get_submodule(name).register_forward_hook(scale)
    try:
        return F.cross_entropy(model(inputs), target, reduction="none").detach()
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("style", "call"), [("tensor", "mask"), ("none", "plain"), ("dict", "mask"), ("bias", "keywords")]
)
def test_blocks_of_other_calls_and_transformers(style: str, call: str) -> None:
    """A decoder's layers return tuples, dictionaries, or need a mask; its channels are one layer's hidden units."""
    model = randomized(Decoder(style, call)).double()
    inputs = rows(4).double()
    _, found = gradients_of(model, inputs, torch.zeros(4), Mean())
    assert found.is_batched
    assert found.blocks
    for i in range(4):
        _, alone = gradients_of(model, inputs[i : i + 1], torch.zeros(1), Mean())
        torch.testing.assert_close(found.gradients[i], alone.gradients[0], rtol=1e-6, atol=1e-9)


def test_a_parameter_of_no_layer_is_taken_one_example_at_a_time() -> None:
    model, inputs, target = Functional().double(), torch.randn(5, 4).double(), torch.arange(5) % 3
    structure, found = gradients_of(model, inputs, target, Classification())
    assert not found.is_batched
    penalty = Penalty(structure, model)
    F.cross_entropy(model(inputs), target).backward()
    torch.testing.assert_close(
        found.gradients.mean(0), gates_from_gradients(penalty.groups)[0].double(), rtol=1e-6, atol=1e-9
    )


def test_a_network_that_couples_examples_is_taken_one_example_at_a_time() -> None:
    class Centred(Net):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return logits - logits.mean(0) / 2

    model = tamed(randomized(Centred())).double()
    inputs, target = images().double().repeat(2, 1, 1, 1), torch.arange(4) % 3
    _, found = gradients_of(model, inputs, target, Classification())
    assert not found.is_batched
    _, alone = gradients_of(model, inputs[1:2], target[1:2], Classification())
    torch.testing.assert_close(found.gradients[1], alone.gradients[0])


def test_the_loss_of_each_example_is_its_own_whatever_the_task_does_with_a_batch() -> None:
    model, inputs, target = classifier("net")
    _, plain = gradients_of(model, inputs, target, Classification())
    _, coupled = gradients_of(model, inputs, target, Coupled())
    torch.testing.assert_close(coupled.gradients, plain.gradients)


def test_a_dense_layer_has_the_sum_of_the_channels_that_go_with_it() -> None:
    model = randomized(open_model("densenet40", num_classes=10)).eval()
    inputs = torch.randn(2, 3, 32, 32)
    structure, found = gradients_of(tamed(model), inputs, torch.tensor([1, 2]), Classification())
    dense = [name for name in found.blocks if structure.block(name).channels]
    assert dense
    for name in dense[:3]:
        groups = structure.block(name).channels
        columns = [found.column(leaf) for leaf in found.channels if leaf[0] in groups]
        torch.testing.assert_close(found.gradients[:, found.column(name)], found.gradients[:, columns].sum(1))


def test_the_model_comes_back_as_it_was() -> None:
    model, inputs, target = classifier("digits_resnet")
    model.train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients_of(model, inputs, target, Classification())
    assert model.training
    assert all(bool((p.grad == 1).all()) for p in model.parameters() if p.grad is not None)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_frozen_parameters_have_gates_too() -> None:
    model, inputs, target = classifier("net")
    _, free = gradients_of(model, inputs, target, Classification())
    _, frozen = gradients_of(model.requires_grad_(False), inputs, target, Classification())
    torch.testing.assert_close(frozen.gradients, free.gradients)


def test_so_many_examples_as_were_asked_for() -> None:
    model, inputs, target = classifier("net")
    assert len(gradients_of(model, inputs, target, Classification(), examples=3)[1].gradients) == 3
    assert len(gradients_of(model, inputs, target, Classification(), examples=300)[1].gradients) == 5


def test_no_examples_and_losses_without_a_derivative_are_refused() -> None:
    model, inputs, target = classifier("net")
    structure = trace(model, inputs)
    coordinates = find_coordinates(structure)
    with pytest.raises(DataError, match="is empty"):
        gate_gradients(
            model,
            structure,
            coordinates,
            {name: stand_in(structure.block(name).call) for name in coordinates.blocks},
            ListData(()),
            Classification(),
            examples=4,
        )
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")  # type: ignore[union-attr, index, operator]
    with pytest.raises(TrainingError, match="not finite"):
        gradients_of(model, inputs, target, Classification())


def test_weight_and_bias_may_have_gates_of_their_own() -> None:
    layer, x, chosen = nn.Linear(3, 2).double(), torch.randn(4, 3).double(), torch.tensor([0, 1])
    none = torch.tensor([2, 2])
    for weight, bias, part in ((chosen, None, x @ layer.weight.T), (chosen, none, x @ layer.weight.T)):
        gates = Gates(4, 0, 2, torch.device("cpu"))
        with GateHooks([GatedLayer(layer, -1, weight, bias).hook(gates)]):
            loss = layer(x).square().sum()
        torch.testing.assert_close(gates.derivatives(loss), (2 * layer(x) * part).detach())
    gates = Gates(4, 0, 2, torch.device("cpu"))
    with GateHooks([GatedLayer(layer, -1, None, chosen).hook(gates)]):
        loss = layer(x).square().sum()
    torch.testing.assert_close(gates.derivatives(loss), (2 * layer(x) * layer.bias).detach())
