"""Images in Parquet files with the columns of the hub: a struct with the encoded `bytes`, and integer labels if any."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amsc.data.encoded import EncodedImages, image_data, memory_bytes, one_set_split_in_three
from amsc.data.images import ImageData
from amsc.errors import DataError

__all__ = ["read_parquet"]

_AT_ONCE = 64
"""Rows that are read together."""
_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "labels", "fine_label")


def read_parquet(
    path: str | Path,
    *,
    seed: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    limit: int | None = None,
    flip: str = "random",
) -> ImageData:
    """The images in `path`: a folder with train*.parquet and test*.parquet (and perhaps validation*.parquet), in it
    or one level below; or a single file, which is split 60/20/20.

    Columns are `img` or `image` (struct with `bytes`, or binary) and `label`, `labels` or `fine_label` (integers
    0..classes-1). Files without such a column give images without labels, for the task imitation. `seed`,
    `limit` and the augmentation: see `image_data`.

    Raises:
        DataError: something is missing, empty, corrupt or of the wrong type; the message names the file.
    """
    path = Path(path)
    if path.is_file():
        splits = one_set_split_in_three(_read([path]), seed=seed, where=str(path))
    elif path.is_dir():
        splits = {split: _read(files) for split, files in _files(path).items()}
    else:
        raise DataError(f"expected a Parquet file or a folder with train*.parquet, but {path} is not there")
    return image_data(
        f"parquet:{path}", splits, seed=seed, batch_size=batch_size, device=device, limit=limit, flip=flip
    )


def _files(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for split in ("train", "validation", "test"):
        files = sorted(folder.glob(f"{split}*.parquet")) or sorted(folder.glob(f"*/{split}*.parquet"))
        if files:
            found[split] = files
        elif split != "validation":
            present = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
            raise DataError(f"expected {split}*.parquet in {folder}, which holds {present}")
    return found


def _read(files: list[Path]) -> EncodedImages:
    parts = [_read_file(file) for file in files]
    return EncodedImages(
        [source for part in parts for source in part.sources],
        _joined(files, [part.labels for part in parts]),
        [name for part in parts for name in part.names],
    )


def _joined(files: list[Path], labels: list[NDArray[np.int64] | None]) -> NDArray[np.int64] | None:
    """The labels of all files, None where none has any.

    Raises:
        DataError: only some have.
    """
    there = [each for each in labels if each is not None]
    if there and len(there) < len(labels):
        named = {each is None: file for file, each in zip(files, labels, strict=True)}
        raise DataError(f"{named[False]} has labels, {named[True]} has none; give both the same columns")
    return np.concatenate(there) if there else None


def _read_file(file: Path) -> EncodedImages:
    try:
        import pyarrow
        from pyarrow import parquet as arrow_parquet
    except ImportError as error:
        raise DataError("parquet: needs the package pyarrow; install it with: pip install 'amsc[parquet]'") from error
    images: list[bytes] = []
    values: list[Any] = []
    try:
        with arrow_parquet.ParquetFile(file) as table:
            present = table.schema_arrow.names
            image_column = _image_column(file, present)
            label_column = next((name for name in _LABEL_COLUMNS if name in present), None)
            columns = [image_column] if label_column is None else [image_column, label_column]
            _check_size(file, table.metadata)
            size = 0
            for batch in table.iter_batches(_AT_ONCE, columns=columns):
                found = _bytes(batch.column(image_column).to_pylist(), file, len(images))
                size += sum(map(len, found))
                _check_room(file, size)  # a short file may say the same image a million times
                images += found
                values += [] if label_column is None else batch.column(label_column).to_pylist()
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise DataError(f"cannot read {file} as Parquet: {(str(error).splitlines() or [''])[0]}") from error
    if not images:
        raise DataError(f"{file} has no rows")
    labels = None if label_column is None else _labels(values, f"{file}, column {label_column}")
    return EncodedImages(images, labels, [f"row {row} of {file}" for row in range(len(images))])


def _check_size(file: Path, metadata: Any) -> None:
    """Refuse what would not fit in memory once it is unpacked, by what the file says of itself."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    _check_room(file, max(metadata.num_rows, sum(group.total_byte_size for group in groups)))


def _check_room(file: Path, size: int) -> None:
    if size > memory_bytes():
        raise DataError(f"{file} needs {size:,} bytes once it is unpacked, more than this machine has")


def _image_column(file: Path, present: list[str]) -> str:
    for name in _IMAGE_COLUMNS:
        if name in present:
            return name
    raise DataError(f"{file} has no column {' or '.join(_IMAGE_COLUMNS)}; its columns are {', '.join(present)}")


def _labels(values: list[Any], where: str) -> NDArray[np.int64]:
    for row, value in enumerate(values):
        if not isinstance(value, int):
            raise DataError(f"{where}: expected integer labels, row {row} holds {value!r}")
    try:
        return np.array(values, np.int64)
    except OverflowError as error:
        raise DataError(f"{where}: a label is too large for 64 bits") from error


def _bytes(values: list[Any], file: Path, first: int) -> list[bytes]:
    """The encoded images of rows of a file, of which the first has this number."""
    found: list[bytes] = []
    for row, value in enumerate(values, start=first):
        encoded = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(encoded, bytes):
            raise DataError(f"row {row} of {file}: expected encoded image bytes, found {type(encoded).__name__}")
        found.append(encoded)
    return found
