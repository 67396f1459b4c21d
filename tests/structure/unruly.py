"""Models that do what a tracer cannot follow, and what amsc is to do with them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import checkpoint

from structure import foreign
from structure.awkward import conv
from structure.foreign import images, plain, with_forward


class Scenario(NamedTuple):
    """`build()` gives a model and inputs. `ends`: "cut" (something is removed, and right), "refused" (an AmscError that
    says `words`), or "either". `wrong`: what amsc does today instead; `altered`: what it does not give back today."""

    build: Callable[[], tuple[Any, Any]]
    ends: str = "either"
    words: str = ""
    wrong: str = ""
    altered: str = ""


# -- control flow and state --------------------------------------------------------------------------------------------


def branches_on_data(self: Any, x: Tensor) -> Tensor:
    y = F.relu(self.bn(self.a(x)))
    return self.b(y) if y.sum() > 0 else self.b(-y)


def loops_on_data(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    for _ in range(int(x.abs().amax().clamp(1, 3).item())):
        y = F.relu(self.bn(y))
    return self.b(y)


def scales_its_weight(self: Any, x: Tensor) -> Tensor:
    self.a.weight.data.mul_(0.5)
    return plain(self, x)


def clamps_its_weight(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        self.a.weight.clamp_(-0.1, 0.1)
    return plain(self, x)


def replaces_its_weight(self: Any, x: Tensor) -> Tensor:
    self.a.weight = nn.Parameter(self.a.weight.detach() * 0.5)
    return plain(self, x)


def counts(self: Any, x: Tensor) -> Tensor:
    self.calls = getattr(self, "calls", 0) + 1
    return plain(self, x)


def counts_in_a_buffer(self: Any, x: Tensor) -> Tensor:
    self.calls += 1
    return plain(self, x)


def averages_in_a_buffer(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    self.mean.mul_(0.9).add_(0.1 * y.mean((0, 2, 3)))
    return self.b(F.relu(y - self.mean[:, None, None]))


def replaces_a_buffer(self: Any, x: Tensor) -> Tensor:
    self.mean = 0.9 * self.mean + 0.1
    return plain(self, x)


def caches_its_input(self: Any, x: Tensor) -> Tensor:
    self.seen = x
    return plain(self, x)


def caches_an_activation(self: Any, x: Tensor) -> Tensor:
    self.seen = self.a(x)
    return self.b(F.relu(self.seen))


def appends_to_a_list(self: Any, x: Tensor) -> Tensor:
    self.log = [*getattr(self, "log", []), len(x)]
    return plain(self, x)


def adds_a_module(self: Any, x: Tensor) -> Tensor:
    if not hasattr(self, "late"):
        self.late = conv(2, 2)
    return self.late(plain(self, x))


def draws_random_numbers(self: Any, x: Tensor) -> Tensor:
    return plain(self, x + torch.randn_like(x))


def seeds_the_generator(self: Any, x: Tensor) -> Tensor:
    torch.manual_seed(7)
    return plain(self, x)


def trains_itself(self: Any, x: Tensor) -> Tensor:
    self.train()
    return plain(self, x)


def writes_to_its_input(self: Any, x: Tensor) -> Tensor:
    x.mul_(0.5)
    return plain(self, x)


def needs_gradients(self: Any, x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = F.relu(self.bn(self.a(x.detach().requires_grad_())))
        (slope,) = torch.autograd.grad(y.sum(), y)
    return self.b(y * slope)


def switches_gradients_off(self: Any, x: Tensor) -> Tensor:
    torch.set_grad_enabled(False)
    return plain(self, x)


class Straight(torch.autograd.Function):
    """Sign with a straight-through gradient."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


def by_a_function(self: Any, x: Tensor) -> Tensor:
    return self.b(Straight.apply(self.bn(self.a(x))))


def by_a_checkpoint(self: Any, x: Tensor) -> Tensor:
    return self.b(checkpoint.checkpoint(lambda y: F.relu(self.bn(self.a(y))), x, use_reentrant=False))


def by_numpy(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.from_numpy(self.bn(self.a(x)).detach().numpy() * 2))


def as_numbers(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.tensor(self.bn(self.a(x)).tolist()))


def by_data(self: Any, x: Tensor) -> Tensor:
    return self.b(F.relu(self.bn(self.a(x))).data)


def by_spectrum(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.fft.irfft2(torch.fft.rfft2(self.a(x)) * 0.5, s=x.shape[2:]))


def by_a_sparse_weight(self: Any, x: Tensor) -> Tensor:
    return torch.sparse.mm(self.w.to_sparse(), F.relu(self.a(x)).mean((2, 3)).t()).t()


def by_size(self: Any, x: Tensor) -> Tensor:
    if self.grid.shape != x.shape[2:]:
        self.grid = torch.ones(x.shape[2:])
    return self.b(F.relu(self.a(x)) * self.grid)


# -- outputs -----------------------------------------------------------------------------------------------------------


def raises(self: Any, x: Tensor) -> Tensor:
    self.a(x)
    raise KeyError("no such thing")


def raises_late(self: Any, x: Tensor) -> Tensor:
    self.bn.momentum = 0.3
    raise RuntimeError(f"{self.a(x).shape} is not to my taste")


def interrupted(self: Any, x: Tensor) -> Tensor:
    assert x.shape[1] == 4, "four channels, please"
    return plain(self, x)


def gives_batches(self: Any, x: Tensor) -> Any:
    return (self.b(F.relu(self.a(part))) for part in x.split(2))


def gives_a_distribution(self: Any, x: Tensor) -> Any:
    return torch.distributions.Categorical(logits=plain(self, x).mean((2, 3)))


def gives_itself(self: Any, x: Tensor) -> Tensor:
    return self.a.weight


def mixed_precision(self: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return plain(self, x).float()


def called_twice(self: Any, x: Tensor) -> Tensor:
    return self.b(F.relu(self.bn(self.a(x))) + F.relu(self.bn(self.a(x.flip(3)))))


SCENARIOS: dict[str, Scenario] = {
    "branches on data": Scenario(with_forward(branches_on_data)),
    "loops on data": Scenario(with_forward(loops_on_data), "cut"),
    "scales its weight in place": Scenario(with_forward(scales_its_weight)),
    "clamps its weight in place": Scenario(with_forward(clamps_its_weight)),
    "replaces its weight": Scenario(with_forward(replaces_its_weight)),
    "counts its calls": Scenario(with_forward(counts), "cut"),
    "counts its calls in a buffer": Scenario(with_forward(counts_in_a_buffer, calls=torch.tensor(0)), "cut"),
    "averages in a buffer": Scenario(with_forward(averages_in_a_buffer, mean=torch.zeros(8))),
    "replaces a buffer": Scenario(with_forward(replaces_a_buffer, mean=torch.zeros(8)), "cut"),
    "caches its input": Scenario(with_forward(caches_its_input), "cut"),
    "caches an activation": Scenario(with_forward(caches_an_activation), "cut"),
    "appends to a list": Scenario(with_forward(appends_to_a_list), "cut"),
    "adds a module when first called": Scenario(with_forward(adds_a_module)),
    "draws random numbers": Scenario(with_forward(draws_random_numbers), "cut"),
    "seeds the generator": Scenario(with_forward(seeds_the_generator), "cut"),
    "puts itself in train mode": Scenario(with_forward(trains_itself)),
    "writes to its input": Scenario(with_forward(writes_to_its_input), "cut"),
    "needs gradients": Scenario(with_forward(needs_gradients)),
    "switches gradients off": Scenario(with_forward(switches_gradients_off), "cut"),
    "custom autograd function": Scenario(with_forward(by_a_function), "cut"),
    "checkpointed": Scenario(with_forward(by_a_checkpoint), "cut"),
    "leaves torch for numpy": Scenario(with_forward(by_numpy)),
    "leaves torch for numbers": Scenario(with_forward(as_numbers)),
    "takes .data": Scenario(with_forward(by_data), "cut"),
    "goes over the spectrum": Scenario(with_forward(by_spectrum)),
    "sparse weight": Scenario(with_forward(by_a_sparse_weight, w=lambda: nn.Parameter(torch.randn(2, 8)))),
    "buffer that follows the size": Scenario(with_forward(by_size, grid=torch.ones(4, 4))),
    "raises a KeyError": Scenario(
        with_forward(raises),
        "refused",
        "no such thing",
    ),
    "raises late": Scenario(with_forward(raises_late), "refused", "not to my taste"),
    "asserts": Scenario(
        with_forward(interrupted),
        "refused",
        "four channels, please",
    ),
    "returns a generator": Scenario(with_forward(gives_batches), "refused", "generator"),
    "returns a distribution": Scenario(with_forward(gives_a_distribution), "cut"),
    "returns nothing": Scenario(with_forward(lambda self, x: None), "refused", "without a tensor"),
    "returns a string": Scenario(with_forward(lambda self, x: "cat"), "refused", "without a tensor"),
    "returns its weight": Scenario(with_forward(gives_itself)),
    "returns its input": Scenario(with_forward(lambda self, x: (x, plain(self, x))), "cut"),
    "a hook changes an output": Scenario(foreign.hooked("output")),
    "a hook changes an input": Scenario(foreign.hooked("input")),
    "a hook returns an array": Scenario(foreign.hooked("array"), "refused", "ndarray"),
    "dynamically quantised": Scenario(foreign.quantised),
    "half quantised": Scenario(foreign.half_quantised),
    "DataParallel": Scenario(lambda: (nn.DataParallel(foreign.plain_model()), images()), "refused", r"model\.module"),
    "DistributedDataParallel": Scenario(foreign.distributed, "refused", r"model\.module"),
    "compiled": Scenario(
        lambda: (torch.compile(foreign.plain_model(), backend="eager"), images()), "refused", "compile"
    ),
    "compiled in place": Scenario(foreign.compiled_in_place),
    "scripted": Scenario(foreign.scripted, "refused", "TorchScript"),
    "partly scripted": Scenario(foreign.partly_scripted, "refused", "TorchScript"),
    "partly compiled": Scenario(foreign.partly_compiled, "refused", "_orig_mod"),
    "an fx graph": Scenario(foreign.graph, "cut"),
    "lazy": Scenario(foreign.lazy, "refused", "(?i)lazy|uninitialized"),
    "on the meta device": Scenario(foreign.on_meta, "refused", "meta"),
    "complex": Scenario(foreign.complex_valued),
    "bfloat16": Scenario(foreign.half_precision, "cut"),
    "autocast inside": Scenario(with_forward(mixed_precision)),
    "cannot be copied": Scenario(foreign.own_deepcopy, "refused", "cannot be copied"),
    "no parameters": Scenario(foreign.without_parameters),
    "a module called twice": Scenario(with_forward(called_twice), "cut"),
    "a module held twice": Scenario(foreign.held_twice, "cut"),
}
