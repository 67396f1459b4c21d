"""Where a network is timed: in PyTorch as it is, or in a runtime for which it is exported first."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from amsc.export import onnx_calls
from amsc.measurement import calls_in_turns, time_in_turns

__all__ = ["CLOCKS", "Clock"]


class Clock(Protocol):
    """Times models in turns; see `amsc.measurement.time_in_turns`."""

    def __call__(
        self, models: Sequence[nn.Module], example_inputs: Any, *, rounds: int = 20
    ) -> list[tuple[float, float]]:
        """Median and interquartile range of each, in seconds."""


def _in_onnxruntime(models: Sequence[nn.Module], example_inputs: Any, *, rounds: int = 20) -> list[tuple[float, float]]:
    with onnx_calls(models, example_inputs) as calls:
        return calls_in_turns(calls, rounds=rounds)


CLOCKS: Mapping[str, Clock] = {"torch": time_in_turns, "onnxruntime": _in_onnxruntime}
"""By the name of the runtime."""
