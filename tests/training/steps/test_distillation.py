"""Soft targets: the loss is what the paper writes, and a student comes nearer to its teacher."""

import pytest
import torch
from torch import nn

from amsc.training import Distillation, OptimizerChoice, TrainSettings, finetune
from training.small import TASK, small_data, small_net, trained_net


def test_the_loss_is_cross_entropy_with_softened_targets() -> None:
    torch.manual_seed(0)
    teacher, inputs, output = nn.Linear(4, 3).train(), torch.randn(5, 4), torch.randn(5, 3, requires_grad=True)
    loss = torch.tensor(7.0)
    mixed = Distillation(teacher, 0.25, 4.0)(inputs, output, loss)
    wanted = (teacher(inputs) / 4).softmax(1).detach()
    entropy = -(wanted * wanted.log()).sum(1).mean()
    cross = -(wanted * (output / 4).log_softmax(1)).sum(1).mean()
    assert mixed.item() == pytest.approx((0.75 * loss + 0.25 * 16 * (cross - entropy)).item(), rel=1e-5)
    assert not teacher.training
    mixed.backward()
    assert output.grad is not None
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_comes_nearer_to_its_teacher() -> None:
    data = small_data(limit=400)
    teacher = trained_net(data).eval()
    inputs = data.example_inputs(100)

    def distance(weight: float) -> float:
        student = small_net(seed=5)
        teach = Distillation(teacher, weight, 2.0)
        finetune(student, data, TASK, TrainSettings("finetune", 6, OptimizerChoice(0.05)), teach=teach)
        with torch.no_grad():
            gap = student.eval()(inputs).log_softmax(1) - teacher(inputs).log_softmax(1)
        return float(gap.square().mean())

    assert distance(1.0) < 0.7 * distance(0.0)
