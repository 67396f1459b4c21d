"""Targets beside multiply-adds: predicted as they are, met, or refused before anything is trained."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from amsc import Result, Settings, Target, compress, pick, trace
from amsc.errors import TargetError
from amsc.jobs.preparation import removable
from amsc.limits.budget import find_budget
from amsc.limits.latency_model import fit_timing, latency_costs
from amsc.limits.memory_model import memory_costs, weight_costs
from amsc.measurement import peak_memory, time_in_turns, weight_bytes
from amsc.models import open_model
from amsc.structure import Structure, parameter_costs
from amsc.structure.costing import (
    MET,
    costs_after,
    counted_costs,
    predicted_cost,
    predicted_macs,
    predicted_parameters,
    saved_by_channel,
)
from amsc.structure.cutting import after_removal
from amsc.structure.words import removable_words
from amsc.surgery import apply_plan, plan_cut
from training.small import small_data, small_net

DATA = small_data()
INPUTS = DATA.example_inputs(1)
SETTINGS = Settings(
    dense_epochs=2,
    path_epochs=2,
    finetune_epochs=1,
    path_points=4,
    path_learning_rate=0.05,
    depth_rule="share",
    round_to=1,
)


class Mlp(nn.Sequential):
    """A sigmoid whose constants fold into a layer that has no bias yet."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 24), nn.Sigmoid(), nn.Linear(24, 10, bias=False))


def drawn(structure: Structure, seed: int) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    chooser = random.Random(seed)
    blocks = tuple(block.name for block in structure.outer_blocks if seed % 2 and chooser.random() < 0.3)
    left = [group for group in after_removal(structure, {}, blocks).channels if group.exact]
    counts = {group.name: chooser.randint(0, group.size - 1) for group in left}
    return {g.name: chooser.sample(range(g.size), counts[g.name]) for g in left if counts[g.name]}, blocks


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    if name == "mlp":
        return Mlp(), torch.randn(1, 64)
    if name == "small":
        return small_net(), INPUTS
    return open_model(name), torch.randn(2, 3, 32, 32)


@pytest.mark.parametrize("name", ["small", "mlp", "resnet20", "densenet40", "vgg16"])
def test_parameters_bytes_and_memory_of_any_cut_are_predicted(name: str) -> None:
    model, inputs = network(name)
    model.eval()
    structure = trace(model, inputs)
    moments = memory_costs(model, structure, inputs)
    assert max(costs_after(structure, moment) for moment in moments) == pytest.approx(peak_memory(model, inputs))
    for seed in range(4):
        channels, blocks = drawn(structure, seed)
        small = apply_plan(model, plan_cut(structure, channels=channels, blocks=blocks), inputs)
        held = costs_after(structure, parameter_costs(structure), channels, blocks)
        assert held == sum(p.numel() for p in small.parameters())
        assert costs_after(structure, weight_costs(model, structure), channels, blocks) == weight_bytes(small)
        peak = max(costs_after(structure, costs, channels, blocks) for costs in moments)
        assert peak_memory(small, inputs) <= peak * 1.001 <= 1.1 * peak_memory(small, inputs), (channels, blocks)
        if not blocks:
            assert peak == peak_memory(small, inputs)


def test_the_cost_is_the_largest_share_of_a_limit_and_follows_a_cut() -> None:
    model = small_net()
    structure = find_budget(model, trace(model, INPUTS), INPUTS, Target(macs=0.5, params=0.7), SETTINGS).structure
    assert {limit.unit for limit in structure.limits} == {"macs", "params"}
    channels, blocks = drawn(structure, 3)
    macs = predicted_macs(structure, channels, blocks) / int(0.5 * predicted_macs(structure))
    held = predicted_parameters(structure, channels, blocks) / int(0.7 * predicted_parameters(structure))
    assert predicted_cost(structure, channels, blocks) == pytest.approx(MET * max(macs, held), abs=2)
    assert predicted_cost(after_removal(structure, channels, blocks)) == predicted_cost(structure, channels, blocks)


@pytest.mark.parametrize("unit", ["params", "bytes", "memory", "latency"])
def test_what_a_group_saves_is_what_the_cost_falls_by(unit: str) -> None:
    model = open_model("resnet20").eval()
    inputs = torch.randn(1, 3, 32, 32)
    structure = find_budget(model, trace(model, inputs), inputs, Target(**{unit: 0.9}), SETTINGS).structure
    counted = counted_costs(structure)
    before = costs_after(structure, counted)
    for group in [group for group in structure.channels if group.exact][:6]:
        saved = saved_by_channel(structure, group.name, counted)
        assert saved == pytest.approx(before - costs_after(structure, counted, {group.name: [0]}), rel=1e-6, abs=1e-3)
    assert any(saved_by_channel(structure, group.name, counted) > 0 for group in structure.channels)


def run(target: Target, **options: Any) -> Result:
    return compress(small_net(), INPUTS, DATA, target=target, settings=SETTINGS, **options)


@pytest.mark.parametrize(
    "target",
    [
        Target(params=0.5),
        Target(params="1.2k"),
        Target(bytes=0.6),
        Target(memory=0.8),
        Target(macs=0.6, params=0.5),
        Target(macs="60k", bytes=0.9),
    ],
)
def test_a_target_is_met_and_hardly_undercut(target: Target) -> None:
    record = run(target).record
    before, after = record.before, record.after
    dense = {
        "macs": before.macs,
        "params": before.parameters,
        "bytes": before.bytes,
        "memory": before.peak_memory_bytes,
    }
    left = {"macs": after.macs, "params": after.parameters, "bytes": after.bytes, "memory": after.peak_memory_bytes}
    used = [left[cost] / amount.of(dense[cost]) for cost, amount in target.limits.items()]
    assert 0.9 < max(used) <= 1  # channels of so small a network are large steps


def test_latency_is_modelled_from_networks_that_were_timed() -> None:
    model = open_model("resnet20").eval()
    inputs = torch.randn(4, 3, 32, 32)
    structure = trace(model, inputs)
    timing = fit_timing(model, structure, inputs, seed=0)
    assert timing.error < 0.3
    for seed in (5, 6):
        channels, blocks = drawn(structure, seed)
        small = apply_plan(model, plan_cut(structure, channels=channels, blocks=blocks), inputs)
        (dense, _), (seconds, _) = time_in_turns([model, small], inputs)
        predicted = costs_after(structure, latency_costs(structure, timing), channels, blocks)
        assert 0.5 < (predicted / timing.dense_seconds) / (seconds / dense) < 2  # other work goes on beside the tests


def test_a_latency_target_ends_in_a_faster_network(tmp_path: Path) -> None:
    result = run(Target(latency=0.8), out=tmp_path / "run")
    (dense, _), (small, _) = time_in_turns([small_net(), result.model], INPUTS, rounds=40)
    assert small < dense
    assert result.record.removed_channels or result.record.removed_blocks
    again = pick(tmp_path / "run", small_net(), INPUTS, DATA, target=Target(params=0.9), settings=SETTINGS)
    assert again.record.after.parameters <= 0.9 * again.record.before.parameters


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (
            Target(params=0.01),
            "params=0.01 cannot be reached.*parameters are left; the lowest reachable target is params=",
        ),
        (Target(params="0.01k"), "params=10 cannot be reached"),
        (Target(bytes="100B"), "bytes=100 cannot be reached"),
        (Target(memory=0.05), "memory=0.05 cannot be reached.*bytes of peak memory are left"),
        (Target(latency="1us"), r"latency=1e-06 s cannot be reached.*seconds of latency are left"),
        (Target(macs=0.5, params=0.01), "params=0.01 cannot be reached"),
        (Target(params="10M"), r"the dense network costs no more than that: \d+ parameters"),
    ],
)
def test_what_cannot_be_reached_is_refused_before_training(target: Target, words: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=words):
        run(target, out=tmp_path / "run", progress=Silent())
    assert not list((tmp_path / "run").rglob("*.*"))


@pytest.mark.parametrize("choices", [{}, {"streams": True, "path_epochs": 0}, {"keep": ("layer1.0",)}])
def test_a_refusal_counts_as_amsc_inspect_does(choices: dict[str, Any]) -> None:
    settings = Settings(**choices)
    structure = removable(small_net(), INPUTS, settings)
    with pytest.raises(TargetError) as caught:
        find_budget(small_net(), structure, INPUTS, Target(params=0.0001), settings)
    shown = removable_words(structure, settings.rounding(structure).fewest).partition(";")[0]
    counts = shown if settings.streams else shown.partition(", 7 of residual streams")[0]
    assert f"({counts})" in str(caught.value)
    assert (shown == counts) == (settings.streams or bool(settings.keep))


class OneStream(nn.Module):
    """Only the channels of its stream could go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv, self.last, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        return self.head((x + self.last(self.conv(x))).relu().mean((2, 3)))


def test_a_stream_that_could_lose_channels_is_named_where_nothing_else_can() -> None:
    with pytest.raises(TargetError, match="residual streams can lose channels with method"):
        compress(OneStream(), INPUTS, DATA, target=Target(macs=0.6), settings=SETTINGS)
    settings = Settings(method="gates", streams=True, path_epochs=0.5, path_points=2, finetune_epochs=0.5)
    record = compress(OneStream(), INPUTS, DATA, target=Target(macs=0.6), settings=settings).record
    assert record.after.macs <= 0.6 * record.before.macs
    assert record.removed_channels


class Silent:
    """Nothing may be trained."""

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        assert phase == "prepare", f"{phase} {step} of {steps}"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drop") / "run"
    run(Target(drop=0.15), out=folder)
    return folder


def test_the_smallest_network_within_a_drop_is_found(kept: Path) -> None:
    record = compress(
        small_net(), INPUTS, DATA, target=Target(drop=0.15), settings=SETTINGS, out=kept, resume=True
    ).record
    dense, tried = record.path[0], [point for point in record.path if point.phase == "finetune"]
    assert dense.score - record.path[-1].score <= 0.15
    assert record.path[-1].removed_channels == record.removed_channels
    smaller = [point for point in tried if point.macs < record.after.macs]
    assert all(dense.score - point.score > 0.15 for point in smaller)
    walked = [point for point in record.path[1:] if point.phase != "finetune"]
    assert len(tried) <= 2 + len(walked).bit_length()
    assert record.after.macs == record.path[-1].macs < record.before.macs


def test_another_drop_is_picked_from_the_same_path_and_resumed(kept: Path, tmp_path: Path) -> None:
    heard = Costs()
    whole = pick(kept, small_net(), INPUTS, DATA, target=Target(drop=0.5), settings=SETTINGS, progress=heard)
    record = whole.record
    tried = [point.macs / record.before.macs for point in record.path if point.phase == "finetune"]
    assert sorted(heard.costs) == pytest.approx(sorted(tried)), "each network that is fine-tuned is named"
    options: dict[str, Any] = {"target": Target(drop=0.5), "settings": SETTINGS, "out": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        pick(kept, small_net(), INPUTS, DATA, progress=StopIn(2), **options)
    resumed = compress(small_net(), INPUTS, DATA, resume=True, **options)
    assert resumed.record.removed_channels == whole.record.removed_channels
    assert [point.score for point in resumed.record.path] == [point.score for point in whole.record.path]
    assert whole.record.after.macs <= 0.5 * whole.record.before.macs


class Costs:
    """The costs of the networks that are fine-tuned."""

    def __init__(self) -> None:
        self.costs: set[float] = set()

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        self.costs |= {values["cost"]} if phase == "finetune" else set()


class StopIn:
    """Ctrl-C at the given call."""

    def __init__(self, call: int) -> None:
        self.call = call

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        self.call -= 1
        if not self.call:
            raise KeyboardInterrupt


def test_a_drop_that_no_network_keeps_to_is_said_and_the_path_is_kept(tmp_path: Path) -> None:
    settings = Settings(dense_epochs=6, path_epochs=1, path_points=2, finetune_epochs=0)
    words = r"drop=0 cannot be kept to: of \d networks that were fine-tuned the best falls short .* points of accuracy"
    with pytest.raises(TargetError, match=words):
        compress(small_net(), INPUTS, DATA, target=Target(drop=0.0), settings=settings, out=tmp_path / "run")
    assert (tmp_path / "run" / "path.jsonl").read_text().count("\n") >= 3


def test_a_drop_and_a_limit_are_both_kept() -> None:
    record = run(Target(macs=0.7, drop=0.4)).record
    assert record.after.macs <= 0.7 * record.before.macs
    assert record.path[0].score - record.path[-1].score <= 0.4
