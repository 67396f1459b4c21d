"""Latency in a runtime: how it is said, and a network that is cut until it is fast enough there."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from amsc import Settings, Target
from amsc.errors import TargetError
from amsc.limits.clock import CLOCKS
from amsc.limits.target import format_target, parse_target
from small_runs import run_small
from training.small import small_net

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    ("text", "number", "is_share"), [("60%", 0.6, True), ("0.6", 0.6, True), ("5ms", 0.005, False)]
)
def test_a_runtime_is_said_behind_the_amount(text: str, number: float, is_share: bool) -> None:
    target = parse_target(f"latency={text}@onnxruntime")
    amount = target.limits["latency"]
    assert (amount.number, amount.is_share, target.runtime) == (pytest.approx(number), is_share, "onnxruntime")
    assert parse_target(format_target(target)) == target
    assert Target(latency=0.6).runtime == "torch"


@pytest.mark.parametrize("text", ["macs=50%@onnxruntime", "latency=50%@onnxruntim", "latency=50%@"])
def test_other_runtimes_are_refused(text: str) -> None:
    with pytest.raises(TargetError, match="expected a latency in a runtime, such as latency=60%@onnxruntime; got"):
        parse_target(text)


def test_networks_are_timed_in_turns_there() -> None:
    class Slow(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(8):
                x = self.layer(x.repeat(1, self.layer.in_features // x.shape[1]))
            return x

    models = [Slow(1024), Slow(16)]
    (slow, slow_spread), (fast, _) = CLOCKS["onnxruntime"](models, torch.randn(1, 16), rounds=10)
    assert slow > 3 * fast > 0
    assert slow_spread >= 0
    assert all(model.training for model in models), "they come back as they were"


def test_a_network_is_cut_until_it_is_fast_enough_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that counts parameters in the place of one that counts time, which spreads."""
    seen: list[int] = []

    def clock(models: Any, example_inputs: Any, *, rounds: int = 20) -> list[tuple[float, float]]:
        sizes = [sum(p.numel() for p in model.parameters()) for model in models]
        seen.append(len(sizes))
        return [(1e-6 * size, 0.0) for size in sizes]

    monkeypatch.setattr("amsc.limits.target.CLOCKS", {**CLOCKS, "onnxruntime": clock})
    settings = replace(Settings.of("instant", path_points=1, reconstruction=32), round_to=1)
    result = run_small(model=small_net(), target=Target(latency="60%@onnxruntime"), settings=settings)
    before, after = result.record.before, result.record.after
    assert after.parameters <= 0.6 * before.parameters
    assert (before.runtime, after.runtime) == ("onnxruntime", "onnxruntime")
    assert after.latency_seconds == pytest.approx(1e-6 * after.parameters)
    assert "latency (onnxruntime)" in str(result)
    assert max(seen) > 10, "its model was fitted in that runtime"
