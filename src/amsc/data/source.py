"""From what a user writes for DATA to a data set."""

import torch

from amsc.data.digits import read_digits
from amsc.data.folder import read_folder
from amsc.data.loaders import LoaderData
from amsc.data.mistaken import data_line
from amsc.data.parquet import read_parquet
from amsc.data.protocol import Data
from amsc.errors import DataError
from amsc.models.function import call_function
from amsc.words.nearest import nearest

__all__ = ["open_data"]

_FROM_PATH = {"parquet": read_parquet, "folder": read_folder}
_SUPPORTED = "digits, parquet:PATH, folder:PATH or package.module:function"


def open_data(
    name: str,
    *,
    seed: int = 0,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    limit: int | None = None,
    flip: str = "random",
) -> Data:
    """The data called `name`: `digits`, `parquet:PATH`, `folder:PATH`, or `package.module:function`, a function
    without arguments that returns a `Data`, or the loaders of its splits (to which the other options do not apply).

    `seed` decides which examples are held out for validation; `limit` caps the training examples, for short
    trials; `flip` says which training images of a path are mirrored ("random", "alternating" or "none").

    Raises:
        DataError: no such data, or they cannot be used; the message says what is wrong and where.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise DataError(f"batch_size and limit must be at least 1, not {batch_size} and {limit}")
    if name == "digits":
        return read_digits(seed=seed, batch_size=batch_size, device=device, limit=limit)
    kind, _, rest = name.partition(":")
    if kind in _FROM_PATH:
        if not rest:
            raise DataError(f"{kind}: needs a path, as in {kind}:PATH")
        return _FROM_PATH[kind](rest, seed=seed, batch_size=batch_size, device=device, limit=limit, flip=flip)
    if not rest:
        raise DataError(f"there are no data {name!r}, expected {_SUPPORTED}{nearest(name, ('digits', *_FROM_PATH))}")
    data = call_function(name, DataError)
    if isinstance(data, tuple | list) and len(data) in (2, 3):
        return LoaderData(**dict(zip(("train", "validation", "test"), data, strict=False)), name=name)
    if not isinstance(data, Data):
        raise DataError(
            f"{name}() returned {type(data).__name__}, expected data with batches, num_batches, num_examples and"
            f" example_inputs; {data_line(data)}"
        )
    return data
