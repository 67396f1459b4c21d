"""Where a compression stands, as plain data for a checkpoint; and a network that is as small as it was then."""

from dataclasses import dataclass

from torch import nn

from amsc.errors import AmscError, ModelError, TrainingError
from amsc.records import from_json, to_json
from amsc.structure import Structure
from amsc.surgery import CutPlan, apply_plan, become, plan_of
from amsc.trainers.course import Course
from amsc.trainers.networks import bare_network

__all__ = ["LoopState", "cut_as", "read_state", "write_state"]


@dataclass(frozen=True)
class LoopState:
    """A compression after so many `steps` of the optimiser: the plan that led to the network as it is (None: nothing
    was cut), its structure with the limits of the target, the course, the piece and what its phase began at, and by how
    much forecasts had to be corrected."""

    steps: int
    plan: CutPlan | None
    structure: Structure
    course: Course
    piece: int
    start_cost: int
    correction: float
    is_done: bool


def write_state(state: LoopState) -> str:
    """The state as JSON text."""
    return to_json(state)


def read_state(text: str) -> LoopState:
    """What `write_state` wrote.

    Raises:
        TrainingError: it is something else.
    """
    try:
        return from_json(LoopState, text)
    except (AmscError, ValueError, AttributeError) as error:
        raise TrainingError(f"this is not the state of a compression that amsc wrote ({error})") from error


def cut_as(model: nn.Module, state: LoopState) -> None:
    """The dense `model` becomes as small as the network was in that state, so that its weights can be loaded; those it
    has now are cut and mean nothing.

    Raises:
        ModelError: it has been cut already, in another way.
        CutError: it is not the network that was compressed.
    """
    network = bare_network(model)
    if state.plan is None or plan_of(network) == state.plan:
        return
    if plan_of(network) is not None:
        raise ModelError("to go on from a checkpoint give the dense network, as it was built; this one has been cut")
    become(network, apply_plan(network, state.plan, fold=False), state.plan)
