"""Data whose targets are what the dense network returns; loaders of inputs alone."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from amsc.data import Data, Imitated, LoaderData, SpreadData, Unlabelled, batch_size, inputs_alone, inputs_of
from amsc.data.batch import may_be_split, some_examples
from amsc.errors import DataError

IMAGES = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Changes its inputs, counts its calls, and has dropout and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        x += 1.0
        return {"out": self.drop(self.norm(self.layer(x))), "zeros": torch.zeros(len(x), 2)}


def data_of(batches: list[Any]) -> LoaderData:
    return LoaderData(batches, batches, split=inputs_alone)


def test_targets_are_what_the_dense_network_returns() -> None:
    net = Net()
    net.norm.running_mean.fill_(0.5)
    reference = copy.deepcopy(net).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    data = Imitated(data_of(list(IMAGES.clone().split(8))), net)
    for (inputs, target), rows in zip(data.batches("validation"), IMAGES.split(8), strict=True):
        assert torch.equal(inputs, rows)
        assert batch_size(target) == len(rows)
        expected = reference(rows.clone())["out"]
        assert torch.equal(target["tensors"]["output['out']"], expected)
        assert not target["tensors"]["output['out']"].requires_grad
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_scales_are_mean_squares_over_training_examples_and_1_for_nothing() -> None:
    net = Net().eval()
    data = Imitated(data_of(list(IMAGES.split(5))), net)
    _, target = next(iter(data.batches("validation")))
    expected = net(IMAGES.clone())["out"].square().mean()
    torch.testing.assert_close(target["scales"]["output['out']"], expected.detach())
    assert target["scales"]["output['zeros']"] == 1.0


def test_is_data_like_those_it_is_made_of() -> None:
    plain = data_of(list(IMAGES.split(5)))
    data = Imitated(plain, Net())
    assert isinstance(data, Data)
    assert isinstance(data, SpreadData)
    assert (data.name, data.num_classes, data.batch_size) == ("loader", None, 5)
    assert (data.num_batches("train"), data.num_examples("train"), data.num_examples("test")) == (4, 20, 0)
    assert data.example_inputs(2).shape == (2, 3)
    assert len(list(data.spread_batches("train", 2))) == 2
    assert inputs_of(data) is plain
    assert inputs_of(plain) is plain


def test_a_batch_that_the_network_does_not_take_is_told_of() -> None:
    data = Imitated(data_of([torch.zeros(2, 5)]), Net())
    words = r"does not take a batch of the train split of loader: Net.forward failed on it of shape \(2, 5\)"
    with pytest.raises(DataError, match=words):
        next(data.batches("train"))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_pairs_among_inputs_alone_are_named_by_their_split(split: str) -> None:
    good, pairs = list(IMAGES.split(5)), [(rows, torch.zeros(5)) for rows in IMAGES.split(5)]
    loaders: dict[str, Any] = {name: pairs if name == split else good for name in ("train", "validation", "test")}
    data = Imitated(LoaderData(**loaders, split=inputs_alone), Net())
    with pytest.raises(DataError, match=rf"a batch of the {split} split .* leave split=inputs_alone out"):
        next(data.batches(split))


class TestInputsAlone:
    @pytest.mark.parametrize(
        "batch", [IMAGES, (IMAGES, torch.tensor(2.0)), {"scale": torch.tensor(1.0), "x": IMAGES}, [IMAGES]]
    )
    def test_a_batch_is_what_forward_takes(self, batch: Any) -> None:
        data = data_of([batch])
        inputs, target = next(iter(data.batches("train")))
        assert type(inputs) is type(batch)
        assert target == Unlabelled(20)
        assert data.num_examples("train") == 20

    def test_of_a_data_loader(self) -> None:
        loader = DataLoader(TensorDataset(IMAGES), batch_size=6)
        data = LoaderData(loader, loader, split=inputs_alone)
        assert [batch_size(target) for _, target in data.batches("train")] == [6, 6, 6, 2]
        assert data.example_inputs(1)[0].shape == (1, 3)

    def test_some_of_it(self) -> None:
        assert some_examples(Unlabelled(20), slice(16, 32)) == Unlabelled(4)
        assert may_be_split(IMAGES, Unlabelled(20))
        assert not may_be_split(IMAGES, Unlabelled(3))

    def test_without_a_tensor(self) -> None:
        with pytest.raises(DataError, match="first axis counts examples; got a dict without one"):
            data_of([{"text": "words"}]).example_inputs()

    def test_a_loader_of_no_pairs_is_told_of_it(self) -> None:
        with pytest.raises(DataError, match=r"split=amsc.data.inputs_alone makes them"):
            LoaderData([IMAGES], [IMAGES]).example_inputs()
