"""The user's DataLoaders: repeatable from a seed, and nobody's random numbers disturbed."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from amsc.data import Data, LoaderData, batch_size, moved, some_examples
from amsc.errors import DataError

EXAMPLES = TensorDataset(torch.arange(10.0)[:, None], torch.arange(10) % 2)


class Noisy(Dataset[Any]):
    """An augmentation that draws from torch's own generator."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        # noise of 16 bits: adding the index leaves it exact
        return torch.randint(2**16, (1,)) / 2**16 + index, index % 2


def shuffled(**options: Any) -> LoaderData:
    return LoaderData(DataLoader(Noisy(), 4, shuffle=True, **options), DataLoader(EXAMPLES, 4))


def collect(data: LoaderData, seed: int | None) -> Tensor:
    return torch.cat([x for x, _ in data.batches("train", seed=seed)])


def test_is_data() -> None:
    assert isinstance(shuffled(), Data)


@pytest.mark.parametrize("workers", [0, 1])
def test_seed_determines_order_and_augmentation(workers: int) -> None:
    data = shuffled(num_workers=workers)
    one = collect(data, 1)
    torch.rand(3)
    assert torch.equal(one, collect(data, 1))
    assert not torch.equal(one, collect(data, 2))
    # the noise goes on from batch to batch, it does not start again
    assert len(one.frac().unique()) == 10


def test_no_seed_is_repeatable_too() -> None:
    data = shuffled()
    assert torch.equal(collect(data, None), collect(data, None))


def test_callers_random_numbers_are_undisturbed() -> None:
    torch.manual_seed(7)
    expected = [torch.rand(1) for _ in range(3)]
    torch.manual_seed(7)
    assert [torch.rand(1) for _ in shuffled().batches("train", seed=1)] == expected


def test_callers_random_numbers_do_not_reach_the_loader() -> None:
    data = shuffled()
    drawing = [(x, torch.rand(5))[0] for x, _ in data.batches("train", seed=1)]
    assert torch.equal(torch.cat(drawing), collect(data, 1))


def test_loaders_own_generator_is_seeded_and_given_back() -> None:
    generator = torch.Generator().manual_seed(99)
    data, state = shuffled(generator=generator), generator.get_state()
    one = collect(data, 1)
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(one, collect(data, 1))
    assert not torch.equal(one.floor(), collect(data, 2).floor())


def test_random_numbers_come_back_after_an_error() -> None:
    state = torch.get_rng_state()
    data = LoaderData(DataLoader([3], shuffle=True), DataLoader(EXAMPLES))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="it yielded Tensor"):
        collect(data, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_counts_and_example_inputs() -> None:
    data = LoaderData(DataLoader(EXAMPLES, 4), DataLoader(EXAMPLES, 5), num_classes=2)
    assert (data.num_batches("train"), data.num_batches("validation")) == (3, 2)
    assert (data.num_examples("train"), data.num_examples("test")) == (10, 0)
    assert data.example_inputs(2).tolist() == [[0.0], [1.0]]


def test_inputs_of_any_form_are_moved() -> None:
    class Named(Noisy):
        def __getitem__(self, index: int) -> tuple[Any, int]:
            return {"a": torch.zeros(1), "b": index}, 0

    data = LoaderData(DataLoader(Named(), 4), DataLoader(EXAMPLES), device="meta")
    inputs, target = next(iter(data.batches("train")))
    assert inputs["a"].device.type == inputs["b"].device.type == target.device.type == "meta"
    assert {name: len(tensor) for name, tensor in data.example_inputs(2).items()} == {"a": 2, "b": 2}


def test_batches_of_another_form_are_split_by_a_function() -> None:
    loader = DataLoader([{"x": torch.ones(2) * i, "boxes": torch.zeros(i, 4)} for i in range(3)], 3, collate_fn=list)
    with pytest.raises(DataError, match=r"it yielded a list of dict, dict, dict; make them with LoaderData\(split"):
        next(iter(LoaderData(loader, loader).batches("train")))

    def split(batch: list[Any]) -> tuple[Any, Any]:
        return torch.stack([one["x"] for one in batch]), [one["boxes"] for one in batch]

    data = LoaderData(loader, loader, split=split, device="meta")
    inputs, boxes = next(iter(data.batches("train")))
    assert inputs.shape == (3, 2)
    assert [len(one) for one in boxes] == [0, 1, 2]
    assert all(one.device.type == "meta" for one in boxes)
    assert batch_size(boxes) == 3
    assert [len(one) for one in some_examples(boxes, slice(1, 3))] == [1, 2]


def test_targets_are_tensors_nested_or_listed() -> None:
    nested = {"a": torch.arange(4), "b": (torch.zeros(4, 2),)}
    assert batch_size(nested) == batch_size(torch.arange(4)) == 4
    part = some_examples(nested, slice(1, 3))
    assert part["a"].tolist() == [1, 2]
    assert part["b"][0].shape == (2, 2)
    assert moved(nested, torch.device("meta"))["b"][0].device.type == "meta"
    with pytest.raises(DataError, match="targets with a tensor in them"):
        batch_size({"a": 1})


def test_absent_split_is_named() -> None:
    with pytest.raises(DataError, match="no split 'test'; there are train, validation"):
        next(iter(shuffled().batches("test")))


def test_data_set_without_length() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    data = LoaderData(DataLoader(Stream()), DataLoader(EXAMPLES))
    with pytest.raises(DataError, match="no length"):
        data.num_examples("train")
    with pytest.raises(DataError, match="yields nothing"):
        data.example_inputs()
