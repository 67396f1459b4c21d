"""A run of a small network that takes seconds."""

from pathlib import Path
from typing import Any

from torch import nn

from amsc import Result, Settings, Target, compress
from amsc.data import Data
from training.small import small_data, small_net

SETTINGS = Settings(
    dense_epochs=2,
    path_epochs=2,
    finetune_epochs=1.5,
    path_points=4,
    path_learning_rate=0.05,
    depth_rule="share",
    reconstruction=32,
    distillation=0.0,  # from a dense network that has hardly begun to learn it would only hold back
    round_to=1,
)
TARGET = Target(macs=0.6)
DATA = small_data()


def run_small(out: Path | None = None, *, model: nn.Module | None = None, data: Data = DATA, **options: Any) -> Result:
    options = {"target": TARGET, "settings": SETTINGS, "model_name": "small", **options}
    model = small_net() if model is None else model
    return compress(model, data.example_inputs(1), data, out=out, **options)
