"""The task that needs no labels: to answer as the dense network does."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from amsc.borrowing import OwnState, look_into
from amsc.errors import ModelError

__all__ = ["DenseOutputs", "Imitation", "dense_outputs", "float_tensors"]

CERTAIN = 50.0
"""The logit of a class that was drawn, where those of all others are 0."""


class DenseOutputs(TypedDict):
    """What the dense network returned for a batch, which is the target of `Imitation`.

    `tensors` are by place, their first axis counts examples; single numbers are for all. `scales` are the mean squares
    of their elements over training examples, single numbers. `own` is what the network hands itself (see `OwnState`).
    """

    tensors: dict[str, Tensor]
    scales: dict[str, Tensor]
    own: OwnState


@dataclass(frozen=True)
class Imitation:
    """To answer as the dense network does, which needs inputs alone; judged by how far the answers are from its own.

    The measure of an example is a sum over the float tensors in the output, wherever they stand in it: of each the mean
    square of the difference, relative to the mean square of the dense network's over training examples. An output of
    one tensor (batch, classes) is taken for unnormalised log-probabilities, and its measure is the Kullback-Leibler
    divergence KL(dense || small) in nats; with `logits` False it is a tensor like others. Integers and constants in the
    output do not count. The dense network itself has 0.

    Where a run is given this task, its data may be without labels (`amsc.data.inputs_alone`), and labels do not count.
    """

    logits: bool = True

    @property
    def name(self) -> str:
        """The score is the divergence from the dense network."""
        return "divergence from the dense network"

    @property
    def higher_is_better(self) -> bool:
        """No."""
        return False

    def loss(self, output: Any, target: DenseOutputs) -> Tensor:
        """The mean of the examples' measures, a scalar.

        Raises:
            ModelError: the output lacks a tensor of the dense network's, or has it in another shape.
        """
        return self.per_example(output, target).mean()

    def per_example(self, output: Any, target: DenseOutputs) -> Tensor:
        """The measure of each example, float, shape (batch,).

        Raises: as `loss`.
        """
        wanted, came = target["tensors"], float_tensors(output, target["own"])
        parts = [
            self._of_one(wanted, name, _alike(name, came.get(name), tensor), target["scales"][name])
            for name, tensor in wanted.items()
        ]
        return torch.stack(torch.broadcast_tensors(*parts)).sum(0)

    def drawn(self, target: DenseOutputs, generator: torch.Generator) -> DenseOutputs:
        """Targets drawn from what the dense network's outputs say of them, for whom wants derivatives of the loss.

        A network that answers as the dense one does is at the minimum of the loss, and derivatives there are zero. Of
        targets drawn from the outputs as distributions (a class from the logits; a normal number around each other
        element, of the variance that makes the loss its negative logarithm) the derivatives have the mean zero too, but
        their mean squares are the curvature of the loss, its Fisher information (Martens 2020, arXiv:1412.1193, section
        5). `generator` lives on the CPU.
        """
        tensors = target["tensors"]
        drawn = {
            name: _drawn_class(tensor, generator)
            if self._is_logits(tensors, name)
            else _drawn_numbers(tensor, target["scales"][name], generator)
            for name, tensor in tensors.items()
        }
        return {**target, "tensors": drawn}

    def _of_one(self, tensors: Mapping[str, Tensor], name: str, came: Tensor, scale: Tensor) -> Tensor:
        wanted = tensors[name]
        if not self._is_logits(tensors, name):
            return _rows((came - wanted).square()).mean(-1) / scale
        mine, theirs = log_softmax(came, 1), log_softmax(wanted, 1)
        return kl_div(mine, theirs, reduction="none", log_target=True).sum(1)

    def _is_logits(self, tensors: Mapping[str, Tensor], name: str) -> bool:
        return self.logits and len(tensors) == 1 and tensors[name].ndim == 2 and tensors[name].shape[1] > 1


def float_tensors(output: Any, own: OwnState) -> dict[str, Tensor]:
    """The tensors with real numbers in what a network returned, by place, in single precision at least; of complex ones
    two each. Those without elements are left out."""
    parts: dict[str, Tensor] = {}
    for name, tensor in look_into(output, own).tensors.items():
        parts |= {f"{name}.real": tensor.real, f"{name}.imag": tensor.imag} if tensor.is_complex() else {name: tensor}
    floats = {name: part for name, part in parts.items() if part.is_floating_point() and 0 not in part.shape[1:]}
    return {name: part.float() if part.dtype.itemsize < 4 else part for name, part in floats.items()}


def dense_outputs(output: Any, count: int, scales: Mapping[str, Tensor], own: OwnState) -> DenseOutputs:
    """What the dense network returned for a batch of `count` examples, as a target.

    Raises:
        ModelError: there is no float tensor with a row for each example, or one that is no single number has none.
    """
    tensors = {name: _by_example(name, tensor, count) for name, tensor in float_tensors(output, own).items()}
    if not any(tensor.ndim for tensor in tensors.values()):
        said = f"single numbers for {count} examples" if tensors else "no float tensor"
        raise ModelError(
            f"imitation expects the model to return at least one float tensor whose first axis counts examples, got "
            f"{said}; wrap the model so that it returns what is to be imitated"
        )
    if unknown := tensors.keys() - scales.keys():
        raise ModelError(
            f"imitation expects the model to return the same tensors for every batch, but {min(unknown)} came only "
            "with some of them; wrap the model so that it returns what is to be imitated"
        )
    return {"tensors": tensors, "scales": {name: scales[name] for name in tensors}, "own": own}


def _by_example(name: str, tensor: Tensor, count: int) -> Tensor:
    """The tensor with examples along its first axis; a single number stays one, unless it is that of one example.

    Raises:
        ModelError: it has another first axis.
    """
    if tensor.ndim and len(tensor) == count:
        return tensor
    if count == 1:
        return tensor[None]
    if not tensor.ndim:
        return tensor
    raise ModelError(
        f"imitation needs a row for each example in every tensor that the model returns, but {name} has the shape "
        f"{tuple(tensor.shape)} for {count} examples; wrap the model so that it returns {name} with the examples along "
        "its first axis or leaves it out, or give batches of one example"
    )


def _alike(name: str, came: Tensor | None, wanted: Tensor) -> Tensor:
    """What came in the place of a tensor of the dense network's, in its shape.

    Raises:
        ModelError: nothing did, or something of another size.
    """
    if came is not None and came.shape == wanted.shape:
        return came
    if came is not None and wanted.ndim and len(wanted) == 1 and came.shape == wanted.shape[1:]:
        return came[None]
    said = "is not there" if came is None else f"has the shape {tuple(came.shape)}"
    raise ModelError(
        f"imitation expects what the dense network returns, {name} of shape {tuple(wanted.shape)}, but it {said}; its "
        "shape must follow from the inputs alone"
    )


def _rows(tensor: Tensor) -> Tensor:
    """All that is of one example in a row. Shape: (batch, element); of a single number: (1,)."""
    return tensor.reshape(len(tensor), math.prod(tensor.shape[1:])) if tensor.ndim else tensor[None]


def _drawn_class(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Logits of a class drawn for each example. Shapes: (batch, classes) both."""
    classes = torch.multinomial(logits.detach().cpu().softmax(1), 1, generator=generator)
    return torch.zeros_like(logits).scatter_(1, classes.to(logits.device), CERTAIN)


def _drawn_numbers(tensor: Tensor, scale: Tensor, generator: torch.Generator) -> Tensor:
    """Each number with normal noise, of which the loss is the negative logarithm of the density."""
    noise = torch.randn(tensor.shape, generator=generator).to(tensor)
    return tensor + noise * (_rows(tensor).shape[-1] * scale / 2).sqrt()
