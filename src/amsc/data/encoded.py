"""Encoded images (JPEG, PNG ...) from any source, and what turns them into `ImageData`."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from amsc.data.images import ImageData, ImageSplit
from amsc.data.splits import SplitRows, carve_validation, check_count, check_labels, some_of_each, split_in_three
from amsc.errors import DataError

__all__ = ["EncodedImages", "image_data", "memory_bytes", "one_set_split_in_three"]

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP")
"""What pillow may take an image for: others run other programs (EPS) or hold more than an image."""
_MOST_PIXELS = 1 << 25
"""Of one image: 5,800 on a side. It is told from the head of the file, before anything is unpacked."""
# The usual constants for photographs (those of ImageNet), also of the published CIFAR weights.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images as files or bytes, their labels if they have any, and a name for each that an error can use."""

    sources: Sequence[bytes | Path]
    labels: NDArray[np.int64] | None
    names: Sequence[str]

    def rows(self, index: NDArray[np.int64]) -> "EncodedImages":
        """The images of these rows, in this order."""
        labels = None if self.labels is None else self.labels[index]
        return EncodedImages([self.sources[i] for i in index], labels, [self.names[i] for i in index])

    def strata(self) -> NDArray[np.int64]:
        """The class of each image; one for all where they have no labels."""
        return np.zeros(len(self.sources), np.int64) if self.labels is None else self.labels


def one_set_split_in_three(images: EncodedImages, *, seed: int, where: str) -> dict[str, EncodedImages]:
    """One set of images as train, validation and test; see `split_in_three` and `check_labels`."""
    _num_classes(images, where=where)
    rows: SplitRows = split_in_three(images.strata(), seed=seed, where=where)
    return {name: images.rows(index) for name, index in rows._asdict().items()}


def image_data(
    name: str,
    splits: dict[str, EncodedImages],
    *,
    seed: int,
    batch_size: int,
    device: torch.device | str,
    limit: int | None,
    flip: str = "random",
) -> ImageData:
    """`ImageData` from the encoded images of "train", "test" and perhaps "validation".

    Without a validation split, one is carved from train with `seed`. `limit` then caps the training examples: so many
    of all classes are drawn with `seed`.
    Training images are shifted by up to an eighth of their height and mirrored as `flip` says.

    Raises:
        DataError: see `check_labels`; or an image cannot be decoded or has another size than the first.
    """
    train = splits["train"]
    num_classes = _num_classes(train, where=f"{name} train")
    if "validation" not in splits:
        kept, held_out = carve_validation(len(train.sources), seed=seed)
        splits = {"train": train.rows(kept), "validation": train.rows(held_out), "test": splits["test"]}
    if limit is not None:
        train = splits["train"]
        splits = splits | {"train": train.rows(some_of_each(train.strata(), limit, seed=seed))}
    decoded = {split: _decoded(images, device) for split, images in splits.items()}
    data = ImageData(name, decoded, num_classes, _MEAN, _DEVIATION, batch_size, flip=flip)
    return replace(data, padding=decoded["train"].images.shape[2] // 8)


def _num_classes(images: EncodedImages, *, where: str) -> int | None:
    """How many classes the training images have; None where they have no labels."""
    if images.labels is not None:
        return check_labels(images.labels, where=where)
    check_count(len(images.sources), where=where)
    return None


def _decoded(images: EncodedImages, device: torch.device | str) -> ImageSplit:
    """The images decoded, RGB; an empty split is left to `ImageSplit` to refuse."""
    pixels: NDArray[np.uint8] = np.empty((0, 1, 1, 3), np.uint8)
    for row, (source, name) in enumerate(zip(images.sources, images.names, strict=True)):
        image = _pixels(source, name)
        if row == 0:
            _check_fits(len(images.sources), image.nbytes)
            pixels = np.empty((len(images.sources), *image.shape), np.uint8)
        elif image.shape != pixels.shape[1:]:
            raise DataError(
                f"all images must have one size: {images.names[0]} is {pixels.shape[2]}x{pixels.shape[1]}, but {name}"
                f" is {image.shape[1]}x{image.shape[0]}; scale them to one size first"
            )
        pixels[row] = image
    channels_first = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    labels = None if images.labels is None else torch.from_numpy(images.labels).to(device)
    return ImageSplit(channels_first.to(device), labels)


def _check_fits(count: int, size: int) -> None:
    """Refuse images that would not fit in memory, where a data set lies as a whole."""
    if count * size > memory_bytes():
        raise DataError(
            f"{count:,} images of {size:,} bytes need {count * size / 2**30:,.1f} GiB, and this machine has "
            f"{memory_bytes() / 2**30:,.1f}; scale them down, take fewer, or give loaders: package.module:function"
        )


def memory_bytes() -> int:
    """The memory of this machine; a terabyte where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 40


def _pixels(source: bytes | Path, name: str) -> NDArray[np.uint8]:
    """(height, width, 3) from an encoded image."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("images need the package pillow; install it with: pip install 'amsc[parquet]'") from error
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"it has {image.width}x{image.height} pixels, more than {_MOST_PIXELS:,}")
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # on foreign bytes pillow's readers fail with whatever they stumble on
        raise DataError(f"cannot decode {name} as an image: {error}") from error
