"""Models that are wrapped, hooked, quantised, scripted, compiled or otherwise not plain."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from structure.awkward import Net, conv, settled


def images() -> Tensor:
    return torch.randn(4, 3, 8, 8)


def with_forward(function: Callable[..., Any], **more: Any) -> Callable[[], tuple[nn.Module, Tensor]]:
    """Two convolutions `a` and `b` with a BatchNorm between, called by `function`."""

    def build() -> tuple[nn.Module, Tensor]:
        made = {name: value() if callable(value) else value for name, value in more.items()}
        return settled(Net(function, a=conv(3, 8), bn=nn.BatchNorm2d(8), b=conv(8, 2), **made)), images()

    return build


def plain(self: Any, x: Tensor) -> Tensor:
    return self.b(F.relu(self.bn(self.a(x))))


def plain_model() -> nn.Module:
    return with_forward(plain)()[0]


def hooked(kind: str) -> Callable[[], tuple[nn.Module, Tensor]]:
    def build() -> tuple[nn.Module, Tensor]:
        model = plain_model()
        if kind == "output":
            model.a.register_forward_hook(lambda module, args, output: output * 2 + 1)
        elif kind == "input":
            model.b.register_forward_pre_hook(lambda module, args: (args[0].flip(1),))
        else:
            model.b.register_forward_hook(lambda module, args, output: output.detach().numpy())
        return model, images()

    return build


def quantised() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}), torch.randn(4, 6)


def half_quantised() -> tuple[nn.Module, Tensor]:
    layers = [conv(3, 8), nn.ReLU(), conv(8, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(*layers), {nn.Linear}), images()


def distributed() -> tuple[nn.Module, Tensor]:
    """As DistributedDataParallel, which needs a process group to be made."""
    wrapper = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = plain_model()
    return wrapper, images()


def scripted() -> tuple[nn.Module, Tensor]:
    return torch.jit.script(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 2))), images()


def partly_scripted() -> tuple[nn.Module, Tensor]:
    inner = torch.jit.script(nn.Sequential(conv(8, 8), nn.ReLU()))
    return nn.Sequential(conv(3, 8), inner, conv(8, 6), nn.ReLU(), conv(6, 2)), images()


def partly_compiled() -> tuple[nn.Module, Tensor]:
    inner = torch.compile(nn.Sequential(conv(8, 8), nn.ReLU()), backend="eager")
    return nn.Sequential(conv(3, 8), inner, conv(8, 6), nn.ReLU(), conv(6, 2)), images()


def compiled_in_place() -> tuple[nn.Module, Tensor]:
    model = plain_model()
    model.compile(backend="eager")
    return model, images()


def graph() -> tuple[nn.Module, Tensor]:
    return torch.fx.symbolic_trace(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 2))), images()


def lazy() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.LazyConv2d(2, 3)), images()


def on_meta() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 2)).to("meta"), images()


def complex_valued() -> tuple[nn.Module, Tensor]:
    layers = [nn.Linear(6, 8, dtype=torch.complex64), nn.Linear(8, 4, dtype=torch.complex64)]
    return nn.Sequential(*layers), torch.randn(4, 6, dtype=torch.complex64)


def half_precision() -> tuple[nn.Module, Tensor]:
    return plain_model().bfloat16(), images().bfloat16()


def own_deepcopy() -> tuple[nn.Module, Tensor]:
    model = plain_model()
    model.seen = torch.ones(2, requires_grad=True) * 2  # an activation: no leaf, cannot be copied
    return model, images()


def without_parameters() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.ReLU(), nn.AvgPool2d(2)), images()


def held_twice() -> tuple[nn.Module, Tensor]:
    model = plain_model()
    model.again = model.a
    return model, images()
