"""A forward that fails: what it was given, the layer that it failed in, and what to do, with the original behind it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amsc import cuttable, measure, trace
from amsc.borrowing import run_model
from amsc.errors import InputError


class Tagger(nn.Module):
    """Looks tokens up."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(10, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor, scale: float = 1.0) -> Tensor:
        return self.head(self.tokens(ids)) * scale


IMAGE = torch.zeros(2, 1, 8, 8)
LAYERS = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 3)]
NET = nn.Sequential(*LAYERS)


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        (
            NET,
            torch.zeros(2, 1, 9, 9),
            r"\(2, 1, 9, 9\) float32, in 4, Linear\(in_features=256.*given \(2, 324\) float32",
        ),
        (NET, torch.zeros(2, 1, 9, 9), "; give it inputs of the size and type that it gets in your own code$"),
        (NET, torch.zeros(2, 3, 8, 8), r"in 0, Conv2d\(1, 4, kernel_size=\(3, 3\).*to have 1 channels, but got 3"),
        (NET, IMAGE.half(), r"; expected float32, as the .* not float16; write inputs\.to\(torch\.float32\)$"),
        (NET, IMAGE.byte(), r"; expected numbers of type float32; write inputs\.to\(torch\.float32\)$"),
        (Tagger(), torch.zeros(2, 5), r"in tokens, Embedding\(10, 8\).*; expected whole numbers from 0 to 9, such as"),
        (Tagger(), torch.full((2, 5), 10), "; expected whole numbers from 0 to 9"),
        (Tagger(), (torch.zeros(2, 5).long(), 1.0, 2.0), r"; expected what forward\(ids, scale\) takes: a tensor"),
        (Tagger(), {"tokens": torch.zeros(2, 5).long()}, r"unexpected keyword .*; expected what forward\(ids, scale\)"),
    ],
)
def test_what_failed_where_and_what_to_do(model: nn.Module, inputs: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        run_model(model, inputs)
    assert isinstance(caught.value.__cause__, RuntimeError | IndexError | TypeError)
    assert not isinstance(caught.value.__cause__, InputError)


@pytest.mark.parametrize("inputs", [torch.zeros(2, 1, 9, 9), IMAGE.half()])
@pytest.mark.parametrize("use", [trace, measure, lambda model, x: cuttable(model, trace(model, IMAGE), x)])
def test_whatever_runs_the_network_says_so(use: Any, inputs: Tensor) -> None:
    with pytest.raises(InputError, match=r"Sequential.forward failed on example_inputs of shape \(2, 1, ., .\) float"):
        use(NET, inputs)


def test_a_failure_in_the_users_own_lines_names_no_layer() -> None:
    class Asserts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("four, please")

    with pytest.raises(InputError, match=r"shape \(2, 3\) float32: four, please; give it inputs"):
        run_model(Asserts(), torch.zeros(2, 3))
