"""Everything a model costs, measured on the model itself."""

from typing import Any

from torch import nn

from amsc.measurement.latency import time_model
from amsc.measurement.machine import machine_stamp
from amsc.measurement.macs import count_macs
from amsc.measurement.memory import peak_memory, weight_bytes
from amsc.records import Measurement

__all__ = ["measure"]


def measure(model: nn.Module, example_inputs: Any, *, runs: int = 20) -> Measurement:
    """Parameters, bytes, multiply-adds, latency over `runs` calls and peak memory, with the machine.

    All in eval mode, without gradients, for the whole batch of `example_inputs`; `bytes` are those of parameters
    and buffers. The model comes back as it was.

    Raises:
        ModelError: `model` is not a module.
        InputError: the model fails on the inputs.
        SettingsError: `runs` is not a positive number.
    """
    macs = count_macs(model, example_inputs)
    peak = peak_memory(model, example_inputs)
    latency, spread = time_model(model, example_inputs, runs=runs)
    return Measurement(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        bytes=weight_bytes(model),
        macs=macs,
        latency_seconds=latency,
        latency_spread_seconds=spread,
        latency_runs=runs,
        peak_memory_bytes=peak,
        machine=machine_stamp(),
    )
