"""How long one call takes, in seconds: the middle of many runs and how far they spread."""

import contextlib
import functools
import timeit
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import benchmark

from amsc.borrowing import borrowed, call_arguments, run_model
from amsc.errors import SettingsError
from amsc.parallel import by_first

__all__ = ["calls_in_turns", "time_in_turns", "time_model"]

WARM_UP_RUNS = 3
_QUARTILES = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)


def time_model(model: nn.Module, example_inputs: Any, *, runs: int = 20) -> tuple[float, float]:
    """Median and interquartile range, in seconds, of `runs` calls of the model in eval mode without gradients.

    Three untimed calls go before. The clock (that of `torch.utils.benchmark`) waits for the accelerator; garbage
    collection is off while it runs. As many threads are used as the process has set. The model comes back
    as it was.

    Raises:
        SettingsError: `runs` is not a positive number.
        InputError: the model fails on the inputs.
    """
    if runs < 1:
        raise SettingsError(f"runs must be at least 1 to measure a latency, got {runs}")
    args, kwargs = call_arguments(example_inputs)
    with borrowed(model):
        for _ in range(WARM_UP_RUNS):
            run_model(model, example_inputs)
        timer = timeit.Timer(lambda: model(*args, **kwargs), timer=benchmark.timer)
        seconds = torch.tensor(by_first(lambda: timer.repeat(repeat=runs, number=1)), dtype=torch.float64)
    low, middle, high = seconds.quantile(_QUARTILES).tolist()
    return middle, high - low


def time_in_turns(models: Sequence[nn.Module], example_inputs: Any, *, rounds: int = 20) -> list[tuple[float, float]]:
    """Median and interquartile range, in seconds, of the calls of each model, which are timed one after the other in
    each of `rounds` rounds, so that whatever else the machine does meets all of them alike. Otherwise as `time_model`.

    Raises:
        InputError: a model fails on the inputs.
    """
    args, kwargs = call_arguments(example_inputs)
    with contextlib.ExitStack() as stack:
        for model in models:
            stack.enter_context(borrowed(model))
            run_model(model, example_inputs)
        return calls_in_turns([functools.partial(model, *args, **kwargs) for model in models], rounds=rounds)


def calls_in_turns(calls: Sequence[Callable[[], Any]], *, rounds: int = 20) -> list[tuple[float, float]]:
    """Median and interquartile range, in seconds, of each call, one after the other in each of `rounds` rounds. Of
    several processes the first one times, and the others wait."""
    return by_first(lambda: _timed_here(calls, rounds))


def _timed_here(calls: Sequence[Callable[[], Any]], rounds: int) -> list[tuple[float, float]]:
    for _ in range(WARM_UP_RUNS):
        for call in calls:
            call()
    timers = [timeit.Timer(call, timer=benchmark.timer) for call in calls]
    seconds = [[timer.timeit(number=1) for timer in timers] for _ in range(rounds)]
    low, middle, high = torch.tensor(seconds, dtype=torch.float64).quantile(_QUARTILES, dim=0)
    return list(zip(middle.tolist(), (high - low).tolist(), strict=True))
