import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc.errors import InputError, VerificationError
from amsc.surgery import AxisCut, CutPlan, apply_plan, cut, plan_cut, verify
from surgery.nets import SmallNet, images, randomized, small_structure


class Wrapped(nn.Module):
    """SmallNet with its output changed by `change`; parameter names are those of SmallNet."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        inner = randomized(SmallNet())
        for name, child in inner.named_children():
            self.add_module(name, child)
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(SmallNet.forward(self, x))  # type: ignore[arg-type]


def stream_plan() -> CutPlan:
    return plan_cut(small_structure(), channels={"stream": [1, 2]})


def shifted(plan: CutPlan, parameter: str, axis: int) -> CutPlan:
    """The plan with the positions of one axis moved by one: right shapes, wrong function."""
    cuts = (
        replace(c, removed=tuple(p + 1 for p in c.removed)) if (c.parameter, c.axis) == (parameter, axis) else c
        for c in plan.cuts
    )
    return replace(plan, cuts=tuple(cuts))


def test_difference_is_returned_and_small() -> None:
    net = randomized(SmallNet())
    plan = stream_plan()
    worst = verify(net, apply_plan(net, plan), plan, images())
    assert 0 <= worst < 1e-5
    assert verify(net.double(), apply_plan(net, plan), plan, images().double()) < 1e-12


@pytest.mark.parametrize("parameter", ["conv2.weight", "body.0.conv1.weight"])
def test_shifted_consumer_is_caught(parameter: str) -> None:
    net = randomized(SmallNet())
    with pytest.raises(VerificationError, match=r"differs .* relative in output on .*stream") as caught:
        cut(net, shifted(stream_plan(), parameter, 1))
    assert "1e-05" in str(caught.value)


def test_shifted_statistic_is_caught() -> None:
    with pytest.raises(VerificationError):
        cut(randomized(SmallNet()), shifted(stream_plan(), "bn1.running_mean", 0))


def test_block_that_was_no_block_is_caught() -> None:
    class Doubling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return 2 * x + self.scale

    net = nn.Sequential(Doubling(), nn.Flatten())
    plan = replace(plan_cut(small_structure()), blocks=("0",), block_parameters=("0.scale",))
    with pytest.raises(VerificationError, match="plan_cut without the one at fault of: 0"):
        cut(net, plan)


def test_train_mode_model_is_compared_in_eval_mode_and_comes_back() -> None:
    net = nn.Sequential(randomized(SmallNet()), nn.Dropout(0.5)).train()
    plan = stream_plan()
    cuts = tuple(replace(c, parameter=f"0.{c.parameter}") for c in plan.cuts)
    small = cut(net, replace(plan, cuts=cuts))
    assert all(module.training for module in (*net.modules(), *small.modules()))


def test_tolerance_can_be_given() -> None:
    net = randomized(SmallNet())
    plan = shifted(stream_plan(), "conv2.weight", 1)
    assert verify(net, apply_plan(net, plan), plan, tolerance=1e6) > 1e-2
    with pytest.raises(VerificationError, match="allowed is -1"):
        verify(net, apply_plan(net, stream_plan()), stream_plan(), tolerance=-1.0)


def test_half_precision_is_compared_loosely() -> None:
    net = randomized(SmallNet()).to(torch.bfloat16)
    plan = stream_plan()
    cut(net, plan, images().to(torch.bfloat16))
    with pytest.raises(VerificationError, match=r"0\.02"):
        cut(net, shifted(plan, "conv2.weight", 1), images().to(torch.bfloat16))


def test_constant_size_in_forward_is_explained() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(64, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(x).view(-1, 64))

    flat = tuple(range(16, 32))
    cuts = [AxisCut("conv.weight", 0, 4, (1,), True), AxisCut("conv.bias", 0, 4, (1,), True)]
    plan = replace(
        plan_cut(small_structure()), channels={"conv": (1,)}, cuts=(*cuts, AxisCut("fc.weight", 1, 64, flat, False))
    )
    with pytest.raises(
        VerificationError,
        match=r"fails on .*RuntimeError.*test_verification.py:\d+: return.*constant.*without the one at fault of: conv",
    ):
        cut(Fixed(), plan)


def test_any_error_of_the_cut_model_is_a_verification_error() -> None:
    class Checking(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            assert self.out_channels == 4, "four it must be"
            return super().forward(x).mean(1)

    cuts = (AxisCut("weight", 0, 4, (1,), True), AxisCut("bias", 0, 4, (1,), True))
    with pytest.raises(VerificationError, match="AssertionError: four it must be"):
        cut(Checking(3, 4, 3), replace(plan_cut(small_structure()), cuts=cuts))


def test_channel_seen_from_outside_is_explained() -> None:
    cuts = (AxisCut("fc.weight", 0, 4, (1,), True), AxisCut("fc.bias", 0, 4, (1,), True))
    with pytest.raises(VerificationError, match=r"output has shape \(2, 4\) before the cut and \(2, 3\) after"):
        cut(randomized(SmallNet()), replace(plan_cut(small_structure()), cuts=cuts))


def test_outputs_may_be_nested() -> None:
    net = Wrapped(lambda y: {"logits": y, "more": [y * 2, None, 3], "best": y.argmax(1)})
    cut(net, stream_plan())
    wrong = Wrapped(lambda y: {"fine": y * 0, "more": [y * 0, y]})
    with pytest.raises(VerificationError, match=r"output\['more'\]\[1\] on"):
        cut(wrong, shifted(stream_plan(), "conv2.weight", 1))


def test_difference_is_relative_to_each_output() -> None:
    """A small output beside a large one is compared on its own scale."""
    net = Wrapped(lambda y: (y * 0 + 1e9, y * 1e-6))
    with pytest.raises(VerificationError, match=r"output\[1\]"):
        cut(net, shifted(stream_plan(), "conv2.weight", 1))


def test_other_structure_of_outputs_is_an_error() -> None:
    net = Wrapped(lambda y: y)
    small: Any = apply_plan(net, stream_plan())
    small.change = lambda y: (y, y)
    with pytest.raises(VerificationError, match="another structure"):
        verify(net, small, stream_plan())


@pytest.mark.parametrize("change", [lambda y: None, lambda y: "text", lambda y: y[:0]])
def test_output_without_numbers_never_passes(change: Any) -> None:
    with pytest.raises(VerificationError, match=r"nothing could be compared.*without any number"):
        cut(Wrapped(change), stream_plan())
    with pytest.raises(VerificationError, match="without any number"):
        cut(Wrapped(change), stream_plan(), images())


def test_nan_never_passes() -> None:
    nan = Wrapped(lambda y: y * math.nan)
    with pytest.raises(VerificationError, match=r"nothing could be compared.*not finite"):
        cut(nan, stream_plan())
    with pytest.raises(VerificationError, match="not finite on the example inputs"):
        cut(nan, stream_plan(), images())


def test_nan_of_the_cut_model_alone_never_passes() -> None:
    net = Wrapped(lambda y: y)
    small: Any = apply_plan(net, stream_plan())
    small.change = lambda y: y * math.nan
    with pytest.raises(VerificationError, match=r"differs .* by inf"):
        verify(net, small, stream_plan())


class OnlyImages(SmallNet):
    """Gives NaN, or raises, on anything but values between 0 and 1."""

    raises = False

    def forward(self, x: Tensor) -> Tensor:
        if self.raises and x.min() < 0:
            raise KeyError("negative pixel")
        return super().forward(x) + x.sqrt().sum() * 0


@pytest.mark.parametrize("raises", [False, True])
def test_random_inputs_the_model_cannot_take_are_skipped_aloud(raises: bool) -> None:
    net = randomized(OnlyImages())
    net.raises = raises  # type: ignore[assignment]
    with pytest.warns(UserWarning, match="not compared on random inputs") as caught:
        cut(net, stream_plan(), images().abs())
    assert len(caught) == 2
    with pytest.raises(VerificationError, match="pass example_inputs"):
        cut(net, stream_plan())


def test_wrong_example_inputs_are_an_input_error() -> None:
    with pytest.raises(InputError, match=r"\(2, 4, 6, 6\)"):
        cut(randomized(SmallNet()), stream_plan(), torch.zeros(2, 4, 6, 6))


def test_precision_settings_come_back() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        cut(randomized(SmallNet()), stream_plan())
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
