"""What was found where no budget was given: how small a network gets for nothing, in a sentence and in rows."""

from collections.abc import Sequence

from amsc.records import JudgedShare
from amsc.words.amounts import SHARES, score_format
from amsc.words.page import Section

__all__ = ["judged_section", "verdict", "words_on_nothing"]


def verdict(judged: Sequence[JudgedShare], score_name: str) -> str:
    """How small it goes for nothing, and what the next smaller network that was judged would lose."""
    kept = min((one for one in judged if one.is_as_good), key=lambda one: one.macs)
    smaller = [one for one in judged if one.macs < kept.macs]
    error = f" (one paired standard error is {_points(score_name, kept.standard_error)})" if kept.behind > 0 else ""
    behind = f"{_points(score_name, kept.behind)} behind the best" if kept.behind > 0 else "the best"
    found = (
        f"as small as it goes for nothing is {kept.share:.1%} of the MACs: before any fine-tuning its {score_name} on "
        f"{kept.examples} validation examples is {score_format(score_name)(kept.score)}, {behind} of {len(judged)} "
        f"networks{error}"
    )
    if not smaller:
        return f"{found}; none smaller was judged"
    return f"{found}; with {_lack(max(smaller, key=lambda one: one.macs), score_name)}"


def words_on_nothing(judged: Sequence[JudgedShare], score_name: str) -> str:
    """That no network but the dense one is as good as the best, for an error."""
    smaller = [one for one in judged if one.share < 1]
    if not smaller:
        return "free: no smaller network could be made; `amsc inspect` shows what can go, and what costs"
    return (
        f"free: nothing can go for nothing: of {len(smaller)} smaller networks none is within one paired standard "
        f"error of the best on {smaller[0].examples} validation examples; with "
        f"{_lack(max(smaller, key=lambda one: one.macs), score_name)}; "
        "say how much may be lost (drop=1%), or how small it must be (macs=80%)"
    )


def judged_section(judged: Sequence[JudgedShare], score_name: str) -> Section:
    """A row for each network that was judged."""
    rows = tuple(
        (
            f"{one.share:.1%}",
            score_format(score_name)(one.score),
            _points(score_name, one.behind),
            _points(score_name, one.standard_error),
            "yes" if one.is_as_good else "no",
        )
        for one in judged
    )
    columns = ("share of the MACs", f">{score_name} (validation)", ">behind the best", ">standard error", "as good")
    return Section(columns, rows)


def _lack(one: JudgedShare, score_name: str) -> str:
    return (
        f"{one.share:.1%} of the MACs it is {_points(score_name, one.behind)} behind "
        f"({_points(score_name, one.standard_error)})"
    )


def _points(score_name: str, value: float) -> str:
    """A difference of scores: in points where the score is a share."""
    return f"{100 * value:.2f} points" if score_name in SHARES else f"{value:.3g}"
