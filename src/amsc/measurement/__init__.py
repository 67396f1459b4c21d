"""What a model costs: parameters, bytes, multiply-adds, latency and peak memory, and on which machine."""

from amsc.measurement.latency import calls_in_turns, time_in_turns, time_model
from amsc.measurement.machine import machine_stamp
from amsc.measurement.macs import count_macs
from amsc.measurement.memory import Activations, input_bytes, live_activations, peak_memory, weight_bytes
from amsc.measurement.model import measure

__all__ = [
    "Activations",
    "calls_in_turns",
    "count_macs",
    "input_bytes",
    "live_activations",
    "machine_stamp",
    "measure",
    "peak_memory",
    "time_in_turns",
    "time_model",
    "weight_bytes",
]
