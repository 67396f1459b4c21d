"""Blocks of any call signature are cut, proven, saved and trained."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.records import from_json, to_json
from amsc.structure import BlockCall, OutputLeaf, Structure, trace
from amsc.structure.cutting import after_removal
from amsc.surgery import CutPlan, compose, cut, cuttable, load, plan_cut, plan_of, save
from amsc.surgery.passthrough import PassThrough
from amsc.training import Removal
from amsc.training.removal.removed import compose_removals
from blocks_nets import Branches, Decoder, Lent, PostNorm, rows

KINDS = [("tensor", "mask"), ("none", "keywords"), ("bias", "keywords"), ("cache", "cache"), ("dict", "plain")]


def call(template: Any, *leaves: OutputLeaf) -> BlockCall:
    return BlockCall(leaves, pytree.treespec_dumps(pytree.tree_structure(template)))


@pytest.mark.parametrize(("style", "how"), KINDS)
def test_every_block_can_be_cut_alone_and_together(style: str, how: str) -> None:
    model = Decoder(style, how).eval()
    structure = trace(model, rows())
    assert len(structure.blocks) == 9
    for block in structure.blocks:
        plan = plan_cut(structure, blocks=[block.name])
        small = cut(model, plan, rows())
        assert isinstance(small.get_submodule(block.name), PassThrough)
        assert sum(p.numel() for p in small.parameters()) == plan.parameters
    cut(model, plan_cut(structure, blocks=[block.name for block in structure.outer_blocks]), rows())
    cut(model, plan_cut(structure, blocks=[b.name for b in structure.blocks if "." in b.name[7:]]), rows())
    assert cuttable(model, structure, rows()) is structure


def test_branches_outside_identities_can_be_cut() -> None:
    for model, branch in ((Branches(), "one"), (nn.Sequential(PostNorm(), nn.Linear(6, 2)), "0.attention")):
        small = cut(model, plan_cut(trace(model, rows()), blocks=[branch]), rows())
        assert not any(name.startswith(f"{branch}.") for name in small.state_dict())
        assert any(name.startswith(f"{branch}.") for name in model.state_dict())


def test_what_was_stuck_in_a_block_goes_with_it() -> None:
    structure = replace(trace(Decoder("tensor", "mask"), rows()), stuck={"layers.0.mlp": "why", "layers.1.mlp": "why"})
    assert after_removal(structure, {}, ["layers.0"]).stuck == {"layers.1.mlp": "why"}


class Beside(nn.Module):
    """A branch that makes as many channels as it reads, which others read than those that read its input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 8, 1), nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 1))
        self.near, self.far, self.head = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head((self.near(x) + self.far(self.branch(x))).relu())


def test_the_zeros_of_a_branch_are_as_wide_as_what_reads_them() -> None:
    model, images = Beside().eval(), torch.randn(2, 3, 4, 4)
    structure = trace(model, images)
    assert cuttable(model, structure, images) is structure
    for channels in ({"stem": [0, 1, 2]}, {"branch.2": [5]}, {"stem": [7], "branch.2": [0, 1], "near": [2]}):
        plan = plan_cut(structure, channels=channels, blocks=["branch"])
        small = cut(model, plan, images)
        width = 8 - len(channels.get("branch.2", ()))
        assert small.get_parameter("far.weight").shape[1] == width
        again = cut(small, plan_cut(trace(small, images), channels={"near": [1]}), images)
        assert again.get_parameter("far.weight").shape[1] == width
        assert from_json(CutPlan, to_json(plan)) == plan


@pytest.mark.parametrize("first", [Removal((), {"branch.2": (0, 3)}), Removal(("branch",), {})])
def test_a_branch_and_its_channels_in_either_order_are_one_cut(first: Removal) -> None:
    model, images = Beside().eval(), torch.randn(2, 3, 4, 4)
    structure = trace(model, images)
    after = after_removal(structure, first.channels, first.blocks)
    second = Removal(("branch",) if not first.blocks else (), {"stem": (1,)})
    whole = compose_removals(structure, first, second)
    one = cut(model, plan_cut(structure, channels=first.channels, blocks=first.blocks), images)
    two = cut(one, plan_cut(after, channels=second.channels, blocks=second.blocks), images)
    at_once = cut(model, plan_cut(structure, channels=whole.channels, blocks=whole.blocks), images)
    torch.testing.assert_close(at_once(images), two(images))
    at_once.load_state_dict(two.state_dict())


class Summed(nn.Module):
    """A branch whose channels are added to those of another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 1))
        self.stem, self.wide, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head((self.branch(x) + self.wide(x)).relu())


def stream_of(structure: Structure) -> str:
    (name,) = (group.name for group in structure.channels if any(m.parameter == "wide.bias" for m in group.members))
    return name


def test_zeros_that_are_added_to_a_stream_lose_its_channels() -> None:
    model, images = Summed().eval(), torch.randn(2, 3, 4, 4)
    structure = trace(model, images)
    assert cuttable(model, structure, images) is structure
    plan = plan_cut(structure, channels={"stem": [1, 2], stream_of(structure): [0, 3, 4]}, blocks=["branch"])
    small = cut(model, plan, images)
    assert small.get_parameter("head.weight").shape[1] == 5
    assert small.get_submodule("branch")(torch.ones(1, 6, 2, 2)).shape == (1, 5, 2, 2)


@pytest.mark.parametrize("order", [("channels", "block"), ("block", "channels")])
def test_zeros_lose_channels_cut_by_cut_as_at_once(order: tuple[str, str]) -> None:
    model, images = Summed().eval(), torch.randn(2, 3, 4, 4)
    structure = trace(model, images)
    channels = {stream_of(structure): [0, 3, 4]}
    steps: dict[str, dict[str, Any]] = {"channels": {"channels": channels}, "block": {"blocks": ["branch"]}}
    once = cut(model, plan_cut(structure, **steps["channels"], **steps["block"]), images)
    small: nn.Module = model
    for step in order:
        plan = plan_cut(structure, **steps[step])
        small, structure = cut(small, plan, images), after_removal(structure, plan.channels, plan.blocks)
    whole = plan_of(small)
    assert whole is not None
    assert whole.block_calls == plan_of(once).block_calls  # type: ignore[union-attr]
    small.load_state_dict(once.state_dict())
    torch.testing.assert_close(small(images), once(images))
    torch.testing.assert_close(cut(model, whole, images)(images), once(images))


def test_blocks_that_hold_a_module_of_another_can_be_cut() -> None:
    model = Lent()
    structure = trace(model, rows())
    small = cut(model, plan_cut(structure, blocks=[block.name for block in structure.blocks]), rows())
    assert {name.partition(".")[0] for name, _ in small.named_parameters()} == {"a"}
    assert cuttable(model, structure, rows()) is structure


def test_a_cut_model_trains_compiles_copies_and_keeps_no_tensor_of_the_block() -> None:
    model = Decoder("none", "keywords").train()
    small = cut(model, plan_cut(trace(model, rows()), blocks=["layers.0", "layers.1.mlp"]), rows())
    assert not any(name.startswith(("layers.0.", "layers.1.mlp.")) for name in small.state_dict())
    assert small.get_submodule("layers.0").training
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    before = small.get_parameter("layers.2.mlp.up.weight").detach().clone()
    small(rows()).sum().backward()
    optimizer.step()
    assert not torch.equal(before, small.get_parameter("layers.2.mlp.up.weight"))
    small.eval()
    torch.testing.assert_close(copy.deepcopy(small)(rows()), small(rows()))
    torch.testing.assert_close(torch.compile(small, backend="eager")(rows()), small(rows()))
    x = rows().requires_grad_()
    layer = small.get_submodule("layers.0")
    again, none = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    assert none is None
    again.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(("style", "how"), KINDS)
def test_it_is_saved_and_built_again(tmp_path: Path, style: str, how: str) -> None:
    model = Decoder(style, how).eval()
    plan = plan_cut(trace(model, rows()), blocks=["layers.1", "layers.2.attention"])
    assert from_json(CutPlan, to_json(plan)) == plan
    small = cut(model, plan, rows())
    save(small, tmp_path / "model")
    again = load(tmp_path / "model", lambda: Decoder(style, how)).eval()
    assert plan_of(again) == plan
    torch.testing.assert_close(again(rows()), small(rows()))


def test_what_the_network_reads_from_a_layer_stays() -> None:
    model = Decoder("none", "mask")
    small: Any = cut(model, plan_cut(trace(model, rows()), blocks=["layers.2"]), rows())
    assert (small.layers[2].kind, small.layers[2].index) == ("full", 2)
    assert "hidden" in repr(small.layers[2])


def test_a_branch_and_then_its_layer_are_one_plan() -> None:
    structure = trace(Decoder("none", "mask"), rows())
    first = plan_cut(structure, blocks=["layers.0.mlp", "layers.1.mlp"])
    second = plan_cut(after_removal(structure, {}, first.blocks), blocks=["layers.0"])
    both = plan_cut(structure, blocks=["layers.0", "layers.0.mlp", "layers.1.mlp"])
    assert compose(first, second) == both
    assert both.blocks == ("layers.0", "layers.1.mlp") == tuple(both.block_calls)
    model = Decoder("none", "mask")
    twice = cut(cut(model, first, rows()), second, rows())
    torch.testing.assert_close(twice(rows()), cut(model, both, rows())(rows()))


HIDDEN = OutputLeaf("input", 0, "hidden")


@pytest.mark.parametrize(("args", "kwargs"), [((rows(), 1), {}), ((), {"hidden": rows(), "cache": object()})])
def test_an_argument_may_come_by_position_or_name(args: Any, kwargs: Any) -> None:
    leaves = (HIDDEN, OutputLeaf("zeros", 0, "hidden"), OutputLeaf("constant", constant=3))
    output, (zeros, three) = PassThrough(call((0, [0, 0]), *leaves))(*args, **kwargs)
    assert output is (kwargs.get("hidden") if kwargs else args[0])
    assert torch.equal(zeros, torch.zeros_like(rows()))
    assert three == 3


def test_it_reaches_into_tuples_and_builds_dicts() -> None:
    x, y = rows(), rows() + 1
    second = OutputLeaf("input", 0, "pair", ("1",))
    deep = OutputLeaf("input", 1, "more", ("state", "0"))
    module = PassThrough(call({"a": 0, "b": (0,)}, second, deep))
    output = module((x, y), more={"state": [x]})
    assert output["a"] is y
    assert output["b"][0] is x


def test_the_zero_of_no_axes_is_of_the_arguments_kind() -> None:
    x = rows().double()
    zero: Tensor = PassThrough(call(0, OutputLeaf("zero", 0, "hidden")))(x)
    assert zero.shape == ()
    assert zero.dtype == torch.float64


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(TypeError, match=r"'hidden'.*0 positional.*\['mask'\]"):
        PassThrough(call(0, HIDDEN))(mask=None)
