"""Which examples are for training, which for validation, which for the test."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amsc.errors import DataError

__all__ = ["SplitRows", "carve_validation", "check_count", "check_labels", "some_of_each", "split_in_three"]

Indices = NDArray[np.int64]


class SplitRows(NamedTuple):
    """Row numbers of the examples in each split."""

    train: Indices
    validation: Indices
    test: Indices


def split_in_three(labels: Indices, *, seed: int, where: str) -> SplitRows:
    """60 % train, 20 % validation, 20 % test, the classes in equal proportions, drawn with `seed`.

    Raises:
        DataError: a class has too few examples to be in all three.
    """
    from sklearn.model_selection import train_test_split  # which takes longer to import than amsc

    rows = np.arange(len(labels))
    try:
        train, rest = train_test_split(rows, train_size=0.6, random_state=seed, stratify=labels)
        validation, test = train_test_split(rest, train_size=0.5, random_state=seed, stratify=labels[rest])
    except ValueError as error:
        raise DataError(
            f"{where}: too few examples to split into train, validation and test with every class in each ({error})"
        ) from error
    return SplitRows(train, validation, test)


def carve_validation(count: int, *, seed: int) -> tuple[Indices, Indices]:
    """Rows 0..count-1 in random order, as (train, validation); validation gets a tenth, at most 5000, at least 1."""
    order = np.random.default_rng(seed).permutation(count)
    held_out = max(1, min(count // 10, 5000))
    return order[held_out:], order[:held_out]


def some_of_each(labels: Indices, count: int, *, seed: int) -> Indices:
    """`count` rows (all if there are fewer) with the classes in their proportions, in random order, drawn with `seed`.

    No class is left out where `count` is at least their number; a smaller count takes rows of a larger one.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    drawn = labels[order]
    quantile = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(drawn == label)
        quantile[members] = (np.arange(len(members)) + 0.5) / len(members)
        quantile[members[0]] = 0  # one of every class comes before any second one
    chosen = np.argsort(quantile, kind="stable")[:count]
    rows: Indices = order[np.sort(chosen)]
    return rows


def check_count(count: int, *, where: str) -> None:
    """Raises DataError for fewer than ten training examples."""
    if count < 10:
        raise DataError(f"{where} has {count} training examples; at least 10 are needed")


def check_labels(labels: Indices, *, where: str) -> int:
    """The number of classes in the training labels, which must be 0, 1, ..., classes - 1.

    Raises:
        DataError: fewer than ten examples, a single class, or labels with gaps or below zero.
    """
    check_count(len(labels), where=where)
    present = np.unique(labels)
    if len(present) == 1:
        raise DataError(f"{where}: all training examples are of class {present[0]}; at least two classes are needed")
    if not np.array_equal(present, np.arange(len(present))):
        outside = present[(present < 0) | (present >= len(present))]
        raise DataError(
            f"{where}: labels of {len(present)} classes must be 0..{len(present) - 1}, but there is {outside[0]};"
            " number the classes without gaps"
        )
    return len(present)
