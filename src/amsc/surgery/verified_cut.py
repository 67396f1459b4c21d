"""The one way to a smaller model: cut a copy, and prove it."""

from dataclasses import replace
from typing import Any

from torch import nn

from amsc.errors import CutError, VerificationError
from amsc.structure.structure import Structure
from amsc.surgery.apply import apply_plan
from amsc.surgery.plan import CutPlan, NewSize, proven_part
from amsc.surgery.size_search import sizes_by_trying
from amsc.surgery.verification import verify
from amsc.words.alike import name_together

__all__ = ["cut", "cut_with_error"]


def cut(model: nn.Module, plan: CutPlan, example_inputs: Any = None) -> nn.Module:
    """A smaller copy of `model` without what `plan` removes, whose outputs have been checked.

    The result is an ordinary model of the same classes: it can be trained, compiled, copied and saved. Its
    `amsc_plan` leads from the dense network to it. `model` is not changed; `apply_plan` says what is kept.
    The check runs both networks on `example_inputs`, if given, and on random ones (see `verify`). Where it fails,
    numbers that modules keep are looked for that have to follow; the result's plan names them.

        small = cut(model, plan_cut(structure, channels={"conv1": [0, 3]}))

    Raises:
        CutError: the plan is none, does not fit the model, or removes channels of groups that no proof covers.
        VerificationError: the cut model and the masked model disagree.
        ModelError: the model is no module, or cannot be copied.
    """
    if isinstance(plan, CutPlan) and plan.unproven:
        names = name_together(tuple(plan.unproven), most=4)
        raise CutError(
            f"the plan removes channels of {names}, which are not the same function removed as zeroed, so that there is"
            " no proof: amsc.surgery.apply_plan(model, plan) cuts without one, and amsc.reconstruct gives back what"
            " that costs; or leave these groups out"
        )
    small = apply_plan(model, plan, example_inputs)
    try:
        verify(model, small, plan, example_inputs)
    except VerificationError:
        found = sizes_by_trying(model, plan, example_inputs)
        if found is None:
            raise
        new = (NewSize(one.size.module, one.size.place, one.new) for one in found)
        plan = replace(plan, sizes=(*plan.sizes, *new))
        small = apply_plan(model, plan, example_inputs)
        verify(model, small, plan, example_inputs)
    return small


def cut_with_error(
    model: nn.Module, structure: Structure, plan: CutPlan, example_inputs: Any
) -> tuple[nn.Module, float]:
    """The network without what a plan for `structure` removes, and how far the proof of it is off (see `verify`).

    Of a plan with groups that no proof covers the rest is proven, by a cut of its own.

    Raises:
        VerificationError: the cut model and the masked model disagree.
    """
    small, proven = apply_plan(model, plan, example_inputs), proven_part(structure, plan)
    if proven.changes_nothing:
        return small, 0.0
    tested = small if proven is plan else apply_plan(model, proven, example_inputs)
    return small, verify(model, tested, proven, example_inputs)
