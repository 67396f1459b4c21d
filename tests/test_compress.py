"""The whole job: what comes out, that nothing is lost when it stops, and what is refused before any work."""

import dataclasses
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import amsc
from amsc import Result, Settings, Target, compress
from amsc.data import Data, ImageData, LoaderData
from amsc.errors import AmscError, DataError, ModelError, RunFolderError, SettingsError, TargetError, TrainingError
from amsc.measure import count_macs
from amsc.records import Record, from_json, to_json
from amsc.surgery import load, plan_of
from amsc.tasks import Classification, Regression
from amsc.training import load_state
from training.small import same_tensors, small_data, small_net

SETTINGS = Settings(
    dense_epochs=2, path_epochs=2, finetune_epochs=1.5, path_points=4, path_learning_rate=0.05, depth_rule="share"
)
TARGET = Target(macs=0.6)
DATA = small_data()


class Stopped(Exception):
    """Raised instead of a kill."""


@dataclasses.dataclass
class StopAt:
    """Raises at the given call, counted from 1."""

    call: int
    calls: int = 0

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        self.calls += 1
        if self.calls == self.call:
            raise Stopped(f"{phase} {step}")


@dataclasses.dataclass
class _StopIn:
    """Raises at the given call of a phase, counted from 1."""

    phase: str
    call: int

    def update(self, phase: str, step: int, steps: int, **values: float) -> None:
        self.call -= phase == self.phase
        if not self.call:
            raise Stopped(f"{phase} {step}")


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


def _run(out: Path | None = None, *, model: nn.Module | None = None, data: Data = DATA, **options: Any) -> Result:
    options = {"target": TARGET, "settings": SETTINGS, "model_name": "small", **options}
    model = small_net() if model is None else model
    return compress(model, data.example_inputs(1), data, out=out, **options)


def _essence(record: Record) -> dict[str, Any]:
    """The record without what may differ between two runs."""
    plain: dict[str, Any] = json.loads(to_json(record))
    del plain["seconds"]
    for measured in (plain["before"], plain["after"]):
        for key in ("latency_seconds", "latency_spread_seconds", "peak_memory_bytes"):
            del measured[key]
    return plain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compress") / "run"


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    return _run(folder)


def test_the_result_is_smaller_in_depth_and_width_and_meets_the_target(result: Result) -> None:
    record = result.record
    assert record.removed_blocks
    assert record.removed_channels
    assert 0.99 * TARGET.macs <= record.after.macs / record.before.macs <= TARGET.macs
    assert record.after.macs == result.plan.macs == result.structure.macs()
    assert record.after.macs == count_macs(result.model, DATA.example_inputs(1))
    assert record.after.parameters == result.plan.parameters
    assert record.verification_error <= 1e-5  # 0.0 where adding zeros rounds nothing


def test_the_record_tells_the_whole_story(result: Result) -> None:
    record = result.record
    assert [point.phase for point in record.path] == ["dense", "depth", "depth", "width", "width", "finetune"]
    assert [point.index for point in record.path] == list(range(6))
    assert record.path[-1].epochs == pytest.approx(5.5)
    assert record.path[-1].removed_channels == record.removed_channels
    assert (record.model, record.data, record.score_name) == ("small", DATA.name, "accuracy")
    assert record.settings["path_epochs"] == 2
    assert set(record.seconds) == {"dense", "path", "finetune"}
    assert set(record.versions) == {"amsc", "torch", "python"}
    assert record.blocks_before == 4
    assert record.score_before > 0.15
    assert from_json(Record, to_json(record)) == record


def test_the_run_folder_holds_all_of_it(result: Result, folder: Path) -> None:
    assert from_json(Record, (folder / "record.json").read_text()) == result.record
    lines = (folder / "path.jsonl").read_text().splitlines()
    assert [json.loads(line)["phase"] for line in lines] == [point.phase for point in result.record.path]
    saved = load(folder / "model", small_net).eval()
    inputs = DATA.example_inputs(4)
    assert torch.equal(saved(inputs), result.model.eval()(inputs))
    for point in result.record.path:
        assert point.weights is None or (folder / "points" / point.weights).is_file()
    assert result.record.path[0].weights == "000.safetensors"
    assert 'target = "macs=0.6"' in (folder / "settings.toml").read_text()


def test_the_plan_leads_from_the_dense_network_to_the_result(result: Result) -> None:
    assert plan_of(result.model) == result.plan
    assert result.plan.channels == result.record.removed_channels
    assert result.plan.blocks == result.record.removed_blocks


def test_the_report_is_written(result: Result, tmp_path: Path) -> None:
    result.report(tmp_path / "report.html")
    assert "small" in (tmp_path / "report.html").read_text(encoding="utf-8")
    with pytest.raises(RunFolderError, match="cannot write"):
        result.report(tmp_path / "no" / "such" / "folder.html")


def test_the_users_model_and_random_numbers_are_left_as_they_were() -> None:
    model = small_net().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _run(model=model)
    assert torch.equal(torch.rand(3), expected)
    assert same_tensors(before, model.state_dict())
    assert model.training


def test_two_runs_agree_and_another_seed_does_not(result: Result) -> None:
    again = _run()
    plain, other = _essence(again.record), _essence(result.record)
    for point in other["path"]:
        point["weights"] = None  # nothing is written without a folder
    assert plain == other
    assert same_tensors(again.model.state_dict(), result.model.state_dict())
    different = _run(settings=dataclasses.replace(SETTINGS, seed=1))
    assert [p.train_loss for p in different.record.path] != [p.train_loss for p in result.record.path]


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(result: Result, tmp_path: Path, call: int) -> None:
    with pytest.raises(Stopped):
        _run(tmp_path / "run", progress=StopAt(call))
    # a second stop, right after going on
    with pytest.raises(Stopped):
        _run(tmp_path / "run", resume=True, progress=StopAt(1))
    resumed = _run(tmp_path / "run", resume=True)
    assert _essence(resumed.record) == _essence(result.record)
    assert same_tensors(resumed.model.state_dict(), result.model.state_dict())


def test_a_stopped_run_does_not_repeat_what_was_saved(tmp_path: Path) -> None:
    whole = StopAt(0)
    _run(tmp_path / "whole", progress=whole)
    with pytest.raises(Stopped):
        _run(tmp_path / "run", progress=StopAt(6))
    rest = StopAt(0)
    _run(tmp_path / "run", resume=True, progress=rest)
    assert rest.calls == whole.calls - 5


@pytest.mark.parametrize("resume", [True])
def test_a_finished_run_gives_its_result_again_without_work(result: Result, folder: Path, resume: bool) -> None:
    again = _run(folder, resume=resume, progress=StopAt(1))
    assert again.record == result.record
    assert again.plan == result.plan
    assert same_tensors(again.model.state_dict(), result.model.state_dict())


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)
import test_compress
test_compress._run(Path(sys.argv[1]), resume=len(sys.argv) > 3)
"""


def test_sigkill_at_three_moments_and_resume_give_the_same_record(result: Result, tmp_path: Path) -> None:
    out, tests = tmp_path / "run", str(Path(__file__).parent)
    seen: Callable[[], bool]
    for number, seen in enumerate(
        (
            (out / "state" / "state.pt").is_file,
            (out / "points" / "001.safetensors").is_file,
            lambda: len((out / "path.jsonl").read_text().splitlines()) >= 4,
        )
    ):
        words = [sys.executable, "-c", SCRIPT, str(out), tests, *(["resume"] if number else [])]
        process = subprocess.Popen(words)
        deadline = time.monotonic() + 120
        while not _holds(seen) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    resumed = _run(out, resume=True)
    assert _essence(resumed.record) == _essence(result.record)
    assert same_tensors(resumed.model.state_dict(), result.model.state_dict())


def _holds(seen: Callable[[], bool]) -> bool:
    try:
        return seen()
    except OSError:
        return False


def test_a_full_disk_in_the_middle_loses_nothing(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, replace = [0], os.replace

    def full(*args: Any, **options: Any) -> None:
        writes[0] += 1
        if writes[0] > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", full)
        with pytest.raises(RunFolderError, match="No space left"):
            _run(tmp_path / "run")
    assert writes[0] == 13, "the run stops at the first failure"
    load_state(tmp_path / "run" / "state" / "state.pt")
    assert _essence(_run(tmp_path / "run", resume=True).record) == _essence(result.record)


def _no_training(*_: Any, **__: Any) -> None:
    raise AssertionError("trained before refusing")


def _refused(monkeypatch: pytest.MonkeyPatch, error: type[AmscError], words: str, *args: Any, **options: Any) -> None:
    monkeypatch.setattr(import_module("amsc.job"), "finetune", _no_training)
    with pytest.raises(error, match=words):
        _run(*args, **options)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    _refused(monkeypatch, RunFolderError, "already holds notes.txt", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    _refused(monkeypatch, RunFolderError, "is a file", tmp_path / "notes.txt")


def test_a_folder_that_holds_only_its_settings_is_new(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("# mine\n")
    _run(tmp_path, settings=Settings(path_epochs=0, finetune_epochs=0))
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
    broken = tmp_path / "broken"
    (broken / "state").mkdir(parents=True)
    (broken / "state" / "state.pt").write_bytes(b"half a file")
    refused(RunFolderError, "damaged", broken)


def test_an_unreachable_target_names_the_lowest_one_which_works(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(import_module("amsc.job"), "finetune", _no_training)
        with pytest.raises(TargetError) as caught:
            _run(target=Target(macs=0.01))
    lowest = float(str(caught.value).partition("target is macs=")[2].partition("%")[0]) / 100
    quick = Settings(path_epochs=0, finetune_epochs=0, depth_share=0.0)
    assert _run(target=Target(macs=lowest), settings=quick).record.after.macs
    with pytest.raises(TargetError):
        _run(target=Target(macs=lowest - 0.001), settings=quick)


def test_what_is_kept_stays_and_the_rest_is_left_in_multiples(tmp_path: Path) -> None:
    limits = {"keep": ("layer3", "layer1.0.conv1"), "round_to": 4, "min_channels": 5, "depth_share": 0.0}
    settings = dataclasses.replace(SETTINGS, **limits, dense_epochs=0.0, path_epochs=1.0, finetune_epochs=0.0)
    record = _run(tmp_path / "run", settings=settings, target=Target(macs=0.75)).record
    assert record.after.macs <= 0.75 * record.before.macs
    assert record.removed_channels
    for name, gone in record.removed_channels.items():
        left = amsc.trace(small_net(), DATA.example_inputs(1)).group(name).size - len(gone)
        assert left in (8, 12, 16, 20, 24, 28)
    touched = (*record.removed_blocks, *record.removed_channels)
    assert not [name for name in touched if name.startswith("layer3") or name in ("layer1.0", "layer1.0.conv1")]
    assert from_json(Record, to_json(record)) == record
    again = _run(tmp_path / "run", settings=settings, target=Target(macs=0.75), resume=True)
    assert again.record == record


def test_groups_can_have_minima_of_their_own() -> None:
    settings = dataclasses.replace(SETTINGS, minimum=("layer3.*=27", "layer1.0.conv1=7"), depth_share=0.0)
    structure = amsc.trace(small_net(), DATA.example_inputs(1))
    for method in ("proximal", "gates"):
        record = _run(settings=dataclasses.replace(settings, method=method, path_epochs=1.0)).record
        left = {name: structure.group(name).size - len(gone) for name, gone in record.removed_channels.items()}
        assert all(number >= 27 for name, number in left.items() if name.startswith("layer3"))
        assert left.get("layer1.0.conv1", 8) >= 7
        assert min(left.values()) < 7, "the others have none"


def test_limits_that_leave_too_little_are_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: Callable[..., None] = lambda *args, macs=0.2, **limits: _refused(  # noqa: E731
        monkeypatch, *args, target=Target(macs=macs), settings=dataclasses.replace(SETTINGS, **limits)
    )
    refused(TargetError, r"all that only=\['layer3.1'\] let go gone", only=("layer3.1",))
    refused(TargetError, r"nothing .* can be removed with keep=\['\*'\]", keep=("*",))
    refused(TargetError, "all that round_to=32 let go gone", round_to=32, keep=())
    refused(TargetError, r"all that minimum=\['layer\*=8'\] let go gone", minimum=("layer*=8",), macs=0.05)
    refused(SettingsError, "the nearest name is 'layer3'", keep=("layr3",))
    refused(SettingsError, "the nearest name is 'layer3'", minimum=("layr3=4",))
    refused(SettingsError, "expected NAME=N", minimum=("layer3=0",))
    refused(SettingsError, "the nearest name is 'layer3'", minimum=("layr3=4",), macs=0.9)


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


class LeNet(nn.Module):
    """Convolutions into a linear layer through a reshape, to a written size if `size` is given."""

    def __init__(self, size: int | None) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 16, 3, padding=1)
        self.pool, self.hidden, self.head = nn.MaxPool2d(2), nn.Linear(256, 24), nn.Linear(24, 10)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.second(self.first(x).relu()).relu())
        return self.head(self.hidden(x.view(-1, self.size) if self.size else x.view(x.size(0), -1)).relu())


@pytest.mark.parametrize("size", [None, 256])
def test_a_network_with_a_reshape_is_compressed(size: int | None) -> None:
    result = _run(model=LeNet(size), target=Target(macs=0.7))
    # One channel of the first layer is 8 % of this network: the budget cannot be met more closely.
    assert 0.6 < result.record.after.macs / result.record.before.macs <= 0.7
    assert ("second" in result.record.removed_channels) <= (size is None)


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
        ({"target": Target(drop=2)}, TargetError, "for so many points write drop=2%"),
        ({"task": Regression()}, DataError, "float targets"),
        ({"data": dataclasses.replace(LOADED, num_classes=1)}, DataError, "a single class"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(options: dict[str, Any], error: type[AmscError], words: str) -> None:
    arguments = {"data": DATA, "target": TARGET, **options}
    with pytest.raises(error, match=words):
        compress(small_net(), DATA.example_inputs(1), **arguments)


def test_recovery_options_change_the_end_alone_and_survive_a_stop(result: Result, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, distillation=0.5, ema=0.9)
    with pytest.raises(Stopped):
        _run(tmp_path / "run", settings=settings, progress=_StopIn("finetune", 2))
    done = _run(tmp_path / "run", settings=settings, resume=True)
    assert _essence(done.record) == _essence(_run(tmp_path / "whole", settings=settings).record)
    assert done.record.path[:-1] == result.record.path[:-1]
    assert not same_tensors(done.model.state_dict(), result.model.state_dict())


def test_smoothing_is_that_of_the_task_in_all_training(result: Result) -> None:
    smooth = _run(settings=dataclasses.replace(SETTINGS, label_smoothing=0.3)).record
    asked = _run(task=Classification(label_smoothing=0.3)).record
    losses = [[point.train_loss for point in record.path] for record in (smooth, asked, result.record)]
    assert losses[0] == losses[1]
    assert all(one != other for one, other in zip(losses[0], losses[2], strict=False))


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
        _run(tmp_path / "run", settings=settings)
    assert load_state(tmp_path / "run" / "state" / "state.pt")["stage"] == "path"
