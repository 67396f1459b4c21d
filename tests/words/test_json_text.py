"""Values come back from their JSON as they were, and what does not fit is named by its place."""

import dataclasses
import json
from typing import Any

import pytest

from amsc.errors import AmscError
from amsc.records import Record, from_json, to_json
from amsc.words.json_text import UnknownFieldsError
from report.fixed import bare_record, fixed_record, long_record


def changed(*keys: Any, to: Any) -> str:
    """The JSON of a record with another value at a place; `...` in its place takes the key away."""
    plain = json.loads(to_json(fixed_record()))
    inner = plain
    for key in keys[:-1]:
        inner = inner[key]
    if to is ...:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = to
    return json.dumps(plain)


@pytest.mark.parametrize("record", [bare_record(), fixed_record(), long_record(8, 5)], ids=["old", "new", "long"])
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    assert from_json(Record, to_json(record)) == record


def test_a_date_does_not_make_records_differ() -> None:
    record = fixed_record()
    later = dataclasses.replace(record, about=dataclasses.replace(record.about, date="2027"))  # type: ignore[type-var]
    assert later == record
    assert from_json(Record, to_json(later)).about.date == "2027"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (changed("path", 1, "macs", to="many"), 'path[1].macs: expected a whole number, got "many"'),
        (changed("score_after", to=None), "score_after: expected a number, got null"),
        (changed("before", to=[1, 2]), "before: expected the fields of a Measurement, got [1, 2]"),
        (changed("removed_channels", "layer3.0.conv1", to=7), "removed_channels['layer3.0.conv1']: expected a list"),
        (changed("about", "inputs", 0, 1, to=True), "about.inputs[0][1]: expected a whole number, got true"),
        (changed("path", to={"a": 1}), "path: expected a list"),
        (changed("after", "macs", to=...), "missing fields ['macs'] in after"),
        (changed("score_name", to=...), "missing fields ['score_name']"),
        (changed("path", 2, "newest", to=1), "unknown fields ['newest'] in path[2]"),
        ('{"model": "cut off', "Unterminated string"),
        ("[]", "all of it: expected the fields of a Record, got []"),
    ],
)
def test_what_does_not_fit_is_named(text: str, words: str) -> None:
    with pytest.raises(AmscError) as failure:
        from_json(Record, text)
    assert words in str(failure.value)
    assert str(failure.value).startswith("expected a saved Record, but the JSON does not fit: ")
    assert isinstance(failure.value.__cause__, UnknownFieldsError) == ("unknown" in words)


def test_what_is_nested_without_end_is_refused() -> None:
    with pytest.raises(AmscError, match="nested too deeply"):
        from_json(Record, '{"settings": ' + "[" * 200_000 + "]" * 200_000 + "}")


def test_long_values_are_shortened_in_messages() -> None:
    with pytest.raises(AmscError) as failure:
        from_json(Record, changed("score_after", to="x" * 500))
    assert len(str(failure.value)) < 200
