"""What reads files of strangers, and ways to spoil such files: shared by a test of seconds and a fuzzer of hours.

Each target writes the bytes where a stranger's would be and reads them as amsc does. Nothing but an `AmscError` may
come of it.
"""

import copy
import io
import json
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from amsc import Settings, Target, compress
from amsc.bench import read_recipe
from amsc.data import open_data
from amsc.errors import AmscError
from amsc.jobs.reading import read_record
from amsc.jobs.run_folder import RunFolder
from amsc.jobs.search_log import SearchLog
from amsc.models import load_weights
from amsc.report import render
from amsc.settings import read_settings
from amsc.structure import Rounding, trace
from amsc.surgery import load
from amsc.trainers.course import Course
from amsc.trainers.state import LoopState, read_state, write_state

__all__ = ["TARGETS", "spoilt", "survives"]

QUICK = Settings(path_epochs=0, finetune_epochs=0, depth_share=0.0, path_points=1, reconstruction=0, round_to=1)
RECIPE = b"""[bench]
data = "digits"
networks = ["digits_resnet"]
budgets = ["macs=60%"]
seeds = [0, 1]
epochs = [0, 1.5]
[settings]
path_points = 1
[methods.default]
[methods.hrank]
method = "criterion"
criterion = "hrank"
[methods."as long"]
control = "dense"
"""
LOG = b'{"key": "a", "found": {"price": 1.5}}\n{"key": "b", "found": {"scores": [0.5, 1]}}\n'


def build() -> nn.Module:
    """The dense network of the run that files are taken from."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    return nn.Sequential(*layers)


@cache
def run() -> Path:
    """A finished run."""
    out = Path(tempfile.mkdtemp(prefix="amsc-fuzz-")) / "run"
    data = open_data("digits", seed=0, batch_size=64, limit=128)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compress(
            build(), data.example_inputs(1), data, target=Target(macs=0.8), settings=QUICK, out=out, progress=False
        )
    return out


@contextmanager
def folder(name: str, content: bytes, *others: Path) -> Iterator[Path]:
    """A folder with a file of this content, and copies of others."""
    with tempfile.TemporaryDirectory() as place:
        for other in others:
            shutil.copy(other, place)
        file = Path(place, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        yield Path(place)


def _config(content: bytes) -> None:
    with folder("config.json", content, run() / "model" / "model.safetensors") as place:
        load(place, build)


def _model(content: bytes) -> None:
    with folder("model.safetensors", content, run() / "model" / "config.json") as place:
        load(place, build)


def _state(content: bytes) -> None:
    with folder("state/state.pt", content) as place:
        RunFolder(place, {}).read()


def _point(content: bytes) -> None:
    point = next(point for point in RunFolder(run(), {}).read().points if point.weights)
    with folder(f"points/{point.weights}", content) as place:
        RunFolder(place, {}).read_weights(point)


def _record(content: bytes) -> None:
    with folder("record.json", content) as place:
        render(read_record(place, "0"))


def _settings(content: bytes) -> None:
    with folder("settings.toml", content) as place:
        read_settings(place / "settings.toml")


def _recipe(content: bytes) -> None:
    with folder("recipe.toml", content) as place:
        read_recipe(place / "recipe.toml")


def _log(content: bytes) -> None:
    with folder("search.jsonl", content) as place:
        SearchLog(place / "search.jsonl")


def _weights(content: bytes) -> None:
    with folder("weights.pt", content) as place:
        load_weights(build(), place / "weights.pt")


def _image(content: bytes) -> None:
    with folder("0.png", content) as place:
        for number in range(1, 30):
            shutil.copy(place / "0.png", place / f"{number}.png")
        open_data(f"folder:{place}")


def _parquet(content: bytes) -> None:
    with folder("images.parquet", content) as place:
        open_data(f"parquet:{place / 'images.parquet'}")


def _loop(content: bytes) -> None:
    read_state(content.decode("utf-8", errors="replace"))


@dataclass(frozen=True)
class FuzzTarget:
    """A reader, and a good file for it."""

    read: Callable[[bytes], None]
    good: Callable[[], bytes]
    is_json: bool = False


def _png() -> bytes:
    from PIL import Image

    written = io.BytesIO()
    Image.new("RGB", (9, 7), (10, 20, 30)).save(written, "PNG")
    return written.getvalue()


def _table() -> bytes:
    import pyarrow
    from pyarrow import parquet

    written, rows = io.BytesIO(), [{"bytes": _png(), "path": None}] * 20
    parquet.write_table(pyarrow.table({"image": rows, "label": [0, 1] * 10}), written)
    return written.getvalue()


def _torch_weights() -> bytes:
    written = io.BytesIO()
    torch.save(build().state_dict(), written)
    return written.getvalue()


@cache
def _loop_state() -> bytes:
    structure = trace(build(), torch.zeros(1, 1, 8, 8))
    course = Course((4, 4), (1, 1), 1, 100, 80, 60, Rounding())
    return write_state(LoopState(3, None, structure, course, 0, 100, 1.0, False)).encode()


TARGETS: Mapping[str, FuzzTarget] = {
    "config.json": FuzzTarget(_config, lambda: (run() / "model" / "config.json").read_bytes(), is_json=True),
    "model.safetensors": FuzzTarget(_model, lambda: (run() / "model" / "model.safetensors").read_bytes()),
    "state.pt": FuzzTarget(_state, lambda: (run() / "state" / "state.pt").read_bytes()),
    "point": FuzzTarget(_point, lambda: next((run() / "points").glob("*.safetensors")).read_bytes()),
    "record.json": FuzzTarget(_record, lambda: (run() / "record.json").read_bytes(), is_json=True),
    "settings.toml": FuzzTarget(_settings, lambda: (run() / "settings.toml").read_bytes()),
    "recipe.toml": FuzzTarget(_recipe, lambda: RECIPE),
    "search.jsonl": FuzzTarget(_log, lambda: LOG),
    "state of a trainer": FuzzTarget(_loop, _loop_state, is_json=True),
    "weights.pt": FuzzTarget(_weights, _torch_weights),
    "image": FuzzTarget(_image, _png),
    "parquet": FuzzTarget(_parquet, _table),
}

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 10**30, -(10**30), 2**31, 2**63, 1.5, -0.5, 1e308, float("inf"), float("nan")),
    *("", "x", "../../etc/passwd", "<script>", "\ud800", "a" * 5000, "os:system", "nan", [], [[]], {}, {"": None}),
    *([0] * 3, [-1], ["x"], [None], {"x": 1}, [1e30], [[0, 0]]),
)
PIECES = (
    b"\x00",
    b"\xff" * 8,
    b"[" * 2000,
    b"{",
    b'"',
    b"\x7f\xff\xff\xff",
    b"9" * 30,
    b"../",
    b"\n[run]\n",
    b"'''",
    b"1e999",
)


def spoilt(target: FuzzTarget, chance: random.Random) -> bytes:
    """The good file of a target with something changed in it."""
    good = target.good()
    if target.is_json and chance.random() < 0.8:
        value = json.loads(good)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            value = _odd_somewhere(value, chance)
        return json.dumps(value).encode()
    content = bytearray(good)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        _spoil(content, chance)
    return bytes(content)


def _odd_somewhere(value: Any, chance: random.Random) -> Any:
    """JSON with one of its parts replaced, removed, doubled or moved."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.12:
        return copy.deepcopy(chance.choice(ODD))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key, way = chance.choice(keys), chance.random()
    if way < 0.1:
        del value[key]
    elif way < 0.15 and isinstance(value, dict):
        value[chance.choice(("", "x", "weights", "macs"))] = copy.deepcopy(value[key])
    elif way < 0.2 and isinstance(value, list):
        value.append(copy.deepcopy(value[key]))
    else:
        value[key] = _odd_somewhere(value[key], chance)
    return value


def _spoil(content: bytearray, chance: random.Random) -> None:
    """Turn bits over, cut, repeat or put something in."""
    place = chance.choice((chance.randrange(len(content) + 1), chance.randrange(min(len(content), 300) + 1)))
    way = chance.randrange(5)
    if way == 0 and place < len(content):
        content[place] ^= 1 << chance.randrange(8)
    elif way == 1:
        del content[place : place + chance.choice((1, 8, 100, len(content)))]
    elif way == 2:
        content[place:place] = chance.choice(PIECES)
    elif way == 3:
        content[place : place + 8] = chance.randbytes(8)
    else:
        content[place:place] = content[place : place + chance.choice((4, 64))]


def survives(target: FuzzTarget, content: bytes) -> bool:
    """Whether the file is read, or refused with an `AmscError`.

    Raises:
        Exception: whatever else comes of it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(content)
    except AmscError:
        return False
    return True
