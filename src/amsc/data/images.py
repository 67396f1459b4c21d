"""Small images, kept as bytes on the device and normalised and augmented there, a batch at a time."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from amsc.data.batch import Unlabelled
from amsc.data.spread import spread_numbers
from amsc.errors import DataError

__all__ = ["FLIPS", "ImageData", "ImageSplit", "crop_and_flip"]

FLIPS = ("random", "alternating", "none")
"""Which training images are mirrored left to right: each with probability 1/2, in the second of two passes those that
were not in the first (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498), or none."""


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Images, uint8 of shape (examples, channels, height, width), and their labels, int64 of shape (examples,), if they
    have any."""

    images: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise DataError(
                "images must be uint8 of shape (examples, channels, height, width), got"
                f" {self.images.dtype} {tuple(self.images.shape)}"
            )
        if len(self.images) == 0:
            raise DataError("there are no images in this split")
        if self.labels is not None:
            self._check_labels(self.labels)

    def _check_labels(self, labels: Tensor) -> None:
        if labels.dtype != torch.int64 or labels.shape != self.images.shape[:1]:
            raise DataError(
                f"labels of {len(self.images)} images must be int64 of shape ({len(self.images)},), got"
                f" {labels.dtype} {tuple(labels.shape)}"
            )
        if self.images.device != labels.device:
            raise DataError(f"images are on {self.images.device} and labels on {labels.device}; move one")

    def targets(self, rows: Tensor) -> Tensor | Unlabelled:
        """The labels of these rows; only how many there are where there are no labels."""
        return Unlabelled(len(rows)) if self.labels is None else self.labels[rows]


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images with labels, or all of them without and no number of classes; implements `Data`.

    Inputs are (image / 255 - mean) / deviation, float32 of shape (batch, channels, height, width), `mean` and
    `deviation` one number per channel. Without a seed the order is one fixed shuffle of each split. With a seed, each
    image is shifted by up to `padding` pixels each way (black moves in) and mirrored left to right as `flip` says (one
    of `FLIPS`; "alternating": in one of two passes whose seeds differ in the lowest bit alone). Batches have
    `batch_size` examples or, so that none is left with a few, slightly fewer: their sizes differ by at most one.

    Raises:
        DataError: a split is missing, splits differ in shape, device or in whether they have labels, or a label is
            outside 0..num_classes-1.
    """

    name: str
    splits: Mapping[str, ImageSplit]
    num_classes: int | None
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    batch_size: int
    padding: int = 0
    flip: str = "none"

    def __post_init__(self) -> None:
        if missing := {"train", "validation", "test"} - set(self.splits):
            raise DataError(f"{self.name}: no split {', '.join(sorted(missing))}")
        if self.batch_size < 1 or self.padding < 0:
            raise DataError(
                f"batch_size must be at least 1 and padding at least 0, not {self.batch_size} and {self.padding}"
            )
        if self.flip not in FLIPS:
            raise DataError(f"flip: expected one of {', '.join(FLIPS)}, got {self.flip!r}")
        first = self.splits["train"].images
        if not len(self.mean) == len(self.deviation) == first.shape[1] or min(self.deviation) <= 0:
            raise DataError(
                f"{self.name}: mean and deviation need one number for each of {first.shape[1]} channels, deviations"
                f" above 0, got {self.mean} and {self.deviation}"
            )
        for split, part in self.splits.items():
            if part.images.shape[1:] != first.shape[1:] or part.images.device != first.device:
                raise DataError(
                    f"{self.name}: images of {split} are {tuple(part.images.shape[1:])} on {part.images.device}, those"
                    f" of train {tuple(first.shape[1:])} on {first.device}"
                )
            self._check_labels(split, part.labels)

    def _check_labels(self, split: str, labels: Tensor | None) -> None:
        if labels is None or self.num_classes is None:
            if (labels is None) != (self.num_classes is None):
                raise DataError(
                    f"{self.name}: images have labels in all splits, and a number of classes, or in none; {split} has"
                    f" {'none' if labels is None else 'some'}, the number of classes is {self.num_classes}"
                )
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            raise DataError(
                f"{self.name}: labels of {self.num_classes} classes must lie between 0 and {self.num_classes - 1},"
                f" those of {split} go from {low} to {high}"
            )

    @property
    def alternates(self) -> bool:
        """See `amsc.data.protocol.alternates`."""
        return self.flip == "alternating"

    def batches(self, split: str, *, seed: int | None = None) -> Iterator[tuple[Tensor, Any]]:
        """One pass over `split` as (inputs, labels), or `Unlabelled` for labels; see the class, and `Data`."""
        if seed is None:
            yield from self.spread_batches(split, self.num_batches(split))
            return
        part = self._split(split)
        count, device = len(part.images), part.images.device
        # All chances are drawn on the CPU and at once: the same seed means the same batches on every device.
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(count, generator=generator).to(device)
        shifts = torch.randint(2 * self.padding + 1, (count, 2), generator=generator).to(device)
        mirrored = self._mirrored(count, seed, generator).to(device)[order]
        for rows in torch.arange(count, device=device).tensor_split(self.num_batches(split)):
            images = crop_and_flip(part.images[order[rows]], shifts[rows], mirrored[rows], padding=self.padding)
            yield self._normalised(images), part.targets(order[rows])

    def _mirrored(self, count: int, seed: int, generator: torch.Generator) -> Tensor:
        """Whether each of `count` images is mirrored."""
        if self.flip != "alternating":
            return torch.rand(count, generator=generator) < 0.5 * (self.flip == "random")
        of_both = torch.rand(count, generator=torch.Generator().manual_seed(seed >> 1)) < 0.5
        return of_both ^ bool(seed & 1)

    def spread_batches(self, split: str, count: int) -> Iterator[tuple[Tensor, Any]]:
        """`count` of the batches of a pass without a seed (all if there are no more), evenly over it."""
        part, total = self._split(split), self.num_batches(split)
        rows = self._fixed_order(split).to(part.images.device).tensor_split(total)
        for number in spread_numbers(total, count):
            yield self._normalised(part.images[rows[number]]), part.targets(rows[number])

    def _fixed_order(self, split: str) -> Tensor:
        """The rows of a split in the order of passes without a seed. Readers list examples class by class."""
        return torch.randperm(self.num_examples(split), generator=torch.Generator().manual_seed(0))

    def num_batches(self, split: str) -> int:
        """How many batches one pass over `split` takes."""
        return -(-self.num_examples(split) // self.batch_size)

    def num_examples(self, split: str) -> int:
        """How many examples `split` has."""
        return len(self._split(split).images)

    def example_inputs(self, batch: int = 1) -> Tensor:
        """The first `batch` training images of a pass without a seed."""
        images = self.splits["train"].images
        return self._normalised(images[self._fixed_order("train")[:batch].to(images.device)])

    def _split(self, split: str) -> ImageSplit:
        if split not in self.splits:
            raise DataError(f"{self.name} has no split {split!r}; there are {', '.join(self.splits)}")
        return self.splits[split]

    def _normalised(self, images: Tensor) -> Tensor:
        scale, shift = _scale_and_shift(self.mean, self.deviation, images.device)
        # Channels first, whatever the file had: else a model's x.view(len(x), -1) after a convolution fails.
        plain = images.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        return plain.mul_(scale).add_(shift)


@functools.lru_cache(maxsize=16)
def _scale_and_shift(
    mean: tuple[float, ...], deviation: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """(image/255 - mean)/deviation as image*scale + shift; both (channels, 1, 1)."""
    centre, width = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, deviation))
    return (1 / (255 * width)).float().to(device), (-centre / width).float().to(device)


def crop_and_flip(images: Tensor, shifts: Tensor, mirrored: Tensor, *, padding: int) -> Tensor:
    """A window of each image's own, of the image's size, from the image with `padding` black pixels around it.

    Args:
        images: (N, C, H, W), any type.
        shifts: (N, 2) integers from 0 to 2 * padding: first row and first column of the window.
        mirrored: (N,) whether the window is mirrored left to right.
        padding: pixels added on each side.
    """
    count, channels, height, width = images.shape
    device = images.device
    rows = shifts[:, :1] + torch.arange(height, device=device)
    columns = shifts[:, 1:] + torch.arange(width, device=device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = functional.pad(images, (padding,) * 4)
    example = torch.arange(count, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[example, channel, rows[:, None, :, None], columns[:, None, None, :]]
