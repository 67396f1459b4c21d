"""Which data a run is of, in a few words, so that no run on other data goes on with its state."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.data import Data, some_examples

__all__ = ["SPLITS", "fingerprint", "rounded_digest", "weights_fingerprint"]

FEW = slice(0, 8)
"""Examples of the validation split that are looked at."""
SPLITS = ("train", "validation", "test")


def fingerprint(data: Data) -> dict[str, Any]:
    """What tells data from others, by what they are: the sizes of the splits, the classes, and a few examples.

    Examples count by sums that are rounded, so that the last bit of a number, which differs between machines, does not.
    """
    return {
        "splits of the data": "/".join(str(data.num_examples(split)) for split in SPLITS) + " examples",
        "classes of the data": data.num_classes,
        "examples of the data": _digest(*_few_examples(data)),
    }


def weights_fingerprint(model: nn.Module) -> str:
    """What tells a network from others: its tensors, by sums that are rounded."""
    return rounded_digest(model.state_dict())


def rounded_digest(weights: Mapping[str, Any]) -> str:
    """The same of a state dict."""
    return _digest(*(_words(tensor) for tensor in weights.values() if isinstance(tensor, Tensor)))


def _few_examples(data: Data) -> list[str]:
    """Words for the tensors of the first validation examples."""
    for inputs, target in data.batches("validation"):
        some = pytree.tree_map_only(Tensor, lambda leaf: leaf[FEW] if leaf.ndim else leaf, inputs)
        leaves = pytree.tree_leaves((some, some_examples(target, FEW)))
        return [_words(leaf) for leaf in leaves if isinstance(leaf, Tensor)]
    return []


def _words(tensor: Tensor) -> str:
    """Type, shape, and two sums of which the second knows the order."""
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    flat = values.detach().cpu().double().abs().flatten()
    places = torch.arange(1, flat.numel() + 1, dtype=torch.float64) / max(1, flat.numel())
    return f"{tensor.dtype} {tuple(tensor.shape)} {float(flat.sum()):.3e} {float(flat @ places):.3e}"


def _digest(*parts: str) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for part in parts:
        digest.update(part.encode())
    return digest.hexdigest()
