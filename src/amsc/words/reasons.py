"""Reasons in words: "aten.view.default in layer1 splits the axis" is written for a person."""

import re
from dataclasses import dataclass

__all__ = ["Reason", "in_words"]

OPERATORS = {
    "view": "a reshape (view)",
    "_unsafe_view": "a reshape (view)",
    "_reshape_alias": "a reshape",
    "reshape": "a reshape",
    "unflatten": "a reshape (unflatten)",
    "permute": "a permutation of axes",
    "transpose": "a transposition",
    "t": "a transposition",
    "native_layer_norm": "a layer normalisation",
    "native_group_norm": "a group normalisation",
    "native_batch_norm": "a batch normalisation",
    "cudnn_batch_norm": "a batch normalisation",
    "_native_batch_norm_legit_no_training": "a batch normalisation",
    "convolution": "a convolution",
    "addmm": "a linear layer",
    "mm": "a matrix product",
    "bmm": "a product of two activations (matmul)",
    "baddbmm": "a product of two activations (matmul)",
    "mul": "a product",
    "add": "a sum",
    "sub": "a difference",
    "div": "a quotient",
    "cat": "a concatenation",
    "stack": "a stack",
    "slice": "a slice",
    "select": "a choice of one position (select)",
    "index": "an indexing",
    "index_select": "an indexing",
    "gather": "a gather",
    "split": "a split",
    "split_with_sizes": "a split into fixed sizes",
    "chunk": "a split (chunk)",
    "unbind": "a split (unbind)",
    "roll": "a shift (roll)",
    "_softmax": "a softmax",
    "mean": "a mean",
    "sum": "a sum",
    "amax": "a maximum",
    "embedding": "an embedding",
    "scaled_dot_product_attention": "attention",
}
ATTENTION = re.compile(r"_?scaled_dot_product|_native_multi_head_attention|_transformer_encoder")
OPERATOR = re.compile(r"\baten\.(\w+)(?:\.\w+)?(?: in ([\w.]+))?")

PLACE = re.compile(r" in ((?:\w+\.)*\w*\d\w*(?:\.\w+)*|\w+(?:\.\w+)+)(?= |$)")
"""A module named in a sentence: it has a dot or a digit."""


@dataclass(frozen=True)
class Reason:
    """Why something stays: `text` for a person, and the `module` in which it happened ("" if it does not say)."""

    text: str
    module: str = ""


def in_words(reason: str) -> Reason:
    """The reason without jargon, and the module taken out of it, so that repeated layers have the same text."""
    found = OPERATOR.search(reason)
    if found is None:
        place = PLACE.search(reason)
        return Reason(PLACE.sub("", reason, count=1), place[1]) if place else Reason(reason)
    rest = (reason[: found.start()], _operator(found[1]), reason[found.end() :])
    text = "".join(rest).strip()
    if not rest[0].strip() and not rest[2].strip():
        text = f"{text} ties it to what stays"
    return Reason(text, found[2] or "")


def _operator(name: str) -> str:
    name = name if name in OPERATORS else name.rstrip("_")
    if ATTENTION.match(name):
        return "attention"
    return OPERATORS.get(name, f"the operator {name}")
