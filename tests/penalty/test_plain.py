"""Plain convolutions in the penalty: their origin is the Dirac kernel."""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from amsc.penalty import Penalty, empty_, gates_from_gradients
from amsc.structure import trace
from amsc.surgery import apply_plan, plan_cut
from dense_nets import images, randomized

WIDTH = 6


def network(*, bias: bool = False, norm: bool = True) -> nn.Sequential:
    """A convolution, then two plain ones; with BatchNorm behind each, or without."""
    layers: list[nn.Module] = []
    for index in range(3):
        layers.append(nn.Conv2d(WIDTH if index else 3, WIDTH, 3, padding=1, bias=bias))
        layers += [nn.BatchNorm2d(WIDTH)] * norm + [nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 5)]
    return randomized(nn.Sequential(*layers, *head))


X = images()


def penalty_of(model: nn.Module) -> Penalty:
    return Penalty(trace(model, X.to(next(model.parameters()))), model, weights="gl")


def distance(model: nn.Module, name: str) -> Tensor:
    """Of the kernel from that of Dirac, and of the bias from zero."""
    kernel = model.get_parameter(f"{name}.weight").detach()
    parts = [(kernel - nn.init.dirac_(torch.empty_like(kernel))).flatten()]
    module = model.get_submodule(name)
    if isinstance(module.bias, Tensor):
        parts.append(module.bias.detach())
    return torch.cat(parts)


def test_the_norm_is_the_distance_from_the_identity() -> None:
    for bias in (False, True):
        model = network(bias=bias)
        penalty = penalty_of(model)
        assert penalty.blocks == ("3", "6")
        torch.testing.assert_close(penalty.block_norms(), torch.stack([distance(model, n).norm() for n in ("3", "6")]))
        assert len(penalty.channels) == 3 * WIDTH, "channels keep their scales and shifts as coordinates"


def test_the_proximal_map_moves_towards_the_identity_and_reaches_it() -> None:
    model = network(bias=True)
    before, penalty = copy.deepcopy(model), penalty_of(model)
    step, strength = 0.1, 3.0
    penalty.prox_(step, strength, 0.0)
    for name, weight in zip(penalty.blocks, penalty.block_weights, strict=True):
        away = distance(before, name)
        torch.testing.assert_close(distance(model, name), away * (1 - step * strength * weight / away.norm()))
    assert not penalty.zero_blocks().any()
    penalty.prox_(step, 1e3, 0.0)
    assert penalty.zero_blocks().all()
    assert all(not distance(model, name).any() for name in penalty.blocks), "exactly"
    small = apply_plan(model, plan_cut(trace(model, X), blocks=penalty.blocks))
    torch.testing.assert_close(small(X), model(X))


def test_width_alone_leaves_their_kernels() -> None:
    model = network()
    before, penalty = copy.deepcopy(model.state_dict()), penalty_of(model)
    penalty.prox_(0.1, 0.0, 0.5)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(model.get_parameter(name).ndim == 1 for name in changed)


def test_a_block_can_be_emptied_alone() -> None:
    model = network()
    before, penalty = copy.deepcopy(model.state_dict()), penalty_of(model)
    empty_(penalty, torch.tensor([False, True]))
    assert penalty.zero_blocks().tolist() == [False, True]
    torch.testing.assert_close(model.get_parameter("3.weight"), before["3.weight"])
    assert not distance(model, "6").any()


def test_gates_stand_between_the_kernel_and_the_identity() -> None:
    model = network(bias=True).double()
    penalty = penalty_of(model)
    inputs = X.double()

    def loss_at(gate: float) -> float:
        kernel = model.get_parameter("3.weight").detach()
        origin = nn.init.dirac_(torch.empty_like(kernel))
        changed = {"3.weight": origin + gate * (kernel - origin), "3.bias": gate * model.get_parameter("3.bias")}
        return float(functional_call(model, changed, inputs).square().mean())

    model(inputs).square().mean().backward()
    gradient = gates_from_gradients(penalty.groups)[1][0]
    torch.testing.assert_close(float(gradient), (loss_at(1 + 1e-5) - loss_at(1 - 1e-5)) / 2e-5, rtol=1e-5, atol=1e-10)


def test_without_a_normalisation_the_filters_belong_to_their_channels() -> None:
    penalty = penalty_of(network(norm=False, bias=True))
    assert penalty.blocks == ()
    assert len(penalty.channels) == 3 * WIDTH


def test_where_the_reference_is_counts_from_the_origin_too() -> None:
    model = network()
    structure, reference = trace(model, X), dict(network().state_dict())
    reference["6.weight"] = nn.init.dirac_(torch.empty_like(reference["6.weight"]))
    penalty = Penalty(structure, model, weights="amsc", reference=reference)
    assert penalty.block_weights[1] > 10 * penalty.block_weights[0], "one at its origin already is charged most"
