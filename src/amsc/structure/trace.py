"""From a model and example inputs to its Structure."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from amsc.errors import AmscError, ModelError
from amsc.model_access import InputSpec, borrowed, named_tensors, output_leaves, run_model
from amsc.structure.blocks import find_blocks
from amsc.structure.costs import layer_costs
from amsc.structure.faking import computing_aside, fakes
from amsc.structure.folding import takes_constants
from amsc.structure.groups import channel_groups
from amsc.structure.guard import Guard
from amsc.structure.ownership import Ownership
from amsc.structure.rules import rule_for
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
        for module in model.modules():
            module._compiled_call_impl = None  # model.compile(): what is compiled cannot be observed
        tracer = _watched(model, example_inputs, tensors)
        spec = InputSpec.of(example_inputs)
        used = {parameter.name: parameter for parameter in tracer.parameters.values() if parameter.name in tracer.used}
        ownership = Ownership(tracer.ledger, used.values())
        channels, pins = channel_groups(tracer.ledger, ownership)
        users = {name: parameter.modules for name, parameter in used.items()}
        blocks = _blocks(model, example_inputs, tensors, users)
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
    return dataclasses.replace(structure, blocks=tuple(_completed(structure, block) for block in blocks))


def _watched(model: nn.Module, example_inputs: Any, tensors: Mapping[str, Tensor]) -> Tracer:
    """The tracer after it has watched one run; a model on the meta device is run without values.

    Where the run leaves parameters unused that are used in training mode (auxiliary heads), it has watched that too.
    """
    names = {id(module): name for name, module in model.named_modules()}
    convolutions = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, _ConvNd) and name)
    kernels = {name for name in tensors if name.startswith(convolutions) or isinstance(model, _ConvNd)}
    foldable = {name for name, module in model.named_modules() if name and takes_constants(module)}
    if any(tensor.is_meta for tensor in tensors.values()):
        with fakes(tensors, example_inputs) as (without, inputs):
            tracer = Tracer(without, names, kernels, foldable, rule_for, computing_aside)
            _watch(tracer, lambda: run_model(model, inputs, without))
        return tracer
    tracer = Tracer(tensors, names, kernels, foldable, rule_for)
    with Guard(tensors):
        _watch(tracer, lambda: run_model(model, example_inputs))
        if any(tensor.ndim and name not in tracer.used for name, tensor in tensors.items()):
            _watch_training(tracer, Tracer(tensors, names, kernels, foldable, rule_for), model, example_inputs)
    return tracer


def _watch(tracer: Tracer, run: Callable[[], Any]) -> None:
    with tracer.watching():
        output = run()
    with tracer.aside():
        for tensor in _visible(output):
            tracer.pin_layers(tracer.layers(tensor), "it is an output of the model")


def _watch_training(tracer: Tracer, probe: Tracer, model: nn.Module, example_inputs: Any) -> None:
    """Watch a run in training mode as well, if the `probe` finds that it uses more parameters."""
    model.train()
    try:
        _watch(probe, lambda: run_model(model, example_inputs))
        if probe.used - tracer.used:
            _watch(tracer, lambda: run_model(model, example_inputs))
    except AmscError:  # it cannot be trained on these inputs, and what it would use then stays as it is
        pass
    finally:
        model.eval()


def _blocks(
    model: nn.Module, example_inputs: Any, tensors: Mapping[str, Tensor], users: Mapping[str, set[str]]
) -> tuple[Block, ...]:
    if not any(tensor.is_meta for tensor in tensors.values()):
        with Guard(tensors):
            return find_blocks(model, lambda: run_model(model, example_inputs), users)
    with fakes(tensors, example_inputs) as (without, inputs):
        return find_blocks(model, lambda: run_model(model, inputs, without), users, computing_aside)


def _completed(structure: Structure, block: Block) -> Block:
    own = (p for p in structure.shapes if p.startswith(f"{block.name}.") and p not in structure.buffers)
    return dataclasses.replace(block, parameters=tuple(own), macs=structure.block_macs(block.name))


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


def _visible(output: Any) -> list[Tensor]:
    """The tensors that a caller sees in a model's output.

    Raises:
        ModelError: it holds none.
    """
    tensors = [leaf for leaf in output_leaves(output).values() if isinstance(leaf, Tensor)]
    if not tensors:
        raise ModelError(
            f"the model returned {type(output).__name__} without a tensor; "
            "expected tensors, alone or in tuples, lists, dicts or dataclasses"
        )
    return tensors
