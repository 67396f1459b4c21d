"""The runs of a model from which its structure is learnt, watched by a tracer and a search for blocks."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from amsc.borrowing import OwnState, borrowed, copied_inputs, example_calls, look_into, map_tensors, run_model
from amsc.errors import AmscError, ModelError
from amsc.structure.blocks.module_calls import NewChannels
from amsc.structure.blocks.search import BlockSearch
from amsc.structure.blocks.zeros import Zeros
from amsc.structure.operators import views
from amsc.structure.operators.table import rule_for
from amsc.structure.parts import Block
from amsc.structure.tracing.foldable import takes_constants
from amsc.structure.tracing.observer import Observer
from amsc.structure.tracing.overwritten import Guard
from amsc.structure.tracing.tracer import Tracer
from amsc.structure.tracing.without_values import computing_aside, fakes

__all__ = ["Watched", "watch"]

OUTPUT = "it is an output of the model"

Users = Mapping[str, set[str]]
"""The modules that used each parameter."""
Found = TypeVar("Found", Block, NewChannels)


@dataclass(frozen=True)
class Watched:
    """What was learnt: the `tracer` of all runs, a search for each example call (none if no blocks are looked for), and
    what of the output is the model's own state (class by place)."""

    tracer: Tracer
    searches: tuple[BlockSearch, ...] = ()
    state: dict[str, str] = field(default_factory=dict)

    def blocks(self, users: Users) -> tuple[Block, ...]:
        """The submodules that are blocks, and the same ones, in every example call that runs them."""
        found = [{block.name: block for block in search.blocks(users)} for search in self.searches]
        return tuple(self._agreed(found).values())

    def zeros(self, block: str) -> Mapping[int, Zeros]:
        """The zeros that the block leaves, by their place in its output."""
        return next((search.zeros[block] for search in self.searches if block in search.zeros), {})

    def new_channels(self, users: Users) -> dict[str, NewChannels]:
        """The submodules that could be layers of a DenseNet in every example call that runs them."""
        return self._agreed([search.new_channels(users) for search in self.searches])

    def _agreed(self, found: Sequence[Mapping[str, Found]]) -> dict[str, Found]:
        """By name what was found, of each search, alike in all that ran it."""
        agreed: dict[str, Found] = {}
        for name, one in (item for own in found for item in own.items()):
            told = [own.get(name) for own, search in zip(found, self.searches, strict=True) if name in search.ran]
            if all(other == one for other in told):
                agreed[name] = one
        return agreed


def watch(model: nn.Module, example_inputs: Any, tensors: Mapping[str, Tensor], *, blocks: bool) -> Watched:
    """What one run of each example call tells; a model on the meta device is run without values, and any other too if
    its forward does not ask for values: shapes alone tell the structure, in a fraction of the time.

    The work that is noted is that of the first call. Where the runs leave parameters unused that are used in training
    mode (auxiliary heads), the tracer has watched that too.
    """
    if any(tensor.is_meta for tensor in tensors.values()):
        with fakes(tensors, example_inputs) as (without, inputs):
            observer = _observer(model, without, aside=computing_aside)
            return _watch(observer, model, _runs(model, inputs, without), blocks=blocks)
    guard = Guard(tensors)
    try:
        without = {name: tensor.to("meta") for name, tensor in tensors.items()}
        try:
            watched = _watch_on_meta(_observer(model, without), model, example_inputs, without, blocks=blocks)
        except AmscError:  # its forward needs values, or tensors amsc does not know
            observer = _observer(model, tensors, before=guard.keep)
            watched = _watch(observer, model, _runs(model, example_inputs), blocks=blocks)
        used = _used(watched.tracer)
        if any(tensor.ndim and name not in used for name, tensor in tensors.items()):
            probe = _observer(model, tensors, before=guard.keep)
            again = _observer(model, tensors, before=guard.keep)
            watched = _watched_in_training(watched, probe, again, model, example_inputs)
    finally:
        guard.give_back()
    return watched


def _observer(model: nn.Module, tensors: Mapping[str, Tensor], **options: Any) -> Observer:
    names = {id(module): name for name, module in model.named_modules()}
    convolutions = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, _ConvNd) and name)
    kernels = {name for name in tensors if name.startswith(convolutions) or isinstance(model, _ConvNd)}
    foldable = {name for name, module in model.named_modules() if name and takes_constants(module)}
    tracer = Tracer.of(tensors, names, moves=views.RULES, kernels=kernels, foldable=foldable)
    return Observer(tracer, rule_for, **options)


Run = Callable[[], Any]


def _runs(model: nn.Module, example_inputs: Any, tensors: Mapping[str, Tensor] | None = None) -> list[Run]:
    """A function for each example call that runs it, on inputs of its own."""

    def run(call: Any) -> Any:
        return run_model(model, copied_inputs(call) if tensors is None else call, tensors)

    return [lambda call=call: run(call) for call in example_calls(example_inputs)]  # type: ignore[misc]


def _watch(observer: Observer, model: nn.Module, runs: Sequence[Run], *, blocks: bool = False) -> Watched:
    """Let the observer watch runs of the model, and if `blocks` a search for them each; the first run comes last, and
    the work that is noted is its own."""
    searches: list[BlockSearch] = []
    state: dict[str, str] = {}
    for run in (*runs[1:], runs[0]):
        search = BlockSearch(model, observer.tracer.parameters.name, observer.tracer.labels.layers) if blocks else None
        searches += [search] if search else []
        observer.after = search.observe if search else None
        observer.tracer.ledger.work.clear()
        with observer.watching(), search.watching() if search else contextlib.nullcontext():
            output = run()
        with observer.aside():
            state |= _pin_output(observer.tracer, output, OwnState.of(model))
    return Watched(observer.tracer, tuple(searches), state)


def _pin_output(tracer: Tracer, output: Any, own: OwnState) -> dict[str, str]:
    """The tensors that a caller sees in the output stay as they are; what is the model's own state is returned.

    Raises:
        ModelError: a caller sees none, or it holds something that cannot be looked into.
    """
    seen = look_into(output, own)
    if not seen.tensors:
        raise ModelError(
            f"the model returned {type(output).__name__} without a tensor"
            f"{f' but for its own state ({_named(seen.state)})' if seen.state else ''}; expected tensors, alone or in"
            " tuples, lists, dicts or other objects"
        )
    tracer.ledger.sources[OUTPUT] = ""  # no line of the model
    for tensor in seen.tensors.values():
        tracer.ledger.pin_layers(tracer.labels.layers(tensor), OUTPUT)
    return seen.state


def _named(state: Mapping[str, str]) -> str:
    return ", ".join(f"{name} of class {kind}" for name, kind in state.items())


def _watch_on_meta(
    observer: Observer, model: nn.Module, example_inputs: Any, without: Mapping[str, Tensor], *, blocks: bool
) -> Watched:
    inputs = map_tensors(lambda tensor: tensor.to("meta"), example_inputs)
    with borrowed(model):  # what the run leaves in the model has no values
        return _watch(observer, model, _runs(model, inputs, without), blocks=blocks)


def _watched_in_training(
    watched: Watched, probe: Observer, again: Observer, model: nn.Module, example_inputs: Any
) -> Watched:
    """What was `watched`, or if the `probe` finds that runs in training mode use more parameters, the same with what
    `again` has watched."""
    runs = _runs(model, example_inputs)
    model.train()
    try:
        _watch(probe, model, runs)
        before = _used(watched.tracer)
        if any(p.name not in before and p.tensor.ndim for p in probe.tracer.parameters.used()):
            _watch(again, model, runs)
            model.eval()
            _watch(again, model, runs)  # forgets what training costs: it is not what the network costs
            watched = Watched(again.tracer, watched.searches, watched.state)
    except AmscError:  # it cannot be trained on these inputs, and what it would use then stays as it is
        pass
    finally:
        model.eval()
    return watched


def _used(tracer: Tracer) -> set[str]:
    """Names of the parameters and buffers that the runs have used."""
    return {parameter.name for parameter in tracer.parameters.used()}
