"""Blocks found by behaviour: submodules that return their input, or nothing, when their own parameters are zero."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.structure.blocks.assumptions import Assumption, Assumptions, Facts
from amsc.structure.blocks.facts import CONSTANT, ZERO, Fact
from amsc.structure.blocks.module_calls import Call, NewChannels, tensors_of
from amsc.structure.blocks.zeros import Zeros
from amsc.structure.labels.combine import Layers
from amsc.structure.names import holder, is_below
from amsc.structure.parts import Block, BlockKind

__all__ = ["BlockSearch", "owners"]

# A module of which inner identities hold this share of the parameters is a container of blocks, not a block.
CONTAINER_SHARE = 0.5


@dataclass
class _Branch:
    """A submodule that was silent, that is zero at zero; `assumed` as long as the module around it runs. `rest` is what
    is known then of the output of that module."""

    name: str
    block: Block
    assumed: Assumption
    rest: Fact | None = None


@dataclass
class _Visit:
    """One run of a module: what is known in general, and if all of its own parameters are zero (`silent`)."""

    name: str
    call: Call
    general: Assumption
    silent: Assumption
    block: Block | None = None
    new_channels: NewChannels | None = None
    branches: list[_Branch] = field(default_factory=list)


class BlockSearch:
    """Finds the submodules that can go whole, while the network runs once and every operator is observed.

    A submodule counts if it has submodules, runs once per forward pass, shares no parameter with what is outside and,
    with its own parameters at zero, returns its input (kind "identity") or zeros (kind "branch", if the module around
    it still works on its input then, and not because the branch was all it did). Containers of identities are left
    out, as are branches in branches; a block holds a weight (of two or more axes), a branch or an identity in another
    block two of them.

    No values are needed, and nothing is run again: see `amsc.structure.blocks.facts`.

    Args:
        model: the network.
        parameter_name: the name of a parameter or buffer that the run uses, None of another tensor.
        layers_of: the labels of a tensor.
    """

    def __init__(
        self, model: nn.Module, parameter_name: Callable[[Tensor], str | None], layers_of: Callable[[Tensor], Layers]
    ) -> None:
        self._model = model
        self._names = {module: name for name, module in model.named_modules() if any(True for _ in module.children())}
        self._parameter_name, self._layers_of = parameter_name, layers_of
        self.zeros: dict[str, Mapping[int, Zeros]] = {}
        self._known = Assumptions(self._of_parameter)
        self._running: list[_Visit] = []
        self._visits: list[_Visit] = []
        self._has_failed = False

    def observe(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """An operator has run."""
        self._safely(self._known.observe, func, args, kwargs, output)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Everything that runs inside is watched."""
        hooks = [hook for module in self._names for hook in self._hooks(module)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def ran(self) -> set[str]:
        """The names of the submodules that could be blocks and ran; all of them after a fault of ours."""
        return set(self._names.values()) if self._has_failed else {visit.name for visit in self._visits}

    def blocks(self, users: Mapping[str, set[str]]) -> tuple[Block, ...]:
        """The blocks that were found, in the order of the network, without their parameters and MACs.

        Args:
            users: the modules that used each parameter.
        """
        return _Selection(self._model, self._usable(users)).of(self._visits)

    def new_channels(self, users: Mapping[str, set[str]]) -> dict[str, NewChannels]:
        """The submodules that could as well be blocks as layers of a DenseNet are, the outer ones first."""
        usable = self._usable(users)
        found = {visit.name: visit.new_channels for visit in self._visits if visit.name in usable and visit.name}
        in_order = ((name, found.get(name)) for name, _ in self._model.named_modules())
        return {name: new for name, new in in_order if new is not None}

    def _usable(self, users: Mapping[str, set[str]]) -> set[str]:
        runs = Counter(visit.name for visit in self._visits)
        return {name for name in owners(self._model, users) if runs[name] == 1}

    def _hooks(self, module: nn.Module) -> tuple[Any, Any]:
        enter, leave = partial(self._safely, self._enter), partial(self._safely, self._leave)
        before = module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True)
        return before, module.register_forward_hook(leave, with_kwargs=True, always_call=True)

    def _safely(self, step: Callable[..., None], *arguments: Any) -> None:
        """Take a step of the search; a fault of ours ends the search, which finds no blocks then, and not the run."""
        if self._has_failed:
            return
        try:
            step(*arguments)
        except Exception as error:
            self._has_failed = True
            self._visits = []
            cause = f"{type(error).__name__}: {error}"
            warnings.warn(
                f"no blocks are offered: the search for them failed ({cause}); please report this", stacklevel=2
            )

    def _of_parameter(self, tensor: Tensor) -> Facts | None:
        name = self._parameter_name(tensor)
        if name is None:
            return None
        facts: Facts = {visit.silent: ZERO for visit in self._running if visit.name and is_below(name, visit.name)}
        return facts | {None: CONSTANT}

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        general = Assumption()
        if not self._running:
            for leaf in pytree.tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor):
                    self._known.set_input(leaf)
        visit = _Visit(self._names[module], Call.of(module, args, kwargs), general, Assumption(general))
        for tensor in visit.call.tensors:
            self._known.assume(tensor, general, Fact("same", tensor, is_positive=self._known.is_positive(tensor)))
        self._running.append(visit)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        visit = self._running.pop()
        self._visits.append(visit)
        visit.block = visit.call.block(output, lambda tensor: self._known.fact(tensor, visit.silent))
        visit.new_channels = visit.call.new_channels(output, lambda tensor: self._known.fact(tensor, visit.silent))
        if visit.block is not None:
            pairs = visit.call.zeros(visit.block, output)
            self.zeros[visit.name] = {n: Zeros(*map(self._layers_of, pair)) for n, pair in pairs.items()}
        tensors = tensors_of(output)
        for branch in visit.branches:
            branch.rest = self._known.fact(tensors[0], branch.assumed) if tensors else CONSTANT
        for ended in (visit.general, visit.silent, *(branch.assumed for branch in visit.branches)):
            ended.holds = False
        for tensor in visit.call.tensors:
            self._known.forget(tensor, visit.general)
        if visit.block is not None and visit.block.kind is BlockKind.BRANCH and self._running:
            around = self._running[-1]
            branch = _Branch(visit.name, visit.block, Assumption(around.general))
            around.branches.append(branch)
            for tensor in tensors:
                if self._known.fact(tensor, visit.silent) is ZERO:
                    self._known.assume(tensor, branch.assumed, ZERO)


class _Selection:
    """Which of the modules that ran are taken for blocks.

    Args:
        model: the network.
        usable: names of the modules that ran once and share no parameter with what is outside.
    """

    def __init__(self, model: nn.Module, usable: set[str]) -> None:
        self._usable = usable
        self._order = [name for name, _ in model.named_modules()]
        self._sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_modules()}
        self._weights = {name: sum(p.ndim > 1 for p in module.parameters()) for name, module in model.named_modules()}
        self._found: dict[str, Block] = {}

    def of(self, visits: list[_Visit]) -> tuple[Block, ...]:
        """The blocks among what ran, in the order in which it ended."""
        silent: set[str] = set()
        for visit in visits:
            block = visit.block if self._can_go(visit.name) else None
            if block is not None and block.kind is BlockKind.IDENTITY:
                self._found[visit.name] = block
            elif block is not None and self._weights[visit.name] > 1:
                silent.add(visit.name)
            is_identity = block is not None and block.kind is BlockKind.IDENTITY
            for branch in visit.branches:
                if branch.name in silent and _is_work(branch.rest, is_identity):
                    self._found[branch.name] = branch.block
        return self._outer()

    def _can_go(self, name: str) -> bool:
        return name in self._usable and bool(name) and self._weights[name] > 0 and not self._holds_blocks(name)

    def _holds_blocks(self, name: str) -> bool:
        """Whether inner identities hold most of its parameters."""
        inside = [
            other for other in self._found if is_below(other, name) and self._found[other].kind is BlockKind.IDENTITY
        ]
        outer = [one for one in inside if not any(is_below(one, other) for other in inside)]
        return bool(outer) and sum(self._sizes[one] for one in outer) >= CONTAINER_SHARE * self._sizes[name]

    def _outer(self) -> tuple[Block, ...]:
        found = self._found
        branches = {name for name, block in found.items() if block.kind is BlockKind.BRANCH}
        branches = {name for name in branches if not any(is_below(name, other) for other in branches)}
        identities = {name for name, block in found.items() if block.kind is BlockKind.IDENTITY}
        outer = {name for name in identities if not any(is_below(name, other) for other in identities | branches)}
        kept = branches | outer | {name for name in identities if self._weights[name] > 1}
        return tuple(replace(found[name], name=name) for name in self._order if name in kept)


def _is_work(rest: Fact | None, is_identity: bool) -> bool:
    """Whether a module still works on its input when a branch in it is silent, by what is known of its output then; an
    identity must do more than add a constant, or else removing it whole is better."""
    return rest is None or (rest.kind == "same" and not is_identity)


def owners(model: nn.Module, users: Mapping[str, set[str]]) -> set[str]:
    """Names of the modules whose parameters nobody outside holds or reads, under whatever name.

    The parameters of a module that lies in several others are those of the one in which it has its first name.
    """
    ways = _ways(model)
    holders: dict[int, set[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), set()).add(name)
    foreign: set[str] = set()
    for name, parameter in model.named_parameters():
        around = [ways[place] for place in holders[id(parameter)] | users.get(name, set())]
        inside_all = frozenset.intersection(*(way for of_place in around for way in of_place))
        foreign |= frozenset().union(*(of_place[0] for of_place in around)) - inside_all
    return ways.keys() - foreign


def _ways(model: nn.Module) -> dict[str, list[frozenset[str]]]:
    """By the first name of each module, for each name that it is held under, the first one first: itself and the
    modules around it there, by their first names."""
    first = {module: name for name, module in model.named_modules()}
    around = {"": frozenset([""])}
    ways: dict[str, list[frozenset[str]]] = {name: [] for name in first.values()}
    for name, module in model.named_modules(remove_duplicate=False):
        around[name] = around[holder(name)] | {first[module]}
        ways[first[module]].append(around[name])
    return ways
