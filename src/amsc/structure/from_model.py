"""From a model and example inputs to its Structure."""

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from amsc.borrowing import InputSpec, borrowed, check_devices, copied_inputs, named_tensors, output_leaves, run_model
from amsc.errors import AmscError, ModelError
from amsc.structure.blocks.dense_layers import with_dense_layers
from amsc.structure.blocks.plain_convolutions import plain_convolutions
from amsc.structure.blocks.search import BlockSearch, owners
from amsc.structure.cutting import block_macs
from amsc.structure.grouping.channel_groups import channel_groups
from amsc.structure.grouping.layer_costs import layer_costs
from amsc.structure.grouping.positions import Ownership
from amsc.structure.operators import views
from amsc.structure.operators.table import rule_for
from amsc.structure.structure import Block, Structure
from amsc.structure.tracing.foldable import takes_constants
from amsc.structure.tracing.overwritten import Guard
from amsc.structure.tracing.tracer import Tracer
from amsc.structure.tracing.without_values import computing_aside, fakes

__all__ = ["trace"]

_OUTPUT = "it is an output of the model"


def trace(model: nn.Module, example_inputs: Any, *, blocks: bool = True) -> Structure:
    """The structure of `model`: channel groups, removable blocks, costs, and what must stay.

    Runs the model's own forward a few times in eval mode and without gradients; the model comes back as it was.

    Args:
        model: any module whose forward returns tensors (alone or in tuples, lists, dicts, dataclasses).
        example_inputs: one batch as forward takes it: a tensor, a tuple of positional or a dict of keyword arguments.
        blocks: whether to look for removable blocks.

    Raises:
        ModelError: not a module, or compiled, scripted or wrapped for parallel training, or the output holds no tensor.
        InputError: forward fails on `example_inputs`, or they are on another device.
    """
    _refuse_wrapped(model)
    check_devices(model, example_inputs)
    with borrowed(model), _garbage_left():
        tensors = named_tensors(model)
        for module in model.modules():
            module._compiled_call_impl = None  # model.compile(): what is compiled cannot be observed
        tracer, search = _watched(model, example_inputs, tensors, blocks=blocks)
        spec = InputSpec.of(example_inputs)
        used = {parameter.name: parameter for parameter in tracer.parameters.values() if parameter.name in tracer.used}
        ownership = Ownership(tracer.ledger, used.values())
        channels, pins = channel_groups(tracer.ledger, ownership)
        users = {name: parameter.modules for name, parameter in used.items()}
        found = search.blocks(users) if search else ()
        new_channels = search.new_channels(users) if search else {}
        owning = owners(model, users) if search else set()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    structure = Structure(
        inputs=spec,
        shapes=shapes,
        buffers=tuple(name for name, _ in model.named_buffers()),
        channels=channels,
        blocks=(),
        costs=tuple(layer_costs(tracer.ledger.work, ownership, shapes, channels)),
        pins=pins,
        unused=tuple(name for name, tensor in tensors.items() if name not in tracer.used and tensor.ndim),
    )
    found = with_dense_layers(structure, found, new_channels)
    found += plain_convolutions(structure, model, owning, found)
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    found = tuple(sorted(found, key=lambda block: order[block.name]))
    return dataclasses.replace(structure, blocks=tuple(_completed(structure, block) for block in found))


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


def _watched(
    model: nn.Module, example_inputs: Any, tensors: Mapping[str, Tensor], *, blocks: bool
) -> tuple[Tracer, BlockSearch | None]:
    """The tracer, and the search for blocks, after both have watched one run; a model on the meta device is run without
    values, and any other too if its forward does not ask for values: shapes alone tell the structure, in a fraction of
    the time.

    Where the run leaves parameters unused that are used in training mode (auxiliary heads), the tracer has watched that
    too.
    """
    if any(tensor.is_meta for tensor in tensors.values()):
        with fakes(tensors, example_inputs) as (without, inputs):
            tracer = _tracer(model, without, aside=computing_aside)
            return tracer, _watch(tracer, model, lambda: run_model(model, inputs, without), blocks=blocks)
    guard = Guard(tensors)
    try:
        without = {name: tensor.to("meta") for name, tensor in tensors.items()}
        tracer = _tracer(model, without)
        try:
            search = _watch_on_meta(tracer, model, example_inputs, without, blocks=blocks)
        except AmscError:  # its forward needs values, or tensors amsc does not know
            tracer = _tracer(model, tensors, before=guard.keep)
            search = _watch(tracer, model, lambda: run_model(model, copied_inputs(example_inputs)), blocks=blocks)
        if any(tensor.ndim and name not in tracer.used for name, tensor in tensors.items()):
            probe = _tracer(model, tensors, before=guard.keep)
            again = _tracer(model, tensors, before=guard.keep)
            tracer = _watched_in_training(tracer, probe, again, model, example_inputs)
    finally:
        guard.give_back()
    return tracer, search


def _tracer(model: nn.Module, tensors: Mapping[str, Tensor], **options: Any) -> Tracer:
    names = {id(module): name for name, module in model.named_modules()}
    convolutions = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, _ConvNd) and name)
    kernels = {name for name in tensors if name.startswith(convolutions) or isinstance(model, _ConvNd)}
    foldable = {name for name, module in model.named_modules() if name and takes_constants(module)}
    return Tracer(tensors, names, kernels, foldable, views.RULES, rule_for, **options)


def _watch(tracer: Tracer, model: nn.Module, run: Callable[[], Any], *, blocks: bool = False) -> BlockSearch | None:
    """Let the tracer watch a run of the model, and if `blocks` a search for them, which is returned."""
    search = BlockSearch(model, tracer.parameter_name) if blocks else None
    tracer.after = search.observe if search else None
    with tracer.watching(), search.watching() if search else contextlib.nullcontext():
        output = run()
    with tracer.aside():
        tracer.ledger.sources[_OUTPUT] = ""  # no line of the model
        for tensor in _visible(output):
            tracer.pin_layers(tracer.layers(tensor), _OUTPUT)
    return search


def _watch_on_meta(
    tracer: Tracer, model: nn.Module, example_inputs: Any, without: Mapping[str, Tensor], *, blocks: bool
) -> BlockSearch | None:
    inputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to("meta"), example_inputs)
    with borrowed(model):  # what the run leaves in the model has no values
        return _watch(tracer, model, lambda: run_model(model, inputs, without), blocks=blocks)


def _watched_in_training(tracer: Tracer, probe: Tracer, again: Tracer, model: nn.Module, example_inputs: Any) -> Tracer:
    """`tracer`, or if the `probe` finds that a run in training mode uses more parameters, `again` after both runs."""

    def run() -> Any:
        return run_model(model, copied_inputs(example_inputs))

    model.train()
    try:
        _watch(probe, model, run)
        more = probe.used - tracer.used
        if any(parameter.name in more and parameter.tensor.ndim for parameter in probe.parameters.values()):
            _watch(again, model, run)
            again.ledger.work.clear()  # what training costs is not what the network costs
            model.eval()
            _watch(again, model, run)
            tracer = again
    except AmscError:  # it cannot be trained on these inputs, and what it would use then stays as it is
        pass
    finally:
        model.eval()
    return tracer


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
