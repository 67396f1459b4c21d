import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from amsc.errors import ModelError, SettingsError
from amsc.models import open_model
from amsc.penalty import WEIGHTS, Penalty
from amsc.structure import trace
from amsc.structure.costing import predicted_macs
from penalty.nets import Net, images, net_structure, randomized
from penalty.oracle import slow_prox

BLOCK_NORMS, MID_NORM = ("block.bn1", "block.bn2"), "bn"


def scale(model: nn.Module, norm: str) -> Tensor:
    conv = {"block.bn1": "block.conv1", "block.bn2": "block.conv2", "bn": "mid"}[norm]
    deviation = (model.get_buffer(f"{norm}.running_var") + 1e-5).sqrt()
    return model.get_parameter(f"{conv}.weight").detach().flatten(1).norm(dim=1) / deviation


def pairs(model: nn.Module, norm: str) -> list[Tensor]:
    """(gamma_j, beta_j) of every channel."""
    return list(torch.stack([model.get_parameter(f"{norm}.{k}").detach() for k in ("weight", "bias")], dim=1))


def test_norms_and_weights_of_a_network_by_hand() -> None:
    model = randomized(Net())
    penalty = Penalty(net_structure(), model)
    inner, mid, last = (
        scale(model, norm) * torch.stack(pairs(model, norm)).norm(dim=1) for norm in ("block.bn1", "bn", "block.bn2")
    )
    torch.testing.assert_close(penalty.leaf_norms(), torch.cat([inner, mid]))
    torch.testing.assert_close(penalty.block_norms(), torch.cat([inner, last]).norm()[None])
    sizes = torch.tensor([4 * 9 + 2.0] * 5 + [4 + 2.0] * 6)  # the filter, its scale and its shift
    raw = sizes.sqrt() / penalty.leaf_norms()
    torch.testing.assert_close(penalty.leaf_weights, raw / raw.mean())
    assert penalty.block_weights.tolist() == [1.0]
    expected = 0.3 * penalty.block_norms().sum() + 0.2 * (penalty.leaf_weights * penalty.leaf_norms()).sum()
    torch.testing.assert_close(penalty.value(0.3, 0.2), expected)


def test_costs_are_the_multiply_adds_saved_and_can_be_the_currency() -> None:
    model = randomized(Net())
    structure = net_structure()
    penalty = Penalty(structure, model, weights="gl", currency="macs")
    saved = [predicted_macs(structure) - predicted_macs(structure, {name: [index]}) for name, index in penalty.channels]
    assert penalty.leaf_costs.tolist() == saved
    assert penalty.block_costs.tolist() == [predicted_macs(structure) - predicted_macs(structure, blocks=["block"])]
    raw = penalty.leaf_costs.sqrt()
    torch.testing.assert_close(penalty.leaf_weights, raw / raw.mean())


def test_prox_of_a_network_solves_its_problem() -> None:
    model = randomized(Net()).double()
    before = copy.deepcopy(model)
    penalty = Penalty(net_structure(), model)
    step, depth, width = 0.1, 2.0, 0.3
    penalty.prox_(step, depth, width)

    # in coordinates s_j x_j, with metric step * s_j^2; bn2 has no strength of its own
    scales = torch.cat([scale(before, norm) for norm in BLOCK_NORMS])
    values = [s * x for s, x in zip(scales, [x for n in BLOCK_NORMS for x in pairs(before, n)], strict=True)]
    leaf = width * torch.cat([penalty.leaf_weights[:5].double(), torch.zeros(4)])
    expected = slow_prox(values, step * scales.square(), leaf, depth * float(penalty.block_weights))
    got = torch.cat([s * x for s, x in zip(scales, [x for n in BLOCK_NORMS for x in pairs(model, n)], strict=True)])
    torch.testing.assert_close(got, torch.cat(expected), atol=1e-5, rtol=0)
    assert 0 < float(got.norm()) < float(torch.cat(values).norm())

    # outside the block: soft thresholding of (gamma, beta) by step * strength * s_j
    for s, weight, old, new in zip(
        scale(before, MID_NORM), penalty.leaf_weights[5:], pairs(before, MID_NORM), pairs(model, MID_NORM), strict=True
    ):
        factor = max(0.0, 1 - step * width * float(weight) * float(s) / float(old.norm()))
        torch.testing.assert_close(new, old * factor, atol=1e-6, rtol=0)


def test_prox_touches_nothing_but_its_parameters() -> None:
    model = randomized(Net())
    before = copy.deepcopy(model.state_dict())
    penalty = Penalty(net_structure(), model)
    penalty.prox_(0.1, 0.5, 0.5)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{norm}.{key}" for norm in ("block.bn1", "block.bn2", "bn") for key in ("weight", "bias")}
    assert sum(p.numel() for p in penalty.parameters()) == 2 * 15


@pytest.mark.parametrize("family", sorted(WEIGHTS))
@pytest.mark.parametrize("is_normalised", [True, False])
def test_zero_block_returns_its_input_and_is_exactly_zero(family: str, is_normalised: bool) -> None:
    model = randomized(Net(is_normalised))
    penalty = Penalty(net_structure(is_normalised), model, weights=family)
    assert not penalty.zero_blocks().any()
    penalty.prox_(1.0, 1e4, 0.0)
    assert penalty.zero_blocks().tolist() == [True]
    assert penalty.zero_channels().tolist() == [True] * 5 + [False] * 6
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(model.get_submodule("block")(x), x)


@pytest.mark.parametrize("is_normalised", [True, False])
def test_zero_channel_outputs_zero_for_every_input(is_normalised: bool) -> None:
    model = randomized(Net(is_normalised))
    penalty = Penalty(net_structure(is_normalised), model)
    penalty.prox_(1.0, 0.0, 1.0 if is_normalised else 2.5)
    zero = penalty.zero_channels()
    assert 0 < int(zero.sum()) < 11
    output = model.bn(model.mid(torch.randn(2, 4, 6, 6)))  # type: ignore[operator]
    assert torch.equal(output.abs().amax((0, 2, 3)) == 0, zero[5:])
    assert not penalty.zero_blocks().any()


@pytest.mark.parametrize("family", sorted(WEIGHTS))
def test_selection_ignores_the_scale_of_filters_under_batch_norm(family: str) -> None:
    plain = randomized(Net()).double()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    rescaled = copy.deepcopy(plain)
    for conv, norm in (("block.conv1", "block.bn1"), ("block.conv2", "block.bn2"), ("mid", "bn")):
        weight = rescaled.get_parameter(f"{conv}.weight")
        by = 10 ** torch.linspace(-2, 2, len(weight), dtype=torch.float64)
        with torch.no_grad():
            weight.mul_(by.view(-1, 1, 1, 1))
            rescaled.get_buffer(f"{norm}.running_mean").mul_(by)
            rescaled.get_buffer(f"{norm}.running_var").mul_(by.square())
    x = images().double()
    torch.testing.assert_close(plain(x), rescaled(x))
    one, two = (Penalty(net_structure(), model, weights=family) for model in (plain, rescaled))
    torch.testing.assert_close(one.value(0.4, 0.7), two.value(0.4, 0.7))
    for penalty in (one, two):
        penalty.prox_(0.3, 0.1, 0.5)
    assert one.zero_channels().any()
    assert torch.equal(one.zero_channels(), two.zero_channels())
    torch.testing.assert_close(plain(x), rescaled(x), rtol=1e-5, atol=1e-5)  # the strengths of groups are float32


def test_zero_strengths_and_zero_steps_change_nothing() -> None:
    model = randomized(Net())
    before = copy.deepcopy(model.state_dict())
    penalty = Penalty(net_structure(), model)
    penalty.prox_(0.1, 0.0, 0.0)
    penalty.prox_(0.0, 1.0, 1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_all_zero_parameters_stay_zero() -> None:
    model = randomized(Net())
    for norm in (*BLOCK_NORMS, MID_NORM):
        for key in ("weight", "bias"):
            nn.init.zeros_(model.get_parameter(f"{norm}.{key}"))
    penalty = Penalty(net_structure(), model)
    penalty.prox_(0.1, 1.0, 1.0)
    assert penalty.zero_channels().all()
    assert penalty.zero_blocks().all()
    assert all(bool((p == 0).all()) for p in penalty.parameters())


def test_tiny_is_not_zero() -> None:
    model = randomized(Net())
    for norm in (*BLOCK_NORMS, MID_NORM):
        for key in ("weight", "bias"):
            nn.init.constant_(model.get_parameter(f"{norm}.{key}"), 1e-30)
    penalty = Penalty(net_structure(), model)
    assert not penalty.zero_channels().any()
    assert not penalty.zero_blocks().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("is_normalised", [True, False])
def test_half_precision_neither_overflows_nor_loses_exact_zeros(dtype: torch.dtype, is_normalised: bool) -> None:
    model = randomized(Net(is_normalised))
    penalty = Penalty(net_structure(is_normalised), model)
    with torch.no_grad():
        for parameter in penalty.parameters():
            parameter.mul_(500)  # squares beyond 65504
    width = 300.0 if is_normalised else 1200.0
    exact = copy.deepcopy(model)
    model.to(dtype)
    penalty.prox_(1.0, 200.0, width)
    twin = Penalty(net_structure(is_normalised), exact, reference=randomized(Net(is_normalised)).state_dict())
    twin.prox_(1.0, 200.0, width)
    assert penalty.zero_channels().any()
    assert torch.equal(penalty.zero_channels(), twin.zero_channels())
    for half, full in zip(penalty.parameters(), twin.parameters(), strict=True):
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), full.detach(), rtol=0.02, atol=2.0)


def test_reference_fixes_scales_and_weights() -> None:
    theta_hat, model = randomized(Net(), 0), randomized(Net(), 1)
    expected = Penalty(net_structure(), theta_hat)
    penalty = Penalty(net_structure(), model, reference=theta_hat.state_dict())
    assert torch.equal(penalty.leaf_weights, expected.leaf_weights)
    assert torch.equal(penalty.block_weights, expected.block_weights)
    torch.testing.assert_close(
        penalty.leaf_norms()[5:], scale(theta_hat, "bn") * torch.stack(pairs(model, "bn")).norm(dim=1)
    )


def test_factors_reach_only_the_chosen_leaves() -> None:
    penalty = Penalty(net_structure(False), randomized(Net(False)))
    tensors = [torch.ones_like(p) for p in penalty.parameters()]
    chosen = torch.zeros(15, dtype=torch.bool)
    chosen[[1, 14]] = True
    penalty.groups.rows.multiply_(tensors, (~chosen).float())
    by_shape = {tuple(t.shape): t for t in tensors}
    assert by_shape[(5, 4, 3, 3)].flatten(1).sum(1).tolist() == [36, 0, 36, 36, 36]
    assert by_shape[(5,)].tolist() == [1, 0, 1, 1, 1]
    assert by_shape[(4, 5, 3, 3)].flatten(1).sum(1).tolist() == [45, 45, 45, 0]
    assert bool((by_shape[(6, 4, 1, 1)] == 1).all())


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("where", range(3))
def test_bad_strengths_are_refused(bad: float, where: int) -> None:
    penalty = Penalty(net_structure(), randomized(Net()))
    arguments = [0.1, 0.1, 0.1]
    arguments[where] = bad
    with pytest.raises(SettingsError, match=f"at least 0; got {bad}"):
        penalty.prox_(*arguments)


def test_unknown_currency_and_weights_are_refused() -> None:
    with pytest.raises(SettingsError, match="params, macs, target; got 'flops'"):
        Penalty(net_structure(), Net(), currency="flops")
    with pytest.raises(SettingsError, match="got 'lasso'"):
        Penalty(net_structure(), Net(), weights="lasso")


def test_model_that_does_not_fit_the_structure_is_refused() -> None:
    with pytest.raises(ModelError, match=r"the reference has no tensor 'stem\.weight'"):
        Penalty(net_structure(), Net(), reference={})
    wider = Net()
    wider.mid = nn.Conv2d(4, 7, 1, bias=False)
    with pytest.raises(ModelError, match=r"mid\.weight should have shape \(6, 4, 1, 1\); Net has \(7, 4, 1, 1\)"):
        Penalty(net_structure(), wider)


def test_traced_network_gives_the_same_penalty_as_the_typed_one() -> None:
    model = randomized(Net())
    typed, traced = Penalty(net_structure(), model), Penalty(trace(model, images()), model)
    assert traced.blocks == typed.blocks
    assert len(traced.channels) == len(typed.channels)
    for strengths in ((1.0, 0.0), (0.0, 1.0)):
        torch.testing.assert_close(traced.value(*strengths), typed.value(*strengths))


def test_traced_resnet_loses_every_block_and_still_runs() -> None:
    model = randomized(open_model("resnet20", num_classes=10))
    structure = trace(model, torch.randn(2, 3, 32, 32))
    penalty = Penalty(structure, model)
    assert penalty.blocks
    assert {name for name, _ in penalty.channels} == {
        g.name for g in structure.channels if g.kind != "stream" and g.exact
    }
    penalty.prox_(1.0, 1e6, 0.0)
    assert penalty.zero_blocks().all()
    for name in penalty.blocks:
        block = model.get_submodule(name)
        x = torch.rand(1, *structure.shapes[f"{name}.conv1.weight"][1:2], 8, 8)
        assert torch.equal(block(x), x)


def test_theta_hat_may_lack_buffers_that_a_state_dict_leaves_out() -> None:
    model = randomized(Net())
    model.register_buffer("places", torch.arange(3), persistent=False)
    structure = replace(net_structure(), buffers=(*net_structure().buffers, "places"))
    structure = replace(structure, shapes={**structure.shapes, "places": (3,)})
    found = Penalty(structure, model, reference=model.state_dict())
    assert torch.equal(found.leaf_weights, Penalty(net_structure(), model).leaf_weights)
