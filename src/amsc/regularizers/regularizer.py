"""What all regularizers have in common: a map of the weights after every step of the optimiser, and a course."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from amsc.regularizers.parts import Going, GroupParts

__all__ = ["Course", "Regularizer"]


@dataclass(frozen=True, eq=False)
class Course:
    """How a training phase under a regularizer runs: so many `steps`, in each of which a gradient moves the weights by
    `step_size` in the end (see `accumulated_step_size`). `going` says which channels would go for the target by the
    prices that they have now."""

    steps: int
    step_size: float
    going: Callable[[], Going]

    def strength(self, share_left: float, power: float) -> float:
        """The strength of a pull on w of strength times `power` times w that leaves about this share of w after all
        steps, if the loss had no say."""
        return math.log(1 / share_left) / (self.steps * self.step_size * power)


class Regularizer(ABC):
    """A penalty of a training phase, after which channels go by prices.

    It is applied behind every step of the optimiser as the proximal map of strength * step size * penalty, and not as a
    gradient: a strong pull within the momentum would swing about zero. For small steps both are the same.

    Attributes:
        groups: what it pulls at.
        strength: how strongly.

    Args:
        strength: None: what brings the channels that go at the target so far in this course as each regularizer says,
            if the loss had no say.
    """

    def __init__(self, groups: Sequence[GroupParts], course: Course, strength: float | None = None) -> None:
        self.groups, self.course = tuple(groups), course
        self.strength = self.needed(course.going()) if strength is None else strength

    @abstractmethod
    def needed(self, going: Going) -> float:
        """The strength that these channels need."""

    @abstractmethod
    def apply(self, step: int, step_size: float) -> None:
        """Change the weights, in place, behind step number `step` (from 0) of the optimiser."""

    def memory(self) -> dict[str, Tensor]:
        """What it has to remember when training goes on later; its course and strength are made again."""
        return {}

    def recall(self, memory: Mapping[str, Tensor]) -> None:  # noqa: B027 - most have nothing to remember
        """Remember that."""
