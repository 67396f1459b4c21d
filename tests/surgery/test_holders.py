"""Numbers follow a cut in whatever holds them: partial functions, named tuples, frozen values, slots, lists, dicts."""

import copy
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from amsc.structure import trace
from amsc.surgery import cut, plan_cut
from amsc.surgery.attributes.places import number_at, set_number, whole_numbers
from surgery.nets import randomized

WIDTH, HEADS = 24, 4


def tokens() -> Tensor:
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(2))


Pair = namedtuple("Pair", ["pieces", "name"])


@dataclass(frozen=True)
class Sizes:
    pieces: int
    width: int = WIDTH


@dataclass(frozen=True, slots=True)
class Slots:
    pieces: int


def divided(x: Tensor, pieces: int) -> Tensor:
    return x.unflatten(-1, (pieces, -1)).transpose(1, 2)


class Holder(nn.Module):
    def __init__(self, held: Any, call: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.q, self.k, self.v, self.last = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.held, self.call = held, call

    def forward(self, x: Tensor) -> Tensor:
        assert hasattr(self.held, "pieces") or self.held
        q, k, v = (self.call(self.held, layer(x)) for layer in (self.q, self.k, self.v))
        y = functional.scaled_dot_product_attention(q, k, v)
        return x + self.last(y.transpose(1, 2).flatten(2))


HOLDERS: dict[str, tuple[Any, Callable[[Any, Tensor], Tensor]]] = {
    "partial": (partial(divided, pieces=HEADS), lambda held, x: held(x)),
    "namedtuple": (Pair(HEADS, "heads"), lambda held, x: divided(x, held.pieces)),
    "frozen": (Sizes(HEADS), lambda held, x: divided(x, held.pieces)),
    "slots": (Slots(HEADS), lambda held, x: divided(x, held.pieces)),
    "namespace": (SimpleNamespace(pieces=HEADS), lambda held, x: divided(x, held.pieces)),
    "list": ([HEADS, "heads"], lambda held, x: divided(x, held[0])),
    "nested": ({"heads": {"pieces": HEADS}}, lambda held, x: divided(x, held["heads"]["pieces"])),
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_numbers_follow_in_whatever_holds_them(kind: str) -> None:
    held, call = HOLDERS[kind]
    before = copy.deepcopy(held)
    model = randomized(Holder(held, call)).eval()
    structure = trace(model, tokens())
    (heads,) = (group.name for group in structure.channels if group.kind == "head")
    small: Any = cut(model, plan_cut(structure, channels={heads: [0, 3]}), tokens())
    assert type(small.held) is type(held)
    assert HEADS - 2 in {number for _, number in whole_numbers(small)}
    assert model.held is held
    if kind != "partial":
        assert held == before


def test_numbers_are_set_in_a_copy_of_what_others_share() -> None:
    shared = SimpleNamespace(pieces=HEADS)
    one, two = (Holder(shared, lambda held, x: divided(x, held.pieces)) for _ in range(2))
    set_number(one, ("held", "pieces"), 3)
    assert (number_at(one, ("held", "pieces")), number_at(two, ("held", "pieces"))) == (3, HEADS)
