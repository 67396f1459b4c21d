"""The user's DataLoaders: repeatable from a seed, and nobody's random numbers disturbed."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

from amsc.data import Data, LoaderData, batch_size, may_be_split, moved, some_examples, spread_batches
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


def test_data_set_without_length_is_counted() -> None:
    class Stream(IterableDataset[Any]):
        def __init__(self, count: int) -> None:
            self.count = count

        def __iter__(self) -> Any:
            return ((torch.zeros(1), 0) for _ in range(self.count))

    data = LoaderData(DataLoader(Stream(0), 4), DataLoader(Stream(10), 4))
    assert (data.num_examples("train"), data.num_batches("train")) == (0, 0)
    assert (data.num_examples("validation"), data.num_batches("validation")) == (10, 3)
    with pytest.raises(DataError, match="yields nothing"):
        data.example_inputs()


def test_examples_are_those_of_a_pass() -> None:
    some = DataLoader(EXAMPLES, 3, sampler=SubsetRandomSampler(range(7)))
    data = LoaderData(some, DataLoader(EXAMPLES, 4, drop_last=True), DataLoader(EXAMPLES, None))
    assert [data.num_examples(split) for split in ("train", "validation", "test")] == [7, 8, 10]


BATCHES = [(torch.full((2, 1), float(number)), torch.tensor([number, number])) for number in range(6)]


class Streaming:
    """Batches, without a length."""

    def __iter__(self) -> Any:
        return iter(BATCHES)


class Sized(Streaming):
    def __len__(self) -> int:
        return 6


@pytest.mark.parametrize("loader", [BATCHES, tuple(BATCHES), Sized(), Streaming()])
def test_loaders_that_are_not_torchs(loader: Any) -> None:
    data = LoaderData(loader, loader)
    assert (data.num_batches("train"), data.num_examples("train"), data.num_examples("test")) == (6, 12, 0)
    for seed in (None, 1):
        assert collect(data, seed).flatten().tolist() == [n // 2 for n in range(12)]
    assert data.example_inputs(1).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        ((batch for batch in BATCHES), "is a generator: it can be read only once"),
        (iter(BATCHES), "is a list_iterator: it can be read only once"),
        (iter(DataLoader(EXAMPLES)), "can be read only once"),
        (Streaming, "is the class Streaming; give an object of it"),
        (collect, "must be iterable, such as a DataLoader or a list of batches; got collect"),
        (None, "must be iterable"),
    ],
)
def test_what_is_no_loader_is_refused(loader: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        LoaderData(loader, BATCHES)
    with pytest.raises(DataError, match=words):
        LoaderData(BATCHES, loader)


def test_a_loader_that_turns_out_to_be_read_once_is_refused() -> None:
    class Once(Streaming):
        def __init__(self) -> None:
            self.batches = iter(BATCHES)

        def __iter__(self) -> Any:
            return self.batches

    data = LoaderData(Once(), BATCHES)
    assert data.num_batches("train") == 6
    with pytest.raises(DataError, match="the train loader has batches, but a pass over it yields none"):
        collect(data, 1)


class Read(Dataset[Any]):
    """24 examples, sorted by class, which note when they are read."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.seen.append(index)
        return torch.tensor([float(index)]), index // 8


@pytest.mark.parametrize("shuffle", [False, True])
def test_some_batches_are_read_without_the_others_and_know_all_classes(shuffle: bool) -> None:
    dataset = Read()
    data = LoaderData(DataLoader(dataset, 6, shuffle=shuffle), DataLoader(EXAMPLES))
    batches = list(spread_batches(data, "train", 2))
    assert [len(target) for _, target in batches] == [6, 6]
    assert len(dataset.seen) == 12 == len(set(dataset.seen))
    assert set(torch.cat([target for _, target in batches]).tolist()) == {0, 1, 2}
    assert [x.tolist() for x, _ in spread_batches(data, "train", 2)] == [x.tolist() for x, _ in batches]
    assert len(list(spread_batches(data, "train", 9))) == 4
    if shuffle:
        assert torch.equal(torch.cat([x for x, _ in batches]), collect(data, None)[:12])


@pytest.mark.parametrize("shuffle", [False, True])
def test_workers_read_no_more_than_is_asked_for(shuffle: bool) -> None:
    class Counted(Read):
        """Notes what is read where other processes see it."""

        def __init__(self) -> None:
            self.reads = torch.zeros(24).share_memory_()

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            self.reads[index] += 1
            return torch.tensor([float(index)]), index // 8

    dataset = Counted()
    data = LoaderData(DataLoader(dataset, 2, shuffle=shuffle, num_workers=1), DataLoader(EXAMPLES))
    assert len(list(spread_batches(data, "train", 2))) == 2
    assert float(dataset.reads.sum()) == 4


def test_some_batches_of_a_list_lie_evenly_and_of_others_come_first() -> None:
    of_list, of_stream = (LoaderData(loader, BATCHES) for loader in (BATCHES, Streaming()))
    assert [int(y[0]) for _, y in spread_batches(of_list, "train", 3)] == [0, 2, 4]
    assert [int(y[0]) for _, y in spread_batches(of_stream, "train", 3)] == [0, 1, 2]


def test_data_of_any_kind_give_some_batches() -> None:
    class Plain:
        name, num_classes = "plain", None

        def batches(self, split: str, *, seed: int | None = None) -> Any:
            yield from BATCHES

        def num_batches(self, split: str) -> int:
            return 6

        def num_examples(self, split: str) -> int:
            return 12

        def example_inputs(self, batch: int = 1) -> Any:
            return BATCHES[0][0][:batch]

    assert [int(y[0]) for _, y in spread_batches(Plain(), "train", 2)] == [0, 1]


def test_example_inputs_are_the_first_examples_or_all_where_they_cannot_be_told_apart() -> None:
    x, y = torch.randn(4, 5, 3), torch.arange(4)
    by_example, by_time = [(x, y)], [((x.transpose(0, 1), torch.tensor(0.5)), y)]
    first = LoaderData(by_example, by_example).example_inputs(2)
    assert torch.equal(first, x[:2])
    assert first.untyped_storage().nbytes() == first.nbytes, "without the rest of its batch"
    whole, number = LoaderData(by_time, by_time).example_inputs(2)
    assert whole.shape == (5, 4, 3)
    assert number.shape == ()


def test_shapes_can_say_that_a_batch_is_not_to_be_split() -> None:
    x, y = torch.randn(4, 5, 3), torch.arange(4)
    assert may_be_split(x, y)
    assert may_be_split({"a": x, "b": x[:, 0]}, {"class": y, "weight": torch.ones(4)})
    assert may_be_split(x, [1, 2, 3, 4])
    assert may_be_split(x, (y, torch.tensor(2.0)))
    assert not may_be_split(x.transpose(0, 1), y)
    assert not may_be_split((x, torch.ones(5, 5)), y)
    assert not may_be_split((x, torch.tensor(1.0)), y)
    assert not may_be_split([x[0], x[1]], y)
    assert not may_be_split(x, (y, torch.ones(7, 2)))
    assert batch_size((torch.tensor(2.0), y)) == 4
    assert some_examples((torch.tensor(2.0), y), slice(1, 3))[1].tolist() == [1, 2]
