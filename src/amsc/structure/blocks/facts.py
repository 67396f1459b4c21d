"""What is known of tensors in a network some of whose parameters are zero, and what each operator makes of that.

Abstract interpretation: a fact holds for all inputs, and for all values of the parameters that are not zero. What an
operator makes of facts is found by running it on a few numbers, except for products and averages, whose operands are
large."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from amsc.borrowing import storage_id
from amsc.structure.operators.registry import FactRule
from amsc.structure.operators.table import fact_rule_for

__all__ = ["BROKEN", "CONSTANT", "ZERO", "Fact", "Known", "derived", "is_same_view", "made", "operands_of"]


@dataclass(frozen=True, eq=False)
class Fact:
    """`kind`: "zero", "same" (it equals `twin`, an argument of a module or a view of one, or `is_shifted`: but for a
    constant), "padded" (it is `core`, such an argument, and zeros beside it), "constant" (it does not depend on the
    inputs) or "broken" (not a number, or infinite); `is_positive`: no element is negative."""

    kind: str
    twin: Tensor | None = None
    is_shifted: bool = False
    is_positive: bool = False
    core: Tensor | None = None


ZERO, CONSTANT, BROKEN = Fact("zero", is_positive=True), Fact("constant"), Fact("broken")


@dataclass(frozen=True)
class Known:
    """Of one tensor: the fact about it, if any, and whether it is known to have no negative element."""

    fact: Fact | None = None
    is_positive: bool = False


SAMPLES = 96
MOST_PROBED = 1 << 24  # numbers in the operands of an operator that is run on tensors of their shapes


def operands_of(arguments: Iterable[Any]) -> list[Tensor]:
    """The tensors among the arguments of an operator, also those in lists, in their order."""
    found: list[Tensor] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            found.append(argument)
        elif isinstance(argument, list | tuple):
            found += [part for part in argument if isinstance(part, Tensor)]
    return found


def is_same_view(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors are the same elements of the same memory in the same order."""
    if one is None or other is None:
        return False
    return one is other or (
        storage_id(one) == storage_id(other)
        and (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        and one.storage_offset() == other.storage_offset()
    )


def made(func: Any, args: tuple[Any, ...]) -> Fact | None:
    """The fact about the output of an operator that looks at the values of no tensor; None of another operator."""
    name = _name(func)
    if operands_of(args) and not name.startswith("new_") and not name.endswith("_like"):
        return None
    rule = fact_rule_for(name)
    if rule is not None and rule.kind == "filled" and rule.addend is not None:
        return ZERO if args[rule.addend] == 0 else CONSTANT
    return ZERO if rule is not None and rule.kind == "zeros" else CONSTANT


def derived(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], known: Sequence[Known], outputs: Sequence[Tensor]
) -> list[Known]:
    """What is known of the `outputs` of an operator, of whose operands (see `operands_of`) `known` is."""
    call = _Call(func, args, kwargs, operands_of((*args, *kwargs.values())), known)
    if any(one.fact is BROKEN for one in known):
        return [Known(BROKEN)] * len(outputs)
    if call.is_view_of_one(outputs):
        return call.views(outputs)
    if _is_pointwise(func):
        return [call.pointwise(output) for output in outputs]
    is_positive = call.is_positive
    return [Known(fact, is_positive) for fact in call.mixed(outputs)]


@dataclass(frozen=True)
class _Outcome:
    """What an operator makes of every element: a kind of fact ("" for none), the number of the operand that it is the
    same as, and whether it is never negative."""

    kind: str = ""
    operand: int = -1
    is_positive: bool = False


_outcomes: dict[Hashable, list[_Outcome]] = {}


@dataclass(frozen=True)
class _Call:
    """One call of an operator, and what is known of its operands."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    operands: list[Tensor]
    known: Sequence[Known]

    @property
    def name(self) -> str:
        return _name(self.func)

    @property
    def facts(self) -> list[Fact | None]:
        return [one.fact for one in self.known]

    @property
    def floating(self) -> list[Known]:
        return [one for one, operand in zip(self.known, self.operands, strict=True) if operand.is_floating_point()]

    @property
    def is_positive(self) -> bool:
        is_average = _kind(self.name) == "average" and bool(self.floating)
        return _kind(self.name) == "positive" or (is_average and all(one.is_positive for one in self.floating))

    def is_view_of_one(self, outputs: Sequence[Tensor]) -> bool:
        """Whether nothing is computed: the outputs are views of the only operand."""
        return (
            len(self.operands) == 1
            and not self.func._schema.is_mutable
            and all(storage_id(output) == storage_id(self.operands[0]) for output in outputs)
        )

    def views(self, outputs: Sequence[Tensor]) -> list[Known]:
        """What is known of views of the only operand."""
        fact, is_positive = self.known[0].fact, self.known[0].is_positive
        if fact is not None and fact.core is not None:
            return [Known(None, is_positive)] * len(outputs)
        if fact is None or fact.twin is None:
            return [Known(fact, is_positive)] * len(outputs)
        args, kwargs = _filled((self.args, self.kwargs), iter([fact.twin]))
        try:
            twins = self.func(*args, **kwargs)
        except RuntimeError:  # the argument is laid out in another way, which does not allow this view
            return [Known(None, is_positive)] * len(outputs)
        twins = [twins] if isinstance(twins, Tensor) else twins
        return [Known(replace(fact, twin=twin), is_positive) for twin in twins]

    def pointwise(self, output: Tensor) -> Known:
        """What is known of the `output` of an operator that does the same with all elements."""
        (outcome,) = self._tried(self._roles(output), [(SAMPLES,)] * len(self.operands), 1)
        fact = {"zero": ZERO, "broken": BROKEN}.get(outcome.kind)
        if outcome.kind == "same":
            fact = self.known[outcome.operand].fact
        return Known(fact or self._constant() or self._shifted(output), outcome.is_positive)

    def mixed(self, outputs: Sequence[Tensor]) -> list[Fact | None]:
        """The facts about the outputs of an operator that combines elements."""
        found: list[Fact | None] = [None] * len(outputs)
        rule = fact_rule_for(self.name)
        if rule is not None and rule.kind == "product":
            found[0] = ZERO if self._is_zero_product(rule) else None
        elif rule is not None and rule.kind == "average":
            is_zero = bool(self.floating) and all(one.fact is ZERO for one in self.floating)
            found = [ZERO if is_zero else self._put_together(outputs[0])] * len(outputs)
        elif ZERO in self.facts and sum(operand.numel() for operand in self.operands) <= MOST_PROBED:
            roles = ["zero" if fact is ZERO else "" for fact in self.facts]
            tried = self._tried(roles, [tuple(operand.shape) for operand in self.operands], len(outputs))
            found = [{"zero": ZERO, "broken": BROKEN}.get(outcome.kind) for outcome in tried]
        return [fact or self._constant() for fact in found]

    def _put_together(self, output: Tensor) -> Fact | None:
        """The argument of which all the parts are concatenated in their order."""
        if (core := self._core()) is not None:
            return Fact("padded", core=core)
        first, twins = self.facts[0], [fact.twin for fact in self.facts if fact is not None and not fact.is_shifted]
        if self.name != "cat" or first is None or first.twin is None or len(twins) < len(self.facts):
            return None
        axis = (self.args[1] if len(self.args) > 1 else 0) % output.ndim
        offset, strides = first.twin.storage_offset(), first.twin.stride()
        try:
            whole = first.twin.as_strided(output.shape, strides, offset)
        except RuntimeError:  # the argument is too small for it
            return None
        start = 0
        for twin, operand in zip(twins, self.operands, strict=True):
            if not is_same_view(twin, whole.narrow(axis, start, operand.shape[axis])):
                return None
            start += operand.shape[axis]
        return replace(first, twin=whole)

    def _core(self) -> Tensor | None:
        """The argument of a module that is concatenated with zeros."""
        others = [fact for fact in self.facts if fact is not ZERO]
        if self.name != "cat" or len(others) != 1 or len(self.facts) == 1 or others[0] is None or others[0].is_shifted:
            return None
        return others[0].twin

    def _is_zero_product(self, rule: FactRule) -> bool:
        given = range(len(self.args))
        added = self.args[rule.addend] if rule.addend is not None and rule.addend in given else None
        is_zero = any(self._fact_of(self.args[place]) is ZERO for place in rule.factors if place in given)
        return is_zero and (added is None or self._fact_of(added) is ZERO)

    def _fact_of(self, tensor: Any) -> Fact | None:
        return next((one.fact for one, own in zip(self.known, self.operands, strict=True) if own is tensor), None)

    def _constant(self) -> Fact | None:
        return CONSTANT if all(fact in (ZERO, CONSTANT) for fact in self.facts) else None

    def _shifted(self, output: Tensor) -> Fact | None:
        """The sum of an argument and a constant."""
        if self.name.removesuffix("_") not in ("add", "sub") or len(self.operands) != 2:
            return None
        (left, right), shape = self.facts, self.operands[0].shape
        if left is None or left.kind != "same" or right not in (ZERO, CONSTANT) or shape != output.shape:
            return None
        return Fact("same", left.twin, is_shifted=True)

    def _roles(self, output: Tensor) -> list[Any]:
        """For each operand what its sample must be: "zero", the number of the operand it is the same as, or ""."""
        roles: list[Any] = []
        for operand, fact in zip(self.operands, self.facts, strict=True):
            twin = None if fact is None or fact.is_shifted else fact.twin
            is_whole = operand.shape == output.shape and operand.dtype == output.dtype
            if twin is not None and is_whole:
                alike = (i for i, role in enumerate(roles) if role == i and is_same_view(twin, self._twin(i)))
                roles.append(next(alike, len(roles)))
            else:
                roles.append("zero" if fact is ZERO else "")
        return roles

    def _twin(self, index: int) -> Tensor | None:
        fact = self.known[index].fact
        return None if fact is None else fact.twin

    def _tried(self, roles: list[Any], shapes: list[tuple[int, ...]], num_outputs: int) -> list[_Outcome]:
        """What comes out of the operator for numbers drawn by their `roles`; the same call is tried once."""
        kinds = [(operand.dtype, one.is_positive) for operand, one in zip(self.operands, self.known, strict=True)]
        described = list(zip(roles, shapes, kinds, strict=True))
        key = (self.func, _pattern((self.args, self.kwargs), iter(described)))
        if key not in _outcomes:
            try:
                _outcomes[key] = _outcome_of(self, described, num_outputs)
            except Exception:  # it does not take what was drawn, and nothing is known
                _outcomes[key] = [_Outcome()] * num_outputs
        return _outcomes[key]


def _outcome_of(call: _Call, described: list[Any], num_outputs: int) -> list[_Outcome]:
    generator = torch.Generator().manual_seed(0)
    samples: list[Tensor] = []
    for role, shape, (dtype, is_positive) in described:
        samples.append(samples[role].clone() if role in range(len(samples)) else _drawn(role, shape, dtype, generator))
        if is_positive and dtype.is_floating_point:
            samples[-1] = samples[-1].abs()
    args, kwargs = _filled((call.args, call.kwargs), iter([sample.clone() for sample in samples]))
    kwargs = {key: value for key, value in kwargs.items() if key != "device"}
    results = call.func(*args, **kwargs)
    results = [results] if isinstance(results, Tensor) else [part for part in results if isinstance(part, Tensor)]
    return [_judged(result, described, samples) for result in results[:num_outputs]]


def _judged(result: Tensor, described: list[Any], samples: list[Tensor]) -> _Outcome:
    is_positive = bool((result >= 0).all()) if result.dtype.is_floating_point else False
    if not bool(result.count_nonzero()):
        return _Outcome("zero", is_positive=True)
    for index, ((role, *_), sample) in enumerate(zip(described, samples, strict=True)):
        if role == index and sample.dtype == result.dtype and torch.equal(sample, result):
            return _Outcome("same", index, is_positive)
    has_zero = any(role == "zero" for role, *_ in described)
    positive = result[-SAMPLES // 2 :] if result.shape == (SAMPLES,) else result
    if has_zero and bool((positive.isnan() | (positive == torch.inf)).any()):
        return _Outcome("broken")
    return _Outcome("", -1, is_positive)


def _drawn(role: Any, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Zeros, or numbers of all sizes, the second half of which is positive; integers may be used as indices."""
    is_sample = shape == (SAMPLES,)
    if role == "zero" or not (dtype.is_floating_point or dtype == torch.bool or is_sample):
        return torch.zeros(shape, dtype=dtype)
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    numbers = torch.randn(shape, generator=generator) * 10 ** (4 * torch.rand(shape, generator=generator) - 2)
    if is_sample:
        numbers[-SAMPLES // 2 :] = numbers[-SAMPLES // 2 :].abs()
    return numbers.to(dtype)


def _name(func: Any) -> str:
    return str(func._schema.name.partition("::")[2])


def _kind(name: str) -> str:
    rule = fact_rule_for(name)
    return "" if rule is None else rule.kind


@cache
def _is_pointwise(func: Any) -> bool:
    """Whether the operator does the same with every element; those in place are not always tagged."""
    functional = getattr(torch.ops.aten, _name(func).removesuffix("_"), func.overloadpacket)
    overloads = [func, *(getattr(functional, overload) for overload in functional.overloads())]
    return _kind(_name(func)) == "number by number" or any(
        torch.Tag.pointwise in overload.tags for overload in overloads
    )


def _filled(value: Any, tensors: Iterator[Tensor]) -> Any:
    """`value` with its tensors, in their order, replaced by these."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, list | tuple):
        return type(value)([_filled(part, tensors) for part in value])
    return {key: _filled(part, tensors) for key, part in value.items()} if isinstance(value, dict) else value


def _pattern(value: Any, tensors: Iterator[Any]) -> Any:
    """`value` as a key, with its tensors, in their order, replaced by these."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, list | tuple):
        return tuple([_pattern(part, tensors) for part in value])
    if isinstance(value, dict):
        return tuple([(key, _pattern(part, tensors)) for key, part in value.items()])
    return (type(value), value if isinstance(value, Hashable) else repr(value))
