"""From a model and example inputs to its Structure."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.errors import ModelError
from amsc.model_access import InputSpec, borrowed, named_tensors, random_inputs, run_model
from amsc.structure.blocks import find_blocks
from amsc.structure.costs import layer_costs
from amsc.structure.groups import channel_groups
from amsc.structure.ownership import Ownership
from amsc.structure.tracer import Tracer
from amsc.structure.values import Block, Structure

__all__ = ["trace"]


def trace(model: nn.Module, example_inputs: Any) -> Structure:
    """The structure of `model`: channel groups, removable blocks, costs, and what must stay.

    Runs the model's own forward a few times in eval mode and without gradients; the model comes back as it was.

    Args:
        model: any module whose forward returns tensors (alone or in tuples, lists, dicts, dataclasses).
        example_inputs: one batch as forward takes it: a tensor, a tuple of positional or a dict of keyword arguments.

    Raises:
        ModelError: not a module, or compiled, scripted or wrapped for parallel training, or the output holds no tensor.
        InputError: forward fails on `example_inputs`, or they are on another device.
    """
    _refuse_wrapped(model)
    with borrowed(model):
        tensors = named_tensors(model)
        tracer = Tracer(tensors, {id(module): name for name, module in model.named_modules()})
        with tracer.watching():
            output = run_model(model, example_inputs)
        for tensor in _output_tensors(output):
            tracer.pin_layers(tracer.layers(tensor), "it is an output of the model")
        spec = InputSpec.of(example_inputs)
        used = {parameter.name: parameter for parameter in tracer.parameters.values() if parameter.name in tracer.used}
        ownership = Ownership(tracer.ledger, used.values())
        channels, pins = channel_groups(tracer.ledger, ownership)
        users = {name: parameter.modules for name, parameter in used.items()}
        device = next(iter(tensors.values())).device if tensors else torch.device("cpu")
        again = random_inputs(spec, device, torch.Generator().manual_seed(0))
        blocks = find_blocks(model, [example_inputs, again], users)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    structure = Structure(
        inputs=spec,
        shapes=shapes,
        buffers=tuple(name for name, _ in model.named_buffers()),
        channels=channels,
        blocks=(),
        costs=tuple(layer_costs(tracer.ledger.work, ownership, shapes)),
        pins=pins,
        unused=tuple(name for name, tensor in tensors.items() if name not in tracer.used and tensor.ndim),
    )
    return dataclasses.replace(structure, blocks=tuple(_block(structure, name) for name in blocks))


def _block(structure: Structure, name: str) -> Block:
    own = (p for p in structure.shapes if p.startswith(f"{name}.") and p not in structure.buffers)
    return Block(name, tuple(own), structure.block_macs(name))


def _refuse_wrapped(model: Any) -> None:
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {kind}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "the model is a TorchScript module, whose forward cannot be observed; give the original module"
        )
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ModelError(f"the model is wrapped in {kind}; give the module inside: model.module")
    if hasattr(model, "_orig_mod"):
        raise ModelError("the model is compiled; give the module from before torch.compile: model._orig_mod")


def _output_tensors(output: Any) -> list[Tensor]:
    """All tensors of a model's output.

    Raises:
        ModelError: it holds none, or holds objects amsc cannot look into.
    """
    tensors: list[Tensor] = []
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            tensors += _output_tensors([getattr(leaf, field.name) for field in dataclasses.fields(leaf)] or [None])
        elif leaf is not None and not isinstance(leaf, bool | int | float | str):
            raise ModelError(
                f"the model returned a {type(leaf).__name__}; "
                "expected tensors, alone or in tuples, lists, dicts or dataclasses"
            )
    if not tensors:
        raise ModelError(f"the model returned {type(output).__name__} without a tensor; expected at least one")
    return tensors
