"""Kinds of blocks answer for themselves, and are saved as words."""

import dataclasses
import json

import pytest

from amsc.structure import Block
from amsc.structure.names import enclosing, is_below, is_in_any, is_inside
from amsc.structure.parts import BlockKind


@pytest.mark.parametrize(
    ("word", "leaves", "is_dirac"),
    [("identity", "input", False), ("branch", "zeros", False), ("dense", "nothing", False), ("plain", "input", True)],
)
def test_a_kind_knows_its_origin_and_what_it_leaves(word: str, leaves: str, is_dirac: bool) -> None:
    kind = Block("a", ("a.weight",), 1, word).kind
    assert (kind, kind.leaves, kind.is_dirac) == (BlockKind(word), leaves, is_dirac)
    assert (f"{kind}", kind == word) == (word, True)


def test_blocks_are_saved_with_the_word() -> None:
    assert json.loads(json.dumps(dataclasses.asdict(Block("a", (), 1, BlockKind.BRANCH))))["kind"] == "branch"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="sideways"):
        Block("a", (), 1, "sideways")


def test_what_lies_in_what_goes_by_dots() -> None:
    assert enclosing("a.b.c") == ("a.b", "a")
    assert is_inside("a.b", "a.b")
    assert not is_below("a.b", "a.b")
    assert is_below("a.b.c", "a.b")
    assert not is_below("a.bc", "a.b")
    assert is_in_any("a.b.c", ["x", "a"])
    assert not is_in_any("ab.c", ["x", "a"])
