"""From a model and example inputs to its Structure."""

import contextlib
import dataclasses
import gc
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from amsc.borrowing import InputSpec, borrowed, check_devices, named_tensors
from amsc.errors import AmscWarning, ModelError
from amsc.structure.blocks.dense_layers import with_dense_layers
from amsc.structure.blocks.plain_convolutions import plain_convolutions
from amsc.structure.blocks.search import owners
from amsc.structure.blocks.zeros import with_own_widths
from amsc.structure.cutting import block_macs
from amsc.structure.grouping.layer_costs import AxisOwners, layer_costs
from amsc.structure.grouping.shares import grouped_channels
from amsc.structure.structure import Block, Structure
from amsc.structure.watching import watch
from amsc.words.alike import name_together

__all__ = ["trace"]


def trace(model: nn.Module, example_inputs: Any, *, blocks: bool = True) -> Structure:
    """The structure of `model`: channel groups, removable blocks, costs, and what must stay.

    Runs the model's own forward a few times in eval mode and without gradients; the model comes back as it was.
    A warning names the parameters that no example call uses: what they belong to may not work after a cut.

    Args:
        model: any module whose forward returns tensors (alone, or in whatever objects can be looked into).
        example_inputs: one batch as forward takes it: a tensor, a tuple or list of positional or a dict of keyword
            arguments; or `amsc.Calls` of several of these, which together run the whole network. Costs are those of the
            first.
        blocks: whether to look for removable blocks.

    Raises:
        ModelError: not a module, or compiled, scripted or wrapped for parallel training, or the output holds no tensor,
            or something that could hide one and cannot be looked into.
        InputError: forward fails on `example_inputs`, or they are on another device.
    """
    _refuse_wrapped(model)
    check_devices(model, example_inputs)
    with borrowed(model), _garbage_left():
        tensors = named_tensors(model)
        for module in model.modules():
            module._compiled_call_impl = None  # model.compile(): what is compiled cannot be observed
        watched = watch(model, example_inputs, tensors, blocks=blocks)
        tracer = watched.tracer
        spec = InputSpec.of(example_inputs)
        used = {parameter.name: parameter for parameter in tracer.parameters.used()}
        ownership, channels, pins = grouped_channels(tracer.ledger, tuple(used.values()))
        users = {name: parameter.modules for name, parameter in used.items()}
        found, new_channels = watched.blocks(users), watched.new_channels(users)
        owning = owners(model, users) if blocks else set()
        by_labels = AxisOwners(ownership, channels)
        names = [block.name for block in found]
        found = tuple(with_own_widths(block, watched.zeros(block.name), by_labels, names) for block in found)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    structure = Structure(
        inputs=spec,
        shapes=shapes,
        buffers=tuple(name for name, _ in model.named_buffers()),
        channels=channels,
        blocks=(),
        costs=tuple(layer_costs(tracer.ledger.work, by_labels, shapes)),
        pins=pins,
        unused=tuple(name for name, tensor in tensors.items() if name not in used and tensor.ndim),
    )
    found = with_dense_layers(structure, found, new_channels)
    found += plain_convolutions(structure, model, owning, found)
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    found = tuple(sorted(found, key=lambda block: order[block.name]))
    structure = dataclasses.replace(structure, blocks=tuple(_completed(structure, block) for block in found))
    _warn_of_state(watched.state)
    _warn_of_unused(structure)
    return structure


@contextlib.contextmanager
def _garbage_left() -> Iterator[None]:
    """No garbage is collected: tracing makes many small objects that live, and to look for cycles among them and all
    of torch's takes longer than all the rest."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _warn_of_state(state: Mapping[str, str]) -> None:
    for name, kind in state.items():
        warnings.warn(
            f"{name}, of class {kind}, is taken for state that the model hands itself from call to call, since a"
            " forward in it takes such an object as an optional argument: the widths of its tensors may follow a cut,"
            " and are not verified. If somebody else reads it, return its tensors instead (in a tuple or dict)",
            AmscWarning,
            stacklevel=3,
        )


def _warn_of_unused(structure: Structure) -> None:
    """Whoever reads what a cut removes must have been seen to do so."""
    unused = [name for name in structure.unused if name not in structure.buffers]
    is_removable = structure.blocks or any(group.removable and group.size > 1 for group in structure.channels)
    if unused and is_removable:
        warnings.warn(
            f"the example inputs do not run {name_together(unused, most=8)}: what these belong to is left as it is, and"
            " may not work after a cut of what it reads. Give example calls that run it as well, amsc.Calls(first,"
            " second), wherever example inputs are taken, or remove it from the model if it is not needed",
            AmscWarning,
            stacklevel=3,
        )


def _completed(structure: Structure, block: Block) -> Block:
    own = (p for p in structure.shapes if p.startswith(f"{block.name}.") and p not in structure.buffers)
    return dataclasses.replace(block, parameters=tuple(own), macs=block_macs(structure, block.name))


def _refuse_wrapped(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        where = f"the submodule {name!r}" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                f"{where} is a TorchScript module, whose forward cannot be observed; give the original module"
            )
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise ModelError(
                f"{where} is wrapped in {type(module).__name__}; give the module inside: {name or 'model'}.module"
            )
        if hasattr(module, "_orig_mod"):
            raise ModelError(
                f"{where} is compiled; give the module from before torch.compile: {name or 'model'}._orig_mod"
            )
        if any(is_lazy(tensor) for tensor in (*module._parameters.values(), *module._buffers.values())):
            raise ModelError(
                f"{where} is lazy and has no shapes yet; run the model once on a batch, and give it after that"
            )
