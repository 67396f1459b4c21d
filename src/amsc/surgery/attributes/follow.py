"""The order in which stored sizes follow a cut: each module's own tensors, attention heads, then other widths."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor, nn

from amsc.surgery.attributes.attention import HEAD_NAMES, Kinds, head_changes, head_kinds, heads_stay
from amsc.surgery.attributes.by_value import follow_values
from amsc.surgery.attributes.config import ConfigChanges, config_changes, own_config
from amsc.surgery.attributes.tensors import follow_own_tensors
from amsc.surgery.attributes.values import Changes, read_names, set_sizes, stored_sizes
from amsc.surgery.attributes.widths import width_changes
from amsc.surgery.multihead import follow_multihead
from amsc.surgery.plan import AxisCut

__all__ = ["OwnedCuts", "follow_cuts", "owned_cuts"]

OwnedCuts = Mapping[nn.Module, tuple[AxisCut, ...]]
"""The cuts by the module that owns the tensor."""


def owned_cuts(
    model: nn.Module, tensors: Mapping[str, Tensor], cuts: Mapping[str, Iterable[AxisCut]]
) -> dict[nn.Module, tuple[AxisCut, ...]]:
    """The cuts by the module that owns the tensor, in which `parameter` is the tensor's name within that module.

    To be asked before the tensors are replaced; a tied tensor counts for each of its owners.
    """
    by_tensor = {id(tensors[name]): tuple(axis_cuts) for name, axis_cuts in cuts.items()}
    owned: dict[nn.Module, tuple[AxisCut, ...]] = {}
    for module in model.modules():
        own = {**module._parameters, **module._buffers}
        found = tuple(replace(cut, parameter=name) for name, t in own.items() for cut in by_tensor.get(id(t), ()))
        if found:
            owned[module] = found
    return owned


def follow_cuts(model: nn.Module, owned: OwnedCuts, *, by_value: bool = True) -> ConfigChanges:
    """Set the sizes that the modules of `model` store, after the tensors have been cut as `owned` says; what is
    returned is for `follow_config`.

    A size is changed where its name is known and its old value is the one that was cut, or where its value can be
    nothing else (if `by_value`). What this gets wrong, or does not know, shows when the cut is verified, and is then
    looked for by trying. Numbers that scale something, such as head_dim**-0.5, stay.

    Raises:
        CutError: part of a convolution group, normalisation group or attention head would be removed.
    """
    known = {module for module, cuts in owned.items() if follow_own_tensors(module, cuts)}
    kinds: dict[nn.Module, Kinds] = {}
    changes: dict[nn.Module, Changes] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            follow_multihead(module, owned.get(module, ()), owned.get(module.out_proj, ()))
        elif module not in known:
            changes[module] = width_changes(module, owned)
            if heads := head_kinds(module, owned):
                kinds[module] = heads
                # the names of heads are theirs, also where they stay as they are
                changes[module] = {name: new for name, new in changes[module].items() if name not in HEAD_NAMES}
                changes[module] |= head_changes(heads, stored_sizes(module), read_names(module))
    proposal = config_changes(model, kinds, owned)
    for module, change in changes.items():
        if module in kinds:
            own_config(module, kinds[module])
        set_sizes(module, change)
        if by_value:
            are_known = module in kinds or heads_stay(module, owned)
            follow_values(module, owned, HEAD_NAMES | change.keys() if are_known else change.keys())
    _stop_nested_tensors(model)
    return proposal


def _stop_nested_tensors(model: nn.Module) -> None:
    """Only stock attention layers take the nested tensors that nn.TransformerEncoder makes of padded batches."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and not all(
            attention._qkv_same_embed_dim
            for attention in module.modules()
            if isinstance(attention, nn.MultiheadAttention)
        ):
            module.enable_nested_tensor = module.use_nested_tensor = False
