"""How well a network does while it trains: looked at a few times, for people to watch, and for nothing else."""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import nn

from amsc.data import Data
from amsc.errors import UndefinedScoreError
from amsc.tasks import Task
from amsc.training.steps.evaluation import evaluate
from amsc.training.steps.step import Speed

__all__ = ["Often", "ScoreWatch", "steps_between"]

Often: TypeAlias = float | Literal["auto"]
"""Epochs of training between two scores; 0: none; "auto": see `steps_between`."""

MOST = 4
"""Scores within a stretch of training, at most."""
SHARE = 0.05
"""The share of a stretch's time that they may take."""
FORWARD = 1 / 3
"""The time of a forward pass as a share of a training step's, which goes forward once and backward for two."""


class ScoreWatch:
    """The score of a network on the validation split at some steps of a stretch of training.

    The network, its buffers, modes and gradients and torch's random generators are as before. Nothing is chosen by
    these scores: training ends with its last step, never with the best one. They are of the weights as they are then
    (not of a moving average), with the BatchNorm statistics that training has gathered so far. After the last step
    there is none, since the outcome is judged anyway, with statistics that are estimated anew.

    Args:
        often: how often; see `steps_between`.
        steps: those of the whole stretch.
    """

    def __init__(self, model: nn.Module, data: Data, task: Task, speed: Speed, *, often: Often, steps: int) -> None:
        self._model, self._data, self._task, self._speed = model, data, task, speed
        self._every, self._steps = steps_between(often, steps, data), steps

    def since(self, first: int) -> Callable[[int], dict[str, float]]:
        """For `train_steps`: the score after its step 0, 1, ... of a piece of the stretch that begins after `first`
        steps."""
        return lambda number: self(first + number + 1)

    def __call__(self, step: int) -> dict[str, float]:
        """The `score` after so many steps where one is due and a finite number, else nothing."""
        if not self._is_due(step):
            return {}
        try:
            return {"score": evaluate(self._model, self._data, "validation", self._task, speed=self._speed).score}
        except UndefinedScoreError:  # what training ends with is judged, and refused, where it matters
            return {}

    def _is_due(self, step: int) -> bool:
        """Whether a multiple of `every` lies in this step; the small number makes up for rounding."""
        if not self._every or step >= self._steps:
            return False
        return math.floor(step / self._every + 1e-9) > math.floor((step - 1) / self._every + 1e-9)


def steps_between(often: Often, steps: int, data: Data) -> float:
    """Steps between two scores in a stretch of so many; 0: there are none.

    With "auto" there are four, evenly spaced, or as many as take at most about 5 % of the stretch's time, counted in
    batches and not by a clock, so that a run that is repeated scores at the same steps.
    """
    if often != "auto":
        return often * data.num_batches("train")
    affordable = SHARE * steps / (FORWARD * max(1, data.num_batches("validation")))
    count = min(MOST, math.floor(affordable))
    return steps / (count + 1) if count else 0.0
