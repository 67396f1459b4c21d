"""The consumers of a network, in the order in which they run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from amsc.borrowing import borrowed, look_into, unfused_attention
from amsc.reconstruction.batches import run
from amsc.reconstruction.calls import LinearCall, layout
from amsc.reconstruction.watch import Link, Names, Watch

__all__ = ["Consumer", "Survey", "survey"]


@dataclass(frozen=True)
class Consumer:
    """A linear operator that reads the parameter `weight`.

    `bias` and `norm` (the running mean of a BatchNorm that alone reads the output) take a shift; None where there is
    none that may be changed. `stream`: how many steps lead to the sum with a stream, 0 if none does. `is_last`: nothing
    linear is between it and the output. Each position, which lie as `layout` says, reads `row_size` numbers for each of
    `groups`. `reason` says why it must be left alone."""

    weight: str
    bias: str | None
    norm: str | None
    stream: int
    is_last: bool
    groups: int
    outputs: int
    row_size: int
    layout: tuple[int, ...]
    transposed: bool
    num_calls: int = 1
    reason: str = ""

    @property
    def positions(self) -> int:
        """How many there are in the batch that was looked at."""
        return math.prod(self.layout)

    @property
    def has_shift(self) -> bool:
        """Whether a constant may be added to the output."""
        return self.bias is not None or self.norm is not None


@dataclass(frozen=True)
class Survey:
    """The `consumers` by the names of their weights, in order; and the BatchNorms that are called once, by their
    running means, with the number of consumers that run before each."""

    consumers: Mapping[str, Consumer]
    norms: Mapping[str, int]

    def norms_behind(self, weight: str) -> list[str]:
        """Those that run after this consumer."""
        place = list(self.consumers).index(weight)
        return [name for name, before in self.norms.items() if before > place]


def survey(model: nn.Module, batch: Any) -> Survey:
    """What a model has, as one batch shows it."""
    names = Names.of(model)
    watch = _Survey(names)
    with borrowed(model), unfused_attention():
        output = run(model, batch, watch)
        last = frozenset[str]().union(*(watch.sources(leaf) for leaf in look_into(output).tensors.values()))
    last |= {next(reversed(watch.calls))} if watch.calls else set()
    consumers = {name: _consumer(name, watch, names, name in last) for name in watch.calls}
    return Survey(consumers, {name: places[0] for name, places in watch.norms.items() if len(places) == 1 and name})


class _Survey(Watch):
    def __init__(self, names: Names) -> None:
        super().__init__(names)
        self.calls: dict[str, list[tuple[_Shape, Link]]] = {}
        self.norms: dict[str, list[int]] = {}
        self._sources: Any = WeakIdKeyDictionary()

    def sources(self, tensor: Tensor) -> frozenset[str]:
        """The consumers from which it came without passing another."""
        found: frozenset[str] = self._sources.get(tensor, frozenset())
        return found

    def made_of(self, given: Sequence[Tensor], made: Sequence[Tensor], name: str | None) -> None:
        sources = frozenset[str]().union(*map(self.sources, given)) if name is None else frozenset({name})
        for tensor in made:
            self._sources[tensor] = sources

    def called(self, name: str, call: LinearCall, output: Tensor) -> None:
        shape = _Shape.of(call, output, self.names)
        self.calls.setdefault(name, []).append((shape, self.start_of(output)))

    def normalised(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        mean = args[1] if len(args) > 1 else kwargs.get("running_mean")
        name = self.names.first.get(id(mean), "")
        self.norms.setdefault(name, []).append(len(self.calls))


@dataclass(frozen=True)
class _Shape:
    groups: int
    outputs: int
    row_size: int
    layout: tuple[int, ...]
    transposed: bool
    bias: str | None

    @classmethod
    def of(cls, call: LinearCall, output: Tensor, names: Names) -> "_Shape":
        takes_shift = call.bias is not None and call.bias.shape == (call.num_outputs,)
        bias = names.of_own(call.bias) if takes_shift else None
        return cls(call.groups, call.num_outputs, call.row_size, layout(call, output), call.transposed, bias)


def _consumer(name: str, watch: _Survey, names: Names, is_last: bool) -> Consumer:
    calls = watch.calls[name]
    shape, link = calls[0]
    return Consumer(
        weight=name,
        bias=shape.bias,
        norm=_norm_behind(link, watch, names),
        stream=link.to_stream(),
        is_last=is_last,
        groups=shape.groups,
        outputs=shape.outputs,
        row_size=shape.row_size,
        layout=shape.layout,
        transposed=shape.transposed,
        num_calls=len(calls),
        reason=_reason(name, len(calls), names),
    )


def _reason(name: str, num_calls: int, names: Names) -> str:
    weight = names.tensors[name]
    if name in names.several:
        return f"it is the same parameter as {', '.join(names.several[name][1:])}"
    if num_calls > 1:
        return f"it is used {num_calls} times in one forward pass"
    if not isinstance(weight, nn.Parameter):
        return "it is a buffer, not a parameter"
    if weight.is_complex():
        return "it is complex"
    return "" if weight.requires_grad else "it is frozen (requires_grad=False)"


def _norm_behind(link: Link, watch: _Survey, names: Names) -> str | None:
    """The running mean of the BatchNorm that is the only one to read the output, and reads nothing else."""
    if link.uses != 1 or link.next is None:
        return None
    mean = link.next.steps[-1].batch_norm_mean
    name = names.of_own(mean)
    return name if name is not None and len(watch.norms[name]) == 1 else None
