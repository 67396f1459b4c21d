"""Classification: loss, score, and refusals in words."""

import pytest
import torch
from torch import Tensor

from amsc.errors import DataError, ModelError, SettingsError
from amsc.tasks import Classification, Task

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def test_is_a_task() -> None:
    task = Classification()
    assert isinstance(task, Task)
    assert (task.name, task.higher_is_better) == ("accuracy", True)


def test_loss_is_mean_cross_entropy() -> None:
    target = torch.tensor([0, 1])
    expected = -(LOGITS.log_softmax(1)[0, 0] + LOGITS.log_softmax(1)[1, 1]) / 2
    torch.testing.assert_close(Classification().loss(LOGITS, target), expected)


def test_label_smoothing_mixes_in_the_mean_over_classes() -> None:
    target = torch.tensor([0, 1])
    plain, even = Classification().loss(LOGITS, target), -LOGITS.log_softmax(1).mean()
    torch.testing.assert_close(Classification(label_smoothing=0.2).loss(LOGITS, target), 0.8 * plain + 0.2 * even)


def test_per_example_is_correctness() -> None:
    values = Classification().per_example(LOGITS, torch.tensor([0, 1]))
    assert values.dtype == torch.float32
    assert values.tolist() == [1.0, 0.0]


def test_empty_batch_has_no_scores() -> None:
    assert Classification().per_example(torch.empty(0, 3), torch.empty(0, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize("output", [(LOGITS,), {"logits": LOGITS}, LOGITS[0], LOGITS[None], LOGITS.long(), None])
@pytest.mark.parametrize("call", [Classification().loss, Classification().per_example])
def test_odd_output_is_refused(call: object, output: object) -> None:
    with pytest.raises(ModelError, match=r"float tensor of shape \(batch, classes\)"):
        call(output, torch.tensor([0, 1]))  # type: ignore[operator]


@pytest.mark.parametrize(
    "target", [torch.tensor([0, 1, 1]), torch.tensor([0.0, 1.0]), torch.tensor([[0], [1]]), torch.tensor(0)]
)
def test_odd_labels_are_refused(target: Tensor) -> None:
    with pytest.raises(DataError, match=r"integer labels of shape \(2,\)"):
        Classification().loss(LOGITS, target)


@pytest.mark.parametrize("target", [torch.tensor([0, 3]), torch.tensor([-1, 0])])
def test_labels_beyond_the_classes_are_refused(target: Tensor) -> None:
    for call in (Classification().loss, Classification().per_example):
        with pytest.raises(DataError, match="between 0 and 2 for a model with 3 outputs"):
            call(LOGITS, target)


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_impossible_smoothing_is_refused(value: float) -> None:
    with pytest.raises(SettingsError, match="label_smoothing"):
        Classification(label_smoothing=value)
