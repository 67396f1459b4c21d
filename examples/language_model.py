"""A decoder's loss: a small language model, trained on text made on the spot, loses heads, hidden units and layers.

    python examples/language_model.py

The text is sums such as "7+5=12;". The model learns to go on with them; amsc then looks for a network of 60 % of the
multiply-adds. What a user writes is the task (loss and score of a batch) and two DataLoaders.
"""

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import amsc
from amsc.data import LoaderData

SIGNS = "0123456789+=;"
LENGTH = 24


class Layer(nn.Module):
    """Attention to what came before, then a gated feed-forward part."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_hidden = nn.RMSNorm(width), nn.RMSNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def attention(self, x: Tensor) -> Tensor:
        parts = (part(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        return self.out(functional.scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before_attention(x))
        h = self.before_hidden(x)
        return x + self.down(functional.silu(self.gate(h)) * self.up(h))


class LanguageModel(nn.Module):
    """Logits of the next sign at every place. Shapes: (batch, length) -> (batch, length, signs)."""

    def __init__(self, width: int = 48, heads: int = 4, hidden: int = 96, depth: int = 4) -> None:
        super().__init__()
        self.signs, self.places = nn.Embedding(len(SIGNS), width), nn.Embedding(LENGTH, width)
        self.layers = nn.Sequential(*(Layer(width, heads, hidden) for _ in range(depth)))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, len(SIGNS), bias=False)

    def forward(self, text: Tensor) -> Tensor:
        x = self.signs(text) + self.places(torch.arange(text.shape[1], device=text.device))
        return self.head(self.norm(self.layers(x)))


@dataclass(frozen=True)
class NextSign:
    """Cross-entropy of the next sign; the score is the mean loss of each text, in nats per sign: lower is better."""

    name: str = "nats per sign"
    higher_is_better: bool = False

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, 1), target.flatten())

    def per_example(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output.transpose(1, 2), target, reduction="none").mean(1)


def texts(count: int, seed: int) -> TensorDataset:
    """Texts of sums, and the same one sign further on."""
    chooser, rows = random.Random(seed), []
    for _ in range(count):
        text = ""
        while len(text) <= LENGTH:
            a, b = chooser.randint(0, 9), chooser.randint(0, 9)
            text += f"{a}+{b}={a + b};"
        rows.append([SIGNS.index(sign) for sign in text[: LENGTH + 1]])
    made = torch.tensor(rows)
    return TensorDataset(made[:, :-1], made[:, 1:])


def main(examples: int = 4000, epochs: float = 4) -> amsc.Result:
    torch.manual_seed(0)
    train, validation, test = (texts(count, seed) for seed, count in enumerate((examples, 500, 500)))
    data = LoaderData(
        DataLoader(train, 64, shuffle=True), DataLoader(validation, 256), DataLoader(test, 256), name="sums"
    )
    settings = amsc.Settings(
        dense_epochs=2 * epochs,
        finetune_epochs=2 * epochs,
        optimizer="adamw",
        dense_learning_rate=0.003,
        finetune_learning_rate=0.002,
    )
    model = LanguageModel()
    result = amsc.compress(
        model, data.example_inputs(), data, task=NextSign(), target=amsc.Target(macs=0.6), settings=settings
    )
    record = result.record
    print(f"{record.score_name}: {record.score_before:.3f} -> {record.score_after:.3f} (test)")
    print(f"MACs: {record.after.macs / record.before.macs:.1%}, parameters: {record.after.parameters:,}")
    print(f"blocks gone: {', '.join(record.removed_blocks) or 'none'}")
    for name, gone in record.removed_channels.items():
        print(f"  {len(gone)} of {name}")
    return result


if __name__ == "__main__":
    main()
