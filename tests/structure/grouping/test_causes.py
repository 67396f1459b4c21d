"""Every pin names an operator, and where it stands in the user's code."""

import torch
from torch import Tensor, nn

from amsc.structure import Pin, trace
from structure.awkward import Net, conv, images


def pin_of(model: nn.Module, parameter: str, axis: int = 0) -> Pin:
    (pin,) = (p for p in trace(model.eval(), images()).pins if (p.parameter, p.axis) == (parameter, axis))
    return pin


def test_what_is_all_of_an_axis_names_what_ties_it_together() -> None:
    """Mirror images, then neighbours: only after the second sum are all channels one."""

    def run(self: Net, x: Tensor) -> Tensor:
        y = self.a(x)
        for step in (2, 4):
            y = y + y.roll(step, 1)
        return self.b(y + y.flip(1) + y.unflatten(1, (4, 2)).flip(2).flatten(1, 2))

    pin = pin_of(Net(run, a=conv(3, 8), b=conv(8, 2)), "a.weight")
    assert "aten." in pin.reason
    assert pin.source.startswith("test_causes.py")


def test_the_last_of_the_ties_is_named() -> None:
    def run(self: Net, x: Tensor) -> Tensor:
        y = self.a(x)
        z = y * y.flip(1)
        return self.b(z + z[:, [1, 0, 3, 2]].detach() if self.training else z - torch.cat(z.chunk(2, 1)[::-1], 1))

    pin = pin_of(Net(run, a=conv(3, 4), b=conv(4, 2)), "a.weight")
    assert pin.reason == "it is all of a.weight, axis 0; what ties it together: aten.sub.Tensor"
    assert "chunk" in pin.source


def test_an_operator_without_a_rule_says_how_to_write_one() -> None:
    pin = pin_of(Net(lambda s, x: s.b(torch.cummin(s.a(x), 1).values), a=conv(3, 4), b=conv(4, 2)), "a.weight")
    assert "docs/add-an-operator.md" in pin.reason
    assert "cummin" in pin.source


def test_whole_groups_are_named() -> None:
    model = nn.Sequential(conv(3, 8), conv(8, 8, groups=4), conv(8, 2))
    assert "of which only whole groups can go" in pin_of(model, "1.weight", 1).reason
