"""A fault of amsc's own, on arguments nobody thought of: the run goes on, what it concerns stays, and amsc says so."""

import sys
from typing import Any, NoReturn

import pytest
import torch
from torch import nn

from amsc.structure import trace
from amsc.structure.blocks import assumptions
from amsc.structure.operators.table import rule_for
from amsc.surgery import cut, plan_cut
from blocks_nets import Residual


def fault(*args: Any, **kwargs: Any) -> NoReturn:
    raise IndexError("nobody thought of this")


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.ReLU(),
        Residual(nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 8))),
        nn.Linear(8, 4),
        nn.Tanh(),
        nn.Linear(4, 2),
    )


def test_a_fault_in_a_rule_pins_what_it_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys.modules["amsc.structure.watching"],
        "rule_for",
        lambda func: fault if "tanh" in str(func) else rule_for(func),
    )
    with pytest.warns(UserWarning, match=r"aten\.tanh.*IndexError: nobody thought of this.*is left as it is"):
        structure = trace(network(), torch.randn(3, 6))
    members = {(member.parameter, member.axis) for group in structure.channels for member in group.members}
    assert ("0.weight", 0) in members
    assert ("3.weight", 0) not in members
    assert any("tanh" in pin.reason and "IndexError" in pin.reason for pin in structure.pins)


def test_a_fault_in_the_search_for_blocks_leaves_the_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trace(network(), torch.randn(3, 6)).blocks
    monkeypatch.setattr(assumptions, "derived", fault)
    model, inputs = network(), torch.randn(3, 6)
    with pytest.warns(UserWarning, match=r"no blocks are offered.*IndexError: nobody thought of this") as told:
        structure = trace(model, inputs)
    assert len(told) == 1
    assert structure.blocks == ()
    small = cut(model, plan_cut(structure, channels={structure.channels[0].name: [0]}), inputs)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
