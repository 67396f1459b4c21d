"""What every measurement needs: the data and the networks on the device, the time that is left, what is kept."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from benchmarks.gpu.clock import Clock, OutOfTime
from benchmarks.gpu.store import Store
from torch import Tensor, nn

from amsc.data import ImageData, ImageSplit, open_data
from amsc.errors import TargetError, TrainingError
from amsc.models import open_model
from amsc.tasks import Classification
from amsc.training import Speed

__all__ = [
    "TASK",
    "Lab",
    "fast_kernels",
    "first_that_works",
    "is_out_of_memory",
    "judged_halves",
    "said",
    "speed_of",
    "wait_for",
]

TASK = Classification()
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Lab:
    """`data` are on the `device`, in batches of `batch`; `weights` is the folder of trained networks, if there is one;
    `epochs` is the length of a schedule."""

    data: ImageData
    device: torch.device
    weights: Path | None
    epochs: float
    batch: int
    clock: Clock
    store: Store

    @property
    def is_gpu(self) -> bool:
        """Whether this is the real thing and not its stand-in."""
        return self.device.type == "cuda"

    @property
    def card(self) -> str:
        """What times depend on."""
        return torch.cuda.get_device_name(self.device) if self.is_gpu else self.device.type

    def with_batch(self, batch: int) -> ImageData:
        """The data in batches of another size."""
        return replace(self.data, batch_size=batch)

    def weights_of(self, network: str) -> Path | None:
        """The file of the network's trained weights; None if there is none: it is trained from the beginning then."""
        files = sorted(self.weights.glob(f"{network}-*")) if self.weights else []
        return files[0] if files else None

    def opened(self, network: str) -> nn.Module:
        """The network as it is given, on the device."""
        torch.manual_seed(0)
        model = open_model(network, num_classes=self.data.num_classes, weights=self.weights_of(network))
        return model.to(self.device)

    def dense(self, network: str) -> nn.Module:
        """The network that was trained on these data first, on the device."""
        model = self.opened(network)
        model.load_state_dict(self.store.dense(network))
        return model.eval()

    def on_cpu(self) -> "Lab":
        """The same with the data on the processor."""
        splits = {
            name: ImageSplit(part.images.cpu(), None if part.labels is None else part.labels.cpu())
            for name, part in self.data.splits.items()
        }
        return replace(self, data=replace(self.data, splits=splits), device=torch.device("cpu"))


def judged_halves(folder: Path, *, batch: int, device: torch.device, limit: int | None) -> ImageData:
    """The data whose validation images are the first half of the test file, and whose test images the second.

    The given weights were trained on all training images, so that none of those can tell how good a choice is. With a
    `limit` no split has more examples than that.

    Raises:
        DataError: see `open_data`.
    """
    data: Any = open_data(f"parquet:{folder}", batch_size=batch, device=device, limit=limit)
    whole: ImageSplit = data.splits["test"]
    order = torch.randperm(len(whole.images), generator=torch.Generator().manual_seed(0)).to(device)
    halves = dict(zip(("validation", "test"), order.tensor_split(2), strict=True))
    halves = {name: rows[:limit] for name, rows in halves.items()}
    split = {name: _rows(whole, rows) for name, rows in halves.items()}
    found: ImageData = replace(data, name=folder.resolve().name, splits={"train": data.splits["train"], **split})
    return found


def _rows(split: ImageSplit, rows: Tensor) -> ImageSplit:
    return ImageSplit(split.images[rows], None if split.labels is None else split.labels[rows])


def speed_of(*, captured: bool) -> Speed:
    """How all training computes: bfloat16, channels last; the steps captured, if that is asked for, which a CPU does by
    plain calls."""
    return Speed("bfloat16", channels_last=True, capture=captured)


@contextmanager
def fast_kernels() -> Iterator[None]:
    """A context in which cuDNN tries which of its algorithms is the fastest, as for captured steps in a run of amsc."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def first_that_works(ways: Mapping[str, Callable[[], T]]) -> tuple[T, dict[str, str]]:
    """What the first of `ways` gives that works, and for the record which that was and why others before it failed.

    A GPU is at hand for minutes: what has only ever run on a CPU should not cost it all. The end of the time, too
    little memory, a target that cannot be met and a loss that is not finite are no reasons to try another way.
    """
    failures = ""
    for number, (name, way) in enumerate(ways.items(), start=1):
        try:
            return way(), {"way": name, **({"failed_before": failures} if failures else {})}
        except (OutOfTime, TargetError, TrainingError):
            raise
        except Exception as error:
            if number == len(ways) or is_out_of_memory(error):
                raise
            failures += f"{name}: {said(error)}; "
            print(f"{name} failed ({said(error)}); another way is tried", flush=True)
    raise ValueError("expected at least one way")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether this or what caused it is a lack of memory on the device."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def said(error: BaseException) -> str:
    """The error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def wait_for(device: torch.device) -> None:
    """Until all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
