"""Numbers that a module's own code keeps follow a cut, whatever they are called and wherever they lie."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from amsc.errors import VerificationError
from amsc.records import from_json, to_json
from amsc.structure import StoredSize, Structure, trace
from amsc.structure.cutting import after_removal
from amsc.structure.stored_sizes import follows_axis
from amsc.surgery import CutPlan, cut, cuttable, load, plan_cut, plan_of, save, size_search
from amsc.surgery.plan import NewSize
from surgery.nets import randomized

WIDTH, HEADS, SIZE = 24, 4, 6


def tokens() -> Tensor:
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(2))


def images() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(2))


class Split(nn.Module):
    """As a layer of einops: it keeps the length of an axis by its name, and once more in another form."""

    def __init__(self, **lengths: int) -> None:
        super().__init__()
        self.lengths, self._lengths = lengths, tuple(lengths.items())

    def forward(self, x: Tensor) -> Tensor:
        sizes = dict(self._lengths)
        assert sizes == self.lengths
        return x.unflatten(-1, (sizes.get("pieces", -1), sizes.get("each", -1))).transpose(1, 2)


class Attention(nn.Module):
    """No number of heads in the module itself."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.last = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.split_q, self.split_k, self.split_v = Split(pieces=HEADS), Split(each=SIZE), Split(each=SIZE)
        self.root = math.sqrt(SIZE)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split_q(self.q(x)), self.split_k(self.k(x)), self.split_v(self.v(x))
        weights = (q @ k.transpose(-2, -1) / self.root).softmax(-1)
        return x + self.last((weights @ v).transpose(1, 2).flatten(2))


class Halves(nn.Module):
    """As blocks of detectors: a width for a split, which another way through reads as well."""

    def __init__(self, c: int = 16) -> None:
        super().__init__()
        self.c, self.a, self.b = c, nn.Conv2d(3, 2 * c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)
        self.last = nn.Conv2d(2 * c, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = self.a(x).chunk(2, 1)
        return self.last(torch.cat([kept, self.b(worked).relu() + worked], 1))

    def forward_split(self, x: Tensor) -> Tensor:
        kept, worked = self.a(x).split((self.c, self.c), 1)
        return self.last(torch.cat([kept, self.b(worked).relu() + worked], 1))


class Reads(Halves):
    """The way through that reads the number is the one that runs."""

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_split(x)


class Grouped(nn.Module):
    """As blocks that are re-parametrised later."""

    def __init__(self, c: int = 16) -> None:
        super().__init__()
        self.groups_of_old, self.max_width, self.save = c, c, [4, c, 19]
        self.up, self.wise, self.down = nn.Conv2d(3, c, 1), nn.Conv2d(c, c, 3, groups=c), nn.Conv2d(c, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.wise(self.up(x).relu()).relu())

    def kernel(self) -> Tensor:
        return self.wise.weight.view(self.groups_of_old, -1)


def removed(structure: Structure, share: float) -> dict[str, list[int]]:
    """At random the share of the channels of each exact group, another number of each."""
    generator = torch.Generator().manual_seed(3)
    exact = [group for group in structure.channels if group.exact and group.size > 1]
    return {
        group.name: torch.randperm(group.size, generator=generator)[: max(1, int(share * group.size)) - n % 2].tolist()
        for n, group in enumerate(exact)
    }


def no_search(*_: Any) -> None:
    raise AssertionError("a search, where all sizes follow without one")


def tried(model: nn.Module, inputs: Tensor) -> Structure:
    return cuttable(model, trace(model, inputs), inputs)


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_heads_and_their_sizes_in_layers_that_rearrange(share: float, tmp_path: Path) -> None:
    model = randomized(Attention()).eval()
    structure = tried(model, tokens())
    assert {group.kind for group in structure.channels if group.exact} == {"head", "head_dim"}
    assert [group.size for group in structure.channels if group.exact] == [HEADS, SIZE, SIZE]
    small: Any = cut(model, plan_cut(structure, channels=removed(structure, share)), tokens())
    assert small.split_q.lengths["pieces"] < HEADS
    assert small.root == math.sqrt(SIZE)
    save(small, tmp_path / "small")
    again: Any = load(tmp_path / "small", lambda: Attention().eval())
    assert again.split_v.lengths == small.split_v.lengths
    assert torch.equal(copy.deepcopy(again)(tokens()), small(tokens()))


def test_a_cut_without_a_trial_finds_the_numbers_and_its_plan_names_them() -> None:
    model = randomized(Attention()).eval()
    structure = trace(model, tokens())
    (heads,) = (group.name for group in structure.channels if group.kind == "head")
    small: Any = cut(model, plan_cut(structure, channels={heads: [1]}), tokens())
    assert small.split_q._lengths == (("pieces", HEADS - 1),)
    plan = plan_of(small)
    assert plan is not None
    assert {(size.module, size.number) for size in plan.sizes} == {("split_q", HEADS - 1)}
    assert from_json(CutPlan, to_json(plan)).sizes == tuple(copy.deepcopy(plan.sizes))


def test_two_cuts_in_a_row_load_as_one(tmp_path: Path) -> None:
    model = randomized(Attention()).eval()
    structure = tried(model, tokens())
    (heads,) = (group.name for group in structure.channels if group.kind == "head")
    once = cut(model, plan_cut(structure, channels={heads: [1]}), tokens())
    left = after_removal(structure, {heads: [1]})
    assert {size.number for size in left.sizes if size.module == "split_q"} == {HEADS - 1}
    twice: Any = cut(once, plan_cut(left, channels={heads: [0]}), tokens())
    assert twice.split_q.lengths == {"pieces": HEADS - 2}
    save(twice, tmp_path / "twice")
    again = load(tmp_path / "twice", lambda: Attention().eval())
    assert torch.equal(again(tokens()), twice(tokens()))


def test_a_number_found_by_trying_may_follow_a_second_cut_by_its_value(tmp_path: Path) -> None:
    model = randomized(Halves()).eval()
    structure = trace(model, images())
    plan = plan_cut(structure, channels={structure.channels[0].name: range(8)})
    once = cut(model, replace(plan, sizes=(NewSize("", ("c",), 8),)), images())
    structure = trace(once, images())
    twice: Any = cut(once, plan_cut(structure, channels={structure.channels[0].name: range(2)}), images())
    save(twice, tmp_path / "twice")
    again: Any = load(tmp_path / "twice", lambda: Halves().eval())
    assert (twice.c, again.c) == (6, 6)


@pytest.mark.parametrize("kind", [Halves, Reads])
def test_a_width_follows_on_the_way_through_that_did_not_run(kind: type[Halves]) -> None:
    model = randomized(kind()).eval()
    structure = tried(model, images())
    small: Any = cut(model, plan_cut(structure, channels=removed(structure, 0.4)), images())
    assert small.c == small.b.in_channels < 16
    torch.testing.assert_close(small.forward_split(images()), small(images()))


def test_a_number_that_no_forward_reads_follows_where_it_can_be_nothing_else() -> None:
    model = randomized(Grouped()).eval()
    structure = trace(model, images())
    small: Any = cut(model, plan_cut(structure, channels={structure.channels[0].name: range(8)}), images())
    assert small.kernel().shape == (8, 9)
    assert (small.max_width, small.save) == (16, [4, 16, 19]), "a bound, and a list of other things"


def test_a_number_that_may_be_another_width_is_left_alone() -> None:
    model = randomized(Grouped()).eval()
    model.other = nn.Conv2d(4, 16, 1)
    structure = trace(model, images())
    small: Any = cut(model, plan_cut(structure, channels={structure.channels[0].name: range(8)}), images())
    assert small.groups_of_old == 16


class RootOfSize(nn.Module):
    """Keeps the size of a head for the root alone (`views` False), or to divide the heads as well."""

    def __init__(self, views: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.last = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.views, self.d_k, self.how_many = views, SIZE, HEADS

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, self.d_k) if self.views else (self.how_many, -1)
        q, k, v = (layer(x).unflatten(-1, shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-2, -1) / math.sqrt(self.d_k)).softmax(-1)
        return x + self.last((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("views", "kinds"), [(False, {"head", "head_dim"}), (True, {"head"})])
def test_what_scales_stays_as_it_was(views: bool, kinds: set[str]) -> None:
    model = randomized(RootOfSize(views)).eval()
    structure = tried(model, tokens())
    assert {group.kind for group in structure.channels if group.exact} == kinds
    small: Any = cut(model, plan_cut(structure, channels=removed(structure, 0.5)), tokens())
    assert small.d_k == SIZE
    assert small.how_many < HEADS or views


class Scaled(nn.Module):
    """Has a number that looks like its width, and is none."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.first, self.last = 16, nn.Conv2d(4, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu()) / self.c


def test_what_stays_in_one_class_follows_in_another() -> None:
    model = randomized(nn.Sequential(Halves(), Scaled())).eval()
    structure = tried(model, images())
    small: Any = cut(model, plan_cut(structure, channels=removed(structure, 0.4)), images())
    assert small[1].c == 16 > small[1].first.out_channels
    assert small[0].c == small[0].b.in_channels < 16


class PartSized(nn.Module):
    """Attention over the positions of an image, in which a size of heads is a third of the stream by chance.

    A wrong size of heads runs on: the positions take what is left over."""

    def __init__(self, heads: int, name: str) -> None:
        super().__init__()
        self.heads, self.name = heads, name
        setattr(self, name, SIZE)
        self.into, self.last = nn.Conv2d(3, 3 * SIZE, 1), nn.Conv2d(3 * SIZE, 4, 1)
        self.qkv, self.proj = nn.Conv2d(3 * SIZE, 3 * heads * SIZE, 1), nn.Conv2d(heads * SIZE, 3 * SIZE, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        parts = self.qkv(x).reshape(x.shape[0], 3, self.heads, getattr(self, self.name), -1).transpose(3, 4)
        y = functional.scaled_dot_product_attention(*parts.unbind(1), scale=0.4).transpose(2, 3)
        return self.last(x + self.proj(y.reshape(x.shape[0], -1, *x.shape[2:])))


def half_the_stream(structure: Structure) -> CutPlan:
    (stream,) = (group.name for group in structure.channels if group.kind == "stream")
    return plan_cut(structure, channels={stream: range(0, 3 * SIZE, 2)})


@pytest.mark.parametrize(("heads", "name"), [(5, "head_dim"), (3, "extent")])
def test_a_size_of_heads_that_is_a_third_of_the_stream_stays(
    heads: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size_search, "candidates", no_search)
    model = randomized(PartSized(heads, name)).eval()
    small = cut(model, half_the_stream(trace(model, images())), images())
    assert getattr(small, name) == SIZE


def test_a_number_that_followed_wrongly_by_its_value_is_put_back_first() -> None:
    model: Any = randomized(PartSized(5, "extent")).eval()
    for number in range(20):  # any of them may have to follow
        setattr(model, f"stride_{number}", 3 * SIZE)
    small = cut(model, half_the_stream(trace(model, images())), images())
    plan = plan_of(small)
    assert plan is not None
    assert plan.sizes == (NewSize("", ("extent",), SIZE),)


class Written(nn.Module):
    """A width written into the code, beside a number of the same value that does not help."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.of_no_use = nn.Linear(6, 16), nn.Linear(16, 3), 16

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu().view(-1, 16 + 0 * self.of_no_use))


def test_what_no_number_helps_is_not_tried_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[size_search.Tries] = []
    searched = size_search._Search._spend
    monkeypatch.setattr(size_search._Search, "_spend", lambda self: (runs.append(self._tries), searched(self))[1])
    model, x = Written(), torch.randn(2, 6)
    structure = tried(model, x)
    assert [group.exact for group in structure.channels] == [False]
    assert 0 < len(runs) <= 6
    with pytest.raises(VerificationError):
        cut(model, plan_cut(trace(model, x), channels={"first": [1]}), x)


def test_networks_that_work_are_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_search, "candidates", no_search)
    model = randomized(Halves()).eval()
    structure = tried(model, images())
    assert structure.sizes == ()
    assert cut(model, plan_cut(structure, channels=removed(structure, 0.5)), images())


def test_the_same_numbers_are_found_each_time() -> None:
    model = randomized(Attention()).eval()
    first, second = (tried(model, tokens()).sizes for _ in range(2))
    assert first == second
    assert StoredSize("split_q", ("lengths", "pieces"), HEADS, group="q") in first


@pytest.mark.parametrize(
    ("number", "gone", "counts", "left"),
    [
        (4, range(6), True, 3),  # a head of four
        (6, range(6), False, 6),  # whose size stays
        (6, (0, 7, 13, 23), False, 5),  # a dimension of every head, another in each
        (4, (0, 7, 13, 23), True, 4),
        (24, (5,), True, 23),
        (4, (5,), True, None),
        (5, (5,), True, None),
    ],
)
def test_parts_of_an_axis(number: int, gone: range, counts: bool, left: int | None) -> None:
    assert follows_axis(number, 24, tuple(gone), counts=counts) == left


def test_layers_of_einops(tmp_path: Path) -> None:
    layers = pytest.importorskip("einops.layers.torch")

    def build() -> nn.Module:
        model = Attention()
        model.split_q = layers.Rearrange("b n (h d) -> b h n d", h=HEADS)
        model.split_k, model.split_v = (layers.Rearrange("b n (h d) -> b h n d", d=SIZE) for _ in range(2))
        return model.eval()

    model = randomized(build())
    structure = tried(model, tokens())
    assert [group.size for group in structure.channels if group.exact] == [HEADS, SIZE, SIZE]
    small: Any = cut(model, plan_cut(structure, channels=removed(structure, 0.5)), tokens())
    save(small, tmp_path / "small")
    assert torch.equal(load(tmp_path / "small", build)(tokens()), small(tokens()))
