"""What becomes of channel groups when a network is cut: fewer channels, new biases, two groups that become one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from amsc.structure.parts import ChannelGroup, Member

__all__ = ["followed", "group_with", "handed_on", "joined", "renumbering", "shrunk_group", "with_biases"]


def renumbering(size: int, removed: tuple[int, ...]) -> dict[int, int]:
    """Old position -> new position, for those that stay."""
    lost = set(removed)
    return {old: new for new, old in enumerate(p for p in range(size) if p not in lost)}


def followed(names: tuple[str, ...], new: Mapping[str, str]) -> tuple[str, ...]:
    """The names, each followed by its new one if it has one."""
    return tuple(one for name in names for one in ((name, new[name]) if name in new else (name,)))


def with_biases(group: ChannelGroup, new: Mapping[str, str]) -> ChannelGroup:
    """The group with a bias (weight -> bias in `new`) for each of those weights that make its channels."""
    members: list[Member] = []
    for member in group.members:
        members.append(member)
        if member.parameter in new and member.axis == 0:
            members.append(replace(member, parameter=new[member.parameter]))
    return replace(group, members=tuple(members)) if len(members) > len(group.members) else group


def shrunk_group(
    group: ChannelGroup,
    removed: frozenset[int],
    gone: frozenset[str],
    renumber: Mapping[tuple[str, int], Mapping[int, int]],
) -> ChannelGroup | None:
    """What is left of the group without the channels `removed` and the parameters `gone`, its positions renumbered;
    None if nothing produces a channel any more."""
    kept = [c for c in range(group.size) if c not in removed]
    members = []
    for member in group.members:
        if member.parameter not in gone:
            new = renumber.get((member.parameter, member.axis))
            owned = tuple(
                member.indices[c] if new is None else tuple(new[p] for p in member.indices[c] if p in new) for c in kept
            )
            members.append(replace(member, indices=owned))
    if not kept or not any(member.role != "in" for member in members):
        return None
    # A channel that shared all its positions with others that went is gone as well.
    left = [place for place in range(len(kept)) if all(member.indices[place] for member in members)]
    if len(left) < len(kept):
        members = [replace(m, indices=tuple(m.indices[place] for place in left)) for m in members]
    return replace(group, size=len(left), members=tuple(members)) if left else None


def group_with(groups: Sequence[ChannelGroup], parameter: str, axis: int) -> ChannelGroup | None:
    """The group that owns each position of this axis, one position a channel; None if there is no such group."""
    for group in groups:
        for member in group.members:
            if (member.parameter, member.axis) == (parameter, axis) and {len(own) for own in member.indices} == {1}:
                return group
    return None


def joined(groups: tuple[ChannelGroup, ...], kernel: str) -> tuple[ChannelGroup, ...]:
    """The groups when the convolution with this kernel hands each of its inputs on: the group that it reads and the one
    that it makes are one, with the name and the order of the first."""
    read, made = group_with(groups, kernel, 1), group_with(groups, kernel, 0)
    if read is None or made is None or read is made:
        return groups
    order = _counterparts(read, made, kernel)
    members = {(member.parameter, member.axis): member for member in read.members}
    for member in made.members:
        key, owned = (member.parameter, member.axis), tuple(member.indices[channel] for channel in order)
        if key in members and member.parameter != kernel:  # both are read side by side
            owned = tuple(tuple(sorted(a + b)) for a, b in zip(members[key].indices, owned, strict=True))
        members[key] = replace(member, indices=owned)
    reason, unproven = read.reason or made.reason, read.unproven or made.unproven
    both = replace(read, removable=not reason, reason=reason, members=tuple(members.values()), unproven=unproven)
    return tuple(both if group is read else group for group in groups if group is not made)


def handed_on(
    groups: Sequence[ChannelGroup], kernel: str, channels: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Those of these channels that the convolution with this kernel reads, in the group that it makes."""
    read, made = group_with(groups, kernel, 1), group_with(groups, kernel, 0)
    if read is None or made is None or not channels.get(read.name):
        return {}
    order = _counterparts(read, made, kernel)
    return {made.name: tuple(sorted(order[channel] for channel in channels[read.name]))}


def _counterparts(read: ChannelGroup, made: ChannelGroup, kernel: str) -> list[int]:
    """For each channel that a convolution reads the one that it makes at the same position."""
    place = {position: channel for channel, position in enumerate(_positions(made, kernel, 0))}
    return [place[position] for position in _positions(read, kernel, 1)]


def _positions(group: ChannelGroup, parameter: str, axis: int) -> list[int]:
    member = next(m for m in group.members if (m.parameter, m.axis) == (parameter, axis))
    return [own[0] for own in member.indices]
