"""A network, data and a way to cut that are small enough to walk a whole path in a second."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from amsc.data import Data, open_data
from amsc.models.resnet_cifar import CifarResNet
from amsc.structure import Structure, trace
from amsc.structure.cutting import after_removal
from amsc.surgery import apply_plan, cut_tensors, plan_cut, verify
from amsc.tasks import Classification
from amsc.training import OptimizerChoice, Removal, Shrunk, TrainSettings, finetune, reestimate_batchnorm

TASK = Classification()


def small_data(*, limit: int = 160, batch_size: int = 16) -> Data:
    return open_data("digits", seed=0, batch_size=batch_size, device="cpu", limit=limit)


def small_net(seed: int = 0) -> CifarResNet:
    """Six blocks of equal cost, four of them removable."""
    torch.manual_seed(seed)
    return CifarResNet(2, widths=(8, 16, 32), num_classes=10, in_channels=1)


def trained_net(data: Data) -> CifarResNet:
    net = small_net()
    finetune(net, data, TASK, TrainSettings("dense", 3, OptimizerChoice(0.1)))
    reestimate_batchnorm(net, data)
    return net


def traced(net: nn.Module, data: Data) -> Structure:
    return trace(net, data.example_inputs(1))


def shrink(model: nn.Module, structure: Structure, removal: Removal) -> Shrunk:
    if not removal:
        return Shrunk(copy.deepcopy(model), structure, dict, 0.0)
    plan = plan_cut(structure, channels=removal.channels, blocks=removal.blocks)
    small = apply_plan(model, plan)
    after = after_removal(structure, removal.channels, removal.blocks)
    return Shrunk(small, after, lambda tensors: cut_tensors(tensors, plan), verify(model, small, plan))


def same_tensors(first: Any, second: Any) -> bool:
    """Whether two mappings hold the same names and bit-identical tensors."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@dataclass(frozen=True)
class ListData:
    """The same batches in every split, whatever the seed."""

    items: tuple[tuple[Any, Tensor], ...]
    name: str = "list"
    num_classes: int | None = None

    def batches(self, split: str, *, seed: int | None = None) -> Iterator[tuple[Any, Tensor]]:
        yield from self.items

    def num_batches(self, split: str) -> int:
        return len(self.items)

    def num_examples(self, split: str) -> int:
        return sum(len(target) for _, target in self.items)

    def example_inputs(self, batch: int = 1) -> Tensor:
        inputs: Tensor = self.items[0][0]
        return inputs[:batch]
