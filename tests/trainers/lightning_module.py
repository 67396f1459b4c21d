"""A LightningModule around the small network."""

from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.utils.data import DataLoader

from trainers.loops import EXAMPLE, Batches, Net, sgd


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.example_input_array = {"x": EXAMPLE}

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        return self.net(x, labels)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss: Tensor = self.net(*batch)["loss"]
        return loss

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = sgd(self)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def quiet(**options: Any) -> dict[str, Any]:
    return {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **options,
    }


def with_lightning(module: Module, batches: Batches, *callbacks: Any, ckpt_path: Any = None, **options: Any) -> Any:
    """The trainer, after training."""
    trainer = pl.Trainer(callbacks=list(callbacks), **quiet(**options))
    loader: Any = DataLoader(list(batches.pairs), batch_size=None)  # type: ignore[arg-type] # a list will do
    trainer.fit(module, loader, ckpt_path=ckpt_path)
    return trainer
