"""The Structure as a value: predictions, renumbering after a cut, JSON."""

import pytest
import torch
from torch import nn

from amsc.errors import CutError
from amsc.models import open_model
from amsc.records import from_json, to_json
from amsc.structure import Structure, trace
from amsc.structure.costing import channel_macs, predicted_macs
from amsc.structure.cutting import after_removal
from amsc.surgery import cut, plan_cut
from removals import random_removal


def small() -> tuple[nn.Module, torch.Tensor, Structure]:
    model, inputs = open_model("digits_resnet"), torch.randn(1, 1, 8, 8)
    return model, inputs, trace(model, inputs)


def test_it_survives_json() -> None:
    _, _, structure = small()
    assert from_json(Structure, to_json(structure)) == structure


@pytest.mark.parametrize("seed", range(4))
def test_the_structure_after_a_cut_is_the_structure_of_the_cut_network(seed: int) -> None:
    model, inputs, structure = small()
    channels, blocks = random_removal(structure, seed)
    predicted = after_removal(structure, channels, blocks)
    traced = trace(cut(model, plan_cut(structure, channels=channels, blocks=blocks), inputs), inputs)
    # The last channel of a layer cannot go: tracing pins it, renumbering keeps it as a group of one.
    left = [group for group in predicted.channels if group.size > 1]
    assert {g.name: (g.size, g.exact) for g in left} == {g.name: (g.size, g.exact) for g in traced.channels}
    assert {g.name: set(g.members) for g in left} == {g.name: set(g.members) for g in traced.channels}
    assert predicted.shapes == traced.shapes
    assert predicted_macs(predicted) == predicted_macs(traced)
    assert predicted.blocks == traced.blocks


def test_channel_macs_is_what_removing_one_channel_saves() -> None:
    _, _, structure = small()
    for group in structure.channels:
        assert channel_macs(structure, group.name) == predicted_macs(structure) - predicted_macs(
            structure, {group.name: [0]}
        )


def test_unknown_names_and_indices_are_refused() -> None:
    _, _, structure = small()
    with pytest.raises(CutError, match="did you mean"):
        predicted_macs(structure, {"conv11": [0]})
    with pytest.raises(CutError, match="has channels 0 to"):
        predicted_macs(structure, {structure.channels[0].name: [999]})
