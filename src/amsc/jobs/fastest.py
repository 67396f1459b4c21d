"""How a run's training computes where the settings leave that open: what is fastest in a few steps before it begins."""

import math
import time
from dataclasses import replace

import torch
from torch import nn

from amsc.borrowing import copied, forked
from amsc.data import Data, spread_batches
from amsc.parallel import by_first
from amsc.settings import Settings
from amsc.tasks import Task
from amsc.training import OptimizerChoice, Speed, device_of
from amsc.training.steps.optimizers import make_optimizer
from amsc.training.steps.step import TrainingStep

__all__ = ["fastest_speed"]

WORTH = 60
"""Seconds of training in float32 below which nothing is tried: little could be gained, and runs of a few seconds would
differ from time to time."""
GAIN = 1.25
"""How many times as fast another way must be to be taken."""
ROUNDS = 3
NEAR = 0.05
"""The share by which a loss in bfloat16 may be another than in float32."""


def fastest_speed(model: nn.Module, data: Data, task: Task, settings: Settings) -> Speed:
    """The speed that the settings say, or, for the precision "auto", the fastest of float32 and bfloat16, each in the
    layout that the settings say and with channels last, in a few steps of a copy of `model`.

    Ways are left out in which the copy fails, or its loss is another. Where all training takes less than a minute, or
    the settings ask for determinism, it is float32. Of several processes the first one tries, with whole batches.
    """
    return by_first(lambda: _found_fastest(model, data, task, settings))


def _found_fastest(model: nn.Module, data: Data, task: Task, settings: Settings) -> Speed:
    as_said = Speed(settings.precision, settings.channels_last, settings.capture)
    if settings.precision != "auto":
        return as_said
    plain = replace(as_said, precision="float32")
    epochs = settings.dense_epochs + settings.path_epochs + settings.finetune_epochs
    if settings.deterministic or not epochs:
        return plain
    loss, seconds = _tried(model, data, task, plain)
    if seconds * epochs * data.num_batches("train") < WORTH:
        return plain
    ways = [Speed(kind, last, settings.capture) for kind in ("float32", "bfloat16") for last in (False, True)]
    found = {plain: seconds}
    for way in ways:
        if way == plain or (settings.channels_last and not way.channels_last):
            continue
        try:
            other, taken = _tried(model, data, task, way)
        except Exception:  # where float32 runs and this way does not, the user's forward or loss may raise anything
            continue
        if math.isclose(other, loss, rel_tol=NEAR):
            found[way] = taken
    best = min(found, key=found.__getitem__)
    return best if GAIN * found[best] <= found[plain] else plain


def _tried(model: nn.Module, data: Data, task: Task, speed: Speed) -> tuple[float, float]:
    """The loss of a batch at first, and the seconds of the fastest step on it."""
    trial, device = copied(model).train(), device_of(model)
    speed = replace(speed, capture=False)
    speed.arrange(trial)
    step = TrainingStep(trial, make_optimizer(trial, OptimizerChoice(0.0)), task, speed=speed)
    (batch,) = spread_batches(data, "train", 1)
    seconds = []
    with forked([device]):
        loss = float(step(*batch))
        for _ in range(ROUNDS):
            start = time.perf_counter()
            float(step(*batch))  # waits for the device
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    return loss, min(seconds)
