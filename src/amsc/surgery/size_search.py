"""Numbers that follow a cut without a known name or a value of their own are found by trying."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from typing import Any

from torch import nn

from amsc.borrowing import borrowed, copied_inputs, devices_of, run_model, seed_generators
from amsc.errors import CutError
from amsc.structure.structure import Structure
from amsc.surgery.apply import apply_plan
from amsc.surgery.attributes.places import Place, number_at, set_number
from amsc.surgery.inputs import SEED, trial_inputs
from amsc.surgery.plan import CutPlan
from amsc.surgery.size_candidates import Candidate, Change, candidates
from amsc.surgery.verification import verify

__all__ = ["Tries", "sizes_by_trying"]

NEAR = 2
PER_SEARCH = 12
ALTOGETHER = 48


@dataclass
class Tries:
    """How many runs of cut models are left, and the failures that no change of numbers helped."""

    left: int = ALTOGETHER
    hopeless: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True)
class _Run:
    """How far a model came: calls of modules that returned, and the module that was running (None: all returned)."""

    calls: int
    stuck_in: str | None
    why: str = ""


Option = tuple[Change, ...]


def sizes_by_trying(
    model: nn.Module,
    plan: CutPlan,
    example_inputs: Any = None,
    *,
    structure: Structure | None = None,
    tries: Tries | None = None,
) -> tuple[Change, ...] | None:
    """The numbers in modules that must follow for a cut that fails as it is, which make it equal to the masked model,
    and what they become. None if no number helps.

    First the numbers that follow by their value alone are put back: that was a guess. Then the model is run until it
    fails, with other numbers in the module that failed and in those around it; each that brings it further is kept.
    Where it runs and differs, all numbers nearby that may follow are tried together and divided, then one by one.
    `model` is not changed. What this costs is bounded by `tries`.
    """
    tries = tries or Tries()
    if not plan.cuts or tries.left <= 0:
        return None
    search = _Search(model, apply_plan(model, plan, example_inputs), plan, example_inputs, tries)
    chosen = search.chosen(structure)
    return None if chosen is None else tuple(change for option in chosen for change in option)


class _Search:
    """Sets numbers in a cut model, runs it, and puts them back."""

    def __init__(self, model: nn.Module, small: nn.Module, plan: CutPlan, example_inputs: Any, tries: Tries) -> None:
        self._model, self._small, self._plan, self._tries = model, small, plan, tries
        self._example = example_inputs
        self._inputs = next(trial_inputs(model, plan.inputs, example_inputs, 1))[1]
        self._left = min(PER_SEARCH, tries.left)
        self._base: dict[tuple[str, Place], int] = {}

    def chosen(self, structure: Structure | None) -> list[Option] | None:
        """The options that make the model work; None if there are none."""
        first = self._run([])
        key = (first.stuck_in or "", first.why or " ".join(self._plan.channels))
        if key in self._tries.hopeless:
            return None
        found: Sequence[Candidate] = candidates(self._model, self._small, self._plan, structure)
        if not found:
            return None
        back = self._without_guesses(found)
        run = self._run(back) if back else first
        if back and run.stuck_in is None and self._is_right():
            return self._fewer(back)
        if run.calls <= first.calls:  # without the guesses it comes no further: they are not what is wrong
            back, run = [], first
        some, end = self._further(found, back, run)
        if some and end.stuck_in is None and self._is_right():
            return self._fewer(some) if back else some
        found = [one for one in found if first.stuck_in is None or _distance(one, first.stuck_in) <= NEAR or some]
        options = self._together(found) if found else None
        if options is None and end.stuck_in is None:
            options = self._one_by_one(found, some)
        if options is None and self._left > 0:
            self._tries.hopeless.add(key)
        return options

    def _without_guesses(self, found: Sequence[Candidate]) -> list[Option]:
        """The options that put back what follows by its value alone."""
        bare = apply_plan(self._model, self._plan, fold=False, shares=True, by_value=False)

        def is_known(change: Change) -> bool:
            return number_at(bare.get_submodule(change.size.module), change.size.place) == change.new

        return [option for one in found for option in one.options if all(map(is_known, option))]

    def _further(self, found: Sequence[Candidate], some: list[Option], end: _Run) -> tuple[list[Option], _Run]:
        """`some` and the options, of numbers near each failure in turn, that bring the model further, and how far."""
        while end.stuck_in is not None and self._left > 0:
            for option in _near(found, end.stuck_in):
                run = self._run([*some, option])
                if run.calls > end.calls or run.stuck_in is None:
                    some, end = [*some, option], run
                    break
            else:
                break
        return some, end

    def _together(self, found: Sequence[Candidate]) -> list[Option] | None:
        """The most likely option of all numbers, less those that it works without; None if it does not work."""
        needed = [one.options[0] for one in found]
        return self._fewer(needed) if self._works(needed) else None

    def _fewer(self, needed: list[Option]) -> list[Option]:
        """Those of the options, which work, without which it does not work."""
        size = len(needed) // 2
        while size >= 1 and self._left > 0:
            for start in range(0, len(needed), size):
                fewer = [*needed[:start], *needed[start + size :]]
                if self._works(fewer):
                    needed = fewer
                    break
            else:
                size //= 2
            size = min(size, len(needed) // 2)
        return needed

    def _one_by_one(self, found: Sequence[Candidate], others: list[Option]) -> list[Option] | None:
        tried = ([*others, option] for one in found for option in one.options)
        return next((options for options in tried if self._works(options)), None)

    def _works(self, options: list[Option]) -> bool:
        return self._left > 0 and self._run(options).stuck_in is None and self._is_right()

    def _run(self, options: Iterable[Option]) -> _Run:
        """How far the model comes with these numbers, which stay set."""
        for (name, place), number in self._base.items():
            set_number(self._small.get_submodule(name), place, number)
        for change in (change for option in options for change in option):
            module = self._small.get_submodule(change.size.module)
            current = number_at(module, change.size.place)
            assert current is not None, "a candidate is a number in both models"
            self._base.setdefault((change.size.module, change.size.place), current)
            set_number(module, change.size.place, change.new)
        self._spend()
        return _run_of(self._small, self._inputs)

    def _is_right(self) -> bool:
        self._spend()
        num_random = int(self._example is None)
        try:
            verify(self._model, self._small, self._plan, self._example, num_random=num_random)
        except CutError:
            return False
        return True

    def _spend(self) -> None:
        self._left -= 1
        self._tries.left -= 1


def _run_of(model: nn.Module, inputs: Any) -> _Run:
    calls, running = 0, [""]
    handles = []

    def enter(name: str) -> Any:
        return lambda module, args: running.append(name)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal calls
        calls += 1
        running.pop()

    with borrowed(model):
        for name, module in model.named_modules():
            handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
        try:
            seed_generators(SEED, devices_of(model))
            run_model(model, copied_inputs(inputs))
        except Exception as error:  # whatever the user's forward raises where sizes do not fit
            return _Run(calls, running[-1], f"{error}")
        finally:
            for handle in handles:
                handle.remove()
    return _Run(calls, None)


def _near(found: Iterable[Candidate], stuck_in: str) -> Iterator[Option]:
    """The options of the numbers around a module, the nearest first; of equally near ones all first choices first."""
    near = sorted((distance, n) for n, one in enumerate(found) if (distance := _distance(one, stuck_in)) <= NEAR)
    by_number = list(found)
    for _, numbers in groupby(near, key=lambda one: one[0]):
        rows = [by_number[n].options for _, n in numbers]
        yield from (options[i] for i in range(max(map(len, rows))) for options in rows if i < len(options))


def _distance(candidate: Candidate, stuck_in: str) -> int:
    return min(_steps(name, stuck_in) for name in candidate.modules)


def _steps(name: str, other: str) -> int:
    """How many steps up and down the tree of modules lead from one to the other."""
    one, two = (tuple(filter(None, path.split("."))) for path in (name, other))
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))
    return len(one) + len(two) - 2 * shared
