"""Do the tests notice a broken rule? `python benchmarks/check_mutations.py [OPERATOR ...] [--networks 60]`.

Each rule of the tracer's registry is broken in memory, in two ways: it does nothing (what it yields belongs to nothing
removable, nothing is united or pinned), or it gives what it yields the labels of its first argument, where the shapes
allow it, and unites nothing. Random networks (tests/random_networks.py) and the constructs of
tests/structure/awkward_more.py are then traced and cut: a mutant is noticed if a cut differs from masking, tracing
fails, or what can be removed is not what the sound rule finds. A rule that no network meets cannot be judged and is
listed. With --each-operator, a rule is broken for one of its operators at a time.
The exit code is 1 if a mutant survives or a rule is not met.
"""

import argparse
import contextlib
import inspect
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

sys.path[:0] = [str(Path(__file__).parent.parent / "tests")]

from amsc.errors import AmscError  # noqa: E402
from amsc.structure import Structure, trace  # noqa: E402
from amsc.structure.rules import RULES  # noqa: E402
from amsc.surgery import cut, plan_cut  # noqa: E402
from random_networks import SIZE, genes_of, random_network  # noqa: E402
from structure.awkward_more import EVERY  # noqa: E402

Rule = Callable[..., Any]


# -- the registry and its mutants --------------------------------------------------------------------------------------


def registries() -> list[MutableMapping[str, Rule]]:
    """The dict from operator names to rules that the tracer reads; those of its parts are only copied into it."""
    return [RULES]


def argument(rule: Rule, bound: inspect.BoundArguments, name: str, place: int) -> Any:
    """The argument called `name`, or the one at `place`."""
    values = bound.arguments
    return values[name] if name in values else list(values.values())[place]


def does_nothing(rule: Rule) -> Rule:
    """The rule's effects are left out: the tracer gives what it yields no labels."""
    return lambda *args, **kwargs: None


def passes_on(rule: Rule) -> Rule:
    """The output gets the labels of the first argument that is a tensor and has its shape; nothing is united."""
    signature = inspect.signature(rule)

    def mutant(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        tracer = argument(rule, bound, "tracer", 0)
        given = argument(rule, bound, "args", 2)
        tensors = [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, Tensor)]
        for out in pytree.tree_leaves(argument(rule, bound, "output", 4)):
            if isinstance(out, Tensor) and tensors and out.shape == tensors[0].shape:
                tracer.set_labels(out, tracer.labels(tensors[0]))

    return mutant


MUTATIONS = {"does nothing": does_nothing, "passes the first argument on": passes_on}


def is_empty(rule: Rule) -> bool:
    """Whether the rule does nothing anyway, as that of operators which yield constants."""

    def empty() -> None:
        """Nothing."""

    code = getattr(rule, "__code__", None)
    return code is not None and code.co_code == empty.__code__.co_code


@contextlib.contextmanager
def replaced(registry: MutableMapping[str, Rule], names: tuple[str, ...], mutant: Rule) -> Iterator[None]:
    """`mutant` for these operators, and their rule again afterwards."""
    rule = registry[names[0]]
    try:
        registry.update(dict.fromkeys(names, mutant))
        yield
    finally:
        registry.update(dict.fromkeys(names, rule))


# -- the tests ---------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """One network; `found` is what the sound rules find removable in it, `met` the operators that it meets."""

    name: str
    model: nn.Module
    inputs: Any
    found: Any = None
    met: set[str] = field(default_factory=set)


def cases(networks: int) -> list[Case]:
    listed = [Case(name, *fault.build(0)) for name, fault in EVERY.items()]
    for seed in range(networks):
        torch.manual_seed(seed)
        listed.append(Case(f"network {seed}", random_network(genes_of(seed)), torch.randn(2, 3, SIZE, SIZE)))
    return listed


def fingerprint(structure: Structure) -> Any:
    """What the tests know to be right: groups with their members, exactness, blocks, what is pinned."""
    groups = sorted((g.size, g.exact, *sorted((m.parameter, m.axis, m.indices) for m in g.members)) for g in
                    structure.channels)  # fmt: skip
    return groups, [block.name for block in structure.blocks], sorted((p.parameter, p.axis, p.count) for p in
                                                                      structure.pins)  # fmt: skip


def removal(structure: Structure) -> dict[str, list[int]]:
    draw = random.Random(0)
    exact = (group for group in structure.channels if group.exact and group.size > 1)
    return {group.name: draw.sample(range(group.size), max(1, group.size // 2)) for group in exact}


def failure(case: Case, *, with_fingerprint: bool) -> str:
    """Why the tests fail on this network; "" if they pass."""
    try:
        structure = trace(case.model, case.inputs)
        if channels := removal(structure):
            cut(case.model, plan_cut(structure, channels=channels), case.inputs)
    except Exception as error:  # a broken rule may break anything
        return f"{'cut' if isinstance(error, AmscError) else 'crash'}: {type(error).__name__}"
    if with_fingerprint and case.found is not None and fingerprint(structure) != case.found:
        return "finds other groups"
    return ""


def learn(case: Case, every: list[MutableMapping[str, Rule]]) -> None:
    """Note what the sound rules find and which of them run. A network whose cut fails without a mutant (a constant in
    its code) is judged by what is found alone."""
    sound = [dict(registry) for registry in every]
    try:
        for registry in every:
            registry.update({name: noting(name, rule, case.met) for name, rule in registry.items()})
        case.found = fingerprint(trace(case.model, case.inputs))
    finally:
        for registry, rules in zip(every, sound, strict=True):
            registry.update(rules)


def noting(name: str, rule: Rule, met: set[str]) -> Rule:
    def noted(*args: Any, **kwargs: Any) -> Any:
        met.add(name)
        return rule(*args, **kwargs)

    return noted


@dataclass(frozen=True)
class Subject:
    """A rule of a registry, with the operators for which it is broken."""

    registry: MutableMapping[str, Rule]
    names: tuple[str, ...]

    @property
    def rule(self) -> Rule:
        return self.registry[self.names[0]]

    def __str__(self) -> str:
        shown = ", ".join(self.names[:4]) + ", ..." * (len(self.names) > 4)
        return f"{getattr(self.rule, '__name__', 'rule')} [{shown}]"


def subjects(every: list[MutableMapping[str, Rule]], wanted: list[str], *, each_operator: bool) -> Iterator[Subject]:
    for registry in every:
        if each_operator:
            together = [(name,) for name in registry]
        else:
            distinct = {id(rule): rule for rule in registry.values()}.values()
            together = [tuple(name for name, held in registry.items() if held is rule) for rule in distinct]
        yield from (Subject(registry, names) for names in together if not wanted or set(names) & set(wanted))


def verdicts(subject: Subject, sound: list[Case], *, with_fingerprint: bool) -> Iterator[tuple[str, str]]:
    """(mutation, the first failing test among the networks that meet the rule, or "") for each mutation."""
    meeting = [case for case in sound if case.met & set(subject.names)]
    rule = subject.rule
    for how, mutate in MUTATIONS.items():
        if not meeting or (mutate is does_nothing and is_empty(rule)):
            continue
        with replaced(subject.registry, subject.names, mutate(rule)):
            failures = ((case.name, failure(case, with_fingerprint=with_fingerprint)) for case in meeting)
            yield how, next((f"{name} ({why})" for name, why in failures if why), "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*", help="only the rules of these operators (default: all)")
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--each-operator", action="store_true", help="break a rule for one operator at a time")
    parser.add_argument("--cuts-only", action="store_true", help="wrong cuts count, not that other groups are found")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    every, start = registries(), time.perf_counter()
    listed = cases(options.networks)
    for case in listed:
        learn(case, every)
    sound = [case for case in listed if not failure(case, with_fingerprint=True)]
    print(f"{len(listed)} networks, {len(sound)} of them right with the sound rules", flush=True)
    survivors, unmet, broken = [], [], 0
    for subject in subjects(every, options.operators, each_operator=options.each_operator):
        label, outcomes = str(subject), dict(verdicts(subject, sound, with_fingerprint=not options.cuts_only))
        for how, why in outcomes.items():
            print(f"{label}, {how}: {why or 'SURVIVES'}", flush=True)
            survivors += [] if why else [f"{label}, {how}"]
        unmet += [] if any(case.met & set(subject.names) for case in sound) else [label]
        broken += len(outcomes)
    print(f"{broken} mutants, {len(survivors)} survive, {time.perf_counter() - start:.0f} s")
    print(*(f"survives: {label}" for label in survivors), *(f"not met: {label}" for label in unmet), sep="\n")
    return 1 if survivors or unmet else 0


if __name__ == "__main__":
    raise SystemExit(main())
