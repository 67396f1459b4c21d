"""What operators make of what is known of their operands, and of whole networks: it is true of real numbers."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from amsc.borrowing import borrowed, named_tensors, run_model
from amsc.structure import trace
from amsc.structure.blocks.assumptions import Assumption, Assumptions
from amsc.structure.blocks.facts import CONSTANT, ZERO, Fact
from random_networks import SIZE, genes_of, preactivated, random_network, residual
from random_transformers import attended_otherwise, fed_forward

Operation = Callable[[Tensor, Tensor], Tensor]


class Watched(TorchDispatchMode):
    def __init__(self, known: Assumptions) -> None:
        super().__init__()
        self.known = known

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.known.observe(func, args, kwargs or {}, output)
        return output


def described(operation: Operation, kind: str = "same", *, other: str = "zero", shape: tuple[int, ...] = (4, 6)) -> str:
    """What is known of operation(x, y) if x is an argument ("same"; "positive": not negative), zero or a constant, and
    y zero, a constant or anything."""
    known, case = Assumptions(lambda tensor: None), Assumption()
    x, y = torch.randn(shape), torch.randn(shape)
    facts = {"zero": ZERO, "constant": CONSTANT, "same": Fact("same", x), "positive": Fact("same", x, is_positive=True)}
    for tensor, name in ((x, kind), (y, other)):
        known.set_input(tensor)
        if name in facts:
            known.assume(tensor, case, facts[name])
    with torch.no_grad(), Watched(known):
        output = operation(x, y)
    fact = known.fact(output, case)
    if fact is not None and fact.kind == "same":
        is_whole = fact.twin is not None and fact.twin.shape == x.shape and fact.twin.stride() == x.stride()
        return ("shifted" if fact.is_shifted else "same") if is_whole else "part"
    return "" if fact is None else fact.kind


SAME: dict[str, Operation] = {
    "add": lambda x, y: x + y,
    "add the other way": lambda x, y: y + x,
    "add in place": lambda x, y: y.add_(x),
    "subtract": lambda x, y: x - y,
    "drop nothing": lambda x, y: F.dropout(x, 0.5, training=False),
    "times one": lambda x, y: x * 1.0,
    "there and back": lambda x, y: (x.t().contiguous() + y.t()).t(),
    "as one row": lambda x, y: (x.reshape(-1) + y.flatten()).view(4, 6),
    "in parts": lambda x, y: torch.cat([x[:1], x[1:] + y[1:]]),
    "in columns": lambda x, y: torch.cat([x[:, :2] + y[:, :2], x[:, 2:]], dim=1),
    "scaled branch": lambda x, y: x + 0.5 * F.gelu(y),
    "chosen": lambda x, y: torch.where(y > 1, x, x),
    "copied": lambda x, y: torch.empty_like(x).copy_(x),
}
NOT_SAME: dict[str, Operation] = {
    "relu": lambda x, y: x.relu(),
    "twice": lambda x, y: 2 * x,
    "turned": lambda x, y: x.flip(0) + y,
    "transposed": lambda x, y: x.t() + y.t(),
    "exchanged": lambda x, y: torch.cat([x[2:], x[:2]]),
    "half": lambda x, y: torch.cat([x[:2], y[2:]]),
    "sum": lambda x, y: x.sum(0, keepdim=True).expand(4, 6) + y,
    "normalised": lambda x, y: F.layer_norm(x, (6,)),
    "written over": lambda x, y: (x + y).mul_(3),
    "a part written over": lambda x, y: overwritten(x + y),
}
ZEROES: dict[str, Operation] = {
    "product": lambda x, y: x * y,
    "matrix product": lambda x, y: x @ y.t(),
    "linear": lambda x, y: F.linear(x, y),
    "convolution": lambda x, y: F.conv1d(x[None], y[:, :4, None]),
    "quotient": lambda x, y: y / x,
    "gelu": lambda x, y: F.gelu(y),
    "mean": lambda x, y: y.mean(1),
    "norm of nothing": lambda x, y: F.layer_norm(y, (6,)),
    "pooled": lambda x, y: F.max_pool1d(y[None], 2),
    "sorted": lambda x, y: y.sort(-1).values,
    "running sum": lambda x, y: y.cumsum(-1),
    "collected": lambda x, y: torch.zeros(4, 6).index_add_(0, torch.tensor([1, 0, 3, 3]), y),
    "put into zeros": lambda x, y: filled(torch.zeros(4, 6), y),
    "padded": lambda x, y: F.pad(y, (1, 1)),
}
NOT_ZERO: dict[str, Operation] = {
    "sigmoid": lambda x, y: y.sigmoid(),
    "cosine": lambda x, y: y.cos(),
    "softmax": lambda x, y: y.softmax(-1),
    "padded with ones": lambda x, y: F.pad(y, (1, 1), value=1.0),
    "masked": lambda x, y: y.masked_fill(y == 0, 2.0),
    "not a number": lambda x, y: y / y,
    "not a number times zero": lambda x, y: (y / y) * y,
    "one over nothing": lambda x, y: x / y,
    "part of it filled": lambda x, y: filled(y.clone(), x),
}


def overwritten(x: Tensor) -> Tensor:
    x[:2].mul_(3)
    return x


def filled(x: Tensor, part: Tensor) -> Tensor:
    x[1:3] = part[1:3]
    return x


@pytest.mark.parametrize("name", SAME)
def test_an_argument_is_followed_to_the_output(name: str) -> None:
    assert described(SAME[name]) == "same"


@pytest.mark.parametrize("name", NOT_SAME)
def test_what_changes_an_argument_is_noticed(name: str) -> None:
    assert described(NOT_SAME[name]) in ("", "part", "constant", "padded")


@pytest.mark.parametrize("name", ZEROES)
def test_zero_is_followed(name: str) -> None:
    assert described(ZEROES[name], other="zero") == "zero"
    assert described(ZEROES[name], other="anything") != "zero"


@pytest.mark.parametrize("name", NOT_ZERO)
def test_what_makes_something_of_zero_is_noticed(name: str) -> None:
    assert described(NOT_ZERO[name], other="zero") != "zero"


def test_signs_constants_and_nonsense() -> None:
    assert described(lambda x, y: (x + y).relu(), "positive") == "same"
    assert described(lambda x, y: (x.relu() - 1).relu(), "positive") != "same"
    assert described(lambda x, y: x + y, other="constant") == "shifted"
    assert described(lambda x, y: (x + y).sigmoid(), "zero") == "constant"
    assert described(lambda x, y: x / y) == "broken"
    assert described(lambda x, y: (x / y).relu() * y) == "broken"


WITH_BLOCKS = (residual, preactivated, attended_otherwise, fed_forward)


def test_blocks_of_random_networks_are_silent_at_zero() -> None:
    silent = Counter(kind for seed in range(20) for kind in silent_blocks(seed))
    assert silent["identity"] > 30
    assert silent["branch"] >= 8


def silent_blocks(seed: int) -> Iterator[str]:
    """The kind of each block of a random network; raises if it is not silent with its parameters at zero."""
    torch.manual_seed(seed)
    network, inputs = random_network(genes_of(seed), WITH_BLOCKS), torch.randn(2, 3, SIZE, SIZE)
    for block in (block for block in trace(network, inputs).blocks if block.kind in ("identity", "branch")):
        frozen = [name for name, _ in network.named_buffers() if name.startswith(f"{block.name}.")]
        kept = {name: named_tensors(network)[name].detach().clone() for name in (*block.parameters, *frozen)}
        with borrowed(network), torch.no_grad():
            for name in kept:
                named_tensors(network)[name].zero_()
            check_silent(network.get_submodule(block.name), block.kind, lambda: run_model(network, inputs))
            for name, old in kept.items():
                named_tensors(network)[name].copy_(old)
        yield block.kind


def check_silent(module: nn.Module, kind: str, run: Callable[[], Any]) -> None:
    seen: list[bool] = []

    def compare(module: nn.Module, args: Any, output: Any) -> None:
        outputs = [out for out in pytree.tree_leaves(output) if out is not None]  # attention gives (output, None)
        is_identity = kind == "identity"
        seen.append(torch.equal(output, args[0]) if is_identity else not any(out.any() for out in outputs))

    hook = module.register_forward_hook(compare)
    run()
    hook.remove()
    assert seen == [True]
