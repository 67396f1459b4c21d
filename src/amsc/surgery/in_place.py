"""A network becomes its own cut copy: the same object, for those who hold it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from amsc.borrowing import named_tensors, unchanged_on_error
from amsc.errors import CutError
from amsc.structure.names import is_in_any
from amsc.surgery.apply import cuts_by_parameter, follow_plan, plan_of
from amsc.surgery.attributes import owned_cuts
from amsc.surgery.attributes.values import stored_sizes
from amsc.surgery.fold import give_biases
from amsc.surgery.plan import CutPlan

__all__ = ["become"]


def become(model: nn.Module, small: nn.Module, plan: CutPlan) -> None:
    """Make of `model` what its verified copy `small` is, which `cut(model, plan)` gave; `small` is used up.

    `model` and the modules in it stay the same objects, but for blocks that go. Tensors that are cut, or get constants,
    are those of `small`; all others stay the same objects too. After an error `model` is as it was.

    Raises:
        CutError: they have come to differ, because `model` was changed since.
    """
    with unchanged_on_error(model):
        _cut_like(model, small, plan)
        if where := next(_differences(model, small), ""):
            raise CutError(
                f"the network that was to be cut in place and its cut copy differ in {where}; the network is as it was."
                " Leave it alone between amsc.cut and this, or use the copy"
            )


def _cut_like(model: nn.Module, small: nn.Module, plan: CutPlan) -> None:
    tensors, new, cuts = named_tensors(model), named_tensors(small), cuts_by_parameter(plan)
    whole = plan_of(small)
    assert whole is not None, "a cut copy has its plan"
    owned = owned_cuts(model, tensors, cuts)
    give_biases(model, plan.folds)
    tensors = named_tensors(model)
    for name in {*cuts, *(f"{layer}.bias" for layer in plan.folds)}:
        if not is_in_any(name, plan.blocks):
            _exchange(model, tensors[name], new[name])
    follow_plan(model, replace(plan, sizes=whole.sizes), owned, whole)


def _exchange(model: nn.Module, old: Tensor, new: Tensor) -> None:
    """Put `new` wherever the modules hold `old`."""
    for module in model.modules():
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for table in tables:
            table.update({name: new for name, tensor in table.items() if tensor is old})


def _differences(model: nn.Module, small: nn.Module) -> Iterator[str]:
    """Where the two differ in modules, tensors and whole numbers."""
    modules, others = dict(model.named_modules()), dict(small.named_modules())
    yield from (name for name in {**modules, **others} if type(modules.get(name)) is not type(others.get(name)))
    tensors, new = named_tensors(model), named_tensors(small)
    yield from (name for name in {**tensors, **new} if not _are_equal(tensors.get(name), new.get(name)))
    for name, module in modules.items():
        if stored_sizes(module) != stored_sizes(others[name]):
            yield f"the numbers of {name or type(module).__name__}"


def _are_equal(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None or first.shape != second.shape:
        return False
    return first is second or bool(((first == second) | (first != first)).all())  # what is not a number stays so
