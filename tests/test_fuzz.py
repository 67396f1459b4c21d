"""Spoilt files of strangers are read or refused, in no other way: seconds of what benchmarks/fuzz does for hours."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz_targets import TARGETS, spoilt, survives

CASES = 12


@pytest.mark.parametrize("name", TARGETS)
def test_a_good_file_is_read(name: str) -> None:
    if name in ("image", "parquet"):
        pytest.importorskip("PIL")
        pytest.importorskip("pyarrow")
    assert survives(TARGETS[name], TARGETS[name].good())


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=CASES, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_nothing_but_an_error_of_amsc_comes_of_a_spoilt_one(name: str, seed: int) -> None:
    assert survives(TARGETS[name], spoilt(TARGETS[name], random.Random(seed))) in (True, False)
