"""Labels move as data do: every operator that moves, joins, picks or combines data, run on labels and on values.

`MOVES` gets a labelled tensor of four axes (each of 2, 4 or 6, so that halves exist) and a chooser. Two oracles judge
the labels of the result: the same operator on a dense tensor of labels (`PURE` only), and values: what carries a label
is zero where it says so, and what does not carry it does not change, when something goes that can go alone. (A sum
changes when zeros take the place of what goes: sums are judged by whole networks.)
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.structure.grouping.rectangles import closed_units
from amsc.structure.labels.ledger import compact
from amsc.structure.operators import views
from amsc.structure.operators.table import rule_for
from amsc.structure.tracing.observer import Observer
from amsc.structure.tracing.tracer import Tracer

SEEDS = range(12)
Move = Callable[[Tensor, random.Random], Any]


def axis(r: random.Random) -> int:
    return r.choice((0, 1, 2, 3, -1, -2, -3, -4))


def two(r: random.Random) -> tuple[int, int]:
    first, second = r.sample(range(4), 2)
    return first, second


def order(r: random.Random) -> list[int]:
    return r.sample(range(4), 4)


def some(x: Tensor, a: int, r: random.Random) -> Tensor:
    return torch.tensor([r.randrange(x.shape[a]) for _ in range(r.randint(1, 5))])


def regrouped(x: Tensor, r: random.Random) -> list[int]:
    """Another shape of as many elements: axes joined, then one split in two."""
    place = r.randrange(3)
    shape = [*x.shape[:place], x.shape[place] * x.shape[place + 1], *x.shape[place + 2 :]]
    cut = r.randrange(3)
    return [*shape[:cut], 2, shape[cut] // 2, *shape[cut + 1 :]]


def sizes(x: Tensor, a: int) -> list[int]:
    return [1, x.shape[a] - 1]


def same(x: Tensor, a: int, values: Tensor) -> Tensor:
    """Positions along `a` for every line of x."""
    shape = [1] * 4
    shape[a] = -1
    want = list(x.shape)
    want[a] = len(values)
    return values.view(shape).expand(want).contiguous()


def permuted(x: Tensor, r: random.Random) -> Tensor:
    return x.permute(order(r))


PURE: dict[str, Move] = {
    "view": lambda x, r: x.contiguous().view(regrouped(x, r)),
    "reshape": lambda x, r: x.reshape(regrouped(x, r)),
    "reshape of a permutation": lambda x, r: (y := permuted(x, r)).reshape(regrouped(y, r)),
    "flatten all": lambda x, r: x.flatten(),
    "flatten": lambda x, r: permuted(x, r).flatten(r.randint(0, 1), r.randint(2, 3)),
    "unflatten": lambda x, r: x.unflatten(axis(r), (2, -1)),
    "unflatten otherwise": lambda x, r: x.unflatten(axis(r), (-1, 2)),
    "permute": permuted,
    "transpose": lambda x, r: x.transpose(*two(r)),
    "swapaxes": lambda x, r: x.swapaxes(*two(r)),
    "movedim": lambda x, r: x.movedim(*two(r)),
    "moveaxis of two": lambda x, r: torch.moveaxis(x, two(r), two(r)),
    "t": lambda x, r: x.flatten(0, 1).flatten(1).t(),
    "mT": lambda x, r: x.mT,
    "squeeze": lambda x, r: x.unsqueeze(1).squeeze(1),
    "squeeze all": lambda x, r: x[:, :1].squeeze(),
    "unsqueeze": lambda x, r: x.unsqueeze(axis(r)),
    "new axes by index": lambda x, r: x[:, None, :, ..., None],
    "expand": lambda x, r: x.unsqueeze(a := r.randrange(5)).expand(*x.shape[:a], 3, *x.shape[a:]),
    "broadcast_to": lambda x, r: torch.broadcast_to(x, (3, *x.shape)),
    "flip": lambda x, r: x.flip(two(r)),
    "fliplr": lambda x, r: torch.fliplr(x),
    "rot90": lambda x, r: torch.rot90(x, r.randrange(4), two(r)),
    "roll": lambda x, r: x.roll(r.randrange(-5, 5), axis(r)),
    "roll of two": lambda x, r: x.roll((1, -2), two(r)),
    "roll of all": lambda x, r: x.roll(3),
    "repeat": lambda x, r: x.repeat(r.choice(((1, 2, 1, 1), (2, 1, 1, 3), (2, 1, 2, 1, 1)))),
    "tile": lambda x, r: x.tile((2, 1, 3)),
    "repeat_interleave": lambda x, r: x.repeat_interleave(r.randint(1, 3), axis(r)),
    "repeat_interleave of counts": lambda x, r: x.repeat_interleave(torch.arange(x.shape[a := axis(r)]) % 3, a),
    "cat with itself": lambda x, r: torch.cat((x, x), axis(r)),
    "hstack": lambda x, r: torch.hstack((x, x)),
    "stack": lambda x, r: torch.stack((x, x, x), r.randrange(5)),
    "split": lambda x, r: x.split(r.randint(1, 4), axis(r)),
    "split by sizes": lambda x, r: x.split(sizes(x, a := axis(r)), a),
    "chunk": lambda x, r: x.chunk(r.randint(1, 3), axis(r)),
    "chunk of two": lambda x, r: x.chunk(2, axis(r)),
    "tensor_split": lambda x, r: x.tensor_split(r.randint(1, 4), axis(r)),
    "tensor_split at": lambda x, r: x.tensor_split((1, 1), axis(r)),
    "unbind": lambda x, r: x.unbind(axis(r)),
    "select": lambda x, r: x.select(axis(r), r.choice((0, 1, -1))),
    "narrow": lambda x, r: x.narrow(axis(r), r.randint(0, 1), 1),
    "slice": lambda x, r: x[r.randint(0, 1) :, :-1, 1:, : r.randint(1, 2)],
    "slice of halves": lambda x, r: (x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]),
    "slice with steps": lambda x, r: x[::2, :, 1::2, ::3],
    "slice of a permutation": lambda x, r: permuted(x, r)[:, : r.randint(1, 2)],
    "index_select": lambda x, r: x.index_select(a := r.randrange(4), some(x, a, r)),
    "index by a list": lambda x, r: x[:, [1, 0, 1]],
    "index by two lists": lambda x, r: x[:, [1, 0, 1], [0, 1, 1]],
    "index by lists apart": lambda x, r: x[[1, 0, 1], :, [0, 1, 1]],
    "index by lists at the end": lambda x, r: x[..., [1, 0], [1, 1]],
    "index by a table": lambda x, r: x[:, :, torch.tensor([[0, 1, 0], [1, 1, 0]])],
    "index by a mask": lambda x, r: x[:, torch.arange(x.shape[1]) % 2 == 0],
    "index by a mask of two axes": lambda x, r: x[:, torch.ones(x.shape[1:3]).tril() > 0],
    "gather": lambda x, r: x.gather(a := r.randrange(4), same(x, a, some(x, a, r))),
    "take_along_dim": lambda x, r: x.take_along_dim(same(x, a := r.randrange(4), some(x, a, r)), a),
    "pixel_shuffle": lambda x, r: F.pixel_shuffle(x.repeat(1, 2, 1, 1), 2),
    "pixel_unshuffle": lambda x, r: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x, r: F.channel_shuffle(x, 2),
    "windows": lambda x, r: x.unfold(axis(r), 2, r.randint(1, 2)),
    "diagonal": lambda x, r: x.diagonal(r.choice((0, 1, -1)), *two(r)),
    "diagonal of the first": lambda x, r: x.diagonal(),
    "as_strided": lambda x, r: x.as_strided(x.shape, x.stride()),
    "as_strided with axes turned": lambda x, r: (y := x[:2, :2, :2, :2].contiguous()).as_strided(
        y.shape, y.stride()[::-1]
    ),
    "clone": lambda x, r: x.clone(memory_format=torch.channels_last),
    "contiguous": lambda x, r: permuted(x, r).contiguous(),
    "to": lambda x, r: x.double().float(),
    "detach": lambda x, r: x.detach().view_as(x),
    "meshed": lambda x, r: torch.broadcast_tensors(x, torch.zeros(2, *x.shape))[0],
    "atleast": lambda x, r: torch.atleast_3d(x.flatten()),
    "chunked and stacked": lambda x, r: torch.stack(x.chunk(2, a := r.randrange(4)), a),
    "unbound and stacked": lambda x, r: torch.stack(x.unbind(axis(r))[::-1], r.randrange(4)),
}  # fmt: skip


def written(x: Tensor, r: random.Random, new: Callable[..., Tensor] = torch.zeros) -> Tensor:
    wide = new(x.shape[0] + 2, *x.shape[1:])
    wide[1:-1] = x
    return wide


def behind(x: Tensor, a: int, new: Callable[..., Tensor]) -> Tensor:
    """`x` after one more position along an axis."""
    shape = list(x.shape)
    shape[a] += 1
    wide = new(shape)
    wide.narrow(a, 1, x.shape[a]).copy_(x)
    return wide


def paired(x: Tensor) -> Tensor:
    """The last axis as pairs: real and imaginary parts."""
    return x.unflatten(-1, (-1, 2)).contiguous()


def turned(x: Tensor, r: random.Random) -> Tensor:
    """Rotary positions as LLaMA's own code writes them: pairs as complex numbers, times others of size one."""
    numbers = torch.view_as_complex(paired(permuted(x, r)))
    return torch.view_as_real(numbers * torch.polar(torch.ones(numbers.shape[-2:]), torch.rand(numbers.shape[-2:])))


def added_in_place(x: Tensor, r: random.Random) -> Tensor:
    y = x.clone()
    y[:, :1] = y[:, 1:2] if r.random() < 0.5 else 0
    return y


OTHERS: dict[str, Move] = {
    "cat of two orders": lambda x, r: torch.cat((x, x.flip(a := r.randrange(4))), (a + r.randint(0, 3)) % 4),
    "cat with zeros": lambda x, r: torch.cat((x, torch.zeros_like(x)), axis(r)),
    "cat with zeros of its own size": lambda x, r: torch.cat((x.new_zeros(x.shape), x), axis(r)),
    "cat with ones": lambda x, r: torch.cat((x.new_ones(x.shape), x), axis(r)),
    "stack with new zeros": lambda x, r: torch.stack((x, x.new_zeros(x.shape)), r.randrange(5)),
    "plus zeros": lambda x, r: x + x.new_full(x.shape, 0.0),
    "gated halves": lambda x, r: F.glu(x, axis(r)),
    "written behind zeros": lambda x, r: behind(x, axis(r), torch.zeros),
    "written behind ones": lambda x, r: behind(x, axis(r), torch.ones),
    "cat with constants": lambda x, r: torch.cat((torch.rand(x.shape), x), axis(r)),
    "stack of two orders": lambda x, r: torch.stack((x, x.flip(r.randrange(4))), r.randrange(5)),
    "stack with zeros": lambda x, r: torch.stack((x, torch.zeros(x.shape)), r.randrange(5)),
    "pad": lambda x, r: F.pad(x, [r.randint(0, 2) for _ in range(8)]),
    "pad with ones": lambda x, r: F.pad(x, [r.randint(0, 2) for _ in range(8)], value=1.0),
    "pad less": lambda x, r: F.pad(x, (0, 0, -1, 1, 0, 0)),
    "circular": lambda x, r: F.pad(x, (1, 1, 1, 0), "circular"),
    "reflect": lambda x, r: F.pad(x, (1, 1, 1, 0), "reflect"),
    "tril": lambda x, r: x.tril(r.choice((0, 1, -1))),
    "triu": lambda x, r: x.triu(r.choice((0, 1, -1))),
    "masked_fill": lambda x, r: x.masked_fill(torch.rand(x.shape) > 0.5, r.choice((0.0, 0.7))),
    "where": lambda x, r: torch.where(torch.rand(x.shape[-1]) > 0.5, x, r.choice((0.0, 0.7))),
    "where of two": lambda x, r: torch.where(torch.rand((*x.shape[:1], 1, 1, 1)) > 0.5, x, x.flip(axis(r))),
    "im2col": lambda x, r: F.unfold(x, 2, padding=r.randint(0, 1), stride=r.randint(1, 2)),
    "written to zeros": written,
    "written to itself": added_in_place,
    "index_copy": lambda x, r: torch.zeros_like(x).index_copy(a := r.randrange(4), torch.arange(x.shape[a]), x),
    "index_add": lambda x, r: x.index_add(a := r.randrange(4), torch.tensor([1, 0]), x.narrow(a, 0, 2)),
    "scatter": lambda x, r: torch.zeros_like(x).scatter(a := r.randrange(4), same(x, a, torch.arange(x.shape[a])), x),
    "select_scatter": lambda x, r: x.select_scatter(x.select(a := r.randrange(4), 0), a, 1),
    "slice_scatter": lambda x, r: x.slice_scatter(x.narrow(a := r.randrange(4), 0, 1), a, 1, 2),
    "index_fill": lambda x, r: x.index_fill(r.randrange(4), torch.tensor([1]), r.choice((0.0, 0.7))),
    "gather by another shape": lambda x, r: x.gather(3, torch.zeros(1, *x.shape[1:], dtype=torch.long)),
    "put": lambda x, r: x.clone().index_put_((torch.tensor([1, 0]),), x[:2]),
    "nearest": lambda x, r: F.interpolate(x, scale_factor=2),
    "masked_fill by one axis": lambda x, r: x.masked_fill(torch.rand(x.shape[-1]) > 0.5, r.choice((0.0, 0.7))),
    "scatter of a value": lambda x, r: x.scatter(a := r.randrange(4), same(x, a, torch.tensor([0])), 0.7),
    "complex and back": lambda x, r: torch.view_as_real(torch.view_as_complex(paired(permuted(x, r)))),
    "parts of complex numbers": lambda x, r: torch.view_as_real(torch.view_as_complex(paired(permuted(x, r))))[..., 0],
    "turned by complex numbers": turned,
    "written to noise": lambda x, r: written(x, r, torch.rand),
    "filled": lambda x, r: x.clone().fill_(0.7),
    "zeroed": lambda x, r: x.clone().zero_(),
    "noise in place": lambda x, r: x.clone().uniform_(0.2, 0.7),
    "noise of its size": lambda x, r: torch.rand_like(x),
    "added to a batch of products": lambda x, r: (y := permuted(x, r).flatten(0, 1)).baddbmm(
        torch.rand(y.shape[0], y.shape[1], 3), torch.rand(y.shape[0], 3, y.shape[2])
    ),
    "a batch of products added": lambda x, r: torch.rand(()).expand(1, 1, 1).baddbmm(
        y := permuted(x, r).flatten(0, 1), torch.rand(y.shape[0], y.shape[2], 3)
    ),
    "a matrix times a vector added": lambda x, r: torch.rand(1).expand(
        (y := permuted(x, r).flatten(0, 2)).shape[0]
    ).addmv(y, torch.rand(y.shape[1])),
    "added to a matrix times a vector": lambda x, r: (y := permuted(x, r)[0, 0, 0]).addmv(
        torch.rand(len(y), 3), torch.rand(3)
    ),
    "mean": lambda x, r: x.mean(two(r), keepdim=True),
    "least": lambda x, r: x.min(axis(r)).values,
    "largest": lambda x, r: x.max(axis(r)).values,
    "product": lambda x, r: x.prod(axis(r)),
    "variance and mean": lambda x, r: torch.var_mean(x, two(r)),
    "deviation and mean": lambda x, r: torch.std_mean(x, two(r), keepdim=True),
    "whether all": lambda x, r: (x > 0.6).all(axis(r)).float(),
    "whether any": lambda x, r: (x > 0.9).any(axis(r)).float(),
    "place of the largest": lambda x, r: x.argmax(axis(r)).float(),
    "place of the least": lambda x, r: x.argmin(axis(r), keepdim=True).float(),
    "second least": lambda x, r: x.kthvalue(2, axis(r)).values,
    "most frequent": lambda x, r: x.round().mode(axis(r)).values,
    "median": lambda x, r: x.median(axis(r)).values,
    "sorted": lambda x, r: x.sort(axis(r)),
    "order": lambda x, r: torch.argsort(x, dim=axis(r), stable=True).float(),
    "largest two": lambda x, r: x.topk(2, axis(r)).values,
    "running sum": lambda x, r: x.cumsum(axis(r)),
    "running product": lambda x, r: x.cumprod(axis(r)),
    "running largest": lambda x, r: x.cummax(axis(r)).values,
    "running logsumexp": lambda x, r: x.logcumsumexp(axis(r)),
    "softmax": lambda x, r: x.softmax(axis(r)),
    "log softmax": lambda x, r: x.log_softmax(axis(r)),
    "masked_scatter": lambda x, r: x.masked_scatter(x.new_zeros(x.shape[-1:]).bool(), x),
    "masked_scatter of ones": lambda x, r: x.masked_scatter(torch.rand(x.shape) > 0.5, torch.ones(x.numel())),
    "masked_fill in place": lambda x, r: x.clone().masked_fill_(torch.rand(x.shape[-1]) > 0.5, 0.7),
    "scatter in place": lambda x, r: x.clone().scatter_(a := r.randrange(4), same(x, a, torch.tensor([0])), 0.7),
    "scatter_add": lambda x, r: x.scatter_add(a := r.randrange(4), same(x, a, torch.arange(x.shape[a]).flip(0)), x),
    "scatter_add in place": lambda x, r: torch.zeros_like(x).scatter_add_(
        a := r.randrange(4), same(x, a, torch.arange(x.shape[a]).flip(0)), x
    ),
    "scatter_reduce": lambda x, r: x.scatter_reduce(
        a := r.randrange(4), same(x, a, torch.arange(x.shape[a]).flip(0)), x, r.choice(("sum", "amax", "prod"))
    ),
    "index_add in place": lambda x, r: x.clone().index_add_(
        a := r.randrange(4), torch.tensor([1, 0]), x.narrow(a, 0, 2)
    ),
    "index_put": lambda x, r: x.index_put((torch.tensor([1, 0]),), x[:2]),
    "index_put of a number": lambda x, r: x.index_put((torch.tensor([1, 0]), torch.tensor([0, 1])), torch.tensor(0.7)),
    "transposed in place": lambda x, r: x.flatten(0, 1).flatten(1).clone().t_(),
    "squeezed in place": lambda x, r: x.clone().unsqueeze_(axis(r)).squeeze_(),
    "triangle in place": lambda x, r: x.clone().tril_() + x.clone().triu_(1),
    "conjugated": lambda x, r: torch.view_as_real(torch.view_as_complex(paired(permuted(x, r))).conj().resolve_conj()),
    "in lines": lambda x, r: F.interpolate(
        x.flatten(1, 2), scale_factor=2, mode=r.choice(("nearest", "linear", "nearest-exact"))
    ),
    "smooth": lambda x, r: F.interpolate(x, scale_factor=2, mode=r.choice(("bilinear", "bicubic"))),
    "in space": lambda x, r: F.interpolate(
        x[None], scale_factor=2, mode=r.choice(("nearest", "trilinear", "nearest-exact"))
    ),
    "edges in space": lambda x, r: F.pad(x[None], (1, 1, 1, 0, 0, 1), r.choice(("reflect", "replicate"))),
    "edges in lines": lambda x, r: F.pad(x.flatten(1, 2), (1, 1), "replicate"),
    "pooled in space": lambda x, r: (
        F.max_pool3d(x[None], 2), F.adaptive_max_pool3d(x[None], 2), F.adaptive_avg_pool3d(x[None], 2)
    ),
    "sampled in space": lambda x, r: F.grid_sample(x[None], torch.rand(1, 2, 2, 2, 3), align_corners=False),
    "unsafely split": lambda x, r: torch.unsafe_split_with_sizes(x, sizes(x, a := axis(r)), a),
    "unsafely indexed": lambda x, r: torch.ops.aten._unsafe_index(x, [None, torch.tensor([1, 0])]),
    "copies of views": lambda x, r: (
        torch.slice_copy(x, 1, 0, 1), torch.select_copy(x, axis(r), 0), *torch.split_copy(x, 2, axis(r)),
        *torch.unbind_copy(x, axis(r)), torch.expand_copy(x[None], (3, *x.shape)), torch.view_copy(x, x.shape),
    ),
    "place of the largest of all": lambda x, r: x.argmax().float(),
    "median of all": lambda x, r: x.median(),
    "split and joined": lambda x, r: torch.cat(x.split(sizes(x, a := axis(r)), a)[::-1], a),
}  # fmt: skip
MOVES = PURE | OTHERS
# After these nothing can go alone: values have nothing to judge.
LEFT_WHOLE = {
    "rot90", "roll of all", "gather", "take_along_dim", "as_strided with axes turned",
    "masked_fill", "select_scatter", "written to noise", "added to a batch of products",
    "added to a matrix times a vector", "masked_scatter", "masked_scatter of ones", "place of the largest of all",
    "median of all",
}  # fmt: skip


def labelled(tracer: Tracer, r: random.Random) -> tuple[Tensor, list[Tensor]]:
    """A tensor with one or two layers along some of its axes, and these written out."""
    x = torch.rand([r.choice((2, 4, 6)) for _ in range(4)]) + 0.5
    free, layers = order(r), []
    for _ in range(r.randint(1, 2)):
        axes = [free.pop() for _ in range(r.randint(1, 2)) if free]
        layer = tracer.ledger.fresh(*(x.shape[a] if a in axes else 1 for a in range(4)))
        layers.append((layer if r.random() < 0.7 else -layer).expand(x.shape).contiguous())
    tracer.labels.set_layers(x, [compact(layer) for layer in layers])
    return x, layers


def run(move: Move, seed: int) -> tuple[Tracer, Tensor, list[Tensor], list[tuple[Tensor, list[Tensor]]]]:
    """(tracer, input, its layers, each output with its layers)."""
    r = random.Random(seed)
    tracer = Tracer.of({}, {}, moves=views.RULES)
    x, layers = labelled(tracer, r)
    outputs = moved(move, x, seed, tracer)
    return tracer, x, layers, [(y, [layer.contiguous() for layer in tracer.labels.layers(y)]) for y in outputs]


def moved(move: Move, x: Tensor, seed: int, tracer: Tracer | None = None) -> list[Tensor]:
    torch.manual_seed(seed)
    r = random.Random(1000 + seed)
    if tracer is None:
        return pytree.tree_leaves(move(x, r))
    with Observer(tracer, rule_for).watching():
        return pytree.tree_leaves(move(x, r))


def components(tracer: Tracer) -> tuple[np.ndarray, np.ndarray]:
    """(component of every label with 0 for none, mask of those that stay)."""
    component = tracer.ledger.components()
    component[0] = -1
    component = component + 1
    stays = np.zeros(component.max() + 1, dtype=bool)
    stays[0] = True
    for mark in tracer.ledger.pins:
        stays[component[mark.labels.numpy()]] = True
    return component, stays


def removable(tracer: Tracer, layers: list[Tensor]) -> list[tuple[int, ...]]:
    """Sets of components of a tensor with `layers` that can go alone, exactly."""
    component, stays = components(tracer)
    single = [read for read in tracer.ledger.reads if len(read.axes) == read.labels.ndim]
    several = [read for read in tracer.ledger.reads if len(read.axes) < read.labels.ndim]
    units, boxed = closed_units(component, list(tracer.ledger.boxes.values()), several, stays)
    own = {int(one) for layer in layers for one in np.unique(component[layer.abs().numpy()])}
    free = [(one,) for one in sorted(own) if not stays[one] and not boxed[one]]
    inexact: set[int] = set()
    for read in single:
        labels = read.labels[read.labels < 0] if read.takes_zeros else read.labels
        inexact |= set(component[labels.abs().numpy().ravel()].tolist())
    possible = [*(unit.components for unit in units if not unit.inexact), *free]
    return [unit for unit in possible if own.intersection(unit) and not inexact.intersection(unit)]


@pytest.mark.parametrize("name", PURE)
def test_labels_move_as_a_dense_tensor_of_them(name: str) -> None:
    for seed in SEEDS:
        tracer, _, layers, outputs = run(MOVES[name], seed)
        component, stays = components(tracer)
        for layer in layers:
            for (y, found), moved_labels in zip(outputs, moved(MOVES[name], layer, seed), strict=True):
                want = moved_labels.long()  # `to` makes numbers of labels
                assert want.shape == y.shape
                owner = component[want.abs().numpy()]
                carried = stays[owner]
                for own in found:
                    carried |= (component[own.abs().numpy()] == owner) & (own.sign() == want.sign()).numpy()
                assert carried.all(), f"seed {seed}: lost labels without a pin"


@pytest.mark.parametrize("name", PURE)
def test_moving_adds_no_labels(name: str) -> None:
    """What is not pinned has as many labels after as before."""
    for seed in SEEDS:
        _, _, layers, outputs = run(MOVES[name], seed)
        before = {int(label) for layer in layers for label in layer.abs().unique()}
        for _, found in outputs:
            assert {int(label) for own in found for label in own.abs().unique()} - {0} <= before


@pytest.mark.parametrize("name", MOVES)
def test_labels_tell_which_values_depend_on_what(name: str) -> None:
    judged = 0
    for seed in SEEDS:
        tracer, x, layers, outputs = run(MOVES[name], seed)
        component, _ = components(tracer)
        before = moved(MOVES[name], x, seed)
        for unit in removable(tracer, layers):
            judged += 1
            members = np.array(unit)

            def marks(layer: Tensor, members: np.ndarray = members, component: np.ndarray = component) -> Tensor:
                return torch.from_numpy(np.isin(component[layer.abs().numpy()], members))

            silent = silenced(x, layers, marks)
            for y, (_, found), after in zip(before, outputs, moved(MOVES[name], silent, seed), strict=True):
                carries = torch.zeros(y.shape, dtype=torch.bool)
                for own in found:
                    carries |= marks(own)
                    assert not bool(after[marks(own) & (own > 0)].any()), f"seed {seed}: said to be zero"
                assert torch.allclose(after[~carries], y[~carries], 1e-5), f"seed {seed}: changes without the label"
    assert (judged > 0) == (name not in LEFT_WHOLE)


def silenced(x: Tensor, layers: list[Tensor], marks: Callable[[Tensor], Tensor]) -> Tensor:
    """`x` after what is marked went: zero, or another value where a layer says that it is not zero."""
    silent = x.clone()
    for layer in layers:
        silent[marks(layer) & (layer < 0)] = 2.5
    for layer in layers:
        silent[marks(layer) & (layer > 0)] = 0
    return silent


def test_the_values_notice_a_wrong_label() -> None:
    """The oracle can fail: labels that were not moved with a flip."""
    tracer = Tracer.of({}, {}, moves=views.RULES)
    x = torch.rand(4)
    tracer.labels.set_layers(x, [tracer.ledger.fresh(4)])
    with Observer(tracer, rule_for).watching():
        y = x.flip(0)
    assert not torch.equal(tracer.labels.layers(y)[0], tracer.labels.layers(x)[0])
