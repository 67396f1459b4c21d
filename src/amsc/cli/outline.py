"""The modules of a network as a tree that says, for each, what it costs and what of it can go."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import nn

from amsc.structure import ChannelGroup, Structure
from amsc.structure.names import enclosing
from amsc.structure.parts import PRODUCERS

__all__ = ["Node", "flat", "outline"]


@dataclass(frozen=True)
class Node:
    """A module, or `alike` modules in a row that are the same but for their names: `label` is then "0-11".

    `parameters` and `macs` are those of one of them, all that is inside included. `groups`: the channel groups that
    its own parameters produce; `pinned`: the axes of its own weights on which positions must stay, as "weight[0]".
    """

    name: str
    label: str
    kind: str
    parameters: int
    macs: int
    groups: tuple[ChannelGroup, ...]
    is_block: bool
    pinned: tuple[str, ...]
    children: tuple["Node", ...]
    alike: int = 1


def outline(model: nn.Module, structure: Structure, *, together: bool = True) -> Node:
    """The tree of the modules that cost something; with `together`, repeated ones are put together."""
    facts = _Facts.of(structure)
    (root,) = _nodes({"": model}, "", facts, together)
    return root


def flat(node: Node) -> Iterator[dict[str, Any]]:
    """The node and all below it as plain values."""
    yield {
        "name": node.name,
        "kind": node.kind,
        "parameters": node.parameters,
        "macs": node.macs,
        "groups": [group.name for group in node.groups],
        "is_block": node.is_block,
        "pinned": list(node.pinned),
    }
    for child in node.children:
        yield from flat(child)


@dataclass(frozen=True)
class _Facts:
    """What is known of every module, by its name."""

    parameters: Mapping[str, int]
    macs: Mapping[str, int]
    groups: Mapping[str, Mapping[str, ChannelGroup]]
    pinned: Mapping[str, tuple[str, ...]]
    blocks: frozenset[str]

    @classmethod
    def of(cls, structure: Structure) -> "_Facts":
        parameters: dict[str, int] = defaultdict(int)
        macs: dict[str, int] = defaultdict(int)
        groups: dict[str, dict[str, ChannelGroup]] = defaultdict(dict)
        pinned: dict[str, dict[str, None]] = defaultdict(dict)
        for name, shape in structure.shapes.items():
            if name not in structure.buffers:
                _add(parameters, enclosing(name), prod(shape))
        for cost in structure.costs:
            _add(macs, (cost.module, *enclosing(cost.module)) if cost.module else (), int(cost.at(structure.shapes)))
        for group in structure.channels:
            for member in group.members:
                if member.role in PRODUCERS:
                    groups[member.parameter.rpartition(".")[0]][group.name] = group
        for pin in structure.pins:
            module, _, tensor = pin.parameter.rpartition(".")
            if len(structure.shapes[pin.parameter]) > 1:
                pinned[module][f"{tensor}[{pin.axis}]"] = None
        return cls(
            parameters,
            macs,
            groups,
            {name: tuple(axes) for name, axes in pinned.items()},
            frozenset(block.name for block in structure.blocks),
        )


def _add(counts: dict[str, int], modules: tuple[str, ...], amount: int) -> None:
    for module in (*modules, ""):
        counts[module] += amount


def _nodes(modules: Mapping[str, nn.Module], above: str, facts: _Facts, together: bool) -> tuple[Node, ...]:
    nodes = []
    for label, module in modules.items():
        name = f"{above}.{label}" if above else label
        if name and not facts.parameters.get(name) and not facts.macs.get(name):
            continue
        node = Node(
            name=name,
            label=label,
            kind=type(module).__name__,
            parameters=facts.parameters.get(name, 0),
            macs=facts.macs.get(name, 0),
            groups=tuple(facts.groups.get(name, {}).values()),
            is_block=name in facts.blocks,
            pinned=facts.pinned.get(name, ()),
            children=_nodes(dict(module.named_children()), name, facts, together),
        )
        nodes.append(_without_wrapper(node) if together and name else node)
    return _together(nodes, _signature) if together else tuple(nodes)


def _without_wrapper(node: Node) -> Node:
    """A module that does nothing but hold one other, as one line with it: "model.encoder"."""
    only = node.children[0] if len(node.children) == 1 else None
    says_more = node.groups or node.pinned or node.is_block or node.label.isdecimal()
    if only is None or says_more or only.alike > 1:
        return node
    is_all = (only.parameters, only.macs) == (node.parameters, node.macs)
    return replace(only, label=f"{node.label}.{only.label}") if is_all else node


def _together(nodes: list[Node], key: Callable[[Node], Hashable]) -> tuple[Node, ...]:
    """Numbered neighbours with equal keys as one node."""
    merged: list[Node] = []
    for node in nodes:
        last = merged[-1] if merged else None
        if last is not None and node.label.isdecimal() and last.label[0].isdecimal() and key(last) == key(node):
            first = last.label.partition("-")[0]
            merged[-1] = replace(last, label=f"{first}-{node.label}", alike=last.alike + 1)
        else:
            merged.append(node)
    return tuple(merged)


def _signature(node: Node, top: str | None = None) -> Hashable:
    """All that a line of the tree says of the node and of what is below it, names counted from the node."""
    top = node.name if top is None else top
    groups = tuple((g.name.removeprefix(f"{top}."), g.kind, g.size, g.removable) for g in node.groups)
    below = tuple((child.label, child.alike, _signature(child, top)) for child in node.children)
    return (node.kind, node.parameters, node.macs, groups, node.is_block, node.pinned, below)
