"""Do the tests notice a broken rule? `python benchmarks/check_mutations.py [RULE ...] [--networks 300]`.

Each rule of the tracer's registry is broken in memory, in two ways: it does nothing (what it yields belongs to nothing
removable, nothing is united or pinned), or it gives what it yields the labels of its first argument, where the shapes
allow it, and unites nothing. Random networks (tests/random_networks.py) and the constructs of
tests/structure/awkward.py are then traced and cut: a mutant is noticed if a cut differs from masking, a tracing fails,
or what can be removed is not what the sound rule finds. A rule that no network meets cannot be judged and is listed.
The exit code is 1 if a mutant survives or a rule is not met.
"""

import argparse
import contextlib
import importlib
import inspect
import pkgutil
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

import amsc.structure  # noqa: E402
from amsc.errors import AmscError  # noqa: E402
from amsc.structure import Structure, trace  # noqa: E402
from amsc.surgery import cut, plan_cut  # noqa: E402
from random_networks import SIZE, genes_of, random_network  # noqa: E402
from structure.awkward import FAULTS  # noqa: E402

NAMES = ("RULES", "_RULES")
Rule = Callable[..., Any]


# -- the registry and its mutants --------------------------------------------------------------------------------------


def registries() -> list[MutableMapping[str, Rule]]:
    """Every dict from operator names to functions that is called RULES or _RULES in a module under amsc.structure."""
    path, prefix = amsc.structure.__path__, f"{amsc.structure.__name__}."
    modules = [importlib.import_module(module.name) for module in pkgutil.walk_packages(path, prefix)]
    found = [value for module in modules for name in NAMES if isinstance(value := getattr(module, name, None), dict)]
    distinct = list({id(registry): registry for registry in found}.values())
    if not distinct:
        raise SystemExit(f"no dict named {' or '.join(NAMES)} in any module of amsc.structure: nothing to break")
    return distinct


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


@contextlib.contextmanager
def replaced(registry: MutableMapping[str, Rule], rule: Rule, mutant: Rule) -> Iterator[None]:
    """`mutant` wherever the registry holds `rule`, and `rule` again afterwards."""
    names = [name for name, held in registry.items() if held is rule]
    try:
        registry.update(dict.fromkeys(names, mutant))
        yield
    finally:
        registry.update(dict.fromkeys(names, rule))


# -- the tests ---------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """One network; `found` is what the sound rules find removable in it, `met` the rules that it meets."""

    name: str
    model: nn.Module
    inputs: Any
    found: Any = None
    met: set[int] = field(default_factory=set)


def cases(networks: int) -> list[Case]:
    listed = [Case(name, *fault.build(0)) for name, fault in FAULTS.items()]
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
            registry.update({name: noting(rule, case.met) for name, rule in registry.items()})
        case.found = fingerprint(trace(case.model, case.inputs))
    finally:
        for registry, rules in zip(every, sound, strict=True):
            registry.update(rules)


def noting(rule: Rule, met: set[int]) -> Rule:
    def noted(*args: Any, **kwargs: Any) -> Any:
        met.add(id(rule))
        return rule(*args, **kwargs)

    return noted


def noticed(rule: Rule, listed: list[Case], *, with_fingerprint: bool) -> str:
    """The first failing test among the networks that meet the rule; "" if none fails."""
    for case in listed:
        if id(rule) in case.met and (why := failure(case, with_fingerprint=with_fingerprint)):
            return f"{case.name} ({why})"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", help="operators whose rules are broken (default: all)")
    parser.add_argument("--networks", type=int, default=300)
    parser.add_argument(
        "--cuts-only", action="store_true", help="notice wrong cuts only, not that other groups are found"
    )
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
    for registry in every:
        for rule in list({id(rule): rule for rule in registry.values()}.values()):
            names = [name for name, held in registry.items() if held is rule]
            if options.rules and not set(names) & set(options.rules):
                continue
            label = f"{getattr(rule, '__name__', 'rule')} [{', '.join(names[:4])}{', ...' * (len(names) > 4)}]"
            if not any(id(rule) in case.met for case in sound):
                unmet.append(label)
                continue
            for how, mutate in MUTATIONS.items():
                broken += 1
                with replaced(registry, rule, mutate(rule)):
                    why = noticed(rule, sound, with_fingerprint=not options.cuts_only)
                print(f"{label}, {how}: {why or 'SURVIVES'}", flush=True)
                survivors += [] if why else [f"{label}, {how}"]
    print(f"{broken} mutants, {len(survivors)} survive, {time.perf_counter() - start:.0f} s")
    print(*(f"survives: {label}" for label in survivors), *(f"not met: {label}" for label in unmet), sep="\n")
    return 1 if survivors or unmet else 0


if __name__ == "__main__":
    raise SystemExit(main())
