"""The path: it meets its budget, cuts only zeros before its end, and goes on identically from every state."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from amsc.errors import TargetError
from amsc.models.resnet_cifar import BasicBlock
from amsc.penalty import Penalty, empty_
from amsc.records import PathPoint
from amsc.structure import Rounding, Structure
from amsc.structure.costing import predicted_cost, predicted_macs, predicted_parameters
from amsc.structure.cutting import after_removal
from amsc.surgery import plan_cut
from amsc.training import (
    Batches,
    Evaluation,
    OptimizerChoice,
    ProximalStep,
    Removal,
    Shrunk,
    Snapshot,
    Speed,
    Stretch,
    Trail,
    WalkSettings,
    WalkState,
    load_state,
    num_channels,
    save_state,
    train_steps,
    walk,
    walk_state_from_plain,
    walk_state_to_plain,
)
from amsc.training.path.piece import Piece, Position
from amsc.training.path.strength import CostPlan, StrengthControl
from amsc.training.removal.to_cost import fewest_channels
from training.small import TASK, same_tensors, shrink, small_data

DATA = small_data()
SETTINGS = WalkSettings(epochs=4, points=4, optimizer=OptimizerChoice(0.05), depth_rule="share")
Step = tuple[PathPoint, Snapshot, WalkState]


def _walk(dense: nn.Module, structure: Structure, macs: float = 0.5, **options: Any) -> Iterator[Step]:
    settings = options.pop("settings", SETTINGS)
    cut = options.pop("shrink", shrink)
    target = int(macs * predicted_macs(structure))
    return walk(dense, structure, DATA, TASK, shrink=cut, target_cost=target, settings=settings, **options)


@pytest.fixture(scope="module")
def steps(dense: nn.Module, structure: Structure) -> list[Step]:
    return list(_walk(dense, structure))


@pytest.mark.parametrize("macs", [0.55, 0.75, 0.95])
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_it_ends_at_the_target_or_at_most_one_percent_below(
    dense: nn.Module, structure: Structure, macs: float, share: float
) -> None:
    *_, (last, _, state) = _walk(dense, structure, macs, settings=replace(SETTINGS, epochs=1, depth_share=share))
    target = int(macs * predicted_macs(structure))
    assert 0.99 * target <= last.macs <= target
    assert state.phase == "done"


def test_depth_comes_first_and_both_are_removed(structure: Structure, steps: list[Step]) -> None:
    phases = [point.phase for point, _, _ in steps]
    assert phases == ["depth", "depth", "width", "width"]
    last = steps[-1][0]
    assert last.removed_blocks
    assert last.removed_channels
    assert last.blocks_left == len(structure.blocks) - len(last.removed_blocks)
    assert last.channels_left < num_channels(after_removal(structure, {}, last.removed_blocks))


def test_points_say_what_their_network_costs_and_where_training_stands(structure: Structure, steps: list[Step]) -> None:
    for number, (point, snapshot, _) in enumerate(steps):
        assert point.macs == predicted_macs(structure, point.removed_channels, point.removed_blocks)
        assert point.parameters == predicted_parameters(structure, point.removed_channels, point.removed_blocks)
        assert Removal(point.removed_blocks, point.removed_channels) == snapshot.removal
        assert point.index == number
    assert [point.epochs for point, _, _ in steps] == pytest.approx([1, 2, 3, 4], abs=0.1)


def test_the_dense_network_is_not_changed(dense: nn.Module, structure: Structure) -> None:
    before = copy.deepcopy(dense.state_dict())
    list(_walk(dense, structure, settings=replace(SETTINGS, epochs=0.5)))
    assert same_tensors(before, dense.state_dict())


def test_cuts_change_nothing_but_the_last_one(dense: nn.Module, structure: Structure) -> None:
    """Before the end, what is cut is zero: the network computes the same before and after."""
    differences: list[float] = []

    def watched(model: nn.Module, structure: Structure, removal: Removal) -> Shrunk:
        shrunk = shrink(model, structure, removal)
        if model is not dense:
            inputs = DATA.example_inputs(16)
            outputs = [net.eval()(inputs).detach() for net in (model, shrunk.model)]
            differences.append(float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max()))
        return shrunk

    list(_walk(dense, structure, shrink=watched))
    assert len(differences) == 4
    # a group may flicker in a tenth of the settling steps; here there are few of them
    assert all(difference < 1e-5 for difference in differences[:-1])


def test_the_removed_indices_are_those_of_the_dense_network(
    dense: nn.Module, structure: Structure, steps: list[Step]
) -> None:
    """Filters that many small cuts left are still like the dense network's filters of the same numbers."""
    _, snapshot, _ = steps[-1]
    live = Trail(dense, structure, DATA, TASK, shrink, SETTINGS).rebuild(snapshot)
    plan = plan_cut(structure, channels=snapshot.removal.channels, blocks=snapshot.removal.blocks)
    for name, weight in live.model.named_parameters():
        if name.endswith("conv1.weight") and weight.ndim == 4 and weight.shape[0] > 1:
            cut = {c.axis: list(c.kept) for c in plan.cuts if c.parameter == name}
            kept = dense.get_parameter(name).detach()[cut.get(0, slice(None))][:, cut.get(1, slice(None))]
            own = torch.nn.functional.cosine_similarity(weight.detach().flatten(1), kept.flatten(1))
            assert float(own.mean()) > 0.8, name


def test_it_goes_on_identically_from_every_state(
    dense: nn.Module, structure: Structure, steps: list[Step], tmp_path: Path
) -> None:
    for number, (_, _, state) in enumerate(steps):
        save_state(tmp_path / "state.pt", walk_state_to_plain(state))
        loaded = walk_state_from_plain(load_state(tmp_path / "state.pt"))
        torch.rand(number + 1)  # the caller's random state does not matter
        rest = list(_walk(dense, structure, state=loaded))
        assert [point for point, _, _ in rest] == [point for point, _, _ in steps[number + 1 :]]
        if rest:
            assert same_tensors(rest[-1][1].weights, steps[-1][1].weights)
            assert rest[-1][2].error == steps[-1][2].error


def test_momentum_goes_on_over_a_cut(dense: nn.Module, structure: Structure, steps: list[Step]) -> None:
    _, snapshot, state = steps[-2]
    shapes = {name: tensor.shape for name, tensor in snapshot.moments["momentum_buffer"].items()}
    assert shapes == {name: snapshot.weights[name].shape for name in shapes}
    live = Trail(dense, structure, DATA, TASK, shrink, SETTINGS).rebuild(snapshot)
    assert len(shapes) == len(list(live.model.parameters()))
    at_rest = replace(state, snapshot=replace(snapshot, moments={}))
    *_, (_, last, _) = _walk(dense, structure, state=at_rest)
    assert not same_tensors(last.weights, steps[-1][1].weights)


def test_without_a_share_for_depth_only_channels_go(dense: nn.Module, structure: Structure) -> None:
    points = [point for point, _, _ in _walk(dense, structure, settings=replace(SETTINGS, epochs=1, depth_share=0.0))]
    assert {point.phase for point in points} == {"width"}
    assert points[-1].removed_blocks == ()


def test_no_epochs_make_one_cut_without_training(dense: nn.Module, structure: Structure) -> None:
    ((point, _, state),) = _walk(dense, structure, settings=replace(SETTINGS, epochs=0))
    assert state.phase == "done"
    assert 0.99 <= point.macs / int(0.5 * predicted_macs(structure)) <= 1


def test_fewer_steps_than_points_make_fewer_points(dense: nn.Module, structure: Structure) -> None:
    epochs = 3 / DATA.num_batches("train")
    points = [point for point, _, _ in _walk(dense, structure, settings=replace(SETTINGS, epochs=epochs, points=9))]
    assert len(points) <= 3
    assert points[-1].macs <= int(0.5 * predicted_macs(structure))


def test_blocks_go_where_channels_alone_cannot_reach_the_target(dense: nn.Module, structure: Structure) -> None:
    every = {group.name: range(1, group.size) for group in structure.channels if group.kind != "stream"}
    beyond = (predicted_macs(structure, every) - 1) / predicted_macs(structure)
    *_, (last, _, _) = _walk(dense, structure, beyond, settings=replace(SETTINGS, epochs=1, depth_share=0.0))
    assert last.removed_blocks
    assert last.macs <= int(beyond * predicted_macs(structure))


def test_the_depth_rule_goes_back_to_the_smallest_depth_that_is_not_worse(
    dense: nn.Module, structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(model: nn.Module, *_: Any, **__: Any) -> Evaluation:
        """One block may go, a second one is missed."""
        right = 100 if sum(isinstance(module, BasicBlock) for module in model.modules()) >= 5 else 60
        return Evaluation(torch.tensor([1.0] * right + [0.0] * (100 - right)), right / 100)

    monkeypatch.setattr(import_module("amsc.training.path.walk"), "evaluate", judged)
    settings = replace(SETTINGS, points=8, depth_share=0.7, depth_rule="one-standard-error")
    steps = list(_walk(dense, structure, settings=settings))
    depth = [step for step in steps if step[0].phase == "depth"]
    assert depth[-1][0].blocks_left < 3, "the path has gone too far"
    assert all(point.blocks_left >= 3 for point, _, _ in depth[:-1]), "and stops at once"
    assert len(steps) == 8, "its steps go to the width phase"
    start = depth[-1][2].snapshot
    assert len(start.removal.blocks) == 1, "which starts from the point before"
    assert any(start is snapshot for _, snapshot, _ in depth)
    assert steps[-1][0].blocks_left == 3


def test_by_share_depth_takes_its_share_whatever_the_scores(
    dense: nn.Module, structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter(range(100, 0, -5))
    fallen = lambda *_, **__: Evaluation(torch.tensor([1.0, 0.0]).repeat(10), next(scores) / 100)  # noqa: E731
    monkeypatch.setattr(import_module("amsc.training.path.walk"), "evaluate", fallen)
    steps = list(_walk(dense, structure, settings=replace(SETTINGS, points=8, depth_share=0.7)))
    assert len(steps[-1][0].removed_blocks) >= 2


def test_multiples_are_kept_all_along_the_path(dense: nn.Module, structure: Structure) -> None:
    settings = replace(SETTINGS, rounding=Rounding(4, 8), epochs=2)
    points = [point for point, _, _ in _walk(dense, structure, 0.6, settings=settings)]
    assert points[-1].macs <= int(0.6 * predicted_macs(structure))
    assert any(point.removed_channels for point in points)
    for point in points:
        for name, gone in point.removed_channels.items():
            left = structure.group(name).size - len(gone)
            assert left % 4 == 0
            assert left >= 8


def test_a_target_below_the_multiples_is_refused(dense: nn.Module, structure: Structure) -> None:
    settings = replace(SETTINGS, rounding=Rounding(32), epochs=0)
    with pytest.raises(TargetError, match="in the multiples and numbers asked for"):
        list(_walk(dense, structure, 0.1, settings=settings))


@pytest.mark.parametrize("method", ["proximal", "gates"])
def test_adamw_meets_the_target_and_goes_on_identically(dense: nn.Module, structure: Structure, method: str) -> None:
    settings = replace(SETTINGS, optimizer=OptimizerChoice(0.003, "adamw"), method=method)
    found = list(_walk(dense, structure, settings=settings))
    assert 0.495 <= found[-1][0].macs / predicted_macs(structure) <= 0.5
    assert {"exp_avg", "exp_avg_sq", "step"} == found[1][1].moments.keys()
    saved = walk_state_from_plain(walk_state_to_plain(found[1][2]))
    again = list(_walk(dense, structure, settings=settings, state=saved))
    assert [point for point, _, _ in again] == [point for point, _, _ in found[2:]]
    assert same_tensors(again[-1][1].weights, found[-1][1].weights)


@pytest.mark.parametrize("theta_hat", ["group-lasso", "refreshed"])
def test_another_theta_hat_leads_to_another_network_and_goes_on_identically(
    dense: nn.Module, structure: Structure, theta_hat: str
) -> None:
    settings = replace(SETTINGS, weights="amsc", theta_hat=theta_hat)
    found = list(_walk(dense, structure, settings=settings))
    assert 0.495 <= found[-1][0].macs / predicted_macs(structure) <= 0.5
    plain = list(_walk(dense, structure, settings=replace(settings, theta_hat="dense")))
    assert found[-1][0].removed_channels != plain[-1][0].removed_channels
    snapshot = found[1][1]
    if theta_hat == "group-lasso":
        assert {name: t.shape for name, t in snapshot.theta_hat.items()} == {
            name: t.shape for name, t in snapshot.weights.items()
        }
        assert not same_tensors(snapshot.theta_hat, snapshot.weights)
    saved = walk_state_from_plain(walk_state_to_plain(found[1][2]))
    again = list(_walk(dense, structure, settings=settings, state=saved))
    assert [point for point, _, _ in again] == [point for point, _, _ in found[2:]]


@pytest.mark.parametrize("speed", [Speed("bfloat16"), Speed(channels_last=True), Speed("bfloat16", channels_last=True)])
def test_a_faster_way_to_compute_keeps_to_the_plan_and_goes_on_identically(
    dense: nn.Module, structure: Structure, speed: Speed
) -> None:
    settings = replace(SETTINGS, speed=speed)
    found = list(_walk(dense, structure, settings=settings))
    assert 0.495 <= found[-1][0].macs / predicted_macs(structure) <= 0.5
    assert all(tensor.dtype != torch.bfloat16 for tensor in found[-1][1].weights.values())
    saved = walk_state_from_plain(walk_state_to_plain(found[1][2]))
    again = list(_walk(dense, structure, settings=settings, state=saved))
    assert [point.removed_channels for point, _, _ in again] == [point.removed_channels for point, _, _ in found[2:]]


def test_training_computes_as_the_speed_says(dense: nn.Module) -> None:
    net, seen = copy.deepcopy(dense), []
    hook = net.conv1.register_forward_hook(lambda module, args, output: seen.append(output))
    batches = Batches(DATA, 0, "dense").take(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    train_steps(net, optimizer, batches, TASK, Stretch("dense", 0, 1), speed=Speed("bfloat16", channels_last=True))
    hook.remove()
    assert seen[0].dtype == torch.bfloat16
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert net.conv1.weight.dtype == torch.float32


def test_where_no_block_is_left_there_is_no_depth_to_hold(dense: nn.Module, structure: Structure) -> None:
    without = replace(structure, blocks=())
    optimizer = ProximalStep(torch.optim.SGD(dense.parameters(), lr=0.05), Penalty(without, dense))
    plan = CostPlan(predicted_cost(structure), predicted_cost(structure) // 2, 20)
    piece = Piece("width", dense, without, optimizer, Position(plan, 0, 20), StrengthControl(), held=1.0)
    piece.before(10)  # behind its plan by far
    assert optimizer.depth_strength == 0
    assert optimizer.width_strength > 0


def test_blocks_in_the_way_of_the_target_go_before_channels_do(dense: nn.Module, structure: Structure) -> None:
    """With every block, the fewest channels of all cost more than the target."""
    penalty = Penalty(structure, dense)
    few = fewest_channels(structure, penalty.channels)
    target = (predicted_macs(structure, few) - 1) / predicted_macs(structure)
    for method in ("proximal", "gates"):
        settings = replace(SETTINGS, depth_share=0.0, method=method)
        steps = list(_walk(dense, structure, target, settings=settings))
        assert all(point.removed_blocks for point, _, _ in steps), "from the first piece on"
        assert [point.macs for point, _, _ in steps][-1] <= target * predicted_macs(structure)
        assert steps[-1][2].error <= 1e-5


def test_the_unit_of_a_pieces_weights_does_not_matter(
    dense: nn.Module, structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece measures its weights anew: a strength is a number of its own piece."""
    settings = replace(SETTINGS, weights="fisher", depth_share=0.0, epochs=2, points=2)
    (_, _, state), (whole, end, _) = _walk(dense, structure, settings=settings)
    assert state.control.strength > 0
    module = import_module("amsc.penalty.penalty")
    measured = module.sensitivity_weights
    monkeypatch.setattr(module, "sensitivity_weights", lambda *args: measured(*args) / 256)
    ((again, other, _),) = _walk(dense, structure, settings=settings, state=state)
    assert again.removed_channels == whole.removed_channels
    assert again.strength == pytest.approx(256 * whole.strength)
    assert same_tensors(other.weights, end.weights)


def test_what_is_left_recovers_while_a_depth_piece_settles(dense: nn.Module, structure: Structure) -> None:
    net = copy.deepcopy(dense)
    penalty = Penalty(structure, net)
    optimizer = ProximalStep(torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9), penalty)
    position = Position(CostPlan(predicted_cost(structure), predicted_cost(structure) // 2, 15), 0, 20)
    piece = Piece("depth", net, structure, optimizer, position, StrengthControl())
    piece.before(0)
    assert optimizer.depth_strength > 0
    empty = torch.arange(len(penalty.blocks)) == 0
    empty_(penalty, empty)
    batches = Batches(DATA, 0, "path").take(position.steps - position.active)
    norms = penalty.block_norms()
    hooks = {"before": lambda step: piece.before(position.active + step), "after": lambda step: piece.after(15 + step)}
    train_steps(net, optimizer, batches, TASK, Stretch("path", 0, 5), **hooks)
    assert optimizer.depth_strength == optimizer.width_strength == 0
    assert torch.equal(penalty.zero_blocks(), empty)
    assert torch.equal(piece.settled()[0], empty)
    assert bool((penalty.block_norms() > 0.9 * norms)[~empty].all())


@pytest.mark.parametrize("method", ["proximal", "gates"])
def test_where_nothing_is_left_to_remove_the_network_is_trained(
    dense: nn.Module, structure: Structure, method: str
) -> None:
    """The target takes every block, and there are no channels to remove."""
    blocks_alone = replace(structure, channels=tuple(g for g in structure.channels if g.kind == "stream"))
    bare = predicted_macs(structure, {}, tuple(block.name for block in structure.outer_blocks)) / predicted_macs(
        structure
    )
    settings = replace(SETTINGS, depth_share=0.0, method=method)
    ((point, snapshot, state),) = _walk(dense, blocks_alone, 1.05 * bare, settings=settings)
    assert point.blocks_left == 0
    assert point.macs <= 1.05 * bare * predicted_macs(structure)
    assert state.phase == "done"
    assert not torch.equal(snapshot.weights["conv1.weight"], dense.get_parameter("conv1.weight"))


def test_progress_counts_the_channels_that_the_points_count(dense: nn.Module, structure: Structure) -> None:
    counts: list[float] = []

    class Listener:
        def update(self, phase: str, step: int, steps: int, **values: float) -> None:
            counts.append(values["channels"])

    settings = replace(SETTINGS, epochs=0.2, points=1, depth_share=0.0)
    ((point, _, _),) = _walk(dense, structure, 0.9, settings=settings, progress=Listener())
    assert any(group.kind == "stream" and group.exact for group in structure.channels)
    assert point.channels_left <= counts[-1] <= num_channels(structure)
