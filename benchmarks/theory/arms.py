"""The arms of the Monte Carlo: what each finds in the examples of one cell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from benchmarks.theory.estimators import Point, Scene, State, penalised, picked, points_along
from benchmarks.theory.networks import Stack
from benchmarks.theory.rules import chosen, has_depth, has_width
from benchmarks.theory.teachers import STUDENT, TEACHER
from torch import Tensor

__all__ = ["DEPTHS", "PRACTICAL", "RATES", "WIDTHS", "practical", "theorem"]

DEPTHS = (0.004, 0.008, 0.016, 0.032)
WIDTHS = (0.002, 0.004, 0.008, 0.016, 0.032)
RAMP = (0.25, 0.5, 1.0)

PRACTICAL = {
    "amsc": ("amsc", "one-standard-error"),
    "amsc, minimum": ("amsc", "minimum"),
    "amsc, minimum, shrunk": ("amsc", "minimum, shrunk"),
    "amsc, BIC": ("amsc", "bic"),
    "ssl": ("ssl", "one-standard-error"),
    "gl": ("gl", "one-standard-error"),
    "rw": ("rw", "one-standard-error"),
}
"""Arms that choose: the weights of each, and its rule."""


@dataclass(frozen=True)
class Rate:
    """Strengths that are a power of n: depth[0] (n / 1000)^-depth[1], and so for width."""

    depth: tuple[float, float]
    width: tuple[float, float]
    from_teacher: bool = False

    def at(self, n: int) -> tuple[float, float]:
        """The strengths of depth and width for n examples."""
        depth, width = (c * (n / 1000) ** -a for c, a in (self.depth, self.width))
        return depth, width


RATES = {
    "theorem": Rate((0.02, 0.2), (0.01, 0.4)),
    "theorem, from the teacher": Rate((0.02, 0.2), (0.01, 0.4), from_teacher=True),
    "depth strength does not vanish": Rate((0.08, 0.0), (0.01, 0.4)),
    "width before depth": Rate((0.01, 0.4), (0.02, 0.2)),
    "width strength below the noise": Rate((0.02, 0.2), (0.001, 1.0)),
}
"""Strengths by the theorem's conditions, 0 < a0 < a1 < 1/2, and against each of them."""


def practical(scene: Scene, arms: Mapping[str, tuple[str, str]]) -> tuple[dict[str, Stack], dict[str, tuple[int, int]]]:
    """The networks that these arms of `PRACTICAL` end with; and in how many replicates some point of the path has the
    teacher's depth, and after depth was chosen some point its widths, whichever the rule then takes."""
    if not arms:
        return {}, {}
    count, own = len(scene.weights), range(len(scene.weights))
    families = list(dict.fromkeys(family for family, _ in arms.values()))
    wide = scene.part([*own] * len(families), [family for family in families for _ in own])
    along = dict(zip(families, _split(points_along(wide, DEPTHS), len(families)), strict=True))
    starts = [_taken(along[family], rule, True, scene) for family, rule in arms.values()]
    places = [count * families.index(family) + i for family, _ in arms.values() for i in own]
    start = {name: torch.cat([state[name] for state, _ in starts]) for name in scene.dense}
    held = torch.cat([strength for _, strength in starts])
    ends = _split(points_along(wide.part(places), WIDTHS, start=start, held=held), len(arms))
    found, seen = dict[str, Stack](), dict[str, tuple[int, int]]()
    for (arm, (family, rule)), end in zip(arms.items(), ends, strict=True):
        found[arm] = Stack(STUDENT, _taken(end, rule, False, scene)[0], count)
        seen[arm] = (_seen(along[family], has_depth), _seen(end, has_width))
    return found, seen


def _seen(points: list[Point], is_right: Callable[[Tensor], Tensor]) -> int:
    return int(torch.stack([is_right(point.units) for point in points]).any(0).sum())


def theorem(scene: Scene, teachers: Stack, n: int, rates: Mapping[str, Rate]) -> dict[str, Stack]:
    """The networks that these arms of `RATES` end with."""
    if not rates:
        return {}
    count, own = len(scene.weights), range(len(scene.weights))
    wide = scene.part([*own] * len(rates))
    starts = [embedded(teachers, scene.dense) if rate.from_teacher else scene.dense for rate in rates.values()]
    stack = Stack(STUDENT, {name: torch.cat([s[name] for s in starts]) for name in scene.dense}, len(wide.weights))
    depth, width = (
        torch.tensor([strength for strength in strengths for _ in own])
        for strengths in zip(*(rate.at(n) for rate in rates.values()), strict=True)
    )
    for share in RAMP:
        penalised(wide, stack, share * depth)
    for share in RAMP:
        penalised(wide, stack, share * width, depth)
    state = stack.state()
    parts = (range(i * count, (i + 1) * count) for i in range(len(rates)))
    return {
        arm: Stack(STUDENT, picked(state, stack.replicates, part), count)
        for arm, part in zip(rates, parts, strict=True)
    }


def embedded(teachers: Stack, dense: State) -> dict[str, Tensor]:
    """A student that is its teacher in the first block and the third, with the dense network's weights at a tenth in
    what the teacher does not have."""
    found = {name: 0.1 * tensor for name, tensor in dense.items()}
    for block, units in enumerate(TEACHER.units):
        for kind, axis in (("up.weight", 1), ("up.bias", 1), ("down.weight", 2)):
            whole = found[f"blocks.{2 * block}.{kind}"]
            rows = whole.view(teachers.replicates, -1, *whole.shape[1:])
            own = teachers.get_parameter(f"blocks.{block}.{kind}").detach()
            rows.narrow(axis, 0, units).copy_(own.view(teachers.replicates, -1, *own.shape[1:]))
    return found


def _split(points: list[Point], parts: int) -> list[list[Point]]:
    """The points of each part of the stack."""
    count = len(points[0].units) // parts
    return [[_part(point, slice(i * count, (i + 1) * count)) for point in points] for i in range(parts)]


def _part(point: Point, chosen_: slice) -> Point:
    count = len(point.units)
    state = picked(point.state, count, range(count)[chosen_])
    values = {name: getattr(point, name)[chosen_] for name in ("units", "shrunk", "settled", "fit")}
    return replace(point, state=state, **values)


def _taken(points: list[Point], rule: str, by_depth: bool, scene: Scene) -> tuple[State, Tensor]:
    """State and strengths of what a rule takes in each replicate."""
    choice = chosen(points, rule, by_depth=by_depth, examples=len(scene.sample))
    count = len(choice)
    parts = [picked(points[at].state, count, [i]) for i, at in enumerate(choice)]
    state = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return state, torch.tensor([points[at].strength for at in choice])
