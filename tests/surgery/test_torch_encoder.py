"""Layers and attention branches of `nn.TransformerEncoder`, whose own forward asks its layers what they are."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from amsc.structure import trace
from amsc.surgery import cut, cuttable, load, masked, plan_cut, save

NAMES = [f"encoder.layers.{index}" for index in range(3)]


class Reader(nn.Module):
    def __init__(self, *, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=norm_first)
        self.embedding, self.encoder = nn.Embedding(20, 16), nn.TransformerEncoder(layer, 3)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens), src_key_padding_mask=padding)[:, 0])


def pre_norm() -> Reader:
    torch.manual_seed(0)
    return Reader(norm_first=True)


def post_norm() -> Reader:
    torch.manual_seed(0)
    return Reader(norm_first=False)


TOKENS = torch.arange(14).view(2, 7)
PADDING = torch.arange(7).expand(2, 7) >= torch.tensor([[4], [7]])


@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("build", "blocks"),
    [
        (pre_norm, [NAMES[0]]),
        (pre_norm, NAMES[:2]),
        (pre_norm, [f"{name}.self_attn" for name in NAMES]),
        (pre_norm, [NAMES[0], f"{NAMES[2]}.self_attn"]),
        (post_norm, [f"{name}.self_attn" for name in NAMES]),
    ],
)
def test_blocks_go_and_padding_still_works(build: type[Reader], blocks: list[str], tmp_path: Path) -> None:
    model = build().eval()
    structure = cuttable(model, trace(model, TOKENS), TOKENS)
    assert set(blocks) <= {block.name for block in structure.blocks}
    plan = plan_cut(structure, channels={f"{NAMES[2]}.linear1": [0, 5]}, blocks=blocks)
    small, reference = cut(model, plan, TOKENS).eval(), masked(model, plan).eval()
    save(small, tmp_path / "small")
    for each in (small, load(tmp_path / "small", build).eval()):
        torch.testing.assert_close(each(TOKENS, PADDING), reference(TOKENS, PADDING))
        with torch.no_grad():  # torch takes its fast path here if it can
            torch.testing.assert_close(each(TOKENS, PADDING), reference(TOKENS, PADDING))
    small.train()(TOKENS, PADDING).sum().backward()
