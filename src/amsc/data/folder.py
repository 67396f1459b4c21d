"""Images in a folder per class, or in folders without classes."""

from pathlib import Path

import numpy as np
import torch

from amsc.data.encoded import EncodedImages, image_data, one_set_split_in_three
from amsc.data.images import ImageData
from amsc.errors import DataError

__all__ = ["read_folder"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".webp"}


def read_folder(
    path: str | Path,
    *,
    seed: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    limit: int | None = None,
    flip: str = "random",
) -> ImageData:
    """The images in `path`/train/CLASS/ and `path`/test/CLASS/, classes numbered in the order of their names.

    A folder `val` or `validation` is the validation split where there is a `test` folder too; alone, it stands for the
    test split, as in ImageNet. Without class folders, images in `path`/train/ and `path`/test/ have no labels, which is
    enough for the task imitation; images in `path` itself have none either and are split 60/20/20. `seed`, `limit` and
    the augmentation: see `image_data`.

    Raises:
        DataError: folders or images are missing, a class is unknown to train, an image is corrupt or of another
            size; the message names it.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"expected a folder with train and test folders, but {path} is not there or not a folder")
    if _files(path) and not (path / "train").is_dir():
        splits = one_set_split_in_three(_unlabelled(path), seed=seed, where=str(path))
    else:
        splits = _splits(_split_folders(path))
    return image_data(f"folder:{path}", splits, seed=seed, batch_size=batch_size, device=device, limit=limit, flip=flip)


def _splits(folders: dict[str, Path]) -> dict[str, EncodedImages]:
    """The images of each split, with labels where train has a folder per class."""
    classes = [entry.name for entry in _entries(folders["train"]) if entry.is_dir()]
    if classes:
        return {split: _images(place, classes) for split, place in folders.items()}
    if not _files(folders["train"]):
        raise DataError(
            f"{folders['train']} holds no class folders and no images; expected train/CLASS/IMAGE.png, or "
            "train/IMAGE.png where there are no labels"
        )
    return {split: _unlabelled(place) for split, place in folders.items()}


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
        images = _files(entry)
        files += images
        labels += [classes.index(entry.name)] * len(images)
    if not files:
        raise DataError(f"there are no images in the class folders of {place}")
    return EncodedImages(files, np.array(labels, np.int64), [str(file) for file in files])


def _unlabelled(place: Path) -> EncodedImages:
    files = _files(place)
    if not files:
        raise DataError(f"there are no images in {place}; train has no class folders, so that {place.name} has none")
    return EncodedImages(files, None, [str(file) for file in files])


def _files(place: Path) -> list[Path]:
    """The images in the folder itself, by name."""
    return [file for file in _entries(place) if file.suffix.lower() in _SUFFIXES and file.is_file()]


def _entries(place: Path) -> list[Path]:
    """What the folder holds, by name, without hidden entries."""
    return sorted(entry for entry in place.iterdir() if not entry.name.startswith("."))
