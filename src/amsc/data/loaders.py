"""The user's own DataLoaders as `Data`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

from amsc.errors import DataError

__all__ = ["LoaderData"]


@dataclass(frozen=True, eq=False)
class LoaderData:
    """DataLoaders that yield (inputs, targets), or what `split` makes such a pair of; implements `Data`.

        LoaderData(train, validation, split=lambda batch: ({"input_ids": batch["input_ids"]}, batch["labels"]))

    Inputs are what the model's forward takes: a tensor, a tuple or a dict of arguments. Targets are a tensor, or what
    else `amsc.data.batch` knows. Batches are moved to `device`.

    Order and augmentation are the loaders' own. So that a run can be repeated, a pass draws its random numbers from
    torch generators started with the seed (0 where the seed is None): torch's own CPU generator and the one the
    loader was given. Both are as before whenever the caller has control. Numbers drawn from `random` or numpy in the
    main process are not covered.
    """

    train: DataLoader[Any]
    validation: DataLoader[Any]
    test: DataLoader[Any] | None = None
    num_classes: int | None = None
    device: torch.device | str = "cpu"
    name: str = "loader"
    split: Callable[[Any], tuple[Any, Any]] | None = None

    def batches(self, split: str, *, seed: int | None = None) -> Iterator[tuple[Any, Any]]:
        """One pass over the loader of `split`.

        Raises:
            DataError: there is no such split, or a batch is not a pair of inputs and targets.
        """
        for batch in _seeded(self._loader(split), seed or 0):
            pair = batch if self.split is None else self.split(batch)
            if (
                not isinstance(pair, tuple | list)
                or len(pair) != 2
                or not isinstance(pair[1], Tensor | list | tuple | dict)
            ):
                raise DataError(
                    f"the {split} loader must yield pairs (inputs, targets), it yielded {_described(pair)}; make them "
                    "with LoaderData(split=...)"
                )
            yield self._moved(pair[0]), self._moved(pair[1])

    def num_batches(self, split: str) -> int:
        """How many batches one pass over `split` takes."""
        return len(self._loader(split))

    def num_examples(self, split: str) -> int:
        """How many examples the data set behind the loader has; 0 for "test" where there is no test loader."""
        if split == "test" and self.test is None:
            return 0
        dataset: Any = self._loader(split).dataset
        try:
            return len(dataset)
        except TypeError as error:
            raise DataError(f"the data set of the {split} loader has no length; give one that has `__len__`") from error

    def example_inputs(self, batch: int = 1) -> Any:
        """The first `batch` inputs of the first training batch (seed 0).

        Raises:
            DataError: the loader is empty.
        """
        for inputs, _ in self.batches("train"):
            return pytree.tree_map_only(Tensor, lambda tensor: tensor[:batch], inputs)
        raise DataError("the train loader yields nothing")

    def _loader(self, split: str) -> DataLoader[Any]:
        loaders = {"train": self.train, "validation": self.validation, "test": self.test}
        loader = loaders.get(split)
        if loader is None:
            present = ", ".join(name for name, value in loaders.items() if value is not None)
            raise DataError(f"{self.name} has no split {split!r}; there are {present}")
        return loader

    def _moved(self, inputs: Any) -> Any:
        return pytree.tree_map_only(Tensor, lambda t: t.to(self.device), inputs)


def _described(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(type(v).__name__ for v in value)}"
    return type(value).__name__


def _seeded(loader: DataLoader[Any], seed: int) -> Iterator[Any]:
    """The batches of `loader`, drawn from generators that start at `seed`.

    The generators change hands at every batch: the caller's numbers (dropout, say) must neither depend on the
    loader's nor influence them.
    """
    own = (loader.generator, getattr(loader.sampler, "generator", None))
    generators = {id(g): g for g in (torch.default_generator, *own) if g is not None}.values()
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


def _set_states(generators: Any, states: list[Tensor]) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
