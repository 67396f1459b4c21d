"""What is handed over where data or a loader are expected, and the line that makes them of it."""

from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

__all__ = ["data_line", "loader_line", "yields_examples"]

_LOADERS = "amsc.data.LoaderData(train_loader, validation_loader, test_loader)"


def data_line(value: Any) -> str:
    """The line to write where `value` was given as data and is none."""
    if isinstance(value, Dataset):
        return (
            "it is one data set of single examples, and amsc needs batches, in a split to learn from, one to choose by "
            f"and one for the scores it reports: write {_LOADERS} with loaders such as train_loader = "
            "DataLoader(train_set, batch_size=128, shuffle=True)"
        )
    if isinstance(value, DataLoader):
        return (
            "it is one loader, and amsc needs a split to learn from, one to choose by and one for the scores it "
            f"reports: write {_LOADERS}"
        )
    if isinstance(value, Mapping) and {"train", "validation"} <= value.keys() <= {"train", "validation", "test"}:
        return "write amsc.data.LoaderData(**data)"
    if isinstance(value, tuple | list) and len(value) in (2, 3):
        return "if these are the loaders of the train, validation and test splits, write amsc.data.LoaderData(*data)"
    if hasattr(value, "train_dataloader"):
        return (
            "it is a LightningDataModule: once it is set up, write amsc.data.LoaderData(data.train_dataloader(), "
            "data.val_dataloader(), data.test_dataloader())"
        )
    return f"wrap your own loaders: {_LOADERS}"


def yields_examples(loader: Any) -> bool:
    """Whether this is a data set, which gives examples, and no loader of batches."""
    return isinstance(loader, Dataset) and not isinstance(loader, IterableDataset)


def loader_line(split: str) -> str:
    """The line that makes a loader of a data set for `split`."""
    shuffled = ", shuffle=True" if split == "train" else ""
    return (
        f"write DataLoader({split}_set, batch_size=128{shuffled}), or DataLoader({split}_set, batch_size=None) if what "
        "it gives are batches already"
    )
