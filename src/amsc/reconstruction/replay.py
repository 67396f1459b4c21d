"""Forward passes that go on from where the last one on the same batch stood, since nothing before that has changed.

Layers are refitted front to back, and each needs a pass up to itself. What such a pass computed before the layer that
was refitted last is given back to it, call by call of torch's functions, instead of being computed again. Only what the
pass still held by then is kept; of all else the user's code can ask no more than its shape.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.weak import TensorWeakRef, WeakIdKeyDictionary

from amsc.borrowing import devices_of, generator_states, map_tensors, storage_id
from amsc.reconstruction.watch import Watch

__all__ = ["LostError", "Pass", "Replay"]

MOST_BYTES = 2**30
"""Of all tensors that are kept. Batches for which this does not suffice are run from the start."""
PLAIN = (int, float, complex, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
"""What a function may return beside tensors and be given back again."""


class LostError(BaseException):
    """The pass is not the one that was noted. No `Exception`, which the user's forward may catch."""


@dataclass(frozen=True)
class _Made:
    """The tensor of this number."""

    number: int


@dataclass(frozen=True, eq=False)
class _Call:
    """A function that was called, and what it returned: numbered tensors, tensors of the network, plain values."""

    function: Callable[..., Any]
    layout: Any
    leaves: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class _Stop:
    """A pass up to a call: the `calls` before it, and by their numbers the inputs and what was made of them. `used` are
    those that were still in use, `others` those in the network's memory and stand-ins for what was not in use any
    more; `static` are the numbers of those that the watch knows not to come from the inputs. `size` in bytes."""

    calls: tuple[_Call, ...]
    used: Mapping[int, Tensor]
    others: Mapping[int, Tensor]
    static: frozenset[int]
    size: int

    def tensors(self) -> dict[int, Tensor]:
        """Tensors that may be written to; those that share memory do so again."""
        fresh = {number: tensor.detach() for number, tensor in self.others.items()}
        return fresh | copy.deepcopy(dict(self.used))


class Replay:
    """Where the last pass on each batch stood, by the number of the batch."""

    def __init__(self, model: nn.Module) -> None:
        self._own = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self._devices = devices_of(model)
        self._stops: dict[int, _Stop] = {}

    @contextmanager
    def going_on(self, number: int, inputs: Any, watch: Watch) -> Iterator[tuple["Pass", Any]]:
        """The mode under which forward is to be run on this batch, above `watch`, and the inputs it is to have.

        If that raises `LostError`, what runs is not what ran before; the batch has been forgotten and can be run
        again."""
        stop = self._stops.pop(number, None)
        leaves = _tensors(inputs)
        tensors = stop.tensors() if stop else dict(enumerate(leaves))
        again = iter([tensors[place] for place in range(len(leaves))])
        now = Pass(self._own, self._devices, watch, stop, tensors, len(leaves))
        yield now, map_tensors(lambda _: next(again), inputs)
        left = now.stop or stop
        if left is not None and left.size + sum(one.size for one in self._stops.values()) <= MOST_BYTES:
            self._stops[number] = left


class Pass(TorchFunctionMode):
    """One forward pass: what was noted is given back, and what comes then is noted until `stop_here`.

    Nothing is noted where a tensor comes from elsewhere (a function that torch does not show, an attribute that is no
    buffer), where random numbers are drawn or where the network's own tensors are written to."""

    def __init__(
        self,
        own: Mapping[int, Tensor],
        devices: Sequence[torch.device],
        watch: Watch,
        before: _Stop | None,
        tensors: dict[int, Tensor],
        num_inputs: int,
    ) -> None:
        super().__init__()
        self.stop: _Stop | None = None
        self._own, self._devices, self._watch, self._before = own, devices, watch, before
        self._calls = list(before.calls) if before else []
        self._next, self._ahead = 0, tensors
        self._refs: list[TensorWeakRef] = []
        self._forms: list[Tensor] = []
        self._numbers: Any = WeakIdKeyDictionary()
        self._is_whole = True
        self._start = self._state()
        for number in range(num_inputs):
            self._number(tensors.pop(number))

    def _state(self) -> tuple[Any, ...]:
        """What a pass that is noted leaves as it is."""
        return generator_states(self._devices), sum(tensor._version for tensor in self._own.values())

    def __torch_function__(
        self, function: Any, kinds: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Give back what the function returned before, or run it and note that."""
        kwargs = kwargs or {}
        if self._before is not None and self._next < len(self._before.calls):
            with torch._C.DisableTorchFunction():
                return self._returned(function, self._before)
        if self._is_whole and not all(self._is_known(leaf) for leaf in pytree.tree_leaves((args, kwargs))):
            if self._before is not None:  # it may have been made of a stand-in
                raise LostError
            self._is_whole = False
        result = function(*args, **kwargs)
        if self._is_whole:
            with torch._C.DisableTorchFunction():
                self._note(function, result)
        return result

    def _returned(self, function: Any, before: _Stop) -> Any:
        call = before.calls[self._next]
        if call.function != function:
            raise LostError
        self._next += 1
        leaves = [self._again(leaf.number, before) if isinstance(leaf, _Made) else leaf for leaf in call.leaves]
        return pytree.tree_unflatten(leaves, call.layout)

    def _again(self, number: int, before: _Stop) -> Tensor:
        if number == len(self._refs):
            tensor = self._ahead.pop(number)
            if number in before.static:
                self._watch.mark_static(tensor)
            self._number(tensor)
            return tensor
        found: Tensor | None = self._refs[number]()
        if found is None:
            raise LostError
        return found

    def _number(self, tensor: Tensor) -> None:
        """Held weakly, so that it shows whether the pass still does."""
        self._numbers[tensor] = len(self._refs)
        self._refs.append(TensorWeakRef(tensor))
        self._forms.append(torch.empty((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape))

    def _is_known(self, leaf: Any) -> bool:
        return not isinstance(leaf, Tensor) or id(leaf) in self._own or leaf in self._numbers

    def _note(self, function: Any, result: Any) -> None:
        leaves, layout = pytree.tree_flatten(result)
        self._is_whole &= all(isinstance(leaf, (*PLAIN, Tensor)) for leaf in leaves)
        for leaf in leaves:
            if not self._is_known(leaf):
                self._number(leaf)
        noted = (
            _Made(self._numbers[leaf]) if isinstance(leaf, Tensor) and id(leaf) not in self._own else leaf
            for leaf in leaves
        )
        self._calls.append(_Call(function, layout, tuple(noted)))

    def stop_here(self) -> None:
        """Let the next pass on this batch go on before the call that is running."""
        if self.stop is not None or not self._is_whole or self._state() != self._start:
            return
        memory = {storage_id(tensor) for tensor in self._own.values()}
        in_use = {number: tensor for number, ref in enumerate(self._refs) if (tensor := ref()) is not None}
        used = {number: tensor for number, tensor in in_use.items() if storage_id(tensor) not in memory}
        others = {number: in_use.get(number, form) for number, form in enumerate(self._forms) if number not in used}
        static = frozenset(number for number, tensor in in_use.items() if self._watch.is_static(tensor))
        storages = {storage_id(tensor): tensor.untyped_storage().nbytes() for tensor in used.values()}
        self.stop = _Stop(tuple(self._calls), copy.deepcopy(used), others, static, sum(storages.values()))


def _tensors(inputs: Any) -> list[Tensor]:
    """The tensors of a call, in order."""
    found: list[Tensor] = []

    def seen(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(seen, inputs)
    return found
