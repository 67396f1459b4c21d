"""What `compress` refuses, in which words, and that nothing is lost by it."""

import dataclasses
import errno
import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from amsc import Result, Settings, Target, compress
from amsc.data import ImageData, ImageSplit, LoaderData
from amsc.errors import AmscError, DataError, ModelError, RunFolderError, SettingsError, TargetError, TrainingError
from amsc.models.resnet_cifar import CifarResNet
from amsc.tasks import Classification, Regression
from amsc.training import evaluate, load_state
from small_runs import DATA, SETTINGS, TARGET, run_small
from training.small import small_data, small_net


class Margins:
    """A task of somebody's, judged otherwise than by accuracy."""

    name, higher_is_better = "margin", True

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return -self.per_example(output, target).mean()

    def per_example(self, output: Tensor, target: Tensor) -> Tensor:
        return output.gather(1, target[:, None])[:, 0]


@dataclasses.dataclass
class Broken(Margins):
    """A task with a fault."""

    score: float = 0.0
    loss_value: float = 0.0
    examples: int = 0

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return -super().per_example(output, target).mean() + self.loss_value

    def per_example(self, output: Tensor, target: Tensor) -> Tensor:
        return super().per_example(output, target)[: self.examples or None] + self.score


ROWS = list(zip(torch.randn(20, 1, 8, 8), torch.zeros(20, dtype=torch.long), strict=True))
LOADED = LoaderData(*(DataLoader(ROWS, 10) for _ in range(3)))  # type: ignore[arg-type]


WIDE = [(torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.long))]
WRONG = (
    r"does not take a batch of the {} split of loader: CifarResNet.forward failed on a batch of shape \(2, 3, 8, 8\)"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refusals") / "run"


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    return run_small(folder)


def _no_training(*_: Any, **__: Any) -> None:
    raise AssertionError("trained before refusing")


def _refused(monkeypatch: pytest.MonkeyPatch, error: type[AmscError], words: str, *args: Any, **options: Any) -> None:
    monkeypatch.setattr(import_module("amsc.jobs.stages.training"), "finetune", _no_training)
    with pytest.raises(error, match=words):
        run_small(*args, **options)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    _refused(monkeypatch, RunFolderError, "already holds notes.txt", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    _refused(monkeypatch, RunFolderError, "is a file", tmp_path / "notes.txt")
    (tmp_path / "run" / "state").mkdir(parents=True)
    (tmp_path / "run" / "state" / "state.pt").write_bytes(b"")
    words = r"or go on with the run in it: resume=True in Python, or amsc resume .*run$"
    _refused(monkeypatch, RunFolderError, words, tmp_path / "run")


def test_a_folder_that_holds_only_its_settings_is_new(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("# mine\n")
    run_small(tmp_path, settings=Settings(path_epochs=0, finetune_epochs=0))
    assert (tmp_path / "settings.toml").read_text() == "# mine\n"
    assert (tmp_path / "record.json").is_file()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", read_only)
    _refused(monkeypatch, RunFolderError, "cannot be written: Permission denied", tmp_path / "run")


def test_only_a_run_can_be_resumed_and_only_the_same(
    result: Result, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: Callable[..., None] = lambda *args, **options: _refused(monkeypatch, *args, resume=True, **options)  # noqa: E731
    refused(RunFolderError, "no run to resume", tmp_path / "nothing")
    refused(RunFolderError, "no run to resume", None)
    refused(RunFolderError, "had seed = 0, not 3", folder, settings=dataclasses.replace(SETTINGS, seed=3))
    refused(RunFolderError, "had target = 'macs=0.6'", folder, target=Target(macs=0.7))
    wider = CifarResNet(2, widths=(8, 16, 40), num_classes=10, in_channels=1)
    other = r"another network: .* is \[32, 16, 3, 3\] there and \[40, 16, 3, 3\] here; resume it with the same"
    refused(RunFolderError, other, folder, model=wider)
    refused(RunFolderError, "had splits of the data = '160/359/360 examples'", folder, data=small_data(limit=150))
    assert isinstance(DATA, ImageData)
    mirrored = {name: ImageSplit(part.images.flip(3), part.labels) for name, part in DATA.splits.items()}
    other = dataclasses.replace(DATA, splits=mirrored)
    refused(RunFolderError, "had examples of the data = ", folder, data=other)
    broken = tmp_path / "broken"
    (broken / "state").mkdir(parents=True)
    (broken / "state" / "state.pt").write_bytes(b"half a file")
    refused(RunFolderError, "damaged", broken)


def test_an_unreachable_target_names_the_lowest_one_which_works(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(import_module("amsc.jobs.stages.training"), "finetune", _no_training)
        with pytest.raises(TargetError) as caught:
            run_small(target=Target(macs=0.01))
    lowest = float(str(caught.value).partition("target is macs=")[2].partition("%")[0]) / 100
    quick = Settings(path_epochs=0, finetune_epochs=0, depth_share=0.0)
    assert run_small(target=Target(macs=lowest), settings=quick).record.after.macs
    with pytest.raises(TargetError):
        run_small(target=Target(macs=lowest - 0.001), settings=quick)


def test_limits_that_leave_too_little_are_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: Callable[..., None] = lambda *args, macs=0.2, **limits: _refused(  # noqa: E731
        monkeypatch, *args, target=Target(macs=macs), settings=dataclasses.replace(SETTINGS, **limits)
    )
    refused(TargetError, r"all gone that only=\['layer3.1'\] let go ", only=("layer3.1",))
    refused(TargetError, r"nothing .* can be removed with keep=\['\*'\]", keep=("*",))
    refused(TargetError, "all gone that round_to=32 let go ", round_to=32, keep=())
    refused(TargetError, r"all gone that minimum=\['layer\*=8'\] let go ", minimum=("layer*=8",), macs=0.05)
    refused(SettingsError, r"did you mean layer3\?", keep=("layr3",))
    refused(SettingsError, r"did you mean layer3\?", minimum=("layr3=4",))
    refused(SettingsError, "expected NAME=N", minimum=("layer3=0",))
    refused(SettingsError, r"did you mean layer3\?", minimum=("layr3=4",), macs=0.9)


def test_data_and_model_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(DATA, ImageData)
    other = dataclasses.replace(DATA, num_classes=12)
    _refused(monkeypatch, DataError, "tells 10 classes apart, digits has 12", data=other)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.net(inputs)}

    _refused(monkeypatch, ModelError, "returns? .*got dict", model=Odd())
    _refused(monkeypatch, ModelError, "Module", model=nn.Parameter(torch.zeros(1)))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"target": 0.5}, TargetError, r"amsc\.Target\(macs=0\.5\)"),
        ({"data": [1, 2]}, DataError, "LoaderData"),
        ({"settings": Settings(device="cuda")}, SettingsError, "the model is on cpu"),
        ({"task": Classification(), "settings": Settings(label_smoothing=0.1)}, SettingsError, "a task of yours"),
        ({"task": Margins(), "settings": Settings(distillation=0.5)}, SettingsError, "logits.*Margins"),
        ({"task": Broken(score=math.nan)}, DataError, "the margin of the first batch must be finite"),
        ({"task": Broken(loss_value=math.inf)}, DataError, "the loss of the first batch must be finite"),
        ({"task": Broken(examples=1)}, DataError, r"a tensor of shape \(16,\), one score each; got \(1,\)"),
        ({"target": Target(drop=1)}, TargetError, 'lets all of the accuracy go.*write drop=0.01 or drop="1%"'),
        ({"target": Target(drop="200%")}, TargetError, 'write drop=0.02 or drop="2%"'),
        (
            {"target": Target(drop="1%"), "task": Margins()},
            TargetError,
            "the margin may .* own units, such as drop=0.01",
        ),
        ({"task": Regression()}, DataError, "float targets"),
        ({"task": Classification}, SettingsError, r"got the class Classification; write task=Classification\(\)"),
        ({"task": "classification"}, SettingsError, "got 'classification'.*open_task"),
        ({"data": LoaderData}, DataError, "the class LoaderData is not"),
        ({"model": nn.Linear}, ModelError, "got the class Linear"),
        ({"data": dataclasses.replace(LOADED, num_classes=1)}, DataError, "a single class"),
        ({"settings": {"device": "cpu"}}, SettingsError, r"got dict; write Settings\(\*\*settings\)"),
        ({"settings": {}}, SettingsError, "expected an amsc.Settings"),
        ({"progress": 3}, SettingsError, "an object with update.*got int"),
        ({"data": dataclasses.replace(LOADED, validation=WIDE)}, DataError, WRONG.format("validation")),
        ({"data": dataclasses.replace(LOADED, test=WIDE)}, DataError, WRONG.format("test")),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(options: dict[str, Any], error: type[AmscError], words: str) -> None:
    arguments = {
        "model": small_net(),
        "example_inputs": DATA.example_inputs(1),
        "data": DATA,
        "target": TARGET,
        **options,
    }
    with pytest.raises(error, match=words):
        compress(**arguments)


def test_a_later_batch_of_another_kind_is_told_with_its_split() -> None:
    mixed = dataclasses.replace(LOADED, validation=[*LOADED.validation, *WIDE])
    with pytest.raises(DataError, match=WRONG.format("validation")):
        evaluate(small_net(), mixed, "validation", Classification())


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_empty_split_is_refused(monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    class Lacking:
        def __getattr__(self, name: str) -> Any:
            return getattr(DATA, name)

        def num_examples(self, wanted: str) -> int:
            return 0 if wanted == split else DATA.num_examples(wanted)

    data: Any = Lacking()
    _refused(monkeypatch, DataError, f"the {split} split of digits is empty", data=data)


def test_a_loss_that_is_not_finite_leaves_a_run_that_can_be_looked_at(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, path_learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"of the depth phase.*lower"):
        run_small(tmp_path / "run", settings=settings)
    assert load_state(tmp_path / "run" / "state" / "state.pt")["stage"] == "path"
