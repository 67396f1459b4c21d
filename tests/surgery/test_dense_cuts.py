"""Dense layers are cut with their channels: proven, counted, saved, composed, penalised."""

import random
from pathlib import Path

import pytest
import torch
from torch import nn

from amsc.errors import CutError
from amsc.measurement import count_macs
from amsc.penalty import Penalty
from amsc.records import from_json, to_json
from amsc.structure import BlockCall, OutputLeaf, Structure, trace
from amsc.structure.costing import predicted_macs
from amsc.structure.cutting import after_removal
from amsc.surgery import CutPlan, compose, cut, cuttable, load, masked, plan_cut, plan_of, save
from amsc.surgery.passthrough import PassThrough
from amsc.training import Removal
from amsc.training.removal.removed import compose_removals
from dense_nets import DenseNet, Inception, images, randomized

KINDS = ["list", "tensor", "cat"]


def checked(model: nn.Module, plan: CutPlan) -> nn.Module:
    """The cut model, which costs what was predicted."""
    small = cut(model, plan, images())
    assert count_macs(small, images()[:1]) * 2 == count_macs(small, images()) == plan.macs
    assert sum(parameter.numel() for parameter in small.parameters()) == plan.parameters
    return small


def some(structure: Structure, seed: int) -> Removal:
    """Half of the blocks, and channels of half of the groups that are left."""
    draw = random.Random(seed)
    blocks = tuple(block.name for block in structure.blocks if draw.random() < 0.5)
    groups = [group for group in after_removal(structure, {}, blocks).channels if group.exact and group.size > 1]
    chosen = [group for group in groups if draw.random() < 0.5]
    return Removal(blocks, {g.name: tuple(draw.sample(range(g.size), draw.randint(1, g.size - 1))) for g in chosen})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalised", [True, False])
def test_each_layer_alone_a_stage_and_all_of_them(kind: str, normalised: bool) -> None:
    model = randomized(DenseNet(kind, normalised=normalised))
    structure = trace(model, images())
    names = [block.name for block in structure.blocks]
    for blocks in (*([name] for name in names), names[:3], names):
        small = checked(model, plan_cut(structure, blocks=blocks))
        assert not any(name.startswith(f"{blocks[0]}.") for name in small.state_dict())
    assert cuttable(model, structure, images()) is structure


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_layers_together_with_channels_then_again_and_both_at_once(kind: str, seed: int) -> None:
    model = randomized(DenseNet(kind))
    structure = trace(model, images())
    first = some(structure, seed)
    once = checked(model, plan_cut(structure, channels=first.channels, blocks=first.blocks))
    middle = after_removal(structure, first.channels, first.blocks)
    second = some(middle, seed + 100)
    twice = checked(once, plan_cut(middle, channels=second.channels, blocks=second.blocks))
    both = compose_removals(structure, first, second)
    at_once = checked(model, plan_cut(structure, channels=both.channels, blocks=both.blocks))
    torch.testing.assert_close(twice(x := images()), at_once(x))
    plan = plan_of(twice)
    assert plan is not None
    assert (plan.cuts, plan.blocks, plan.macs) == ((whole := plan_of(at_once)).cuts, whole.blocks, whole.macs)
    torch.testing.assert_close(masked(model, plan)(x), twice(x), rtol=1e-4, atol=1e-5)


def test_channels_and_the_layer_that_makes_them() -> None:
    model = randomized(DenseNet("list"))
    structure = trace(model, images())
    own, layer = "stage1.layers.0.conv2", "stage1.layers.0"
    with pytest.raises(CutError, match="leave it empty"):
        plan_cut(structure, channels={own: range(4)})
    both = plan_cut(structure, channels={own: [1]}, blocks=[layer])
    assert both.cuts == plan_cut(structure, blocks=[layer]).cuts
    first = plan_cut(structure, channels={own: [1]})
    second = plan_cut(after_removal(structure, {own: [1]}), blocks=[layer])
    assert compose(first, second).cuts == both.cuts
    checked(model, both)


def test_two_of_three_branches_can_go() -> None:
    model = randomized(Inception())
    structure = trace(model, images())
    checked(model, plan_cut(structure, channels={"branches.2.conv": [0, 1, 2]}, blocks=["branches.0", "branches.1"]))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_and_built_again(tmp_path: Path, kind: str) -> None:
    model = randomized(DenseNet(kind))
    plan = plan_cut(trace(model, images()), blocks=["stage1.layers.0", "stage2.layers.2"])
    assert from_json(CutPlan, to_json(plan)) == plan
    small = checked(model, plan)
    save(small, tmp_path / "model")
    again = load(tmp_path / "model", lambda: DenseNet(kind)).eval()
    torch.testing.assert_close(again(x := images()), small(x))
    small.train()(images()).sum().backward()


def test_the_stand_in_has_no_channel_of_the_right_kind() -> None:
    empty = PassThrough(BlockCall((OutputLeaf("empty", 0, "x", ("1",), axis=1),), trace_layout()))
    x = torch.zeros(2, 3, 4, dtype=torch.float64)
    output = empty((None, x))
    assert (output.shape, output.dtype) == ((2, 0, 4), torch.float64)
    assert "empty(x.1, axis=1)" in repr(empty)


def trace_layout() -> str:
    call = trace(DenseNet("tensor"), images()).block("stage1.layers.0").call
    assert call is not None
    return call.layout


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalised", [True, False])
def test_a_zero_layer_is_as_good_as_a_removed_one(kind: str, normalised: bool) -> None:
    """In the penalty it is a layer like any other, and what it saves includes what reads its channels."""
    model = randomized(DenseNet(kind, normalised=normalised))
    structure = trace(model, images())
    penalty = Penalty(structure, model, currency="macs")
    assert penalty.blocks == tuple(block.name for block in structure.blocks)
    saved = [predicted_macs(structure) - predicted_macs(structure, blocks=[name]) for name in penalty.blocks]
    assert penalty.block_costs.tolist() == saved
    assert {f"{name}.conv2" for name in penalty.blocks} <= {name for name, _ in penalty.channels}
    penalty.prox_(1.0, 1e9, 0.0)
    assert penalty.zero_blocks().all()
    small = cut(model, plan_cut(structure, blocks=penalty.blocks), images())
    torch.testing.assert_close(small(x := images()), model(x), rtol=1e-4, atol=1e-5)
