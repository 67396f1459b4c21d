"""From a model and example inputs to its Structure."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.errors import ModelError
from amsc.model_access import InputSpec, borrowed, named_tensors, run_model
from amsc.structure.blocks import find_blocks
from amsc.structure.groups import channel_groups
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
            tracer.ledger.pin(tracer.labels(tensor), "it is an output of the model")
        spec = InputSpec.of(example_inputs)
        used = {parameter.name: parameter for parameter in tracer.parameters.values() if parameter.name in tracer.used}
        channels, pins = channel_groups(tracer.ledger, used.values())
        users = {name: parameter.modules for name, parameter in used.items()}
        blocks = find_blocks(model, example_inputs, users)
    structure = Structure(
        inputs=spec,
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        buffers=tuple(name for name, _ in model.named_buffers()),
        channels=channels,
        blocks=(),
        costs=tuple(tracer.costs),
        pins=pins,
        unused=tuple(name for name, tensor in tensors.items() if name not in tracer.used and tensor.ndim),
    )
    return dataclasses.replace(structure, blocks=tuple(_completed(structure, block) for block in blocks))


def _completed(structure: Structure, block: Block) -> Block:
    own = (p for p in structure.shapes if p.startswith(f"{block.name}.") and p not in structure.buffers)
    return dataclasses.replace(block, parameters=tuple(own), macs=structure.block_macs(block.name))


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
    """All tensors of a model's output, those that an object such as a cache holds included.

    Raises:
        ModelError: it holds none, or holds objects in which amsc finds none.
    """
    tensors: list[Tensor] = []
    for leaf in pytree.tree_leaves(output):
        found = list(_tensors_in(leaf, set()))
        if not found and leaf is not None and not isinstance(leaf, bool | int | float | str):
            raise ModelError(
                f"the model returned a {type(leaf).__name__}; "
                "expected tensors, alone or in tuples, lists, dicts or dataclasses"
            )
        tensors += found
    if not tensors:
        raise ModelError(f"the model returned {type(output).__name__} without a tensor; expected at least one")
    return tensors


def _tensors_in(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """The tensors in `value` and in the attributes of the objects in it; `seen`: ids of objects not to open again."""
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif id(leaf) not in seen and not isinstance(leaf, type | nn.Module):
            seen.add(id(leaf))
            yield from _tensors_in(list(getattr(leaf, "__dict__", {}).values()), seen)
