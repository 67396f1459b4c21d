import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import amsc.errors
from amsc.borrowing import Calls, InputSpec
from amsc.errors import ModelError, RunFolderError
from amsc.surgery import AxisCut, apply_plan, cut, load, plan_cut, plan_of, save
from surgery.nets import SmallNet, images, randomized, small_structure


def small_net() -> nn.Module:
    plan = plan_cut(small_structure(), channels={"stream": [0, 5], "last": [2]}, blocks=["body.0"])
    return cut(randomized(SmallNet()), plan).eval()


def assert_same(loaded: nn.Module, saved: nn.Module) -> None:
    assert loaded.state_dict().keys() == saved.state_dict().keys()
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    small = small_net()
    save(small, tmp_path / "runs" / "model")
    loaded = load(tmp_path / "runs" / "model", SmallNet).eval()
    assert_same(loaded, small)
    assert torch.equal(loaded(images()), small(images()))
    assert plan_of(loaded) == plan_of(small)
    assert files(tmp_path) == ["runs", "runs/model", "runs/model/config.json", "runs/model/model.safetensors"]


def test_loads_in_a_fresh_process_from_the_constructor_alone(tmp_path: Path) -> None:
    code = """
import sys, torch
from torch import nn
from amsc.surgery import load
build = lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 2))
model = load(sys.argv[1], build).eval()
assert "pickle" not in str(model.amsc_plan)
print(model[0].out_channels, repr(float(model(torch.ones(1, 3, 6, 6)).detach().double().sum())))
"""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 2))
    cuts = [AxisCut(f"0.{name}", 0, 8, (1, 6), True) for name in ("weight", "bias")]
    cuts += [AxisCut(f"1.{name}", 0, 8, (1, 6), True) for name in ("weight", "bias")]
    cuts += [AxisCut(f"1.running_{name}", 0, 8, (1, 6), False) for name in ("mean", "var")]
    cuts += [AxisCut("4.weight", 1, 128, (*range(16, 32), *range(96, 112)), False)]
    empty = replace(plan_cut(small_structure()), inputs=InputSpec.of(torch.ones(1, 3, 6, 6)))
    small = cut(randomized(net), replace(empty, cuts=tuple(cuts))).eval()
    save(small, tmp_path / "model")
    source = Path(amsc.errors.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    width, total = done.stdout.split()
    assert int(width) == 6
    assert float(total) == float(small(torch.ones(1, 3, 6, 6)).detach().double().sum())


def test_dense_model_saves_without_a_plan(tmp_path: Path) -> None:
    net = randomized(SmallNet())
    save(net, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["plan"] is None
    loaded = load(tmp_path, SmallNet)
    assert_same(loaded, net)
    assert plan_of(loaded) is None


def test_saving_again_replaces_the_model(tmp_path: Path) -> None:
    save(randomized(SmallNet()), tmp_path / "model")
    small = small_net()
    save(small, tmp_path / "model")
    assert_same(load(tmp_path / "model", SmallNet), small)
    assert files(tmp_path) == ["model", "model/config.json", "model/model.safetensors"]


def test_dtype_and_flags_come_back(tmp_path: Path) -> None:
    small = small_net().to(torch.bfloat16)
    save(small, tmp_path)

    def frozen() -> nn.Module:
        net = SmallNet().train()
        net.conv1.weight.requires_grad_(False)
        return net

    loaded = load(tmp_path, frozen)
    assert loaded.get_parameter("conv1.weight").dtype == torch.bfloat16
    assert loaded.get_buffer("bn1.num_batches_tracked").dtype == torch.int64
    assert not loaded.get_parameter("conv1.weight").requires_grad
    assert loaded.get_parameter("fc.weight").requires_grad
    assert not any(module.training for module in loaded.modules())
    assert_same(loaded, small)


class Tied(nn.Module):
    """Two layers with one weight, and a buffer that is not in the state dict."""

    def __init__(self, tie: bool = True) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)
        if tie:
            self.b.weight = self.a.weight
        self.register_buffer("ramp", torch.arange(6.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c((self.a(x) + self.b(x)) * self.ramp)


def cut_tied() -> nn.Module:
    cuts = [AxisCut(name, 0, 6, (1, 4), name != "ramp") for name in ("a.weight", "a.bias", "b.bias", "ramp")]
    inputs = InputSpec.of(torch.zeros(3, 4))
    plan = replace(plan_cut(small_structure()), inputs=inputs, cuts=(*cuts, AxisCut("c.weight", 1, 6, (1, 4), False)))
    return cut(Tied(), plan)


def test_tied_tensors_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    small = cut_tied()
    save(small, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["tied"] == {"b.weight": "a.weight"}
    assert "b.weight" not in config["tensors"]
    loaded: Any = load(tmp_path, Tied)
    assert loaded.a.weight is loaded.b.weight
    assert_same(loaded, small)
    assert loaded.ramp.tolist() == [0, 2, 3, 5]
    x = torch.randn(3, 4)
    assert torch.equal(loaded(x), small(x))


def test_network_tied_in_another_way_is_refused(tmp_path: Path) -> None:
    net = Tied()
    save(net, tmp_path / "tied")
    with pytest.raises(ModelError, match=r"'b\.weight' is only in the built one"):
        load(tmp_path / "tied", lambda: Tied(tie=False))
    save(Tied(tie=False), tmp_path / "untied")
    with pytest.raises(ModelError, match=r"'b\.weight' is only in the saved one"):
        load(tmp_path / "untied", Tied)


def test_shared_memory_and_strides_are_saved(tmp_path: Path) -> None:
    net = nn.Linear(4, 4)
    net.register_buffer("row", net.weight.detach()[1])
    net.register_buffer("transposed", net.weight.detach().t())

    def build() -> nn.Module:
        other = nn.Linear(4, 4)
        other.register_buffer("row", torch.zeros(4))
        other.register_buffer("transposed", torch.zeros(4, 4))
        return other

    save(net, tmp_path)
    assert_same(load(tmp_path, build), net)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.Linear(3, 4), r"another network.*'bn1\.bias'"),
        (lambda: nn.Sequential(SmallNet()), r"another network.*'bn1\.bias'"),
        (lambda: "resnet", "must return the dense torch.nn.Module, not str"),
        (SmallNet(), r"expected a function that builds .* lambda: SmallNet\(\.\.\.\); got a network"),
        ("SmallNet", "expected a function that builds .* got str"),
        (None, r"is missing: write amsc\.load\(.*lambda: MyNetwork\(\.\.\.\)\); the README.md"),
        (lambda classes: SmallNet(), "build.. failed: TypeError: .*a function without arguments"),
        (lambda: nn.Sequential(SmallNet()), r"no parameter or buffer .* as it was before it was cut$"),
    ],
)
def test_another_network_is_refused_by_name(tmp_path: Path, build: Any, words: str) -> None:
    save(small_net(), tmp_path)
    with pytest.raises(ModelError, match=words):
        load(tmp_path, build)


def test_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    def wide() -> nn.Module:
        net = SmallNet()
        net.fc = nn.Linear(5, 7)
        return net

    save(small_net(), tmp_path)
    with pytest.raises(ModelError, match=r"'fc\.bias' has shape \(7,\) after the cut, the saved one has \(4,\)"):
        load(tmp_path, wide)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "config.json").unlink(), r"no config\.json"),
        (lambda f: (f / "model.safetensors").unlink(), r"no model\.safetensors"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), "not written by amsc"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "not written by amsc"),
        (lambda f: edit(f, format_version=99), "format version 99, this amsc reads 1 and 2"),
        (lambda f: edit(f, plan={"cuts": []}), "damaged"),
        (lambda f: edit(f, plan=[1]), "damaged"),
        (lambda f: edit(f, tensors={}), "does not belong to the config.json"),
        (lambda f: (f / "model.safetensors").write_bytes(b"nonsense"), "damaged"),
        (lambda f: shorten(f / "model.safetensors"), "damaged"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, spoil: Any, words: str) -> None:
    save(small_net(), tmp_path)
    spoil(tmp_path)
    with pytest.raises(RunFolderError, match=words):
        load(tmp_path, SmallNet)


def test_what_the_first_version_wrote_can_be_read(tmp_path: Path) -> None:
    """The inputs of a plan were one call then, and had no field for more."""
    small = small_net()
    save(small, tmp_path)
    plan = json.loads((tmp_path / "config.json").read_text())["plan"]
    assert plan["inputs"].pop("more") == []
    edit(tmp_path, format_version=1, plan=plan)
    assert plan_of(load(tmp_path, SmallNet)) == plan_of(small)


def test_the_plan_that_is_saved_holds_every_call(tmp_path: Path) -> None:
    calls = InputSpec.of(Calls(images(), (images(),)))
    plan = replace(plan_cut(small_structure(), channels={"last": [2]}), inputs=calls)
    save(cut(randomized(SmallNet()), plan), tmp_path)
    loaded = plan_of(load(tmp_path, SmallNet))
    assert loaded is not None
    assert loaded.inputs == calls


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def test_a_run_folder_says_where_its_model_is(tmp_path: Path) -> None:
    save(small_net(), tmp_path / "run" / "model")
    with pytest.raises(RunFolderError, match=r"no config.json in it; the run in it has one: .*run.model$"):
        load(tmp_path / "run", SmallNet)


def test_arguments_of_save_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"write save\(model, folder\)"):
        save("model", SmallNet())  # type: ignore[arg-type]
    with pytest.raises(RunFolderError, match="got a network"):
        load(SmallNet(), SmallNet)  # type: ignore[arg-type]


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no saved model"):
        load(tmp_path / "nowhere", SmallNet)


def test_foreign_folders_are_never_overwritten(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(RunFolderError, match=r"notes\.txt"):
        save(SmallNet(), tmp_path)
    with pytest.raises(RunFolderError, match="is a file"):
        save(SmallNet(), notes)
    foreign = tmp_path / "hub"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "bert"}')
    (foreign / "model.safetensors").write_bytes(b"theirs")
    with pytest.raises(RunFolderError, match="not written by amsc"):
        save(SmallNet(), foreign)
    assert notes.read_text() == "mine"
    assert (foreign / "model.safetensors").read_bytes() == b"theirs"


def test_full_disk_leaves_the_old_model_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = randomized(SmallNet())
    save(old, tmp_path / "model")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for place in ("amsc.tensor_files.save_file", "pathlib.Path.write_text"):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            with pytest.raises(RunFolderError, match="No space left on device"):
                save(small_net(), tmp_path / "model")
        assert files(tmp_path) == ["model", "model/config.json", "model/model.safetensors"]
        assert_same(load(tmp_path / "model", SmallNet), old)


def test_failing_rename_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = randomized(SmallNet())
    save(old, tmp_path / "model")
    replace_folder = os.replace

    def refuse_new(source: Any, target: Any) -> None:
        if str(source).endswith(".tmp"):
            raise PermissionError(errno.EACCES, "Permission denied")
        replace_folder(source, target)

    monkeypatch.setattr(os, "replace", refuse_new)
    with pytest.raises(RunFolderError, match="Permission denied"):
        save(small_net(), tmp_path / "model")
    assert_same(load(tmp_path / "model", SmallNet), old)
    assert files(tmp_path) == ["model", "model/config.json", "model/model.safetensors"]


def test_folder_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="could not be written"):
        save(SmallNet(), tmp_path / "file" / "model")


def test_state_that_needs_pickle_is_refused(tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"set": {1}}

        def set_extra_state(self, state: Any) -> None:
            raise AssertionError("never loaded")

    with pytest.raises(ModelError, match=r"_extra_state.*without pickle"):
        save(Extra(2, 2), tmp_path / "model")
    with pytest.raises(ModelError, match="got dict"):
        save({}, tmp_path / "model")  # type: ignore[arg-type]
    assert files(tmp_path) == []


def test_plan_with_strange_inputs_is_refused_in_words(tmp_path: Path) -> None:
    plan = plan_cut(small_structure(), channels={"last": [0]})
    leaf = replace(plan.inputs.leaves[0], dtype="", constant={1, 2})
    small = apply_plan(SmallNet(), replace(plan, inputs=replace(plan.inputs, leaves=(leaf,))))
    with pytest.raises(ModelError, match="cannot be written as JSON"):
        save(small, tmp_path / "model")
