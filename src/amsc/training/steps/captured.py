"""A training step that is recorded once and replayed: on CUDA as one graph, so that nothing waits for Python.

A small network's step is some thousand kernels of microseconds each, which the host launches more slowly than the
device computes them. A graph is launched at once (Nguyen et al. 2021, "Accelerating PyTorch with CUDA Graphs"). What it
reads lies where it lay when it was recorded: batches are copied there, and learning rates and strengths are tensors.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.data import moved
from amsc.errors import AmscWarning
from amsc.training.steps.step import Step, TrainingStep, device_of

__all__ = ["CapturedStep", "CudaRecorder", "PlainRecorder", "Recorder", "step_of"]

WARM_UP = 3
"""Steps on batches of a kind before one is recorded: by then libraries have measured, and made room."""
MOST_KINDS = 4
"""Kinds of batches that are recorded; others, such as many lengths of texts, are computed as they come."""
SIMPLE = (bool, int, float, str, type(None))
Replay = Callable[[], Tensor]


class Recorder(Protocol):
    """Keeps what a function does on a device."""

    def run(self, function: Replay) -> Tensor:
        """What the function returns, run in a way that a recording may follow."""

    def record(self, function: Replay) -> Replay:
        """What does the same as `function` as often as it is called. The function itself is not carried out."""


class PlainRecorder:
    """Calls the function each time: for devices that have no graphs."""

    def run(self, function: Replay) -> Tensor:
        """The function's own run."""
        return function()

    def record(self, function: Replay) -> Replay:
        """The function."""
        return function


class CudaRecorder:
    """Keeps the kernels of a function as a CUDA graph; all graphs have one pool of memory, as they run in turns."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._aside = device, torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, function: Replay) -> Tensor:
        """Run it beside the main stream: what autograd keeps of that one could not be recorded."""
        main = torch.cuda.current_stream(self._device)
        self._aside.wait_stream(main)
        with torch.cuda.stream(self._aside):
            result = function()
        main.wait_stream(self._aside)
        result.record_stream(main)
        return result

    def record(self, function: Replay) -> Replay:
        """Record it; a replay returns a copy, since the next one writes to the same place."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = function()

        def replay() -> Tensor:
            graph.replay()
            return result.clone()

        return replay


class CapturedStep:
    """`step`, recorded for each kind of batch (shapes, dtypes, numbers in it) after a few of it and replayed from then
    on; a `Step` that changes the model as `step` does, to rounding.

    It holds for the network and the optimiser as they are: after a cut there must be a new one. The optimiser must be
    one of `make_optimizer(..., capture=True)`, or a `ProximalStep` of it. Where recording fails, as for a network whose
    forward looks at values, an `AmscWarning` says so, and steps are computed as they come.
    """

    def __init__(self, step: TrainingStep, recorder: Recorder) -> None:
        self._step, self._recorder = step, recorder
        self._seen: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, tuple[list[Tensor], Replay]] = {}
        self._fails = False

    def __call__(self, inputs: Any, target: Any) -> Tensor:
        """Take a step on this batch."""
        batch = moved((inputs, target), device_of(self._step.model))
        leaves, layout = pytree.tree_flatten(batch)
        kind = self._kind(leaves, layout)
        if kind not in self._recorded:
            self._seen[kind] += 1
            if self._fails or kind is None or self._seen[kind] <= WARM_UP or len(self._recorded) == MOST_KINDS:
                return self._recorder.run(lambda: self._step(*batch))
            if not self._record(kind, leaves, layout):
                return self._step(*batch)
        places, replay = self._recorded[kind]
        for place, tensor in zip(places, _tensors(leaves), strict=True):
            place.copy_(tensor, non_blocking=True)
        return replay()

    def _kind(self, leaves: list[Any], layout: Any) -> Hashable:
        """What must be the same for a recording to hold; None where that cannot be told."""
        if not all(isinstance(leaf, (Tensor, *SIMPLE)) for leaf in leaves):
            return None
        looks = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        return looks, str(layout), getattr(self._step.optimizer, "variant", None)

    def _record(self, kind: Hashable, leaves: list[Any], layout: Any) -> bool:
        """Record a step on batches of this kind, without taking it; whether that was possible."""
        places = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        batch = pytree.tree_unflatten(places, layout)
        try:
            replay = self._recorder.record(lambda: self._step(*batch))
        except Exception as error:  # the user's forward may raise anything, as may torch
            self._fails = True
            warnings.warn(
                f"{type(self._step.model).__name__} cannot be captured, and trains without ({error}); leave out "
                "capture, or let its forward ask for no values (.item(), a tensor in an if, a mask as an index)",
                AmscWarning,
                stacklevel=2,
            )
            return False
        self._recorded[kind] = _tensors(places), replay
        return True


def step_of(step: TrainingStep) -> Step:
    """The step as it is, or captured where its `speed` says so; the weights are laid out as that says, once, since what
    is recorded finds them where they lie."""
    step.speed.arrange(step.model)
    if not step.speed.capture:
        return step
    device = device_of(step.model)
    return CapturedStep(step, CudaRecorder(device) if device.type == "cuda" else PlainRecorder())


def _tensors(leaves: list[Any]) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
