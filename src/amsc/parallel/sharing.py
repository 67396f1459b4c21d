"""Work that processes share, and what one of them does for all. Alone, everything is as if nothing were here."""

import contextlib
import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree

from amsc.errors import ParallelError
from amsc.parallel.processes import alone, line, world

__all__ = ["by_first", "highest", "in_turn", "shared", "summed", "told", "told_of_failure"]

T = TypeVar("T")
_turns = itertools.count()
"""Of what is told: the same in all processes, as long as they are in the same place."""
Numbered = tuple[int, T]


def in_turn(items: Iterable[T]) -> Iterator[Numbered[T]]:
    """Those of the items that are this process's, with their numbers: every process takes one after the other."""
    here = world()
    yield from ((number, item) for number, item in enumerate(items) if number % here.size == here.rank)


def shared(work: Callable[[], Iterable[Numbered[T]]]) -> list[T]:
    """What all processes have made together, each its own numbered part of it, in the order of the numbers.

    Raises:
        Exception: what the first of the processes raised in which it failed, in all of them.
    """
    parts = told(lambda: list(work()))
    return [item for _, item in sorted((pair for part in parts for pair in part), key=lambda pair: pair[0])]


def by_first(work: Callable[[], T]) -> T:
    """What the first process makes, in all of them: what is measured, drawn or read from a disk is the same for all.

    It begins when all have come here, so that whatever each of them has read from a disk before is as it was.

    Raises:
        Exception: what the first process raised, in all of them.
    """
    if world().is_alone:
        return work()
    told(lambda: None)  # all have come here
    first: T = told(lambda: alone(work) if world().is_first else None)[0]  # type: ignore[assignment]
    return first


def told_of_failure(work: Callable[[], T]) -> T:
    """What this process makes, once all have come to the end of it.

    Raises:
        Exception: what the first of the processes raised in which it failed, in all of them.
    """
    if world().is_alone:
        return work()
    mine: list[T] = []
    told(lambda: mine.append(work()))
    return mine[0]


def summed(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sums over all processes of tensors that have the same shapes in each."""
    if world().is_alone:
        return list(tensors)
    found = [tensor.detach().clone() for tensor in tensors]
    for tensor in found:
        dist.all_reduce(tensor)
    return found


def told(work: Callable[[], T]) -> list[T]:
    """What each process made, told to all. One that fails must tell, or the others would wait for it.

    Raises:
        Exception: what the first of the processes raised in which it failed, in all of them.
    """
    if world().is_alone:
        return [work()]
    mine: tuple[bool, Any]
    failure: BaseException | None = None
    try:
        mine = True, _on_cpu(work())
    except Exception as error:
        failure, mine = error, (False, _tellable(error))
    turn = next(_turns)
    every: list[tuple[int, bool, Any]] = [(turn, *mine)] * world().size
    dist.all_gather_object(every, (turn, *mine), group=line())
    for _, is_done, value in every:
        if not is_done:
            raise value from failure
    if any(number != turn for number, _, _ in every):
        raise ParallelError(
            "the processes of this job have come to different places: one of them has met an error that the others "
            "have not; look for it in what it said before"
        )
    return [value for _, _, value in every]


def highest(value: int) -> int:
    """The highest of the values of all processes, without waiting for a GPU."""
    if world().is_alone:
        return value
    found = torch.tensor([value])
    dist.all_reduce(found, dist.ReduceOp.MAX, group=line())
    return int(found)


def _tellable(error: Exception) -> Exception:
    """The error, or one with its words where it cannot be sent."""
    with contextlib.suppress(Exception):
        pickle.loads(pickle.dumps(error))
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _on_cpu(value: T) -> T:
    found: T = pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().cpu(), value)
    return found
