"""Images in a folder per class."""

from pathlib import Path

import numpy as np
import torch

from amsc.data.encoded import EncodedImages, image_data
from amsc.data.images import ImageData
from amsc.errors import DataError

__all__ = ["read_folder"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".webp"}


def read_folder(
    path: str | Path, *, seed: int, batch_size: int, device: torch.device | str = "cpu", limit: int | None = None
) -> ImageData:
    """The images in `path`/train/CLASS/ and `path`/test/CLASS/, classes numbered in the order of their names.

    A folder `val` or `validation` is the validation split where there is a `test` folder too; alone, it stands for the
    test split, as in ImageNet. `seed`, `limit` and the augmentation: see `image_data`.

    Raises:
        DataError: folders or images are missing, a class is unknown to train, an image is corrupt or of another
            size; the message names it.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"expected a folder with train and test folders, but {path} is not there or not a folder")
    folders = _split_folders(path)
    classes = [entry.name for entry in _entries(folders["train"]) if entry.is_dir()]
    if not classes:
        raise DataError(f"{folders['train']} holds no class folders; expected train/CLASS/IMAGE.png")
    splits = {split: _images(place, classes) for split, place in folders.items()}
    return image_data(f"folder:{path}", splits, seed=seed, batch_size=batch_size, device=device, limit=limit)


def _split_folders(path: Path) -> dict[str, Path]:
    held_out = next((path / name for name in ("validation", "val") if (path / name).is_dir()), None)
    found = {"train": path / "train"}
    if (path / "test").is_dir():
        found["test"] = path / "test"
        if held_out is not None:
            found["validation"] = held_out
    elif held_out is not None:
        found["test"] = held_out
    if "test" not in found or not found["train"].is_dir():
        present = ", ".join(entry.name for entry in _entries(path)[:10]) or "nothing"
        raise DataError(f"expected folders train and test (or val) in {path}, which holds {present}")
    return found


def _images(place: Path, classes: list[str]) -> EncodedImages:
    files: list[Path] = []
    labels: list[int] = []
    for entry in _entries(place):
        if not entry.is_dir():
            continue
        if entry.name not in classes:
            raise DataError(f"class {entry.name!r} in {place} is not among the {len(classes)} classes of train")
        images = [file for file in _entries(entry) if file.suffix.lower() in _SUFFIXES]
        files += images
        labels += [classes.index(entry.name)] * len(images)
    if not files:
        raise DataError(f"there are no images in the class folders of {place}")
    return EncodedImages(files, np.array(labels, np.int64), [str(file) for file in files])


def _entries(place: Path) -> list[Path]:
    """What the folder holds, by name, without hidden entries."""
    return sorted(entry for entry in place.iterdir() if not entry.name.startswith("."))
