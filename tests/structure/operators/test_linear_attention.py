"""Attention without a softmax over positions: keys meet values first, in a matrix of the head's size."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amsc.structure import ChannelGroup, Structure, trace
from amsc.surgery import cut, plan_cut
from structure.awkward import Net, sequences, settled

QUERIES_AND_KEYS = {("q.weight", 0), ("q.bias", 0), ("k.weight", 0), ("k.bias", 0)}
VALUES = {("v.weight", 0), ("v.bias", 0), ("head.weight", 1)}


def softmax_of_features(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Efficient attention (Shen et al. 2021, equation 4), with the features of keys normalised as well."""
    return q.softmax(3) @ (k.softmax(3).transpose(2, 3) @ v)


def divided_by_a_sum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """ReLU linear attention (EfficientViT, Cai et al. 2023, equation 2)."""
    q, k = q.relu(), k.relu()
    return q @ (k.transpose(2, 3) @ v) / (q @ k.sum(2, keepdim=True).transpose(2, 3) + 1e-6)


def divided_by_a_padded_one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same as EfficientViT's code writes it: the sum comes from ones beside the values."""
    both = q.relu() @ (k.relu().transpose(2, 3) @ F.pad(v, (0, 1), value=1.0))
    return both[..., :-1] / (both[..., -1:] + 1e-6)


def elu_and_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Katharopoulos et al. 2020, equation 5, with the feature map elu + 1."""
    q, k = F.elu(q) + 1, F.elu(k) + 1
    context = torch.einsum("nhld,nhlm->nhdm", k, v)
    return torch.einsum("nhld,nhdm,nhl->nhlm", q, context, 1 / torch.einsum("nhld,nhd->nhl", q, k.sum(2)))


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def network(attend: Attend, heads: int, queries: int, values: int) -> tuple[nn.Module, Any]:
    """8 query and key channels, 12 value channels; one of `heads` and the sizes is -1, to follow what is left."""

    def forward(self: Any, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k = (part(x).view(n, length, heads, queries).transpose(1, 2) for part in (self.q, self.k))
        v = self.v(x).view(n, length, heads, values).transpose(1, 2)
        return self.head(attend(q, k, v).transpose(1, 2).reshape(n, length, -1))

    torch.manual_seed(0)
    parts = {"q": nn.Linear(3, 8), "k": nn.Linear(3, 8), "v": nn.Linear(3, 12), "head": nn.Linear(12, 2)}
    return settled(Net(forward, **parts)), sequences()


@dataclass(frozen=True)
class Truth:
    """What can go: whole heads, dimensions of queries and keys, dimensions of values."""

    attend: Attend
    heads: bool
    queries: bool
    values: bool


TRUTHS: Mapping[str, Truth] = {
    # A softmax over features is another one without some of them.
    "softmax of features": Truth(softmax_of_features, heads=True, queries=False, values=True),
    "divided by a sum": Truth(divided_by_a_sum, heads=True, queries=True, values=True),
    # The ones stand beside the values of every head, at a place of their own: heads could go, but are kept today.
    "divided by a padded one": Truth(divided_by_a_padded_one, heads=False, queries=True, values=False),
    # elu(0) + 1 = 1: zeroed queries and keys still add to the sums.
    "elu and einsum": Truth(elu_and_einsum, heads=True, queries=False, values=True),
}


def group_along(structure: Structure, axes: set[tuple[str, int]]) -> ChannelGroup | None:
    """The exact group whose members are these axes."""
    groups = [g for g in structure.channels if g.exact and {(m.parameter, m.axis) for m in g.members} == axes]
    return groups[0] if groups else None


@pytest.mark.parametrize("what", ["heads", "queries", "values"])
@pytest.mark.parametrize("name", TRUTHS)
def test_half_of_what_can_go_goes(name: str, what: str) -> None:
    sizes = {"heads": (-1, 4, 6), "queries": (2, -1, 6), "values": (2, 4, -1)}[what]
    axes = {"heads": QUERIES_AND_KEYS | VALUES, "queries": QUERIES_AND_KEYS, "values": VALUES}[what]
    model, inputs = network(TRUTHS[name].attend, *sizes)
    structure = trace(model, inputs)
    group = group_along(structure, axes)
    assert (group is not None) == getattr(TRUTHS[name], what)
    if group is None:
        left = [*(g.reason for g in structure.channels if not g.exact), *(pin.reason for pin in structure.pins)]
        assert left
        assert all(left), "left without a reason"
        return
    small = cut(model, plan_cut(structure, channels={group.name: range(0, group.size, 2)}), inputs)
    shapes = {name: tensor.shape for name, tensor in small.named_parameters()}
    for parameter, axis in axes:
        assert shapes[parameter][axis] == model.get_parameter(parameter).shape[axis] // 2
