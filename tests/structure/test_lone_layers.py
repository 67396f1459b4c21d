"""x + layer(x): told of where it stays, and a block with its proof once it is in a module of its own."""

import pytest
import torch
from torch import Tensor, nn

import amsc
from amsc.models import open_model
from amsc.structure.lone_layers import lone_layers
from amsc.surgery import verify

IMAGES, ROWS = torch.randn(2, 3, 8, 8), torch.randn(4, 6)


class Written(nn.Module):
    """Branches of one layer in the forward of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.branch, self.head = nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.layer(x)
        x = x + self.branch(x)
        return self.head(x.mean((2, 3)))


class PreNorm(nn.Module):
    """The same of linear layers behind a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.layer, self.head = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.layer(self.norm(x)))


class Residual(nn.Module):
    """What the words say to write."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


@pytest.mark.parametrize(
    ("model", "inputs", "names"), [(Written(), IMAGES, ("branch.1", "layer")), (PreNorm(), ROWS, ("layer",))]
)
def test_they_are_named_with_what_to_write(model: nn.Module, inputs: Tensor, names: tuple[str, ...]) -> None:
    structure = amsc.trace(model, inputs)
    assert structure.blocks == ()
    assert lone_layers(structure.channels, structure.blocks) == names
    assert "a module of its own whose forward returns x + layer(x)" in str(structure)
    assert "as a block: layer adds to a stream" in structure.explain("layer")
    assert "as a block" not in structure.explain("head.weight")


@pytest.mark.parametrize("layers", [(nn.Linear(8, 8),), (nn.LayerNorm(8), nn.Linear(8, 8))])
def test_what_the_words_say_makes_them_blocks_that_go_with_proof(layers: tuple[nn.Module, ...]) -> None:
    model = nn.Sequential(nn.Linear(6, 8), Residual(*layers), nn.ReLU(), nn.Linear(8, 4))
    structure = amsc.cuttable(model, amsc.trace(model, ROWS), ROWS)
    assert [block.name for block in structure.blocks] == ["1"]
    assert lone_layers(structure.channels, structure.blocks) == ()
    plan = amsc.plan_cut(structure, blocks=["1"])
    small = amsc.cut(model, plan)
    assert verify(model, small, plan, ROWS) <= 1e-5
    torch.testing.assert_close(small.eval()(ROWS), nn.Sequential(model[0], model[2], model[3])(ROWS))


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "densenet40", "vgg16"])
def test_networks_without_such_layers_have_none(name: str) -> None:
    structure = amsc.trace(open_model(name).eval(), torch.zeros(1, 3, 32, 32))
    assert structure.blocks
    assert lone_layers(structure.channels, structure.blocks) == ()
