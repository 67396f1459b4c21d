"""Where memory runs out a batch is computed in parts: the step is the same, and it is said."""

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amsc.errors import AmscWarning, TrainingError
from amsc.tasks import Classification
from amsc.training.steps.step import TrainingStep
from training.small import TASK

BATCH = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


class Narrow(nn.Module):
    """Has no room for more than some examples at a time; says so as CUDA does, or as the CPU does."""

    def __init__(self, most: int, *, is_cpu: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.most, self.is_cpu = nn.Linear(6, 3), most, is_cpu
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(x) > self.most:
            if self.is_cpu:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        out: Tensor = self.layer(x)
        return out


def _step(model: nn.Module, task: Any = TASK) -> TrainingStep:
    return TrainingStep(model, torch.optim.SGD(model.parameters(), lr=0.5), task)


@pytest.mark.parametrize("is_cpu", [False, True])
def test_the_step_is_that_of_the_whole_batch(is_cpu: bool) -> None:
    whole, parted = Narrow(12), Narrow(4, is_cpu=is_cpu)
    loss = _step(whole)(*BATCH)
    step = _step(parted)
    with pytest.warns(AmscWarning, match=r"out of memory with .*BatchNorm normalises each part") as said:
        torch.testing.assert_close(step(*BATCH), loss)
    assert [str(one.message).split(":")[0] for one in said] == [
        f"out of memory with {examples} examples at a time" for examples in (12, 6)
    ]
    torch.testing.assert_close(parted.layer.weight, whole.layer.weight)
    assert parted.seen == [12, 6, 3, 3, 3, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(*BATCH)
    assert parted.seen[6:] == [3, 3, 3, 3], "it is remembered"


def test_uneven_parts_count_by_their_examples() -> None:
    class Sum(Classification):
        def loss(self, output: Any, target: Any) -> Tensor:
            return F.cross_entropy(output, target)

    whole, parted = Narrow(12), Narrow(4)
    odd = BATCH[0][:7], BATCH[1][:7]
    loss = _step(whole, Sum())(*odd)
    with pytest.warns(AmscWarning, match="in 2 parts"):
        torch.testing.assert_close(_step(parted, Sum())(*odd), loss)
    assert parted.seen == [7, 3, 4]
    torch.testing.assert_close(parted.layer.weight, whole.layer.weight)


@pytest.mark.filterwarnings("ignore::amsc.errors.AmscWarning")
@pytest.mark.parametrize("batch", [BATCH, (BATCH[0].T.reshape(6, 12), BATCH[1])])
def test_what_cannot_be_parted_further_is_an_error_and_no_step(batch: tuple[Tensor, Tensor]) -> None:
    model = Narrow(1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingError, match=r"out of memory with \d+ examples at a time.*smaller batch_size"):
        _step(model)(*batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
