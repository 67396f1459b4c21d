"""A run in one line: whether the target was met and what that cost, with its error bar; and the target in words."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from amsc.records import Asked, Record
from amsc.words.amounts import SHARES, TIMES, format_bytes, format_count, format_seconds

__all__ = ["Check", "Cost", "change_words", "checks", "costs", "ratio_words", "target_words", "verdict_words"]

ROUNDING = 1e-9
"""By so much, as a share, a limit may be missed: shares that were typed are not exact in binary."""
SIGNIFICANT = 2
"""Standard errors by which scores must differ not to be called chance."""


@dataclass(frozen=True)
class Cost:
    """One thing that a network costs, before and after: its `name`, the adjective for less of it, and how it is
    written."""

    name: str
    less: str
    before: float
    after: float
    write: Callable[[float], str]
    is_count: bool = False

    @property
    def share(self) -> float:
        """What is left of it, as a share; nan of nothing."""
        return self.after / self.before if self.before else math.nan

    def amount(self, number: float) -> str:
        """So much of it: "20 M parameters", "5 ms of latency"."""
        return f"{self.write(number)} {self.name}" if self.is_count else f"{self.write(number)} of {self.name}"


def costs(record: Record) -> Mapping[str, Cost]:
    """What the target may limit, by the word that is typed for it."""
    before, after = record.before, record.after
    return {
        "params": Cost("parameters", "fewer", before.parameters, after.parameters, format_count, is_count=True),
        "bytes": Cost("weights", "smaller", before.bytes, after.bytes, format_bytes),
        "macs": Cost("multiply-adds", "fewer", before.macs, after.macs, format_count, is_count=True),
        "latency": Cost("latency", "faster", before.latency_seconds, after.latency_seconds, format_seconds),
        "memory": Cost("peak memory", "less", before.peak_memory_bytes, after.peak_memory_bytes, format_bytes),
    }


@dataclass(frozen=True)
class Check:
    """One thing that was asked for: at length, what came of it, and whether it was kept to."""

    wanted: str
    reached: str
    is_met: bool


def checks(record: Record) -> tuple[Check, ...]:
    """All that the target said, held against the outcome. Latency and memory are those measured at the very end."""
    known = costs(record)
    found = []
    for asked in record.asked:
        if asked.what == "drop" and record.path:
            found.append(_drop_check(record, asked))
        elif asked.what in known:
            found.append(_cost_check(known[asked.what], asked))
    return tuple(found)


def _cost_check(cost: Cost, asked: Asked) -> Check:
    limit = asked.number * cost.before if asked.is_share else asked.number
    is_met = cost.after <= limit * (1 + ROUNDING)
    if not asked.is_share:
        return Check(
            f"at most {cost.amount(limit)}", f"{cost.amount(cost.after)} (at most {cost.write(limit)})", is_met
        )
    share, in_all = f"{asked.number * 100:.4g}%", f"{cost.write(limit)} of {cost.write(cost.before)}"
    reached = f"{cost.share:.1%} of the {cost.name} (at most {share})"
    return Check(f"at most {share} of the {cost.name} ({in_all})", reached, is_met)


def _drop_check(record: Record, asked: Asked) -> Check:
    lost, most = _lost(record, record.path[0].score, record.path[-1].score), _points(record, asked.number)
    wanted = f"no more than {most} of {record.score_name} lost on the validation split"
    reached = f"{_points(record, max(0.0, lost))} of {record.score_name} lost on the validation split (at most {most})"
    return Check(wanted, reached, lost <= asked.number + ROUNDING)


def _lost(record: Record, before: float, after: float) -> float:
    """How much worse the second score is."""
    is_better = record.about is None or record.about.higher_is_better
    return before - after if is_better else after - before


def _points(record: Record, value: float) -> str:
    """A difference of scores: in points where the score is a share."""
    if record.score_name not in SHARES:
        return f"{value:.3g}"
    number = f"{100 * value:.2f}".removesuffix(".00")
    return f"{number} point{'s' * (number != '1')}"


def target_words(record: Record) -> str:
    """What was asked for, for somebody who does not know the command line."""
    if record.judged_shares:
        return "as small as it goes without losing anything that the validation split can show"
    return " and ".join(check.wanted for check in checks(record)) or record.target


def verdict_words(record: Record) -> str:
    """Whether the target was met, and at what cost, in one line."""
    found = checks(record)
    missed = [check for check in found if not check.is_met]
    if not found:
        what = "As small as it goes for nothing" if record.judged_shares else "What is left"
        head = f"{what}: {costs(record)['macs'].share:.1%} of the multiply-adds"
    elif missed:
        head = f"Target missed: {' and '.join(check.reached for check in missed)}"
    else:
        head = f"Target met: {' and '.join(check.reached for check in found)}"
    return f"{head}; {change_words(record)}."


def change_words(record: Record) -> str:
    """How the score on the test split changed, with its error bar, and whether that may be chance."""
    before, after, name = record.score_before, record.score_after, record.score_name
    if not math.isfinite(before + after):
        return f"the {name} is undefined"
    lost, error = _lost(record, before, after), record.score_error
    size = _points(record, abs(lost)) if error is None else _with_error(record, abs(lost), error)
    number = record.about.examples.get("test", 0) if record.about else 0
    where = f" on {number:,} test examples" if number else " on the test split"
    what = "the same" if lost == 0 else f"{'worse' if lost > 0 else 'better'} by {size}"
    if lost == 0 and error:
        what += f" (± {_points(record, error)})"
    chance = ", which may be chance" if lost and error is not None and abs(lost) <= SIGNIFICANT * error else ""
    return f"the {name}{where} is {what}{chance}"


def _with_error(record: Record, value: float, error: float) -> str:
    if record.score_name in SHARES:
        return f"{100 * value:.2f} ± {100 * error:.2f} points"
    return f"{value:.3g} ± {error:.2g}"


def ratio_words(cost: Cost) -> str:
    """How many times less of it there is: "2 times fewer", with a sign; "the same", or how much more."""
    if not (cost.before > 0 and cost.after > 0):
        return "-"
    ratio = cost.before / cost.after
    if f"{ratio:.2f}" == "1.00":
        return "the same"
    more = {"fewer": "more", "smaller": "larger", "faster": "slower", "less": "more"}[cost.less]
    return f"{ratio:.3g}{TIMES} {cost.less}" if ratio > 1 else f"{1 / ratio:.3g}{TIMES} {more}"
