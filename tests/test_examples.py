"""The examples run, and end where they say."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "macs", "better"), [("language_model", 0.6, -1), ("detection", 0.5, 1)])
def test_an_example_meets_its_target_and_learns(
    name: str, macs: float, better: int, capsys: pytest.CaptureFixture[str]
) -> None:
    record = example(name).main(examples=600, epochs=1).record
    assert 0.97 * macs <= record.after.macs / record.before.macs <= macs
    walked = [better * point.score for point in record.path[1:-1]]
    assert better * record.path[-1].score > min(walked), "fine-tuning recovers something"
    assert record.score_name in capsys.readouterr().out
