"""What is printed of a structure, a plan, a target and the outcome of a run: as many lines as a person wants."""

import json
from typing import Any

import pytest
import torch
from torch import nn

import amsc
from amsc.errors import AmscError
from amsc.models import open_model
from amsc.records import Record, from_json, to_json
from amsc.structure import Block, ChannelGroup
from amsc.structure.words import block_words
from amsc.surgery import CutPlan
from report.fixed import fixed_record
from words.test_page import read

INPUTS, ROWS, RECORD = torch.randn(1, 3, 32, 32), torch.randn(4, 5), fixed_record()


@pytest.fixture(scope="module")
def structure() -> amsc.Structure:
    return amsc.trace(open_model("resnet20"), INPUTS)


@pytest.fixture(scope="module")
def plan(structure: amsc.Structure) -> CutPlan:
    channels = {group.name: range(0, group.size - 1, 2) for group in structure.channels if group.exact}
    return amsc.plan_cut(structure, channels=channels, blocks=["layer1.1"])


def small_lines(value: Any, most: int) -> list[str]:
    """The lines of `print`, once it is known that all forms of the value are short, and its HTML in order."""
    lines = str(value).splitlines()
    assert len(lines) <= most
    assert max(map(len, lines)) < 200
    assert "\n" not in repr(value)
    assert len(repr(value)) < 200
    assert lines[0] in read(value._repr_html_()).cells
    return lines


def test_a_structure_prints_what_a_person_wants(structure: amsc.Structure) -> None:
    lines = small_lines(structure, 30)
    assert len(lines) >= 10
    assert lines[0] == "Structure: 269.7 K parameters, 40.55 M MACs"
    assert "7 blocks, 327 of 336 channels in 9 of 10 groups, 15 of residual streams" in lines[1]
    (filters,) = (line.split() for line in lines if line.startswith("  filter"))
    assert filters == ["filter", "9", "9", "336", "97.2%", "95.2%"]
    (blocks,) = (line for line in lines if "layer1.0-2 (3 alike)" in line)
    assert "4.719 M  11.6%" in blocks
    (pins,) = (line for line in lines if "it is an output of the model" in line)
    assert "linear.weight[0], linear.bias[0]" in pins
    assert "structure.explain(NAME)" in lines[-1]
    assert repr(structure).startswith("Structure(269.7 K parameters, 40.55 M MACs; 9 removable groups of 336 channels")


def test_the_share_that_can_go_is_what_a_cut_takes(structure: amsc.Structure) -> None:
    model = open_model("resnet20")
    channels = {group.name: range(group.size - 1) for group in structure.channels if group.kind == "filter"}
    small = amsc.cut(model, amsc.plan_cut(structure, channels=channels))
    dense, left = (sum(p.numel() for p in net.parameters()) for net in (model, small))
    assert f"{1 - left / dense:.1%}" == "97.2%"


class Nested(nn.Sequential):
    """Two residual branches, of which each is a block, in one more."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for branch in self:
            x = x + branch(x)
        return x


def test_blocks_are_counted_once_and_those_inside_them_apart() -> None:
    branch = lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 5))  # noqa: E731
    net = nn.Sequential(nn.Linear(5, 5), Nested(branch(), branch()), nn.Linear(5, 2))
    structure = amsc.trace(net, ROWS)
    assert {block.name for block in structure.blocks} == {"1", "1.0", "1.1"}
    assert block_words(structure) == "1 block (2 more inside them)"
    assert repr(structure).endswith("1 removable block (2 more inside them))")
    plain = amsc.trace(nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))), INPUTS)
    assert block_words(plain) == "0 blocks, 1 plain convolution"


def test_structures_of_any_model_print() -> None:
    empty = amsc.trace(nn.Linear(5, 2), ROWS)
    assert "0 blocks, 0 of 0 channels in 0 of 0 groups" in "\n".join(small_lines(empty, 10))
    net = nn.Sequential(nn.Linear(5, 8), nn.Sigmoid(), nn.Linear(8, 2))
    group = amsc.trace(net, ROWS).channels[0]
    assert "a constant when zeroed, which moves into the bias of 2" in "\n".join(small_lines(group, 12))


def test_everything_comes_back_from_json(structure: amsc.Structure, plan: CutPlan) -> None:
    assert from_json(amsc.Structure, structure.to_json()) == structure
    assert from_json(CutPlan, plan.to_json()) == plan
    assert from_json(ChannelGroup, structure.channels[0].to_json()) == structure.channels[0]
    assert from_json(Block, structure.blocks[0].to_json()) == structure.blocks[0]
    assert from_json(Record, RECORD.to_json()) == RECORD
    target = amsc.Target(macs=0.5, latency="5ms")
    assert from_json(amsc.Target, target.to_json()) == target
    assert structure.to_json() == to_json(structure)
    with pytest.raises(AmscError, match=r"expected float or str, got \[1\]"):
        from_json(amsc.Target, '{"macs": [1]}')


def test_groups_and_blocks_print(structure: amsc.Structure) -> None:
    group = small_lines(structure.group("conv1"), 20)
    assert group[0] == "ChannelGroup conv1: 16 channels of kind stream, exact"
    assert any(line.split() == ["linear.weight[1]", "in", "1"] for line in group)
    block = small_lines(structure.block("layer1.1"), 6)
    assert block[0] == "Block layer1.1: kind identity, 4.719 M MACs, 6 parameters"
    assert "nn.Identity" in block[2]
    assert repr(structure.block("layer1.1")) == "Block('layer1.1', kind identity, 6 parameters, 4,718,592 macs)"


def test_a_plan_and_a_target_print(plan: CutPlan) -> None:
    lines = small_lines(plan, 20)
    assert lines[0].startswith("CutPlan: 176 channels of 10 groups and 1 blocks go")
    assert "  blocks: layer1.1" in lines
    assert any(line.split()[:3] == ["conv1", "8", "0,"] for line in lines)
    assert str(amsc.Target(macs=0.5, drop=0.01)) == "macs=0.5, drop=0.01"
    assert repr(amsc.Target(params="100k")) == "Target(params='100k')"


def test_a_record_and_a_result_print(structure: amsc.Structure, plan: CutPlan) -> None:
    lines = small_lines(RECORD, 30)
    assert lines[0] == f"{RECORD.model} on {RECORD.data}, target {RECORD.target}"
    assert sum("MACs" in line for line in lines) == 1
    result = amsc.Result(open_model("resnet20"), RECORD, plan, structure)
    lines = small_lines(result, 32)
    assert "  the small network: 269.7 K parameters, 40.55 M MACs" in lines
    assert repr(result).endswith("269.7 K parameters, 40.55 M MACs left)")
    assert json.loads(result.to_json())["structure"] == json.loads(structure.to_json())
    assert set(json.loads(result.to_json())) == {"record", "plan", "structure"}
