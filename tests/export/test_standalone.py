"""A network as one file of Python: it gives the same outputs where there is no amsc, or is not written."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from amsc import cut, plan_cut, trace
from amsc.cli import main
from amsc.errors import ModelError
from amsc.export import export_standalone
from amsc.models import open_model

ELSEWHERE = """
import sys
import torch
sys.modules["amsc"] = None
from model import load
torch.save(load()(*torch.load("inputs.pt")), "outputs.pt")
"""


def elsewhere(folder: Path, inputs: tuple[Tensor, ...]) -> Any:
    """What the file gives in a process without amsc."""
    torch.save(inputs, folder / "inputs.pt")
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=folder, check=True, env={"OMP_NUM_THREADS": "1"})
    return torch.load(folder / "outputs.pt")


class Attention(nn.Module):
    """A position table, a buffer, heads by reshaping, a tied head, an optional argument."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.position = nn.Parameter(torch.randn(5, 8))
        self.register_buffer("scale", torch.tensor(0.5))
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor, factor: float = 2.0) -> Tensor:
        x = self.table(ids) + self.position * self.scale
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(x + self.out(mixed) * factor)


def test_a_cut_network_runs_without_amsc(tmp_path: Path) -> None:
    model, inputs = open_model("digits_resnet").eval(), torch.randn(3, 1, 8, 8)
    plan = plan_cut(trace(model, inputs), channels={"layer1.0.conv1": [0, 1, 2]}, blocks=["layer2.1"])
    small = cut(model, plan).train()
    written = export_standalone(small, inputs, tmp_path / "small")
    assert small.training
    assert (written.format, written.error) == ("standalone", 0.0)
    files = sorted((tmp_path / "small").iterdir())
    assert [file.name for file in files] == ["model.py", "model.safetensors"]
    assert written.bytes == sum(file.stat().st_size for file in files)
    assert files[0].stat().st_mode == files[1].stat().st_mode
    torch.testing.assert_close(elsewhere(tmp_path / "small", (inputs,)), small.eval()(inputs).detach(), rtol=0, atol=0)


def test_tables_buffers_ties_and_reshapes_are_written(tmp_path: Path) -> None:
    model, ids = Attention().eval(), torch.randint(0, 11, (2, 5))
    assert export_standalone(model, ids, tmp_path).error == 0.0
    torch.testing.assert_close(elsewhere(tmp_path, (ids,)), model(ids).detach(), rtol=0, atol=0)
    names: dict[str, Any] = {"__file__": str(tmp_path / "model.py")}
    exec((tmp_path / "model.py").read_text(), names)
    again = names["load"]()
    assert again.head.weight is again.table.weight
    assert set(again.state_dict()) == set(model.state_dict())


def test_half_precision_stays_half(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).to(torch.bfloat16)
    inputs = torch.randn(2, 4, dtype=torch.bfloat16)
    export_standalone(model, inputs, tmp_path)
    assert elsewhere(tmp_path, (inputs,)).dtype == torch.bfloat16


class ByValue(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if float(x.sum()) > 0 else x


def doubled(x: Tensor) -> Tensor:
    return 2 * x


torch.fx.wrap("doubled")


class ByAFunction(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return doubled(x)


def changed_by_hand() -> nn.Module:
    layer = nn.Linear(4, 3)
    layer.weight = nn.Parameter(torch.randn(2, 4))
    layer.bias = nn.Parameter(torch.randn(2))
    return nn.Sequential(layer)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ByValue(), "torch.fx cannot follow its forward"),
        (ByAFunction(), "its forward calls .*doubled of"),
        (changed_by_hand(), "the layer 0 is not what nn.Linear"),
        (nn.Sequential(nn.TransformerEncoderLayer(4, 2)), "the layer 0 .TransformerEncoderLayer. cannot be written"),
    ],
)
def test_what_is_not_plain_is_refused(model: nn.Module, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        export_standalone(model, torch.ones(1, 4), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "digits_resnet", "--standalone", str(tmp_path / "it")]) == 0
    assert "as the code allows" in capsys.readouterr().out
    assert (tmp_path / "it" / "model.py").is_file()
    assert main(["export", "digits_resnet"]) == 2
    assert "--standalone FOLDER" in capsys.readouterr().err
