"""Which process this is, and of how many; a job of many processes is one in which all make the same calls."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

__all__ = ["World", "all_together", "alone", "apart", "joined", "line", "world"]


T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Process number `rank`, counted from 0, of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and speaks for all."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1


ALONE = World()
_is_apart: ContextVar[bool] = ContextVar("amsc_is_apart", default=False)
_world: ContextVar[World] = ContextVar("amsc_world", default=ALONE)


def world() -> World:
    """The processes of the job that is being done; one alone where nobody has said otherwise by `all_together`."""
    return _world.get()


def _is_called_by_many() -> bool:
    """Whether torchrun, accelerate or the like have started several processes of this program."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """What is called inside this process does alone, whoever else was started beside it.

    So one of several processes can scan a network:

        if torch.distributed.get_rank() == 0:
            with amsc.parallel.apart():
                amsc.scan(model, example, data)
    """
    token = _is_apart.set(True)
    try:
        yield
    finally:
        _is_apart.reset(token)


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """The processes that torchrun has started know each other inside, if they do not yet; each takes the GPU of its
    own, where there are any. Nothing where this process is alone.

    Messages go by gloo on a CPU and by nccl between GPUs; gradients, sums and decisions are all that is sent.
    """
    if _is_apart.get() or not _is_called_by_many() or dist.is_initialized():
        yield
        return
    has_cuda = torch.cuda.is_available()
    if has_cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if has_cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def alone(work: Callable[[], T]) -> T:
    """What `work` makes while no other process is asked for anything."""
    token = _world.set(ALONE)
    try:
        return work()
    finally:
        _world.reset(token)


_lines: list[tuple[Any, Any]] = []
"""The group of all processes, and the one made of it for what is said from processor to processor."""


def line() -> Any:
    """The group by which processes talk without a GPU: made once, whatever the group of all of them uses."""
    if not _lines or _lines[-1][0] is not dist.group.WORLD:
        _lines[:] = [(dist.group.WORLD, dist.new_group(backend="gloo"))]
    return _lines[-1][1]


@contextlib.contextmanager
def all_together() -> Iterator[World]:
    """The job inside is done by all processes that know each other (`torch.distributed`), each of which calls this."""
    many = not _is_apart.get() and dist.is_available() and dist.is_initialized()
    found = World(dist.get_rank(), dist.get_world_size()) if many else ALONE
    token = _world.set(found)
    try:
        yield found
    finally:
        _world.reset(token)
