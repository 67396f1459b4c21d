"""Behind frozen normalisations an empty block says nothing on the path, as after the cut."""

import copy
from importlib import import_module

import pytest
import torch
from torch import nn

from amsc.penalty import Penalty, empty_, find_coordinates
from amsc.records import PathPoint
from amsc.structure import Structure, trace
from amsc.structure.costing import predicted_cost
from amsc.training import OptimizerChoice, ProximalStep, Removal, Snapshot, WalkSettings, WalkState, walk
from amsc.training.path.piece import Piece, Position
from amsc.training.path.silence import Silence
from amsc.training.path.strength import CostPlan, StrengthControl
from dense_nets import DenseNet
from random_constructs import FrozenNorm
from training.small import TASK, shrink, small_data, small_net, traced

DATA = small_data()
INPUTS = DATA.example_inputs(4)


def frozen_net() -> nn.Module:
    """Scales, shifts and statistics are buffers, and small: the outputs do not grow from block to block."""
    net = small_net()
    freeze(net)
    return net


def freeze(net: nn.Module) -> None:
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, FrozenNorm(child.num_features))
                module.get_submodule(name).get_buffer("weight").mul_(0.3)


@pytest.fixture(scope="module")
def structure() -> Structure:
    return traced(frozen_net(), DATA)


def emptied(net: nn.Module, structure: Structure, *blocks: str) -> Piece:
    """A depth piece that has just begun to settle, with these blocks at zero."""
    penalty = Penalty(structure, net)
    optimizer = ProximalStep(torch.optim.SGD(net.parameters(), lr=0.01), penalty)
    position = Position(CostPlan(predicted_cost(structure), predicted_cost(structure) // 2, 15), 0, 20)
    piece = Piece("depth", net, structure, optimizer, position, StrengthControl())
    empty_(penalty, torch.tensor([name in blocks for name in penalty.blocks]))
    piece.before(position.active)
    return piece


@torch.no_grad()
def test_the_network_of_the_path_is_the_one_after_the_cut(structure: Structure) -> None:
    net, gone = frozen_net().eval(), ("layer1.1", "layer3.1")
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    piece = emptied(net, structure, *gone)
    on_the_path = net(INPUTS)
    piece.end()
    small = shrink(net, structure, Removal(gone))
    torch.testing.assert_close(small.model(INPUTS), on_the_path)
    assert float((net(INPUTS) - on_the_path).abs().max()) > 0.01 * float(on_the_path.abs().max()), "the shifts are back"
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


@torch.no_grad()
def test_what_others_hold_too_is_left_alone(structure: Structure) -> None:
    net = frozen_net()
    for name in ("weight", "bias"):
        shared = net.get_submodule("layer1.0.bn2").get_buffer(name)
        net.get_submodule("layer1.1.bn2").register_buffer(name, shared)
    before = copy.deepcopy(net.state_dict())
    silence = Silence(net)
    silence.add(["layer1.1"])
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "layer1.1.bn2.bias" not in changed
    assert "layer1.1.bn2.running_mean" in changed
    silence.add(["layer1.0"])
    assert not net.get_submodule("layer1.1.bn2").get_buffer("bias").any()
    silence.end()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_channels_behind_frozen_scales_are_left_to_cuts(structure: Structure) -> None:
    """With all parameters at zero they still give a constant."""
    assert any(group.exact and group.kind == "filter" for group in structure.channels)
    coordinates = find_coordinates(structure)
    held = {name for name, _ in coordinates.channels}
    assert not any(m.parameter in structure.buffers for name in held for m in structure.group(name).members)
    assert len(coordinates.blocks) == len(structure.outer_blocks)


def test_dense_layers_before_frozen_scales_are_left_to_cuts() -> None:
    """The layers that read them hold the shifts, and stay."""
    net = DenseNet("tensor")
    freeze(net)
    structure = trace(net, torch.randn(2, 3, 8, 8))
    assert {str(block.kind) for block in structure.blocks} == {"dense"}
    assert not Penalty(structure, net).blocks


def walked(structure: Structure) -> list[tuple[PathPoint, Snapshot, WalkState]]:
    settings = WalkSettings(epochs=1, points=2, optimizer=OptimizerChoice(0.01), depth_rule="share", depth_share=1.0)
    target = predicted_cost(structure) * 2 // 3
    return list(walk(frozen_net(), structure, DATA, TASK, shrink=shrink, target_cost=target, settings=settings))


def test_a_path_of_such_a_network(structure: Structure) -> None:
    assert walked(structure)[-1][0].removed_blocks


def test_blocks_that_are_empty_and_not_cut_have_their_shifts_again(
    structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("amsc.training.path.walk"), "cut_zeros", lambda *_: Removal())
    closed: list[str] = []
    add = Silence.add
    monkeypatch.setattr(Silence, "add", lambda self, blocks: (closed.extend(blocks), add(self, blocks)))
    point, snapshot, _ = walked(structure)[0]
    assert closed
    assert not point.removed_blocks
    assert all(torch.equal(snapshot.weights[name], buffer) for name, buffer in frozen_net().named_buffers())
