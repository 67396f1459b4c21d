from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from amsc.penalty import Coordinates, Penalty, find_coordinates
from amsc.penalty.scales import leaf_scales
from amsc.structure import ChannelGroup, Member, Structure
from penalty.nets import Net, layer, member, net_structure, randomized, structure_of


def covered(coordinates: Coordinates) -> set[str]:
    return {slices.parameter for slices in coordinates.slices}


def leaves_of(coordinates: Coordinates, parameter: str) -> tuple[int, ...]:
    (leaf,) = (slices.leaf for slices in coordinates.slices if slices.parameter == parameter)
    return leaf


def test_normalised_channels_are_reached_through_scale_and_shift() -> None:
    found = find_coordinates(net_structure())
    norms = ("block.bn1", "block.bn2", "bn")
    assert covered(found) == {f"{norm}.{key}" for norm in norms for key in ("weight", "bias")} == found.normalised
    assert found.channels == (*(("inner", c) for c in range(5)), *(("mid", c) for c in range(6)))
    assert leaves_of(found, "block.bn1.weight") == leaves_of(found, "block.bn1.bias") == tuple(range(5))
    assert leaves_of(found, "bn.bias") == tuple(range(5, 11))


def test_what_a_block_holds_besides_gets_leaves_under_its_root() -> None:
    found = find_coordinates(net_structure())
    assert leaves_of(found, "block.bn2.weight") == leaves_of(found, "block.bn2.bias") == tuple(range(11, 15))
    assert found.root == (0,) * 5 + (-1,) * 6 + (0,) * 4


def test_without_normalisation_filters_and_biases_are_the_coordinates() -> None:
    found = find_coordinates(net_structure(is_normalised=False))
    layers = ("block.conv1", "block.conv2", "mid")
    assert covered(found) == {f"{name}.{key}" for name in layers for key in ("weight", "bias")}
    assert not found.normalised
    assert found.root == (0,) * 5 + (-1,) * 6 + (0,) * 4


def test_stream_and_inexact_groups_have_no_leaves_of_their_own() -> None:
    structure = net_structure()
    inexact = [replace(g, removable=False) if g.name == "mid" else g for g in structure.channels]
    found = find_coordinates(replace(structure, channels=tuple(inexact)))
    assert {name for name, _ in found.channels} == {"inner"}
    assert "bn.weight" not in covered(found)


def test_layer_with_pinned_channels_is_still_under_its_block() -> None:
    structure = net_structure()
    found = find_coordinates(replace(structure, channels=structure.channels[1:]))  # nothing knows of the stream
    assert leaves_of(found, "block.bn2.weight") == tuple(range(11, 15))
    assert "block.conv2.weight" not in covered(found)
    (paired,) = (n for n in found.normalisations if n.parameter == "block.bn2.weight")
    assert paired.producer == "block.conv2.weight"


def test_block_parameter_with_a_bias_after_the_last_normalisation_is_covered() -> None:
    """Pre-activation: bn, relu, conv with bias; zero scales alone would leave the bias."""
    model = nn.ModuleDict({"block": nn.ModuleDict({"bn": nn.BatchNorm2d(3), "conv": nn.Conv2d(3, 3, 1)})})
    norm = [member(f"block.bn.{key}", 3, role) for key, role in (("weight", "affine"), ("bias", "affine"))]
    stream = ChannelGroup("s", "stream", 3, True, (*norm, *layer("block.conv", 3, None)))
    found = find_coordinates(structure_of(model, (stream,), ("block",)))
    assert {"block.bn.weight", "block.conv.weight", "block.conv.bias"} <= covered(found)
    assert found.channels == ()


def test_biases_are_covered_even_if_the_order_of_registration_hides_that_nothing_follows_them() -> None:
    model = nn.ModuleDict({"block": nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1), "bn": nn.BatchNorm2d(3)})})
    norm = [member(f"block.bn.{key}", 3, role) for key, role in (("weight", "affine"), ("bias", "affine"))]
    stream = ChannelGroup("s", "stream", 3, True, (*norm, *layer("block.conv", 3, None)))
    found = find_coordinates(structure_of(model, (stream,), ("block",)))
    assert covered(found) == {"block.bn.weight", "block.bn.bias", "block.conv.bias"}


def test_unused_parameter_of_a_block_is_left_alone() -> None:
    found = find_coordinates(replace(net_structure(), unused=("block.bn2.bias",)))
    assert "block.bn2.bias" not in covered(found)
    assert "block.bn2.weight" in covered(found)


def test_scalar_gate_of_a_block_is_a_leaf() -> None:
    model = nn.ModuleDict({"block": nn.ParameterDict({"gate": nn.Parameter(torch.tensor(2.0))})})
    penalty = Penalty(structure_of(model, (), ("block",)), model)
    penalty.prox_(1.0, 0.5, 0.0)
    assert model["block"]["gate"].item() == 1.5


def test_normalised_without_a_scale_is_not_penalised() -> None:
    model = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 1), "bn": nn.BatchNorm2d(4, affine=False)})
    members = (
        *layer("conv", 4, None),
        member("bn.running_mean", 4, "statistic"),
        member("bn.running_var", 4, "statistic"),
    )
    assert find_coordinates(structure_of(model, (ChannelGroup("g", "filter", 4, True, members),))).slices == ()


def test_group_that_reaches_into_two_blocks_is_not_penalised_alone() -> None:
    model = nn.ModuleDict({name: nn.ModuleDict({"conv": nn.Conv2d(3, 4, 1)}) for name in ("a", "b")})
    group = ChannelGroup("g", "filter", 4, True, (*layer("a.conv", 4, None), *layer("b.conv", 4, None)))
    found = find_coordinates(structure_of(model, (group,), ("a", "b")))
    assert found.channels == ()
    assert found.root == (0,) * 4 + (1,) * 4


def test_structure_without_groups_and_blocks() -> None:
    model = nn.Linear(2, 3)
    penalty = Penalty(structure_of(model, ()), model)
    penalty.prox_(0.1, 1.0, 1.0)
    assert penalty.parameters() == []
    assert penalty.zero_blocks().shape == penalty.zero_channels().shape == (0,)
    assert float(penalty.value(1.0, 1.0)) == 0


def scales_of(model: nn.Module, structure: Structure) -> Tensor:
    return leaf_scales(find_coordinates(structure), model, model.state_dict())


def test_scale_is_filter_norm_over_running_deviation() -> None:
    model = randomized(Net())
    expected = []
    for conv, bn in (("block.conv1", "block.bn1"), ("mid", "bn"), ("block.conv2", "block.bn2")):
        weight, norm = model.get_parameter(f"{conv}.weight"), model.get_submodule(bn)
        for c in range(len(weight)):
            expected.append(float(weight[c].detach().norm() / (norm.get_buffer("running_var")[c] + norm.eps).sqrt()))
    assert scales_of(model, net_structure()).tolist() == pytest.approx(expected, rel=1e-5)


def test_scale_without_normalisation_is_one() -> None:
    assert scales_of(randomized(Net(False)), net_structure(False)).tolist() == [1.0] * 15


def test_dead_filter_does_not_make_its_channel_free() -> None:
    model = randomized(Net())
    with torch.no_grad():
        model.get_parameter("mid.weight")[0] = 0
    scales = scales_of(model, net_structure())
    assert float(scales[5]) == pytest.approx(0.01 * float(scales[scales > scales[5]].median()), rel=0.2)


def test_leaf_under_two_normalisations_has_the_root_mean_square_scale() -> None:
    """Pointwise, then depthwise: both pairs are coordinates of one channel, each paired with its own filter."""
    parts = {
        "pw": nn.Conv2d(3, 4, 1, bias=False), "bn1": nn.BatchNorm2d(4),
        "dw": nn.Conv2d(4, 4, 3, groups=4, bias=False), "bn2": nn.BatchNorm2d(4),
    }  # fmt: skip
    model = randomized(nn.ModuleDict(parts))
    group = ChannelGroup("g", "filter", 4, True, (*layer("pw", 4, "bn1"), *layer("dw", 4, "bn2")))
    structure = structure_of(model, (group,))
    squares = torch.zeros(4)
    for conv, bn in (("pw", "bn1"), ("dw", "bn2")):
        norms = model.get_parameter(f"{conv}.weight").detach().flatten(1).norm(dim=1)
        squares += norms**2 / (model.get_buffer(f"{bn}.running_var") + 1e-5) / 2
    torch.testing.assert_close(scales_of(model, structure), squares.sqrt())
    assert covered(find_coordinates(structure)) == {
        f"{bn}.{key}" for bn in ("bn1", "bn2") for key in ("weight", "bias")
    }


def test_channel_with_several_positions_owns_them_all() -> None:
    """Flatten after a convolution, then BatchNorm over the flat features: one channel is four scales."""
    model = randomized(nn.ModuleDict({"conv": nn.Conv2d(3, 2, 1, bias=False), "bn": nn.BatchNorm1d(8)}))
    flat = tuple(tuple(range(4 * c, 4 * c + 4)) for c in range(2))
    norm = [Member(f"bn.{key}", 0, flat, role) for key, role in (("weight", "affine"), ("bias", "affine"))]
    structure = structure_of(model, (ChannelGroup("g", "filter", 2, True, (member("conv.weight", 2, "out"), *norm)),))
    assert leaves_of(find_coordinates(structure), "bn.bias") == (0,) * 4 + (1,) * 4
    norms = model.get_parameter("conv.weight").detach().flatten(1).norm(dim=1)
    inverse = (1 / (model.get_buffer("bn.running_var") + 1e-5)).view(2, 4).mean(1)
    torch.testing.assert_close(scales_of(model, structure), norms * inverse.sqrt())
