"""Do the tests notice a broken rule? `python benchmarks/surgery/check_mutations.py [OPERATOR ...] [--networks 60]`.

Each rule of the tracer's registry is broken in memory, in two ways: it does nothing (what it yields belongs to nothing
removable, nothing is united or pinned), or it gives what it yields the labels of its first argument, where the shapes
allow it, and unites nothing. Random networks (tests/random_networks.py) and the constructs of
tests/structure/awkward_more.py are then traced and cut, and the oracles of tests/structure/operators/test_movement.py
run: a mutant is noticed if a cut differs from masking, tracing fails, what can be removed is not what the sound rule
finds, or values move otherwise than labels. A rule that nothing meets cannot be judged and is listed. With
--each-operator, a rule is broken for one of its operators at a time. The decisions beside the rules (broken_steps.py)
are broken as well, on the stages of tests/random_constructs.py; `check_mutations.py steps` does that alone.
The exit code is 1 if a mutant survives or a rule is not met. Result: benchmarks/results/mutations.json.
"""

import argparse
import contextlib
import inspect
import json
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

sys.path[:0] = [str(Path(__file__).parents[2] / "tests")]

from broken_steps import STEPS, Step  # noqa: E402

from amsc.errors import AmscError  # noqa: E402
from amsc.measurement import machine_stamp  # noqa: E402
from amsc.structure import Structure, trace  # noqa: E402
from amsc.structure.operators.table import RULES  # noqa: E402
from amsc.surgery import cut, cuttable, plan_cut  # noqa: E402
from random_constructs import CONSTRUCTS  # noqa: E402
from random_networks import SIZE, genes_of, random_network  # noqa: E402
from structure.awkward_more import EVERY  # noqa: E402
from structure.operators import test_movement as movement  # noqa: E402

Rule = Callable[..., Any]
RESULT = Path(__file__).parents[1] / "results" / "mutations.json"


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
                tracer.labels.set_layers(out, tracer.labels.layers(tensors[0]))

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
class Network:
    """One network; `found` is what the sound rules find removable in it, `met` the operators that it meets, `refused`
    the groups that cannot be cut with them either: numbers in its code do not follow."""

    name: str
    model: nn.Module
    inputs: Any
    found: Any = None
    met: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    with_blocks: bool = False

    def meet(self) -> None:
        """Note what the sound rules find."""
        structure = trace(self.model, self.inputs)
        self.found = fingerprint(structure)
        if self.problem(with_fingerprint=False):
            left = cuttable(self.model, structure, self.inputs)
            self.refused = {group.name for group in left.channels if not group.exact}

    def problem(self, *, with_fingerprint: bool) -> str:
        """What a test says; "" if it passes."""
        structure = trace(self.model, self.inputs)
        if channels := removal(structure, self.refused):
            try:
                cut(self.model, plan_cut(structure, channels=channels), self.inputs)
            except AmscError as error:
                return f"cut: {type(error).__name__}"
        if self.with_blocks and structure.blocks:
            try:
                cut(self.model, plan_cut(structure, blocks=[block.name for block in structure.blocks]), self.inputs)
            except AmscError as error:
                return f"cut of blocks: {type(error).__name__}"
        return "finds other groups" if with_fingerprint and fingerprint(structure) != self.found else ""


@dataclass
class Movement:
    """One expression of tests/structure/operators/test_movement.py with its oracles."""

    name: str
    met: set[str] = field(default_factory=set)

    def meet(self) -> None:
        """Run it on labels."""
        for seed in movement.SEEDS:
            movement.run(movement.MOVES[self.name], seed)

    def problem(self, *, with_fingerprint: bool) -> str:
        """What an oracle says; "" if all pass."""
        oracles = [movement.test_labels_tell_which_values_depend_on_what]
        if self.name in movement.PURE:
            oracles += [movement.test_labels_move_as_a_dense_tensor_of_them, movement.test_moving_adds_no_labels]
        try:
            for oracle in oracles:
                oracle(self.name)
        except AssertionError:
            return "labels and values move otherwise"
        return ""


Case = Network | Movement


def cases(networks: int) -> list[Case]:
    """Every construct, the random networks, and every movement."""
    listed: list[Case] = [Network(name, *fault.build(0)) for name, fault in EVERY.items()]
    for seed in range(networks):
        torch.manual_seed(seed)
        listed.append(Network(f"network {seed}", random_network(genes_of(seed)), torch.randn(2, 3, SIZE, SIZE)))
    return listed + [Movement(name) for name in movement.MOVES]


def fingerprint(structure: Structure) -> Any:
    """What the tests know to be right: groups with their members, exactness, blocks, what is pinned, costs."""
    groups = sorted((g.size, g.exact, *sorted((m.parameter, m.axis, m.indices) for m in g.members)) for g in
                    structure.channels)  # fmt: skip
    pins = sorted((pin.parameter, pin.axis, pin.count) for pin in structure.pins)
    return groups, [block.name for block in structure.blocks], pins, sorted(map(repr, structure.costs))


def removal(structure: Structure, refused: Collection[str]) -> dict[str, list[int]]:
    """Half of every exact group but the refused ones."""
    draw = random.Random(0)
    exact = (group for group in structure.channels if group.exact and group.size > 1 and group.name not in refused)
    return {group.name: draw.sample(range(group.size), max(1, group.size // 2)) for group in exact}


def failure(case: Case, *, with_fingerprint: bool) -> str:
    """Why the tests fail on this case; "" if they pass."""
    try:
        return case.problem(with_fingerprint=with_fingerprint)
    except Exception as error:  # a broken rule may break anything
        return f"crash: {type(error).__name__}"


def learn(case: Case, every: list[MutableMapping[str, Rule]]) -> None:
    """Note what the sound rules find in it and which of them run."""
    sound = [dict(registry) for registry in every]
    try:
        for registry in every:
            registry.update({name: noting(name, rule, case.met) for name, rule in registry.items()})
        case.meet()
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
    """(mutation, the first failing test among the cases that meet the rule, or "") for each mutation."""
    meeting = [case for case in sound if case.met & set(subject.names)]
    rule = subject.rule
    for how, mutate in MUTATIONS.items():
        if not meeting or (mutate is does_nothing and is_empty(rule)):
            continue
        with replaced(subject.registry, subject.names, mutate(rule)):
            failures = ((case.name, failure(case, with_fingerprint=with_fingerprint)) for case in meeting)
            yield how, next((f"{name} ({why})" for name, why in failures if why), "")


def step_cases(each: int) -> list[Case]:
    """The constructs, and random networks of the stages that the steps are about."""
    listed: list[Case] = [Network(name, *fault.build(0)) for name, fault in EVERY.items()]
    for kind in CONSTRUCTS:
        for seed in range(each):
            torch.manual_seed(seed)
            network = random_network(genes_of(seed), (kind,))
            listed.append(Network(f"{kind.__name__} {seed}", network, torch.randn(2, 3, SIZE, SIZE), with_blocks=True))
    return listed


def step_verdicts(steps: Iterable[Step], *, each: int, with_fingerprint: bool) -> Iterator[tuple[str, str]]:
    """(step, the first case that fails when it is broken, or "")."""
    listed = step_cases(each)
    for case in listed:
        case.meet()
    sound = [case for case in reversed(listed) if not failure(case, with_fingerprint=True)]
    for step in steps:
        with step.broken():
            failures = ((case.name, failure(case, with_fingerprint=with_fingerprint)) for case in sound)
            yield str(step), next((f"{name} ({why})" for name, why in failures if why), "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*", help="only the rules of these operators (default: all)")
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--each-operator", action="store_true", help="break a rule for one operator at a time")
    parser.add_argument("--cuts-only", action="store_true", help="wrong cuts count, not that other groups are found")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", ".*please report this")  # a rule that fails, as in the tests
    every, start = registries(), time.perf_counter()
    listed = cases(options.networks) if options.operators != ["steps"] else []
    for case in listed:
        learn(case, every)
    sound = [case for case in listed if not failure(case, with_fingerprint=True)]
    print(f"{len(listed)} cases, {len(sound)} of them right with the sound rules", flush=True)
    survivors, unmet, broken, noticed = [], [], 0, Counter[str]()
    if not options.operators or "steps" in options.operators:
        for label, why in step_verdicts(STEPS, each=12, with_fingerprint=not options.cuts_only):
            print(f"{label}: {why or 'SURVIVES'}", flush=True)
            survivors += [] if why else [label]
            noticed["broken step"] += bool(why)
            broken += 1
    for subject in subjects(every, options.operators, each_operator=options.each_operator):
        label, outcomes = str(subject), dict(verdicts(subject, sound, with_fingerprint=not options.cuts_only))
        for how, why in outcomes.items():
            print(f"{label}, {how}: {why or 'SURVIVES'}", flush=True)
            survivors += [] if why else [f"{label}, {how}"]
            noticed[how] += bool(why)
        unmet += [] if any(case.met & set(subject.names) for case in sound) else [label]
        broken += len(outcomes)
    seconds = round(time.perf_counter() - start, 1)
    print(f"{broken} mutants, {len(survivors)} survive, {seconds:.0f} s")
    print(*(f"survives: {label}" for label in survivors), *(f"not met: {label}" for label in unmet), sep="\n")
    if not options.operators:
        kinds = Counter(type(case).__name__.lower() for case in sound)
        left_out = [case.name for case in listed if case not in sound]
        report = {
            "seeds": {"random networks": [0, options.networks - 1], "constructs": 0, "movements": list(movement.SEEDS)},
            "each_operator": options.each_operator,
            "cuts_only": options.cuts_only,
            "cases": dict(kinds),
            "left out, as they are wrong or refused with the sound rules": left_out,
            "mutants": broken,
            "noticed": dict(noticed),
            "survivors": survivors,
            "not met": unmet,
            "seconds": seconds,
            "machine": machine_stamp(),
        }
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if survivors or unmet else 0


if __name__ == "__main__":
    raise SystemExit(main())
