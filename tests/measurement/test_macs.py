from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from amsc.errors import InputError, ModelError
from amsc.measurement import count_macs


class Calling(nn.Module):
    """A module that is one function of its input."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


IMAGES = torch.randn(2, 8, 10, 10)
TOKENS = torch.randn(2, 5, 16)


@pytest.mark.parametrize(
    ("model", "inputs", "macs"),
    [
        (nn.Conv2d(8, 6, 3), IMAGES, 2 * 8 * 8 * 6 * 8 * 9),
        (nn.Conv2d(8, 6, 3, groups=2, stride=2, padding=1), IMAGES, 2 * 5 * 5 * 6 * 4 * 9),
        (nn.Conv2d(8, 16, 3, groups=8, padding=2, dilation=2), IMAGES, 2 * 100 * 16 * 9),
        (nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2), IMAGES, 2 * 100 * 8 * 3 * 9),
        (nn.Conv1d(8, 4, 3), IMAGES[..., 0], 2 * 8 * 4 * 8 * 3),
        (nn.Conv3d(8, 4, 1), IMAGES[..., None], 2 * 100 * 4 * 8),
        (nn.Linear(10, 7), IMAGES, 2 * 8 * 10 * 10 * 7),
        (nn.Linear(10, 7, bias=False), IMAGES[0, 0, 0], 70),
        (nn.Linear(16, 7), TOKENS[0, 0], 112),
        (nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()), IMAGES, 0),
        (Calling(lambda x: x.flatten(2) @ x.flatten(2).mT), IMAGES, 2 * 8 * 8 * 100),
        (Calling(lambda x: torch.einsum("bchw,bdhw->bcd", x, x)), IMAGES, 2 * 8 * 8 * 100),
        (Calling(lambda x: x @ x[0, 0, 0]), IMAGES, 2 * 8 * 10 * 10),
        (Calling(lambda x: torch.dot(x[0, 0, 0], x[0, 0, 1])), IMAGES, 10),
        (Calling(lambda x: torch.addmv(x[0, 0, 0], x[0, 0], x[0, 0, 1])), IMAGES, 100),
        (Calling(lambda x: functional.scaled_dot_product_attention(x, x, x)), IMAGES, 2 * 2 * 8 * 10 * 10 * 10),
        # projections of queries, keys, values and output, both products of the attention, and two linear layers
        (
            nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
            TOKENS,
            10 * 16 * 64 + 2 * 2 * 25 * 16 + 10 * 2 * 16 * 32,
        ),
    ],
)
def test_count_is_the_hand_count(model: nn.Module, inputs: Tensor, macs: int) -> None:
    assert count_macs(model, inputs) == macs


def test_shared_layers_count_every_time() -> None:
    layer = nn.Conv2d(8, 8, 1)
    assert count_macs(nn.Sequential(layer, layer), IMAGES) == 2 * count_macs(layer, IMAGES)


def test_recurrent_layers_are_named_as_not_counted() -> None:
    with pytest.warns(UserWarning, match="not counted: lstm"):
        count_macs(Recurrent(), TOKENS)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


def test_attention_settings_come_back() -> None:
    assert torch.backends.mha.get_fastpath_enabled()
    count_macs(nn.Linear(10, 7), IMAGES)
    assert torch.backends.mha.get_fastpath_enabled()


def test_bad_input_is_explained() -> None:
    with pytest.raises(InputError, match=r"\(2, 8, 10, 10\)"):
        count_macs(nn.Conv2d(3, 4, 3), IMAGES)
    with pytest.raises(InputError, match="example_inputs must be"):
        count_macs(nn.Conv2d(3, 4, 3), "image")
    with pytest.raises(ModelError, match="got str"):
        count_macs("model", IMAGES)  # type: ignore[arg-type]
