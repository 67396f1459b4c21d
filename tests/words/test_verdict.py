"""A run in a line: met or missed, at what cost, with its error bar."""

import dataclasses

import pytest

from amsc.records import Asked, JudgedShare, Record
from amsc.words.loading import data_words, loading_code, network_words, shape_words
from amsc.words.verdict import checks, costs, ratio_words, target_words, verdict_words
from report.fixed import bare_record, fixed_record

PM, TIMES = "\N{PLUS-MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def asked(*wanted: Asked, **changes: object) -> Record:
    return fixed_record(asked=wanted, **changes)


def test_a_target_that_is_met() -> None:
    assert verdict_words(fixed_record()) == (
        "Target met: 49.9% of the multiply-adds (at most 50%); the accuracy on 360 test examples is worse by "
        f"0.50 {PM} 0.40 points, which may be chance."
    )
    assert target_words(fixed_record()) == "at most 50% of the multiply-adds (6.25 M of 12.5 M)"


def test_a_target_that_is_missed_says_by_what() -> None:
    record = asked(Asked("latency", 0.001), Asked("params", 0.5, is_share=True))
    assert [check.is_met for check in checks(record)] == [False, True]
    assert verdict_words(record).startswith("Target missed: 1.3 ms of latency (at most 1 ms); ")
    assert target_words(record) == "at most 1 ms of latency and at most 50% of the parameters (39.02 K of 78.04 K)"


@pytest.mark.parametrize(("allowed", "is_met"), [(0.001, False), (0.002, True), (0.05, True)])
def test_a_drop_is_that_of_the_validation_split(allowed: float, is_met: bool) -> None:
    (check,) = checks(asked(Asked("drop", allowed)))
    assert check.is_met == is_met
    assert check.reached.startswith("0.20 points of accuracy lost on the validation split")


def test_a_score_that_is_better_the_lower_it_is() -> None:
    about = dataclasses.replace(fixed_record().about, higher_is_better=False)  # type: ignore[type-var]
    record = fixed_record(score_name="loss", score_before=0.5, score_after=0.55, about=about, score_error=0.01)
    assert verdict_words(record).endswith(f"the loss on 360 test examples is worse by 0.05 {PM} 0.01.")
    better = dataclasses.replace(record, score_after=0.4)
    assert verdict_words(better).endswith(f"is better by 0.1 {PM} 0.01.")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score_after": 0.98}, f"is the same ({PM} 0.40 points)."),
        ({"score_after": 0.9}, f"is worse by 8.00 {PM} 0.40 points."),
        ({"score_after": 0.985, "score_error": None}, "is better by 0.50 points."),
        ({"score_after": float("nan")}, "the accuracy is undefined."),
    ],
)
def test_how_the_score_changed(change: dict[str, object], words: str) -> None:
    assert verdict_words(fixed_record(**change)).endswith(words)


def test_records_of_before_and_free_targets() -> None:
    assert verdict_words(bare_record()).startswith("What is left: 49.9% of the multiply-adds; the accuracy on the test")
    assert target_words(bare_record()) == "macs=50%"
    judged = (JudgedShare(0.5, 6_240_000, 0.9, 0.0, 0.01, 359, is_as_good=True),)
    free = fixed_record(asked=(), judged_shares=judged, target="free")
    assert verdict_words(free).startswith("As small as it goes for nothing: 49.9% of the multiply-adds; ")
    assert target_words(free) == "as small as it goes without losing anything that the validation split can show"


def test_ratios_in_words() -> None:
    known = costs(fixed_record())
    assert ratio_words(known["macs"]) == f"2{TIMES} fewer"
    slower = dataclasses.replace(known["latency"], after=2 * known["latency"].before)
    assert ratio_words(slower) == f"2{TIMES} slower"
    assert ratio_words(dataclasses.replace(slower, after=slower.before)) == "the same"
    assert ratio_words(dataclasses.replace(slower, before=0.0)) == "-"


def test_network_data_and_inputs_in_words() -> None:
    record = fixed_record(model="resnet8")
    assert network_words(record) == (
        "resnet8 (a ResNet): 4 layers with weights, 78.04 K parameters, 3 removable blocks and 112 removable channels"
    )
    assert (
        data_words(record) == "digits: 10 classes, examples: 1,078 for training, 359 for validation, 360 for the test"
    )
    assert shape_words(record) == f"1 {TIMES} 1 {TIMES} 8 {TIMES} 8 (a batch of 1)"
    assert (data_words(bare_record()), shape_words(bare_record())) == ("digits", "the example inputs")


def test_code_that_loads_the_network_is_python() -> None:
    code = loading_code(fixed_record())
    compile(code, "snippet", "exec")
    assert "lambda: open_model('resnet8', num_classes=10, in_channels=1)" in code
    assert "return here the YourNetwork, built as in the code" in loading_code(bare_record())
