"""Imitation: what is compared with the dense network's outputs, and how targets are drawn from them."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div

from amsc.borrowing import NO_STATE
from amsc.errors import ModelError
from amsc.imitation import DenseOutputs, Imitation, dense_outputs, float_tensors
from amsc.tasks import DrawingTask, Task, open_task

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.5, 1.0]])
OTHER = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 1.0]])
MAP = torch.arange(12.0).reshape(2, 2, 3)


@dataclass
class Answer:
    """What torch's pytree does not know."""

    map: Tensor
    number: Tensor
    chosen: Tensor
    words: str = "an answer"


def target_of(output: Any, count: int = 2, *, scale: float = 1.0) -> DenseOutputs:
    scales = {name: torch.tensor(scale) for name in float_tensors(output, NO_STATE)}
    return dense_outputs(output, count, scales, NO_STATE)


def test_is_a_task_of_its_name() -> None:
    task = open_task("imitation")
    assert task == Imitation()
    assert isinstance(task, Task)
    assert isinstance(task, DrawingTask)
    assert (task.name, task.higher_is_better) == ("divergence from the dense network", False)
    assert not isinstance(open_task("classification"), DrawingTask)


def test_of_logits_it_is_the_divergence() -> None:
    values = Imitation().per_example(OTHER, target_of(LOGITS))
    assert values.shape == (2,)
    assert values[1] == 0.0
    dense, small = LOGITS.softmax(1), OTHER.softmax(1)
    torch.testing.assert_close(values[0], (dense[0] * (dense[0] / small[0]).log()).sum())
    expected = kl_div(small.log(), dense, reduction="batchmean")
    torch.testing.assert_close(Imitation().loss(OTHER, target_of(LOGITS)), expected)


def test_logits_may_be_numbers_like_others() -> None:
    values = Imitation(logits=False).per_example(OTHER, target_of(LOGITS, scale=2.0))
    torch.testing.assert_close(values, torch.tensor([(1 + 1) / 3 / 2, 0.0]))


def test_all_float_tensors_count_relative_to_their_scale() -> None:
    dense = Answer(MAP, torch.tensor([1.0, 2.0]), torch.tensor([0, 1]))
    small = Answer(MAP + 1.0, torch.tensor([1.0, 5.0]), torch.tensor([1, 1]), "another")
    values = Imitation().per_example(small, target_of(dense, scale=4.0))
    torch.testing.assert_close(values, torch.tensor([0.25, 0.25 + 9 / 4]))


def test_a_single_number_is_for_all_and_several_tensors_are_no_logits() -> None:
    dense, small = {"a": LOGITS, "b": torch.tensor(3.0)}, {"a": LOGITS, "b": torch.tensor(5.0)}
    torch.testing.assert_close(Imitation().per_example(small, target_of(dense)), torch.tensor([4.0, 4.0]))


def test_half_precision_and_complex_numbers() -> None:
    assert Imitation().per_example(OTHER.bfloat16(), target_of(LOGITS.bfloat16())).dtype == torch.float32
    values = Imitation().per_example(torch.tensor([1 + 3j, 2.0]), target_of(torch.tensor([2 + 1j, 2.0])))
    torch.testing.assert_close(values, torch.tensor([5.0, 0.0]))


def test_the_only_example_of_a_batch_may_lie_anywhere() -> None:
    dense = {"map": MAP, "mean": torch.tensor(2.0)}
    values = Imitation().per_example({"map": MAP + 1, "mean": torch.tensor(4.0)}, target_of(dense, 1))
    torch.testing.assert_close(values, torch.tensor([1.0 + 4.0]))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (MAP.transpose(0, 2), r"but output has the shape \(3, 2, 2\) for 2 examples; wrap the model"),
        ({"scores": LOGITS, "table": LOGITS.T}, r"output\['table'\] has the shape \(3, 2\) for 2 examples"),
        (torch.tensor([1, 2]), "got no float tensor"),
        ("words", "got no float tensor"),
        (torch.tensor(1.0), "got single numbers for 2 examples"),
    ],
)
def test_outputs_that_cannot_be_imitated(output: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        target_of(output)


def test_a_tensor_that_comes_only_at_times() -> None:
    with pytest.raises(ModelError, match=r"output\[1\] came only with some of them"):
        dense_outputs((LOGITS, MAP), 2, {"output[0]": torch.tensor(1.0)}, NO_STATE)


@pytest.mark.parametrize(
    ("output", "message"), [(LOGITS[:, :2], r"has the shape \(2, 2\)"), ({"logits": LOGITS}, "is not there")]
)
def test_what_is_returned_must_be_what_the_dense_network_returns(output: Any, message: str) -> None:
    with pytest.raises(ModelError, match=rf"output of shape \(2, 3\), but it {message}"):
        Imitation().loss(output, target_of(LOGITS))


@pytest.mark.parametrize("task", [Imitation(), Imitation(logits=False)], ids=["logits", "numbers"])
def test_squares_of_drawn_derivatives_are_the_curvature(task: Imitation) -> None:
    generator = torch.Generator().manual_seed(0)
    output = torch.tensor([[1.0, 0.0, -0.5]], requires_grad=True)
    target = target_of(output.detach(), 1, scale=2.5)
    curvature = torch.autograd.functional.hessian(lambda out: task.loss(out, target), output.detach())[0, :, 0, :]
    squares, total, draws = torch.zeros(3, 3), torch.zeros(3), 4000
    for _ in range(draws):
        (gradient,) = torch.autograd.grad(task.loss(output, task.drawn(target, generator)), output)
        squares, total = squares + gradient[0].outer(gradient[0]) / draws, total + gradient[0] / draws
    assert torch.autograd.grad(task.loss(output, target), output)[0].abs().max() < 1e-6
    torch.testing.assert_close(squares, curvature, atol=0.05 * float(curvature.abs().max()), rtol=0)
    assert total.abs().max() < 0.05 * curvature.abs().max().sqrt()


def test_what_is_drawn_is_drawn_again_from_the_same_seed() -> None:
    target = target_of({"a": LOGITS, "b": torch.tensor(3.0)})
    one, two = (Imitation().drawn(target, torch.Generator().manual_seed(3))["tensors"] for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["output['a']"], LOGITS)
    assert torch.equal(target["tensors"]["output['a']"], LOGITS)
