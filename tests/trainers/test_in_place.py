"""A cut in place is the cut of a copy, and all that hangs on the network follows."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel
from torch.optim import SGD, Adafactor, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

import amsc.surgery.in_place
from amsc.errors import CutError, ModelError, TrainingError
from amsc.penalty import Penalty
from amsc.structure import trace
from amsc.surgery import CutPlan, cut, cut_tensors, plan_cut, plan_of
from amsc.trainers import cut_in_place
from amsc.training import ProximalStep
from amsc.training.steps.optimizers import cut_moments, moments_of, restore_moments
from training.small import same_tensors, small_net

INPUTS = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class Folding(nn.Module):
    """Behind a sigmoid a zeroed channel is a constant, which moves into a bias that is made for it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3, bias=False)
        self.tail = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.last(torch.sigmoid(self.first(x))))


def plan_for(net: nn.Module) -> CutPlan:
    structure = trace(net, INPUTS)
    wide = next(group for group in structure.channels if group.removable)
    block = structure.outer_blocks[-1].name
    return plan_cut(structure, channels={wide.name: [0, 3]}, blocks=[block])


def step(net: nn.Module, optimizer: Optimizer, inputs: Tensor = INPUTS) -> Tensor:
    optimizer.zero_grad()
    loss = net(inputs).square().mean()
    loss.backward()
    optimizer.step()
    return loss


def trained(kind: Any, **options: Any) -> tuple[nn.Module, Optimizer]:
    net = small_net()
    optimizer = kind(net.parameters(), lr=0.01, **options)
    for _ in range(2):
        step(net, optimizer)
    return net, optimizer


OPTIMIZERS = [(SGD, {"momentum": 0.9, "nesterov": True}), (Adam, {}), (AdamW, {"amsgrad": True})]


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS, ids=["sgd", "adam", "amsgrad"])
def test_training_goes_on_as_that_of_a_copy_that_was_cut(kind: Any, options: dict[str, Any]) -> None:
    net, optimizer = trained(kind, **options)
    plan = plan_for(net)
    small = cut(net, plan, INPUTS).train()
    other = kind(small.parameters(), lr=0.01, **options)
    restore_moments(small, other, cut_moments(moments_of(net, optimizer), lambda tensors: cut_tensors(tensors, plan)))
    cut_in_place(net, plan, INPUTS, optimizers=[optimizer])
    assert same_tensors(net.state_dict(), small.state_dict())
    assert plan_of(net) == plan_of(small)
    for _ in range(3):
        assert torch.equal(step(net, optimizer), step(small, other))
    assert same_tensors(net.state_dict(), small.state_dict())


def test_all_stay_the_same_objects_and_the_scheduler_keeps_its_place() -> None:
    net, optimizer = trained(SGD, momentum=0.9)
    scheduler = LambdaLR(optimizer, lambda number: 0.5**number)
    plan, calls = plan_for(net), list[str]()
    modules = {id(module) for module in net.modules()}
    removed = {id(module) for name in plan.blocks for module in net.get_submodule(name).modules()}
    groups = [id(group) for group in optimizer.param_groups]
    stem = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    stem.register_forward_hook(lambda *_: calls.append("stem"))
    loss = step(net, optimizer)  # its graph lives on, with nodes that know the old shapes
    calls.clear()
    cut_in_place(net, plan, INPUTS, optimizers=[optimizer])
    calls.clear()
    assert modules - removed <= {id(module) for module in net.modules()}
    assert groups == [id(group) for group in optimizer.param_groups]
    assert {p for group in optimizer.param_groups for p in group["params"]} == set(net.parameters())
    assert set(optimizer.state) <= set(net.parameters())
    assert all(parameter.grad is None for parameter in net.parameters())
    step(net, optimizer)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.005
    assert calls == ["stem"]
    assert loss.grad_fn is not None


def test_averages_follow_and_go_on_averaging() -> None:
    net, optimizer = trained(SGD, momentum=0.9)
    average = AveragedModel(net)
    for _ in range(2):
        step(net, optimizer)
        average.update_parameters(net)
    plan, before = plan_for(net), copy.deepcopy(average.module)
    cut_in_place(net, plan, INPUTS, optimizers=[optimizer], averages=[average])
    assert same_tensors(average.module.state_dict(), cut(before, plan, INPUTS).state_dict())
    step(net, optimizer)
    average.update_parameters(net)
    expected = [
        2 / 3 * old + new / 3 for old, new in zip(cut(before, plan).parameters(), net.parameters(), strict=True)
    ]
    torch.testing.assert_close(list(average.parameters()), expected)


def test_a_bias_that_constants_move_into_is_trained_behind_its_weight() -> None:
    net, inputs = Folding(), torch.randn(5, 6)
    optimizer = Adam(net.parameters(), lr=0.01)
    step(net, optimizer, inputs)
    structure = trace(net, inputs)
    group = next(group for group in structure.channels if group.folds)
    expected = cut(net, plan := plan_cut(structure, channels={group.name: [1, 4]}), inputs)
    cut_in_place(net, plan, inputs, optimizers=[optimizer])
    torch.testing.assert_close(net(inputs), expected(inputs), rtol=0, atol=0)
    assert net.last.bias is not None
    held = optimizer.param_groups[0]["params"]
    assert [id(parameter) for parameter in held] == [id(parameter) for parameter in net.parameters()]
    before = net.last.bias.detach().clone()
    step(net, optimizer, inputs)
    assert not torch.equal(net.last.bias, before)


def test_after_an_error_all_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    net, optimizer = trained(Adam)
    before, modules = copy.deepcopy(net.state_dict()), list(net.modules())
    parameters = [id(parameter) for parameter in net.parameters()]
    widths = [vars(module).copy() for module in modules if isinstance(module, nn.Conv2d)]
    monkeypatch.setattr(amsc.surgery.in_place, "_differences", lambda model, small: iter(["the stem"]))
    with pytest.raises(CutError, match="differ in the stem; the network is as it was"):
        cut_in_place(net, plan_for(net), INPUTS, optimizers=[optimizer])
    assert plan_of(net) is None
    assert same_tensors(net.state_dict(), before)
    assert parameters == [id(parameter) for parameter in net.parameters()]
    assert list(net.modules()) == modules
    assert [vars(module) for module in modules if isinstance(module, nn.Conv2d)] == widths
    assert [id(parameter) for group in optimizer.param_groups for parameter in group["params"]] == parameters
    step(net, optimizer)


def test_a_network_that_was_changed_since_its_copy_was_cut_is_refused() -> None:
    net = small_net()
    plan = plan_for(net)
    small = cut(net, plan, INPUTS)
    with torch.no_grad():
        list(net.parameters())[-1].add_(1)
    with pytest.raises(CutError, match="Leave it alone"):
        amsc.surgery.in_place.become(net, small, plan)
    assert plan_of(net) is None


def test_an_optimiser_whose_memory_cannot_be_cut_is_refused_before_anything_changes() -> None:
    net, optimizer = trained(Adafactor)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(TrainingError, match=r"Adafactor remembers '\w+' of shape .* not known how to cut"):
        cut_in_place(net, plan_for(net), INPUTS, optimizers=[optimizer])
    assert same_tensors(net.state_dict(), before)


def test_the_penalty_of_the_network_before_is_over() -> None:
    net = small_net()
    penalty = Penalty(trace(net, INPUTS), net)
    optimizer = ProximalStep(SGD(net.parameters(), lr=0.01), penalty, width_strength=0.1)
    cut_in_place(net, plan_for(net), INPUTS, optimizers=[optimizer])
    assert optimizer.width_strength == 0
    step(net, optimizer)
    assert {p for group in optimizer.param_groups for p in group["params"]} == set(net.parameters())


def test_a_network_that_is_wrapped_for_several_devices_is_refused() -> None:
    net = small_net()
    with pytest.raises(ModelError, match=r"wrapped in DataParallel.*Train on one device"):
        cut_in_place(DataParallel(net), plan_for(net), INPUTS)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(TrainingError, match="2 processes train together"):
        cut_in_place(net, plan_for(net), INPUTS)
