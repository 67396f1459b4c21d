"""The networks that are fine-tuned: cut from the dense one, and brought as near to it as can be without training."""

from collections.abc import Callable
from typing import Any

from benchmarks.evidence.rivals import l1_removal
from benchmarks.gpu.cells import Cell
from benchmarks.gpu.lab import Lab, first_that_works
from torch import nn

from amsc import Settings, Target, compress, cut, plan_cut, reconstruct, trace
from amsc.structure.costing import predicted_macs

__all__ = ["EXAMPLES", "made"]

EXAMPLES = Settings().reconstruction


def made(lab: Lab, cell: Cell, dense: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """The network of a cell before it is fine-tuned, on the lab's device, and which way led to it.

    Raises:
        TargetError: its share cannot be reached.
    """
    ways: dict[str, Callable[[], nn.Module]] = {}
    if cell.how.kind == "path":
        if lab.is_gpu:
            ways["captured"] = lambda: _compressed(lab, cell, dense, capture=True)
        ways["eager"] = lambda: _compressed(lab, cell, dense)
    else:
        make = _by_l1 if cell.how.kind == "L1" else _compressed
        ways["on the device"] = lambda: make(lab, cell, dense)
        if lab.is_gpu:
            ways["on the processor"] = lambda: make(lab.on_cpu(), cell, dense.cpu()).to(lab.device)
    try:
        return first_that_works(ways)
    finally:
        dense.to(lab.device)


def _compressed(lab: Lab, cell: Cell, dense: nn.Module, **more: Any) -> nn.Module:
    """As `compress` makes it before fine-tuning."""
    settings = _settings(lab, cell, **more)
    inputs, target = lab.data.example_inputs(), Target(macs=cell.share)
    model: nn.Module = compress(dense, inputs, lab.data, target=target, settings=settings).model
    return model


def _settings(lab: Lab, cell: Cell, **more: Any) -> Settings:
    choices: dict[str, Any] = {"seed": cell.seed, "device": str(lab.device), **cell.how.choices}
    if cell.how.kind != "path":
        return Settings.of("instant", **choices)
    return Settings.of(
        "paper",
        **choices,
        path_epochs=cell.how.walked * cell.epochs,
        finetune_epochs=0.0,
        path_learning_rate=Settings().path_learning_rate * cell.batch / 128,
        precision="bfloat16",
        channels_last=True,
        **more,
    )


def _by_l1(lab: Lab, cell: Cell, dense: nn.Module) -> nn.Module:
    """The same share of every layer's filters, those of the least norm, and the rest reconstructed."""
    inputs = lab.data.example_inputs()
    structure = trace(dense, inputs)
    channels = l1_removal(structure, int(cell.share * predicted_macs(structure)), dense)
    small = cut(dense, plan_cut(structure, channels=channels), inputs)
    model: nn.Module = reconstruct(small, dense, lab.data, examples=EXAMPLES, seed=cell.seed).model
    return model
