"""Exported files give the model's outputs in other programs, or there is no file."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc import cut, export_onnx, export_pt2, plan_cut, trace
from amsc.errors import InputError, ModelError, RunFolderError, SettingsError, VerificationError
from amsc.export import Exported
from amsc.models import open_model
from without_double import OnMPS

Export = Callable[..., Exported]
PARITY = import_module("amsc.export.parity")


EXTRA = ("onnx", "onnxruntime", "onnxscript")
MISSING = [name for name in EXTRA if find_spec(name) is None]
with_onnx = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
both = pytest.mark.parametrize(
    ("export", "suffix"),
    [pytest.param(export_pt2, "pt2", id="pt2"), pytest.param(export_onnx, "onnx", id="onnx", marks=with_onnx)],
)


def _small() -> tuple[nn.Module, Tensor]:
    model, inputs = open_model("digits_resnet").eval(), torch.randn(1, 1, 8, 8)
    plan = plan_cut(trace(model, inputs), channels={"layer1.0.conv1": [0, 1, 2]}, blocks=["layer2.1"])
    return cut(model, plan, inputs), inputs


class Named(nn.Module):
    """Two keyword arguments, whole numbers and a mask; a dictionary of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(11, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        hidden = self.table(ids) * mask.unsqueeze(-1)
        return {"hidden": hidden, "logits": self.head(hidden.mean(1))}


class OneBatch(nn.Module):
    """Works for one example at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(1, 4))


class Unfollowable(nn.Module):
    """A number of the data decides what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if float(x.sum()) > 0 else x


@both
def test_a_cut_network_takes_any_batch_in_one_file(export: Export, suffix: str, tmp_path: Path) -> None:
    model, inputs = _small()
    model.train()
    path = tmp_path / "out" / f"small.{suffix}"
    written = export(model, inputs, path)
    assert (written.format, written.dynamic_batch, written.path) == (suffix, True, str(path))
    assert written.error <= 1e-4
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert written.bytes == path.stat().st_size < 2_000_000
    assert model.training


def test_the_program_runs_without_the_model(tmp_path: Path) -> None:
    model, inputs = _small()
    export_pt2(model, inputs, tmp_path / "small.pt2")
    loaded = torch.export.load(tmp_path / "small.pt2").module()
    batch = torch.randn(7, 1, 8, 8)
    torch.testing.assert_close(loaded(batch), model(batch))


@with_onnx
def test_onnxruntime_gives_the_outputs(tmp_path: Path) -> None:
    import onnxruntime

    model, inputs = _small()
    export_onnx(model, inputs, tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    assert entry.shape[1:] == [1, 8, 8]
    assert entry.shape[0] == "batch"
    batch = torch.randn(7, 1, 8, 8)
    (output,) = session.run(None, {entry.name: batch.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), model(batch).detach(), rtol=1e-3, atol=1e-4)


@both
def test_keyword_arguments_and_several_outputs(export: Export, suffix: str, tmp_path: Path) -> None:
    inputs = {"ids": torch.randint(0, 11, (1, 5)), "mask": torch.ones(1, 5)}
    assert export(Named().eval(), inputs, tmp_path / f"named.{suffix}").error <= 1e-4


@both
def test_other_axes_may_be_free_as_well(export: Export, suffix: str, tmp_path: Path) -> None:
    images = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    written = export(images, torch.randn(1, 1, 12, 8), tmp_path / f"images.{suffix}", dynamic_axes=(3, 2))
    assert (written.dynamic_axes, written.error <= 1e-4) == ((2, 3), True)
    texts = {"ids": torch.randint(0, 11, (1, 6)), "mask": torch.ones(1, 6)}
    assert export(Named().eval(), texts, tmp_path / f"texts.{suffix}", dynamic_axes=(1,)).error <= 1e-4


@with_onnx
def test_an_onnx_file_names_its_free_axes(tmp_path: Path) -> None:
    import onnxruntime

    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()).eval()
    export_onnx(model, torch.randn(1, 1, 12, 8), tmp_path / "any.onnx", dynamic_batch=False, dynamic_axes=(2,))
    session = onnxruntime.InferenceSession(str(tmp_path / "any.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 1, "axis2", 8]
    (output,) = session.run(None, {session.get_inputs()[0].name: torch.randn(1, 1, 31, 8).numpy()})
    assert output.shape == (1, 4, 31, 8)


@both
def test_axes_that_the_network_does_not_leave_free_are_refused(export: Export, suffix: str, tmp_path: Path) -> None:
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval(), torch.randn(1, 1, 8, 8)
    for axes, error, words in (
        ((2,), (InputError, ModelError), "takes no other size along axes|cannot follow"),
        ((4,), InputError, "has no axis 4: it has 0 .the batch. to 3"),
        ((0,), SettingsError, "numbers of axes from 1"),
        ("23", SettingsError, "numbers of axes from 1"),
    ):
        with pytest.raises(error, match=words):
            export(model, images, tmp_path / f"no.{suffix}", dynamic_axes=axes)
    assert list(tmp_path.iterdir()) == []


@both
def test_a_forward_for_one_batch_size_needs_a_fixed_batch(export: Export, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"one.{suffix}"
    with pytest.raises(InputError, match="--fixed-batch"):
        export(OneBatch(), torch.randn(1, 4), path)
    assert list(tmp_path.iterdir()) == []
    assert not export(OneBatch(), torch.randn(1, 4), path, dynamic_batch=False).dynamic_batch
    assert path.is_file()


def test_a_forward_that_depends_on_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot follow Unfollowable"):
        export_pt2(Unfollowable(), torch.ones(1, 4), tmp_path / "no.pt2")
    assert list(tmp_path.iterdir()) == []


@with_onnx
def test_where_one_exporter_fails_the_other_is_tried_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no rule")

    monkeypatch.setattr(import_module("amsc.export.onnx"), "exported_program", fails)
    model, inputs = _small()
    assert export_onnx(model, inputs, tmp_path / "small.onnx").error <= 1e-4
    # traced with a positive sum: its other branch is missing, which the comparison finds
    with pytest.raises(VerificationError):
        export_onnx(Unfollowable(), torch.ones(1, 4), tmp_path / "wrong.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]


@both
def test_a_file_that_differs_is_not_written_and_the_old_one_stays(
    export: Export, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"small.{suffix}"
    path.write_bytes(b"old")
    model, inputs = _small()
    monkeypatch.setattr(PARITY, "output_tensors", lambda output: [output + 1])
    with pytest.raises(VerificationError, match=r"differs from the model by .* Nothing was written"):
        export(model, inputs, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("missing", EXTRA)
def test_a_missing_extra_says_how_to_install_it(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXTRA:
        monkeypatch.setitem(sys.modules, name, None if name == missing else sys)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=rf"{missing}: pip install 'amsc\[onnx\]'"):
        export_onnx(*_small(), tmp_path / "small.onnx")
    assert list(tmp_path.iterdir()) == []


@with_onnx
def test_weights_that_do_not_fit_into_one_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("amsc.export.onnx"), "MOST_BYTES", 1000)
    with pytest.raises(ModelError, match="2 GiB of one ONNX file"):
        export_onnx(*_small(), tmp_path / "small.onnx")


@both
def test_wrong_places_are_refused(export: Export, suffix: str, tmp_path: Path) -> None:
    model, inputs = _small()
    with pytest.raises(SettingsError, match=rf"named \.{suffix}, got"):
        export(model, inputs, tmp_path / "small.bin")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write"):
        export(model, inputs, tmp_path / "file" / f"small.{suffix}")
    with pytest.raises(InputError, match="must be the batch"):
        export(model, torch.tensor(1.0), tmp_path / f"small.{suffix}")


class Optional(nn.Module):
    """Texts, numbers and nothing beside the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(
        self, x: Tensor, mode: str = "once", mask: Tensor | None = None, by: dict[str, Any] | None = None
    ) -> Any:
        y = self.layer(x) * (2 if mode == "twice" else 1)
        return y if mask is None else y * mask


@both
@pytest.mark.parametrize(
    "options", [{"mode": "twice"}, {"mask": None, "mode": "twice"}, {"by": {"step": 3, "name": "a", "none": None}}]
)
def test_inputs_that_are_no_tensors_are_kept(
    export: Export, suffix: str, tmp_path: Path, options: dict[str, Any]
) -> None:
    assert export(Optional().eval(), {"x": torch.randn(2, 4), **options}, tmp_path / f"m.{suffix}").error <= 1e-4


@both
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_exported_or_refused(export: Export, suffix: str, tmp_path: Path, kind: torch.dtype) -> None:
    model, inputs = _small()
    path = tmp_path / f"small.{suffix}"
    if suffix == "onnx" and kind == torch.bfloat16:
        with pytest.raises(ModelError, match=r"bfloat16 cannot be exported to ONNX.*model\.half\(\)"):
            export(model.to(kind), inputs.to(kind), path)
        assert not path.exists()
    else:
        assert export(model.to(kind), inputs.to(kind), path).error <= 2e-2


class Inexpressible(nn.Module):
    """Uses what no exporter to ONNX has, after much else."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(8)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(self.layers(x))


@with_onnx
def test_a_failed_export_tells_its_cause_in_a_line_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="bessel_j0") as told:
        export_onnx(Inexpressible().eval(), torch.randn(1, 4), tmp_path / "no.onnx")
    assert len(str(told.value)) < 2000
    assert "\n" not in str(told.value)
    assert told.value.__cause__ is not None
    assert len(str(told.value.__cause__)) > len(str(told.value))
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ModelError, match="cannot follow Unfollowable") as followed:
        export_pt2(Unfollowable(), torch.ones(1, 4), tmp_path / "no.pt2")
    assert len(str(followed.value)) < 2000
    assert capfd.readouterr() == ("", "")


@with_onnx
def test_a_file_that_onnxruntime_does_not_open_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_a_file(model: nn.Module, inputs: Any, path: Path, *how: Any) -> None:
        path.write_bytes(b"half a file")

    monkeypatch.setattr(import_module("amsc.export.onnx"), "_write", half_a_file)
    with pytest.raises(ModelError, match="cannot be run by onnxruntime"):
        export_onnx(*_small(), tmp_path / "small.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_cannot_be_read_again_is_refused(tmp_path: Path) -> None:
    class Told(Optional):
        def forward(self, x: Tensor, **_: Any) -> Any:
            return {"y": self.layer(x), "mode": "text"}

    with pytest.raises(ModelError, match=r"cannot write it to a file and read it again.*tensors alone"):
        export_pt2(Told().eval(), torch.randn(2, 4), tmp_path / "told.pt2")
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_compared_where_the_device_has_no_float64() -> None:
    expected = torch.tensor([1.0, -4.0])
    assert PARITY._relative(expected.as_subclass(OnMPS), expected + 1) == 0.25
    assert PARITY._relative(expected + 0j, expected + 2j) == 0.5
