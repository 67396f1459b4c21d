"""Weights load from any usual file, and what does not fit is named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from amsc.errors import ModelError
from amsc.models import load_weights


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def trained() -> dict[str, Tensor]:
    return {name: torch.rand(t.shape) for name, t in small().state_dict().items() if "num_batches" not in name}


def assert_holds(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_torch_files(tmp_path: Path, prefix: str, wrapped: bool) -> None:
    tensors = trained()
    prefixed = {prefix + name: tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": prefixed, "best_prec1": 91.8} if wrapped else prefixed, tmp_path / "w.th")
    model = small()
    load_weights(model, tmp_path / "w.th")
    assert_holds(model, tensors)


def test_safetensors(tmp_path: Path) -> None:
    tensors = trained()
    save_file(tensors, tmp_path / "w.safetensors")
    model = small()
    load_weights(model, tmp_path / "w.safetensors")
    assert_holds(model, tensors)


def refusal(tmp_path: Path, content: object) -> str:
    torch.save(content, tmp_path / "w.pt")
    model = small()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(ModelError) as error:
        load_weights(model, tmp_path / "w.pt")
    assert_holds(model, before)
    return str(error.value)


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    tensors = trained()
    del tensors["0.bias"]
    assert "missing in the file: 0.bias" in refusal(tmp_path, tensors)


def test_unexpected_tensors_are_named_the_first_few(tmp_path: Path) -> None:
    message = refusal(tmp_path, trained() | {f"extra{i}": torch.zeros(1) for i in range(9)})
    assert "not in the model: extra0, extra1, extra2, extra3, extra4 and 4 more" in message


def test_wrong_shape_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, trained() | {"0.weight": torch.zeros(5, 1, 3, 3)})
    assert "0.weight is (5, 1, 3, 3) in the file and (2, 1, 3, 3) in the model" in message


def test_not_finite_is_named(tmp_path: Path) -> None:
    assert "not finite: 1.bias" in refusal(tmp_path, trained() | {"1.bias": torch.tensor([1.0, torch.nan])})


@pytest.mark.parametrize("content", [3, [], {}, {"epoch": 3}, {"state_dict": "gone"}])
def test_no_state_dict(tmp_path: Path, content: object) -> None:
    assert "expected a state dict" in refusal(tmp_path, content)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    assert "weights_only" in refusal(tmp_path, small())


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04broken"])
def test_corrupt_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="cannot read"):
        load_weights(small(), tmp_path / name)


def test_cut_off_file(tmp_path: Path) -> None:
    torch.save(trained(), tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot read"):
        load_weights(small(), tmp_path / "w.pt")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not there"):
        load_weights(small(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="a folder"):
        load_weights(small(), tmp_path)
