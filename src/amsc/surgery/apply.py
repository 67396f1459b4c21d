"""Carry out a plan on a copy: slice, mask, or slice the tensors that belong to the parameters."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import copied, named_tensors
from amsc.errors import CutError, ModelError
from amsc.structure.cutting import narrowed
from amsc.structure.names import is_in_any
from amsc.structure.own_buffers import own_buffers
from amsc.structure.structure import BlockCall
from amsc.surgery.attributes import OwnedCuts, follow_config, follow_cuts, owned_cuts, set_sizes_at, sizes_now
from amsc.surgery.composition import compose
from amsc.surgery.fold import fold_constants, give_biases
from amsc.surgery.passthrough import PassThrough, stand_in
from amsc.surgery.plan import AxisCut, CutPlan

__all__ = ["apply_plan", "cut_tensors", "cuts_by_parameter", "follow_plan", "masked", "misfit", "plan_of"]

PLAN_ATTRIBUTE = "amsc_plan"
SIMPLE = (bool, int, float, str)


def plan_of(model: nn.Module) -> CutPlan | None:
    """The plan by which `model` was cut from its dense original, or None if it never was."""
    plan = getattr(model, PLAN_ATTRIBUTE, None)
    return plan if isinstance(plan, CutPlan) else None


def apply_plan(
    model: nn.Module,
    plan: CutPlan,
    example_inputs: Any = None,
    *,
    fold: bool = True,
    shares: bool = False,
    by_value: bool = True,
) -> nn.Module:
    """A smaller copy of `model`, cut but **not verified**; `cut` is the verified way.

    Train/eval flags, `requires_grad`, dtypes, devices, tied parameters and module hooks are as in `model`;
    gradients are not taken along. A removed block becomes `nn.Identity`, or a `PassThrough` where its call is not one
    tensor in and one out. The result's `amsc_plan` leads from the dense network to it, also over several
    cuts. `model` is not changed.

    Where the plan folds constants of removed channels into biases, the masked model runs on the example inputs, if
    given, and on random ones; without `fold`, or on the meta device, the biases are only made where there are none.
    With `shares`, parameters that are not cut are those of `model` itself and not copies: for a look at a cut. Without
    `by_value`, numbers that modules keep follow by their names and as the plan says, and not by their values.

    Raises:
        CutError: the plan is none, does not fit the model, or what it folds is not constant.
        ModelError: `model` is no module, or cannot be copied.
    """
    _check_kinds(model, plan)
    earlier = plan_of(model)
    if plan.folds:
        dense, model = model, _prepared(model, plan)
        if fold and not any(tensor.is_meta for tensor in named_tensors(model).values()):
            fold_constants(model, masked(dense, plan), plan, example_inputs)
    _check_fit(model, plan)
    if plan.changes_nothing:
        warnings.warn("the plan removes nothing: the result is a plain copy of the model", stacklevel=2)
    whole = compose(earlier, plan) if earlier is not None else plan
    tensors, cuts = named_tensors(model), cuts_by_parameter(plan)
    kept = _shared(model) if shares else {}
    small = copied(model, kept | {id(tensors[name]): _cut_tensor(tensors[name], own) for name, own in cuts.items()})
    names = {module: name for name, module in model.named_modules()}
    owned = {small.get_submodule(names[module]): own for module, own in owned_cuts(model, tensors, cuts).items()}
    follow_plan(small, plan, owned, whole, by_value=by_value)
    return small


def follow_plan(model: nn.Module, plan: CutPlan, owned: OwnedCuts, whole: CutPlan, *, by_value: bool = True) -> None:
    """Let all follow in `model` whose tensors have been cut: sizes that modules keep, stand-ins for blocks, the
    configuration. Its `amsc_plan` is the `whole` of its cuts then. `owned` are the cuts by module (see `owned_cuts`).

    Raises:
        CutError: see `follow_cuts`.
    """
    config_changes = follow_cuts(model, owned, by_value=by_value)
    set_sizes_at(model, plan.sizes)
    whole = replace(whole, sizes=sizes_now(model, whole.sizes))
    _narrow_stand_ins(model, plan)
    _replace_blocks(model, plan)
    follow_config(model, config_changes)
    setattr(model, PLAN_ATTRIBUTE, whole)


def masked(model: nn.Module, plan: CutPlan, *, shares: bool = False) -> nn.Module:
    """A copy of `model` of the same shapes, in which all that `plan` removes is set to zero.

    A plain convolution that goes gets the Dirac kernel instead, with which it returns its input. The copy has the
    biases that the plan makes, which are zero. With `shares`, parameters that stay as they are are those of `model`.

    Raises:
        CutError: the plan does not fit the model.
        ModelError: `model` cannot be copied.
    """
    changed = {*(cut.parameter for cut in plan.cuts if cut.zeroed), *plan.block_parameters}
    zeroed = _prepared(model, plan, _shared(model, changed) if shares else {})
    tensors = named_tensors(zeroed)
    with torch.no_grad():
        for cut in plan.cuts:
            if cut.zeroed:
                tensor = tensors[cut.parameter]
                tensor.index_fill_(cut.axis, torch.tensor(cut.removed, device=tensor.device), 0)
        for name in plan.block_parameters:
            tensors[name].zero_()
        for buffer in own_buffers(zeroed, [name for name in plan.blocks if name not in plan.plain]):
            buffer.zero_()
        for name in plan.plain:
            nn.init.dirac_(tensors[f"{name}.weight"])
    return zeroed


def cut_tensors(tensors: Mapping[str, Tensor], plan: CutPlan) -> dict[str, Tensor]:
    """Tensors that belong to parameters, such as momentum buffers by parameter name, after the cut.

    Those of removed blocks are dropped; those the plan does not cut are passed on as they are, not copied. A bias that
    the plan makes gets zeros if its weight is among `tensors`.

    Raises:
        CutError: a tensor does not have the shape of its parameter.
    """
    cuts = cuts_by_parameter(plan)
    gone = frozenset(plan.block_parameters)
    weights = {f"{layer}.bias": tensors.get(f"{layer}.weight") for layer in plan.folds}
    made = {name: weight.new_zeros(weight.shape[:1]) for name, weight in weights.items() if weight is not None}
    tensors = {**made, **tensors}
    for name, tensor in tensors.items():
        for cut in cuts.get(name, ()):
            _check_axis(cut, tensor)
    return {
        name: _sliced(tensor, cuts[name]) if name in cuts else tensor
        for name, tensor in tensors.items()
        if name not in gone and not is_in_any(name, plan.blocks)
    }


def cuts_by_parameter(plan: CutPlan) -> dict[str, list[AxisCut]]:
    """What goes from each tensor, by its name."""
    cuts: dict[str, list[AxisCut]] = {}
    for cut in plan.cuts:
        cuts.setdefault(cut.parameter, []).append(cut)
    return cuts


def _sliced(tensor: Tensor, cuts: list[AxisCut]) -> Tensor:
    for cut in cuts:
        tensor = tensor.index_select(cut.axis, torch.tensor(cut.kept, device=tensor.device))
    return tensor


def _cut_tensor(tensor: Tensor, cuts: list[AxisCut]) -> Tensor:
    new = _sliced(tensor.detach(), cuts)
    return nn.Parameter(new, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new


def _check_kinds(model: Any, plan: Any) -> None:
    if not isinstance(model, nn.Module):
        swapped = "; the model comes first, as in cut(model, plan)" if isinstance(plan, nn.Module) else ""
        raise ModelError(f"expected a torch.nn.Module, got {type(model).__name__}{swapped}")
    if not isinstance(plan, CutPlan):
        raise CutError(f"expected the plan that amsc.plan_cut(structure, ...) gives, got {type(plan).__name__}")


def _shared(model: nn.Module, changed: Collection[str] = ()) -> dict[int, Tensor]:
    """By their ids what a copy of `model` takes for its tensors: the parameters, but for those that are `changed`, and
    copies of the buffers, to which a forward may write (what deepcopy does to them takes several times as long)."""
    buffers = {id(buffer): buffer.detach().clone() for buffer in model.buffers() if type(buffer) is Tensor}
    return buffers | {id(one): one for name, one in model.named_parameters() if name not in changed}


def _prepared(model: nn.Module, plan: CutPlan, shared: Mapping[int, Any] | None = None) -> nn.Module:
    """A copy of `model` with all the biases that the plan folds constants into; what is `shared` (by its id) is not
    copied."""
    _check_kinds(model, plan)
    copy = copied(model, shared)
    give_biases(copy, plan.folds)
    _check_fit(copy, plan)
    return copy


def _narrow_stand_ins(model: nn.Module, plan: CutPlan) -> None:
    """Let zeros that earlier cuts left in place of blocks lose the channels that go now."""
    for module in model.modules():
        if isinstance(module, PassThrough):
            module.call = narrowed(module.call, plan.positions)


def _replace_blocks(model: nn.Module, plan: CutPlan) -> None:
    """Put a stand-in wherever the model holds one of the plan's blocks, also under a second name."""
    removed = [model.get_submodule(name) for name in plan.blocks]
    new = {id(old): _placed(old, plan.block_calls.get(name)) for name, old in zip(plan.blocks, removed, strict=True)}
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if id(child) in new:
                module._modules[name] = new[id(child)]
        if isinstance(module, nn.TransformerEncoder) and isinstance(next(iter(module.layers), None), PassThrough):
            module.use_nested_tensor = False  # its fast path reads the weights of its first layer


def _placed(removed: nn.Module, call: BlockCall | None) -> nn.Module:
    """What takes the place of a block, with what others read of it."""
    new = stand_in(call)
    _remember(new, removed)
    return new.train(removed.training)


def _remember(place: Any, removed: nn.Module) -> None:
    """Give `place` what the network around a removed module may read of it: its simple attributes, None for its
    tensors, and the same of the modules in it (torch's encoder asks its first layer's attention how batches lie)."""
    known = {name: value for name, value in vars(removed).items() if value is None or type(value) in SIMPLE}
    inner = {name: SimpleNamespace() for name, child in removed._modules.items() if child is not None}
    for name, value in {**known, **dict.fromkeys((*removed._parameters, *removed._buffers)), **inner}.items():
        if not hasattr(place, name):
            setattr(place, name, value)
            if name in inner:
                _remember(value, removed.get_submodule(name))


def misfit(model: nn.Module, plan: CutPlan) -> str:
    """What of the plan the model does not have, biases that the plan makes aside; "" if the plan fits."""
    tensors, modules = named_tensors(model), dict(model.named_modules())
    made = {f"{layer}.bias" for layer in plan.folds}
    for name in (*(cut.parameter for cut in plan.cuts), *plan.block_parameters):
        if name not in tensors and name not in made:
            return f"the model has no parameter or buffer {name!r}"
    for name in plan.blocks:
        if not name or name not in modules:
            return f"the model has no block {name!r}"
    present = (cut for cut in plan.cuts if cut.parameter in tensors)
    return next(filter(None, (_axis_misfit(cut, tensors[cut.parameter]) for cut in present)), "")


def _check_fit(model: nn.Module, plan: CutPlan) -> None:
    _check_kinds(model, plan)
    if fact := misfit(model, plan):
        raise CutError(
            f"{fact}: the plan was made for another network than this {type(model).__name__}; trace the model as it is "
            "now and plan again"
        )
    for cut in plan.cuts:
        _check_removed(cut)


def _axis_misfit(cut: AxisCut, tensor: Tensor) -> str:
    size = tensor.shape[cut.axis] if 0 <= cut.axis < tensor.dim() else None
    if size == cut.size:
        return ""
    return (
        f"the plan expects {cut.size} positions on axis {cut.axis} of {cut.parameter!r}, but its shape here is"
        f" {tuple(tensor.shape)}"
    )


def _check_axis(cut: AxisCut, tensor: Tensor) -> None:
    if fact := _axis_misfit(cut, tensor):
        raise CutError(f"{fact}; trace the model as it is now and plan again")
    _check_removed(cut)


def _check_removed(cut: AxisCut) -> None:
    distinct = set(cut.removed)
    if not distinct or len(distinct) >= cut.size or not 0 <= min(distinct) <= max(distinct) < cut.size:
        raise CutError(
            f"the plan removes {len(distinct)} of {cut.size} positions from axis {cut.axis} of {cut.parameter!r}:"
            " at least one must go, at least one must stay, and all must lie on the axis"
        )
