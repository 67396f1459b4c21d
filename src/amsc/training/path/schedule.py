"""How the steps of a path fall into pieces, which of them are for depth, and what cost each phase leads to."""

from dataclasses import dataclass

from amsc.structure.costing import predicted_cost
from amsc.structure.structure import Structure
from amsc.training.path.piece import Position, settling_steps
from amsc.training.path.state import WalkSettings, WalkState
from amsc.training.path.strength import POWERS, CostPlan

__all__ = ["Schedule", "schedule_of"]


@dataclass(frozen=True)
class Schedule:
    """The steps of each piece; how many pieces may be for depth, and the cost that these lead to; the cost at the end
    of the path; and whether depth is chosen at equal cost, before the first piece. `rungs` are the costs of the points
    of a path without training, down to the target."""

    sizes: tuple[int, ...]
    depth_pieces: int
    depth_goal: int
    target_cost: int
    is_at_equal_cost: bool = False
    rungs: tuple[int, ...] = ()

    def position(self, state: WalkState) -> Position:
        """Where the coming piece lies in the plan of its phase, settling steps not counted."""
        is_depth = state.phase == "depth"
        end = self.depth_pieces if is_depth else len(self.sizes)
        active = [size - settling_steps(size) for size in self.sizes]
        goal = self.depth_goal if is_depth else self.target_cost
        steps = sum(active[state.first : end])
        plan = CostPlan(state.start_cost, min(goal, state.start_cost), steps, POWERS[state.phase])
        return Position(plan, sum(active[state.first : state.index]), self.sizes[state.index])


def schedule_of(settings: WalkSettings, structure: Structure, steps_per_epoch: int, target_cost: int) -> Schedule:
    """The schedule of a path down from a dense network with this structure."""
    steps = round(settings.epochs * steps_per_epoch)
    count = max(1, min(settings.points, steps))  # fewer pieces than asked for if there are fewer steps
    sizes = tuple(steps * (i + 1) // count - steps * i // count for i in range(count))
    share, dense = settings.depth_share, predicted_cost(structure)
    has_depth, at_equal_cost = share > 0 and bool(structure.outer_blocks), settings.depth_rule == "equal-cost"
    depth_pieces = min(count - 1, max(1, int(share * count))) if has_depth and not at_equal_cost else 0
    goal = round(dense - share * (dense - target_cost))
    is_ladder = at_equal_cost and not steps
    rungs = _rungs(dense, target_cost, settings.points) if is_ladder else ()
    return Schedule(sizes, depth_pieces, goal, target_cost, is_ladder or (at_equal_cost and has_depth), rungs)


def _rungs(dense: int, target: int, count: int) -> tuple[int, ...]:
    """Costs from below the dense network's to the target, each the same share of the one before."""
    costs = (round(dense * (target / dense) ** ((i + 1) / count)) for i in range(count - 1))
    return (*sorted({cost for cost in costs if target < cost < dense}, reverse=True), target)
