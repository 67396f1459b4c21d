"""Code that loads a small network, for a reader to copy: complete, and with a name for what is missing."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import amsc
from amsc.records import Record
from amsc.words.loading import loading_code
from report.fixed import fixed_record

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
"""


def of_python(network: str, defined_in: str) -> Record:
    record = fixed_record()
    assert record.about is not None
    return replace(record, about=replace(record.about, built_from={}, network=network, defined_in=defined_in))


def test_a_class_that_can_be_imported_is_and_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_to_load.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    dense: Any = __import__("mine_to_load").Net()
    plan = amsc.plan_cut(amsc.trace(dense, torch.randn(4, 3)), channels={"0": [1, 2]})
    small = amsc.cut(dense, plan)
    amsc.save(small, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    exec(loading_code(of_python("Net", "mine_to_load")), known)
    inputs = torch.randn(4, 3)
    torch.testing.assert_close(known["small"](inputs), small.eval()(inputs))
    monkeypatch.delitem(sys.modules, "mine_to_load")


@pytest.mark.parametrize("module", ["__main__", "torch.nn.modules.container", ""])
def test_a_class_that_cannot_is_asked_for_when_the_code_runs(module: str, tmp_path: Path) -> None:
    dense = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    plan = amsc.plan_cut(amsc.trace(dense, torch.randn(4, 3)), channels={"0": [1]})
    amsc.save(amsc.cut(dense, plan), tmp_path / "model")
    code = loading_code(of_python("Sequential", module), f"small = amsc.load({str(tmp_path / 'model')!r}")
    assert "import Sequential" not in code
    with pytest.raises(Exception, match="return here the Sequential, built as in the code that started the run"):
        exec(code, {})


def test_what_the_command_line_can_build_needs_nothing_filled_in() -> None:
    code = loading_code(fixed_record())
    assert re.search(r'amsc\.load\("model", lambda: open_model\(', code)
    assert "NotImplementedError" not in code
