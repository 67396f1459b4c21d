"""The user's own loaders as `Data`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, SequentialSampler

from amsc.data.batch import Unlabelled, batch_size, may_be_split, moved, some_rows
from amsc.data.mistaken import loader_line, yields_examples
from amsc.data.spread import spread_numbers
from amsc.errors import DataError

__all__ = ["LoaderData"]

_ONCE = "it can be read only once, amsc reads it many times; give a list of batches, a DataLoader, or an object whose"
_READ_ONCE_MODULES = {"builtins", "itertools", "torch.utils.data.dataloader"}
"""Where the iterators live of which it is known that they never start again."""


@dataclass(frozen=True, eq=False)
class LoaderData:
    """Loaders that yield (inputs, targets), or what `split` makes such a pair of; implements `Data`.

        LoaderData(train, validation, split=lambda batch: ({"input_ids": batch["input_ids"]}, batch["labels"]))
        LoaderData(train, validation, split=amsc.data.inputs_alone)  # no labels, for the task imitation

    A loader is a torch DataLoader, a list of batches, or anything else that starts anew each time it is iterated. One
    without a length is read once to count its batches. Inputs are what the model's forward takes: a tensor, a tuple or
    a dict of arguments. Targets are a tensor, or what else `amsc.data.batch` knows. Batches are moved to `device`.

    A scan can do without `test`; `compress` and `pick` need one, for the scores that they report.

    Order and augmentation are the loaders' own, also where the seed is None: let the train loader shuffle. So that a
    run can be repeated, a pass draws its random numbers from torch generators started with the seed (0 where the seed
    is None): torch's own CPU generator and the one the loader was given. Both are as before whenever the caller has
    control. Numbers drawn from `random` or numpy in the main process are not covered.

    Raises:
        DataError: a loader cannot be iterated, or only once, or is a data set.
    """

    train: Iterable[Any]
    validation: Iterable[Any]
    test: Iterable[Any] | None = None
    num_classes: int | None = None
    device: torch.device | str = "cpu"
    name: str = "loader"
    split: Callable[[Any], tuple[Any, Any]] | None = None
    _counts: dict[str, tuple[int, int]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            loader = getattr(self, name)
            if name != "test" or loader is not None:
                _check_loader(name, loader)

    @property
    def batch_size(self) -> int | None:
        """Examples in a training batch, if the loader says so."""
        size = getattr(self.train, "batch_size", None)
        return size if isinstance(size, int) else None

    def batches(self, split: str, *, seed: int | None = None) -> Iterator[tuple[Any, Any]]:
        """One pass over the loader of `split`.

        Raises:
            DataError: there is no such split, a batch is not a pair of inputs and targets, or the loader yields nothing
                although it has batches.
        """
        loader, is_empty = self._loader(split), True
        for batch in _seeded(loader, seed or 0, _generators(loader)):
            is_empty = False
            yield self._pair(split, batch)
        if is_empty and (_length(loader) or self._counts.get(split, (0, 0))[0]):
            raise DataError(
                f"the {split} loader has batches, but a pass over it yields none: {_ONCE} __iter__ starts anew"
            )

    def spread_batches(self, split: str, count: int) -> Iterator[tuple[Any, Any]]:
        """At most `count` batches of `split`, the same at every call; no others are read.

        Of a list they lie evenly over it. A DataLoader that does not shuffle gives them from one fixed shuffle of its
        data set, as its examples may be sorted by class; any other loader gives its first ones.
        """
        loader = self._loader(split)
        for batch in islice(_seeded(_part(loader, count), 0, _generators(loader)), count):
            yield self._pair(split, batch)

    def num_batches(self, split: str) -> int:
        """How many batches one pass over `split` takes."""
        length = _length(self._loader(split))
        return self._counted(split)[0] if length is None else length

    def num_examples(self, split: str) -> int:
        """How many examples one pass over `split` takes (as many as its data set has where the loader does not say); 0
        for "test" where there is no test loader."""
        if split == "test" and self.test is None:
            return 0
        loader = self._loader(split)
        size = loader.batch_size if isinstance(loader, DataLoader) else None
        drawn = _length(loader.sampler) if isinstance(loader, DataLoader) and size else None
        if drawn is None:
            drawn = _length(getattr(loader, "dataset", None))
        if drawn is None:
            return self._counted(split)[1]
        return min(drawn, len(loader) * size) if isinstance(loader, DataLoader) and size else drawn

    def example_inputs(self, batch: int = 1) -> Any:
        """The first `batch` inputs of the first training batch (seed 0), or all where they cannot be told apart.

        Raises:
            DataError: the loader is empty.
        """
        for inputs, target in self.batches("train"):
            return _first_examples(inputs, target, batch)
        raise DataError("the train loader yields nothing")

    def _loader(self, split: str) -> Any:
        loaders = {"train": self.train, "validation": self.validation, "test": self.test}
        loader = loaders.get(split)
        if loader is None:
            present = ", ".join(name for name, value in loaders.items() if value is not None)
            raise DataError(f"{self.name} has no split {split!r}; there are {present}")
        return loader

    def _counted(self, split: str) -> tuple[int, int]:
        """The numbers of batches and examples of a loader that does not know them, from one pass over it."""
        if split not in self._counts:
            sizes = [batch_size(target) for _, target in self.batches(split)]
            self._counts[split] = (len(sizes), sum(sizes))
        return self._counts[split]

    def _pair(self, split: str, batch: Any) -> tuple[Any, Any]:
        pair = batch if self.split is None else self.split(batch)
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        if not is_pair or not isinstance(pair[1], Tensor | list | tuple | dict | Unlabelled):
            raise DataError(
                f"the {split} loader must yield pairs (inputs, targets), it yielded {_described(pair)}; make them "
                "with LoaderData(split=...); of inputs without labels, for the task imitation, "
                "split=amsc.data.inputs_alone makes them"
            )
        return moved(pair[0], torch.device(self.device)), moved(pair[1], torch.device(self.device))


def _check_loader(split: str, loader: Any) -> None:
    if isinstance(loader, type):
        raise DataError(f"the {split} loader is the class {loader.__name__}; give an object of it")
    if not isinstance(loader, Iterable) and not hasattr(loader, "__getitem__"):
        raise DataError(
            f"the {split} loader must be iterable, such as a DataLoader or a list of batches; got "
            f"{getattr(loader, '__name__', type(loader).__name__)}"
        )
    if yields_examples(loader):
        raise DataError(
            f"the {split} loader is a {type(loader).__name__}, a data set of single examples; {loader_line(split)}"
        )
    if isinstance(loader, Iterator) and type(loader).__module__ in _READ_ONCE_MODULES:
        raise DataError(f"the {split} loader is a {type(loader).__name__}: {_ONCE} __iter__ starts anew")


def _first_examples(inputs: Any, target: Any, count: int) -> Any:
    """These inputs of a batch in memory of their own, or all where by their shapes they are not along first axes."""
    part = some_rows(inputs, slice(0, count)) if may_be_split(inputs, target) else inputs
    return pytree.tree_map_only(Tensor, Tensor.clone, part)


def _described(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(type(v).__name__ for v in value)}"
    return type(value).__name__


def _length(sized: Any) -> int | None:
    """Its length; None where it has none (a DataLoader has the method, but over a stream it fails)."""
    try:
        return len(sized)
    except (TypeError, NotImplementedError):
        return None


def _part(loader: Any, count: int) -> Any:
    """Something that yields `count` batches of the loader and reads no others, or else the loader."""
    if isinstance(loader, list | tuple):
        return [loader[number] for number in spread_numbers(len(loader), count)]
    if type(loader) is not DataLoader or loader.batch_size is None or not hasattr(loader.dataset, "__getitem__"):
        return loader
    if type(loader.sampler) is SequentialSampler:
        size = loader.batch_size
        rows = torch.randperm(len(loader.sampler), generator=torch.Generator().manual_seed(0))
        chunks = rows[: len(rows) - len(rows) % size] if loader.drop_last else rows
        return _with_batches(loader, [chunk.tolist() for chunk in chunks.split(size)[:count]])
    return _with_batches(loader, _First(loader.batch_sampler, count))


@dataclass(frozen=True)
class _First:
    """The first `count` batches of indices, drawn anew each time."""

    batches: Any
    count: int

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.batches), self.count)


def _with_batches(loader: "DataLoader[Any]", batches: Any) -> "DataLoader[Any]":
    """The same loader for these batches of indices."""
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


def _generators(loader: Any) -> list[torch.Generator]:
    """Where the loader draws its random numbers from."""
    own = (getattr(loader, "generator", None), getattr(getattr(loader, "sampler", None), "generator", None))
    found = (torch.default_generator, *(g for g in own if isinstance(g, torch.Generator)))
    return list({id(g): g for g in found}.values())


def _seeded(loader: Iterable[Any], seed: int, generators: Sequence[torch.Generator]) -> Iterator[Any]:
    """The batches of `loader`, drawn from generators that start at `seed`.

    The generators change hands at every batch: the caller's numbers (dropout, say) must neither depend on the
    loader's nor influence them.
    """
    inside = [torch.Generator().manual_seed(seed).get_state() for _ in generators]
    iterator: Iterator[Any] | None = None
    while True:
        outside = [g.get_state() for g in generators]
        _set_states(generators, inside)
        try:
            iterator = iter(loader) if iterator is None else iterator
            batch = next(iterator)
        except StopIteration:
            return
        finally:
            inside = [g.get_state() for g in generators]
            _set_states(generators, outside)
        yield batch


def _set_states(generators: Sequence[torch.Generator], states: list[Tensor]) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
