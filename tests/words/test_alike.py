"""Repeated layers on one line, and reasons in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amsc.words.alike import alike, name_together
from amsc.words.reasons import Reason, in_words


def _labels(*names: str) -> list[str]:
    return [found.label for found in alike(names)]


def test_numbers_between_dots_are_put_together() -> None:
    names = [f"layers.{i}.{part}" for i in range(12) for part in ("q", "k")]
    assert _labels(*names) == ["layers.0-11.q (12 alike)", "layers.0-11.k (12 alike)"]
    assert _labels("a.0.b.0", "a.0.b.1", "a.1.b.0", "a.1.b.1") == ["a.0-1.b.0-1 (4 alike)"]
    assert _labels("a.0", "a.1", "a.3") == ["a.0-1,3 (3 alike)"]


def test_numbers_in_words_only_from_three_on() -> None:
    assert _labels("conv1", "conv2") == ["conv1", "conv2"]
    assert _labels("denselayer1.c", "denselayer2.c", "denselayer3.c") == ["denselayer1-3.c (3 alike)"]


def test_what_differs_in_a_cell_stays_apart() -> None:
    found = alike(["a.0", "a.1", "a.2"], ["x", "y", "x"])
    assert [(one.label, one.indices) for one in found] == [("a.0,2 (2 alike)", (0, 2)), ("a.1", (1,))]


def test_many_names_are_one_phrase() -> None:
    assert name_together([f"a.{i}.w[0]" for i in range(5)] * 2) == "a.0-4.w[0]"
    assert name_together(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


@given(st.lists(st.from_regex(r"\A[ab][0-2]?(\.([0-2]|[ab][0-2]?)){0,3}\Z"), unique=True))
def test_every_name_is_in_exactly_one_line(names: list[str]) -> None:
    found = alike(names)
    assert sorted(index for one in found for index in one.indices) == list(range(len(names)))
    assert [one.indices[0] for one in found] == sorted(one.indices[0] for one in found)


@pytest.mark.parametrize(
    ("reason", "text", "module"),
    [
        ("aten.view.default in layer1.0 splits the axis", "a reshape (view) splits the axis", "layer1.0"),
        ("aten.native_layer_norm.default in ln", "a layer normalisation ties it to what stays", "ln"),
        ("aten.add_.Tensor joins it with values that stay", "a sum joins it with values that stay", ""),
        ("aten.frobnicate.default in a mixes channels", "the operator frobnicate mixes channels", "a"),
        ("aten._scaled_dot_product_flash_attention_for_cpu.default in a.b", "attention ties it to what stays", "a.b"),
        ("the scale of the attention in a.1 is taken from it", "the scale of the attention is taken from it", "a.1"),
        ("it is an output of the model", "it is an output of the model", ""),
    ],
)
def test_reasons_are_in_words(reason: str, text: str, module: str) -> None:
    assert in_words(reason) == Reason(text, module)
