"""What a model costs: parameters, bytes, multiply-adds, latency and peak memory, and on which machine."""

from amsc.measure.latency import time_in_turns, time_model
from amsc.measure.machine import machine_stamp
from amsc.measure.macs import count_macs
from amsc.measure.measurement import measure
from amsc.measure.memory import Activations, live_activations, peak_memory, weight_bytes

__all__ = [
    "Activations",
    "count_macs",
    "live_activations",
    "machine_stamp",
    "measure",
    "peak_memory",
    "time_in_turns",
    "time_model",
    "weight_bytes",
]
