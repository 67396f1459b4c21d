import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import StepLR

from amsc.errors import SettingsError, TrainingError
from amsc.penalty import Penalty
from amsc.structure import ChannelGroup
from amsc.training.steps.proximal import ProximalStep, accumulated_step_size
from penalty.nets import Net, images, member, net_structure, randomized, structure_of

TARGET = torch.tensor([3.0, 0.4, -2.0, -1.5])


def lasso_problem(start: Tensor | None = None) -> tuple[nn.Module, Penalty]:
    """Four weights, each a group of its own: ||w - TARGET||^2 / 2 plus the penalty is the lasso."""
    model = nn.ModuleDict({"layer": nn.Linear(1, 4, bias=False)})
    with torch.no_grad():
        model.get_parameter("layer.weight").copy_((torch.ones(4) if start is None else start).view(4, 1))

    group = ChannelGroup("g", "hidden", 4, True, (member("layer.weight", 4, "out"),))
    return model, Penalty(structure_of(model, (group,)), model, weights="ssl")


def minimise(model: nn.Module, optimizer: ProximalStep, steps: int, target: Tensor = TARGET) -> Tensor:
    weight = model.get_parameter("layer.weight")
    for _ in range(steps):
        optimizer.zero_grad()
        (weight.view(-1) - target).square().sum().div(2).backward()
        optimizer.step()
    return weight.detach().view(-1)


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.0},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.5, "dampening": 0.2, "foreach": False},
    ],
    ids=str,
)
def test_converges_to_the_lasso_solution_whatever_the_momentum(options: dict[str, Any]) -> None:
    model, penalty = lasso_problem()
    optimizer = ProximalStep(SGD(model.parameters(), lr=0.1, **options), penalty, width_strength=1.0)
    expected = nn.functional.softshrink(TARGET, 1.0)
    torch.testing.assert_close(minimise(model, optimizer, 300), expected, atol=1e-4, rtol=0)
    assert penalty.zero_channels().tolist() == [False, True, False, False]


@pytest.mark.parametrize(("gradient", "comes_back"), [(0.5, False), (1.5, True)])
def test_zero_group_comes_back_exactly_if_its_gradient_exceeds_the_strength(gradient: float, comes_back: bool) -> None:
    """Were the momentum of zero groups cleared at every step, none with a gradient below 10 would come back."""
    model, penalty = lasso_problem(start=torch.zeros(4))
    optimizer = ProximalStep(SGD(model.parameters(), lr=0.01, momentum=0.9), penalty, width_strength=1.0)
    weight = minimise(model, optimizer, 400, target=torch.full((4,), gradient))
    assert bool((weight != 0).all()) == comes_back


def test_momentum_is_cleared_when_a_group_becomes_zero_and_only_there() -> None:
    model, penalty = lasso_problem(start=torch.tensor([0.05, 1.0, 1.0, 1.0]))
    optimizer = ProximalStep(SGD(model.parameters(), lr=0.01, momentum=0.9), penalty, width_strength=1.0)
    weight = model.get_parameter("layer.weight")
    weight.grad = torch.full_like(weight, 0.3)
    optimizer.step()
    momentum = optimizer.state[weight]["momentum_buffer"].view(-1)
    assert weight.view(-1).tolist()[0] == 0
    assert momentum.tolist() == pytest.approx([0, 0.3, 0.3, 0.3])
    optimizer.step()  # it stays zero, and gathers its gradient again
    assert momentum.tolist() == pytest.approx([0.3, 0.57, 0.57, 0.57])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lr": 0.1, "momentum": 0, "dampening": 0}, 0.1),
        ({"lr": 0.1, "momentum": 0.9, "dampening": 0}, 1.0),
        ({"lr": 0.1, "momentum": 0.9, "dampening": 0.9}, 0.1),
        ({"lr": torch.tensor(0.1), "momentum": 0.5, "dampening": 0.5}, 0.1),
    ],
)
def test_accumulated_step_size(settings: dict[str, Any], expected: float) -> None:
    assert accumulated_step_size(settings) == pytest.approx(expected)


def training_setup(**options: Any) -> tuple[nn.Module, Penalty, SGD]:
    model = randomized(Net()).train()
    return model, Penalty(net_structure(), model), SGD(model.parameters(), **{"lr": 0.01, "momentum": 0.9, **options})


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(images()).square().mean().backward()
        optimizer.step()


def test_weight_decay_leaves_penalised_scales_alone_and_reaches_the_rest() -> None:
    model, penalty, sgd = training_setup(weight_decay=0.1, momentum=0.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = ProximalStep(sgd, penalty)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        is_penalised = name.split(".")[-2] in ("bn", "bn1", "bn2")
        torch.testing.assert_close(parameter.detach(), before[name] * (1.0 if is_penalised else 1 - 0.01 * 0.1))


def test_filters_without_normalisation_keep_their_weight_decay() -> None:
    model = randomized(Net(False))
    optimizer = ProximalStep(SGD(model.parameters(), lr=0.1, weight_decay=0.1), Penalty(net_structure(False), model))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1]


def test_group_of_scales_alone_loses_its_weight_decay_whole() -> None:
    model, penalty, _ = training_setup()
    chosen = set(penalty.parameters())
    rest = [p for p in model.parameters() if p not in chosen]
    sgd = SGD([{"params": rest}, {"params": list(chosen), "weight_decay": 0.3}], lr=0.1, weight_decay=0.2)
    assert [group["weight_decay"] for group in ProximalStep(sgd, penalty).param_groups] == [0.2, 0.0]


def test_zero_strengths_are_the_plain_optimiser_bit_for_bit() -> None:
    plain, _, sgd = training_setup()
    train(plain, sgd, 5)
    model, penalty, wrapped = training_setup()
    train(model, ProximalStep(wrapped, penalty), 5)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))


def test_strengths_can_be_set_at_any_time_and_zero_blocks_stay_the_identity() -> None:
    model, penalty, sgd = training_setup()
    optimizer = ProximalStep(sgd, penalty)
    train(model, optimizer, 3)
    assert not penalty.zero_blocks().any()
    optimizer.depth_strength = 1e4
    train(model, optimizer, 3)
    assert penalty.zero_blocks().all()
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(model.eval().get_submodule("block")(x), x)


def test_scheduler_drives_every_group() -> None:
    model, penalty, sgd = training_setup(weight_decay=0.1)
    optimizer = ProximalStep(sgd, penalty, width_strength=0.1)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.5)
    train(model, optimizer, 1)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.005, 0.005]
    assert isinstance(optimizer, torch.optim.Optimizer)


def test_closure_is_called_and_its_loss_returned() -> None:
    model, penalty, sgd = training_setup()
    optimizer = ProximalStep(sgd, penalty, width_strength=0.1)

    def closure() -> float:
        loss = model(images()).square().mean()
        loss.backward()
        return float(loss.detach())

    expected = float(model(images()).square().mean().detach())
    assert optimizer.step(closure) == pytest.approx(expected, rel=1e-4)


def test_state_restores_the_run_bit_for_bit() -> None:
    model, penalty, sgd = training_setup(weight_decay=0.01)
    optimizer = ProximalStep(sgd, penalty, depth_strength=0.3, width_strength=0.3)
    train(model, optimizer, 4)
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    train(model, optimizer, 4)

    theta_hat = randomized(Net()).state_dict()
    other, _, other_sgd = training_setup(weight_decay=0.01)
    other.load_state_dict(weights)
    resumed = ProximalStep(other_sgd, Penalty(net_structure(), other, reference=theta_hat))
    resumed.load_state_dict(saved)
    train(other, resumed, 4)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_state_of_something_else_is_refused() -> None:
    model, penalty, sgd = training_setup(weight_decay=0.1)
    plain = SGD(model.parameters(), lr=0.1).state_dict()
    optimizer = ProximalStep(sgd, penalty)
    with pytest.raises(TrainingError, match="depth_strength, optimizer, width_strength is missing"):
        optimizer.load_state_dict(plain)
    with pytest.raises(TrainingError, match="another model or penalty"):
        optimizer.load_state_dict({**optimizer.state_dict(), "optimizer": plain})


def test_other_optimisers_are_refused() -> None:
    model, penalty, _ = training_setup()
    with pytest.raises(TrainingError, match="without amsgrad"):
        ProximalStep(Adam(model.parameters(), amsgrad=True), penalty)
    with pytest.raises(TrainingError, match=r"needs torch\.optim\.SGD, Adam or AdamW, got RMSprop"):
        ProximalStep(RMSprop(model.parameters()), penalty)


def test_penalised_parameters_must_be_trained() -> None:
    model, penalty, sgd = training_setup()
    with pytest.raises(TrainingError, match=r"6 of 6 penalised parameters .* frozen or not in the optimizer"):
        ProximalStep(SGD(model.get_submodule("head").parameters(), lr=0.1), penalty)
    model.get_parameter("bn.bias").requires_grad = False
    with pytest.raises(TrainingError, match=r"1 of 6 penalised parameters \(first: bn\.bias\)"):
        ProximalStep(sgd, penalty)


def test_scheduler_made_before_is_refused() -> None:
    _, penalty, sgd = training_setup(weight_decay=0.1)
    StepLR(sgd, step_size=1)
    with pytest.raises(TrainingError, match="make the ProximalStep first"):
        ProximalStep(sgd, penalty)


def test_different_step_sizes_are_refused() -> None:
    model, penalty, _ = training_setup()
    first, *others = model.get_submodule("block").parameters(), model.get_submodule("bn").parameters()
    sgd = SGD([{"params": first, "lr": 0.2}, {"params": others[0]}], lr=0.1)
    optimizer = ProximalStep(sgd, penalty, width_strength=0.1)
    with pytest.raises(TrainingError, match=r"need one step size .*\[0\.1, 0\.2\]"):
        optimizer.step()


def test_negative_strength_is_refused() -> None:
    _, penalty, sgd = training_setup()
    with pytest.raises(SettingsError, match="width_strength must be a finite number"):
        ProximalStep(sgd, penalty, width_strength=-1.0)
    optimizer = ProximalStep(sgd, penalty)
    with pytest.raises(SettingsError, match="depth_strength must be a finite number, at least 0; got inf"):
        optimizer.depth_strength = float("inf")


def nested_minimiser(make: Callable[[nn.Module], Optimizer], steps: int, rate: float) -> dict[str, Tensor]:
    """Where proximal training ends for a quadratic loss with curvatures that differ from coordinate to coordinate."""
    model = randomized(Net()).double()
    goals = {name: p.detach().clone() for name, p in model.named_parameters()}
    chooser = torch.Generator().manual_seed(1)
    bends = {name: 0.5 + torch.rand(p.shape, generator=chooser, dtype=p.dtype) for name, p in goals.items()}
    penalty = Penalty(net_structure(), model, weights="gl")
    optimizer = ProximalStep(make(model), penalty, depth_strength=0.3, width_strength=0.3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        sum((bends[n] * (p - goals[n]).square()).sum() / 2 for n, p in model.named_parameters()).backward()
        optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_adam_ends_at_the_minimiser_of_the_same_problem(kind: Any) -> None:
    """With a metric of its own in every coordinate it would not: the zeros would be others."""
    expected = nested_minimiser(lambda model: SGD(model.parameters(), lr=0.1), 200, 0.5)
    found = nested_minimiser(lambda model: kind(model.parameters(), weight_decay=0.0), 800, 0.03)
    assert any(bool((p == 0).any()) for p in expected.values())
    for name, parameter in expected.items():
        torch.testing.assert_close(found[name], parameter, atol=1e-9, rtol=0)
        assert torch.equal(found[name] == 0, parameter == 0)


def test_all_coordinates_of_a_leaf_share_a_second_moment_and_a_step() -> None:
    model = randomized(Net()).train()
    penalty = Penalty(net_structure(), model)
    optimizer = ProximalStep(AdamW(model.parameters(), lr=1e-3), penalty, width_strength=1e-9)
    assert float(torch.as_tensor(optimizer.unit_step()).sum()) == 0
    train(model, optimizer, 3)
    moments = [optimizer.state[p]["exp_avg_sq"] for p in penalty.parameters()]
    spread = [m.clone() for m in moments]
    rows = penalty.groups.rows
    rows.fill_(spread, rows.means(moments))
    for own, shared in zip(moments, spread, strict=True):
        torch.testing.assert_close(own, shared)
    assert bool((torch.as_tensor(optimizer.unit_step()) > 0).all())
    others = [p for p in model.parameters() if all(p is not one for one in penalty.parameters())]
    assert any(len(optimizer.state[p]["exp_avg_sq"].unique()) > 1 for p in others)


def test_without_a_penalty_adam_is_adam() -> None:
    first, second = randomized(Net()).train(), randomized(Net()).train()
    train(first, ProximalStep(AdamW(first.parameters(), weight_decay=0.0), Penalty(net_structure(), first)), 3)
    train(second, AdamW(second.parameters(), weight_decay=0.0), 3)
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_parameter_without_a_gradient_is_named() -> None:
    model = randomized(Net()).train()
    optimizer = ProximalStep(AdamW(model.parameters()), Penalty(net_structure(), model), width_strength=0.1)
    next(model.parameters()).grad = torch.zeros_like(next(model.parameters()))
    with pytest.raises(TrainingError, match="the loss does not depend on it"):
        optimizer.step()
