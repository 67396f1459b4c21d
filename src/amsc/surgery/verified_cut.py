"""The one way to a smaller model: cut a copy, and prove it."""

from dataclasses import replace
from typing import Any

from torch import nn

from amsc.errors import VerificationError
from amsc.surgery.apply import apply_plan
from amsc.surgery.plan import CutPlan, NewSize
from amsc.surgery.size_search import sizes_by_trying
from amsc.surgery.verification import verify

__all__ = ["cut"]


def cut(model: nn.Module, plan: CutPlan, example_inputs: Any = None) -> nn.Module:
    """A smaller copy of `model` without what `plan` removes, whose outputs have been checked.

    The result is an ordinary model of the same classes: it can be trained, compiled, copied and saved. Its
    `amsc_plan` leads from the dense network to it. `model` is not changed; `apply_plan` says what is kept.
    The check runs both networks on `example_inputs`, if given, and on random ones (see `verify`). Where it fails,
    numbers that modules keep are looked for that have to follow; the result's plan names them.

        small = cut(model, plan_cut(structure, channels={"conv1": [0, 3]}))

    Raises:
        CutError: the plan is none, or does not fit the model.
        VerificationError: the cut model and the masked model disagree.
        ModelError: the model is no module, or cannot be copied.
    """
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
