"""Groups that meet a constant of the user's forward are found by trying, and the others stay removable."""

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from amsc.errors import CutError
from amsc.structure import trace
from amsc.surgery import apply_plan, cut, cuttable, masked, plan_cut, verify
from amsc.surgery.attempts import different_shares
from amsc.surgery.trial import separating
from blocks_nets import Decoder, rows


class Constant(nn.Module):
    """A convolution that can be cut, one before a reshape to a written size, and a linear layer that can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.pool, self.hidden, self.head = nn.AvgPool2d(4), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.second(self.first(x).relu()).relu()).contiguous().view(-1, 16)
        return self.head(self.hidden(x).relu())


def test_the_group_before_a_written_size_is_found_and_the_others_are_left() -> None:
    model, inputs = Constant(), torch.randn(2, 3, 8, 8)
    structure = cuttable(model, trace(model, inputs), inputs)
    assert {group.name: group.exact for group in structure.channels} == {"first": True, "second": False, "hidden": True}
    reason = structure.group("second").reason
    assert "the cut model fails" in reason
    assert "at test_trial.py:" in reason
    assert ": x = self.pool(self.second(" in reason
    assert reason.endswith("a size written as -1, as in reshape(b, n, -1), follows a cut")
    assert cut(model, plan_cut(structure, channels={"first": [1], "hidden": [2, 3]}), inputs)
    with pytest.raises(CutError, match="second"):
        plan_cut(structure, channels={"second": [0]})


def test_a_structure_that_can_be_cut_is_returned_as_it_is() -> None:
    model, inputs = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 3)), torch.randn(1, 3, 8, 8)
    structure = trace(model, inputs)
    assert cuttable(model, structure, inputs) is structure


class ReadsInside(nn.Module):
    """Reads a weight of a branch, which no stand-in has."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder("none", "mask", num_layers=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x) * self.decoder.layers[0].mlp.up.weight.shape[0]


def test_a_branch_that_must_stay_is_found_with_its_layer() -> None:
    model = ReadsInside()
    structure = trace(model, rows())
    found = cuttable(model, structure, rows())
    left = {block.name for block in found.blocks}
    stuck = {"decoder.layers.0", "decoder.layers.0.mlp"}
    assert set(found.stuck) == stuck
    assert all("has no attribute" in why for why in found.stuck.values())
    assert "could not remove decoder.layers.0" in str(found)
    assert left == {block.name for block in structure.blocks} - stuck


@pytest.mark.parametrize("number", [0, 1, 2, 3, 7, 20, 21, 65])
def test_of_any_two_one_is_tried_without_the_other(number: int) -> None:
    sets = separating(number)
    assert all(any(a in one and b not in one for one in sets) for a, b in permutations(range(number), 2))
    assert set().union(*sets) == set(range(number))
    assert len(sets) <= math.ceil(math.log2(number + 1)) + 2


@pytest.mark.parametrize("sizes", [[64] * 13 + [128] * 13, [2] * 9, [3] * 5 + [4], [7]])
def test_of_any_two_alike_groups_different_numbers_go_in_some_cut(sizes: list[int]) -> None:
    groups = {f"layers.{number}": size for number, size in enumerate(sizes)}
    shares = different_shares(groups)
    taken = {name: tuple(share(name, size) for share in shares) for name, size in groups.items()}
    for name, ranges in taken.items():
        assert any(ranges), "something goes in one of them"
        assert all(len(chosen) < groups[name] and set(chosen) <= set(range(groups[name])) for chosen in ranges)
    numbers = {name: tuple(map(len, ranges)) for name, ranges in taken.items()}
    assert all(numbers[a] != numbers[b] for a, b in permutations(groups, 2) if groups[a] == groups[b])
    assert len(shares) == 1 or min(sizes) < 5


class Shared(nn.Module):
    """Two residual blocks with one convolution between them, which the tree of modules does not tell, and one of its
    own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = nn.Conv2d(3, 6, 1), Residual()
        self.two, self.three, self.head = Residual(self.one.b), Residual(), nn.Conv2d(6, 2, 1)
        del self.two.b

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.three(self.two(self.one(self.stem(x).relu()))))


class Residual(nn.Module):
    def __init__(self, shared: nn.Conv2d | None = None) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), shared or nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.second, self.scale = (self.b,), nn.Conv2d(6, 6, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale(self.second[0](self.a(x).relu()))


def test_each_block_that_is_left_can_go_alone_and_all_can() -> None:
    model, inputs = Shared(), torch.randn(2, 3, 4, 4)
    structure = trace(model, inputs)
    assert "one" in {block.name for block in structure.blocks}
    assert cut(model, plan_cut(structure, blocks=[block.name for block in structure.blocks]), inputs), "all together"
    left = [block.name for block in cuttable(model, structure, inputs).blocks]
    assert left == ["two", "three"], "without `one` alone the layer that `two` shares with it would be silent"
    for blocks in (["two"], ["three"], left):
        assert cut(model, plan_cut(structure, blocks=blocks), inputs)


class OneSize(nn.Module):
    """Layers in a row; from the second on what two of them make is brought together by one stored size."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoRows(is_tied=number == 1) for number in range(3))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class TwoRows(nn.Module):
    def __init__(self, *, is_tied: bool) -> None:
        super().__init__()
        self.is_tied = is_tied
        self.a, self.b, self.c, self.d = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        if self.is_tied and a.shape != b.shape:
            raise RuntimeError(f"{a.shape} is not {b.shape}")
        return x + self.c(a.relu()) + self.d(b.relu())


def test_two_groups_of_one_layer_among_alike_ones_must_go_alike() -> None:
    """Neither the first nor the last of the alike layers ties its groups."""
    model, inputs = OneSize(), torch.randn(3, 4)
    structure = trace(model, inputs)
    found = cuttable(model, structure, inputs)
    assert len(structure.channels) - len(found.channels) == 1
    paired = found.group("layers.1.a")
    assert paired.exact
    assert {member.parameter for member in paired.members} >= {"layers.1.a.weight", "layers.1.b.weight"}
    for group in found.channels:
        if group.exact:
            assert cut(model, plan_cut(found, channels={group.name: [0]}), inputs)


class Drawing(nn.Module):
    """A residual block that draws in evaluation: noise for all channels, or (`drops`) which of all values to drop."""

    def __init__(self, *, drops: bool) -> None:
        super().__init__()
        self.drops, self.strength = drops, nn.Parameter(torch.tensor(0.5))
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu() * (1 + self.strength * torch.rand(len(x), 1, *x.shape[2:]))
        return x + self.b(nn.functional.dropout(y, 0.5, training=self.drops))


def drawing(*, drops: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 1), Drawing(drops=drops), Drawing(drops=False), Drawing(drops=False), nn.Conv2d(6, 2, 1)
    )


def test_blocks_that_draw_random_numbers_can_go_and_the_others_draw_the_same() -> None:
    model, inputs = drawing(drops=False), torch.randn(2, 3, 4, 4)
    structure = trace(model, inputs)
    assert [block.name for block in cuttable(model, structure, inputs).blocks] == ["1", "2", "3"]
    for blocks in (["1"], ["2"], ["1", "3"]):
        plan = plan_cut(structure, blocks=blocks)
        small = cut(model, plan, inputs)
        torch.manual_seed(0)
        before = masked(model, plan)(inputs)
        torch.manual_seed(0)
        assert blocks == ["3"] or not torch.allclose(small(inputs), before), "one seed for all would have done"


def test_channels_for_which_numbers_are_drawn_stay_and_say_why() -> None:
    model, inputs = drawing(drops=True), torch.randn(2, 3, 4, 4)
    structure = trace(model, inputs)
    found = cuttable(model, structure, inputs)
    assert all(group.exact for group in structure.channels)
    assert [group.name for group in found.channels if not group.exact] == ["1.a"]
    assert "random numbers" in found.group("1.a").reason
    assert "(2, 6, 4, 4) before" in found.group("1.a").reason


class Chooses(nn.Module):
    """Compares with numbers so near that float32 tells one thing with half of the addends and another with all."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.out = nn.Linear(8, 400), nn.Linear(400, 64)
        self.limits = None
        with torch.no_grad():
            self.hidden.weight[::2], self.hidden.bias[::2] = 0, 0
            self.limits = self.out.double()(self.hidden.double()(inputs.double())).float()
        self.float()

    def forward(self, x: Tensor) -> Tensor:
        y = self.out(self.hidden(x))
        return (y > self.limits).to(y.dtype)


def test_a_choice_that_rounding_tips_is_judged_in_double_precision() -> None:
    inputs = torch.randn(16, 8)
    model = Chooses(inputs)
    structure = trace(model, inputs)
    plan = plan_cut(structure, channels={"hidden": range(0, 400, 2)})
    small = apply_plan(model, plan, inputs)
    with torch.no_grad():
        assert not torch.equal(small(inputs), masked(model, plan)(inputs)), "float32 tells them apart"
    assert verify(model, small, plan, inputs, num_random=0) == 0


class Asks(nn.AdaptiveAvgPool2d):
    """Pools, and asks for a value before."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        assert math.isfinite(x.sum().item())
        return super().forward(x)


class ReadsLarge(nn.Module):
    """Counts its channels by a number of its own where the image is large."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head((x.reshape(-1, 4, x.shape[2] * x.shape[3]) if x.shape[-1] > 24 else x.flatten(2)).mean(-1))


def test_what_holds_on_a_corner_alone_is_tried_on_the_whole() -> None:
    model, inputs = ReadsLarge(), torch.randn(1, 3, 192, 300)
    structure = trace(model, inputs)
    assert structure.group("stem").exact
    assert cuttable(model, trace(model, inputs[..., :64, :96]), inputs[..., :64, :96]).group("stem").exact
    assert not cuttable(model, structure, inputs).group("stem").exact


def test_images_are_tried_on_a_corner_where_the_network_runs_on_it() -> None:
    sizes: list[tuple[int, ...]] = []

    class Notes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(tuple(x.shape[2:]))
            return x

    inputs = torch.randn(1, 3, 192, 300)
    for last, seen in ((nn.AdaptiveAvgPool2d(1), (64, 96)), (Asks(), (64, 96)), (nn.Flatten(), (192, 300))):
        width = 4 * 48 * 75 if isinstance(last, nn.Flatten) else 4
        head = nn.Conv2d(4, 2, 1) if width == 4 else nn.Linear(width, 2)
        model = nn.Sequential(Notes(), nn.Conv2d(3, 4, 4, 4), nn.ReLU(), last, head)
        structure = trace(model, inputs)
        sizes.clear()
        assert cuttable(model, structure, inputs) is structure
        assert max(set(sizes), key=sizes.count) == seen
        assert (192, 300) in sizes, "what is left is tried on the inputs as they are"
