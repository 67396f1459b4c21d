"""Where the best-known pruning library is wrong or fails: amsc is right, or leaves it and says why; in eval and in
train mode, compared with a masked network that these tests make themselves."""

import copy
import functools
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.errors import AmscError, CutError
from amsc.structure import Structure
from amsc.surgery import CutPlan, apply_plan, cuttable, plan_cut, verify
from structure.awkward_more import EVERY, traced

SEEDS = range(2)  # everything that can go at once, and a part of it
TOLERANCE = 1e-5


def removal(structure: Structure, seed: int) -> tuple[dict[str, list[int]], list[str]]:
    """Some channels of most exact groups (of all in the first round, of one at least) and some blocks."""
    draw = random.Random(seed)
    groups = [group for group in structure.channels if group.exact and group.size > 1]
    chosen = [group for group in groups if seed == 0 or draw.random() < 0.7] or groups[:1]
    channels = {group.name: draw.sample(range(group.size), draw.randint(1, group.size - 1)) for group in chosen}
    blocks = [block.name for block in structure.blocks if block.kind != "plain"]  # these go with the channels around
    return channels, [name for name in blocks if draw.random() < 0.5]


def silenced(model: nn.Module, structure: Structure, channels: dict[str, list[int]], blocks: list[str]) -> nn.Module:
    """A copy of the dense network in which everything that makes these channels and blocks is zero."""
    zeroed = copy.deepcopy(model)
    tensors = dict(zeroed.named_parameters()) | dict(zeroed.named_buffers())
    with torch.no_grad():
        for name, chosen in channels.items():
            for member in structure.group(name).members:
                if member.role not in ("in", "statistic"):
                    lines = tensors[member.parameter].movedim(member.axis, 0)
                    for channel in chosen:
                        lines[list(member.indices[channel])] = 0
        for name in blocks:
            for parameter in zeroed.get_submodule(name).parameters():
                parameter.zero_()
    return zeroed


def difference(wanted: Any, got: Any) -> float:
    """max|a - b| / max|a| over all tensors of the outputs."""
    pairs = [
        (a.detach().double(), b.detach().double())
        for a, b in zip(pytree.tree_leaves(wanted), pytree.tree_leaves(got), strict=True)
    ]
    assert all(a.shape == b.shape and bool(a.isfinite().all()) for a, b in pairs)
    return max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) for a, b in pairs)


def fresh(inputs: Any, seed: int) -> Any:
    """Another batch of the same shapes."""
    generator = torch.Generator().manual_seed(1000 + seed)

    def another(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return torch.randn(tensor.shape, generator=generator)
        return torch.randint(int(tensor.max()) + 1, tensor.shape, generator=generator)

    return pytree.tree_map_only(Tensor, another, inputs)


def check(model: nn.Module, small: nn.Module, zeroed: nn.Module, inputs: Any, seed: int) -> None:
    """The cut network does what the silenced one does: in eval mode, in train mode, and it can be trained."""
    batch = fresh(inputs, seed)
    with torch.no_grad():
        assert difference(zeroed.eval()(batch), small.eval()(batch)) < TOLERANCE, "differs in eval mode"
    torch.manual_seed(seed)
    wanted = zeroed.train()(batch)
    torch.manual_seed(seed)
    got = small.train()(batch)
    assert difference(wanted, got) < TOLERANCE, "differs in train mode"
    sum(out.square().sum() for out in pytree.tree_leaves(got)).backward()
    own = {id(parameter) for parameter in model.parameters()}
    assert not any(id(parameter) in own for parameter in small.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


@functools.cache
def tried(name: str, seed: int) -> Structure:
    """What is left of the structure once everything in it was tried."""
    model, inputs, structure = traced(name, seed)
    return cuttable(model, structure, inputs)


def marked(field: str, names: Sequence[str] = tuple(EVERY)) -> list[Any]:
    """These names of `EVERY`, marked where `field` says what amsc still gets wrong."""
    marks = {
        name: [pytest.mark.xfail(strict=True, reason=why)] if (why := getattr(EVERY[name], field)) else []
        for name in names
    }
    return [pytest.param(name, marks=marks[name], id=name) for name in names]


# Of these nothing can be removed; that each says why is checked below.
LEFT_WHOLE = ("quotient that is 0 / 0", "one channel", "outer product", "embedding bag", "bilinear layer")
CUT_SOMEWHERE = [name for name in EVERY if name not in LEFT_WHOLE]


@pytest.mark.parametrize("name", marked("wrong", CUT_SOMEWHERE))
def test_what_is_cut_is_right_in_eval_and_in_train_mode(name: str) -> None:
    for seed in SEEDS:
        (model, inputs, _), structure = traced(name, seed), tried(name, seed)
        channels, blocks = removal(structure, seed)
        assert channels or blocks, "nothing can be removed"
        plan = plan_cut(structure, channels=channels, blocks=blocks)
        small = apply_plan(model, plan)
        verify(model, small, plan, inputs)
        check(model, small, silenced(model, structure, channels, blocks), inputs, seed)
        assert sum(p.numel() for p in small.parameters()) == plan.parameters


@pytest.mark.parametrize("name", LEFT_WHOLE)
def test_of_some_nothing_can_be_removed(name: str) -> None:
    assert removal(tried(name, 0), 0) == ({}, [])


def left_because(structure: Structure, parameter: str, axis: int) -> str:
    """Why no channel along this axis can be removed; "" if one can. Every reason must be in words."""
    groups = [g for g in structure.channels if any((m.parameter, m.axis) == (parameter, axis) for m in g.members)]
    reasons = [group.reason for group in groups if not group.exact]
    reasons += [pin.reason for pin in structure.pins if (pin.parameter, pin.axis) == (parameter, axis)]
    assert all(reasons), "left without a reason"
    return "" if any(group.exact and group.size > 1 for group in groups) else "; ".join(reasons) or "not said"


@pytest.mark.parametrize("name", marked("untold"))
def test_what_the_construct_is_about_is_removable_or_left_with_a_reason(name: str) -> None:
    structure = tried(name, 0)
    reasons = {at: left_because(structure, *at) for at in EVERY[name].at}
    assert "not said" not in reasons.values()
    if EVERY[name].expect == "cut":
        assert not any(reasons.values()), f"should be removable: {reasons}"


# What is removable beside an axis of the same construct that stays.
PARTLY = {
    "GRU": ("a.weight", 0),
    "weight_norm, old": ("middle.weight_v", 0),
    "weight_norm": ("middle.parametrizations.weight.original1", 0),
    "spectral_norm, old": ("middle.weight_orig", 0),
    "spectral_norm": ("middle.parametrizations.weight.original", 0),
    "parametrisation of one's own": ("middle.parametrizations.weight.original", 0),
    "tokens mixed": ("up.weight", 0),
}


@pytest.mark.parametrize("name", PARTLY)
def test_an_axis_is_removable_beside_one_that_stays(name: str) -> None:
    structure = tried(name, 0)
    assert not left_because(structure, *PARTLY[name])


@pytest.mark.parametrize("name", CUT_SOMEWHERE)
def test_a_wrong_cut_is_never_silent(name: str) -> None:
    """Also without `cuttable`, what a plan does wrong is noticed: not by the caller, by verify."""
    for seed in SEEDS:
        model, inputs, structure = traced(name, seed)
        channels, blocks = removal(structure, seed)
        small = verified(model, plan_cut(structure, channels=channels, blocks=blocks), inputs)
        assert small is None or agrees(small, silenced(model, structure, channels, blocks), fresh(inputs, seed))


def agrees(small: nn.Module, zeroed: nn.Module, batch: Any) -> bool:
    with torch.no_grad():
        return difference(zeroed.eval()(batch), small.eval()(batch)) < TOLERANCE


def verified(model: nn.Module, plan: CutPlan, inputs: Any) -> nn.Module | None:
    """The cut network if `verify` lets it pass."""
    try:
        small = apply_plan(model, plan)
        verify(model, small, plan, inputs)
    except CutError:
        return None
    except AmscError as error:
        pytest.fail(f"a cut that fails is a CutError, not {type(error).__name__}: {error}")
    return small
