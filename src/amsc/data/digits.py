"""The 1797 handwritten digits that ship with scikit-learn: 8x8 pixels, one channel."""

import numpy as np
import torch

from amsc.data.images import ImageData, ImageSplit
from amsc.data.splits import some_of_each, split_in_three

__all__ = ["read_digits"]


def read_digits(
    *, seed: int, batch_size: int, device: torch.device | str = "cpu", limit: int | None = None
) -> ImageData:
    """The digits, 60 % for training, 20 % for validation and 20 % for the test, stratified and drawn with `seed`.

    `limit` caps the number of training examples; they are drawn from all classes. Training images are shifted by up to
    one pixel, never mirrored.
    """
    from sklearn.datasets import load_digits  # which takes longer to import than amsc

    bunch = load_digits()
    # grey values are 0..16
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    rows = split_in_three(labels, seed=seed, where="digits")
    if limit is not None:
        rows = rows._replace(train=rows.train[some_of_each(labels[rows.train], limit, seed=seed)])
    splits = {
        name: ImageSplit(torch.from_numpy(images[index]).to(device), torch.from_numpy(labels[index]).to(device))
        for name, index in rows._asdict().items()
    }
    pixels = images[rows.train] / 255
    return ImageData(
        name="digits",
        splits=splits,
        num_classes=10,
        mean=(float(pixels.mean()),),
        deviation=(float(pixels.std()),),
        batch_size=batch_size,
        padding=1,
    )
