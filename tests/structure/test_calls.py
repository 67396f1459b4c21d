"""Several example calls: what one does not run is named, and all together are one structure that holds for each."""

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import amsc
from amsc.errors import AmscError, InputError, VerificationError
from amsc.structure.costing import predicted_macs
from amsc.surgery import apply_plan, masked, verify

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ALL = amsc.Calls(X, (X, "depth"), {"x": X, "head": "edges"})


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, 6, 3, padding=1), nn.Conv2d(6, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.relu(self.a(x)))


class Heads(nn.Module):
    """One head of three runs in a call; only "edges" runs a block of its own, and adds "shared" the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.own = nn.Conv2d(3, 16, 3, padding=1), Residual(16), Residual(16)
        self.head, self.depth, self.edges = nn.Linear(16, 4), nn.Linear(16, 1), nn.Linear(16, 2)

    def forward(self, x: Tensor, head: str = "head") -> Any:
        x = self.shared(F.relu(self.stem(x)))
        x = self.own(x) if head == "edges" else x
        return {head: getattr(self, head)(F.relu(x).mean((2, 3)))}


def heads() -> Heads:
    torch.manual_seed(0)
    return Heads().eval()


def told(model: nn.Module, inputs: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        amsc.trace(model, inputs)
    return [str(one.message) for one in caught]


def test_what_the_example_does_not_run_is_named() -> None:
    (words,) = told(heads(), X)
    for name in ("depth.weight", "edges.bias", "own.a.weight"):
        assert name in words
    assert "head.weight" not in words
    assert "amsc.Calls(first, second)" in words
    assert told(heads(), ALL) == []


def test_what_only_training_runs_is_not_named() -> None:
    class Auxiliary(Heads):
        def forward(self, x: Tensor, head: str = "head") -> Any:
            out = super().forward(x, head)
            return (out, super().forward(x, "edges"), super().forward(x, "depth")) if self.training else out

    assert told(Auxiliary(), X) == []


def test_nothing_is_named_where_nothing_can_go() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x)

    assert told(Fixed(), torch.randn(2, 3)) == []


def test_all_heads_work_after_a_cut() -> None:
    model = heads()
    structure = amsc.cuttable(model, amsc.trace(model, ALL), ALL)
    stem = next(group for group in structure.channels if group.name == "stem")
    readers = {member.parameter for member in stem.members if member.role == "in"}
    assert {"head.weight", "depth.weight", "edges.weight", "own.a.weight"} <= readers
    assert [block.name for block in structure.blocks] == ["shared", "own"]
    plan = amsc.plan_cut(structure, channels={"stem": range(8)}, blocks=["own"])
    small = amsc.cut(model, plan, ALL)
    assert amsc.cut(model, plan) is not small  # random inputs of all three calls
    reference = masked(model, plan)
    for head in ("head", "depth", "edges"):
        torch.testing.assert_close(small(X, head), reference(X, head))


def test_costs_are_those_of_the_first_call() -> None:
    model = heads()
    edges, head = (predicted_macs(amsc.trace(model, amsc.Calls((X, name), *ALL))) for name in ("edges", "head"))
    assert head == amsc.measure(model, ALL, runs=2).macs == amsc.measure(model, X, runs=2).macs
    assert head < edges == amsc.measure(model, (X, "edges"), runs=2).macs


def test_verification_runs_every_call() -> None:
    model = heads()
    plan = amsc.plan_cut(amsc.trace(model, ALL), channels={"stem": range(4)})
    small = apply_plan(model, plan, ALL)
    with torch.no_grad():
        small.depth.bias += 1
    assert verify(model, small, plan, X, num_random=0) < 1e-5  # that call alone does not tell
    with pytest.raises(VerificationError, match=r"output\['depth'\] on the example inputs of call 2"):
        verify(model, small, plan, ALL)
    with pytest.raises(VerificationError, match=r"output\['depth'\] on random inputs 1 of call 2"):
        verify(model, small, plan)


def test_a_block_must_be_one_in_every_call_that_runs_it() -> None:
    class Twice(Heads):
        def forward(self, x: Tensor, head: str = "head") -> Any:
            x = F.relu(self.stem(x))
            x = self.shared(self.shared(x)) if head == "depth" else self.shared(x)
            return getattr(self, head)(F.relu(x).mean((2, 3)))

    model = Twice()
    calls = amsc.Calls(X, (X, "depth"), (X, "edges"))
    with pytest.warns(UserWarning, match=r"own\.a\.weight"):
        assert [block.name for block in amsc.trace(model, amsc.Calls(X, (X, "edges"))).blocks] == ["shared"]
    with pytest.warns(UserWarning, match=r"own\.a\.weight"):
        assert amsc.trace(model, calls).blocks == ()


def test_a_call_that_fails_is_refused() -> None:
    with pytest.raises(InputError, match="has no attribute 'colour'"):
        amsc.trace(heads(), amsc.Calls(X, (X, "colour")))
    with pytest.raises(AmscError, match="must be a tensor"):
        amsc.trace(heads(), amsc.Calls(X, "depth"))


def test_a_model_without_values_is_traced_by_several_calls() -> None:
    with torch.device("meta"):
        model, x = Heads().eval(), torch.empty(2, 3, 8, 8)
    structure = amsc.trace(model, amsc.Calls(x, (x, "depth"), (x, "edges")))
    assert structure.unused == ()
    assert [group.name for group in structure.channels] == [group.name for group in amsc.trace(heads(), ALL).channels]
