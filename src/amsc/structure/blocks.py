"""Blocks found by behaviour: submodules that return their input, or nothing, when their own parameters are zero."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from amsc.structure.block_trial import adds_something, could_be_block, tried_at_zero
from amsc.structure.calls import PLAIN, Arguments, call_signature, copied_arguments
from amsc.structure.values import Block

__all__ = ["find_blocks"]

# A module of which inner identities hold this share of the parameters is a container of blocks, not a block.
CONTAINER_SHARE = 0.5
# More submodules without which nothing is left, all of them zero, are taken for a chain, and none is tried alone.
MOST_TRIED_ALONE = 4
# What tells a layer from its number in the network: 0, 1, 2, ... in at least so many modules of the class.
LEAST_NUMBERED = 3


def find_blocks(
    model: nn.Module,
    run: Callable[[], Any],
    users: Mapping[str, set[str]],
    aside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[Block, ...]:
    """The submodules that can go whole, in the order of the network, without their parameters and MACs.

    A submodule counts if it has submodules, runs once per forward pass, shares no parameter with what is outside and,
    with its own parameters at zero, returns its input (kind "identity") or zeros (kind "branch", if the module around
    it still works on its input then, and not because the branch was all it did). Containers of identities are left
    out, as are branches in branches; a block holds a weight (of two or more axes), a branch or an identity in another
    block two of them.

    The model runs once. Modules of the same class, attributes and shapes that are called alike are tried once, alone,
    on the arguments of the call and on shuffled ones; on the meta device on random ones, on the CPU.

    Args:
        model: borrowed (eval mode, no gradients).
        run: runs the model on one batch.
        users: the modules that used each parameter.
        aside: a context in which submodules can be tried while the model runs.
    """
    search = _Search(model, _owners(model, users), aside)
    hooks = [hook for name in search.names.values() for hook in search.hooks(model.get_submodule(name))]
    try:
        torch.manual_seed(0)  # the trials draw numbers
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return _selected(search)


@dataclass
class _Visit:
    """A module that is running. `arguments` are as before the call, None if they cannot be copied."""

    name: str
    key: tuple[Any, ...]
    arguments: Arguments | None
    silent: list[tuple[str, Block]] = field(default_factory=list)  # submodules that are zero at zero


class _Search:
    """Tries every kind of module when it is met first while the network runs.

    Args:
        model: the network.
        owners: names of the modules that share no parameter with what is outside.
        aside: a context in which submodules can be tried while the network runs.
    """

    def __init__(
        self, model: nn.Module, owners: Collection[str], aside: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.names = {module: name for name, module in model.named_modules() if any(True for _ in module.children())}
        self.sizes = {name: sum(p.numel() for p in module.parameters()) for module, name in self.names.items()}
        self.weights = {name: sum(p.ndim > 1 for p in module.parameters()) for module, name in self.names.items()}
        self.calls: Counter[str] = Counter()
        self.found: dict[str, Block] = {}  # identities, and branches that do something
        self._owners = owners
        self._aside = aside
        self._kinds = _kinds(model)
        self._tried: dict[tuple[Any, ...], Block | None] = {}
        self._branches: dict[tuple[Any, ...], bool] = {}
        self._running: list[_Visit] = []
        self._is_trying = False

    def hooks(self, module: nn.Module) -> tuple[Any, Any]:
        """Hooks on `module`, to be removed."""
        before = module.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True)
        return before, module.register_forward_hook(self._leave, with_kwargs=True, always_call=True)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._is_trying:
            name, arguments = self.names[module], Arguments(args, kwargs)
            key = (*((inner, self._kinds[part]) for inner, part in module.named_modules()), call_signature(arguments))
            self.calls[name] += 1
            self.found.pop(name, None)  # it runs more than once
            self._running.append(_Visit(name, key, None if key in self._tried else _copied(arguments)))

    def _leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self._is_trying:
            return
        visit = self._running.pop()
        self._is_trying = True
        try:
            with self._aside():
                self._judge_branches(module, visit, self._judge(module, visit, output))
        finally:
            self._is_trying = False

    def _judge(self, module: nn.Module, visit: _Visit, output: Any) -> Block | None:
        """What the module that has just run is at zero; noted where it belongs."""
        if visit.key not in self._tried:
            self._tried[visit.key] = self._trial(module, visit, output)
        block = self._tried[visit.key]
        if block is None or visit.name not in self._owners or self.calls[visit.name] > 1:
            return None
        if block.kind == "identity":
            self.found[visit.name] = block
        elif self._running and self.weights[visit.name] > 1:
            self._running[-1].silent.append((visit.name, block))
        return block

    def _trial(self, module: nn.Module, visit: _Visit, output: Any) -> Block | None:
        arguments, name = visit.arguments, visit.name
        if arguments is None or not name or not self.weights[name] or self._holds_blocks(name):
            return None
        return tried_at_zero(module, arguments) if could_be_block(module, arguments, output) else None

    def _judge_branches(self, module: nn.Module, visit: _Visit, block: Block | None) -> None:
        """Which of the submodules that are zero at zero are branches of the module that has just run."""
        inner = {name: name.removeprefix(f"{visit.name}.") for name, _ in visit.silent}
        new = [part for part in inner.values() if (visit.key, part) not in self._branches]
        known = visit.arguments
        # what works without all of them works without any of them; an identity is to be told from what is left
        is_identity = block is not None and block.kind == "identity"
        all_add = len(new) > 1 and not is_identity and known is not None and adds_something(module, known, new, None)
        is_chain = len(new) > MOST_TRIED_ALONE and not is_identity
        for part in new:
            adds = all_add or (known is not None and not is_chain and adds_something(module, known, [part], block))
            self._branches[visit.key, part] = adds
        for name, branch in visit.silent:
            if self._branches[visit.key, inner[name]] and self.calls[name] == 1:
                self.found[name] = branch

    def _holds_blocks(self, name: str) -> bool:
        """Whether inner identities hold most of its parameters."""
        inside = [other for other in self.found if _inside(other, name) and self.found[other].kind == "identity"]
        outer = [one for one in inside if not any(_inside(one, other) for other in inside)]
        return bool(outer) and sum(self.sizes[one] for one in outer) >= CONTAINER_SHARE * self.sizes[name]


def _selected(search: _Search) -> tuple[Block, ...]:
    """The blocks of those found, named, in the order of the network."""
    found = search.found
    branches = {name for name, block in found.items() if block.kind == "branch"}
    branches = {name for name in branches if not any(_inside(name, other) for other in branches)}
    identities = {name for name, block in found.items() if block.kind == "identity"}
    outer = {name for name in identities if not any(_inside(name, other) for other in identities | branches)}
    kept = branches | outer | {name for name in identities if search.weights[name] > 1}
    return tuple(replace(found[name], name=name) for name in search.names.values() if name in kept)


def _copied(arguments: Arguments) -> Arguments | None:
    try:
        return copied_arguments(arguments)
    except Exception:  # objects among the arguments may refuse in any way
        return None


def _owners(model: nn.Module, users: Mapping[str, set[str]]) -> set[str]:
    """Names of the modules whose parameters nobody outside holds or reads."""
    holders: dict[int, set[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), set()).add(name)
    foreign: set[str] = set()
    for name, parameter in model.named_parameters():
        places = holders[id(parameter)] | users.get(name, set())
        common = set.intersection(*(set(_around(place)) for place in places))
        foreign.update(around for place in places for around in _around(place) if around not in common)
    return {name for name, _ in model.named_modules()} - foreign


def _around(name: str) -> Iterator[str]:
    """The module itself and all that it lies in, down to the network ""."""
    yield name
    while name:
        name = name.rpartition(".")[0]
        yield name


def _kinds(model: nn.Module) -> dict[nn.Module, int]:
    """A number for every module, the same for those that differ only in the values of their tensors, or in an
    attribute that numbers the modules of their class."""
    numbers = _numbers(model)
    known: dict[Any, int] = {}
    return {module: known.setdefault(_kind(module, numbers), len(known)) for module in model.modules()}


def _kind(module: nn.Module, numbers: Collection[tuple[type, str]]) -> Any:
    tensors = [*module._parameters.items(), *module._buffers.items()]
    own = ((name, value) for name, value in vars(module).items() if name not in ORDINARY)
    return (
        type(module),
        tuple((name, None if tensor is None else (tensor.shape, tensor.dtype)) for name, tensor in tensors),
        tuple((name, _comparable(value)) for name, value in own if (type(module), name) not in numbers),
    )


def _numbers(model: nn.Module) -> set[tuple[type, str]]:
    """(class, attribute) where the attribute counts the modules of the class in the order of the network, or is a rate
    (of stochastic depth) that grows from each to the next."""
    values: dict[tuple[type, str], list[Any]] = {}
    for module in model.modules():
        for name, value in vars(module).items():
            if type(value) is int or (type(value) is float and _is_bare(module)):
                values.setdefault((type(module), name), []).append(value)
    return {key for key, counted in values.items() if len(counted) >= LEAST_NUMBERED and _are_numbers(counted)}


def _are_numbers(values: list[Any]) -> bool:
    if all(type(value) is float for value in values):
        return values[0] >= 0 and values[-1] < 1 and all(a < b for a, b in pairwise(values))
    return all(type(value) is int for value in values) and values == list(range(values[0], values[0] + len(values)))


def _is_bare(module: nn.Module) -> bool:
    return not (module._modules or module._parameters or module._buffers)


def _comparable(value: Any) -> Any:
    if isinstance(value, PLAIN):
        return type(value), value
    return tuple(_comparable(part) for part in value) if isinstance(value, tuple | list) else id(value)


def _inside(name: str, module: str) -> bool:
    return name.startswith(f"{module}.")


ORDINARY = frozenset(vars(nn.Module()))
