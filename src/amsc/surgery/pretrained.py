"""A cut model of transformers as the stock library loads it, where a configuration describes it."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import OwnState, borrowed, devices_of, forked, look_into, random_inputs, run_model
from amsc.errors import ModelError, RunFolderError, VerificationError
from amsc.surgery.apply import plan_of
from amsc.surgery.stock import as_stock, is_of_transformers

__all__ = ["save_pretrained"]

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
LOW_PRECISION = 2e-2


def save_pretrained(model: nn.Module, folder: str | os.PathLike[str], example_inputs: Any = None) -> None:
    """Write a cut model of transformers so that `from_pretrained(folder)` of its class loads it, without amsc.

    A stock model is made of the changed configuration, filled with the cut model's tensors, written by its own
    `save_pretrained`, loaded again, and compared with the cut model on the example inputs (without them on random ones
    like those it was cut with). The model is not changed.

        amsc.surgery.save_pretrained(result.model, "small")
        transformers.BertForSequenceClassification.from_pretrained("small")

    Raises:
        ModelError: it is no model of transformers, or no configuration describes it; the message names a tensor. Save
            it with `amsc.save` then.
        VerificationError: the stock model gives other outputs.
        RunFolderError: the folder holds something already.
    """
    if not isinstance(model, nn.Module) or not is_of_transformers(model):
        raise ModelError(f"expected a model of transformers, got {type(model).__name__}; use amsc.save(model, folder)")
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunFolderError(f"{target} exists already and is not empty; name another folder")
    inputs = _example(model, example_inputs)
    stock = _stock_model(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as made:
        written = Path(made) / target.name
        stock.save_pretrained(written)
        again = type(model).from_pretrained(written)  # type: ignore[attr-defined]
        _compare(model, again.to(next(model.parameters()).device), inputs)
        if target.exists():
            target.rmdir()
        os.replace(written, target)


def _stock_model(model: nn.Module) -> Any:
    """The library's own network with the tensors of the cut one."""
    found = as_stock(model)
    name = type(model).__name__
    if found.misfit:
        raise ModelError(
            f"no configuration of {name} describes this network: {found.misfit}; save it with amsc.save, load it with "
            "amsc.load, and cut with uniform=True (--uniform) to leave alike layers alike"
        )
    state = model.state_dict()
    with forked(devices_of(model)):
        stock: Any = type(model)(found.config)
    stock.load_state_dict({new: state[old] for new, old in found.names.items()})
    return stock.to(next(model.parameters()).dtype).eval()


def _example(model: nn.Module, example_inputs: Any) -> Any:
    if example_inputs is not None:
        return example_inputs
    plan = plan_of(model)
    if plan is None:
        raise ModelError("the model was never cut, so that its inputs are not known; give example_inputs")
    return random_inputs(plan.inputs, next(model.parameters()).device, torch.Generator().manual_seed(0))


def _compare(model: nn.Module, stock: nn.Module, inputs: Any) -> None:
    """Refuse a stock model that gives other outputs than the cut one."""
    own = OwnState.of(model)
    outputs = []
    for each in (model, stock):
        with borrowed(each), torch.no_grad():
            outputs.append(look_into(run_model(each.eval(), inputs), own).tensors)
    mine, theirs = outputs
    for name, tensor in mine.items():
        if name not in theirs or not _is_close(tensor, theirs[name]):
            raise VerificationError(
                f"the stock {type(model).__name__} has the tensors of the cut network but gives another {name}; save "
                "it with amsc.save and load it with amsc.load"
            )


def _is_close(mine: Tensor, theirs: Tensor) -> bool:
    if mine.shape != theirs.shape or not mine.is_floating_point():
        return torch.equal(mine, theirs)
    largest = float(mine.abs().max()) if mine.numel() else 0.0
    allowed = TOLERANCE.get(mine.dtype, LOW_PRECISION) * max(largest, 1e-30)
    return mine.numel() == 0 or float((mine - theirs).abs().max()) <= allowed
