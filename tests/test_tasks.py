"""Tasks: loss, score, and refusals in words."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from amsc.errors import DataError, ModelError, SettingsError
from amsc.tasks import Classification, Regression, Segmentation, Task, open_task

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


def test_regression_is_judged_by_its_squared_error() -> None:
    task = Regression()
    assert isinstance(task, Task)
    assert (task.name, task.higher_is_better) == ("mean squared error", False)
    output, target = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    assert task.per_example(output, target).tolist() == [2.0, 5.0]
    assert float(task.loss(output, target)) == 3.5


@pytest.mark.parametrize(
    ("output", "target", "error", "words"),
    [
        ((torch.zeros(2),), torch.zeros(2), ModelError, "one float tensor, got tuple"),
        (torch.zeros(2, 1), torch.zeros(2), DataError, r"output's shape \(2, 1\), got torch.float32 \(2,\)"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.long), DataError, "float targets"),
    ],
)
def test_regression_refuses_what_does_not_fit(output: Any, target: Tensor, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        Regression().loss(output, target)


def test_segmentation_is_judged_by_the_classes_that_are_there() -> None:
    task = Segmentation()
    assert isinstance(task, Task)
    assert (task.name, task.higher_is_better) == ("mean IoU", True)
    target = torch.tensor([[[0, 0], [1, 1]], [[2, 2], [2, 255]], [[255, 255], [255, 255]]])
    found = torch.tensor([[[0, 1], [1, 1]], [[2, 2], [2, 0]], [[0, 1], [2, 0]]])
    output = 5 * torch.nn.functional.one_hot(found, 3).movedim(-1, 1).float()
    first = (1 / 2 + 2 / 3) / 2  # class 2 is not in this image
    assert task.per_example(output, target).tolist() == pytest.approx([first, 1.0, 1.0])
    kept = output.movedim(1, -1)[target != 255]
    torch.testing.assert_close(
        task.loss(output, target), torch.nn.functional.cross_entropy(kept, target[target != 255])
    )
    assert float(task.loss(output[2:], target[2:])) == 0.0


@pytest.mark.parametrize(
    ("output", "target", "error", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(2), ModelError, r"shape \(batch, classes, ...\), got torch.float32 \(2, 3\)"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 2, 2), DataError, r"integer labels of shape \(2, 4, 4\)"),
        (torch.zeros(1, 3, 2), torch.tensor([[0, 3]]), DataError, "between 0 and 2 or be 255"),
    ],
)
def test_segmentation_refuses_what_does_not_fit(output: Tensor, target: Tensor, error: type, words: str) -> None:
    for look in (Segmentation().loss, Segmentation().per_example):
        with pytest.raises(error, match=words):
            look(output, target)


def test_tasks_by_name_or_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_tasks.py").write_text(
        "from amsc.tasks import Segmentation\n"
        "def mine():\n    return Segmentation(ignored=0)\n"
        "def number():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert open_task("regression") == Regression()
    assert open_task("my_tasks:mine") == Segmentation(ignored=0)
    with pytest.raises(SettingsError, match="did you mean regression"):
        open_task("regresion")
    with pytest.raises(SettingsError, match=r"my_tasks:number returned a int, which has no"):
        open_task("my_tasks:number")


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32])
def test_labels_are_integers_of_any_size(kind: torch.dtype) -> None:
    logits, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1])
    for task, output, target in (
        (Classification(), logits, labels),
        (Segmentation(), logits[..., None].expand(4, 3, 2), labels[:, None].expand(4, 2)),
    ):
        assert torch.equal(task.loss(output, target.to(kind)), task.loss(output, target))
        assert torch.equal(task.per_example(output, target.to(kind)), task.per_example(output, target))
