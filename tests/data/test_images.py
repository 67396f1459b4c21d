"""Images in batches: every example once, determined by the seed, augmented as said."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amsc.data import Data, ImageData, ImageSplit
from amsc.data.images import crop_and_flip
from amsc.errors import DataError


def split(count: int, *, size: int = 6, classes: int = 3) -> ImageSplit:
    """Images whose first channel tells the example's number."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 2, size, size), generator=generator, dtype=torch.uint8)
    images[:, 0] = torch.arange(count, dtype=torch.uint8)[:, None, None]
    return ImageSplit(images, torch.arange(count) % classes)


def data(**changes: Any) -> ImageData:
    settings: dict[str, Any] = {
        "name": "test",
        "splits": {"train": split(25), "validation": split(7), "test": split(8)},
        "num_classes": 3,
        "mean": (0.0, 0.5),
        "deviation": (1.0, 0.25),
        "batch_size": 8,
    }
    return ImageData(**(settings | changes))


def numbers(images: torch.Tensor) -> list[int]:
    """Which examples these are, from the first channel (which is not shifted: mean 0, deviation 1)."""
    return [round(v) for v in (images[:, 0].amax((1, 2)) * 255).tolist()]


def test_is_data() -> None:
    assert isinstance(data(), Data)


def test_without_seed_one_fixed_shuffle_normalised() -> None:
    (images, _), *_ = batches = list(data().batches("train"))
    raw = split(25)
    seen = [n for x, _ in batches for n in numbers(x)]
    assert sorted(seen) == list(range(25)) != seen
    assert seen == [n for x, _ in data().batches("train") for n in numbers(x)]
    assert torch.equal(torch.cat([y for _, y in batches]), raw.labels[seen])
    expected = (raw.images[seen[: len(images)]].float() / 255 - torch.tensor([0.0, 0.5])[:, None, None]) / torch.tensor(
        [1.0, 0.25]
    )[:, None, None]
    torch.testing.assert_close(images, expected)
    torch.testing.assert_close(data().example_inputs(2), expected[:2])


def test_seed_shuffles_every_example_once_with_its_label() -> None:
    batches = list(data(flip="random").batches("train", seed=1))
    seen = [n for x, _ in batches for n in numbers(x)]
    assert sorted(seen) == list(range(25))
    assert seen != list(range(25))
    assert [n % 3 for n in seen] == torch.cat([y for _, y in batches]).tolist()


def test_seed_determines_everything_and_leaves_global_numbers_alone() -> None:
    augmented = data(padding=2, flip="random")
    state = torch.get_rng_state()
    one, two = (torch.cat([x for x, _ in augmented.batches("train", seed=3)]) for _ in range(2))
    other = torch.cat([x for x, _ in augmented.batches("train", seed=4)])
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


@given(count=st.integers(1, 40), batch_size=st.integers(1, 12))
def test_batch_sizes_differ_by_at_most_one(count: int, batch_size: int) -> None:
    some = data(splits={"train": split(count), "validation": split(7), "test": split(8)}, batch_size=batch_size)
    for seed in (None, 0):
        sizes = [len(y) for _, y in some.batches("train", seed=seed)]
        assert len(sizes) == some.num_batches("train")
        assert sum(sizes) == count == some.num_examples("train")
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1


def test_half_of_the_images_are_mirrored_only_if_flip() -> None:
    ramp = torch.arange(6, dtype=torch.uint8).expand(400, 2, 6, 6).contiguous()
    part = ImageSplit(ramp, torch.arange(400) % 3)
    for flip, low, high in (("none", 0, 0), ("random", 150, 250), ("alternating", 150, 250)):
        some = data(splits={"train": part, "validation": part, "test": part}, flip=flip)
        images = torch.cat([x for x, _ in some.batches("train", seed=0)])
        assert low <= int((images[:, 0, 0, 0] > 0).sum()) <= high


def test_alternating_images_are_mirrored_in_one_of_two_epochs() -> None:
    mirrored = torch.stack([mirrored_images(seed) for seed in (6, 7, 8, 9)])
    assert (mirrored[0] != mirrored[1]).all()
    assert (mirrored[2] != mirrored[3]).all()
    assert 150 <= int((mirrored[0] != mirrored[2]).sum()) <= 250, "drawn anew for each pair of epochs"


def mirrored_images(seed: int) -> torch.Tensor:
    """Which of 400 images a pass mirrors, by their labels."""
    ramp = torch.arange(6, dtype=torch.uint8).expand(400, 2, 6, 6).contiguous()
    part = ImageSplit(ramp, torch.arange(400))
    some = data(splits={"train": part, "validation": part, "test": part}, flip="alternating", num_classes=400)
    found = torch.zeros(400, dtype=torch.bool)
    for images, labels in some.batches("train", seed=seed):
        found[labels] = images[:, 0, 0, 0] > 0
    return found


def test_an_unknown_flip_is_refused() -> None:
    with pytest.raises(DataError, match="flip: expected one of random, alternating, none, got 'both'"):
        data(flip="both")


@given(st.data(), st.integers(0, 3))
def test_crop_and_flip_agrees_with_slicing(draw: st.DataObject, padding: int) -> None:
    images = torch.randint(1, 256, (3, 2, 5, 4), dtype=torch.uint8)
    shifts = torch.tensor(
        draw.draw(st.lists(st.tuples(*[st.integers(0, 2 * padding)] * 2), min_size=3, max_size=3)), dtype=torch.int64
    )
    mirrored = torch.tensor(draw.draw(st.lists(st.booleans(), min_size=3, max_size=3)))
    result = crop_and_flip(images, shifts, mirrored, padding=padding)
    for i, (row, column) in enumerate(shifts.tolist()):
        canvas = torch.zeros(2, 5 + 2 * padding, 4 + 2 * padding, dtype=torch.uint8)
        canvas[:, padding : padding + 5, padding : padding + 4] = images[i]
        window = canvas[:, row : row + 5, column : column + 4]
        assert torch.equal(result[i], window.flip(2) if mirrored[i] else window)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {"train": split(9), "test": split(9)}}, "no split validation"),
        ({"splits": {"train": split(9), "validation": split(9, size=5), "test": split(9)}}, "images of validation are"),
        ({"num_classes": 2}, "labels of 2 classes must lie between 0 and 1, those of train go from 0 to 2"),
        ({"mean": (0.5,)}, "one number for each of 2 channels"),
        ({"deviation": (1.0, 0.0)}, "deviations above 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_impossible_data_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        data(**changes)


def test_impossible_splits_are_refused() -> None:
    good = split(4)
    for images, labels, message in (
        (good.images.float(), good.labels, "must be uint8"),
        (good.images[:, 0], good.labels, "must be uint8"),
        (good.images, good.labels[:3], "labels of 4 images"),
        (good.images, good.labels.float(), "must be int64"),
        (good.images[:0], good.labels[:0], "no images"),
    ):
        with pytest.raises(DataError, match=message):
            ImageSplit(images, labels)


def test_unknown_split_is_named() -> None:
    with pytest.raises(DataError, match="no split 'valid'; there are train, validation, test"):
        data().num_examples("valid")


@pytest.mark.gpu
def test_batches_are_the_same_on_the_gpu() -> None:
    on_cpu = data(padding=2, flip="random")
    moved = {name: ImageSplit(s.images.cuda(), s.labels.cuda()) for name, s in on_cpu.splits.items()}
    on_gpu = dataclasses.replace(on_cpu, splits=moved)
    for (x, y), (u, v) in zip(on_cpu.batches("train", seed=5), on_gpu.batches("train", seed=5), strict=True):
        assert u.is_cuda
        torch.testing.assert_close(x, u.cpu())
        assert torch.equal(y, v.cpu())
