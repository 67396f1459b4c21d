"""The mixed-integer program, against every choice of sizes and blocks."""

import itertools
import random
from math import prod

import pytest

from amsc.criteria.program import Program

SIZES = {"a": [1, 2, 4], "b": [1, 3], "c": [1, 2, 3]}
HOME = {"b": "x", "c": "y"}
TERMS = [
    ((), "", 3.0),
    ((), "x", 4.0),  # in a block, of no group that goes with it
    (("a",), "", 1.0),
    (("a",), "x", 2.0),
    (("a", "a"), "", 0.5),
    (("a", "b"), "x", 1.0),
    (("b", "c"), "", 1.0),  # of two blocks: none where either is gone
    (("a", "c"), "x", 1.5),  # in a block, and of another one
    (("c",), "y", 2.0),
]


def cost(kept: dict[str, int]) -> float:
    gone = {HOME[name] for name in HOME if name not in kept}
    terms = (
        factor * prod(kept.get(name, 0) for name in groups) for groups, block, factor in TERMS if block not in gone
    )
    return sum(terms)


def choices() -> list[dict[str, int]]:
    every = itertools.product(SIZES["a"], [*SIZES["b"], 0], [*SIZES["c"], 0])
    return [{name: size for name, size in zip("abc", sizes, strict=True) if size} for sizes in every]


@pytest.mark.parametrize("seed", range(6))
def test_the_most_value_at_every_cost(seed: int) -> None:
    drawn = random.Random(seed)
    values = {name: sorted(drawn.uniform(0, 1) for _ in sizes) for name, sizes in SIZES.items()}

    def value(kept: dict[str, int]) -> float:
        return sum(values[name][SIZES[name].index(size)] for name, size in kept.items())

    blocks = set()
    for amount in (5.0, 8.0, 12.0, 20.0, 30.0, 80.0):
        program = Program(SIZES, values, HOME)
        program.add_limit(TERMS, amount)
        kept = program.solved()
        possible = [one for one in choices() if cost(one) <= amount]
        if not possible:
            assert kept is None
            continue
        assert kept is not None
        assert cost(kept) <= amount + 1e-4
        assert value(kept) == pytest.approx(max(map(value, possible)), rel=1e-3)
        blocks.add(frozenset(kept))
    assert len(blocks) > 1, "blocks have gone at some costs"


def test_more_than_two_groups_in_a_product_count_in_full() -> None:
    values = {name: [float(size) for size in sizes] for name, sizes in SIZES.items()}
    program = Program(SIZES, values, {})
    program.add_limit([(("a", "b", "c"), "", 1.0)], 9.0)
    kept = program.solved()
    assert kept is not None
    assert kept["a"] * kept["b"] * max(SIZES["c"]) <= 9
