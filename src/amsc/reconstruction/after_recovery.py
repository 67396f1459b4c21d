"""In which order channels go if the others make up for them, and what these cannot: prices after recovery."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn

from amsc.borrowing import named_tensors
from amsc.errors import DataError
from amsc.parallel import told_of_failure
from amsc.reconstruction.batches import calibration, in_parts, is_for_all, own_batches
from amsc.reconstruction.calls import matrices
from amsc.reconstruction.elimination import Layer, Reader, elimination
from amsc.reconstruction.moments import Moments, exact
from amsc.reconstruction.planning import rows_looked_at
from amsc.reconstruction.reading import Rows, Wanted, read, sampled
from amsc.reconstruction.survey import Consumer, survey
from amsc.structure.structure import ChannelGroup, Structure

__all__ = ["remainders"]

MOST_READ = 6_000
"""Numbers that a position reads; of wider layers the second moments are not inverted."""
ROUNDING = 64
"""Roundings of a mean square, below which a number that a layer reads is always the same."""


def remainders(
    model: nn.Module,
    structure: Structure,
    groups: Collection[str] | None = None,
    *,
    inputs: Any,
    examples: int = 1024,
    seed: int = 0,
) -> dict[str, tuple[tuple[int, float], ...]]:
    """The channels of each group in the order in which they go if each is the cheapest by then, with the squared error
    that its layer has once the others have made up for it, as a share of that if they do not. Near 0: they can do its
    work. Above 1: they have more to do by then than their own already.

    Taking the inputs S from a layer W that reads u adds rho_S = tr W_S [(H^-1)_SS]^-1 W_S' to its squared error after
    the best compensation, H = E[u u'] + mu I, and tr W_S H_SS W_S' without (optimal brain surgeon by structures:
    Kurtic, Frantar and Alistarh 2023). Prices are taken again after each channel, the layer being then as those before
    left it; of groups of more than 64 after each 64th. Where several layers read a group their errors are added, each
    as a share of the mean square of its output.

    Groups are left out that nobody makes up for: where a reader is no linear operator, has several groups or more than
    6,000 inputs, or may not be refitted (see `reconstruct`). No labels are needed, and `model` comes back as it was.

    Args:
        structure: of this model.
        groups: names of those that are looked at; None: all.
        inputs: batches as forward takes them, or pairs of these and targets: a loader, a list, or amsc's own data.
        examples: at most so many are looked at.
        seed: draws the positions that are looked at.

    Raises:
        DataError: there are no examples, or what a layer reads of them is not finite.
        InputError: `inputs` are not what forward takes.
    """
    with torch.inference_mode(False), torch.no_grad():
        batches = calibration(inputs, structure.inputs, examples).batches
        consumers = survey(model, batches[0]).consumers
        chosen = [each for each in structure.channels if groups is None or each.name in groups]
        read_by = {each.name: found for each in chosen if (found := _readers(structure, each, consumers))}
        wanted = dict.fromkeys(name for readers in read_by.values() for name in readers)
        moments: dict[str, Moments] = {}
        every = [consumers[name] for name in wanted]
        sizes = [8 * one.row_size * (one.row_size + rows_looked_at(one) // len(batches)) for one in every]
        for part in in_parts(every, sizes):
            moments |= _moments(model, batches, part, seed)
        tensors = named_tensors(model)
        layers = {name: _layer(consumers[name], tensors, moments.pop(name)) for name in wanted}
        orders = {}
        for group, readers in read_by.items():
            order, shares = elimination([Reader(layers[name], columns) for name, columns in readers.items()])
            orders[group] = tuple(zip(order.tolist(), shares.tolist(), strict=True))
    return orders


def _readers(structure: Structure, group: ChannelGroup, consumers: Mapping[str, Consumer]) -> dict[str, Tensor]:
    """The consumers that read the group, with what they read of each channel: places in their rows, shape (channel,
    place). Empty where one of them cannot make up for it."""
    found: dict[str, Tensor] = {}
    for member in group.members:
        if member.role != "in":
            continue
        consumer = consumers.get(member.parameter)
        if consumer is None or consumer.reason or consumer.groups > 1 or consumer.row_size > MOST_READ:
            return {}
        if member.axis != (0 if consumer.transposed else 1) or member.parameter in found:
            return {}
        channels, num_inputs = torch.tensor(member.indices), structure.shapes[member.parameter][member.axis]
        places = torch.arange(0, consumer.row_size, num_inputs)[:, None]
        found[member.parameter] = (channels[:, None, :] + places).flatten(1)
    return found


def _moments(model: nn.Module, batches: Sequence[Any], consumers: Sequence[Consumer], seed: int) -> dict[str, Moments]:
    """Second moments of what the consumers read; the last number is a constant 1."""
    by_name = {consumer.weight: consumer for consumer in consumers}
    shares = {
        name: rows_looked_at(consumer) / (consumer.positions * len(batches)) for name, consumer in by_name.items()
    }
    found = {name: Moments() for name in by_name}

    def positions(number: int, name: str, total: int) -> Tensor:
        return sampled(total, shares[name], seed * 1_000_003 + number)

    def look() -> None:
        wanted, own = dict.fromkeys(by_name, Wanted()), own_batches(batches)
        with closing(read(model, own, wanted, positions, inputs=True)) as every:
            for rows in every:
                for name, row in rows.items():
                    inputs = _finite(name, row)
                    found[name].add(torch.cat([inputs, torch.ones_like(inputs[..., :1])], -1), inputs[..., :0])

    told_of_failure(look)
    if not is_for_all(batches):
        for moments in found.values():
            moments.pool()
    return found


def _finite(name: str, row: Rows) -> Tensor:
    assert row.inputs is not None
    if not bool(torch.isfinite(row.inputs).all()):
        raise DataError(
            f"what {name.removesuffix('.weight')} reads is not finite on training examples; check that the data and the"
            ' model\'s weights are finite, or take prices="fisher"'
        )
    return exact(row.inputs)


def _layer(consumer: Consumer, tensors: Mapping[str, Tensor], moments: Moments) -> Layer:
    weights = matrices(exact(tensors[consumer.weight]), 1, transposed=consumer.transposed)[0]
    every = moments.inputs[0] / moments.count
    mean, second = every[:-1, -1], every[:-1, :-1]
    if consumer.has_shift:  # which makes up for the means
        around = second - torch.outer(mean, mean)
        varies = around.diagonal() > ROUNDING * torch.finfo(second.dtype).eps * second.diagonal()
        second = around * varies * varies[:, None]  # what is always the same would leave nothing but rounding
    return Layer.of(weights, second)
