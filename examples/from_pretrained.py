"""BERT, ViT and a Llama shape of transformers: cut so that alike layers stay alike, loaded by the stock library again.

    pip install transformers
    python examples/from_pretrained.py bert      # or vit, llama

Each is small, has random weights, and learns a task that is made on the spot: whether a text holds the same word twice
(BERT), where a bright square lies (ViT), how sums go on (Llama). Then amsc looks for a network with 60 % of the
multiply-adds with `uniform=True`: as many heads and hidden units in each layer, and layers go whole. The outcome is
written by `amsc.surgery.save_pretrained` and loaded by `from_pretrained`, without amsc.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision_in_part import make_importable

import amsc
from amsc.data import LoaderData
from amsc.tasks import Classification, Task

make_importable()
import transformers  # noqa: E402

WORDS, LENGTH, SIZE = 24, 12, 24
SIZES = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
TEXT = {**SIZES, "vocab_size": WORDS, "max_position_embeddings": LENGTH, "pad_token_id": 0}
SIGNS = "0123456789+=;"


class Outcome(NamedTuple):
    """The run, and the network that the stock library loaded."""

    result: amsc.Result
    loaded: nn.Module


@dataclass(frozen=True)
class NextSign:
    """Cross-entropy of the next sign; the score is the mean loss of each text: lower is better."""

    name: str = "nats per sign"
    higher_is_better: bool = False

    def loss(self, output: Any, target: Tensor) -> Tensor:
        return self.per_example(output, target).mean()

    def per_example(self, output: Any, target: Tensor) -> Tensor:
        return functional.cross_entropy(output.logits.transpose(1, 2), target, reduction="none").mean(1)


def texts(count: int, chooser: torch.Generator) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Texts in which all words differ (0), or one of them stands twice (1)."""
    made = []
    for _ in range(count):
        words = torch.randperm(WORDS - 1, generator=chooser)[:LENGTH] + 1
        label = int(torch.randint(0, 2, (1,), generator=chooser))
        if label:
            first, second = torch.randperm(LENGTH, generator=chooser)[:2].tolist()
            words[second] = words[first]
        made.append(({"input_ids": words, "attention_mask": torch.ones_like(words)}, torch.tensor(label)))
    return made


def squares(count: int, chooser: torch.Generator) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Pictures with a bright square; the label says in which of nine parts its centre lies."""
    made = []
    for _ in range(count):
        image = 0.3 * torch.randn(3, SIZE, SIZE, generator=chooser)
        x, y = (int(torch.randint(2, SIZE - 2, (1,), generator=chooser)) for _ in range(2))
        image[:, y - 2 : y + 3, x - 2 : x + 3] += 3
        made.append(({"pixel_values": image}, torch.tensor(3 * (3 * y // SIZE) + 3 * x // SIZE)))
    return made


def sums(count: int, chooser: torch.Generator) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Texts such as "7+5=12;3+" and the same one sign further on."""
    made = []
    for _ in range(count):
        text = ""
        while len(text) <= LENGTH:
            a, b = (int(torch.randint(0, 10, (1,), generator=chooser)) for _ in range(2))
            text += f"{a}+{b}={a + b};"
        signs = torch.tensor([SIGNS.index(sign) for sign in text[: LENGTH + 1]])
        made.append(({"input_ids": signs[:-1]}, signs[1:]))
    return made


def make(name: str) -> tuple[nn.Module, Any, Task]:
    """A network with random weights, what makes its data, and its task."""
    if name == "bert":
        config = transformers.BertConfig(**TEXT, num_labels=2)
        return transformers.BertForSequenceClassification(config), texts, Classification()
    if name == "vit":
        images = transformers.ViTConfig(**SIZES, image_size=SIZE, patch_size=4, num_labels=9)
        return transformers.ViTForImageClassification(images), squares, Classification()
    decoder = transformers.LlamaConfig(**TEXT, num_key_value_heads=2, use_cache=False)
    return transformers.LlamaForCausalLM(decoder), sums, NextSign()


def main(
    name: str = "vit", examples: int = 1024, epochs: float = 6, seed: int = 0, folder: Path | None = None
) -> Outcome:
    torch.manual_seed(seed)
    model, made, task = make(name)
    sets = (made(count, torch.Generator().manual_seed(part)) for part, count in enumerate((examples, 256, 256)))
    data = LoaderData(*(DataLoader(each, 32, shuffle=part == 0) for part, each in enumerate(sets)), name=made.__name__)
    settings = amsc.Settings(
        seed=seed,
        optimizer="adamw",
        dense_epochs=2 * epochs,
        dense_learning_rate=0.002,
        finetune_epochs=epochs,
        finetune_learning_rate=0.001,
        path_points=1,
        reconstruction=128,
        uniform=True,
    )
    result = amsc.compress(
        model, data.example_inputs(), data, task=task, target=amsc.Target(macs=0.6), settings=settings
    )
    place = (Path(tempfile.mkdtemp()) if folder is None else folder) / name
    amsc.surgery.save_pretrained(result.model, place)
    loaded = type(model).from_pretrained(place)
    show(result, loaded.config, model.config)
    return Outcome(result, loaded)


def show(result: amsc.Result, after: Any, before: Any) -> None:
    record = result.record
    print(f"{record.score_name}: {record.score_before:.3f} -> {record.score_after:.3f} (test)")
    print(f"MACs: {record.after.macs / record.before.macs:.1%}, parameters: {record.after.parameters:,}")
    for key in ("num_hidden_layers", "num_attention_heads", "intermediate_size"):
        print(f"{key}: {getattr(before, key)} -> {getattr(after, key)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
