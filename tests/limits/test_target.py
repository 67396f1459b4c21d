"""Targets: what is typed is read back, amounts have units, what is impossible is refused in words."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amsc.errors import TargetError
from amsc.limits.target import Amount, Target, describe_target, format_target, parse_target


@pytest.mark.parametrize(
    ("text", "fraction"),
    [("macs=50%", 0.5), ("macs=0.5", 0.5), ("macs = 12.5 %", 0.125), ("macs=.25", 0.25), ("macs=5e-1", 0.5)],
)
def test_target_is_a_share_of_the_macs(text: str, fraction: float) -> None:
    assert parse_target(text) == Target(macs=fraction)


@pytest.mark.parametrize("text", ["macs=0", "macs=0%", "macs=100%", "macs=1", "macs=150%", "macs=-0.5", "macs=200"])
def test_a_target_of_nothing_or_everything_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match="above 0 % and below 100 %"):
        parse_target(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("macs=50", "write macs=50%"),
        ("mac=50%", "did you mean macs?"),
        ("macs", "such as macs=50%"),
        ("macs=half", "got 'macs=half'"),
        ("macs=nan", "got 'macs=nan'"),
        ("", "such as macs=50%"),
    ],
)
def test_a_mistyped_target_says_how_to_write_it(text: str, words: str) -> None:
    with pytest.raises(TargetError) as caught:
        parse_target(text)
    assert words in str(caught.value)


@given(st.floats(min_value=1e-6, max_value=1 - 1e-6))
def test_a_target_survives_its_text(fraction: float) -> None:
    assert parse_target(format_target(Target(fraction))) == Target(fraction)


@pytest.mark.parametrize(
    ("text", "cost", "amount"),
    [
        ("params=100k", "params", Amount(1e5, is_share=False)),
        ("params=272474", "params", Amount(272474, is_share=False)),
        ("macs=20M", "macs", Amount(2e7, is_share=False)),
        ("bytes=400 kB", "bytes", Amount(4e5, is_share=False)),
        ("bytes=2MiB", "bytes", Amount(2 * 2**20, is_share=False)),
        ("latency=5ms", "latency", Amount(0.005, is_share=False)),
        ("latency=1.5s", "latency", Amount(1.5, is_share=False)),
        ("latency=40%", "latency", Amount(0.4, is_share=True)),
        ("memory=.6", "memory", Amount(0.6, is_share=True)),
    ],
)
def test_amounts_have_units_and_shares_have_none(text: str, cost: str, amount: Amount) -> None:
    target = parse_target(text)
    found = target.limits
    assert list(found) == [cost]
    assert found[cost].is_share == amount.is_share
    assert found[cost].number == pytest.approx(amount.number)
    assert parse_target(format_target(target)) == target


def test_several_limits_and_a_drop_in_one_text() -> None:
    target = parse_target("macs=50%, latency=5ms,drop=1%")
    assert target == Target(macs=0.5, latency="5ms", drop="1%")
    assert (target.most_lost, Target(drop=0.01).most_lost, Target(macs=0.5).most_lost) == (0.01, 0.01, None)
    assert parse_target("drop=0.05") == Target(drop=0.05)
    assert list(target.limits) == ["macs", "latency"]
    assert parse_target(format_target(target)) == target
    assert Target(macs="50%", latency="5 ms").limits == target.limits


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latency=5", "for 5 percent of them write latency=5%"),
        ("macs=50", "for 50 percent of them write macs=50% or macs=0.5"),
        ("latency=5kg", "units of latency are us, ms, s"),
        ("params=5ms", "units of params are k, M, G, T"),
        ("bytes=5M", "units of bytes are B, kB"),
        ("params=-3k", "above 0 %"),
        ("macs=50%, macs=40%", "macs is said twice"),
        ("drop=much", "such as drop=1%"),
        ("drop=-1%", "such as drop=1%"),
        ("latancy=5ms", "did you mean latency?"),
    ],
)
def test_a_wrong_amount_says_what_is_right(text: str, words: str) -> None:
    with pytest.raises(TargetError) as caught:
        parse_target(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "got none of macs"),
        ({"drop": -0.1}, "how far the score may fall"),
        ({"drop": math.nan}, "how far the score may fall"),
        ({"drop": True}, "how far the score may fall"),
        ({"drop": "much"}, "how far the score may fall"),
        ({"drop": "-1%"}, "how far the score may fall"),
        ({"macs": 1.1}, "macs=1.1, which is 110 %, more than it costs; for 1.1 percent"),
        ({"params": 2.0}, "which is 200 %, more than it costs"),
        ({"macs": "110%"}, "macs=110%, which is 110 %, more than it costs; for half"),
        ({"macs": True}, "expected a share such as 0.5"),
        ({"latency": [1]}, "expected a share such as 0.5"),
        ({"params": 0}, "above 0 %"),
        ({"params": math.nan}, "expected a share"),
    ],
)
def test_a_target_of_the_wrong_kind_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(TargetError) as caught:
        Target(**said)
    assert words in str(caught.value)


def test_a_drop_of_a_loss_is_described_in_its_units() -> None:
    target = Target(macs=0.5, drop=0.05)
    assert describe_target(target, "accuracy", is_share=True) == "macs=0.5, drop=0.05"
    assert describe_target(target, "loss", is_share=False) == "macs=0.5, drop=0.05 (in units of the loss)"
    assert describe_target(Target(macs=0.5), "loss", is_share=False) == "macs=0.5"


def test_free_stands_alone() -> None:
    assert parse_target("free") == parse_target(" free ") == Target.free() == Target(is_free=True)
    assert format_target(Target.free()) == "free"
    assert not Target.free().limits
    assert Target.free().most_lost is None
    assert repr(Target.free()) == "Target(is_free=True)"
    for text, others in (
        ("free, macs=50%", "macs"),
        ("drop=1%, free", "drop"),
        ("free,latency=5ms,drop=0", "latency and drop"),
    ):
        with pytest.raises(TargetError, match=f"stands alone, and cannot be said together with {others}"):
            parse_target(text)
    for text in ("free=1", "fre", "free, free"):
        with pytest.raises(TargetError, match="expected a target such as"):
            parse_target(text)
    with pytest.raises(TargetError, match=r"got none of macs, .*drop, free"):
        Target()
