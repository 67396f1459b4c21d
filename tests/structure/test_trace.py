"""What the tracer finds on small networks of one construct each, and what it says about the rest."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amsc.errors import CutError, InputError, ModelError
from amsc.structure import ChannelGroup, Structure, trace
from amsc.structure.costing import predicted_parameters


def conv(c: int, out: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(c, out, 3, padding=1, **options)


class Net(nn.Module):
    """A function of named parts."""

    def __init__(self, function: Any, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def trace_image(model: nn.Module, channels: int = 3, size: int = 8) -> Structure:
    return trace(model, torch.randn(2, channels, size, size))


def members(structure: Structure, group: str) -> dict[tuple[str, int], tuple[str, int]]:
    """(parameter, axis) -> (role, positions per channel)."""
    return {(m.parameter, m.axis): (m.role, len(m.indices[0])) for m in structure.group(group).members}


def members_of(group: ChannelGroup) -> dict[tuple[str, int], Any]:
    return {(member.parameter, member.axis): member.indices for member in group.members}


def test_a_chain_ties_each_convolution_to_its_normalisation_and_to_the_next_layer() -> None:
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4))
    structure = trace_image(model)
    assert [(g.name, g.kind, g.size, g.exact) for g in structure.channels] == [("0", "filter", 8, True)]
    assert members(structure, "0") == {
        ("0.weight", 0): ("out", 1),
        ("0.bias", 0): ("out", 1),
        ("1.weight", 0): ("affine", 1),
        ("1.bias", 0): ("affine", 1),
        ("1.running_mean", 0): ("statistic", 1),
        ("1.running_var", 0): ("statistic", 1),
        ("3.weight", 1): ("in", 1),
    }


def test_flatten_gives_each_channel_its_positions_in_the_linear_layer() -> None:
    model = nn.Sequential(conv(3, 4), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(16, 5))
    (group,) = trace_image(model).channels
    (consumer,) = (m for m in group.members if m.parameter == "3.weight")
    assert consumer.indices[1] == (4, 5, 6, 7)


def test_flatten_in_another_memory_order_gives_strided_positions() -> None:
    flatten = Net(lambda self, x: x.permute(0, 2, 3, 1).flatten(1))
    model = nn.Sequential(conv(3, 4), nn.MaxPool2d(4), flatten, nn.Linear(16, 5))
    (group,) = trace_image(model).channels
    (consumer,) = (m for m in group.members if m.parameter == "3.weight")
    assert consumer.indices[1] == (1, 5, 9, 13)


def test_a_residual_sum_is_a_stream_and_its_branch_is_inner() -> None:
    parts = {"stem": conv(3, 6), "left": conv(6, 8), "right": conv(8, 6), "head": conv(6, 2)}

    def run(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(x + self.right(F.relu(self.left(x))))

    structure = trace_image(Net(run, **parts))
    assert [(g.name, g.kind, g.size) for g in structure.channels] == [("stem", "stream", 6), ("left", "filter", 8)]


def test_concatenation_keeps_the_sources_apart() -> None:
    parts = {"left": conv(3, 4), "right": conv(3, 6), "head": conv(10, 2)}
    structure = trace_image(Net(lambda self, x: self.head(torch.cat((self.left(x), self.right(x)), 1)), **parts))
    assert [(g.name, g.size) for g in structure.channels] == [("left", 4), ("right", 6)]
    (consumer,) = (m for m in structure.group("right").members if m.parameter == "head.weight")
    assert consumer.indices == tuple((position,) for position in range(4, 10))


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_depthwise_channel_goes_with_its_input(multiplier: int) -> None:
    depthwise = conv(6, 6 * multiplier, groups=6)
    structure = trace_image(nn.Sequential(conv(3, 6), depthwise, conv(6 * multiplier, 2)))
    assert members(structure, "0")["1.weight", 0] == ("out", multiplier)
    assert structure.group("0").size == 6


def test_a_grouped_convolution_loses_whole_groups() -> None:
    structure = trace_image(nn.Sequential(conv(3, 6), conv(6, 12, groups=3), conv(12, 2)))
    assert structure.group("0").size == 3
    assert members(structure, "0")["0.weight", 0] == ("out", 2)
    assert members(structure, "0")["1.weight", 0] == ("out", 4)
    assert not any(
        member.axis == 1 for m in structure.channels for member in m.members if member.parameter == "1.weight"
    )


def test_a_group_norm_group_goes_whole() -> None:
    structure = trace_image(nn.Sequential(conv(3, 8), nn.GroupNorm(4, 8), nn.ReLU(), conv(8, 2)))
    assert structure.group("0").size == 4
    assert members(structure, "0")["1.weight", 0] == ("affine", 2)


def test_a_group_norm_without_scale_and_shift_pins() -> None:
    structure = trace_image(nn.Sequential(conv(3, 8), nn.GroupNorm(4, 8, affine=False), conv(8, 2)))
    assert structure.channels == ()
    assert "native_group_norm" in structure.explain("0.weight")


def test_pixel_shuffle_ties_the_channels_that_become_one() -> None:
    structure = trace_image(nn.Sequential(conv(3, 16), nn.PixelShuffle(2), conv(4, 2)))
    assert structure.group("0").size == 4
    assert members(structure, "0")["0.weight", 0] == ("out", 4)


def test_squeeze_excite_ties_the_gate_to_the_gated_channel_and_stays_exact() -> None:
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Sigmoid())
    run = Net(
        lambda self, x: self.tail((y := self.body(x)) * self.gate(y)), body=conv(3, 8), gate=gate, tail=conv(8, 2)
    )
    structure = trace_image(run)
    assert [(g.name, g.kind, g.size, g.exact) for g in structure.channels] == [
        ("body", "filter", 8, True),
        ("gate.1", "filter", 4, True),
    ]


def test_a_sigmoid_before_a_layer_makes_the_group_inexact_and_says_why() -> None:
    structure = trace_image(nn.Sequential(conv(3, 8), nn.Sigmoid(), conv(8, 2)))
    (group,) = structure.channels
    assert not group.exact
    assert "aten.convolution" in group.reason
    assert "not exact" in structure.explain("0.weight")


def test_batch_norm_without_scale_and_shift_leaves_its_mean_behind() -> None:
    (group,) = trace_image(nn.Sequential(conv(3, 8), nn.BatchNorm2d(8, affine=False), conv(8, 2))).channels
    assert not group.exact


def test_a_shared_module_is_one_group() -> None:
    unit = conv(4, 4)
    structure = trace_image(nn.Sequential(conv(3, 4), unit, nn.ReLU(), unit, conv(4, 2)))
    assert [g.size for g in structure.channels] == [4]
    assert {(m.parameter, m.axis) for m in structure.channels[0].members} >= {("1.weight", 0), ("1.weight", 1)}


def test_tied_weights_are_one_tensor_under_their_first_name() -> None:
    first, second = conv(4, 4, bias=False), conv(4, 4, bias=False)
    second.weight = first.weight
    structure = trace_image(nn.Sequential(conv(3, 4), first, second, conv(4, 2)))
    assert "2.weight" not in structure.shapes
    assert predicted_parameters(structure) == 3 * 4 * 9 + 4 + 4 * 4 * 9 + 4 * 2 * 9 + 2


def test_a_parameter_used_element_wise_belongs_to_its_channel() -> None:
    model = Net(
        lambda self, x: self.b(self.a(x) * self.scale),
        a=conv(3, 6),
        b=conv(6, 2),
        scale=nn.Parameter(torch.rand(6, 1, 1)),
    )
    structure = trace_image(model)
    assert members(structure, "a")["scale", 0] == ("element", 1)


def test_a_constant_that_is_no_buffer_pins_and_is_named() -> None:
    mask = torch.ones(1, 6, 1, 1)
    structure = trace_image(Net(lambda self, x: self.b(self.a(x) * mask), a=conv(3, 6), b=conv(6, 2)))
    assert structure.channels == ()
    assert "aten.mul.Tensor" in structure.explain("a.weight")


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)[:, 1:5], "aten.slice.Tensor"),
        (lambda x: x.sort(1).values[:, :4], "aten.sort.default"),
        (lambda x: x.roll(1, 1)[:, :4], "aten.roll.default"),
        (lambda x: x.cumsum(1)[:, :4], "aten.cumsum.default"),
        (lambda x: x[:, [3, 1, 2, 0]], "aten.index.Tensor"),
    ],
)
def test_what_amsc_cannot_follow_is_pinned_and_named(operation: Any, named: str) -> None:
    structure = trace_image(Net(lambda self, x: self.b(operation(self.a(x))), a=conv(3, 8), b=conv(4, 2)))
    assert structure.channels == ()
    assert named in structure.explain("a.weight")


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        (lambda x: x.softmax(1), "aten._softmax.default"),
        (lambda x: x * x.mean(1, keepdim=True), "aten.mean.dim"),
        (lambda x: F.layer_norm(x.movedim(1, -1), (8,)).movedim(-1, 1), "aten.native_layer_norm.default"),
    ],
)
def test_what_changes_the_other_channels_is_not_exact(operation: Any, named: str) -> None:
    structure = trace_image(Net(lambda self, x: self.b(operation(self.a(x))), a=conv(3, 8), b=conv(8, 2)))
    (group,) = structure.channels
    assert (group.size, group.exact) == (8, False)
    assert named in group.reason


def test_halves_of_an_axis_lose_the_same_positions() -> None:
    """As in a gated unit or rotary positions: whether the user's slice follows is for the cut to say."""

    def run(self: Any, x: Tensor) -> Tensor:
        first, second = self.a(x).chunk(2, 1)
        return self.b(first + second.sigmoid())

    (group,) = trace_image(Net(run, a=conv(3, 8), b=conv(4, 2))).channels
    assert members_of(group)["a.weight", 0] == ((0, 4), (1, 5), (2, 6), (3, 7))


def test_spatial_slices_and_zero_padding_pin_nothing() -> None:
    model = Net(lambda self, x: self.b(F.pad(self.a(x)[:, :, ::2, ::2], (1, 1, 1, 1))), a=conv(3, 8), b=conv(8, 2))
    assert trace_image(model).group("a").exact


def test_zero_padded_channels_stay_and_the_others_can_go() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(self.wide(x) + F.pad(x, (0, 0, 0, 0, 2, 2)))

    structure = trace_image(Net(run, stem=conv(3, 4), wide=conv(4, 8), head=conv(8, 2)))
    assert [(g.name, g.size, g.kind) for g in structure.channels] == [("stem", 4, "stream")]
    (wide,) = (m for m in structure.channels[0].members if (m.parameter, m.axis) == ("wide.weight", 0))
    assert wide.indices == ((2,), (3,), (4,), (5,))


def test_writing_into_views_reaches_everything_that_shares_the_memory() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        y = self.a(x)
        y[:, :, 1:3] *= 0.0
        y.relu_()
        return self.b(y)

    assert trace_image(Net(run, a=conv(3, 8), b=conv(8, 2))).group("a").size == 8


def test_a_weight_norm_follows_its_outputs_and_is_not_exact_for_its_inputs() -> None:
    model = nn.Sequential(conv(3, 8), torch.nn.utils.parametrizations.weight_norm(conv(8, 8)), conv(8, 2))
    first, second = trace_image(model).channels
    assert (first.name, first.exact) == ("0", False)
    assert "_weight_norm_interface" in first.reason
    weight = "1.parametrizations.weight.original"
    assert second.exact
    assert {(m.parameter, m.axis): m.role for m in second.members} == {
        ("1.bias", 0): "out", (f"{weight}0", 0): "affine", (f"{weight}1", 0): "statistic", ("2.weight", 1): "in",
    }  # fmt: skip


def test_a_pin_names_the_line_of_the_model() -> None:
    structure = trace_image(Net(lambda self, x: self.b(self.a(x).roll(1, 1)), a=conv(3, 8), b=conv(8, 2)))
    (pin,) = (pin for pin in structure.pins if (pin.parameter, pin.axis) == ("a.weight", 0))
    assert pin.source.startswith("test_trace.py:")
    assert "self.a(x).roll(1, 1)" in pin.source
    outputs = {pin.source for pin in structure.pins if "output of the model" in pin.reason}
    assert outputs == {""}  # whoever called amsc is no line of the model


def test_unused_parameters_are_listed_and_left_alone() -> None:
    structure = trace_image(Net(lambda self, x: self.a(x), a=conv(3, 4), spare=conv(3, 4)))
    assert structure.unused == ("spare.weight", "spare.bias")
    assert "not used" in structure.explain("spare.weight")


def test_dicts_and_keyword_arguments_work() -> None:
    model = Net(lambda self, image, scale: {"out": self.b(self.a(image) * scale)}, a=conv(3, 4), b=conv(4, 2))
    structure = trace(model, {"image": torch.randn(1, 3, 8, 8), "scale": torch.tensor(2.0)})
    assert structure.group("a").size == 4


def test_explain_suggests_the_nearest_name() -> None:
    structure = trace_image(nn.Sequential(conv(3, 8), conv(8, 4)))
    with pytest.raises(CutError, match=r"did you mean 0\.weight\?"):
        structure.explain("0.wieght")


def test_the_model_comes_back_as_it_was() -> None:
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.Dropout(), conv(8, 4)).train()
    model[1].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = torch.randn(2, 3, 8, 8)
    state = torch.get_rng_state()
    trace(model, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model] == [True, False, True, True]
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_model_comes_back_as_it_was_after_an_error() -> None:
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), conv(4, 4)).train()
    with pytest.raises(InputError, match=r"failed on example_inputs of shape \(2, 3, 8, 8\)"):
        trace_image(model)
    assert all(module.training for module in model.modules())
    assert not torch.nn.modules.module._global_forward_pre_hooks


@pytest.mark.parametrize(
    ("model", "inputs", "error", "words"),
    [
        (nn.Sequential(conv(3, 4)), torch.randn(1, 5, 8, 8), InputError, "shape"),
        (nn.Sequential(conv(3, 4)), "picture", InputError, "must be a tensor"),
        (nn.Sequential(conv(3, 4)), (1, 2), InputError, "no tensor"),
        (nn.Sequential(conv(3, 4)), torch.empty(1, 3, 8, 8, device="meta"), InputError, "meta"),
        (Net(lambda self, x: "hello", a=conv(3, 4)), torch.randn(1, 3, 8, 8), ModelError, "without a tensor"),
        (
            Net(lambda self, x: object(), a=conv(3, 4)),
            torch.randn(1, 3, 8, 8),
            ModelError,
            "object, which cannot be looked",
        ),
        (nn.DataParallel(conv(3, 4)), torch.randn(1, 3, 8, 8), ModelError, r"model\.module"),
        (lambda x: x, torch.randn(1, 3, 8, 8), ModelError, r"expected a torch\.nn\.Module"),
    ],
)
def test_what_cannot_be_traced_is_refused_in_words(model: Any, inputs: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        trace(model, inputs)
