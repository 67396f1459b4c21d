"""Facts about the tensors of a running network, under several assumptions at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from amsc.borrowing import storage_id
from amsc.structure.blocks.facts import CONSTANT, ZERO, Fact, Known, derived, made, operands_of

__all__ = ["Assumption", "Assumptions", "Facts"]


@dataclass(eq=False)
class Assumption:
    """Something that is assumed as long as it `holds`. What is known under its `base` is true under it too."""

    base: "Assumption | None" = None
    holds: bool = True


Facts = dict[Assumption | None, Fact]  # None: whatever is assumed


@dataclass
class _Entry:
    """What is known of a tensor, and whether no element of it is ever negative."""

    facts: Facts = field(default_factory=dict)
    is_positive: bool = False

    def under(self, assumption: Assumption | None) -> Fact | None:
        """The fact under an assumption."""
        while assumption is not None and assumption not in self.facts:
            assumption = assumption.base
        return self.facts.get(assumption)

    def known(self, assumption: Assumption | None) -> Known:
        """What is known under an assumption."""
        fact = self.under(assumption)
        return Known(fact, self.is_positive or (fact is not None and fact.is_positive))


class Assumptions:
    """Follows every operator of a run, and what it makes of the facts about its operands.

    Args:
        of_parameter: the facts about a tensor if it is a parameter or buffer, None of another one.
    """

    def __init__(self, of_parameter: Callable[[Tensor], Facts | None]) -> None:
        self._of_parameter = of_parameter
        self._entries = WeakTensorKeyDictionary()
        self._by_storage: dict[int, list[TensorWeakRef]] = {}

    def set_input(self, tensor: Tensor) -> None:
        """`tensor` is an input of the network; one that neither this is said of nor any operator made is a constant."""
        self._store(tensor, _Entry())

    def assume(self, tensor: Tensor, assumption: Assumption, fact: Fact) -> None:
        """Take `fact` for true of `tensor` under the assumption."""
        if tensor not in self._entries:
            self._store(tensor, _Entry())
        self._entries[tensor].facts[assumption] = fact

    def is_positive(self, tensor: Tensor) -> bool:
        """Whether no element of `tensor` is negative, whatever is assumed."""
        return self._entry(tensor).is_positive

    def forget(self, tensor: Tensor, assumption: Assumption) -> None:
        """Take back what was assumed of `tensor`."""
        if tensor in self._entries:
            self._entries[tensor].facts.pop(assumption, None)

    def fact(self, tensor: Tensor, assumption: Assumption | None) -> Fact | None:
        """What is known of `tensor` under the assumption."""
        return self._entry(tensor).under(assumption)

    def observe(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """An operator has run."""
        parts = output if isinstance(output, tuple | list) else [output]
        outputs = [part for part in parts if isinstance(part, Tensor)]
        if not outputs and not func._schema.is_mutable:
            return
        fact = made(func, args)
        if fact is not None:
            entries = [_Entry({None: fact}, fact is ZERO) for _ in outputs]
        else:
            entries = self._derived(func, args, kwargs, outputs)
        written = {id(tensor): tensor for tensor in _written(func, args)}
        for tensor, entry in zip(outputs, entries, strict=True):
            if written.pop(id(tensor), None) is not None:
                self._overwrite(tensor, entry)
            else:
                self._store(tensor, entry)
        for tensor in written.values():
            self._overwrite(tensor, _Entry())

    def _derived(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[Tensor]) -> list[_Entry]:
        entries = [self._entry(operand) for operand in operands_of((*args, *kwargs.values()))]
        cases = {case for entry in entries for case in entry.facts if case is not None and case.holds}
        always = [entry.under(None) for entry in entries]
        new = [_Entry() for _ in outputs]
        for case in (None, *cases):
            known = [entry.known(case) for entry in entries]
            if case is None and not (ZERO in always or None not in always):  # only whether it is positive
                known = [Known(None, entry.is_positive) for entry in entries]
            for entry, result in zip(new, derived(func, args, kwargs, known, outputs), strict=True):
                entry.is_positive = entry.is_positive or (case is None and result.is_positive)
                if result.fact is not None:
                    entry.facts[case] = result.fact
        return new

    def _entry(self, tensor: Tensor) -> _Entry:
        known: _Entry | None = self._entries.get(tensor)
        given = self._of_parameter(tensor)
        if known is None:
            return _Entry({None: CONSTANT} if given is None else given)
        return _Entry({**given, **known.facts}, known.is_positive) if given else known

    def _store(self, tensor: Tensor, entry: _Entry) -> None:
        self._entries[tensor] = entry
        self._by_storage.setdefault(storage_id(tensor), []).append(TensorWeakRef(tensor))

    def _overwrite(self, tensor: Tensor, entry: _Entry) -> None:
        """`tensor` has been written to: of whatever shares its memory only what both agree on is still known."""
        for other in self._sharing(tensor):
            old = self._entries[other]
            both = ((case, old.under(case), entry.under(case)) for case in {*old.facts, *entry.facts})
            agreed = {case: fact for case, fact, new in both if fact is new and fact in (ZERO, CONSTANT)}
            self._entries[other] = _Entry(agreed, old.is_positive and entry.is_positive)
        self._store(tensor, entry)

    def _sharing(self, tensor: Tensor) -> Iterator[Tensor]:
        for reference in self._by_storage.get(storage_id(tensor), []):
            other = reference()
            if other is not None and other is not tensor and storage_id(other) == storage_id(tensor):
                yield other


def _written(func: Any, args: tuple[Any, ...]) -> list[Tensor]:
    """The arguments that the operator writes to."""
    if not func._schema.is_mutable:
        return []
    places = zip(func._schema.arguments, args, strict=False)
    return operands_of(arg for place, arg in places if place.alias_info is not None and place.alias_info.is_write)
