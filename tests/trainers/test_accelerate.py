"""The example with Accelerate: its trackers hold what the compression saw."""

import importlib.util
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate", reason="the extra amsc[accelerate] is not installed")

from amsc.models.resnet_cifar import CifarResNet
from amsc.surgery import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "accelerate_loop.py"


def example() -> Any:
    spec = importlib.util.spec_from_file_location("accelerate_loop", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tensorboard_gets_the_way_down(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    compression = example().main(tmp_path, ["tensorboard"], epochs=6, limit=320)
    events = EventAccumulator(str(tmp_path / "amsc"))
    events.Reload()
    cost, loss = events.Scalars("cost"), events.Scalars("loss")
    assert [event.step for event in cost] == list(range(1, compression.steps + 1))
    assert cost[0].value == 1.0
    assert 0.45 < cost[-1].value <= 0.5
    assert sum(event.value for event in loss[-5:]) < 0.7 * sum(event.value for event in loss[:5])
    small = load(tmp_path / "small", lambda: CifarResNet(2, widths=(8, 16, 32), num_classes=10, in_channels=1))
    assert sum(p.numel() for p in small.parameters()) == compression.cuts[-1].parameters


def test_weights_and_biases_gets_it_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    compression = example().main(tmp_path, ["wandb"], epochs=4, limit=128)
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    until = time.monotonic() + 60
    while len(steps_in(file)) < compression.steps and time.monotonic() < until:
        time.sleep(0.2)  # another process of W&B writes it
    assert steps_in(file) == list(range(1, compression.steps + 1))


def steps_in(file: Path) -> list[int]:
    """The steps in a file of an offline run that say what the cost is."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for data in written_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        names = [item.key or ".".join(item.nested_key) for item in record.history.item]
        if "cost" in names:
            found.append(record.history.step.num)
    return found


def written_records(data: bytes) -> Iterator[bytes]:
    """What LevelDB's log format holds, as W&B writes it: blocks of 32 KiB, the first behind 7 bytes of its own; in them
    pieces of records, each behind a checksum, a length and a kind (1 whole, 2 first, 3 middle, 4 last)."""
    place, record = 7, b""
    while place + 7 <= len(data):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        if place + 7 + length > len(data):
            return  # half of it is written
        record = (record if kind in (3, 4) else b"") + data[place + 7 : place + 7 + length]
        if kind in (1, 4):
            yield record
        place += 7 + length
