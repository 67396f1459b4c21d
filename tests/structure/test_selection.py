"""What is kept stays, what is not named by `only` stays, and a wrong name is told."""

import pytest
import torch

from amsc.errors import SettingsError
from amsc.models import open_model
from amsc.structure import Structure, select, trace
from amsc.structure.cutting import after_removal, kept_shapes

INPUTS = torch.zeros(1, 1, 8, 8)
STRUCTURE = trace(open_model("digits_resnet").eval(), INPUTS)


def _free(structure: Structure) -> set[str]:
    return {group.name for group in structure.channels if group.exact}


def _blocks(structure: Structure) -> set[str]:
    return {block.name for block in structure.blocks}


def test_nothing_said_nothing_changed() -> None:
    assert select(STRUCTURE) is STRUCTURE


def test_a_kept_module_keeps_what_it_produces_and_the_blocks_in_and_around_it() -> None:
    kept = select(STRUCTURE, keep=["layer1.0.conv1"])
    assert _free(STRUCTURE) - _free(kept) == {"layer1.0.conv1"}
    assert _blocks(STRUCTURE) - _blocks(kept) == {"layer1.0"}
    group = kept.group("layer1.0.conv1")
    assert group.reason == "keep = 'layer1.0.conv1' leaves it alone"
    kept = select(STRUCTURE, keep=["layer2"])
    assert _blocks(STRUCTURE) - _blocks(kept) == {"layer2.1", "layer2.2"}
    # layer 2 adds to the 16 channels of the first stream, which its shortcut pads with zeros
    assert _free(STRUCTURE) - _free(kept) == {"conv1", *(f"layer2.{i}.conv1" for i in range(3))}


def test_a_kept_parameter_keeps_what_it_reads_as_well() -> None:
    """The weight of the second convolution would get fewer inputs."""
    kept = select(STRUCTURE, keep=["layer3.1.conv2.weight"])
    assert _free(STRUCTURE) - _free(kept) == {"conv1", "layer3.1.conv1"}
    assert _free(STRUCTURE) - _free(select(STRUCTURE, keep=["layer3.1.conv2"])) == {"conv1"}, "what it produces"


def test_what_is_kept_has_its_shape_after_everything_else_is_gone() -> None:
    for glob in ("layer1.0.conv1.weight", "layer3.1.*", "layer2*"):
        kept = select(STRUCTURE, keep=[glob])
        channels = {name: range(1, kept.group(name).size) for name in _free(kept)}
        left = after_removal(kept, {}, _blocks(kept))
        shapes = kept_shapes(left, {name: chosen for name, chosen in channels.items() if name in _free(left)})
        named = glob.rstrip("*")
        assert {name: shape for name, shape in STRUCTURE.shapes.items() if name.startswith(named)} == {
            name: shape for name, shape in shapes.items() if name.startswith(named)
        }


def test_only_frees_what_lies_inside_of_what_is_named() -> None:
    freed = select(STRUCTURE, only=["layer3*"])
    assert _free(freed) == {f"layer3.{i}.conv1" for i in range(3)}, "not the stream of layer 1"
    assert _blocks(freed) == {"layer3.1", "layer3.2"}
    freed = select(STRUCTURE, only=["layer3.1"])
    assert (_free(freed), _blocks(freed)) == ({"layer3.1.conv1"}, {"layer3.1"})
    assert _free(select(STRUCTURE, only=["conv1"])) == {"conv1"}, "a stream is freed by its own name"


def test_keep_wins_over_only() -> None:
    freed = select(STRUCTURE, only=["layer3*"], keep=["layer3.1"])
    assert _free(freed) == {"layer3.0.conv1", "layer3.2.conv1"}
    assert _blocks(freed) == {"layer3.2"}


def test_a_block_can_be_kept_alone() -> None:
    kept = select(STRUCTURE, keep=["layer1.1"])
    assert "layer1.1" not in _blocks(kept)
    assert len(_blocks(kept)) == len(STRUCTURE.blocks) - 1


@pytest.mark.parametrize("option", ["keep", "only"])
def test_a_glob_that_matches_nothing_names_the_nearest(option: str) -> None:
    with pytest.raises(SettingsError, match=rf"{option}: 'layr1' matches no .*did you mean layer1\?"):
        select(STRUCTURE, **{option: ["layr1"]})
    with pytest.raises(SettingsError, match="write \\['layer1'\\]"):
        select(STRUCTURE, **{option: "layer1"})
