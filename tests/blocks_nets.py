"""Small networks of layers with every call signature, and what is to be found in each."""

from typing import Any

import torch
from torch import Tensor, nn

SIZE = 6


class Cache:
    """Keeps what each layer has put into it, as key-value caches do; no tensor, no container."""

    def __init__(self) -> None:
        self.kept: dict[int, Tensor] = {}

    def update(self, index: int, new: Tensor) -> Tensor:
        """Everything kept by the layer, the new rows included."""
        self.kept[index] = torch.cat([self.kept[index], new], dim=1) if index in self.kept else new
        return self.kept[index]


class Mlp(nn.Module):
    """Two linear layers: zero at zero."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.nn.functional.gelu(self.up(x)))


class Attention(nn.Module):
    """One head over the rows, as decoder models call it."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index
        self.query, self.key, self.value = (nn.Linear(SIZE, SIZE) for _ in range(3))

    def forward(
        self, hidden: Tensor, *, mask: Tensor | None = None, cache: Cache | None = None
    ) -> tuple[Tensor, Tensor | None]:
        keys = hidden if cache is None else cache.update(self.index, hidden)
        scores = self.query(hidden) @ self.key(keys).mT
        return (scores if mask is None else scores + mask).softmax(-1) @ self.value(keys), None


class DecoderLayer(nn.Module):
    """A transformer layer before whose branches the stream is normalised; `style` says what it returns."""

    def __init__(self, index: int, style: str = "tensor") -> None:
        super().__init__()
        self.index, self.style, self.kind = index, style, "full"
        self.norm1, self.attention = nn.LayerNorm(SIZE), Attention(index)
        self.norm2, self.mlp = nn.LayerNorm(SIZE), Mlp()

    def forward(
        self, hidden: Tensor, mask: Tensor | None = None, *, cache: Cache | None = None, bias: Tensor | None = None
    ) -> Any:
        attended, _ = self.attention(self.norm1(hidden), mask=mask, cache=cache)
        hidden = hidden + attended
        hidden = hidden + self.mlp(self.norm2(hidden))
        outputs: dict[str, Any] = {
            "tensor": hidden,
            "none": (hidden, None),
            "bias": (hidden, bias, 3),
            "cache": [hidden, cache],
            "dict": {"hidden": hidden, "extra": (mask,)},
            "rows": (hidden, hidden.mean(dim=(0, 2))),
        }
        return (hidden, self.norm2.weight.square().sum()) if self.style == "aux" else outputs[self.style]


class Decoder(nn.Module):
    """Layers that are called in the way `call` names."""

    def __init__(self, style: str = "tensor", call: str = "mask", *, num_layers: int = 3) -> None:
        super().__init__()
        self.call = call
        self.inner = nn.Linear(SIZE, SIZE)
        self.layers = nn.ModuleList(DecoderLayer(index, style) for index in range(num_layers))
        self.head = nn.Linear(SIZE, 4)

    def forward(self, x: Tensor) -> Tensor:
        x, cache, mask = self.inner(x), Cache(), torch.zeros(x.shape[1], x.shape[1]).to(x)
        for layer in self.layers:
            assert layer.kind == "full"
            calls = {
                "mask": lambda layer=layer, x=x: layer(x, mask),
                "plain": lambda layer=layer, x=x: layer(x),
                "keywords": lambda layer=layer, x=x: layer(mask=mask, hidden=x, bias=mask + 1),
                "cache": lambda layer=layer, x=x: layer(hidden=x, cache=cache),
            }
            output = calls[self.call]()
            x = output["hidden"] if isinstance(output, dict) else output if isinstance(output, Tensor) else output[0]
        return self.head(x)


class TupleLayer(nn.Module):
    """Takes and returns (features, positions)."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = Mlp()

    def forward(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        features, positions = pair
        return features + self.mlp(features + positions), positions


class PostNorm(nn.Module):
    """A layer that normalises its sum, so that it is no identity; its attention can go."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm, self.mlp = Attention(0), nn.LayerNorm(SIZE), Mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.attention(x)[0]) + 1


class Residual(nn.Module):
    """x + inner(x); the shortcut of what is inside."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class InPlace(nn.Module):
    """Rectifies its argument in place before it adds to it: no identity, though it returns what it then got."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = Mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x.relu_()) + x


class Branches(nn.Module):
    """Two sums written in the network's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = Mlp(), Mlp(), nn.Linear(SIZE, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.one(x)
        return self.head(x + self.two(x))


class Twice(nn.Module):
    """One layer that runs twice, and one that runs once."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.once = Residual(Mlp()), Residual(Mlp())

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.once(self.again(x)))


class Shared(nn.Module):
    """Two layers that share a weight, and one that shares nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (Residual(Mlp()) for _ in range(3))
        self.b.inner.up.weight = self.a.inner.up.weight  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)))


class Lent(nn.Module):
    """Two layers that hold the same module, which counts for the first, and one that the network holds twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (Residual(Mlp()) for _ in range(3))
        self.b.inner.up = self.a.inner.up  # type: ignore[union-attr]
        self.layers = nn.ModuleList([self.c])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[0](self.b(self.a(x)))  # type: ignore[no-any-return]


def rows(batch: int = 2, length: int = 5) -> Tensor:
    """An input for all of them."""
    return torch.randn(batch, length, SIZE, generator=torch.Generator().manual_seed(3))
