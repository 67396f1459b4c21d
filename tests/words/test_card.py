"""The card of a model: Markdown in which names are text."""

import re
from dataclasses import replace

from amsc.words.card import model_card
from report.fixed import fixed_record


def test_the_card_has_the_table_and_how_to_load_it() -> None:
    record = fixed_record()
    card = model_card(record)
    assert card.startswith("---\nlibrary_name: amsc\n")
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert len({row.count(" | ") for row in rows}) == 1, "a table"
    assert any(row.startswith("| MACs | ") for row in rows)
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert 'amsc.load("hf:OWNER/NAME", lambda: ' in code


def test_names_are_no_markup() -> None:
    card = model_card(replace(fixed_record(), model="<script>alert(1)</script> | a_b\n# c", removed_blocks=("`x`",)))
    assert not re.search(r"(?<!\\)<script", card)
    assert "\n# c" not in card
    assert "\\`x\\`" in card
