import copy
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc.errors import CutError, ModelError
from amsc.structure import round_channels, select
from amsc.structure.cutting import after_removal
from amsc.surgery import AxisCut, CutPlan, apply_plan, cut, cut_tensors, cuttable, masked, plan_cut
from surgery.nets import SmallNet, images, randomized, small_structure

PLANS: dict[str, dict[str, Any]] = {
    "inner": {"channels": {"inner": [0, 4]}},
    "stream": {"channels": {"stream": [1, 2, 7]}},
    "bias": {"channels": {"last": [0, 1, 2, 3]}},
    "block": {"blocks": ["body.0"]},
    "mixed": {"channels": {"stream": [0, 5], "last": [2]}, "blocks": ["body.0"]},
}


@pytest.fixture
def net() -> nn.Module:
    return randomized(SmallNet()).eval()


def plan_of_kind(kind: str) -> CutPlan:
    return plan_cut(small_structure(), **PLANS[kind])


@pytest.mark.parametrize("kind", PLANS)
def test_cut_model_computes_what_the_masked_one_does(net: nn.Module, kind: str) -> None:
    plan = plan_of_kind(kind)
    small, zeroed = cut(net, plan), masked(net, plan)
    torch.testing.assert_close(small(images()), zeroed(images()), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(small(images()), net(images()), atol=1e-3), "the removed part did nothing"


@pytest.mark.parametrize("kind", PLANS)
def test_prediction_of_parameters_is_right(net: nn.Module, kind: str) -> None:
    plan = plan_of_kind(kind)
    assert sum(p.numel() for p in apply_plan(net, plan).parameters()) == plan.parameters


def test_masking_sets_exactly_the_channels_to_zero(net: nn.Module) -> None:
    zeroed = masked(net, plan_of_kind("mixed"))
    assert zeroed.get_parameter("conv1.weight")[[0, 5]].count_nonzero() == 0
    assert zeroed.get_parameter("bn1.bias")[[0, 5]].count_nonzero() == 0
    assert all(p.count_nonzero() == 0 for p in zeroed.get_submodule("body.0").parameters())
    kept = [1, 2, 3, 4, 6, 7]
    assert torch.equal(zeroed.get_parameter("conv1.weight")[kept], net.get_parameter("conv1.weight")[kept])
    assert torch.equal(zeroed.get_buffer("bn1.running_mean"), net.get_buffer("bn1.running_mean"))
    assert torch.equal(zeroed.get_parameter("conv2.weight")[0], net.get_parameter("conv2.weight")[0])


def test_users_model_is_untouched(net: nn.Module) -> None:
    net.train()
    net.get_submodule("bn1").eval()
    net(images()).sum().backward()
    before = copy.deepcopy(net.state_dict())
    gradients = {name: p.grad for name, p in net.named_parameters()}
    copies = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    modes = {name: module.training for name, module in net.named_modules()}
    attributes = set(net.__dict__)
    plan = plan_of_kind("mixed")
    random = torch.get_rng_state()
    small = cut(net, plan, images())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(p.grad is gradients[name] for name, p in net.named_parameters())
    assert all(torch.equal(copies[name], p.grad) for name, p in net.named_parameters() if p.grad is not None)
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert torch.equal(random, torch.get_rng_state())
    assert set(net.__dict__) == attributes
    assert all(p.grad is None for p in small.parameters())
    assert small.training
    assert not small.get_submodule("bn1").training


def test_flags_dtype_and_hooks_follow(net: nn.Module) -> None:
    net.double()
    net.get_parameter("conv1.weight").requires_grad_(False)
    calls: list[str] = []
    net.get_submodule("conv1").register_forward_hook(lambda *_: calls.append("conv1"))
    small = cut(net, plan_of_kind("stream"), images().double())
    assert not small.get_parameter("conv1.weight").requires_grad
    assert small.get_parameter("bn1.weight").requires_grad
    assert small.get_parameter("conv1.weight").dtype == torch.float64
    calls.clear()
    small(images().double())
    assert calls == ["conv1"]


def test_stored_sizes_follow(net: nn.Module) -> None:
    small: Any = apply_plan(net, plan_of_kind("stream"))
    assert (small.conv1.out_channels, small.conv2.in_channels, small.conv2.out_channels) == (5, 5, 5)
    assert small.bn1.num_features == 5
    assert (small.fc.in_features, small.fc.out_features) == (5, 4)
    assert small.conv2.weight.is_contiguous()


def test_removed_block_becomes_identity_wherever_it_is_held(net: nn.Module) -> None:
    net.second_name = net.get_submodule("body.0")
    small = apply_plan(net, plan_of_kind("block"))
    assert isinstance(small.get_submodule("body.0"), nn.Identity)
    assert isinstance(small.get_submodule("second_name"), nn.Identity)
    assert not small.get_submodule("body.0").training


def test_cutting_twice_equals_cutting_at_once(net: nn.Module) -> None:
    structure = small_structure()
    first = plan_cut(structure, channels={"stream": [0, 3]})
    once = cut(net, first)
    second = plan_cut(after_removal(structure, first.channels, first.blocks), channels={"stream": [0], "last": [1]})
    twice = cut(once, second)
    assert once.amsc_plan == first
    at_once = cut(net, plan_cut(structure, channels={"stream": [0, 1, 3], "last": [1]}))
    assert twice.amsc_plan == at_once.amsc_plan
    assert all(torch.equal(a, b) for a, b in zip(twice.parameters(), at_once.parameters(), strict=True))


def test_cut_model_trains_compiles_and_copies(net: nn.Module) -> None:
    small = cut(net, plan_of_kind("mixed"))
    small.train()
    small(images()).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())
    small.eval()
    duplicate = copy.deepcopy(small)
    duplicate.load_state_dict(small.state_dict())
    torch.testing.assert_close(duplicate(images()), small(images()))
    compiled = torch.compile(small, backend="eager")
    torch.testing.assert_close(compiled(images()), small(images()))


def test_momentum_follows_the_cut(net: nn.Module) -> None:
    momentum = {name: torch.randn_like(p) for name, p in net.named_parameters()}
    plan = plan_of_kind("mixed")
    left = cut_tensors(momentum, plan)
    small = apply_plan(net, plan)
    assert {name: t.shape for name, t in left.items()} == {name: p.shape for name, p in small.named_parameters()}
    assert torch.equal(left["conv1.weight"], momentum["conv1.weight"][[1, 2, 3, 4, 6, 7]])
    assert left["fc.bias"] is momentum["fc.bias"]


def test_momentum_of_another_shape_is_refused() -> None:
    with pytest.raises(CutError, match=r"8 positions on axis 0 of 'conv1.weight'.*\(9, 3\)"):
        cut_tensors({"conv1.weight": torch.zeros(9, 3)}, plan_of_kind("stream"))


def test_tied_parameters_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.a(x) + self.b(x))

    cuts = [AxisCut(name, 0, 6, (1, 4), True) for name in ("a.weight", "a.bias", "b.bias")]
    empty = plan_cut(small_structure())
    plan = replace(empty, cuts=(*cuts, AxisCut("c.weight", 1, 6, (1, 4), False)))
    small: Any = apply_plan(Tied(), plan)
    assert small.a.weight is small.b.weight
    assert small.a.weight.shape == (4, 4)
    assert small.b.out_features == 4
    small(torch.randn(3, 4))


def test_empty_plan_warns(net: nn.Module) -> None:
    with pytest.warns(UserWarning, match="removes nothing"):
        small = cut(net, plan_cut(small_structure()))
    assert small is not net


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cuts": (AxisCut("conv9.weight", 0, 8, (1,), True),)}, "no parameter or buffer 'conv9.weight'"),
        ({"cuts": (AxisCut("conv1.weight", 0, 16, (1,), True),)}, "expects 16 positions on axis 0 of 'conv1.weight'"),
        ({"cuts": (AxisCut("conv1.weight", 4, 8, (1,), True),)}, "axis 4 of 'conv1.weight'"),
        ({"cuts": (AxisCut("conv1.weight", 0, 8, (8,), True),)}, "must lie on the axis"),
        ({"cuts": (AxisCut("conv1.weight", 0, 8, tuple(range(8)), True),)}, "at least one must stay"),
        ({"blocks": ("body.3",)}, "no block 'body.3'"),
        ({"block_parameters": ("body.3.weight",)}, "body.3.weight"),
    ],
)
@pytest.mark.parametrize("act", [apply_plan, masked, cut])
def test_plan_that_does_not_fit_is_refused(net: nn.Module, act: Any, change: dict[str, Any], words: str) -> None:
    with pytest.raises(CutError, match=words):
        act(net, replace(plan_cut(small_structure()), **change))


def test_plan_for_a_cut_model_does_not_fit_again(net: nn.Module) -> None:
    plan = plan_of_kind("inner")
    with pytest.raises(CutError, match="trace the model as it is now"):
        cut(cut(net, plan), plan)


def test_model_that_cannot_be_copied_is_refused_with_advice(net: nn.Module) -> None:
    net.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ModelError, match=r"SmallNet cannot be copied.*__deepcopy__"):
        cut(net, plan_of_kind("inner"))


def test_arguments_in_the_wrong_order_are_refused(net: nn.Module) -> None:
    structure, plan = small_structure(), plan_of_kind("inner")
    act: Any
    for act, arguments, error, words in (
        (cut, (plan, net), ModelError, "the model comes first"),
        (cut, (net, structure), CutError, "expected the plan that .* got Structure"),
        (cuttable, (structure, net, images()), ModelError, r"write cuttable\(model, structure"),
        (cuttable, (net, plan, images()), ModelError, "expected the structure that .* got CutPlan"),
        (plan_cut, (net,), ModelError, "expected the structure that .* got SmallNet"),
        (select, (net,), ModelError, "expected the structure"),
        (round_channels, (net, {}), ModelError, "expected the structure"),
    ):
        with pytest.raises(error, match=words):
            act(*arguments)
    with pytest.raises(CutError, match="channels must be a dict of group names"):
        plan_cut(structure, channels=["conv1"])  # type: ignore[arg-type]


def test_something_else_than_a_model_is_refused() -> None:
    with pytest.raises(ModelError, match="got str"):
        cut("resnet20", plan_of_kind("inner"))  # type: ignore[arg-type]
