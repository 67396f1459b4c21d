"""How the steps of somebody else's training fall into pieces, and what cost each leads to."""

import math
from dataclasses import dataclass
from typing import Literal

from amsc.errors import SettingsError
from amsc.penalty import WEIGHTS
from amsc.settings import Settings
from amsc.structure import Rounding, Structure
from amsc.structure.costing import predicted_cost
from amsc.training.path.piece import Position, settling_steps
from amsc.training.path.strength import POWERS, CostPlan

__all__ = ["Course", "LoopSettings", "course_of"]

LEAST = 8
"""Steps of a piece, below which there are fewer pieces."""
MEASURED = 24
"""Most steps at the start of a piece in which nothing is penalised and what each group is worth is measured."""


@dataclass(frozen=True)
class LoopSettings:
    """The choices of a compression inside somebody else's loop; the optimiser, its learning rates and all else are that
    loop's.

    The path to the target takes the first `share` of the training's steps, in `pieces`, each of which ends with a cut;
    the rest of the steps trains the small network. Blocks go in the first pieces, which lead to `depth_share` of what
    is to be saved, channels in the others. `weights` are "fisher" (the gradients of the first steps of each piece price
    the groups) or those of `Penalty`. `keep`, `only`, `round_to`, `min_channels` and `minimum` are as in
    `amsc.Settings`.

    Raises:
        SettingsError: a value is impossible.
    """

    share: float = 0.5
    pieces: int = 6
    depth_share: float = 0.25
    weights: str = "fisher"
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    round_to: int | Literal["auto"] = "auto"
    min_channels: int = 1
    minimum: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not 0 <= self.depth_share < 1:
            raise SettingsError(
                "share must be above 0 and at most 1, depth_share at least 0 and below 1; got "
                f"share={self.share}, depth_share={self.depth_share}"
            )
        if isinstance(self.pieces, bool) or not isinstance(self.pieces, int) or self.pieces < 1:
            raise SettingsError(f"pieces must be a whole number, at least 1; got {self.pieces!r}")
        if self.weights != "fisher" and self.weights not in WEIGHTS:
            known = ", ".join(("fisher", *sorted(WEIGHTS)))
            raise SettingsError(f"weights must be one of {known}; got {self.weights!r}")
        self.as_settings()

    def as_settings(self) -> Settings:
        """What may be removed, as the settings of a run say it.

        Raises:
            SettingsError: a value is impossible.
        """
        return Settings(
            keep=self.keep,
            only=self.only,
            round_to=self.round_to,
            min_channels=self.min_channels,
            minimum=self.minimum,
        )


@dataclass(frozen=True)
class Course:
    """The steps of each piece, in how many at the start of each it is measured; how many pieces are for depth; the cost
    of the dense network, that to which the pieces for depth lead, and that at the end; and how many channels may be
    left in each group."""

    sizes: tuple[int, ...]
    measured: tuple[int, ...]
    depth_pieces: int
    dense_cost: int
    depth_goal: int
    target_cost: int
    rounding: Rounding

    def phase(self, index: int) -> str:
        """What the piece is for, "depth" or "width"."""
        return "depth" if index < self.depth_pieces else "width"

    def piece_at(self, step: int) -> int:
        """The piece that comes after so many steps of the course; the number of pieces where none does."""
        return sum(step >= sum(self.sizes[: index + 1]) for index in range(len(self.sizes)))

    def position(self, index: int, start_cost: int) -> Position:
        """Where the piece lies on the plan of its phase, which begins at `start_cost`."""
        is_depth = index < self.depth_pieces
        first, end = (0, self.depth_pieces) if is_depth else (self.depth_pieces, len(self.sizes))
        penalised = [size - measured for size, measured in zip(self.sizes, self.measured, strict=True)]
        active = [size - settling_steps(size) for size in penalised]
        goal = min(self.depth_goal if is_depth else self.target_cost, start_cost)
        plan = CostPlan(start_cost, goal, sum(active[first:end]), POWERS[self.phase(index)])
        return Position(plan, sum(active[first:index]), penalised[index])


def course_of(settings: LoopSettings, structure: Structure, target_cost: int, steps: int) -> Course:
    """The course of a training of so many steps, for a network with this structure.

    Raises:
        SettingsError: there is no step, or no end of them; or `minimum` names nothing.
    """
    if not math.isfinite(steps) or steps < 1:
        raise SettingsError(
            f"expected how many steps of the optimiser the training takes, at least 1; got {steps}. A trainer without "
            "an end needs max_steps or a number of epochs"
        )
    wanted = max(1, round(settings.share * steps))
    count = max(1, min(settings.pieces, wanted // LEAST))
    sizes = tuple(wanted * (i + 1) // count - wanted * i // count for i in range(count))
    measured = tuple(max(1, min(MEASURED, size // 4)) if settings.weights == "fisher" else 0 for size in sizes)
    has_depth = settings.depth_share > 0 and bool(structure.outer_blocks)
    depth_pieces = min(count - 1, max(1, round(settings.depth_share * count))) if has_depth else 0
    dense = predicted_cost(structure)
    goal = round(dense - settings.depth_share * (dense - target_cost))
    return Course(sizes, measured, depth_pieces, dense, goal, target_cost, settings.as_settings().rounding(structure))
