"""A record with fixed numbers, some of them awkward, for the report's tests.

`PYTHONPATH=src python tests/report/fixed.py` writes the golden page anew; look at it before committing it.
"""

from pathlib import Path

from amsc.records import Measurement, PathPoint, Record

__all__ = ["fixed_record"]


def fixed_record(**changes: object) -> Record:
    """A small run with two phases, a block and channels removed, and a name that is markup."""
    machine = {"processor": "fixed", "threads": "2"}
    values: dict[str, object] = {
        "model": "resnet8 <b>bold</b>",
        "data": "digits",
        "target": "macs=50%",
        "settings": {"seed": 0, "path_epochs": 2.0},
        "score_name": "accuracy",
        "score_before": 0.98,
        "score_after": 0.975,
        "before": Measurement(78_042, 315_392, 12_500_000, 0.0021, 0.0001, 20, 1_048_576, machine),
        "after": Measurement(30_000, 122_880, 6_240_000, 0.0013, 0.00005, 20, 524_288, machine),
        "removed_blocks": ("layer2.0",),
        "removed_channels": {"layer1.0.conv1": (0, 1, 2, 5), "layer3.0.conv1": (7,), "untouched": ()},
        "blocks_before": 3,
        "channels_before": 112,
        "verification_error": 3.25e-7,
        "path": (
            _point("dense", 0, 0.0, 0.0, 12_500_000, 0.97, 3, 112),
            _point("depth", 0, 0.01, 1.0, 9_000_000, 0.972, 2, 80),
            _point("width", 0, 0.02, 2.0, 6_240_000, 0.95, 2, 75),
            _point("finetune", 0, 0.0, 4.0, 6_240_000, 0.968, 2, 75),
        ),
        "versions": {"amsc": "0.1.0", "torch": "2.13.0"},
        "seconds": {"path": 12.5, "finetune": 100.0},
    }
    return Record(**(values | changes))  # type: ignore[arg-type]


def _point(
    phase: str, index: int, strength: float, epochs: float, macs: int, score: float, blocks: int, channels: int
) -> PathPoint:
    return PathPoint(phase, index, strength, epochs, macs, macs // 200, blocks, channels, 0.1, score, (), {})


if __name__ == "__main__":
    from amsc.report import render

    Path(__file__).with_name("golden.html").write_text(render(fixed_record()), encoding="utf-8")
