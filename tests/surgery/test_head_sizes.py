"""Attention whose head size is computed from the width of its input: its heads stay, with words on what to write; as
these say, heads go with proof, and the network comes back from its folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import amsc
from amsc.surgery import verify

WIDTH, HEADS, INPUTS = 16, 4, torch.randn(2, 5, 4)


class Attention(nn.Module):
    """The reshapes are those of `form`."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.heads, self.form = HEADS, form
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        B, N, D = x.shape
        if self.form == "quotient":
            qkv = self.qkv(x).reshape(B, N, 3, self.heads, D // self.heads)
        else:
            qkv = self.qkv(x).reshape(B, N, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(y.reshape(B, N, -1) if self.form == "as told" else y.reshape(B, N, D))


class Layer(nn.Module):
    """Attention and an MLP, as in a ViT."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(WIDTH), Attention(form), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def vit(form: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, WIDTH), Layer(form), Layer(form), nn.Linear(WIDTH, 3)).eval()


def tried(form: str) -> amsc.Structure:
    model = vit(form)
    return amsc.cuttable(model, amsc.trace(model, INPUTS), INPUTS)


def heads_of(structure: amsc.Structure) -> list[str]:
    return [group.name for group in structure.channels if group.kind == "head" and group.removable]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("quotient", "a quotient of a width that stays (//) does not follow: in attention write the head size as -1"),
        ("half told", "a size written as -1, as in reshape(b, n, -1), follows a cut"),
    ],
)
def test_the_reason_says_what_to_write(form: str, words: str) -> None:
    structure = tried(form)
    assert heads_of(structure) == []
    why = structure.explain("1.attention.qkv.weight")
    assert words in why
    assert "test_head_sizes.py:" in why
    assert ("quotient" in why) == (form == "quotient")


def test_what_is_told_is_the_same_network() -> None:
    torch.testing.assert_close(vit("quotient")(INPUTS), vit("as told")(INPUTS))


def test_written_as_told_heads_go_with_proof_and_come_back_from_the_folder(tmp_path: Path) -> None:
    build: Callable[[], nn.Module] = partial(vit, "as told")
    model, structure = build(), tried("as told")
    assert len(heads_of(structure)) == 2
    plan = amsc.plan_cut(structure, channels={heads_of(structure)[0]: [1], heads_of(structure)[1]: [0, 2]})
    small = amsc.cut(model, plan)
    assert verify(model, small, plan, INPUTS) <= 1e-5
    layers = [layer.attention for layer in (small[1], small[2])]  # type: ignore[index]
    assert [(a.qkv.out_features, a.proj.in_features) for a in layers] == [(36, 12), (24, 8)]
    amsc.save(small, tmp_path / "small")
    torch.testing.assert_close(amsc.load(tmp_path / "small", build)(INPUTS), small.eval()(INPUTS))
