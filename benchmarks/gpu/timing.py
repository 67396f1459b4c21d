"""How long networks take on the device: one batch forward, beside the dense network, in turns."""

import copy
from collections.abc import Sequence

import torch
from benchmarks.gpu.lab import Lab
from torch import nn

from amsc.measurement import time_in_turns

__all__ = ["latencies", "time_shares"]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
GPU_BATCHES, CPU_BATCHES = (1, 256), (1, 8)
"""A batch of 256 takes a CPU, which only stands in for the device, minutes."""
GPU_ROUNDS, CPU_ROUNDS = 20, 3


def latencies(lab: Lab, models: Sequence[nn.Module]) -> dict[str, list[float]]:
    """Median seconds of a forward pass of each network, by precision and batch: eager, channels last. The clock waits
    for the device."""
    batches, rounds = (GPU_BATCHES, GPU_ROUNDS) if lab.is_gpu else (CPU_BATCHES, CPU_ROUNDS)
    image = lab.data.example_inputs()
    found = {}
    for precision, dtype in PRECISIONS.items():
        laid_out = [copy.deepcopy(model).to(dtype=dtype, memory_format=torch.channels_last) for model in models]
        for batch in batches:
            inputs = image.repeat(batch, 1, 1, 1).to(dtype=dtype, memory_format=torch.channels_last)
            timed = time_in_turns(laid_out, inputs, rounds=rounds)
            found[f"{precision} batch {batch}"] = [seconds for seconds, _ in timed]
    return found


def time_shares(lab: Lab, dense: nn.Module, models: Sequence[nn.Module]) -> list[dict[str, float]]:
    """Of each network, what it takes as a share of what the dense one takes."""
    found = latencies(lab, [dense, *models])
    return [
        {name: round(seconds[number] / seconds[0], 3) for name, seconds in found.items()}
        for number in range(1, len(models) + 1)
    ]
