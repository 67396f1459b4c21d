"""The card of a saved model: what it is, what it costs, how it is loaded, as Markdown for a hub."""

import re

from amsc.records import Record
from amsc.words.loading import data_words, loading_code, network_words, shape_words
from amsc.words.record import before_after, unproven_words, verified_words
from amsc.words.verdict import verdict_words

__all__ = ["model_card"]

HEAD = """\
---
library_name: amsc
tags:
- amsc
- pruning
- pytorch
---
"""
ON_THE_HUB = 'small = amsc.load("hf:OWNER/NAME"'


def model_card(record: Record) -> str:
    """README.md for the folder of the small network of a run; names in it are text and no markup."""
    rows = [(row.name, row.before, row.after, row.change) for row in before_after(record)]
    table = [("", "before", "after", "change"), ("---",) * 4, *rows]
    proof = "; ".join([verified_words(record), *unproven_words(record.unproven)])
    return "\n".join(
        [
            HEAD,
            f"# {_text(record.model)}, made smaller by amsc",
            "",
            _text(verdict_words(record)),
            "",
            *(f"| {' | '.join(_text(cell) for cell in row)} |" for row in table),
            "",
            f"Costs are those of one call on {_text(shape_words(record))}, on "
            f"{_text(', '.join(f'{key} {value}' for key, value in record.after.machine.items()))}.",
            "",
            f"- Before: {_text(network_words(record))}.",
            f"- Data: {_text(data_words(record))}.",
            f"- Removed blocks: {_text(', '.join(record.removed_blocks) or 'none')}.",
            f"- Proof: {_text(proof)}.",
            "",
            "## Loading it",
            "",
            "Two files, `config.json` and `model.safetensors`; nothing is unpickled, and no code is downloaded.",
            "`hf:OWNER/NAME` is where they lie on the hub. The path of their folder on a disk will do in its place.",
            "",
            "```python",
            loading_code(record, ON_THE_HUB).strip(),
            "```",
            "",
        ]
    )


def _text(words: str) -> str:
    """Words whose characters mean nothing to Markdown and HTML."""
    return re.sub(r"([\\`*_{}\[\]<>|])", r"\\\1", words).replace("\n", " ")
