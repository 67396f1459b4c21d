"""Records with fixed numbers, some of them awkward, for the report's tests.

`PYTHONPATH=src:tests python tests/report/fixed.py` writes the golden page anew; look at it before committing it.
"""

import dataclasses
import re
from pathlib import Path

from amsc.records import (
    Asked,
    Circumstances,
    LayerWidths,
    Measurement,
    NormTrace,
    PathPoint,
    ReconstructionRecord,
    Record,
    RefittedLayer,
    Staying,
    TrainingCurve,
)

__all__ = ["GOLDEN", "bare", "bare_record", "fixed_record", "long_record"]

GOLDEN = Path(__file__).with_name("golden.html")
MACHINE = {"cpu": "fixed", "threads": "2"}


def bare_record(**changes: object) -> Record:
    """A small run as records were before they told of layers, norms and losses: two phases, a block and channels
    removed, and a name that is markup."""
    values: dict[str, object] = {
        "model": "resnet8 <b>bold</b>",
        "data": "digits",
        "target": "macs=50%",
        "settings": {"seed": 0, "path_epochs": 2.0},
        "score_name": "accuracy",
        "score_before": 0.98,
        "score_after": 0.975,
        "before": Measurement(78_042, 315_392, 12_500_000, 0.0021, 0.0001, 20, 1_048_576, MACHINE),
        "after": Measurement(30_000, 122_880, 6_240_000, 0.0013, 0.00005, 20, 524_288, MACHINE),
        "removed_blocks": ("layer2.0",),
        "removed_channels": {"layer1.0.conv1": (0, 1, 2, 5), "layer3.0.conv1": (7,), "untouched": ()},
        "blocks_before": 3,
        "channels_before": 112,
        "verification_error": 3.25e-7,
        "path": (
            _point("dense", 0, 0.0, 0.0, 12_500_000, 0.97, 3, 112),
            _point("depth", 1, 0.01, 1.0, 9_000_000, 0.972, 2, 80),
            _point("width", 2, 0.02, 2.0, 6_240_000, 0.95, 2, 75),
            _point("finetune", 3, 0.0, 4.0, 6_240_000, 0.968, 2, 75),
        ),
        "versions": {"amsc": "0.1.0", "torch": "2.13.0"},
        "seconds": {"path": 12.5, "finetune": 100.0},
    }
    return Record(**(values | changes))  # type: ignore[arg-type]


def fixed_record(**changes: object) -> Record:
    """The same run with all that records tell today."""
    record = bare_record()
    dense, depth, width, tuned = record.path
    depth = dataclasses.replace(depth, norms=NormTrace((0.0, 0.5), (0.0, 0.01), *_norms()), repaired=_repaired())
    width = dataclasses.replace(
        width, norms=NormTrace((1.0, 1.5), (0.01, 0.02), {"layer1.0": (2.0, 1.5)}, {"layer1.0.conv1": (1.0, 0.5)})
    )
    told: dict[str, object] = {
        "path": (dense, depth, width, tuned),
        "about": Circumstances(
            network="ResNet",
            examples={"train": 1078, "validation": 359, "test": 360},
            inputs=((1, 1, 8, 8),),
            classes=10,
            fingerprints={"data": "d1", "network": "n1"},
            built_from={"model": "resnet8", "num_classes": 10, "in_channels": 1},
            date="2026-11-28T09:00:00+00:00",
        ),
        "asked": (Asked("macs", 0.5, is_share=True),),
        "layers": (
            LayerWidths("conv1", "Conv2d", 16, 16, 500_000, 500_000, "", (16, 16, 16, 16)),
            LayerWidths("layer1.0.conv1", "Conv2d", 16, 12, 4_000_000, 2_740_000, "", (16, 16, 12, 12)),
            LayerWidths("layer2.0.conv1", "Conv2d", 32, 0, 5_000_000, 0, "layer2.0", (32, 0, 0, 0)),
            LayerWidths("layer3.0.conv1", "Conv2d", 64, 63, 3_000_000, 3_000_000, "", (64, 64, 63, 63)),
        ),
        "training": (
            TrainingCurve("depth", (0.5, 1.0), (2.0, 1.5)),
            TrainingCurve("width", (1.5, 2.0), (1.4, 1.3)),
            TrainingCurve("finetune", (1.0, 2.0), (1.0, 0.8), (0.5, 1.5), (0.94, 0.96)),
        ),
        "staying": (
            Staying("a sum joins it with values that stay", 12, "layer1.0.conv2.weight[0]", "net.py:12: x + y"),
            Staying("the trial could not remove it", 0, "layer1.0"),
        ),
        "score_error": 0.004,
    }
    return bare_record(**(told | changes))


def long_record(points: int = 200, layers: int = 110) -> Record:
    """A run with many points and layers, for the browser."""
    record = fixed_record()
    path = [record.path[0]]
    for i in range(1, points):
        share = 1 - 0.85 * i / (points - 1)
        phase = "depth" if i < points // 2 else "width"
        path.append(_point(phase, i, 0.01 * i, 0.1 * i, round(12_500_000 * share), 0.7 + 0.27 * share**0.5, 3, 112))
    widths = tuple(
        LayerWidths(
            f"stage{i // 20}.{i % 20}.conv",
            "Conv2d",
            16 << (i // 40),
            (16 << (i // 40)) // 2,
            100_000,
            50_000,
            "",
            tuple(max(1, round((16 << (i // 40)) * (1 - 0.5 * j / points))) for j in range(points)),
        )
        for i in range(layers)
    )
    return dataclasses.replace(record, path=tuple(path), layers=widths, training=())


def bare(page: str) -> str:
    """The page without styles, scripts and what is made of them: what a change of a colour leaves as it is."""
    page = re.sub(r"(?s)<(style|script)>.*?</\1>", r"<\1></\1>", page)
    return re.sub(r'(?<="Content-Security-Policy" content=)"[^"]*"', '""', page)


def _point(
    phase: str, index: int, strength: float, epochs: float, macs: int, score: float, blocks: int, channels: int
) -> PathPoint:
    return PathPoint(phase, index, strength, epochs, macs, macs // 200, blocks, channels, 0.1, score, (), {})


def _norms() -> tuple[dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]]:
    blocks = {"layer1.0": (2.0, 2.0), "layer2.0": (1.0, 0.25)}
    return blocks, {"layer1.0.conv1": (1.0, 1.0), "layer2.0.conv1": (4.0, 1.0)}


def _repaired() -> ReconstructionRecord:
    layers = (
        RefittedLayer("layer3.0.conv1", "own", 0.5, 0.125, 0.1),
        RefittedLayer("fc", "own", 0.25, 0.25, None),
        RefittedLayer("odd", reason="nothing reads it"),
    )
    return ReconstructionRecord("stream", 256, 0, layers)


if __name__ == "__main__":
    from amsc.report import render

    GOLDEN.write_text(bare(render(fixed_record())), encoding="utf-8")
