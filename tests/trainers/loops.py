"""One small training, as three loops run it: by hand, in Lightning, and in the Trainer of transformers."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from amsc.models.resnet_cifar import CifarResNet
from amsc.trainers import Compression, LoopSettings
from training.small import small_data, trained_net

BATCH, STEPS = 16, 60
TARGET = "macs=50%"
SETTINGS = LoopSettings(share=0.7, pieces=3, round_to=1)
DATA = small_data()
DENSE = trained_net(DATA)
EXAMPLE = DATA.example_inputs(1)


@dataclass(frozen=True)
class Batches:
    """The same batches in the same order for every loop."""

    pairs: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def drawn(cls, steps: int = STEPS) -> "Batches":
        found: list[tuple[Tensor, Tensor]] = []
        epoch = 0
        while len(found) < steps:
            found += list(DATA.batches("train", seed=epoch))
            epoch += 1
        return cls(tuple(found[:steps]))


class Net(nn.Module):
    """Takes labels as a transformers model does, and returns the loss with the logits then."""

    def __init__(self) -> None:
        super().__init__()
        self.body: CifarResNet = copy.deepcopy(DENSE)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.body(x)
        if labels is None:
            return {"logits": logits}
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def sgd(net: nn.Module, rate: float = 0.02) -> tuple[Optimizer, LambdaLR]:
    optimizer = SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    return optimizer, LambdaLR(optimizer, lambda step: 1 - step / (2 * STEPS))


def by_hand(net: nn.Module, batches: Batches, **options: Any) -> Compression:
    optimizer, scheduler = sgd(net)
    options = {"target": TARGET, "steps": len(batches.pairs), "settings": SETTINGS, **options}
    compression = Compression(net, optimizer, {"x": EXAMPLE}, **options)
    net.train()
    for x, labels in batches.pairs:
        net(x, labels)["loss"].backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        compression.update()
    compression.end()
    return compression


def with_trainer(net: nn.Module, batches: Batches, folder: Path, callback: Any, **options: Any) -> Any:
    """The Trainer, after training."""
    from torch.utils.data import IterableDataset
    from transformers import Trainer, TrainingArguments

    class Rows(IterableDataset[dict[str, Tensor]]):
        def __iter__(self) -> Any:
            for x, labels in batches.pairs:
                yield from ({"x": one, "labels": label} for one, label in zip(x, labels, strict=True))

    resume = options.pop("resume_from_checkpoint", None)
    chosen = {"save_strategy": "no", "report_to": "none", "max_grad_norm": 0.0, "use_cpu": True, **options}
    args = TrainingArguments(
        str(folder),
        max_steps=len(batches.pairs),
        per_device_train_batch_size=BATCH,
        disable_tqdm=True,
        logging_strategy="no",
        **chosen,
    )
    trainer = Trainer(net, args, train_dataset=Rows(), callbacks=[callback], optimizers=sgd(net))
    trainer.train(resume_from_checkpoint=resume)
    return trainer
