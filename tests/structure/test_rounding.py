"""What is left of every group is a multiple, for positions as well as for channels."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amsc import round_channels
from amsc.errors import CutError, SettingsError
from amsc.models import open_model
from amsc.structure import ChannelGroup, Member, Rounding, Structure, minima, trace
from removals import random_removal


def _group(size: int, *widths: int, kind: str = "filter") -> ChannelGroup:
    members = tuple(
        Member(f"p{i}", 0, tuple(tuple(range(c * width, (c + 1) * width)) for c in range(size)), "out")
        for i, width in enumerate(widths)
    )
    return ChannelGroup("g", kind, size, True, members)


@pytest.mark.parametrize(
    ("size", "widths", "to", "least", "sizes"),
    [
        (5, (1,), 1, 1, [1, 2, 3, 4]),
        (32, (1,), 8, 1, [8, 16, 24]),
        (20, (1,), 8, 1, [8, 16]),
        (6, (1,), 8, 1, []),  # smaller than it: stays whole
        (32, (1,), 8, 9, [16, 24]),
        (5, (1,), 1, 3, [3, 4]),
        (12, (64,), 8, 1, list(range(1, 12))),  # heads of 64: any number of them
        (4, (20,), 8, 1, [2]),  # 2 heads of 20 are 40 positions
        (32, (1, 16), 8, 1, [8, 16, 24]),  # a filter and the inputs behind a reshape
        (12, (64,), 1, 100, list(range(2, 12))),  # 100 positions are two heads
    ],
)
def test_the_sizes_that_a_group_can_have(
    size: int, widths: tuple[int, ...], to: int, least: int, sizes: list[int]
) -> None:
    assert list(Rounding(to, least).smaller_sizes(_group(size, *widths))) == sizes


@pytest.mark.parametrize(
    ("size", "widths", "kind", "least", "sizes"),
    [
        (64, (1,), "filter", 1, [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40, 48, 56]),
        (40, (1, 16), "filter", 1, [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]),
        (16, (1,), "hidden", 1, [1, 2, 3, 4, 6, 8, 12]),
        (5, (1,), "filter", 1, [1, 2, 3, 4]),
        (2, (1,), "filter", 1, [1]),
        (1, (1,), "filter", 1, []),
        (24, (1, 2), "hidden", 1, [1, 2, 3, 4, 6, 8, 12, 16]),  # a gated unit
        (24, (4,), "filter", 1, [1, 2, 3, 4, *range(6, 24, 2)]),  # four filters each
        (24, (12,), "head_dim", 1, [1, 2, 3, 4, 6, 8, 12, 16]),
        (12, (20,), "head", 1, list(range(1, 12))),
        (12, (64,), "head", 100, list(range(2, 12))),
        (64, (1,), "filter", 27, [27, 32, 40, 48, 56]),  # the least is always allowed
        (32, (1,), "filter", 27, [27]),
        (32, (1,), "filter", 32, []),
        (32, (1,), "filter", 5, [5, 6, 8, 12, 16, 24]),
    ],
)
def test_auto_is_finer_where_little_is_left(
    size: int, widths: tuple[int, ...], kind: str, least: int, sizes: list[int]
) -> None:
    assert list(Rounding(8, least, gives_way=True).smaller_sizes(_group(size, *widths, kind=kind))) == sizes


@given(size=st.integers(2, 200), width=st.integers(1, 24), least=st.integers(1, 50), to=st.sampled_from([2, 4, 8, 16]))
def test_what_gives_way_keeps_nothing_from_going(size: int, width: int, least: int, to: int) -> None:
    group, rounding = _group(size, width), Rounding(to, least, gives_way=True)
    sizes, any_size = list(rounding.smaller_sizes(group)), list(Rounding(1, least).smaller_sizes(group))
    assert sizes[:1] == any_size[:1], "as few may be left as without rounding"
    assert sizes == sorted(set(sizes) & set(any_size))
    assert set(sizes) <= set(rounding.finer().smaller_sizes(group))
    assert set(Rounding(to, least).smaller_sizes(group)) <= set(sizes)
    assert all(high <= 2 * low for low, high in pairwise([*sizes, size]))
    while rounding.to > 1:
        rounding = rounding.finer()
    assert list(rounding.smaller_sizes(group)) == any_size


def test_only_what_does_not_give_way_keeps_channels() -> None:
    assert not Rounding(8, gives_way=True).keeps_some
    assert not Rounding().keeps_some
    assert Rounding(8).keeps_some
    for more in ({"least": 2}, {"share": 0.1}, {"minima": (("g", 2),)}):
        assert Rounding(8, gives_way=True, **more).keeps_some  # type: ignore[arg-type]


def test_head_dimensions_are_counted_in_each_head() -> None:
    """12 heads of 20: with 18 left in each it would be 216 = 27 x 8, until one head goes."""
    assert list(Rounding(8).smaller_sizes(_group(20, 12, kind="head_dim"))) == [8, 16]


@given(seed=st.integers(0, 2**32), to=st.integers(1, 17), least=st.integers(1, 40))
def test_round_channels_gives_back_as_little_as_needed(seed: int, to: int, least: int) -> None:
    channels, _ = random_removal(STRUCTURE, seed)
    rounded = round_channels(STRUCTURE, channels, to=to, least=least)
    for name, asked in channels.items():
        size, going = STRUCTURE.group(name).size, rounded.get(name, ())
        assert set(going) <= set(asked)
        left = size - len(going)
        assert left == size or (left % to == 0 and left >= least)
        assert not [n for n in range(size - len(set(asked)), left) if n % to == 0 and n >= max(1, least)]


def _structure() -> Structure:
    import torch

    return trace(open_model("digits_resnet").eval(), torch.zeros(1, 1, 8, 8))


STRUCTURE = _structure()


def test_the_first_named_go_and_all_but_one_at_most() -> None:
    name = "layer1.0.conv1"
    assert round_channels(STRUCTURE, {name: [9, 3, 5, 1, 7, 2, 0, 8, 4, 6]}) == {name: (0, 1, 2, 3, 5, 7, 8, 9)}
    assert round_channels(STRUCTURE, {name: range(7)}) == {}
    assert round_channels(STRUCTURE, {name: range(16)}, to=1) == {name: tuple(range(15))}


def test_a_group_may_have_a_minimum_of_its_own() -> None:
    named = Rounding(4, 2, minima(STRUCTURE, ["layer1=9", "*.1.conv1=5", "layer1.0.conv1=3"]))
    sizes = {name: list(named.smaller_sizes(STRUCTURE.group(name))) for name in ("layer1.0.conv1", "layer2.1.conv1")}
    assert sizes == {"layer1.0.conv1": [12], "layer2.1.conv1": [8, 12, 16, 20, 24, 28]}


def test_wrong_names_indices_and_numbers_are_refused() -> None:
    with pytest.raises(CutError, match="did you mean"):
        round_channels(STRUCTURE, {"layer1.0.conv9": [0]})
    with pytest.raises(CutError, match="0 to 15"):
        round_channels(STRUCTURE, {"layer1.0.conv1": [16]})
    for wrong in (0, -8, 1.5, True):
        with pytest.raises(SettingsError, match="1 or more"):
            Rounding(wrong)  # type: ignore[arg-type]
