"""Channels that a LayerNorm runs over: offered where they are asked for, cut without a proof, the rest proven."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from amsc.errors import CutError, VerificationError
from amsc.structure import Structure, select, trace, with_inexact
from amsc.surgery import apply_plan, compose, cut, cut_with_error, cuttable, plan_cut, proven_part

INPUTS = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


class Normed(nn.Module):
    """A residual stream of `width` channels, which a LayerNorm of its own or of a written width reads."""

    def __init__(self, width: int = 12, written: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.width = width if written is None else written
        self.embed, self.norm = nn.Linear(6, width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 16), nn.Linear(16, width)
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.down(self.up(self.norm(x)).relu())
        return self.head(self.last(x))


class Written(Normed):
    """The same with the width written down in the forward."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).view(-1, 12)
        x = x + self.down(self.up(self.norm(x)).relu())
        return self.head(self.last(x))


def offered(model: nn.Module) -> Structure:
    return cuttable(model, with_inexact(trace(model, INPUTS)), INPUTS)


def test_a_stream_under_a_layernorm_is_offered_where_it_is_asked_for() -> None:
    model = Normed()
    assert not trace(model, INPUTS).group("embed").removable
    group = offered(model).group("embed")
    assert (group.kind, group.size, group.removable, group.exact, group.reason) == ("stream", 12, True, False, "")
    assert "normalises over channels" in group.unproven
    kept = select(offered(model), keep=["embed"]).group("embed")
    assert not kept.removable
    assert kept.reason == "keep = 'embed' leaves it alone"


def test_what_does_not_run_without_its_channels_is_not_offered() -> None:
    group = offered(Written()).group("embed")
    assert not group.removable
    assert "the cut model fails" in group.reason
    assert offered(Written()).group("up").exact, "the others can go all the same"


def test_groups_that_go_whole_are_not_offered_channel_by_channel_as_well() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 2, 3))
    structure = with_inexact(trace(model, torch.randn(1, 3, 8, 8)))
    assert {group.size: group.removable for group in structure.channels} == {4: True}


def test_a_cut_refuses_what_it_cannot_prove_and_the_plan_says_what_that_is() -> None:
    model = Normed()
    plan = plan_cut(offered(model), channels={"embed": [0, 5], "up": [1]})
    assert list(plan.unproven) == ["embed"]
    assert "not covered by any proof: embed" in str(plan)
    with pytest.raises(CutError, match="removes channels of embed, which are not the same function"):
        cut(model, plan, INPUTS)
    small = apply_plan(model, plan, INPUTS)
    assert small(INPUTS).shape == (3, 4)
    assert small.norm.normalized_shape == (10,)


def test_the_rest_of_such_a_plan_is_proven() -> None:
    model, structure = Normed(), offered(Normed())
    plan = plan_cut(structure, channels={"embed": [0, 5], "up": [1]})
    assert proven_part(structure, plan) == plan_cut(structure, channels={"up": [1]})
    small, error = cut_with_error(model, structure, plan, INPUTS)
    assert small.down.weight.shape == (10, 15)
    assert 0 <= error <= 1e-5
    assert cut_with_error(model, structure, plan_cut(structure, channels={"embed": [0]}), INPUTS)[1] == 0.0


def test_what_is_wrong_with_the_rest_is_noticed() -> None:
    """The hidden channels are read in an order that is not theirs."""
    model, structure = Normed(), offered(Normed())
    group = structure.group("up")
    mixed = tuple(
        replace(member, indices=member.indices[::-1]) if member.role == "in" else member for member in group.members
    )
    wrong = replace(
        structure,
        channels=tuple(replace(one, members=mixed) if one is group else one for one in structure.channels),
    )
    plan = plan_cut(wrong, channels={"embed": [0, 5], "up": [1]})
    with pytest.raises(VerificationError, match="differs from the masked model"):
        cut_with_error(model, wrong, plan, INPUTS)


def test_two_cuts_remember_what_neither_has_proven() -> None:
    structure = offered(Normed())
    first, second = (plan_cut(structure, channels={name: [0]}) for name in ("embed", "up"))
    assert compose(first, second).unproven == first.unproven == compose(second, first).unproven
